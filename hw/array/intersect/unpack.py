"""Unpack: values that are packed without gaps, back to the places of their channels.

Source: golden/README.md, "Compressed feature map" and "Intersect array".
"""
from amaranth import *
from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import In, Out

from ...config import BEAT

#: Values of a beat, and channels of a mask.
VALUES = 8
VALUE_BITS = BEAT // VALUES


def value_mask() -> data.StructLayout:
    """Which of 8 channels have a value. ``last``: the next value is the first of a beat."""
    return data.StructLayout({"mask": unsigned(VALUES), "last": 1})


def placed_values() -> data.StructLayout:
    """The values of 8 channels, each in its place, and the mask that they were unpacked with."""
    return data.StructLayout({"values": unsigned(BEAT), "mask": unsigned(VALUES)})


class Unpack(wiring.Component):
    """Give each set bit of a mask the next value of a packed stream, lowest bit first; the others get 0.

    Flow control: one mask a cycle, and a beat for it. A mask that needs no further beat (0, for instance) does not wait
    for one. After a mask with ``last`` the rest of the present beat is dropped; no beat is taken for what follows it.
    The ``ready`` of ``i_mask`` and ``i_beats`` depend on ``o.ready``, that of ``i_mask`` on ``i_beats.valid``.

    Members
    -------
    i_mask : In(stream.Signature(value_mask()))
        Any masks.
    i_beats : In(stream.Signature(64))
        8 values, the first in bits 0..7.
    o : Out(stream.Signature(placed_values()))
        One for each mask, also for one that is 0.
    o_idle : Out(1)
        All masks so far have their values: no beat is taken before the next mask.
    """
    i_mask: stream.Interface
    i_beats: stream.Interface
    o: stream.Interface
    o_idle: Signal

    #: Cycles from a transfer on ``i_mask`` to ``o.valid``.
    LATENCY = 2

    def __init__(self):
        super().__init__({"i_mask": In(stream.Signature(value_mask())), "i_beats": In(stream.Signature(BEAT)),
                          "o": Out(stream.Signature(placed_values())), "o_idle": Out(1)})

    def elaborate(self, platform):
        m = Module()
        # ``indices``: for each place, the number in its beat of the value that goes there. ``fresh``: which numbers are
        # those of the next beat.
        mask, indices, fresh = Signal(VALUES), Signal(data.ArrayLayout(range(VALUES), VALUES)), Signal(VALUES)
        valid, needs, step = Signal(), Signal(), Signal()
        # How many values of the beat, the last ones, will be left for the next mask.
        left, count = Signal(range(VALUES)), Signal(range(VALUES + 1))
        m.d.comb += [
            count.eq(sum(self.i_mask.p.mask)),
            self.i_mask.ready.eq(~valid | step),
            self.o_idle.eq(~valid),
        ]
        with m.If(self.i_mask.ready):
            m.d.sync += [valid.eq(self.i_mask.valid), mask.eq(self.i_mask.p.mask), needs.eq(count > left)]
            m.d.sync += [fresh[n].eq(left < VALUES - n) for n in range(VALUES)]
            m.d.sync += [indices[place].eq(sum(self.i_mask.p.mask[:place]) - left) for place in range(VALUES)]
            with m.If(self.i_mask.valid):
                m.d.sync += left.eq(Mux(self.i_mask.p.last, 0, left - count))
        self._build_values(m, mask, indices, fresh, valid=valid, needs=needs, step=step)
        return m

    def _build_values(self, m, mask, indices, fresh, *, valid, needs, step):
        """Second stage. What is left of a beat and what the next one has to add never lie at the same place of them."""
        beat, next_beat = Signal(data.ArrayLayout(VALUE_BITS, VALUES)), Signal(data.ArrayLayout(VALUE_BITS, VALUES))
        free = Signal()
        m.d.comb += [
            next_beat.eq(self.i_beats.payload),
            free.eq(~self.o.valid | self.o.ready),
            step.eq(valid & free & (~needs | self.i_beats.valid)),
            self.i_beats.ready.eq(valid & free & needs),
        ]
        values = [Mux(fresh[n], next_beat[n], beat[n]) for n in range(VALUES)]
        with m.If(free):
            m.d.sync += self.o.valid.eq(step)
        with m.If(self.i_beats.valid & self.i_beats.ready):
            m.d.sync += beat.eq(next_beat)
        with m.If(step):
            m.d.sync += self.o.p.mask.eq(mask)
            for place in range(VALUES):
                m.d.sync += self.o.p.values.word_select(place, VALUE_BITS).eq(
                    Mux(mask[place], Array(values)[indices[place]], 0))
