"""Processing element: the sum of one window and lane at a time, multiplied where activation and weight are not zero.

Source: V. Akhlaghi et al., "SnaPEA", ISCA 2018, section V (a sum stops when its sign is known); golden/README.md,
"Intersect array".
"""
from amaranth import *
from amaranth.lib import data, memory, stream, wiring
from amaranth.lib.wiring import In, Out

from ...config import BEAT, ROUND_PHASES, SEGMENT, UNPACKED, AcceleratorConfig
from ...payloads import tile_map, tile_values
from .layouts import (
    map_address,
    offset,
    offset_write,
    result,
    task,
    tile_address,
    word_address,
    word_map,
    word_values,
)

#: Words of work of a task that wait for the multiplier: they bridge words without any.
QUEUE_DEPTH = 16
#: Words that may be on their way to a queue when it says that it has no room.
FETCH_STAGES = 3


def work_word(c: AcceleratorConfig) -> data.StructLayout:
    """Channels of a word in which activation and weight are not zero. ``last`` of its task; ``stops``: its phase has
    the stop rule."""
    return data.StructLayout({"bits": unsigned(c.block), "tile": tile_address(c), "word": word_address(c),
                              "last": 1, "stops": 1, "parity": 1})


def fetch_state(c: AcceleratorConfig) -> data.StructLayout:
    """Where the fetch of a task is: word of the kernel, phase of the round, and map, of all phases."""
    return data.StructLayout({"number": range(c.weight_words), "part": range(ROUND_PHASES),
                              "count": range(ROUND_PHASES * c.weight_words)})


def task_words(c: AcceleratorConfig) -> data.StructLayout:
    """The fields of a task that say which words it has."""
    return data.StructLayout({name: field.shape for name, field in task(c) if name not in ("signed", "sum")})


def element(c: AcceleratorConfig) -> data.StructLayout:
    """One multiplication; ``multiply`` is 0 if it only ends a task without any."""
    return data.StructLayout({"valid": 1, "multiply": 1, "tile": tile_address(c), "word": word_address(c),
                              "channel": range(c.block), "first": 1, "last": 1, "stops": 1, "parity": 1})


def lowest_set(bits):
    """The lowest set bit alone."""
    return bits & ~(bits - 1)


def set_bit(one_hot):
    """The number of the only bit that is set."""
    return Cat(Cat(one_hot[n] for n in range(len(one_hot)) if n >> k & 1).any()
               for k in range((len(one_hot) - 1).bit_length()))


