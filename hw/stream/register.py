"""A pipeline stage that cuts every path of a stream."""
from amaranth import *
from amaranth.lib import stream, wiring
from amaranth.lib.wiring import In, Out


class StreamRegister(wiring.Component):
    """Pass words on, with ``o.valid``, ``o.payload`` and ``i.ready`` from registers.

    Flow control: one transfer a cycle. When ``o`` stalls, one more word is taken into a spare register; then ``i``
    stalls, a cycle after ``o`` did. No path leads from one side to the other.

    Parameters
    ----------
    shape : ShapeLike
        Shape of a word.

    Members
    -------
    i : In(stream.Signature(shape))
        Words.
    o : Out(stream.Signature(shape))
        The same words.
    """
    i: stream.Interface
    o: stream.Interface

    #: Cycles from a transfer on ``i`` to its ``o.valid``, if ``o`` does not stall.
    LATENCY = 1

    def __init__(self, shape):
        self.shape = shape
        super().__init__({"i": In(stream.Signature(shape)), "o": Out(stream.Signature(shape))})

    def elaborate(self, platform):
        m = Module()
        word, given = Value.cast(self.i.payload), Value.cast(self.o.payload)
        spare = Signal(len(word))
        spare_full = Signal()

        m.d.comb += self.i.ready.eq(~spare_full)
        with m.If(~self.o.valid | self.o.ready):
            m.d.sync += [
                self.o.valid.eq(self.i.valid | spare_full),
                given.eq(Mux(spare_full, spare, word)),
                spare_full.eq(0),
            ]
        with m.Elif(self.i.valid & ~spare_full):
            m.d.sync += spare_full.eq(1)
        # Loaded without looking at o: it counts only while spare_full is set, and stays out of the path from o.ready.
        with m.If(~spare_full):
            m.d.sync += spare.eq(word)
        return m
