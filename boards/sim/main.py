"""`make sim`: a trained network through the RTL, compared with golden, shown as table, picture and report.

Exit status: 0 every value that the accelerator wrote equals golden, 1 some do not or the accelerator stopped with an
error, 2 the input or the tools are not usable.
"""
import time
from contextlib import contextmanager
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import numpy as np
import typer
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

from compiler.emit import Program, compile_network
from compiler.quantise import quantise
from golden.network import run_network
from hw.configs import CONFIGS, get_config

from .build import BuildError
from .compare import compare_run
from .jobs import DigitsJob, HedJob
from .report import LayerRecord, build_report, summarise, write_report
from .run import run_program
from .simulator import SimulationError, Simulator
from .table import build_table, short

FAILED, BAD_INPUT = 1, 2


class UnusableInput(Exception):
    """What the user asked for cannot be run; the message is a sentence for the user."""


@contextmanager
def unusable():
    """Turns the errors of a step that reads the user's input into :class:`UnusableInput`."""
    try:
        yield
    except (ValueError, OSError) as error:
        raise UnusableInput(str(error)) from error


class Net(StrEnum):
    """Networks that can be run."""
    hed = "hed"
    digits = "digits"


class Stages:
    """A line with a bar for each stage of the run."""

    def __init__(self, console: Console):
        self.progress = Progress(TextColumn("{task.description:<34}"), BarColumn(), TimeElapsedColumn(),
                                 TextColumn("{task.fields[note]}"), console=console)

    @contextmanager
    def stage(self, text: str, total: float | None = None):
        """Shows a stage while the block runs; calls of what it yields, ``update(completed, note)``, move the bar."""
        task = self.progress.add_task(text, total=total, note="")

        def update(completed: float, note: str = ""):
            self.progress.update(task, completed=completed, note=note)

        yield update
        self.progress.update(task, total=1, completed=1)
        self.progress.stop_task(task)


def map_densities(network, inputs: list[np.ndarray]) -> dict[str, float]:
    """Share of non-zero values in each map of the float network: what the compiler weighs tilings with."""
    runs = [network.run_float(x) for x in inputs]
    return {name: float(np.mean([np.count_nonzero(run[name]) / run[name].size for run in runs]))
            for name in runs[0] if name != network.input_name}


@dataclass
class Measured:
    """What all runs of a program gave: the maps of each run, the records of the layers, sentences about mismatches."""
    maps: list[dict[str, np.ndarray]] = field(default_factory=list)
    records: list[LayerRecord] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)
    cycles: int = 0
    seconds: float = 0.0

    def add(self, records: list[LayerRecord]):
        """Adds the records of one more run."""
        if not self.records:
            self.records = records
            return
        for total, record in zip(self.records, records, strict=True):
            total += record


def read_maps(simulator: Simulator, program: Program) -> dict[str, np.ndarray]:
    """Every map that the program has written."""
    maps = {}
    for name in program.maps:
        try:
            maps[name] = program.read_map(name, simulator.dram)
        except ValueError as error:
            raise SimulationError(f"map {name} in DRAM is not well-formed: {error}") from error
    return maps


def simulate(stages: Stages, config, program: Program, inputs: list[np.ndarray], golden: list) -> Measured:
    """Runs the program on each integer input and compares with ``golden``, the results of ``run_network``."""
    with stages.stage(f"build simulator, CONFIG={config.name}"):
        simulator = Simulator(config, memory_bytes=program.memory_bytes, base=program.base)
    measured = Measured()
    # The compiler's estimate: the bar waits at its end if that was too low.
    estimate = sum(choice.cost.cycles for choice in program.choices.values())
    total = len(inputs) * estimate
    with simulator, stages.stage("simulate", total) as update:
        for x, (maps, results) in zip(inputs, golden, strict=True):
            def report(now, before=measured.cycles):
                update(min(before + now, total), f"{short(before + now)} cycles")

            begin = time.perf_counter()
            run = run_program(simulator, program, x, maps=(), max_cycles=int(20 * estimate) + 1_000_000,
                              progress=report)
            measured.seconds += time.perf_counter() - begin
            measured.cycles += run.cycles
            measured.maps.append(read_maps(simulator, program))
            records, problems = compare_run(program.network, maps, results, measured.maps[-1], run.layers)
            measured.add(records)
            measured.problems += problems
    return measured


