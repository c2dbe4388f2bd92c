"""``zeroskip compare``: the cycles of a network beside those of what else could run it.

An imported network is compared node by node, with the MACs that the float network has there: the layers of a node may
have more (zeros in the blocks of a depthwise convolution, sums and pools as convolutions), which others need not do.

* dense: MACs / lanes, the least that as many multipliers need which do not skip zeros.
* SCALE-Sim: a dense systolic array of as many multipliers, by the compute models of the package ``scalesim``. A
  convolution is a product of matrices for each of its groups, one after the other: M = pixels, N = output channels of
  the group, K = taps x input channels of the group; memory never makes the array wait. Every fold of a product takes
  equally long there, so one is run, and counted as often as it occurs. Whatever else nodes do takes it no time.
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

from compiler.progress import Stages
from hw.config import AcceleratorConfig
from hw.configs import get_config

from .report.record import FILE_NAME, read_record
from .sim.table import longest, node_label, short
from .workload import (
    CalibOption,
    CountOption,
    MeanOption,
    ShapeOption,
    SizeOption,
    StdOption,
    exit_status,
    load_workload,
)

PUBLISHED = Path(__file__).with_name("published.json")
DATAFLOWS = {"ws": "weights", "os": "outputs", "is": "inputs"}
#: Lines that the table has before the total, and letters of a name in it.
MOST_LINES, NAME_LETTERS = 40, 24


class MissingExtra(RuntimeError):
    """SCALE-Sim is not installed; the message says how to install it."""


@dataclass(frozen=True)
class Work:
    """A layer, or a node, that is run ``runs`` times.

    Parameters
    ----------
    name : str
    shape : (channels, rows, columns)
        Of its output.
    macs : int
        Multiplications of the network in all runs.
    cycles : int
        Of the accelerator, in all runs.
    macs_of_output : int
        Multiplications for one output value; 0 for what needs no array of multipliers.
    groups, runs : int
    """
    name: str
    shape: tuple[int, int, int]
    macs: int
    cycles: int
    macs_of_output: int
    groups: int = 1
    runs: int = 1

    @property
    def product(self) -> tuple[int, int, int] | None:
        """M, N and K of the product of matrices that each group is; None if there is nothing to multiply."""
        channels, rows, columns = self.shape
        return (rows * columns, channels // self.groups, self.macs_of_output) if self.macs_of_output else None


@dataclass(frozen=True)
class Run:
    """What is compared: ``works`` are the nodes of an imported network, else the layers (``unit`` says which).
    ``source``: where its cycles are from."""
    network: str
    config: AcceleratorConfig
    source: str
    unit: str
    works: list[Work]


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
    if record.nodes:
        unit, works = "node", [Work(row.name, tuple(row.shape), row.dense_macs, row.cycles, row.macs_of_output,
                                    row.groups, row.runs) for row in record.nodes]
    else:
        unit, works = "layer", [layer_work(row.name, row.shape, row.macs, row.cycles, row.runs)
                                for row in record.layers]
    return Run(record.network, AcceleratorConfig(**record.parameters), "RTL counters", unit, works)


def from_model(workload, config: AcceleratorConfig) -> Run:
    """A run of ``workload`` by the cycle model; ``ValueError`` if ``config`` cannot run it."""
    quantised = workload.quantise(config)
    program = quantised.compile(config)
    counters, results = quantised.model(program).layers, quantised.golden[1]
    cycles = {name: counted["cycles"] for name, counted in zip(program.layers, counters, strict=True)}
    if quantised.nodes:
        unit, works = "node", [
            Work(node.name, node.shape, node.dense_macs(sum(results[name].macs for name in node.layers)),
                 sum(cycles[name] for name in node.layers), node.macs_of_output, node.groups)
            for node in quantised.nodes]
    else:
        unit, works = "layer", [layer_work(name, results[name].full.shape, results[name].macs, cycles[name])
                                for name in cycles]
    return Run(workload.name, config, "cycle model", unit, works)


def layer_work(name: str, shape: Sequence[int], macs: int, cycles: int, runs: int = 1) -> Work:
    """A layer, a convolution of one group; arguments as of :class:`Work`."""
    return Work(name, tuple(shape), macs, cycles, macs // (runs * math.prod(shape)), runs=runs)


def array_shape(multipliers: int) -> tuple[int, int]:
    """Rows and columns of the squarest array of so many multipliers, no more rows than columns."""
    rows = next(rows for rows in range(math.isqrt(multipliers), 0, -1) if multipliers % rows == 0)
    return rows, multipliers // rows


def topology(works: Sequence[Work]) -> str:
    """The products of matrices as a topology file of SCALE-Sim (``-i gemm``), one for each group."""
    lines = ["Layer, M, N, K,\n"]
    for work in works:
        if work.product:
            name = " ".join(work.name.replace(",", " ").split())
            names = [name] if work.groups == 1 else [f"{name} group {group}" for group in range(work.groups)]
            lines += [f"{name}, {', '.join(map(str, work.product))},\n" for name in names]
    return "".join(lines)


def systolic_cycles(work: Work, array: tuple[int, int], dataflow: str) -> int:
    """Cycles of all groups in all runs on a systolic array; arguments as of :func:`scale_sim_cycles`."""
    return work.runs * work.groups * scale_sim_cycles(work.product, array, dataflow) if work.product else 0


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


def matching(works: Sequence[Work], wanted: Sequence[tuple[tuple[int, int, int], int]]) -> list[Work]:
    """Those of ``works`` that are the layers ``wanted``, in their order; none if one is missing."""
    found, rest = [], iter(works)
    for shape, macs in wanted:
        work = next((work for work in rest if (work.shape, work.macs) == (shape, macs * work.runs)), None)
        if work is None:
            return []
        found.append(work)
    return found


def build_table(run: Run, systolic: dict[str, list[int]], array: tuple[int, int]) -> Table:
    """A line for each layer or node, those with most cycles if there are many, then the total, then times over
    dense."""
    lanes = run.config.total_lanes
    table = Table(box=None, header_style="bold",
                  title=f"{run.network}: cycles on {lanes} multipliers ({run.config.name})")
    table.add_column(run.unit)
    for name in ("output\nc x h x w", "\nMACs", f"zeroskip\n{run.source}", "dense\nMACs / lanes",
                 *(f"SCALE-Sim {array[0]}x{array[1]}\n{DATAFLOWS[name]} stay" for name in systolic)):
        table.add_column(name, justify="right")
    shown = longest([(0, work.cycles) for work in run.works], MOST_LINES)
    for at in shown:
        work = run.works[at]
        table.add_row(Text(node_label(work.name, NAME_LETTERS)), "x".join(map(str, work.shape)), short(work.macs),
                      short(work.cycles), short(work.macs / lanes),
                      *(short(cycles[at]) for cycles in systolic.values()), end_section=at == shown[-1])
    macs = sum(work.macs for work in run.works)
    totals = [sum(work.cycles for work in run.works), macs / lanes, *map(sum, systolic.values())]
    table.add_row(f"total of {len(run.works)}", "", short(macs), *map(short, totals), style="bold")
    if macs:
        table.add_row("times dense", "", "", *(f"{macs / lanes / cycles:.2f}" for cycles in totals), style="bold")
    return table


def notes(run: Run) -> list[str]:
    """What is to be known about lines and columns of the table: sentences."""
    found, left_out = [], len(run.works) - MOST_LINES
    if left_out > 0:
        found.append(f"{left_out} {run.unit}s with fewer cycles are in the totals only")
    if any(work.product is None for work in run.works):
        found.append("0 MACs: sums, pools and copies, which need no array of multipliers; SCALE-Sim runs convolutions "
                     "and fully connected layers only")
    if any(work.groups > 1 for work in run.works):
        found.append("a depthwise or grouped convolution is a small product of matrices for each group on a systolic "
                     "array, one after the other: most of the array is idle")
    return found


def published_line(run: Run) -> str | None:
    """A sentence about the published figure of most of the network's layers; None if it has the layers of none."""
    found = [(matching(run.works, figure.layers), figure) for figure in load_published()]
    works, figure = max(found, key=lambda pair: len(pair[0]))
    if not works:
        return None
    ours, macs = sum(work.cycles for work in works), sum(work.macs for work in works)
    return (f"{figure.design}, {figure.network}, {len(works)} convolutions on {figure.multipliers} multipliers: "
            f"{figure.times_dense:.2f} times dense, {figure.gops:g} GOp/s at {figure.megahertz:g} MHz (published: "
            f"{figure.source}), {short(figure.cycles)} cycles (derived). zeroskip on these layers: "
            f"{macs / run.config.total_lanes / ours:.2f} times dense, {short(ours / works[0].runs)} cycles on "
            f"{run.config.total_lanes} ({run.source}). Weights and pictures differ, and with them the zeros.")


