"""ULX3S 85F: the pins, the clock, and the plan of the build with open tools that come from PyPI.

Source: Lattice FPGA-TN-02200, "ECP5 and ECP5-5G sysCLOCK PLL/DLL Design and Usage Guide", chapters 4 and 18.
"""
from amaranth import *
from amaranth.build.run import BuildPlan
from amaranth.lib import io
from amaranth_boards.ulx3s import ULX3S_85F_Platform

from hw.config import AcceleratorConfig

from .top import SerialTop

#: The crystal of the board, and the oscillator of the PLL (legal: 400 to 800), in MHz.
CRYSTAL, OSCILLATOR = 25, 600
#: Clocks that the PLL makes, in MHz: fractions of the oscillator.
CLOCKS = (25, 30, 40, 50, 60, 75, 100)
#: Bits in a second on the serial line; the USB chip of the board (FT231X) goes up to 3,000,000.
BAUD = 1_000_000


class Ulx3s(ULX3S_85F_Platform):
    """``ULX3S_85F_Platform`` for the open tools; the script prints a line "== NAME" before each stage."""
    STAGES = ("synthesis", "placement and routing", "bitstream")

    def __init__(self):
        super().__init__(toolchain="Trellis")

    @property
    def command_templates(self):
        commands = zip(self.STAGES, super().command_templates, strict=True)
        return [line for stage, command in commands for line in (f'echo "== {stage}"', command)]


class ClockGenerator(Elaboratable):
    """The clock domain ``sync`` of ``megahertz`` (one of ``CLOCKS``), in reset until the PLL has locked."""

    def __init__(self, megahertz: int):
        self.megahertz = megahertz

    def elaborate(self, platform):
        m = Module()
        # One output goes back to be compared with the crystal, and so sets the oscillator; the other is the clock.
        back, divisor = OSCILLATOR // CRYSTAL, OSCILLATOR // self.megahertz
        feedback, clock, locked, locked_q, running = (Signal() for _ in range(5))
        m.submodules.pin = pin = io.Buffer("i", platform.request("clk25", dir="-"))
        m.submodules.pll = Instance(
            "EHXPLLL", a_FREQUENCY_PIN_CLKI=str(CRYSTAL), a_FREQUENCY_PIN_CLKOP=str(CRYSTAL),
            a_FREQUENCY_PIN_CLKOS=str(self.megahertz),
            a_ICP_CURRENT="12", a_LPF_RESISTOR="8", a_MFG_ENABLE_FILTEROPAMP="1", a_MFG_GMCREF_SEL="2",
            p_CLKI_DIV=1, p_CLKFB_DIV=1, p_FEEDBK_PATH="CLKOP",
            p_CLKOP_ENABLE="ENABLED", p_CLKOP_DIV=back, p_CLKOP_CPHASE=back - 1,
            p_CLKOS_ENABLE="ENABLED", p_CLKOS_DIV=divisor, p_CLKOS_CPHASE=divisor - 1,
            i_CLKI=pin.i, i_CLKFB=feedback, i_RST=0, i_STDBY=0, i_PLLWAKESYNC=0, i_ENCLKOP=0, i_ENCLKOS=0,
            i_PHASESEL0=0, i_PHASESEL1=0, i_PHASEDIR=1, i_PHASESTEP=1, i_PHASELOADREG=1,
            o_CLKOP=feedback, o_CLKOS=clock, o_LOCK=locked)
        # The global reset puts every register to its initial value, without a net of its own to each.
        m.domains.sync = ClockDomain(reset_less=True)
        m.d.comb += ClockSignal().eq(clock)
        m.submodules.first = Instance("FD1S3AX", p_GSR="DISABLED", i_CK=clock, i_D=locked, o_Q=locked_q)
        m.submodules.second = Instance("FD1S3AX", p_GSR="DISABLED", i_CK=clock, i_D=locked_q, o_Q=running)
        m.submodules.reset = Instance("SGSR", i_CLK=clock, i_GSR=running)
        return m


class Ulx3sTop(Elaboratable):
    """:class:`SerialTop` on the pins of a ULX3S: USB serial line; LED 0 shows the interrupt, LED 7 is on."""

    def __init__(self, config: AcceleratorConfig, megahertz: int):
        self.config, self.megahertz = config, megahertz

    def elaborate(self, platform):
        m = Module()
        m.submodules.clock = ClockGenerator(self.megahertz)
        m.submodules.top = top = SerialTop(self.config, self.megahertz * 1_000_000 // BAUD)
        line = platform.request("uart", 0)
        m.d.comb += [
            top.i_line.eq(line.rx.i), line.tx.o.eq(top.o_line),
            platform.request("led", 0).o.eq(top.o_irq), platform.request("led", 7).o.eq(1),
        ]
        return m


def ecp5_plan(config: AcceleratorConfig, megahertz: float, seed: int) -> BuildPlan:
    """What to build for ``config``: sources and a script (``plan.extract(folder)``, then ``sh <plan.script>.sh``).

    The script takes yosys, nextpnr-ecp5 and ecppack from the path. It leaves the bitstream ``top.bit``, nextpnr's
    report ``top.report.json``, and the logs ``top.rpt`` (Yosys) and ``top.tim`` (nextpnr). It does not fail if the
    design is slower than the clock: that is in the report.

    Parameters
    ----------
    config : AcceleratorConfig
    megahertz : float
        The clock; ``ValueError`` if it is not one of ``CLOCKS``.
    seed : int
        Of placement and routing.
    """
    if megahertz not in CLOCKS:
        raise ValueError(f"the clock of a ULX3S must be one of {', '.join(map(str, CLOCKS))} MHz, not {megahertz:g}")
    return Ulx3s().build(
        Ulx3sTop(config, int(megahertz)), name="top", do_build=False, emit_src=False,
        # Assertions are for simulation.
        script_after_read="chformal -remove",
        nextpnr_opts=f"--seed {seed} --report top.report.json --timing-allow-fail")
