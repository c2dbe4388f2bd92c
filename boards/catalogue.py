"""The boards: chip, configuration and clock of each. ``BOARD=`` of ``make bitstream`` takes one of these names."""
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from hw.config import AcceleratorConfig

from .resource_model import Resources

if TYPE_CHECKING:
    # Names and chips are of use without Amaranth.
    from amaranth.build.run import BuildPlan

#: What there is on a chip. An ECP5 has other cells: its LUTs, multipliers and block RAMs do not compare.
CHIPS = {
    "xc7z010": Resources(luts=17_600, flip_flops=35_200, dsps=80, block_rams=60),
    "xc7z020": Resources(luts=53_200, flip_flops=106_400, dsps=220, block_rams=140),
    "xc7z045": Resources(luts=218_600, flip_flops=437_200, dsps=900, block_rams=545),
}


@dataclass(frozen=True)
class Board:
    """A board that a bitstream can be made for.

    Parameters
    ----------
    name : str
    text : str
        Board and chip, for people.
    config : str
        The largest named configuration that the open flow carries on it.
    megahertz : float
        Clock that timing has to meet.
    plan : callable
        ``plan(config, megahertz, seed)`` gives Amaranth's build plan of a top called ``top``.
    tools : str
        ``xilinx``: ``boards.tools`` has to be there; ``pypi``: the virtual environment is enough.
    """
    name: str
    text: str
    config: str
    megahertz: float
    plan: "Callable[[AcceleratorConfig, float, int], BuildPlan]"
    tools: str

    @property
    def chip(self) -> str:
        """Name of the chip: a key of :data:`CHIPS`, if it is a Zynq-7000."""
        return self.text.rsplit(", ", 1)[-1]


def _zynq(platform: str):
    def plan(config, megahertz, seed):
        from .zynq import platform as platforms
        from .zynq.top import ZynqTop
        return getattr(platforms, platform)().build(
            ZynqTop(config), name="top", do_build=False, frequency=f"{megahertz:g}", seed=str(seed),
            nextpnr_options="--placer static --threads 2 --timing-allow-fail")
    return plan


def _ulx3s(config, megahertz, seed):
    from .ecp5.board import ecp5_plan
    return ecp5_plan(config, megahertz, seed)


BOARDS = {board.name: board for board in (
    Board("arty_z7_20", "Digilent Arty Z7-20, xc7z020", "small", 60, _zynq("ArtyZ7_20"), "xilinx"),
    Board("pynq_z2", "TUL PYNQ-Z2, xc7z020", "small", 60, _zynq("PynqZ2"), "xilinx"),
    Board("arty_z7_10", "Digilent Arty Z7-10, xc7z010", "tiny", 100, _zynq("ArtyZ7_10"), "xilinx"),
    Board("ebaz4205", "EBAZ4205, xc7z010", "tiny", 100, _zynq("Ebaz4205"), "xilinx"),
    Board("ulx3s_85f", "Radiona ULX3S, LFE5U-85F", "tiny", 50, _ulx3s, "pypi"),
)}


def get_board(name: str) -> Board:
    """The board called ``name``; ``ValueError`` lists the names if there is none."""
    if name not in BOARDS:
        raise ValueError(f"there is no board {name!r}; choose one of {', '.join(BOARDS)}")
    return BOARDS[name]