def more_than_one(bits):
    """Whether at least two bits are set, as a tree."""
    def count(bits):
        if len(bits) == 1:
            return bits, C(0)
        (low, lows), (high, highs) = count(bits[:len(bits) // 2]), count(bits[len(bits) // 2:])
        return low | high, lows | highs | low & high
    return count(bits)[1]


class ProcessingElement(wiring.Component):
    """``sum = task.sum + sum of activation * weight`` over the words of a task; it ends early when the rest is known.

    A task walks its words once for each phase of the round, with the maps of that phase. ``work = activation map &
    phase map``: its ones are multiplied, lowest first. Words with work wait in a queue of their task, by its parity;
    those of the next task are fetched while the queue of the present one is full, or has all of its words.

    Stop rule: from phase ``task.stop_part`` of the round on a sum that is below 0 after a product ends the task at
    once, ``dead``. Products that are on their way then (at most ``ADD_LATENCY``) are lost; the next task's first word
    is chosen from in the cycle after.

    Flow control: a word fetched and a multiplication a cycle, without a bubble between tasks that have work. Two tasks
    at most are inside, one whose result waits included; ``i_task.ready`` comes from registers.

    Members
    -------
    i_map, i_values : In(Stream(tile_map(config))), In(Stream(tile_values(config))), always ready
        Writes of the tile memory.
    i_phase_map, i_phase_values : In(...), always ready
        Writes of the weight memory: ``address`` in words of the cluster, ``map``; ``group``, ``values``.
    i_offset : In(Stream(offset_write(config)), always ready)
        Writes of the table of offsets.
    i_task : In(Stream(task(config)))
        Tasks alternate between parity 0 (the first) and 1.
    o_result : Out(Stream(result(config)))
        In the order of the tasks.
    o_work : Out(1)
        A product was added in the cycle before.
    o_idle : Out(1)
        No task is inside.
    """
    i_map: stream.Interface
    i_values: stream.Interface
    i_phase_map: stream.Interface
    i_phase_values: stream.Interface
    i_offset: stream.Interface
    i_task: stream.Interface
    o_result: stream.Interface
    o_work: Signal
    o_idle: Signal

    #: Cycles from the choice of a multiplication to the look at its sum.
    ADD_LATENCY = 4

    def __init__(self, config: AcceleratorConfig):
        self.config = c = config
        super().__init__({
            "i_map": In(stream.Signature(tile_map(c), always_ready=True)),
            "i_values": In(stream.Signature(tile_values(c), always_ready=True)),
            "i_phase_map": In(stream.Signature(word_map(c), always_ready=True)),
            "i_phase_values": In(stream.Signature(word_values(c), always_ready=True)),
            "i_offset": In(stream.Signature(offset_write(c), always_ready=True)),
            "i_task": In(stream.Signature(task(c))), "o_result": Out(stream.Signature(result(c))),
            "o_work": Out(1), "o_idle": Out(1),
        })

    def elaborate(self, platform):
        m = Module()
        # The task of parity ``retiring`` is stopped. The stages behind the queues rest while a result waits.
        self._kill, self._retiring, self._moves = Signal(), Signal(), Signal()
        # Parity of the task that was taken last. By parity: whether it has words left to fetch, whether its queue has
        # room; one sign for all tasks: a layer begins when no task is left.
        self._parity, self._signed = Signal(init=1), Signal()
        self._fetching, self._room = Signal(2), Signal(2)
        self._accepted, inside = Signal(), Signal(2)
        m.d.sync += inside.eq(inside + self._accepted - (self.o_result.valid & self.o_result.ready))
        m.d.comb += [
            self.i_task.ready.eq(inside != 2), self.o_idle.eq(inside == 0),
            self._accepted.eq(self.i_task.valid & self.i_task.ready),
            self._moves.eq(~self.o_result.valid | self.o_result.ready),
        ]
        joined = self._build_fetch(m)
        chosen = self._build_queues(m, joined)
        self._build_sum(m, *self._build_operands(m, chosen))
        with m.If(self._accepted):
            m.d.sync += [self._parity.eq(~self._parity), self._signed.eq(self.i_task.p.signed)]
        return m

    def _killed(self, parity):
        return self._kill & (parity == self._retiring)

    def _kept(self, m, name, shape, word, parity):
        """``word`` of the task of ``parity``, kept in LUTs when a task is taken."""
        m.submodules[name] = words = memory.Memory(shape=shape, depth=2, init=[])
        write, read = words.write_port(), words.read_port(domain="comb")
        m.d.comb += [write.en.eq(self._accepted), write.addr.eq(~self._parity), write.data.eq(word),
                     read.addr.eq(parity)]
        return read.data

    def _memory(self, m, name, shape, depth, port, address, word):
        """A memory written through ``port``."""
        m.submodules[name] = words = memory.Memory(shape=shape, depth=depth, init=[])
        write = words.write_port()
        m.d.comb += [write.en.eq(port.valid), write.addr.eq(address), write.data.eq(word)]
        return words

    def _build_fetch(self, m):
        """The words of a task: an address a cycle, then both maps, then what they have in common."""
        c, at = self.config, Signal(fetch_state(self.config))
        # The older task, as long as it has words left and room for them; the state of its fetch, once that has begun.
        older, which, fields, begun = ~self._parity, Signal(), task_words(c), Signal(2)
        able = self._fetching & self._room
        front = self._kept(m, "tasks", fields, Cat(self.i_task.p[name] for name, _ in fields), which)
        m.submodules.fetches = fetches = memory.Memory(shape=fetch_state(c), depth=2, init=[])
        state, kept = fetches.write_port(), fetches.read_port(domain="comb")
        m.d.comb += [
            which.eq(Mux(able.bit_select(older, 1), older, self._parity)),
            kept.addr.eq(which), at.eq(Mux(begun.bit_select(which, 1), kept.data, 0)), state.addr.eq(which),
        ]
        table, maps, phases = self.i_offset, self.i_map, self.i_phase_map
        tap = self._memory(m, "offsets", offset(c), 2 << len(at.number), table, Cat(table.p.word, table.p.table),
                           table.p.offset).read_port(domain="comb")
        map_read = self._memory(m, "tile_map", c.block, 2 * c.tile_slots * SEGMENT, maps, maps.p.address,
                                maps.p.map).read_port()
        phase_read = self._memory(m, "phase_map", c.block, len(map_address(c)), phases, phases.p.address,
                                  phases.p.map).read_port()
        step, last = Signal(), Signal()
        m.d.comb += [
            tap.addr.eq(Cat(at.number, front.table)), step.eq(able.bit_select(which, 1)),
            last.eq(tap.data.last & (at.part == front.joined)),
            map_read.addr.eq(tap.data.address + front.window.address),
            phase_read.addr.eq(front.word * ROUND_PHASES + at.count),
            state.en.eq(step), state.data.number.eq(Mux(tap.data.last, 0, at.number + 1)),
            state.data.part.eq(at.part + tap.data.last), state.data.count.eq(at.count + 1),
        ]
        for parity in range(2):
            with m.If(step & (which == parity)):
                m.d.sync += begun[parity].eq(1)
            with m.If((step & last & (which == parity)) | self._killed(parity)):
                m.d.sync += self._fetching[parity].eq(0)
            with m.If(self._accepted & (self._parity != parity)):
                m.d.sync += [self._fetching[parity].eq(1), begun[parity].eq(0)]
        read, joined = Signal(work_word(c)), Signal(work_word(c))
        valid, inside, joined_valid = Signal(), Signal(), Signal()
        m.d.sync += [
            valid.eq(step & ~self._killed(which)),
            inside.eq(front.window.rows.bit_select(tap.data.row, 1)
                      & front.window.columns.bit_select(tap.data.column, 1)),
            read.tile.eq(map_read.addr), read.word.eq(front.word + at.number), read.last.eq(last),
            read.stops.eq(at.part >= front.stop_part), read.parity.eq(which), joined.eq(read),
            joined.bits.eq(map_read.data & phase_read.data & inside.replicate(c.block)),
            joined_valid.eq(valid & ~self._killed(read.parity)),
        ]
        return joined, joined_valid

    def _build_queues(self, m, joined):
        """Words with work, and the last word of each task; then their bits, one a cycle."""
        c = self.config
        word, word_valid = joined
        m.submodules.queue = queue = memory.Memory(shape=work_word(c), depth=2 * QUEUE_DEPTH, init=[])
        write, read = queue.write_port(), queue.read_port(domain="comb")
        # Words written to and taken from the queue of each parity, modulo twice its depth.
        written, taken = ([Signal(range(2 * QUEUE_DEPTH), name=f"{name}{parity}") for parity in range(2)]
                          for name in ("written", "taken"))
        # The queue that words are taken from; the next of them is the first of its task.
        head, opening, source, first = Signal(), Signal(init=1), Signal(), Signal()
        now, now_valid, now_first, final, lowest = (Signal(work_word(c)), Signal(), Signal(), Signal(),
                                                    Signal(c.block))
        filled, turns, push, pop, chosen = Signal(2), Signal(), Signal(), Signal(), Signal()
        m.d.comb += [
            # The task that is stopped had words left.
            turns.eq(self._killed(head) & ~opening), source.eq(head ^ turns), first.eq(opening | turns),
            push.eq(word_valid & (word.bits.any() | word.last) & ~self._killed(word.parity)),
            final.eq(~more_than_one(now.bits)), chosen.eq(now_valid & ~self._killed(now.parity)),
            pop.eq(filled.bit_select(source, 1) & (~chosen | final) & self._moves),
            write.en.eq(push), write.data.eq(word), lowest.eq(lowest_set(now.bits)),
            write.addr.eq(Cat(Mux(word.parity, written[1], written[0])[:-1], word.parity)),
            read.addr.eq(Cat(Mux(source, taken[1], taken[0])[:-1], source)),
        ]
        for parity in range(2):
            level = (written[parity] - taken[parity])[:len(written[parity])]
            m.d.comb += [filled[parity].eq(level != 0), self._room[parity].eq(level < QUEUE_DEPTH - FETCH_STAGES)]
            m.d.sync += [written[parity].eq(written[parity] + (push & (word.parity == parity))),
                         taken[parity].eq(Mux(self._killed(parity), written[parity],
                                              taken[parity] + (pop & (source == parity))))]
        m.d.sync += [head.eq(source ^ (pop & read.data.last)), opening.eq(Mux(pop, read.data.last, first))]
        with m.If(pop):
            m.d.sync += [now.eq(read.data), now_valid.eq(1), now_first.eq(first)]
        with m.Elif(self._moves & chosen & ~final):
            m.d.sync += [now.bits.eq(now.bits & ~lowest), now_first.eq(0)]
        with m.Elif(self._moves):
            m.d.sync += now_valid.eq(0)
        one = Signal(element(c))
        with m.If(self._moves):
            m.d.sync += [
                one.valid.eq(chosen), one.multiply.eq(now.bits.any()), one.tile.eq(now.tile), one.word.eq(now.word),
                one.channel.eq(set_bit(lowest)), one.first.eq(now_first), one.last.eq(now.last & final),
                one.stops.eq(now.stops), one.parity.eq(now.parity),
            ]
        return one

    def _build_operands(self, m, one):
        """The activation and the weight of an element, two cycles later; 0 and any if it multiplies nothing."""
        c = self.config
        values, weights = self.i_values, self.i_phase_values
        tile = self._memory(m, "tile_values", values.p.values.shape(), 2 * c.tile_slots * SEGMENT * c.block // UNPACKED,
                            values, Cat(values.p.part, values.p.address), values.p.values).read_port()
        word = self._memory(m, "weights", BEAT, 2 * c.cluster_lanes * c.weight_words * c.block_groups, weights,
                            Cat(weights.p.group, weights.p.address), weights.p.values).read_port()
        read, ready = Signal(element(c)), Signal(element(c))
        value, weight = Signal(signed(c.value_width + 1)), Signal(signed(c.value_width))
        byte, part_bits = Signal(c.value_width), (UNPACKED - 1).bit_length()
        m.d.comb += [
            tile.addr.eq(Cat(one.channel[part_bits:], one.tile)), tile.en.eq(self._moves),
            word.addr.eq(Cat(one.channel[3:], one.word)), word.en.eq(self._moves),
            byte.eq(tile.data.word_select(read.channel[:part_bits], c.value_width)),
        ]
        with m.If(self._moves):
            m.d.sync += [
                read.eq(one), ready.eq(read),
                value.eq(Mux(read.multiply, Cat(byte, byte[-1] & self._signed).as_signed(), 0)),
                weight.eq(word.data.word_select(read.channel[:3], c.value_width)),
                read.valid.eq(one.valid & ~self._killed(one.parity)),
                ready.valid.eq(read.valid & ~self._killed(read.parity)),
            ]
        return value, weight, ready

    def _build_sum(self, m, value, weight, ready):
        """Product and sum (one DSP slice, with the choice of what is added to), then the stop rule."""
        c = self.config
        total, added, adds, dead = Signal(signed(c.sum_width)), Signal(element(c)), Signal(), Signal()
        start = self._kept(m, "starts", signed(c.sum_width), self.i_task.p.sum, ready.parity)
        m.d.comb += [
            adds.eq(ready.valid & ~self._killed(ready.parity) & self._moves),
            dead.eq(added.valid & added.stops & (total < 0)),
            self._kill.eq(dead & self._moves), self._retiring.eq(added.parity),
        ]
        m.d.sync += self.o_work.eq(adds & ready.multiply)
        with m.If(self._moves):
            m.d.sync += [
                added.eq(ready), added.valid.eq(adds),
                self.o_result.valid.eq(dead | added.valid & added.last), self.o_result.p.parity.eq(added.parity),
                self.o_result.p.partial.sum.eq(total), self.o_result.p.partial.dead.eq(dead),
            ]
        with m.If(adds):
            m.d.sync += total.eq(Mux(ready.first, start, total) + value * weight)
