"""``zeroskip compare``: the cycles of a network beside those of what else could run the same layers.

* dense: MACs / lanes, the least that as many multipliers need which do not skip zeros.
* SCALE-Sim: a dense systolic array of as many multipliers, by the compute models of the package ``scalesim``. A layer
  is a product of matrices, M = pixels, N = output channels, K = taps x input channels; memory never makes the array
  wait. Every fold of a layer takes equally long there, so one is run, and counted as often as it occurs.
* published figures (``published.json``), for the networks that they are of.

Source: docs/explore.md, "Side by side".
"""
import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import Annotated

import numpy as np
import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

from compiler.pipeline import CompilerFault
from compiler.progress import Stages
from hw.config import AcceleratorConfig
from hw.configs import get_config

from .report.record import FILE_NAME, read_record
from .sim.table import short
from .workload import (
    CalibOption,
    CountOption,
    MeanOption,
    ShapeOption,
    SizeOption,
    StdOption,
    load_workload,
)

FAILED, UNUSABLE = 1, 2
PUBLISHED = Path(__file__).with_name("published.json")
DATAFLOWS = {"ws": "weights", "os": "outputs", "is": "inputs"}
#: Lines that the table has before the total.
MOST_LINES = 40


class MissingExtra(RuntimeError):
    """SCALE-Sim is not installed; the message says how to install it."""


@dataclass(frozen=True)
class Work:
    """A layer, run ``runs`` times: output (channels, rows, columns), MACs of one run, cycles of all runs."""
    name: str
    shape: tuple[int, int, int]
    macs: int
    cycles: int
    runs: int = 1

    @property
    def product(self) -> tuple[int, int, int]:
        """M, N and K of the product of matrices that the layer is."""
        channels, rows, columns = self.shape
        return rows * columns, channels, self.macs // (channels * rows * columns)


@dataclass(frozen=True)
class Run:
    """What is compared. ``source``: where its cycles are from."""
    network: str
    config: AcceleratorConfig
    source: str
    layers: list[Work]


@dataclass(frozen=True)
class Published:
    """A published figure: ``gops`` operations (two a MAC) of the convolutions in ns, at ``megahertz``."""
    design: str
    network: str
    layers: list[tuple[tuple[int, int, int], int]]
    multipliers: int
    megahertz: float
    gops: float
    times_dense: float
    source: str

    @property
    def cycles(self) -> float:
        """Cycles of all layers: derived from operations a second and clock."""
        return 2 * sum(macs for _, macs in self.layers) / (self.gops * 1e9) * self.megahertz * 1e6


