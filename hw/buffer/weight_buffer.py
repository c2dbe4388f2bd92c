"""Weight buffer: the weights of all multipliers of a group, two halves of ``weight_depth`` addresses.

Source: docs/architecture.md, "Decisions" (double-buffered weights).
"""
from amaranth import *
from amaranth.lib import data, memory, stream, wiring
from amaranth.lib.wiring import In, Out

from ..config import AcceleratorConfig
from ..payloads import unit_weights, weight_write


class WeightBuffer(wiring.Component):
    """One memory, a word of which holds an address of every multiplier; a beat writes ``units_per_beat`` of them.

    Each multiplier's part has its own write enable, so that synthesis gives every multiplier its own block RAM.

    Flow control: none. ``o`` belongs to ``i_address`` of ``LATENCY`` cycles before.

    Members
    -------
    i : In(stream.Signature(weight_write(config), always_ready=True))
        Weights from the loader.
    i_address : In(range(2 * weight_depth))
        Address to read.
    o : Out(ArrayLayout(unit_weights(config), units))
        What the memories of all multipliers hold there.
    """

    i: stream.Interface
    i_address: Signal
    o: data.View

    LATENCY = 1

    def __init__(self, config: AcceleratorConfig):
        self.config = config
        super().__init__({
            "i": In(stream.Signature(weight_write(config), always_ready=True)),
            "i_address": In(range(2 * config.weight_depth)),
            "o": Out(data.ArrayLayout(unit_weights(config), config.units)),
        })

    def elaborate(self, platform):
        m = Module()
        c = self.config
        m.submodules.memory = words = memory.Memory(shape=self.o.shape(), depth=2 * c.weight_depth, init=[])
        write, read = words.write_port(granularity=1), words.read_port()
        m.d.comb += [write.addr.eq(self.i.p.address), read.addr.eq(self.i_address), self.o.eq(read.data)]
        for unit in range(c.units):
            beat, position = divmod(unit, c.units_per_beat)
            m.d.comb += [
                write.en[unit].eq(self.i.valid & (self.i.p.beat == beat)),
                write.data[unit].eq(self.i.p.units[position]),
            ]
        return m
