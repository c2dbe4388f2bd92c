"""Values of compressed slots on their way to the tile buffer.

Source: golden/README.md, "Compressed feature map".
"""
from amaranth import *
from amaranth.lib import stream, wiring
from amaranth.lib.wiring import In, Out

from .. import payloads
from ..config import BEAT, AcceleratorConfig
from .map_writer import slot_values


class ValueReader(wiring.Component):
    """Write the beats of each slot to its place in the tile buffer: ``address = slot * value_beats + beat``.

    Flow control: one beat a cycle without gaps between slots; a slot without values takes a cycle. ``i`` and ``i_data``
    are combinational in each other: a slot is taken with its last beat.

    Parameters
    ----------
    config : AcceleratorConfig
        Sizes.

    Members
    -------
    i : In(stream.Signature(slot_values(config)))
        Slots whose values have been requested, in that order.
    i_data : In(stream.Signature(64))
        The beats; taken as soon as their slot is there.
    o_write : Out(stream.Signature(payloads.value_write(config), always_ready=True))
        One for each beat, in the cycle in which it is taken.
    o_done : Out(1)
        Pulse, the cycle after the last slot of a tile.
    o_active : Out(1)
        A clock edge may change something: hw/README.md.
    """
    i: stream.Interface
    i_data: stream.Interface
    o_write: stream.Interface
    o_done: Signal
    o_active: Signal

    #: Cycles from a transfer on ``i_data`` to ``o_write.valid``.
    LATENCY = 0

    def __init__(self, *, config: AcceleratorConfig):
        self.config = config
        super().__init__({
            "i": In(stream.Signature(slot_values(config))),
            "i_data": In(stream.Signature(BEAT)),
            "o_write": Out(stream.Signature(payloads.value_write(config), always_ready=True)),
            "o_done": Out(1), "o_active": Out(1),
        })

    def elaborate(self, platform):
        m = Module()
        beat = Signal(range(self.config.value_beats))
        more, taken = Signal(), Signal()
        m.d.comb += [
            self.o_active.eq(self.i.valid | self.o_done),
            more.eq(beat + 1 < self.i.p.beats),
            self.i_data.ready.eq(self.i.valid & ~self.i.p.empty),
            taken.eq(self.i_data.valid & self.i_data.ready),
            self.o_write.valid.eq(taken),
            self.o_write.p.address.eq(Cat(beat, self.i.p.slot.slot)),
            self.o_write.p.data.eq(self.i_data.payload),
            self.i.ready.eq(self.i.p.empty | (taken & ~more)),
        ]
        with m.If(taken):
            m.d.sync += beat.eq(Mux(more, beat + 1, 0))
        m.d.sync += self.o_done.eq(self.i.valid & self.i.ready & self.i.p.slot.last)
        return m