def from_report(path: Path) -> Run:
    """The run whose ``report.json``, or folder with one, is ``path``; ``ValueError`` if it cannot be read."""
    record = read_record(path / FILE_NAME if path.is_dir() else path)
    layers = [Work(row.name, tuple(row.shape), row.macs // row.runs, row.cycles, row.runs) for row in record.layers]
    return Run(record.network, AcceleratorConfig(**record.parameters), "RTL counters", layers)


def from_model(workload, config: AcceleratorConfig) -> Run:
    """A run of ``workload`` by the cycle model; ``ValueError`` if ``config`` cannot run it."""
    quantised = workload.quantise(config)
    program = quantised.compile(config)
    run, results = quantised.model(program), quantised.golden[1]
    layers = [Work(name, results[name].full.shape, results[name].macs, counters["cycles"])
              for name, counters in zip(program.layers, run.layers, strict=True)]
    return Run(workload.name, config, "cycle model", layers)


def array_shape(multipliers: int) -> tuple[int, int]:
    """Rows and columns of the squarest array of so many multipliers, no more rows than columns."""
    rows = next(rows for rows in range(math.isqrt(multipliers), 0, -1) if multipliers % rows == 0)
    return rows, multipliers // rows


def topology(layers: Sequence[Work]) -> str:
    """The layers as a topology file of SCALE-Sim (``-i gemm``)."""
    lines = [f"{layer.name.replace(',', ' ')}, {', '.join(map(str, layer.product))},\n" for layer in layers]
    return "".join(["Layer, M, N, K,\n", *lines])


def scale_sim_cycles(product: tuple[int, int, int], array: tuple[int, int], dataflow: str) -> int:
    """Cycles of a product of matrices on a systolic array.

    Parameters
    ----------
    product : (M, N, K)
        Rows and columns of the result, and what is summed over.
    array : (rows, columns)
    dataflow : str
        What stays in the array: ``ws`` weights, ``os`` outputs, ``is`` inputs.

    Raises
    ------
    MissingExtra
    """
    m, n, k = product
    down, across, time = {"ws": (k, n, m), "os": (m, n, k), "is": (k, m, n)}[dataflow]
    folds = -(-down // array[0]) * -(-across // array[1])
    return folds * _fold_cycles(array, dataflow, time)


@cache
def _fold_cycles(array, dataflow, time):
    """Cycles of one fold, by SCALE-Sim: what the array holds is as large as the array."""
    try:
        from scalesim.compute.systolic_compute_is import systolic_compute_is
        from scalesim.compute.systolic_compute_os import systolic_compute_os
        from scalesim.compute.systolic_compute_ws import systolic_compute_ws
        from scalesim.scale_config import scale_config
    except ImportError as error:
        raise MissingExtra(f"no SCALE-Sim ({error}): pip install 'zeroskip[compare]' adds its columns") from None
    rows, columns = array
    m, n, k = {"ws": (time, columns, rows), "os": (rows, columns, time), "is": (columns, time, rows)}[dataflow]
    config = scale_config()
    config.set_arr_dims(rows, columns)
    config.set_dataflow(dataflow)
    config.force_valid()
    compute = {"ws": systolic_compute_ws, "os": systolic_compute_os, "is": systolic_compute_is}[dataflow]()
    compute.set_params(config_obj=config, ifmap_op_mat=np.zeros((m, k)), filter_op_mat=np.zeros((k, n)),
                       ofmap_op_mat=np.zeros((m, n)))
    compute.create_demand_matrices()
    return len(compute.ofmap_demand_matrix)


def load_published(path: Path = PUBLISHED) -> list[Published]:
    """The figures in ``path``, all of them of VGG networks on pictures of 224 x 224."""
    return [Published(entry["design"], entry["network"], vgg_layers(entry["convolutions"]), entry["multipliers"],
                      entry["megahertz"], entry["giga_operations_a_second"], entry["times_dense"], entry["source"])
            for entry in json.loads(path.read_text())]


def vgg_layers(convolutions: Sequence[int]) -> list[tuple[tuple[int, int, int], int]]:
    """Output shape and MACs of the 3x3 convolutions of a VGG network with so many in each of its five blocks."""
    layers, channels_in = [], 3
    for block, (count, channels) in enumerate(zip(convolutions, (64, 128, 256, 512, 512), strict=True)):
        side = 224 >> block
        for _ in range(count):
            layers.append(((channels, side, side), 9 * channels_in * channels * side * side))
            channels_in = channels
    return layers


def matching(layers: Sequence[Work], wanted: Sequence[tuple[tuple[int, int, int], int]]) -> list[Work]:
    """Those of ``layers`` that are the layers ``wanted``, in their order; none if one is missing."""
    found, rest = [], iter(layers)
    for shape, macs in wanted:
        layer = next((layer for layer in rest if (layer.shape, layer.macs) == (shape, macs)), None)
        if layer is None:
            return []
        found.append(layer)
    return found


def build_table(run: Run, systolic: dict[str, list[int]], array: tuple[int, int]) -> Table:
    """A line for each layer, those with most cycles if there are many, then the total, then times over dense."""
    lanes = run.config.total_lanes
    table = Table(box=None, header_style="bold",
                  title=f"{run.network}: cycles on {lanes} multipliers ({run.config.name})")
    table.add_column("layer")
    for name in ("output\nc x h x w", "\nMACs", f"zeroskip\n{run.source}", "dense\nMACs / lanes",
                 *(f"SCALE-Sim {array[0]}x{array[1]}\n{DATAFLOWS[name]} stay" for name in systolic)):
        table.add_column(name, justify="right")
    shown = sorted(sorted(range(len(run.layers)), key=lambda at: -run.layers[at].cycles)[:MOST_LINES])
    for at in shown:
        layer = run.layers[at]
        table.add_row(Text(layer.name), "x".join(map(str, layer.shape)), short(layer.macs * layer.runs),
                      short(layer.cycles), short(layer.macs * layer.runs / lanes),
                      *(short(cycles[at]) for cycles in systolic.values()), end_section=at == shown[-1])
    ours, macs = sum(layer.cycles for layer in run.layers), sum(layer.macs * layer.runs for layer in run.layers)
    totals = [ours, macs / lanes, *map(sum, systolic.values())]
    table.add_row(f"total of {len(run.layers)}", "", short(macs), *map(short, totals), style="bold")
    table.add_row("times dense", "", "", *(f"{macs / lanes / cycles:.2f}" for cycles in totals), style="bold")
    return table


def published_line(run: Run) -> str | None:
    """A sentence about the published figure of most of the network's layers; None if it has the layers of none."""
    found = [(matching(run.layers, figure.layers), figure) for figure in load_published()]
    layers, figure = max(found, key=lambda pair: len(pair[0]))
    if not layers:
        return None
    ours, macs = sum(layer.cycles for layer in layers), sum(layer.macs * layer.runs for layer in layers)
    return (f"{figure.design}, {figure.network}, {len(layers)} convolutions on {figure.multipliers} multipliers: "
            f"{figure.times_dense:.2f} times dense, {figure.gops:g} GOp/s at {figure.megahertz:g} MHz (published: "
            f"{figure.source}), {short(figure.cycles)} cycles (derived). zeroskip on these layers: "
            f"{macs / run.config.total_lanes / ours:.2f} times dense, {short(ours / layers[0].runs)} cycles on "
            f"{run.config.total_lanes} ({run.source}). Weights and pictures differ, and with them the zeros.")


def compare(
    target: Annotated[str, typer.Argument(help="A run: its report.json, or the folder with it. Or a network, which the "
                                               "cycle model runs: hed, digits, or an ONNX file.",
                                          metavar="RUN|hed|digits|FILE.onnx")],
    config: Annotated[str, typer.Option(help="A network: the configuration, a name or a file. A run has its own.",
                                        metavar="NAME|FILE")] = "default",
    export: Annotated[Path | None, typer.Option("--topology", help="Also write the layers as a topology file for "
                                                                   "SCALE-Sim itself (-i gemm).",
                                                metavar="FILE.csv")] = None,
    size: SizeOption = None,
    calib: CalibOption = None,
    shape: ShapeOption = None,
    count: CountOption = 16,
    mean: MeanOption = "0",
    std: StdOption = "1",
) -> None:
    """Set the cycles of a network beside those of other accelerators with as many multipliers.

    The own figures are the counters of the RTL (of a run of make sim) or of the cycle model. Beside them: dense, MACs
    / lanes, which no array without zero-skipping betters; a dense systolic array by SCALE-Sim, for each of its three
    dataflows, memory ideal (needs pip install 'zeroskip[compare]'); and NullHop's published figures for the
    convolutions of VGG-16 and VGG-19, where the network has them.

    Exit status: 0 compared, 1 the compiler is at fault, 2 input not usable.

    Examples:

    \b
      zeroskip compare build/sim/hed/report.json
      zeroskip compare digits --config tiny
    """
    console = Console()
    try:
        if Path(target).is_dir() or target.endswith(".json"):
            run = from_report(Path(target))
        else:
            chosen, stages = get_config(config), Stages(console)
            with stages.progress, stages.stage(f"cycle model, {chosen.name}"):
                run = from_model(load_workload(target, size=size, calib=calib, shape=shape, count=count, mean=mean,
                                               std=std), chosen)
        array = array_shape(run.config.total_lanes)
        try:
            systolic = {dataflow: [layer.runs * scale_sim_cycles(layer.product, array, dataflow)
                                   for layer in run.layers] for dataflow in DATAFLOWS}
            note = f"SCALE-Sim {version('scalesim')}: its compute models, memory ideal"
        except MissingExtra as error:
            systolic, note = {}, str(error)
        console.print(build_table(run, systolic, array))
        for line in filter(None, (published_line(run), note)):
            console.print(line, highlight=False, markup=False)
        if export is not None:
            export.write_text(topology(run.layers))
            console.print(f"wrote {export}", highlight=False, markup=False, soft_wrap=True)
    except (ValueError, OSError) as error:
        typer.echo(f"error: {error}", err=True)
        raise typer.Exit(UNUSABLE) from None
    except CompilerFault as error:
        typer.echo(f"error: {error}", err=True)
        raise typer.Exit(FAILED) from None
