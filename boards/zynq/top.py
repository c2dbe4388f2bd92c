"""The top of a Zynq-7000 design: cores, bus, accelerator.

    ARM cores --GP0 (AXI3)--> Axi3ToLite --AXI4-Lite--> hw.top.Top --AXI4--> HP0 --> DRAM
              <------------------------- interrupt 61 --
"""
from amaranth import *
from amaranth.lib import wiring

from hw.config import AcceleratorConfig
from hw.top import REGISTER_ADDRESS_BITS, Top

from .axi3 import Axi3ToLite
from .ps7 import ProcessingSystem

#: Longest burst of an AXI3 port.
MAX_BURST = 16


class ZynqTop(Elaboratable):
    """``hw.top.Top(config)`` with its registers anywhere in GP0's space, its DRAM behind HP0; no pins.

    ``ValueError`` for a configuration with bursts longer than the 16 beats of AXI3.
    """

    def __init__(self, config: AcceleratorConfig):
        if config.max_burst > MAX_BURST:
            raise ValueError(f"the HP ports of a Zynq-7000 take bursts of {MAX_BURST} beats; "
                             f"configuration {config.name} has max_burst={config.max_burst}")
        self.config = config

    def elaborate(self, platform):
        m = Module()
        m.submodules.ps = ps = ProcessingSystem()
        m.submodules.bridge = bridge = Axi3ToLite(REGISTER_ADDRESS_BITS)
        m.submodules.accelerator = top = Top(self.config)
        wiring.connect(m, ps.gp0, bridge.i)
        wiring.connect(m, bridge.o, top.s_axil)
        wiring.connect(m, top.m_axi, ps.hp0)
        m.d.comb += ps.irq.eq(top.irq)
        return m
