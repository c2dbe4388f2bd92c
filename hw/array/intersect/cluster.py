"""Cluster: processing elements that share the windows and lanes of a tile.

Source: golden/README.md, "Intersect array"; V. Akhlaghi et al., "SnaPEA", ISCA 2018.
"""
from amaranth import *
from amaranth.lib import data, memory, stream, wiring
from amaranth.lib.wiring import In, Out

from ...config import ROUND_PHASES, AcceleratorConfig
from ...payloads import group_job, lane_start, phase_map, phase_values, tile_map, tile_values
from ...stream.fifo import StreamFifo
from .job_table import JobTable
from .layouts import own_lanes, partial, sum_address, task, window
from .processing_element import ProcessingElement, lowest_set, set_bit
from .window_stepper import WindowStepper

#: Finished sums that wait at the output.
SUMS_DEPTH = 8


def finished(c: AcceleratorConfig) -> data.StructLayout:
    """A job whose sums are final: windows of this group, and sums of each that leave the cluster."""
    return data.StructLayout({"windows": range(c.sum_windows + 1), "slots": range(c.cluster_lanes + 1)})


class Cluster(wiring.Component):
    """The sums of lanes ``slot * clusters + cluster`` of the windows whose turn is ``group``.

    For each job, window and slot one task: the partial sum is read (or the lane's start value taken, in the first
    round), the next free PE adds the round's products, the sum is written back. A sum that is final is passed over: it
    is ``dead``, or all phases of the round have the stop rule and it is below 0. A mark for each sum below 0 tells most
    of the latter without reading them. Partial sums lie in a ring of ``sum_windows`` windows; a window's place is free
    when its sums have left.

    ``JobTable`` and ``WindowStepper`` -> tasks -> ``pes`` x ``ProcessingElement`` -> partial sums -> ``o_sums``.

    Flow control: a task, or a final sum without a mark, a cycle; a cycle for each window besides. A job begins while
    PEs still work on the one before.

    Members
    -------
    i_job : In(Stream(group_job(config)))
    i_map, i_values, i_starts, i_phase_map, i_phase_values : write ports of the tile, and of the cluster's weights
    i_tile_full, i_tile_half, o_tile_take, o_tile_release, i_weights_full, i_weights_half, o_weights_take,
    o_weights_release
        See ``DoubleBufferControl``. A tile is taken and released once for each job; weights are taken with
        ``weights_first`` and released with ``weights_last``.
    o_sums : Out(Stream(signed(sum_width)))
        For each window of a job with ``last_chunk``, ``words * drain / clusters`` sums, slot 0 first.
    o_work : Out(range(pes + 1))
        Products added in the cycle before.
    o_wait : Out(tile 1, weights 1, output 1)
        The next job waits for its tile, for its weights; a window waits for a place for its sums.
    o_idle : Out(1)
        No job is inside and all sums have left.
    """

    i_job: stream.Interface
    o_sums: stream.Interface

    def __init__(self, config: AcceleratorConfig, group: int, cluster: int):
        self.config, self.group, self.cluster = config, group, cluster
        c = config
        super().__init__({
            "i_job": In(stream.Signature(group_job(c))),
            "i_map": In(stream.Signature(tile_map(c), always_ready=True)),
            "i_values": In(stream.Signature(tile_values(c), always_ready=True)),
            "i_starts": In(stream.Signature(lane_start(c), always_ready=True)),
            "i_phase_map": In(stream.Signature(phase_map(c), always_ready=True)),
            "i_phase_values": In(stream.Signature(phase_values(c), always_ready=True)),
            "i_tile_full": In(1), "i_tile_half": In(1), "o_tile_take": Out(1), "o_tile_release": Out(1),
            "i_weights_full": In(1), "i_weights_half": In(1), "o_weights_take": Out(1), "o_weights_release": Out(1),
            "o_sums": Out(stream.Signature(signed(c.sum_width))), "o_work": Out(range(c.pes + 1)),
            "o_wait": Out(data.StructLayout({"tile": 1, "weights": 1, "output": 1})), "o_idle": Out(1),
        })

    def elaborate(self, platform):
        m = Module()
        c = self.config
        m.submodules.table = self._table = JobTable(c)
        m.submodules.stepper = self._stepper = WindowStepper(c, self.group)
        m.submodules.finished = self._finished = StreamFifo(finished(c), depth=2)
        m.submodules.sums = self._sums = memory.Memory(shape=partial(c), depth=c.sum_windows * c.cluster_lanes, init=[])
        self._write, self._read = self._sums.write_port(), self._sums.read_port()
        self._pes = [ProcessingElement(c) for _ in range(c.pes)]
        self._free = Signal(range(c.sum_windows + 1), init=c.sum_windows)   # places of windows in the ring
        self._job, self._half = Signal(group_job(c)), Signal()
        self._stops = self._job.stop_part == 0  # a sum that is below 0 before the round is final
        self._parity = Signal()                 # of the job whose tasks are dealt; the next one has the other
        self._dealing, self._holding = Signal(), Signal()       # tasks are dealt; one waits for a PE
        self._index, self._windows = Signal(range(c.sum_windows)), Signal(range(c.sum_windows + 1))
        self._fires, self._placed, self._unfinished = Signal(), Signal(), Signal(range(3))
        self._address, self._loaded = Signal(sum_address(c)), Signal()
        self._marks, self._marked = Signal(), Signal(sum_address(c))    # a sum is written; where
        self._build_pes(m)
        opens, dealt = self._build_jobs(m)
        begun = self._build_tasks(m, opens)
        left = self._build_results(m, begun)
        jobs_idle = self._build_completion(m, opens, dealt, left)
        drained = self._build_drain(m)
        m.d.sync += self._free.eq(self._free - self._placed + drained)
        m.d.comb += self.o_idle.eq(jobs_idle & (self._finished.level == 0) & ~self._drain_reads & ~self.o_sums.valid
                                   & ~self.i_job.valid)
        return m

    def _build_pes(self, m):
        """The PEs; all of them hold the tile and the weights of the cluster's lanes."""
        c = self.config
        for n, pe in enumerate(self._pes):
            m.submodules[f"pe{n}"] = pe
            for port, source in ((pe.i_map, self.i_map), (pe.i_values, self.i_values),
                                 (pe.i_offset, self._table.o_offset)):
                m.d.comb += [port.valid.eq(source.valid), port.payload.eq(source.payload)]
            for port, source in ((pe.i_phase_map, self.i_phase_map), (pe.i_phase_values, self.i_phase_values)):
                words = c.weight_words * (ROUND_PHASES if source is self.i_phase_map else 1)
                m.d.comb += [port.valid.eq(source.valid),
                             port.p.address.eq(Cat(source.p.slot, source.p.half) * words + source.p.word)]
            m.d.comb += [pe.i_phase_map.p.map.eq(self.i_phase_map.p.map),
                         pe.i_phase_values.p.group.eq(self.i_phase_values.p.group),
                         pe.i_phase_values.p.values.eq(self.i_phase_values.p.values)]
        m.d.comb += self.o_work.eq(sum(pe.o_work for pe in self._pes))

    def _build_jobs(self, m):
        """Take a job when its tile and weights are there and at most one other is unfinished. Returns the pulse that a
        job is taken and the one that all of its tasks have been dealt."""
        c, job, table, stepper = self.config, self._job, self._table, self._stepper
        begins, dealt = Signal(), Signal()
        tile_half = Signal()
        m.d.comb += [table.i_job.eq(job), table.i_table.eq(self._parity), table.i_half.eq(tile_half),
                     stepper.i_job.eq(job), stepper.i_geometry.eq(table.o_geometry), stepper.i_start.eq(table.o_done)]
        pass_index, waiting = Signal(range(c.sum_windows)), Signal()
        m.d.comb += [
            begins.eq(waiting & self.i_job.valid & self.i_tile_full & (self._unfinished != 2)
                      & (~self.i_job.p.weights_first | self.i_weights_full)),
            self.i_job.ready.eq(begins), self.o_tile_take.eq(begins),
            self.o_weights_take.eq(begins & self.i_job.p.weights_first),
            self.o_wait.tile.eq(waiting & self.i_job.valid & ~self.i_tile_full),
            self.o_wait.weights.eq(waiting & self.i_job.valid & self.i_job.p.weights_first & ~self.i_weights_full),
        ]
        with m.FSM():
            with m.State("Wait"):
                m.d.comb += waiting.eq(1)
                with m.If(begins):
                    m.d.sync += [job.eq(self.i_job.payload), tile_half.eq(self.i_tile_half)]
                    with m.If(self.i_job.p.weights_first):
                        m.d.sync += self._half.eq(self.i_weights_half)
                    with m.If(self.i_job.p.pass_first & self.i_job.p.first_chunk):
                        m.d.sync += pass_index.eq(self._index)
                    with m.Elif(self.i_job.p.pass_first):
                        m.d.sync += self._index.eq(pass_index)
                    m.next = "Start"
            with m.State("Start"):
                m.d.comb += table.i_start.eq(1)
                m.next = "Table"
            with m.State("Table"):
                with m.If(table.o_done):
                    m.next = "Deal"
            with m.State("Deal"):
                m.d.comb += self._dealing.eq(1)
                with m.If(stepper.o_done & ~self._holding):
                    m.d.comb += dealt.eq(1)
                    m.d.sync += self._parity.eq(~self._parity)
                    m.next = "Wait"
        return begins, dealt

    def _build_tasks(self, m, opens):
        """Read the partial sum of each window and slot, then give the task to a PE or pass it over. Returns a pulse for
        each PE that begins one."""
        c, job, fire = self.config, self._job, self._fires
        # The task that waits for a PE; its sum comes from the memory, in the next cycles from the register.
        held, fresh, kept = self._holding, Signal(), Signal(partial(c))
        at = Signal(data.StructLayout({"window": window(c), "slot": range(c.cluster_lanes),
                                       "address": self._address.shape()}))
        now, over, gone = Signal(partial(c)), Signal(), Signal()
        begin = data.StructLayout({"start": signed(c.sum_width), "threshold": signed(c.sum_width)})
        m.submodules.starts = starts = memory.Memory(shape=begin, depth=2 * c.cluster_lanes, init=[])
        write, start = starts.write_port(), starts.read_port(domain="comb")
        self._threshold = starts.read_port(domain="comb")
        m.d.comb += [
            write.en.eq(self.i_starts.valid), write.addr.eq(Cat(self.i_starts.p.slot, self.i_starts.p.half)),
            write.data.start.eq(self.i_starts.p.start), write.data.threshold.eq(self.i_starts.p.threshold),
            start.addr.eq(Cat(at.slot, self._half)),
            now.eq(Mux(fresh, Mux(job.first_chunk, Cat(start.data.start, C(0, 1)), self._read.data.as_value()), kept)),
            over.eq(now.dead | self._stops & (now.sum < 0)),
        ]
        slot = self._build_slots(m, opens)
        m.d.sync += [held.eq(fire | held & ~gone), fresh.eq(fire), kept.eq(now)]
        with m.If(fire):
            m.d.sync += [at.window.eq(self._stepper.o.payload), at.slot.eq(slot), at.address.eq(self._address)]
        work = Signal(task(c))
        m.d.comb += [
            work.window.eq(at.window), work.word.eq(Cat(at.slot, self._half) * c.weight_words),
            work.table.eq(self._parity), work.signed.eq(job.signed), work.joined.eq(job.joined),
            work.stop_part.eq(job.stop_part), work.sum.eq(now.sum),
        ]
        begun, taken = Signal(c.pes), C(0)
        for n, pe in enumerate(self._pes):
            m.d.comb += [pe.i_task.payload.eq(work), pe.i_task.valid.eq(held & ~over & ~taken),
                         begun[n].eq(pe.i_task.valid & pe.i_task.ready)]
            taken = taken | pe.i_task.ready
        # A sum on its way must have been written before it is read again.
        clash = held & (at.address == self._address) | self._in_flight(m, begun, at, self._address)
        m.d.comb += [gone.eq(held & (over | begun.any())),
                     fire.eq(self._dealing & self._loaded & ~clash & (~held | gone))]
        return begun

    def _build_slots(self, m, opens):
        """The slots of each window, one after the other; in a round with the stop rule those with a mark are left out.
        Returns the slot."""
        c, job, stepper, fire = self.config, self._job, self._stepper, self._fires
        m.submodules.negative = self._negative = memory.Memory(shape=c.cluster_lanes, depth=c.sum_windows, init=[])
        self._mark, seen = self._negative.write_port(granularity=1), self._negative.read_port(domain="comb")
        slots, slot = Signal(range(c.cluster_lanes + 1)), Signal(range(c.cluster_lanes))
        wanted, todo, lowest = (Signal(c.cluster_lanes, name=name) for name in ("wanted", "todo", "lowest"))
        load, last = Signal(), Signal()
        m.d.comb += [
            slots.eq(own_lanes(c, job.lanes, self.cluster)), seen.addr.eq(self._index),
            wanted.eq(Cat(n < slots for n in range(c.cluster_lanes)) & ~Mux(self._stops, seen.data, 0)),
            self.o_wait.output.eq(self._dealing & stepper.o.valid & job.first_chunk & (self._free == 0)),
            # A place in the ring begins with no mark; results, which set or clear theirs, go first.
            load.eq(self._dealing & stepper.o.valid & ~self._loaded
                    & (~job.first_chunk | (self._free != 0) & ~self._marks)),
            self._placed.eq(load & job.first_chunk),
            self._mark.addr.eq(Mux(self._placed, self._index, self._marked[(c.cluster_lanes - 1).bit_length():])),
            self._mark.data.eq((~self._placed & (self._write.data.sum < 0)).replicate(c.cluster_lanes)),
            self._mark.en.eq(Mux(self._placed, -1, Mux(
                self._marks, 1 << self._marked[:(c.cluster_lanes - 1).bit_length()], 0))),
            lowest.eq(lowest_set(todo)), last.eq(todo == lowest), self._address.eq(Cat(slot, self._index)),
            slot.eq(set_bit(lowest)),
            stepper.o.ready.eq(fire & last | load & (wanted == 0)),
        ]
        with m.If(load):
            m.d.sync += [todo.eq(wanted), self._loaded.eq(wanted != 0)]
        with m.If(fire):
            m.d.sync += [todo.eq(todo & ~lowest), self._loaded.eq(~last)]
        with m.If(stepper.o.ready & stepper.o.valid):
            m.d.sync += [self._index.eq(self._index + 1), self._windows.eq(self._windows + 1)]
        with m.If(opens):
            m.d.sync += self._windows.eq(0)
        return slot

    def _in_flight(self, m, begun, at, address):
        """Where the results of all PEs go. Returns whether ``address`` is one of these places."""
        c = self.config
        place = data.StructLayout({"busy": 1, "address": len(address), "slot": len(at.slot), "job": 1, "half": 1,
                                   "predict": 1})
        self._places = [[Signal(place, name=f"place{n}_{parity}") for parity in range(2)] for n in range(c.pes)]
        for n, places in enumerate(self._places):
            parity = Signal(name=f"parity{n}")
            with m.If(begun[n]):
                m.d.sync += parity.eq(~parity)
                with m.Switch(parity):
                    for number, entry in enumerate(places):
                        with m.Case(number):
                            m.d.sync += [entry.busy.eq(1), entry.address.eq(at.address), entry.slot.eq(at.slot),
                                         entry.job.eq(self._parity), entry.half.eq(self._half),
                                         entry.predict.eq(self._job.predict)]
        return Cat(entry.busy & (entry.address == address) for places in self._places for entry in places).any()

    def _build_results(self, m, begun):
        """Write the sum of a task that has ended, one a cycle. Returns how many of each job are in flight."""
        c = self.config
        left = [Signal(range(2 * c.pes + 1), name=f"left{parity}") for parity in range(2)]
        place, outcome, valid = Signal.like(self._places[0][0]), Signal(partial(c)), Signal()
        predicted = Signal()
        for pe, places in reversed([*zip(self._pes, self._places, strict=True)]):
            with m.If(pe.o_result.valid):
                m.d.comb += [valid.eq(1), outcome.eq(pe.o_result.p.partial),
                             place.eq(Mux(pe.o_result.p.parity, places[1], places[0]))]
        earlier = C(0)
        for pe, places in zip(self._pes, self._places, strict=True):
            m.d.comb += pe.o_result.ready.eq(~earlier)
            for parity, entry in enumerate(places):
                with m.If(pe.o_result.valid & ~earlier & (pe.o_result.p.parity == parity)):
                    m.d.sync += entry.busy.eq(0)
            earlier = earlier | pe.o_result.valid
        m.d.comb += [
            self._threshold.addr.eq(Cat(place.slot, place.half)),
            predicted.eq(place.predict & (outcome.sum < self._threshold.data.threshold)),
            self._write.en.eq(valid), self._write.addr.eq(place.address),
            self._write.data.sum.eq(Mux(predicted & (outcome.sum >= 0), -1, outcome.sum)),
            self._write.data.dead.eq(outcome.dead | predicted),
            self._marks.eq(valid), self._marked.eq(place.address),
        ]
        for parity, count in enumerate(left):
            m.d.sync += count.eq(count + (begun.any() & (self._parity == parity)) - (valid & (place.job == parity)))
        return left

    def _build_completion(self, m, opens, dealt, left):
        """Give tile and weights back, and hand finished sums to the drain, when all tasks of the oldest job have ended.
        Returns whether no job is inside."""
        c, job = self.config, self._job
        kept = data.StructLayout({"dealt": 1, "weights_last": 1, "last_chunk": 1, "finished": finished(c)})
        jobs = [Signal(kept, name=f"job{parity}") for parity in range(2)]
        oldest, complete, now = Signal(), Signal(), Signal(kept)
        words = c.drain // c.clusters
        for parity, entry in enumerate(jobs):
            with m.If(dealt & (self._parity == parity)):
                m.d.sync += [
                    entry.dealt.eq(1), entry.weights_last.eq(job.weights_last), entry.last_chunk.eq(job.last_chunk),
                    entry.finished.windows.eq(self._windows), entry.finished.slots.eq(job.words * words)]
            with m.If(complete & (oldest == parity)):
                m.d.sync += entry.dealt.eq(0)
        m.d.comb += [
            now.eq(Mux(oldest, jobs[1], jobs[0])),
            complete.eq(now.dealt & (Mux(oldest, left[1], left[0]) == 0)
                        & (~now.last_chunk | self._finished.i.ready)),
            self.o_tile_release.eq(complete), self.o_weights_release.eq(complete & now.weights_last),
            self._finished.i.valid.eq(complete & now.last_chunk), self._finished.i.payload.eq(now.finished),
        ]
        m.d.sync += [oldest.eq(oldest ^ complete), self._unfinished.eq(self._unfinished + opens - complete)]
        return self._unfinished == 0

    def _build_drain(self, m):
        """Read the sums of finished windows while no task is begun. Returns the pulse that a window has left."""
        c, ready = self.config, self._finished.o
        m.submodules.out = out = StreamFifo(signed(c.sum_width), depth=SUMS_DEPTH)
        wiring.connect(m, out.o, wiring.flipped(self.o_sums))
        at, slot = Signal(range(c.sum_windows)), Signal(range(c.cluster_lanes))
        done, reads, window_ends, arrives = Signal(range(c.sum_windows + 1)), Signal(), Signal(), Signal()
        self._drain_reads = arrives
        m.d.comb += [
            reads.eq(ready.valid & (done != ready.p.windows) & ~self._fires & (out.level + arrives < SUMS_DEPTH)),
            window_ends.eq(reads & (slot + 1 == ready.p.slots)), ready.ready.eq(done == ready.p.windows),
            self._read.en.eq(self._fires | reads),
            self._read.addr.eq(Mux(self._fires, self._address, Cat(slot, at))),
            out.i.valid.eq(arrives), out.i.payload.eq(self._read.data.sum),
        ]
        m.d.sync += arrives.eq(reads)
        with m.If(reads):
            m.d.sync += slot.eq(Mux(window_ends, 0, slot + 1))
        with m.If(window_ends):
            m.d.sync += [at.eq(at + 1), done.eq(done + 1)]
        with m.If(ready.valid & ready.ready):
            m.d.sync += done.eq(0)
        return window_ends
