"""`make sim`: a trained network through the RTL, compared with golden, shown as table, picture and report.

From Python, any ONNX network on any inputs (:func:`run_model`):

    report = run_model(path, config, calibration, inputs=None, *, shape=None, folder=None, console=None)

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

from compiler.calibration import PICTURES, load_calibration
from compiler.cli import parse_numbers, parse_shape
from compiler.emit import Program
from compiler.phases import NEGATIVE_CLASSES
from compiler.pipeline import CompilerFault, compile_float, read_onnx
from compiler.progress import Stages
from golden.network import run_network
from hw.config import AcceleratorConfig
from hw.configs import CONFIGS, get_config

from .build import BuildError
from .compare import compare_run
from .early import early_sentence
from .jobs import DigitsJob, HedJob, OnnxJob
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
    """Networks that come with packages."""
    hed = "hed"
    digits = "digits"


#: When a sum of the intersect array ends, besides predictions from a file.
NONE, EXACT = "none", "exact"


@dataclass
class Measured:
    """What all runs of a program gave: the outputs of each run, the records of the layers, sentences about
    mismatches."""
    outputs: list[dict[str, np.ndarray]] = field(default_factory=list)
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


def simulate(stages: Stages, program: Program, inputs: list[np.ndarray]) -> Measured:
    """Runs the program on each integer input and compares every map with golden."""
    config, network = program.config, program.network
    with stages.stage(f"build simulator, CONFIG={config.name}"):
        simulator = Simulator(config, memory_bytes=program.memory_bytes, base=program.base)
    measured = Measured()
    # The compiler's estimate: the bar waits at its end if that was too low.
    estimate = sum(choice.cost.cycles for choice in program.choices.values())
    total = len(inputs) * estimate
    with simulator, stages.stage("golden", len(inputs)) as golden, stages.stage("simulate", total) as update:
        for number, x in enumerate(inputs, start=1):
            maps, results = run_network(network, x)
            golden(number, f"{number} of {len(inputs)}")

            def report(now, before=measured.cycles):
                update(min(before + now, total), f"{short(before + now)} cycles")

            begin = time.perf_counter()
            run = run_program(simulator, program, x, maps=(), max_cycles=int(20 * estimate) + 1_000_000,
                              progress=report)
            measured.seconds += time.perf_counter() - begin
            measured.cycles += run.cycles
            found = read_maps(simulator, program)
            measured.outputs.append({name: found[name] for name in network.outputs})
            records, problems = compare_run(program, maps, results, found, run.layers)
            measured.add(records)
            measured.problems += problems
    return measured


def execute(job, config: AcceleratorConfig, console: Console, folder: Path | None, early: str = EXACT) -> dict:
    """Quantises, compiles and simulates a job of ``jobs.py`` and shows it on ``console``; the report, which goes to
    ``folder`` with the job's files if there is one. ``early``: ``none``, ``exact`` or a file of predictions."""
    stages = Stages(console)
    with stages.progress:
        with stages.stage("quantise and compile"), unusable():
            program = compile_float(job.network, job.calibration, config,
                                    negative_classes=0 if early == NONE else NEGATIVE_CLASSES,
                                    predictions=None if early in (NONE, EXACT) else Path(early))
        measured = simulate(stages, program, [program.network.quantise_input(x) for x in job.inputs])
        with stages.stage("outputs"):
            outcome = job.finish(program.network, measured.outputs, folder)

    records = {record.name: record for record in measured.records}

    def row(layers):
        return summarise([records[name] for name in layers], config.total_lanes)

    subtotals = {name: row(layers) for name, layers in job.subtotals.items()}
    nodes = []
    for node in job.nodes:
        sums = row(node.layers)
        nodes.append({"name": node.name, "shape": list(node.shape), "layers": list(node.layers),
                      "macs_of_output": node.macs_of_output, "groups": node.groups,
                      "network_macs": node.dense_macs(sums["macs"], len(job.inputs))} | sums)
    report = build_report(network=job.name, config=config, records=measured.records, run_cycles=measured.cycles,
                          wall_seconds=measured.seconds, **subtotals, **({"nodes": nodes} if nodes else {}),
                          **({"early": early} if config.intersect else {}), **outcome.extra)
    if nodes:
        report["total"]["network_macs"] = sum(node["network_macs"] for node in nodes)
    files = outcome.files
    if folder is not None:
        write_report(report, folder / "report.json")
        files = [folder / "report.json", *files]
    show(console, report, subtotals, outcome.lines, measured.problems, files, config.total_lanes)
    return report


