"""Performance counters of a layer.

Source: hw/registers.py, ``COUNTERS`` (the log record).
"""
from amaranth import *
from amaranth.lib import data, wiring
from amaranth.lib.wiring import In, Out

from .. import payloads
from ..config import AcceleratorConfig
from ..registers import COUNTERS

#: Bits of a counter: 2**40 cycles are three hours at 100 MHz.
COUNTER_BITS = 40


def counters_layout() -> data.StructLayout:
    """All counters of a layer."""
    return data.StructLayout({name: COUNTER_BITS for name, _ in COUNTERS})


class Counters(wiring.Component):
    """Count, per layer, what ``hw.registers.COUNTERS`` names.

    ``busy + stall_output + stall_tile + stall_weights + stall_find + idle = cycles * groups``.

    Members
    -------
    i_clear : In(1)
        Pulse at the start of a layer: all counters are 0 in the next cycle.
    i_run : In(1)
        Count in this cycle.
    i_activity, i_lane_work : In, arrays over groups
        From the groups.
    i_read_beat, i_write_beat : In(1)
        A beat moves in this cycle.
    o : Out(counters_layout())
        The counters, ``COUNTER_BITS`` each.

    LATENCY: group inputs are counted one cycle later.
    """
    LATENCY = 1

    def __init__(self, config: AcceleratorConfig):
        self.config = config
        super().__init__({
            "i_clear": In(1), "i_run": In(1),
            "i_activity": In(payloads.activity()).array(config.groups),
            "i_lane_work": In(range(config.group_multipliers + 1)).array(config.groups),
            "i_read_beat": In(1), "i_write_beat": In(1),
            "o": Out(counters_layout()),
        })

    def elaborate(self, platform):
        m = Module()
        groups = range(self.config.groups)

        def total(values, name):
            """The registered sum of a quantity over the groups."""
            result = Signal(sum(2 ** len(value) - 1 for value in values).bit_length(), name=name)
            m.d.sync += result.eq(sum(Value.cast(value) for value in values))
            return result

        amounts = {
            "cycles": C(1), "read_beats": self.i_read_beat, "write_beats": self.i_write_beat,
            "lane_cycles": total([self.i_lane_work[n] for n in groups], "lane_cycles"),
            "busy": total([self.i_activity[n].busy for n in groups], "busy"),
            "idle": total([self.i_activity[n].idle for n in groups], "idle"),
            **{f"stall_{cause}": total([self.i_activity[n][cause] for n in groups], f"stall_{cause}")
               for cause in ("output", "tile", "weights", "find")},
        }
        for name, _ in COUNTERS:
            with m.If(self.i_clear):
                m.d.sync += self.o[name].eq(0)
            with m.Elif(self.i_run):
                m.d.sync += self.o[name].eq(self.o[name] + amounts[name])
        return m
