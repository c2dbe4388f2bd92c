"""Scales and weights of a layer, from DRAM to the memories of the groups and of the requantiser.

Source: golden/README.md, "Weight image" and "Loop order".
"""
from amaranth import *
from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import In, Out

from .. import payloads
from ..config import BEAT, AcceleratorConfig

#: Bits of an address in beats.
ADDRESS_BITS = 32 - 3
#: Where scale and shift lie in the second beat of a lane's scales.
SCALE_BIT, SHIFT_BIT = 0, 32


def part(c: AcceleratorConfig) -> data.StructLayout:
    """One transfer of the weight image: the ``scales`` of a kernel block, or a chunk of weights.

    ``address`` and ``beats`` are in beats; ``word_beats`` are those of one weight address (all lanes).
    """
    return data.StructLayout({"scales": 1, "address": unsigned(ADDRESS_BITS), "beats": unsigned(24),
                              "word_beats": range(c.lanes // c.values_per_beat + 1)})


class WeightPlanner(wiring.Component):
    """Walk the loops of a layer over its weight image: kernel blocks, passes, channel chunks, row chunks.

    ``beats = rows * kernel_columns * channels * ceil(lanes_m * value_width / 64)`` for a chunk, ``2 * ceil(lanes_m /
    block) * block`` for scales. With one chunk in all there is one pass.

    Flow control: ``o`` is valid 6 cycles after the transfer before, 7 at the start of a pass, 4 for scales; the next
    part is worked out while the present one is transferred.

    Parameters
    ----------
    config : AcceleratorConfig
        Sizes.

    Members
    -------
    i : In(stream.Signature(payloads.layer()))
        A layer whose chunks fit; copied when taken.
    i_idle : In(1)
        All parts so far have been written. ``i`` is ready again only then.
    o : Out(stream.Signature(part(config)))
        What to load, in the order of loading.
    o_idle : Out(1)
        No layer is in progress.
    o_active : Out(1)
        A clock edge may change something: hw/README.md.
    """
    i: stream.Interface
    i_idle: Signal
    o: stream.Interface
    o_idle: Signal
    o_active: Signal

    #: Cycles from a transfer on ``i`` to ``o.valid``.
    LATENCY = 3

    def __init__(self, *, config: AcceleratorConfig):
        self.config = config
        super().__init__({"i": In(stream.Signature(payloads.layer())), "i_idle": In(1),
                          "o": Out(stream.Signature(part(config))), "o_idle": Out(1), "o_active": Out(1)})

    def elaborate(self, platform):
        m = Module()
        layer = Signal(payloads.layer())
        # What is left of each loop with the present round, and how much of it that round does.
        left = Signal(data.StructLayout({"lanes": layer.out_channels.shape(), "passes": layer.passes.shape(),
                                         "channels": layer.in_channels.shape(), "rows": layer.kernel_rows.shape()}))
        now = Signal(data.StructLayout({"lanes": range(self.config.lanes + 1), "channels": left.channels.shape(),
                                        "rows": left.rows.shape()}))
        m.d.comb += [self.o.p.word_beats.eq(ceil_divide(now.lanes, self.config.values_per_beat)), self.o_active.eq(1)]
        with m.FSM():
            with m.State("Idle"):
                m.d.comb += [self.i.ready.eq(1), self.o_idle.eq(1), self.o_active.eq(self.i.valid)]
                m.d.sync += [layer.eq(self.i.p), left.lanes.eq(self.i.p.out_channels),
                             self.o.p.address.eq(self.i.p.weight_address >> 3)]
                with m.If(self.i.valid):
                    m.next = "Kernels"
            with m.State("Kernels"):
                m.d.sync += now.lanes.eq(least(left.lanes, self.config.lanes))
                m.next = "Scales"
            with m.State("Scales"):
                blocks = ceil_divide(now.lanes, self.config.block)
                m.d.sync += [self.o.p.scales.eq(1), self.o.p.beats.eq(blocks * (2 * self.config.block))]
                m.next = "Offer"
            self._build_chunk(m, layer, left, now)
            with m.State("Offer"):
                m.d.comb += [self.o.valid.eq(1), self.o_active.eq(self.o.ready)]
                with m.If(self.o.ready):
                    m.d.sync += self.o.p.address.eq(self.o.p.address + self.o.p.beats)
                    m.next = "Advance"
            self._build_advance(m, layer, left, now)
            with m.State("Finish"):
                m.d.comb += self.o_active.eq(self.i_idle)
                with m.If(self.i_idle):
                    m.next = "Idle"
        return m

    def _build_chunk(self, m, layer, left, now):
        """States that size a chunk, one product in each."""
        taps = Signal(range(7 * 7 + 1))
        words = Signal(range(self.config.weight_depth + 1))
        with m.State("Chunk"):
            m.d.sync += [now.rows.eq(least(left.rows, layer.chunk_rows)),
                         now.channels.eq(least(left.channels, layer.chunk_channels))]
            m.next = "Taps"
        with m.State("Taps"):
            m.d.sync += taps.eq(now.rows * layer.kernel_columns)
            m.next = "Words"
        with m.State("Words"):
            m.d.sync += words.eq(taps * now.channels)
            m.next = "Beats"
        with m.State("Beats"):
            m.d.sync += [self.o.p.scales.eq(0), self.o.p.beats.eq(words * self.o.p.word_beats)]
            m.next = "Offer"

    def _build_advance(self, m, layer, left, now):
        """States that go on to the next round of the innermost loop that has one."""
        first_chunk = Signal(ADDRESS_BITS)
        whole = Signal()
        m.d.comb += whole.eq((now.rows == layer.kernel_rows) & (now.channels == layer.in_channels))
        with m.State("Advance"):
            m.next = "Chunk"
            with m.If(self.o.p.scales):
                m.d.sync += [first_chunk.eq(self.o.p.address), left.passes.eq(layer.passes)]
                m.next = "Restart"
            with m.Elif(left.rows != now.rows):
                m.d.sync += left.rows.eq(left.rows - now.rows)
            with m.Elif(left.channels != now.channels):
                m.d.sync += [left.rows.eq(layer.kernel_rows), left.channels.eq(left.channels - now.channels)]
            with m.Elif((left.passes != 1) & ~whole):
                m.d.sync += [self.o.p.address.eq(first_chunk), left.passes.eq(left.passes - 1)]
                m.next = "Restart"
            with m.Elif(left.lanes != now.lanes):
                m.d.sync += left.lanes.eq(left.lanes - now.lanes)
                m.next = "Kernels"
            with m.Else():
                m.next = "Finish"
        with m.State("Restart"):
            m.d.sync += [left.rows.eq(layer.kernel_rows), left.channels.eq(layer.in_channels)]
            m.next = "Chunk"


class WeightLoader(wiring.Component):
    """Load the weights and scales of layer after layer into their double buffers.

    Each kernel block has its scales in one half of the scale buffer, each chunk its weights in one half of the weight
    buffer, in the order of the loops. 8-bit weights are packed in pairs as ``payloads.unit_weights`` says.

    Flow control: a part (scales or a chunk) is requested when its half is free, then its data are taken one beat a
    cycle without a stall. From its last beat to the next request pass 3 cycles.

    Parameters
    ----------
    config : AcceleratorConfig
        Sizes.

    Members
    -------
    i_layer : In(stream.Signature(payloads.layer()))
        A layer whose chunks fit ``weight_depth``. Ready again when its last chunk has been filled.
    o_request : Out(stream.Signature(payloads.request()))
        One for each part.
    i_data : In(stream.Signature(64))
        Beats in the order of the requests.
    o_weights : Out(stream.Signature(payloads.weight_write(config), always_ready=True))
        One for each beat of weights. Nothing is written for beats of lanes that the kernel block does not have.
    o_scales : Out(stream.Signature(payloads.scale_write(config), always_ready=True))
        One for each lane, up to a multiple of ``block``.
    i_free, i_half : In(1)
        A half of the weight buffer may be filled, and which.
    o_filled : Out(1)
        Pulse, the cycle after the last write of a chunk.
    i_scales_free, i_scales_half, o_scales_filled : In(1), In(1), Out(1)
        The same of the scale buffer, for a kernel block.
    o_idle : Out(1)
        No layer is in progress.
    o_active : Out(1)
        A clock edge may change something: hw/README.md.
    """
    i_layer: stream.Interface
    o_request: stream.Interface
    i_data: stream.Interface
    o_weights: stream.Interface
    o_scales: stream.Interface
    i_free: Signal
    i_half: Signal
    o_filled: Signal
    i_scales_free: Signal
    i_scales_half: Signal
    o_scales_filled: Signal
    o_idle: Signal
    o_active: Signal

    #: Cycles from a transfer on ``i_data`` to ``o_weights.valid``; from a lane's second beat to ``o_scales.valid``.
    LATENCY = 1

    def __init__(self, *, config: AcceleratorConfig):
        self.config = config
        super().__init__({
            "i_layer": In(stream.Signature(payloads.layer())),
            "o_request": Out(stream.Signature(payloads.request())),
            "i_data": In(stream.Signature(BEAT)),
            "o_weights": Out(stream.Signature(payloads.weight_write(config), always_ready=True)),
            "o_scales": Out(stream.Signature(payloads.scale_write(config), always_ready=True)),
            "i_free": In(1), "i_half": In(1), "o_filled": Out(1),
            "i_scales_free": In(1), "i_scales_half": In(1), "o_scales_filled": Out(1),
            "o_idle": Out(1), "o_active": Out(1),
        })

    def elaborate(self, platform):
        m = Module()
        m.submodules.planner = planner = WeightPlanner(config=self.config)
        wiring.connect(m, wiring.flipped(self.i_layer), planner.i)
        m.d.comb += self.o_idle.eq(planner.o_idle)
        present = Signal(part(self.config))
        taken, last, waits = Signal(), Signal(), Signal()
        m.d.comb += [
            taken.eq(self.i_data.valid & self.i_data.ready),
            self.o_active.eq(~waits | planner.o_active | self.o_weights.valid | self.o_scales.valid),
        ]
        with m.FSM():
            with m.State("Request"):
                free = Mux(planner.o.p.scales, self.i_scales_free, self.i_free)
                m.d.comb += [
                    planner.i_idle.eq(1),
                    waits.eq(~(planner.o.valid & planner.o.ready)),
                    self.o_request.valid.eq(planner.o.valid & free),
                    planner.o.ready.eq(self.o_request.ready & free),
                ]
                m.d.sync += present.eq(planner.o.p)
                with m.If(planner.o.valid & planner.o.ready):
                    m.next = "Receive"
            with m.State("Receive"):
                m.d.comb += [self.i_data.ready.eq(1), waits.eq(~taken)]
                with m.If(taken & last):
                    m.next = "Write"
            with m.State("Write"):
                m.next = "Filled"
            with m.State("Filled"):
                # The buffers answer in the next cycle, in which their i_free are looked at again.
                m.d.comb += [self.o_filled.eq(~present.scales), self.o_scales_filled.eq(present.scales)]
                m.next = "Request"
        with m.If(taken):
            m.d.sync += present.beats.eq(present.beats - 1)
        m.d.comb += [
            last.eq(present.beats == 1),
            self.o_request.p.address.eq(Cat(C(0, 3), planner.o.p.address)),
            self.o_request.p.beats.eq(planner.o.p.beats),
        ]
        start = planner.o.ready
        self._build_weights(m, present, start=start, taken=taken & ~present.scales)
        build_scales(m, self.config, self.o_scales, half=self.i_scales_half, beat=self.i_data.payload, start=start,
                     taken=taken & present.scales)
        return m

    def _build_weights(self, m, present, *, start, taken):
        """Address and pack the beats of a chunk."""
        write = self.o_weights
        address, beat = Signal.like(write.p.address), Signal.like(write.p.beat)
        with m.If(start):
            m.d.sync += [address.eq(Mux(self.i_half, self.config.weight_depth, 0)), beat.eq(0)]
        with m.If(taken):
            m.d.sync += beat.eq(beat + 1)
            with m.If(beat == present.word_beats - 1):
                m.d.sync += [beat.eq(0), address.eq(address + 1)]
        m.d.sync += [write.valid.eq(taken), write.p.address.eq(address), write.p.beat.eq(beat)]
        for n in range(self.config.units_per_beat):
            weights = self.i_data.payload.word_select(n, BEAT // self.config.units_per_beat)
            if self.config.lanes_per_unit == 2:
                even, odd = weights[:8], weights[8:].as_signed()
                m.d.sync += write.p.units[n].eq(Cat(even, (odd - even[7])[:9]))
            else:
                m.d.sync += write.p.units[n].eq(weights)


def build_scales(m, config: AcceleratorConfig, write, *, half, beat, start, taken):
    """Join the two beats of each lane's scales and write them, a cycle after the second, to ``half`` of their buffer.

    ``write``: stream of ``payloads.scale_write``, always ready. ``start``: the scales of a kernel block follow.
    ``taken``: ``beat`` is one of them.
    """
    bias = Signal.like(write.p.scale.bias)
    address, second = Signal.like(write.p.address), Signal()
    with m.If(start):
        m.d.sync += address.eq(Mux(half, config.lanes, 0))
    with m.If(taken):
        m.d.sync += second.eq(~second)
        with m.If(second):
            m.d.sync += address.eq(address + 1)
        with m.Else():
            m.d.sync += bias.eq(beat)
    m.d.sync += [
        write.valid.eq(taken & second),
        write.p.address.eq(address),
        write.p.scale.bias.eq(bias),
        write.p.scale.scale.eq(beat[SCALE_BIT:]),
        write.p.scale.shift.eq(beat[SHIFT_BIT:]),
    ]


def least(value, limit):
    """The smaller of two numbers."""
    return Mux(value > limit, limit, value)


def ceil_divide(value, divisor: int):
    """``value / divisor`` rounded up; ``divisor`` is a power of two."""
    return (value + divisor - 1) >> divisor.bit_length() - 1
