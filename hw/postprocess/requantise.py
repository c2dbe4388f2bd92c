"""Requantisation: from a finished sum to an activation.

Source: golden/README.md, "Numbers", "Requantisation" (normative).
"""
from amaranth import *
from amaranth.lib import stream, wiring
from amaranth.lib.memory import Memory
from amaranth.lib.wiring import In, Out

from .. import payloads
from ..config import SCALE_BITS, SHIFT_BITS, AcceleratorConfig
from ..stream.fifo import StreamFifo, fifo_latency

#: Bits of the total that one multiplier takes: unsigned, so that a 25 x 18 bit signed DSP slice does the product.
LOW_BITS = 24
#: Bits of the shift that the second shifter stage does; the first shifts by multiples of ``2**FINE_BITS``.
FINE_BITS = 4


class RequantiseLane(wiring.Component):
    """Requantise a sum: ``o = clamp(round_half_even((i_sum + i_scale.bias) * i_scale.scale / 2**i_scale.shift))``.

    ``i_sum + bias`` wraps at ``sum_width``, the product is exact. The clamp is to ``i_clamp.low .. i_clamp.high``.

    Flow control: none, all stages move in each cycle.

    Parameters
    ----------
    config : AcceleratorConfig
        Widths.

    Members
    -------
    i_sum : In(signed(sum_width))
    i_scale : In(payloads.scale(config))
    i_clamp : In(payloads.clamp(config))
        Held while a word is in the pipeline.
    o : Out(value_width)
        The activation as raw bits, ``LATENCY`` cycles later.
    """
    #: Cycles from ``i_sum`` to ``o``: total, products, sum of products, two shifts, rounding, comparison, clamp.
    LATENCY = 8

    def __init__(self, config: AcceleratorConfig):
        self.config = config
        super().__init__({"i_sum": In(signed(config.sum_width)),
                          "i_scale": In(payloads.scale(config)), "i_clamp": In(payloads.clamp(config)),
                          "o": Out(config.value_width)})

    def elaborate(self, platform):
        m = Module()
        product, shift = self._build_product(m)
        shifted, low_bits, over, negative = self._build_shift(m, product, shift)

        # Round half to even: the guard bit says "half or more", the bits behind it "more than half".
        rounded = Signal(signed(self.config.value_width + 3))
        over_q, negative_q = Signal(), Signal()
        value, below, above = Signal(self.config.value_width), Signal(), Signal()
        m.d.sync += [
            rounded.eq((shifted >> 1) + (shifted[0] & (low_bits | shifted[1]))),
            over_q.eq(over),
            negative_q.eq(negative),
            value.eq(rounded),
            below.eq(Mux(over_q, negative_q, rounded < self.i_clamp.low)),
            above.eq(Mux(over_q, ~negative_q, rounded > self.i_clamp.high)),
            self.o.eq(Mux(below, self.i_clamp.low, Mux(above, self.i_clamp.high, value))),
        ]
        return m

    def _build_product(self, m):
        """Total, two partial products, their sum: three stages."""
        sum_width = self.config.sum_width
        total = Signal(signed(sum_width))
        scale = Signal(SCALE_BITS)
        low_product = Signal(LOW_BITS + SCALE_BITS)
        high_product = Signal(signed(sum_width - LOW_BITS + SCALE_BITS))
        product = Signal(signed(sum_width + SCALE_BITS))
        shift, shift_q, shift_q2 = (Signal(SHIFT_BITS, name=name) for name in ("shift", "shift_q", "shift_q2"))
        m.d.sync += [
            total.eq(self.i_sum + self.i_scale.bias),
            scale.eq(self.i_scale.scale),
            shift.eq(self.i_scale.shift),
            low_product.eq(total[:LOW_BITS] * scale),
            high_product.eq(total[LOW_BITS:].as_signed() * scale),
            shift_q.eq(shift),
            product.eq(low_product + (high_product << LOW_BITS)),
            shift_q2.eq(shift_q),
        ]
        return product, shift_q2

    def _build_shift(self, m, product, shift):
        """``2 * product >> shift`` (bit 0 is the guard bit) in two stages, and whether a 1 was shifted out.

        What can only end beyond both clamps is noted in ``over``, so that the second stage and the rest are narrow.
        """
        value_width = self.config.value_width
        coarse_full = Signal(signed(len(product) + 1))
        coarse_lost = Signal()
        with m.Switch(shift[FINE_BITS:]):
            for step in range(1 << SHIFT_BITS - FINE_BITS):
                amount = step << FINE_BITS
                with m.Case(step):
                    m.d.comb += [
                        coarse_full.eq((product << 1) >> amount),
                        coarse_lost.eq(product[:max(amount - 1, 0)].any()),
                    ]
        coarse = Signal(signed(value_width + 3 + (1 << FINE_BITS)))
        coarse_lost_q, coarse_over, coarse_negative = Signal(), Signal(), Signal()
        fine_shift = Signal(FINE_BITS)
        fine_full = Signal.like(coarse)
        fine = Signal(signed(value_width + 3))
        fine_lost, over, negative = Signal(), Signal(), Signal()
        m.d.comb += fine_full.eq(coarse >> fine_shift)
        m.d.sync += [
            coarse.eq(coarse_full),
            coarse_lost_q.eq(coarse_lost),
            coarse_over.eq(_exceeds(coarse_full, len(coarse))),
            coarse_negative.eq(coarse_full[-1]),
            fine_shift.eq(shift),
            fine.eq(fine_full),
            fine_lost.eq(coarse_lost_q | (coarse & ((1 << fine_shift) - 1)).any()),
            over.eq(coarse_over | _exceeds(fine_full, len(fine))),
            negative.eq(coarse_negative),
        ]
        return fine, fine_lost, over, negative


