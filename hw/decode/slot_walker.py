"""From the input of a tile to the addresses of its slots.

Source: golden/README.md, "Compressed feature map", "Dense feature map" and "Tile geometry".
"""
from amaranth import *
from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import In, Out

from .. import payloads
from ..config import ROW_BITS, SEGMENT, AcceleratorConfig
from ..stream.fifo import StreamFifo
from ..stream.register import StreamRegister

#: Bits of an address in beats.
ADDRESS_BITS = 32 - 3


def slot_place() -> data.StructLayout:
    """A slot in DRAM: ``address`` in beats; ``last`` of its job; ``none``: the job has no slot, ``address`` is void."""
    return data.StructLayout({"address": unsigned(ADDRESS_BITS), "last": 1, "none": 1})


class SlotWalker(wiring.Component):
    """Walk the slots of a job and request the first beats of each.

    ``address = in_address + row * in_row_bytes + segment * in_segment_bytes + block * in_block_bytes``, in the order
    block, row, segment (segment fastest). A request is for the sparsity map of a compressed slot, or for the whole of
    a dense one.

    Flow control: a slot every two cycles (no slot can be read in less than four), 4 cycles of set-up for a job. A
    request is made only if ``depth`` beats hold what has been requested and not been taken, and if ``o`` has stored
    less than ``SLOTS`` slots.

    Parameters
    ----------
    config : AcceleratorConfig
        Sizes.
    depth : int
        Beats that the receiver of the requested data can store, at least those of a full dense slot.

    Members
    -------
    i_layer : In(payloads.layer())
        Constant while a job is walked. ``dense_shift`` is at most ``log2(block)``.
    i_job : In(stream.Signature(payloads.load_job(config)))
        What to load. A job with ``rows``, ``segments`` or ``blocks`` 0 makes no request and one ``o`` with ``none``.
    i_beat_taken : In(1)
        Pulse: the receiver of the data has taken one beat out of its store.
    o_request : Out(stream.Signature(payloads.request()))
        Map or dense segment.
    o : Out(stream.Signature(slot_place()))
        The slots of those requests, perhaps before the request is taken.
    o_idle : Out(1)
        No job is walked and no slot is stored.
    o_active : Out(1)
        A clock edge may change something: hw/README.md.
    """
    i_layer: data.View
    i_job: stream.Interface
    i_beat_taken: Signal
    o_request: stream.Interface
    o: stream.Interface
    o_idle: Signal
    o_active: Signal

    #: Slots that may wait at ``o``: what is in flight at a time.
    SLOTS = 32
    #: Cycles from a transfer on ``i_job`` to the first ``o_request.valid``.
    LATENCY = 6

    def __init__(self, *, config: AcceleratorConfig, depth: int):
        if depth < config.value_beats:
            raise ValueError(f"depth must be at least {config.value_beats}, the beats of a full slot, not {depth!r}")
        self.config, self.depth = config, depth
        super().__init__({
            "i_layer": In(payloads.layer()),
            "i_job": In(stream.Signature(payloads.load_job(config))),
            "i_beat_taken": In(1),
            "o_request": Out(stream.Signature(payloads.request())),
            "o": Out(stream.Signature(slot_place())),
            "o_idle": Out(1), "o_active": Out(1),
        })

    def elaborate(self, platform):
        m = Module()
        m.submodules.slots = slots = StreamFifo(shape=slot_place(), depth=self.SLOTS)
        # The receiver's ready is late: it ends in this register.
        m.submodules.place = place = StreamRegister(slot_place())
        wiring.connect(m, slots.o, place.i)
        wiring.connect(m, place.o, wiring.flipped(self.o))
        job = Signal(payloads.load_job(self.config))
        base, product = Signal(ADDRESS_BITS), Signal(ADDRESS_BITS)
        # Blocks are counted in slots: so their distance fits the multiplier.
        self._slot_bits = self.config.slot_bytes.bit_length() - 1
        first = base + (product << self._slot_bits - 3)
        start, step, advance, walks = Signal(), Signal(), Signal(), Signal()
        address, last = self._build_walk(m, job, first, start=start, advance=advance)
        beats, allowed, credit_moves = self._build_credit(m, step)

        m.d.comb += [
            slots.i.p.address.eq(address),
            walks.eq(1),
            self.o_active.eq(walks | slots.o_moves | credit_moves | self.o.valid & self.o.ready
                             | self.o_request.valid & self.o_request.ready),
        ]
        with m.If(self.o_request.ready):
            m.d.sync += self.o_request.valid.eq(0)
        with m.If(step):
            m.d.sync += [self.o_request.valid.eq(1), self.o_request.p.address.eq(Cat(C(0, 3), address)),
                         self.o_request.p.beats.eq(beats)]
        with m.FSM():
            with m.State("Idle"):
                m.d.comb += [self.i_job.ready.eq(1), walks.eq(self.i_job.valid),
                             self.o_idle.eq((slots.level == 0) & ~self.o.valid)]
                m.d.sync += job.eq(self.i_job.p)
                with m.If(self.i_job.valid):
                    m.next = "Row"
            self._build_base(m, job, base, product)
            with m.State("Start"):
                m.d.comb += start.eq(1)
                m.next = "Walk"
            with m.State("Walk"):
                m.d.comb += [
                    # The request waits in a register: its ready goes nowhere else.
                    step.eq(allowed & slots.i.ready & ~self.o_request.valid),
                    slots.i.valid.eq(step),
                    slots.i.p.last.eq(last),
                    walks.eq(step),
                ]
                with m.If(step):
                    m.next = "Advance"
                    with m.If(last):
                        m.next = "Idle"
            with m.State("Advance"):
                m.d.comb += advance.eq(1)
                m.next = "Walk"
            with m.State("None"):
                m.d.comb += [slots.i.valid.eq(1), slots.i.p.none.eq(1), slots.i.p.last.eq(1)]
                with m.If(slots.i.ready):
                    m.next = "Idle"
        return m

    def _build_base(self, m, job, base, product):
        """States that sum up the address of the job's first row and segment, and then multiply for its block."""
        count, stride = Signal(ROW_BITS), Signal(32 - self._slot_bits)
        m.d.comb += [count.eq(job.row), stride.eq(self.i_layer.in_row_bytes >> 3)]
        m.d.sync += product.eq(count * stride)
        with m.State("Row"):
            m.next = "Segment"
            with m.If((job.rows == 0) | (job.segments == 0) | (job.blocks == 0)):
                m.next = "None"
        with m.State("Segment"):
            m.d.comb += [count.eq(job.segment), stride.eq(self.i_layer.in_segment_bytes >> 3)]
            m.d.sync += base.eq(product + (self.i_layer.in_address >> 3))
            m.next = "Block"
        with m.State("Block"):
            m.d.comb += [count.eq(job.block), stride.eq(self.i_layer.in_block_bytes[self._slot_bits:])]
            m.d.sync += base.eq(base + product)
            m.next = "Start"

    def _build_walk(self, m, job, first, *, start, advance):
        """Three nested counters, each with the address at which its round began. Returns the slot's address, and
        whether it is the last one of the job."""
        blocks_left, rows_left, segments_left = (Signal.like(count) for count in (job.blocks, job.rows, job.segments))
        address, row_address, block_address = (Signal(ADDRESS_BITS, name=name)
                                               for name in ("address", "row_address", "block_address"))
        row_ends, block_ends, last = Signal(), Signal(), Signal()
        # The counters do not change in the cycle before ``advance``.
        row_ends_q, block_ends_q = Signal(), Signal()
        origin, stride, following = (Signal(ADDRESS_BITS, name=name) for name in ("origin", "stride", "following"))
        m.d.comb += [
            row_ends.eq(segments_left == 1),
            block_ends.eq(row_ends & (rows_left == 1)),
            last.eq(block_ends & (blocks_left == 1)),
            origin.eq(Mux(block_ends_q, block_address, Mux(row_ends_q, row_address, address))),
            stride.eq(Mux(block_ends_q, self.i_layer.in_block_bytes[3:],
                          Mux(row_ends_q, self.i_layer.in_row_bytes >> 3, self.i_layer.in_segment_bytes >> 3))),
            following.eq(origin + stride),
        ]
        m.d.sync += [row_ends_q.eq(row_ends), block_ends_q.eq(block_ends)]
        with m.If(start):
            m.d.sync += [address.eq(first), row_address.eq(first), block_address.eq(first)]
            m.d.sync += [segments_left.eq(job.segments), rows_left.eq(job.rows), blocks_left.eq(job.blocks)]
        with m.If(advance):
            m.d.sync += [address.eq(following), segments_left.eq(segments_left - 1)]
            with m.If(row_ends_q):
                m.d.sync += [row_address.eq(following), segments_left.eq(job.segments), rows_left.eq(rows_left - 1)]
            with m.If(block_ends_q):
                m.d.sync += [block_address.eq(following), rows_left.eq(job.rows), blocks_left.eq(blocks_left - 1)]
        return address, last

    def _build_credit(self, m, step):
        """Returns the beats of a request, whether they fit into the room that the receiver has left, and whether an
        edge may change that. What has been requested a cycle ago does not count yet: no request follows at once."""
        room = Signal(range(self.depth + 1), init=self.depth)
        beats = Signal(range(self.config.value_beats + 1))
        enough, allowed, moves = Signal(), Signal(), Signal()
        with m.Switch(Cat(self.i_layer.dense_in, self.i_layer.dense_shift)):
            for shift in range(self.config.block.bit_length()):
                with m.Case(shift << 1 | 1):
                    m.d.sync += beats.eq(max(1, (SEGMENT << shift) // self.config.values_per_beat))
            with m.Default():
                m.d.sync += beats.eq(self.config.map_beats)
        m.d.comb += [enough.eq(room >= beats), moves.eq(self.i_beat_taken | (allowed != enough))]
        m.d.sync += [allowed.eq(enough), room.eq(room - Mux(step, beats, 0) + self.i_beat_taken)]
        return beats, allowed, moves
