"""Contract of DoubleBufferControl, against counters of what happened (hw/README.md, "Double buffers")."""
# amaranth: UnusedElaboratable=no
import pytest
from amaranth import *
from amaranth.hdl import Assume
from amaranth.lib import wiring
from amaranth.lib.wiring import In

from hw.buffer.double_buffer import DoubleBufferControl
from sim_tests.formal.prove import ProofError, prove

pytestmark = pytest.mark.formal


class DoubleBufferProof(wiring.Component):
    """For each consumer: halves filled and not taken (``waiting``), taken and not released (``held``)."""
    def __init__(self, part, keep_rules=True):
        self.part, self.keep_rules = part, keep_rules
        super().__init__({"i_filled": In(1), "i_take": In(part.consumers), "i_release": In(part.consumers)})

    def elaborate(self, platform):
        m = Module()
        m.submodules.part = part = self.part
        m.d.comb += [part.i_filled.eq(self.i_filled), part.i_take.eq(self.i_take), part.i_release.eq(self.i_release)]
        fills = Signal()
        m.d.sync += fills.eq(fills ^ part.i_filled)
        m.d.comb += Assert(part.o_fill_half == fills)
        room = [self._build_consumer(m, n) for n in range(part.consumers)]
        m.d.comb += Assert(part.o_free == Cat(room).all())
        if self.keep_rules:
            m.d.comb += Assume(~part.i_filled | part.o_free)
        return m

    def _build_consumer(self, m, n):
        part = self.part
        waiting, held = Signal(range(4), name=f"waiting_{n}"), Signal(range(4), name=f"held_{n}")
        takes = Signal(name=f"takes_{n}")
        take, release = part.i_take[n], part.i_release[n]
        m.d.sync += [
            waiting.eq(waiting + part.i_filled - take), held.eq(held + take - release), takes.eq(takes ^ take),
        ]
        m.d.comb += [
            Assume(~take | (waiting != 0)), Assume(~release | (held != 0)),
            Assert(part.o_full[n] == (waiting != 0)), Assert(part.o_half[n] == takes), Assert(waiting + held <= 2),
        ]
        return waiting + held < 2


@pytest.mark.parametrize("consumers", [1, 2])
def test_double_buffer(consumers):
    # Two fills, takes and releases bring each half round once: the depth is more than twice that.
    prove(DoubleBufferProof(DoubleBufferControl(consumers=consumers)), depth=14)


def test_filling_without_room_fails_the_proof():
    with pytest.raises(ProofError, match="base case: FAIL"):
        prove(DoubleBufferProof(DoubleBufferControl(consumers=2), keep_rules=False), depth=8)
