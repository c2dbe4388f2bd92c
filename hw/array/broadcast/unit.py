"""Unit: one multiplier (DSP slice) with the sums of the lanes that share it."""
from amaranth import *
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from ...config import AcceleratorConfig
from ...payloads import unit_weights


class Unit(wiring.Component):
    """Multiply a value with the weights of one lane (16 bits) or two (8 bits), sum up, and shift finished sums out.

    8 bits: the memory holds ``w1 - (w0 < 0)`` and ``w0``; with them ``product = value * (w1 * 2**16 + w0)``, whose low
    16 bits are ``value * w0`` and whose high part plus bit 15, the borrow of the low one, is ``value * w1``.

    Flow control: none, a value a cycle. ``i_value`` comes one cycle after its ``i_weights``, ``i_add`` and ``i_first``
    come ``ADD_DELAY`` cycles after them; the sums change one cycle later.

    Members
    -------
    i_weights : In(unit_weights(config))
        Out of the weight memory.
    i_value : In(signed(value_width + 1))
        From a register, one cycle after ``i_weights``.
    i_add, i_first : In(1)
        Add the product to the sums; start them with it.
    i_load, i_shift : In(1)
        Copy the sums to the shadow registers; else copy ``i_shadow`` there.
    i_shadow, o_shadow : In, Out(signed(lane_sum_width)), for each lane, the even one first
        Shadow registers of the unit ``drain`` lanes on, and of this one.
    """

    i_weights: Signal
    i_value: Signal
    i_add: Signal
    i_first: Signal
    i_load: Signal
    i_shift: Signal
    i_shadow: list[Signal]
    o_shadow: list[Signal]

    #: Operand register and product.
    ADD_DELAY = 2

    def __init__(self, config: AcceleratorConfig):
        self.config = config
        lane = signed(config.lane_sum_width)
        super().__init__({
            "i_weights": In(unit_weights(config)), "i_value": In(signed(config.value_width + 1)),
            "i_add": In(1), "i_first": In(1), "i_load": In(1), "i_shift": In(1),
            "i_shadow": In(lane).array(config.lanes_per_unit), "o_shadow": Out(lane).array(config.lanes_per_unit),
        })

    def elaborate(self, platform):
        m = Module()
        paired = self.config.lanes_per_unit == 2
        # Nothing here needs a reset: ``i_first`` starts a sum, and a shadow register is loaded before it is used.
        weight = Signal(signed(25 if paired else 16), reset_less=True)
        product = Signal(signed(34 if paired else 33), reset_less=True)
        row = self.i_weights
        # Two weights in one operand: the even one extended to 16 bits, the odd one above it.
        operand = Cat(row[:8], row[7].replicate(8), row[8:]) if paired else row
        m.d.sync += [weight.eq(operand), product.eq(weight * self.i_value)]
        for lane in range(self.config.lanes_per_unit):
            self._build_lane(m, lane, product, paired)
        return m

    def _build_lane(self, m, lane, product, paired):
        width = self.config.lane_sum_width
        total = Signal(signed(width), reset_less=True, name=f"total{lane}")
        shadow = Signal(signed(width), reset_less=True, name=f"shadow{lane}")
        old = Mux(self.i_first, 0, total)
        if not paired:
            new = old + product
        elif lane == 0:
            new = old + product[:16].as_signed()
        else:
            # The borrow enters as the carry of the one adder.
            new = (Cat(1, old).as_signed() + product[15:].as_signed()) >> 1
        with m.If(self.i_add):
            m.d.sync += total.eq(new)
        with m.If(self.i_load):
            m.d.sync += shadow.eq(total)
        with m.Elif(self.i_shift):
            m.d.sync += shadow.eq(self.i_shadow[lane])
        m.d.comb += self.o_shadow[lane].eq(shadow)
