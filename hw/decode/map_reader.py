"""Beats of a compressed slot's sparsity map, cut into words.

Source: golden/README.md, "Compressed feature map".
"""
from amaranth import *
from amaranth.lib import stream, wiring
from amaranth.lib.wiring import In, Out

from ..config import BEAT, AcceleratorConfig


class MapReader(wiring.Component):
    """Cut beats into sparsity map words of ``block`` bits, lowest bits first.

    Flow control: one word a cycle. All paths are combinational: ``o.valid`` follows ``i.valid``, and ``i.ready`` is
    ``o.ready`` in the last word of a beat.

    Parameters
    ----------
    config : AcceleratorConfig
        Sizes.

    Members
    -------
    i : In(stream.Signature(64))
        Beats of maps, slot by slot.
    o : Out(stream.Signature(block))
        The word of one pixel.
    """
    i: stream.Interface
    o: stream.Interface

    #: Cycles from ``i.valid`` to ``o.valid``.
    LATENCY = 0

    def __init__(self, *, config: AcceleratorConfig):
        self.config = config
        super().__init__({"i": In(stream.Signature(BEAT)), "o": Out(stream.Signature(config.block))})

    def elaborate(self, platform):
        m = Module()
        words = BEAT // self.config.block
        word = Signal(range(words))
        m.d.comb += [
            self.o.valid.eq(self.i.valid),
            self.o.payload.eq(self.i.payload.word_select(word, self.config.block)),
            self.i.ready.eq(self.o.ready & (word == words - 1)),
        ]
        with m.If(self.o.valid & self.o.ready):
            m.d.sync += word.eq(word + 1)
        return m
