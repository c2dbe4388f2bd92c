"""Which block of its pixel a word belongs to, counted from 0: the index of what is kept for each block of a window.

Source: golden/README.md, "Weight image" (a kernel block is a run of blocks of output channels).
"""
from amaranth import *
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from .. import payloads
from ..config import AcceleratorConfig


class BlockIndex(wiring.Component):
    """Count the blocks of a pixel.

    A pixel starts at the first word of a block that does not follow the block before it, or once a pixel has had all
    the ``lanes / block`` blocks there are. So pixels are told apart even if they have the same coordinates, as those of
    consecutive kernel blocks of a 1x1 map.

    Parameters
    ----------
    config : AcceleratorConfig
        Numbers of lanes and of channels in a block.

    Members
    -------
    i_step : In(1)
        The word at ``i_position`` moves on in this cycle.
    i_position : In(payloads.position(config))
    o_first : Out(1)
        The word is the first of its pixel. Combinational, as ``o_index``.
    o_index : Out(range(blocks))
        Number of its block within the pixel.
    """

    def __init__(self, config: AcceleratorConfig):
        self.config = config
        self.blocks = config.lanes // config.block
        super().__init__({"i_step": In(1), "i_position": In(payloads.position(config)),
                          "o_first": Out(1), "o_index": Out(range(max(2, self.blocks)))})

    def elaborate(self, platform):
        m = Module()
        next_block = Signal(payloads.BLOCK_BITS)
        index_q = Signal.like(self.o_index, init=self.blocks - 1)
        block_start = self.i_position.word == 0
        m.d.comb += [
            self.o_first.eq(block_start & ((self.i_position.block != next_block) | (index_q == self.blocks - 1))),
            self.o_index.eq(Mux(self.o_first, 0, index_q + block_start)),
        ]
        with m.If(self.i_step):
            m.d.sync += [index_q.eq(self.o_index), next_block.eq(self.i_position.block + 1)]
        return m