def compare(
    target: Annotated[str, typer.Argument(help="A run: its report.json, or the folder with it. Or a network, which the "
                                               "cycle model runs: hed, digits, or an ONNX file.",
                                          metavar="RUN|hed|digits|FILE.onnx")],
    config: Annotated[str, typer.Option(help="A network: the configuration, a name or a file. A run has its own.",
                                        metavar="NAME|FILE")] = "default",
    export: Annotated[Path | None, typer.Option("--topology", help="Also write the convolutions as a topology file "
                                                                   "for SCALE-Sim itself (-i gemm).",
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
    convolutions of VGG-16 and VGG-19, where the network has them. MACs are those of the float network: of an ONNX
    file, the table has its nodes, not the layers that they became.

    Exit status: 0 compared, 1 the compiler is at fault, 2 input not usable.

    Examples:

    \b
      zeroskip compare build/sim/hed/report.json
      zeroskip compare digits --config tiny
    """
    console = Console()
    with exit_status():
        if Path(target).is_dir() or target.endswith(".json"):
            run = from_report(Path(target))
        else:
            chosen, stages = get_config(config), Stages(console)
            with stages.progress, stages.stage(f"cycle model, {chosen.name}"):
                run = from_model(load_workload(target, size=size, calib=calib, shape=shape, count=count, mean=mean,
                                               std=std), chosen)
        array = array_shape(run.config.total_lanes)
        try:
            systolic = {dataflow: [systolic_cycles(work, array, dataflow) for work in run.works]
                        for dataflow in DATAFLOWS}
            note = f"SCALE-Sim {version('scalesim')}: its compute models, memory ideal"
        except MissingExtra as error:
            systolic, note = {}, str(error)
        console.print(build_table(run, systolic, array))
        for line in filter(None, (published_line(run), note, *notes(run))):
            console.print(line, highlight=False, markup=False)
        if export is not None:
            export.write_text(topology(run.works))
            console.print(f"wrote {export}", highlight=False, markup=False, soft_wrap=True)
