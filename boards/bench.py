"""Every board's bitstream, and docs/results/synthesis.md of what it took (``make bench-synth``).

    python -m boards.bench            builds all pairs of board and configuration below: hours
    python -m boards.bench --collect  writes the page from the results that are in build/boards

Exit status: 0 all built and met, 1 one missed its clock or failed, 2 a tool is missing.
"""
import json
from typing import Annotated

import typer
from rich.console import Console

from hw.configs import CONFIGS, get_config

from .build import ROOT, BuildFailed, build
from .catalogue import BOARDS
from .tools import ToolError

PAGE = ROOT / "docs" / "results" / "synthesis.md"
#: Board and configuration of every line of the page.
PAIRS = tuple((board.name, board.config) for board in BOARDS.values())
HEAD = """\
# Synthesis, placement and routing

<!-- Written by boards/bench.py (make bench-synth) from the results of the tools. Do not edit. -->

`make bench-synth` builds each line and writes this page; `make bitstream BOARD= CONFIG= SEED=` builds one. Open tools
only: Yosys from PyPI, nextpnr and Project X-Ray from Debian (`make tools`). LUTs are the occupied ones of the chip (6
inputs; 4 on the LFE5U), route-throughs included; LUT places are what nextpnr counts, two in each 6-input LUT; a lane is
one 8-bit multiply-accumulate unit. MHz are nextpnr's estimate after routing.
"""


def _share(used, available):
    return f"{used:,} ({100 * used / max(1, available):.0f} %)"


def _columns(result) -> dict[str, str]:
    """One line of the page."""
    used = list(result["resources"].values())
    return {
        "board": result["board"], "chip": result["chip"], "configuration": result["config"],
        "lanes": f"{result['lanes']}", "MHz": f"{result['megahertz_reached']:.1f}",
        "asked": f"{result['megahertz_asked']:g}{'' if result['met'] else ' (missed)'}", "LUTs": f"{result['luts']:,}",
        "a lane": f"{result['luts'] / result['lanes']:.0f}", "LUT places": _share(*used[0]),
        "FF": _share(*used[1]), "DSP": _share(*used[2]),
        "block RAM": _share(*used[3]), "minutes": f"{sum(result['seconds'].values()) / 60:.0f}",
        "MiB": f"{result['memory_mib']:,}", "seed": f"{result['seed']}", "date": result["date"],
        "commit": result["commit"],
    }


def _stages(result) -> dict[str, str]:
    minutes = {f"{name}, min": f"{seconds / 60:.1f}" for name, seconds in result["seconds"].items()}
    return {"board": result["board"], "configuration": result["config"]} | minutes


def _table(rows: list[dict[str, str]]) -> str:
    """Markdown; a row that lacks a column has "-" there."""
    names = list(dict.fromkeys(name for row in rows for name in row))
    lines = [names, ["---"] * len(names), *([row.get(name, "-") for name in names] for row in rows)]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def write_page(results: list[dict]):
    """Write the page of ``results``, each the contents of a ``result.json``."""
    tools = sorted({f"{name} {version}" for result in results for name, version in result["tools"].items()})
    PAGE.write_text("\n".join([
        HEAD, _table([_columns(result) for result in results]), _table([_stages(result) for result in results]),
        f"Tools: {', '.join(tools)}.\n"]))


def main(collect: Annotated[bool, typer.Option("--collect", help="Only write the page from build/boards.")] = False):
    """Build every board and write docs/results/synthesis.md."""
    console = Console()
    failed = False
    if not collect:
        for name, config in PAIRS:
            board = BOARDS[name]
            console.rule(f"{name}, {config}")
            try:
                failed |= not build(board, get_config(config), board.megahertz, 1, console)["met"]
            except BuildFailed as error:
                console.print(str(error), markup=False)
                failed = True
            except ToolError as error:
                console.print(str(error), markup=False)
                raise typer.Exit(2) from None
    paths = [ROOT / "build" / "boards" / f"{board}-{config}" / "result.json" for board in BOARDS for config in CONFIGS]
    results = [json.loads(path.read_text()) for path in paths if path.exists()]
    if not results:
        console.print("there are no results in build/boards; run `make bench-synth` or `make bitstream` first")
        raise typer.Exit(2)
    write_page(results)
    console.print(f"{PAGE.relative_to(ROOT)}: {len(results)} lines")
    if failed or not all(result["met"] for result in results):
        raise typer.Exit(1)


if __name__ == "__main__":
    typer.run(main)
