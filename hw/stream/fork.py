"""One stream to several receivers."""
from amaranth import *
from amaranth.lib import stream, wiring
from amaranth.lib.wiring import In, Out


class StreamFork(wiring.Component):
    """Give every word of ``i`` to each of ``count`` outputs, once.

    Flow control: one transfer a cycle. An output may take the word before the others do; ``i`` transfers with the last
    one. ``o[n].valid`` depends combinationally on ``i.valid``, ``i.ready`` on all ``o[n].ready``, and no output on
    another.

    Parameters
    ----------
    shape : ShapeLike
        Shape of a word.
    count : int
        Outputs, at least 1.

    Members
    -------
    i : In(stream.Signature(shape))
        Words.
    o : Out(stream.Signature(shape)).array(count)
        The same words.
    """
    i: stream.Interface

    #: Cycles from ``i.valid`` to ``o[n].valid``.
    LATENCY = 0

    def __init__(self, shape, count: int):
        if not isinstance(count, int) or count < 1:
            raise ValueError(f"count must be a positive integer, not {count!r}")
        self.shape, self.count = shape, count
        super().__init__({"i": In(stream.Signature(shape)), "o": Out(stream.Signature(shape)).array(count)})

    def elaborate(self, platform):
        m = Module()
        #: Bit n: output n has the word that is still at i.
        served = Signal(self.count)
        ready = Cat(output.ready for output in self.o)
        for n, output in enumerate(self.o):
            m.d.comb += [
                Value.cast(output.payload).eq(Value.cast(self.i.payload)),
                output.valid.eq(self.i.valid & ~served[n]),
            ]
        m.d.comb += self.i.ready.eq((served | ready).all())
        with m.If(self.i.valid):
            m.d.sync += served.eq(Mux(self.i.ready, 0, served | ready))
        return m