def _exceeds(value, width):
    """The signed ``value`` does not fit ``width`` signed bits."""
    upper = value[width - 1:]
    return upper.any() & ~upper.all()


class Requantise(wiring.Component):
    """Bias, scale, round half to even and clamp ``drain`` sums in parallel, each with the scale of its own channel.

    For sum ``n`` of a word the scale is entry ``half * lanes + lane_word * drain + n``; the formula is that of
    :class:`RequantiseLane`.

    Flow control: one word a cycle. While ``o`` stalls, up to ``DEPTH`` words are taken and wait at ``o``; no path leads
    from ``o.ready`` to ``i.ready``. The scale memory is read in the cycle of the transfer on ``i``.

    Parameters
    ----------
    config : AcceleratorConfig
        Widths and numbers of lanes and drained sums.

    Members
    -------
    i : In(stream.Signature(payloads.sum_word(config)))
        Finished sums.
    i_scales : In(stream.Signature(payloads.scale_write(config), always_ready=True))
        Written to the half that is not being read.
    i_clamp : In(payloads.clamp(config))
        Lowest and highest output. Held while not ``o_idle``.
    o : Out(stream.Signature(payloads.value_word(config)))
        Activations as raw bits.
    o_idle : Out(1)
        No word is inside.
    o_active : Out(1)
        A clock edge may change something: hw/README.md.
    """
    i: stream.Interface
    i_scales: stream.Interface
    o: stream.Interface

    #: Words inside: more than there are stages, so that a stall that ends leaves no gap.
    DEPTH = 16
    #: Cycles from a transfer on ``i`` to ``o.valid``, if ``o`` does not stall.
    LATENCY = 1 + RequantiseLane.LATENCY + fifo_latency(DEPTH)

    def __init__(self, config: AcceleratorConfig):
        self.config = config
        super().__init__({
            "i": In(stream.Signature(payloads.sum_word(config))),
            "i_scales": In(stream.Signature(payloads.scale_write(config), always_ready=True)),
            "i_clamp": In(payloads.clamp(config)),
            "o": Out(stream.Signature(payloads.value_word(config))),
            "o_idle": Out(1), "o_active": Out(1),
        })

    def elaborate(self, platform):
        m = Module()
        # A position waits here from the transfer on ``i`` to that on ``o``: where there is room for it, the values,
        # which come when the lanes have done with them, have room too, and no stage ever has to hold.
        m.submodules.positions = positions = StreamFifo(payloads.position(self.config), depth=self.DEPTH)
        m.submodules.values = values = StreamFifo(self.o.p.values.shape(), depth=self.DEPTH)
        taken = Signal()
        valid = Signal(1 + RequantiseLane.LATENCY)
        m.d.comb += [
            taken.eq(self.i.valid & self.i.ready),
            self.i.ready.eq(positions.i.ready),
            positions.i.valid.eq(self.i.valid), positions.i.payload.eq(self.i.p.position),
            values.i.valid.eq(valid[-1]),
            self.o.valid.eq(values.o.valid), self.o.p.values.eq(values.o.payload),
            self.o.p.position.eq(positions.o.payload),
            values.o.ready.eq(self.o.ready), positions.o.ready.eq(values.o.valid & self.o.ready),
            self.o_idle.eq(positions.level == 0),
            self.o_active.eq(self.i.valid | self.i_scales.valid | ~self.o_idle),
        ]
        m.d.sync += [valid.eq(Cat(taken, valid)), Assert(~values.i.valid | values.i.ready, "a word has no room")]

        for bank in range(self.config.drain):
            m.submodules[f"lane{bank}"] = lane = RequantiseLane(self.config)
            sum_q = Signal.like(lane.i_sum, name=f"sum{bank}_q")
            m.d.sync += sum_q.eq(self.i.p.sums[bank])
            m.d.comb += [
                lane.i_sum.eq(sum_q),
                lane.i_scale.eq(self._build_bank(m, bank, taken)),
                lane.i_clamp.eq(self.i_clamp),
                values.i.payload[bank].eq(lane.o),
            ]
        return m

    def _build_bank(self, m, bank, taken):
        """The scales of the lanes ``bank``, ``bank + drain`` ...; returns those of the word accepted last."""
        window_words = self.config.window_words
        bank_bits = (self.config.drain - 1).bit_length()
        m.submodules[f"scales{bank}"] = scales = Memory(shape=payloads.scale(self.config), depth=2 * window_words,
                                                        init=[])
        write = scales.write_port()
        read = scales.read_port()
        m.d.comb += [
            write.addr.eq(self.i_scales.p.address[bank_bits:]),
            write.data.eq(self.i_scales.p.scale),
            write.en.eq(self.i_scales.valid & (self.i_scales.p.address[:bank_bits] == bank)),
            read.addr.eq(Mux(self.i.p.half, window_words, 0) + self.i.p.lane_word),
            read.en.eq(taken),
        ]
        return read.data