def run_model(path: Path, config: AcceleratorConfig, calibration: list[np.ndarray],
              inputs: list[np.ndarray] | None = None, *, shape: tuple[int, ...] | None = None,
              folder: Path | None = None, console: Console | None = None) -> dict:
    """Runs an ONNX network in the RTL on some inputs, and compares every map with golden.

    Parameters
    ----------
    path : Path
        The ONNX file.
    config : AcceleratorConfig
        Decides the width of values too.
    calibration, inputs : list of float arrays
        In the order of the file, a batch of 1 before it or not: what sets the scales, and what is run; the first of
        ``calibration`` unless told.
    shape : tuple, optional
        Shape of the input without the batch, where the file leaves it open.
    folder : Path, optional
        Where report.json and outputs.npz are to be written.
    console : Console, optional
        What shows progress and table.

    Returns
    -------
    The report (docs/report-schema.md): ``report["total"]["mismatches"]`` must be 0.

    Raises
    ------
    ValueError
        The file or an input cannot be used: one sentence.
    CompilerFault, BuildError, SimulationError
        The compiler, a tool, or the accelerator is at fault.
    """
    console = console or Console(quiet=True)
    stages = Stages(console)
    with stages.progress:
        with stages.stage("read"):
            network = read_onnx(path, shape)
        job = OnnxJob(network, config, calibration, calibration[:1] if inputs is None else inputs, stages)
    return execute(job, config, console, folder)


def show(console: Console, report: dict, subtotals: dict, lines: list[str], problems: list[str], files: list[Path],
         lanes: int) -> None:
    """Prints the table, the result and where the files are."""
    console.print(build_table(report, subtotals, console.width))
    total = report["total"]
    console.print(f"{report['run_cycles']:,} cycles in {report['wall_seconds']:.1f} s "
                  f"({short(report['cycles_per_second'])} cycles/s); at 100 MHz: {report['run_cycles'] / 1e5:.2f} ms")
    macs = total.get("network_macs", total["macs"])
    text = "MACs" if macs == total["macs"] else f"the network's {short(macs)} MACs"
    console.print(f"dense on as many lanes ({text} / lanes): {short(macs / lanes)} cycles, "
                  f"{macs / lanes / total['cycles']:.2f} times as many", highlight=False, soft_wrap=True)
    for line in [*([early_sentence(total["early"])] if "early" in total else []), *lines]:
        console.print(line, highlight=False, markup=False, soft_wrap=True)
    for problem in problems[:10]:
        console.print(problem, style="red", highlight=False, markup=False, soft_wrap=True)
    verdict = f"{total['mismatches']:,} mismatches in {total['compared']:,} values"
    console.print(verdict, style="bold red" if total["mismatches"] else "bold green", highlight=False)
    for path in files:
        console.print(f"wrote {path}", highlight=False, markup=False, soft_wrap=True)


app = typer.Typer(add_completion=False, pretty_exceptions_enable=False, rich_markup_mode=None)


@app.command()
def main(
    net: Annotated[str, typer.Option(help="hed: edges of a photograph by VGG-16, all layers; minutes. digits: "
                                          "handwritten digits; seconds. An ONNX file: what `zeroskip compile` takes.",
                                     metavar="hed|digits|FILE.onnx")] = "hed",
    config: Annotated[str, typer.Option(help=f"What to build: {', '.join(CONFIGS)} (hw/configs.py describes them), or "
                                             f"a JSON file (docs/configuration.md).", metavar="NAME|FILE")] = "default",
    image: Annotated[str | None, typer.Option(help="hed: a picture file, or astronaut (the default), chelsea, coffee, "
                                                   "rocket, retina, china, flower.", metavar="FILE|NAME")] = None,
    size: Annotated[str | None, typer.Option(help="hed: 96 for a square, 320x240 for width x height; 224 unless told. "
                                                  "The middle of the picture is cut out and scaled.",
                                             metavar="SIZE")] = None,
    count: Annotated[int | None, typer.Option(help="digits: how many to run, 1 to 100; 10 unless told. ONNX: inputs "
                                                   "to calibrate with, spread evenly over those of --calib; 16.",
                                              metavar="N")] = None,
    calib: Annotated[Path | None, typer.Option(help="ONNX: typical inputs, which set the scales: an .npz or .npy file, "
                                                    "or a folder of such files or of pictures.",
                                               metavar="FOLDER|FILE")] = None,
    input_: Annotated[Path | None, typer.Option("--input", help="ONNX: what to run, all that the file or folder holds; "
                                                                "the first calibration input unless told.",
                                                metavar="FILE|FOLDER")] = None,
    shape: Annotated[str | None, typer.Option(help="ONNX: shape of the input without the batch, where the file leaves "
                                                   "it open: 3x224x224.", metavar="SHAPE")] = None,
    mean: Annotated[str | None, typer.Option(help="ONNX: taken off the values of pictures (0 to 255, red first): one "
                                                  "number, or one for each channel; 0.", metavar="M,M,M")] = None,
    std: Annotated[str | None, typer.Option(help="ONNX: what pictures are divided by after that; 1.",
                                            metavar="S,S,S")] = None,
    early: Annotated[str | None, typer.Option(
        help="Configurations with the intersect array, such as snapea: stop a sum when it is known that ReLU makes "
             "it 0 (exact), or compute all of it (none). exact unless told; the outputs are the same. Or a file of "
             "`zeroskip predict`: exact, and predicted zeros besides, which change outputs.",
        metavar="none|exact|FILE.npz")] = None,
    output: Annotated[Path, typer.Option(
        help="Folder for <network>/report.json and the outputs.")] = Path("build/sim"),
) -> None:
    """Run a trained network through the accelerator's RTL and compare every value with the golden model.

    The network is quantised for the configuration, compiled to a descriptor list, and run in a cycle-exact simulation
    of the Verilog (Verilator). Then each map that the accelerator wrote to memory is compared with golden. For an ONNX
    file the host's part (Softmax ...) follows, and the outputs are compared with those of ONNX Runtime in float32.

    Columns of the table: output shape, multiplications of the layers in all and with a non-zero activation (a depthwise
    or grouped convolution runs in blocks, whose zeros between groups count), clock cycles, share of
    lane-cycles that multiplied a non-zero activation, non-zero values of input and output, bytes on the memory bus,
    values that differ from golden (must be 0). For an ONNX file a line is a node, which may have become several layers;
    of more than 40 nodes those that take most cycles have a line. report.json has all nodes and layers.

    Exit status: 0 all equal, 1 mismatch or error of the accelerator, 2 input or tools not usable.

    Examples:

    \b
      python -m boards.sim.main --net digits --config tiny
      python -m boards.sim.main --image my.jpg --size 320x240 --config small
      python -m boards.sim.main --config snapea --early none
      python -m boards.sim.main --net mobilenet.onnx --calib photos/ --input cat.jpg --mean 124,116,104 --std 58
    """
    console = Console()
    own = {"--image (IMAGE=)": image, "--size (SIZE=)": size}
    of_files = {"--calib (CALIB=)": calib, "--input (INPUT=)": input_, "--shape (SHAPE=)": shape,
                "--mean (MEAN=)": mean, "--std (STD=)": std}
    try:
        with unusable():
            chosen = get_config(config)
            if early and not chosen.intersect:
                raise ValueError(f"--early (EARLY=) belongs to configurations with the intersect array, not to "
                                 f"{chosen.name}")
            if net in Net.__members__:
                _refuse(of_files, f"an ONNX file, not to --net {net}")
                job = choose_job(Net(net), image, size, count)
            else:
                _refuse(own, "--net hed")
                job = _onnx_job(net, chosen, console, calib=calib, given=input_, count=16 if count is None else count,
                                shape=shape, mean=mean, std=std)
            folder = output / job.name
            folder.mkdir(parents=True, exist_ok=True)
        report = execute(job, chosen, console, folder, early or EXACT)
    except (UnusableInput, BuildError) as error:
        typer.echo(f"error: {error}", err=True)
        raise typer.Exit(BAD_INPUT) from None
    except (SimulationError, CompilerFault) as error:
        typer.echo(f"error: {error}", err=True)
        raise typer.Exit(FAILED) from None
    raise typer.Exit(FAILED if report["total"]["mismatches"] else 0)


