"""The accelerator on a chip without processor: memory in block RAM, a PC on a serial line.

    PC <--serial line--> UartBridge --AXI4-Lite--+--> hw.top.Top --AXI4--> BlockMemory
                                                 +-----AXI4-Lite-------->
"""
from amaranth import *
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from hw.config import AcceleratorConfig
from hw.top import Top

from .bridge import QUIET_BITS, UartBridge
from .memory import BlockMemory

#: Where the PC finds the memory; below it are the registers, again and again.
MEMORY_BASE = 0x1000_0000
#: Bytes of the memory: 128 of the 208 block RAMs of an ECP5-85.
MEMORY_SIZE = 1 << 18


class SerialTop(wiring.Component):
    """``hw.top.Top(config)``, its memory, and the way to both from a serial line.

    Parameters
    ----------
    config : AcceleratorConfig
    divisor : int
        Clock cycles of a bit on the line, at least 4.
    memory_size : int
        Bytes, a power of two from 4096 to ``MEMORY_BASE``.
    quiet_bits : int
        As for :class:`UartBridge`.

    Members
    -------
    i_line, o_line : In(1), Out(1)
        From and to the PC. ``i_line`` is not synchronised.
    o_irq : Out(1)
        The interrupt line, to be shown.
    """
    i_line: Signal
    o_line: Signal
    o_irq: Signal

    def __init__(self, config: AcceleratorConfig, divisor: int, *, memory_size: int = MEMORY_SIZE,
                 quiet_bits: int = QUIET_BITS):
        self.config, self.divisor = config, divisor
        self.memory_size, self.quiet_bits = memory_size, quiet_bits
        super().__init__({"i_line": In(1), "o_line": Out(1, init=1), "o_irq": Out(1)})

    def elaborate(self, platform):
        m = Module()
        m.submodules.accelerator = top = Top(self.config)
        m.submodules.memory = memory = BlockMemory(self.memory_size, MEMORY_BASE)
        m.submodules.bridge = bridge = UartBridge(self.divisor, MEMORY_BASE, self.memory_size,
                                                  quiet_bits=self.quiet_bits)
        wiring.connect(m, top.m_axi, memory.axi)
        m.d.comb += [bridge.i_line.eq(self.i_line), self.o_line.eq(bridge.o_line), bridge.i_irq.eq(top.irq),
                     self.o_irq.eq(top.irq)]
        self._connect_bridge(m, bridge.axil, top.s_axil, memory.axil)
        return m

    @staticmethod
    def _connect_bridge(m, master, registers, memory):
        """The address chooses the slave. That is enough: the bridge keeps it until the access has been answered."""
        at_memory = Signal()
        m.d.comb += at_memory.eq(master.araddr >= MEMORY_BASE)
        for slave, chosen in ((registers, ~at_memory), (memory, at_memory)):
            for name, member in slave.signature.flip().members.items():
                mine, theirs = getattr(slave, name), getattr(master, name)
                if member.flow is Out:
                    m.d.comb += mine.eq(theirs & chosen if name.endswith(("valid", "ready")) else theirs)
                else:
                    with m.If(chosen):
                        m.d.comb += theirs.eq(mine)
