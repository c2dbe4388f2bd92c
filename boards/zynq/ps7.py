"""The ARM side of a Zynq-7000, as the programmable logic sees it.

Source: Xilinx UG585, chapters 2 (signals), 5 (AXI ports), 7 (interrupts) and 25 (clocks).
"""
from amaranth import *
from amaranth.lib import wiring
from amaranth.lib.cdc import ResetSynchronizer
from amaranth.lib.wiring import In, Out

from hw.bus.axi4 import ID_BITS, Axi4Signature

from .axi3 import Axi3Signature

#: Bits of an id on the HP ports.
HP_ID_BITS = 6


class ProcessingSystem(wiring.Component):
    """The primitive PS7 with the ports that the accelerator needs, and the clock domain ``sync`` from FCLK0.

    Everything is clocked by FCLK0 (its frequency is set by the boot loader, not by the bitstream) and reset by
    FCLK_RESET0_N.

    Members
    -------
    gp0 : Out(Axi3Signature())
        The cores' accesses to 0x4000_0000 .. 0x7FFF_FFFF.
    hp0 : In(Axi4Signature())
        To DRAM, 64 bits wide. AXI3 behind: bursts of at most 16 beats.
    irq : In(1)
        Interrupt 61 of the cores (IRQ_F2P[0]), level.
    """

    def __init__(self):
        super().__init__({"gp0": Out(Axi3Signature()), "hp0": In(Axi4Signature()), "irq": In(1)})

    def elaborate(self, platform):
        m = Module()
        self._clocks, self._resets = Signal(4), Signal(4)
        m.domains.sync = ClockDomain()
        m.submodules.buffer = Instance("BUFG", i_I=self._clocks[0], o_O=ClockSignal())
        m.submodules.reset = ResetSynchronizer(~self._resets[0])
        m.submodules.ps7 = Instance(
            "PS7", a_keep=1, o_FCLKCLK=self._clocks, o_FCLKRESETN=self._resets, i_IRQF2P=Cat(self.irq, C(0, 19)),
            **self._gp0(), **self._hp0())
        return m

    def _gp0(self):
        """GP0: the PS7 is the master."""
        ports = {"i_MAXIGP0ACLK": ClockSignal()}
        for name, member in Axi3Signature().members.items():
            ports[f"{'o' if member.flow is Out else 'i'}_MAXIGP0{name.upper()}"] = getattr(self.gp0, name)
        return ports

    def _hp0(self):
        """HP0: the PS7 is the slave. Lengths have 4 bits, sizes 2, ids 6."""
        ports = {"i_SAXIHP0ACLK": ClockSignal()}
        for name, member in Axi4Signature().members.items():
            signal = getattr(self.hp0, name)
            if name in ("arid", "rid", "awid", "wid", "bid"):
                rest = C(0, HP_ID_BITS - ID_BITS) if member.flow is Out else Signal(HP_ID_BITS - ID_BITS)
                signal = Cat(signal, rest)
            elif name.endswith("len"):
                signal = signal[:4]
            elif name.endswith("size"):
                signal = signal[:2]
            ports[f"{'i' if member.flow is Out else 'o'}_SAXIHP0{name.upper()}"] = signal
        return ports