def _refuse(options, owner):
    """``ValueError`` if one of the options, by name, is given: they belong to ``owner``."""
    given = [name for name, value in options.items() if value is not None]
    if given:
        raise ValueError(f"{' and '.join(given)} belong{'s' * (len(given) == 1)} to {owner}")


def choose_job(net: Net, image: str | None, size: str | None, count: int | None):
    """The job that the options name; ``ValueError`` if an option belongs to the other network."""
    if net is Net.digits:
        if image or size:
            raise ValueError("--image and --size (IMAGE=, SIZE=) belong to --net hed; digits come with a package")
        return DigitsJob(10 if count is None else count)
    if count is not None:
        raise ValueError("--count belongs to --net digits or to an ONNX file")
    return HedJob(image or "astronaut", size or "224")


def _onnx_job(net, config, console, *, calib, given, count, shape, mean, std):
    """The job of the ONNX file ``net``, with the options of the command."""
    if net and Path(net).is_dir():
        raise ValueError(f"{net} is a folder: give the ONNX file in it")
    if not net.lower().endswith(".onnx") and not Path(net).is_file():
        raise ValueError(f"there is no network {net!r}: choose hed or digits, or give an ONNX file")
    if calib is None:
        raise ValueError("an ONNX file needs typical inputs for calibration: give --calib (CALIB=), an .npz or .npy "
                         "file, or a folder of such files or of pictures")
    if count < 1:
        raise ValueError(f"--count must be 1 or more, not {count}")
    pictures = parse_numbers("--mean", mean or "0"), parse_numbers("--std", std or "1")
    stages = Stages(console)
    with stages.progress:
        with stages.stage("read"):
            network = read_onnx(Path(net), parse_shape(shape))
        with stages.stage("inputs"):
            calibration = load_calibration(calib, network.model, count, *pictures)
            inputs = calibration[:1] if given is None else load_calibration(given, network.model, None, *pictures)
        if mean is None and std is None and any(map(_holds_pictures, filter(None, (calib, given)))):
            console.print("pictures are taken as values 0 to 255, red first: give --mean and --std (MEAN=, STD=) if "
                          "the network was trained on others", highlight=False, soft_wrap=True)
        source = "the first calibration input" if given is None else str(given)
        return OnnxJob(network, config, calibration, inputs, stages, source)


def _holds_pictures(path):
    return any(file.suffix.lower() in PICTURES for file in (path.iterdir() if path.is_dir() else [path]))


if __name__ == "__main__":
    app()
