"""A queue of words. It wraps the queues of ``amaranth.lib.fifo`` in streams."""
from amaranth import *
from amaranth.lib import fifo, stream, wiring
from amaranth.lib.wiring import In, Out

#: Deepest queue kept in distributed RAM (a LUT of the 7 series stores 32 entries); deeper ones go to block RAM.
MAX_LUT_DEPTH = 32


def fifo_latency(depth: int) -> int:
    """Cycles from a transfer on ``i`` of an empty :class:`StreamFifo` to its ``o.valid``."""
    return 1 if depth <= MAX_LUT_DEPTH else 2


class StreamFifo(wiring.Component):
    """Keep up to ``depth`` words and give them out in their order.

    Latency: :func:`fifo_latency`.

    Flow control: one transfer a cycle on both sides (``depth`` of at least 2); ``i.ready`` and ``o.valid`` come from
    registers, so no path leads from one side to the other. A full queue does not take a word in the cycle in which it
    gives one out.

    Parameters
    ----------
    shape : ShapeLike
        Shape of a word.
    depth : int
        Words that fit, at least 1.

    Members
    -------
    i : In(stream.Signature(shape))
        Words to keep.
    o : Out(stream.Signature(shape))
        The same words.
    level : Out(range(depth + 1))
        Words taken and not yet given out.
    o_moves : Out(1)
        A word comes, goes, or is on its way to the output: without it a clock edge changes nothing.
    """
    i: stream.Interface
    o: stream.Interface

    def __init__(self, shape, depth: int):
        if not isinstance(depth, int) or depth < 1:
            raise ValueError(f"depth must be a positive integer, not {depth!r}")
        self.shape, self.depth = shape, depth
        super().__init__({"i": In(stream.Signature(shape)), "o": Out(stream.Signature(shape)),
                          "level": Out(range(depth + 1)), "o_moves": Out(1)})

    def elaborate(self, platform):
        m = Module()
        kind = fifo.SyncFIFO if self.depth <= MAX_LUT_DEPTH else fifo.SyncFIFOBuffered
        m.submodules.queue = queue = kind(width=Shape.cast(self.shape).width, depth=self.depth)
        m.d.comb += [
            queue.w_data.eq(Value.cast(self.i.payload)),
            queue.w_en.eq(self.i.valid),
            self.i.ready.eq(queue.w_rdy),
            Value.cast(self.o.payload).eq(queue.r_data),
            self.o.valid.eq(queue.r_rdy),
            queue.r_en.eq(self.o.ready),
            self.level.eq(queue.level),
            self.o_moves.eq(self.i.valid & self.i.ready | self.o.valid & self.o.ready
                            | (self.level != 0) & ~self.o.valid),
        ]
        return m
