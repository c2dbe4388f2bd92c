"""The boards: chip, configuration and clock of each. ``BOARD=`` of ``make bitstream`` takes one of these names."""
from collections.abc import Callable
from dataclasses import dataclass

from amaranth.build.run import BuildPlan

from hw.config import AcceleratorConfig


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
    plan: Callable[[AcceleratorConfig, float, int], BuildPlan]
    tools: str


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
    Board("arty_z7_20", "Digilent Arty Z7-20, xc7z020", "tiny", 60, _zynq("ArtyZ7_20"), "xilinx"),
    Board("pynq_z2", "TUL PYNQ-Z2, xc7z020", "tiny", 60, _zynq("PynqZ2"), "xilinx"),
    Board("arty_z7_10", "Digilent Arty Z7-10, xc7z010", "tiny", 100, _zynq("ArtyZ7_10"), "xilinx"),
    Board("ebaz4205", "EBAZ4205, xc7z010", "tiny", 100, _zynq("Ebaz4205"), "xilinx"),
    Board("ulx3s_85f", "Radiona ULX3S, LFE5U-85F", "tiny", 50, _ulx3s, "pypi"),
)}


def get_board(name: str) -> Board:
    """The board called ``name``; ``ValueError`` lists the names if there is none."""
    if name not in BOARDS:
        raise ValueError(f"there is no board {name!r}; choose one of {', '.join(BOARDS)}")
    return BOARDS[name]
