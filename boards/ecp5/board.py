"""ULX3S 85F: the pins, and the plan of the build with open tools that come from PyPI."""
from amaranth import *
from amaranth.build.run import BuildPlan
from amaranth_boards.ulx3s import ULX3S_85F_Platform

from hw.config import AcceleratorConfig

from .top import SerialTop

#: The crystal of the board clocks everything.
CLOCK_HZ = 25_000_000
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


class Ulx3sTop(Elaboratable):
    """:class:`SerialTop` on the pins of a ULX3S: USB serial line; LED 0 shows the interrupt, LED 7 is on."""

    def __init__(self, config: AcceleratorConfig):
        self.config = config

    def elaborate(self, platform):
        m = Module()
        m.submodules.top = top = SerialTop(self.config, CLOCK_HZ // BAUD)
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
        25: the clock is the crystal's. ``ValueError`` for anything else.
    seed : int
        Of placement and routing.
    """
    if megahertz * 1_000_000 != CLOCK_HZ:
        raise ValueError(f"the clock of a ULX3S is its crystal of {CLOCK_HZ // 1_000_000} MHz, not {megahertz:g}")
    return Ulx3s().build(
        Ulx3sTop(config), name="top", do_build=False, emit_src=False,
        # Assertions are for simulation.
        script_after_read="chformal -remove",
        nextpnr_opts=f"--seed {seed} --report top.report.json --timing-allow-fail")
