"""Unit: one multiplier (DSP slice) with the weights and the sums of the lanes that share it."""
from amaranth import *
from amaranth.lib import data, memory, wiring
from amaranth.lib.wiring import In, Out

from ...config import AcceleratorConfig
from ...payloads import unit_weights


class Unit(wiring.Component):
    """Multiply a value with the weights of one lane (16 bits) or two (8 bits), and sum up.

    8 bits: the memory holds ``w1 - (w0 < 0)`` and ``w0``; with them ``product = value * (w1 * 2**16 + w0)``, whose low
    16 bits are ``value * w0`` and whose high part plus bit 15, the borrow of the low one, is ``value * w1``.

    Flow control: none, a value a cycle. Relative to ``i_address``, ``i_value`` comes ``VALUE_DELAY`` and ``i_add`` and
    ``i_first`` come ``ADD_DELAY`` cycles later; ``o_sums`` changes one cycle after these.

    Members
    -------
    i_write, i_write_address, i_weights : In
        Write port of the weight memory.
    i_address : In(range(2 * weight_depth))
    i_value : In(signed(value_width + 1))
    i_add, i_first : In(1)
        Add the product to the sums; start them with it.
    o_sums : Out(ArrayLayout(signed(lane_sum_width), lanes_per_unit))
        The even lane first.
    """

    i_write: Signal
    i_write_address: Signal
    i_weights: Signal
    i_address: Signal
    i_value: Signal
    i_add: Signal
    i_first: Signal
    o_sums: data.View

    #: Weight memory and operand register.
    VALUE_DELAY = 2
    #: .. and the product.
    ADD_DELAY = 3

    def __init__(self, config: AcceleratorConfig):
        self.config = config
        sums = data.ArrayLayout(signed(config.lane_sum_width), config.lanes_per_unit)
        super().__init__({
            "i_write": In(1), "i_write_address": In(range(2 * config.weight_depth)),
            "i_weights": In(unit_weights(config)), "i_address": In(range(2 * config.weight_depth)),
            "i_value": In(signed(config.value_width + 1)), "i_add": In(1), "i_first": In(1), "o_sums": Out(sums),
        })

    def elaborate(self, platform):
        m = Module()
        c = self.config
        m.submodules.weights = weights = memory.Memory(shape=unit_weights(c), depth=2 * c.weight_depth, init=[])
        write, read = weights.write_port(), weights.read_port()
        m.d.comb += [
            write.en.eq(self.i_write), write.addr.eq(self.i_write_address), write.data.eq(self.i_weights),
            read.addr.eq(self.i_address),
        ]
        paired = c.lanes_per_unit == 2
        weight = Signal(signed(25 if paired else 16))
        product = Signal(signed(34 if paired else 33))
        # Two weights in one operand: the even one extended to 16 bits, the odd one above it.
        operand = Cat(read.data[:8], read.data[7].replicate(8), read.data[8:]) if paired else read.data
        # The value comes from a register: with it, both operands of the multiplier are registered.
        m.d.sync += [weight.eq(operand), product.eq(weight * self.i_value)]
        with m.If(self.i_add):
            for lane, total in enumerate(self.o_sums):
                old = Mux(self.i_first, 0, total)
                if not paired:
                    m.d.sync += total.eq(old + product)
                elif lane == 0:
                    m.d.sync += total.eq(old + product[:16].as_signed())
                else:
                    # The borrow enters as the carry of the one adder.
                    m.d.sync += total.eq((Cat(1, old).as_signed() + product[15:].as_signed()) >> 1)
        return m