def execute(job, config, console: Console, folder: Path) -> int:
    """Quantises, compiles, simulates and shows a job; returns the exit status."""
    stages = Stages(console)
    with stages.progress:
        with stages.stage("quantise and compile"), unusable():
            quantised = quantise(job.network, job.calibration, config)
            densities = map_densities(job.network, job.calibration[:4])
            program = compile_network(quantised, config, densities=densities)
        with stages.stage("golden") as update:
            inputs, golden = [quantised.quantise_input(x) for x in job.inputs], []
            for x in inputs:
                golden.append(run_network(quantised, x))
                update(0, f"{len(golden)} of {len(inputs)}")
        measured = simulate(stages, config, program, inputs, golden)
        with stages.stage("outputs"):
            outcome = job.finish(quantised, measured.maps, folder)

    subtotals = {name: summarise([record for record in measured.records if record.name in layers], config.total_lanes)
                 for name, layers in job.subtotals.items()}
    report = build_report(network=job.name, config=config, records=measured.records, run_cycles=measured.cycles,
                          wall_seconds=measured.seconds, **subtotals, **outcome.extra)
    write_report(report, folder / "report.json")
    show(console, report, subtotals, outcome, measured.problems, folder, config.total_lanes)
    return FAILED if report["total"]["mismatches"] else 0


def show(console: Console, report: dict, subtotals: dict, outcome, problems: list[str], folder: Path,
         lanes: int) -> None:
    """Prints the table, the result and where the files are."""
    console.print(build_table(report, subtotals))
    total = report["total"]
    console.print(f"{report['run_cycles']:,} cycles in {report['wall_seconds']:.1f} s "
                  f"({short(report['cycles_per_second'])} cycles/s); at 100 MHz: {report['run_cycles'] / 1e5:.2f} ms")
    dense = total["macs"] / lanes
    console.print(f"dense on as many lanes (MACs / lanes): {short(dense)} cycles, "
                  f"{dense / total['cycles']:.2f} times as many", highlight=False)
    for line in outcome.lines:
        console.print(line, highlight=False)
    for problem in problems[:10]:
        console.print(problem, style="red", highlight=False, soft_wrap=True)
    verdict = f"{total['mismatches']:,} mismatches in {total['compared']:,} values"
    console.print(verdict, style="bold red" if total["mismatches"] else "bold green", highlight=False)
    for path in [folder / "report.json", *outcome.files]:
        console.print(f"wrote {path}", highlight=False, soft_wrap=True)


app = typer.Typer(add_completion=False, pretty_exceptions_enable=False, rich_markup_mode=None)


@app.command()
def main(
    net: Annotated[Net, typer.Option(help="hed: edges of a photograph by VGG-16, all layers; minutes. "
                                          "digits: handwritten digits; seconds.")] = Net.hed,
    config: Annotated[str, typer.Option(help=f"What to build: {', '.join(CONFIGS)}. hw/configs.py describes them.",
                                        metavar="NAME")] = "default",
    image: Annotated[str | None, typer.Option(help="hed: a picture file, or astronaut (the default), chelsea, coffee, "
                                                   "rocket, retina, china, flower.", metavar="FILE|NAME")] = None,
    size: Annotated[str | None, typer.Option(help="hed: 96 for a square, 320x240 for width x height; 224 unless told. "
                                                  "The middle of the picture is cut out and scaled.",
                                             metavar="SIZE")] = None,
    count: Annotated[int | None, typer.Option(help="digits: how many to run, 1 to 100; 10 unless told.",
                                              metavar="N")] = None,
    output: Annotated[Path, typer.Option(help="Folder for <network>/report.json and the picture.")] = Path("build/sim"),
) -> None:
    """Run a trained network through the accelerator's RTL and compare every value with the golden model.

    The network is quantised for the configuration, compiled to a descriptor list, and run in a cycle-exact simulation
    of the Verilog (Verilator). Then each map that the accelerator wrote to memory is compared with golden.

    Columns of the table: output shape, multiplications in all and with a non-zero activation, clock cycles, share of
    lane-cycles that multiplied a non-zero activation, non-zero values of input and output, bytes on the memory bus,
    values that differ from golden (must be 0).

    Exit status: 0 all equal, 1 mismatch or error of the accelerator, 2 input or tools not usable.

    Examples:

    \b
      python -m boards.sim.main --net digits --config tiny
      python -m boards.sim.main --image my.jpg --size 320x240 --config small
    """
    console = Console()
    try:
        with unusable():
            chosen, folder = get_config(config), output / net.value
            job = choose_job(net, image, size, count)
            folder.mkdir(parents=True, exist_ok=True)
        status = execute(job, chosen, console, folder)
    except (UnusableInput, BuildError) as error:
        typer.echo(f"error: {error}", err=True)
        raise typer.Exit(BAD_INPUT) from None
    except SimulationError as error:
        typer.echo(f"error: {error}", err=True)
        raise typer.Exit(FAILED) from None
    raise typer.Exit(status)


def choose_job(net: Net, image: str | None, size: str | None, count: int | None):
    """The job that the options name; ``ValueError`` if an option belongs to the other network."""
    if net is Net.digits:
        if image or size:
            raise ValueError("--image and --size (IMAGE=, SIZE=) belong to --net hed; digits come with a package")
        return DigitsJob(10 if count is None else count)
    if count is not None:
        raise ValueError("--count belongs to --net digits")
    return HedJob(image or "astronaut", size or "224")


if __name__ == "__main__":
    app()
