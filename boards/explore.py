"""``zeroskip explore``: the configurations that fit a board, what a network costs on each, and those worth building.

Source: docs/explore.md.
"""
import itertools
import json
import math
from collections import Counter
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from compiler.emit import compile_network
from compiler.order import order_network
from compiler.phases import NEGATIVE_CLASSES, phase_counts
from compiler.pipeline import ORDER_INPUTS, PROFILE_INPUTS
from compiler.profile import fewest_phases, profile
from compiler.progress import Stages
from compiler.tile import choose_tiling, fits_whole
from golden.network import gather, run_network
from hw.config import AcceleratorConfig

from .catalogue import BOARDS, CHIPS, get_board
from .resource_model import ARRAYS, Resources, calibrated, leave_one_out, load_points
from .sim.report import BEAT_BYTES
from .workload import (
    CalibOption,
    CountOption,
    MeanOption,
    ShapeOption,
    SizeOption,
    StdOption,
    Workload,
    exit_status,
    load_workload,
)

#: The fullest design that the open flow has routed at the board's clock, `tiny` on an xc7z010, takes 65 % of its LUTs
#: (docs/results/synthesis.md).
SHARE = 0.7
#: What is swept. The depths fill block RAMs; a drain of 16 costs 16 requantisers, and no network waits for one of 8.
GROUPS = (1, 2, 3, 4, 5, 6, 8, 10, 12, 16)
LANES = (16, 32, 64, 128)
BLOCKS = (16, 32)
DRAINS = (4, 8)
WEIGHT_DEPTHS = (256, 512, 1024)
TILE_SLOTS = (32, 64, 128, 256)
SUM_WINDOWS = (32, 128)
POOL_COLUMNS = 16
#: The same for the intersect array, where each PE has a copy of the tile and of its cluster's weights.
INTERSECT_GROUPS = (1, 2, 4)
INTERSECT_CLUSTERS = (1, 2, 4)
INTERSECT_PES = (2, 4, 8)
INTERSECT_LANES = (16, 32, 64)
INTERSECT_BLOCKS = (16, 32, 64)
INTERSECT_WEIGHT_DEPTHS = (448, 1152)
INTERSECT_TILE_SLOTS = (32, 64)
INTERSECT_SUM_WINDOWS = (64, 256)
#: What ``--array`` takes, besides the name of an array.
BOTH = "both"
#: Columns of text that the table needs.
TABLE_WIDTH = 110
#: Figures closer than this count as equal: the models are not better, and the front would hold hundreds of twins.
TOLERANCE = 0.03


@dataclass(frozen=True)
class Candidate:
    """A configuration that fits: its resources, and cycles and DRAM bytes of a frame. ``exact``: by the cycle model,
    not by the compiler's estimate."""
    config: AcceleratorConfig
    resources: Resources
    cycles: int
    dram_bytes: int
    exact: bool = False


def sweep(value_width: int, arrays: tuple[str, ...] = ARRAYS) -> Iterator[AcceleratorConfig]:
    """Every legal configuration of the grids of ``arrays``, in a fixed order. The intersect array has 8-bit values."""
    if "broadcast" in arrays:
        yield from _broadcast_sweep(value_width)
    if "intersect" in arrays and value_width == 8:
        yield from _intersect_sweep()


def _broadcast_sweep(value_width):
    for groups, lanes, block, drain, depth, slots, windows in itertools.product(
            GROUPS, LANES, BLOCKS, DRAINS, WEIGHT_DEPTHS, TILE_SLOTS, SUM_WINDOWS):
        if lanes % block == 0:
            yield AcceleratorConfig(
                f"g{groups}x{lanes}_b{block}_d{drain}_w{depth}_s{slots}_p{windows}", value_width=value_width,
                groups=groups, lanes=lanes, block=block, drain=drain, weight_depth=depth, tile_slots=slots,
                sum_windows=windows, pool_columns=POOL_COLUMNS)


def _intersect_sweep():
    for groups, clusters, pes, lanes, block, drain, depth, slots, windows in itertools.product(
            INTERSECT_GROUPS, INTERSECT_CLUSTERS, INTERSECT_PES, INTERSECT_LANES, INTERSECT_BLOCKS, DRAINS,
            INTERSECT_WEIGHT_DEPTHS, INTERSECT_TILE_SLOTS, INTERSECT_SUM_WINDOWS):
        if lanes % block == 0:
            yield AcceleratorConfig(
                f"g{groups}x{lanes}_c{clusters}x{pes}_b{block}_d{drain}_w{depth}_s{slots}_p{windows}", value_width=8,
                groups=groups, lanes=lanes, block=block, drain=drain, weight_depth=depth, tile_slots=slots,
                sum_windows=windows, pool_columns=POOL_COLUMNS, array="intersect", clusters=clusters, pes=pes)


def fitting(chip: Resources, share: float, value_width: int,
            arrays: tuple[str, ...] = ARRAYS) -> list[tuple[AcceleratorConfig, Resources]]:
    """The configurations of the grids that take at most ``share`` of each kind of cell of ``chip``."""
    model = calibrated()
    sized = ((config, model.resources(config)) for config in sweep(value_width, arrays))
    return [(config, used) for config, used in sized if max(used.shares(chip)) <= share]


class Estimates:
    """The compiler's estimate of a workload for one configuration after another.

    Layers of the same sizes and work are costed once; weights are laid out once for each network that lowering gives,
    and the work of each phase is profiled once for each size of a chunk besides.
    """

    def __init__(self, workload: Workload):
        self.workload, self._layers = workload, {}

    def __call__(self, config: AcceleratorConfig) -> tuple[int, int]:
        """Cycles and DRAM bytes of a frame; ``ValueError`` if a layer does not fit the memories of ``config``."""
        key = (self.workload.key(config), config.block, config.value_width, config.array,
               config.intersect and config.weight_depth)
        if key not in self._layers:
            self._layers[key] = self._describe(config)
        costs = {layer: _cheapest(config, *layer) for layer in dict.fromkeys(self._layers[key])}
        cycles = sum(costs[layer].cycles for layer in self._layers[key])
        beats = sum(costs[layer].read + costs[layer].write for layer in self._layers[key])
        return round(float(cycles)), round(float(beats)) * BEAT_BYTES

    def _describe(self, config):
        """Of each layer the geometry, the densities, and the work of each number of phases that it may have."""
        # What a layer looks like does not depend on depths: these fit any layer that fits at all.
        roomy = replace(config, weight_depth=max(INTERSECT_WEIGHT_DEPTHS if config.intersect else WEIGHT_DEPTHS),
                        tile_slots=max(TILE_SLOTS), sum_windows=max(INTERSECT_SUM_WINDOWS))
        quantised = self.workload.quantise(config)
        choices = compile_network(quantised.network, roomy, densities=quantised.densities).choices
        works = {name: (None,) for name in choices}
        if config.intersect:
            # Chunks, and so tasks, depend on this depth; a work whose tiles do not fit is left out by _cheapest.
            roomy = replace(roomy, weight_depth=config.weight_depth)
            runs = [run_network(quantised.network, x)[0] for x in quantised.profiled[:ORDER_INPUTS]]
            works = {layer.name: tuple(
                profile(layer, [gather(maps, layer.inputs) for maps in runs[:PROFILE_INPUTS]], roomy, *phases)
                for phases in phase_counts(layer, roomy, NEGATIVE_CLASSES))
                for layer in order_network(quantised.network, runs, roomy).layers}
        return [(choice.geometry, choice.density_in, choice.density_out, works[name])
                for name, choice in choices.items()]


def _cheapest(config, geometry, density_in, density_out, works):
    """The estimate with as many phases as :func:`compiler.profile.profile_network` takes."""
    costs = [choose_tiling(geometry, config, density_in=density_in, density_out=density_out, work=work).cost
             for work in works if work is None or not work.whole or fits_whole(geometry, config)]
    return costs[fewest_phases([cost.cycles for cost in costs])]


def modelled(workload: Workload, candidate: Candidate) -> Candidate:
    """``candidate`` with cycles and DRAM bytes from the cycle model, on the actual input."""
    quantised = workload.quantise(candidate.config)
    run = quantised.model(quantised.compile(candidate.config))
    beats = sum(layer["read_beats"] + layer["write_beats"] for layer in run.layers)
    return replace(candidate, cycles=run.cycles, dram_bytes=beats * BEAT_BYTES, exact=True)


def pareto(candidates: list[Candidate]) -> list[Candidate]:
    """Those that no other one equals or betters in cycles, DRAM bytes and all resources, fastest first.

    Figures are compared in steps of ``TOLERANCE``; of equals the one that comes first stays.
    """
    def steps(candidate):
        return tuple(math.floor(math.log(max(value, 1e-9)) / math.log1p(TOLERANCE)) for value in (
            candidate.cycles, candidate.dram_bytes, candidate.resources.luts, candidate.resources.dsps,
            candidate.resources.block_rams))

    front = []
    for found, candidate in sorted(((steps(candidate), candidate) for candidate in candidates),
                                   key=lambda pair: (pair[0], pair[1].cycles, pair[1].config.name)):
        # Sorted, nothing that comes later can better what came before in every respect.
        if not any(all(mine <= other for mine, other in zip(known, found, strict=True)) for known, _ in front):
            front.append((found, candidate))
    return sorted((candidate for _, candidate in front), key=lambda candidate: (candidate.cycles,
                                                                                candidate.config.name))


def error_lines(arrays: tuple[str, ...]) -> list[str]:
    """What the resource model is fitted to and how far off it is for designs with ``arrays``, for people."""
    points = load_points()
    designs = sum(point.part == "design" for point in points)
    lines = [f"resource model: fitted to {designs} whole designs and {len(points) - designs} groups and clusters after "
             f"synthesis; DSP slices and block RAMs of all of them exact"]
    for array in arrays:
        luts, flip_flops = (f"{100 * mean:.0f} % on average, {100 * worst:.0f} % at most"
                            for mean, worst in leave_one_out(points, array).values())
        lines.append(f"a design with the {array} array that it was not fitted to: LUTs {luts}; flip-flops {flip_flops} "
                     f"off")
    return lines


def build_table(front: list[Candidate], chip: Resources, chip_name: str, megahertz: float) -> Table:
    """A line for each candidate."""
    table = Table(box=None, pad_edge=False, header_style="bold",
                  title=f"worth building on {chip_name}, at {megahertz:g} MHz",
                  caption="broadcast: groups x lanes; intersect: groups x clusters x PEs")
    table.add_column("array", overflow="fold")
    for name in ("lanes,\nblock,\ndrain", "depth,\nslots,\nwindows", "frames\na\nsecond", "cycles",
                 "DRAM\nMB a\nframe", "LUT", "DSP", "block\nRAM"):
        table.add_column(name, justify="right", overflow="fold")
    for candidate in front:
        c, used = candidate.config, candidate.resources
        shares = used.shares(chip)
        multipliers = f"{c.clusters} x {c.pes}" if c.intersect else c.lanes
        table.add_row(
            f"{c.array} {c.groups} x {multipliers}", f"{c.lanes}, {c.block}, {c.drain}",
            f"{c.weight_depth}, {c.tile_slots}, {c.sum_windows}",
            f"{megahertz * 1e6 / candidate.cycles:.2f}", f"{candidate.cycles:,}{'' if candidate.exact else ' ~'}",
            f"{candidate.dram_bytes / 1e6:.2f}", f"{used.luts:,} ({100 * shares[0]:.0f} %)",
            f"{used.dsps} ({100 * shares[2]:.0f} %)", f"{used.block_rams:g} ({100 * shares[3]:.0f} %)")
    return table


def write_config(config: AcceleratorConfig, path: Path) -> None:
    """Write ``config`` as the file that ``CONFIG=`` takes: a JSON object of its fields."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(asdict(config), indent=1) + "\n")


def _explore(console, workload, chip, share, value_width, arrays, exact) -> list[Candidate]:
    """The front, its fastest ``exact`` candidates by the cycle model."""
    stages = Stages(console)
    candidates, refused = [], []
    with stages.progress:
        found = fitting(chip, share, value_width, arrays)
        estimates = Estimates(workload)
        with stages.stage("estimate", len(found)) as update:
            for number, (config, used) in enumerate(found, start=1):
                try:
                    candidates.append(Candidate(config, used, *estimates(config)))
                except ValueError as error:
                    refused.append(error)
                update(number, f"{number} of {len(found)}")
        if not candidates:
            raise ValueError(f"no configuration runs {workload.name}: {refused[0]}" if refused else
                             f"no configuration of the sweep takes at most {100 * share:g} % of the chip")
        front = pareto(candidates)
        with stages.stage("cycle model", min(exact, len(front))) as update:
            for number in range(min(exact, len(front))):
                front[number] = modelled(workload, front[number])
                update(number + 1, front[number].config.name)
    counts = Counter(config.array for config, _ in found)
    console.print(f"{sum(1 for _ in sweep(value_width, arrays)):,} configurations, {len(found):,} of them fit "
                  f"({', '.join(f'{counts[array]:,} {array}' for array in arrays)}), {len(candidates):,} run "
                  f"{workload.name}; {len(front)} are worth building", highlight=False)
    return sorted(front, key=lambda candidate: (not candidate.exact, candidate.cycles, candidate.config.name))


def explore(
    model: Annotated[str, typer.Argument(help="hed (edges of a photograph by VGG-16), digits, or an ONNX file.",
                                         metavar="hed|digits|FILE.onnx")],
    board: Annotated[str, typer.Option(help=f"One of {', '.join(name for name in BOARDS if BOARDS[name].chip in CHIPS)}"
                                            f".", metavar="BOARD")],
    output: Annotated[Path | None, typer.Option("--output", "-o", help="Write the fastest configuration to this file, "
                                                "which CONFIG= of make sim and make bitstream takes.",
                                                metavar="FILE.json")] = None,
    megahertz: Annotated[float, typer.Option(help="Clock that frames a second are counted at; the board's unless "
                                                  "told. Whether a configuration meets it, placement and routing say.",
                                             min=0, metavar="MHZ")] = 0,
    share: Annotated[float, typer.Option(help="Largest share of the chip's LUTs, flip-flops, DSP slices and block "
                                              "RAMs. The fullest design that the open flow has routed at its clock "
                                              "takes 65 % of the LUTs.", min=0.01, max=1)] = SHARE,
    value_width: Annotated[int, typer.Option(help="Bits of a value: 8, where two lanes share a DSP slice, or 16.",
                                             metavar="8|16")] = 8,
    array: Annotated[str, typer.Option(help="Candidates with this array: broadcast, intersect, which has 8-bit values "
                                            "and stops a sum when its ReLU is known to give 0, or both.",
                                       metavar=f"{'|'.join(ARRAYS)}|{BOTH}")] = BOTH,
    exact: Annotated[int, typer.Option(help="How many, the fastest first, get their cycles from the cycle model, "
                                            "which equals the RTL; those of the others, marked ~, are the compiler's "
                                            "estimate.", min=1, metavar="N")] = 5,
    size: SizeOption = None,
    calib: CalibOption = None,
    shape: ShapeOption = None,
    count: CountOption = 16,
    mean: MeanOption = "0",
    std: StdOption = "1",
) -> None:
    """Find the configurations that are worth building for a network on a board.

    Every configuration of a grid that fits the board is costed with the network, and those are listed that no other
    one betters in frames a second, LUTs, DSP slices, block RAMs and DRAM traffic at once. What a configuration takes
    of the chip is a model fitted to synthesis runs; its error on designs it was not fitted to is printed.

    Exit status: 0 listed, 1 the compiler is at fault, 2 input not usable.

    Examples:

    \b
      zeroskip explore digits --board arty_z7_10 -o best.json
      zeroskip explore net.onnx --calib photos/ --board arty_z7_20 --megahertz 60
      make sim NET=digits CONFIG=best.json
    """
    console = Console()
    with exit_status():
        chosen = get_board(board)
        if chosen.chip not in CHIPS:
            raise ValueError(f"{board} has a {chosen.chip}, which the resource model does not cover; choose one of "
                             f"{', '.join(name for name in BOARDS if BOARDS[name].chip in CHIPS)}")
        if value_width not in (8, 16):
            raise ValueError(f"--value-width must be 8 or 16, not {value_width}")
        if array not in (*ARRAYS, BOTH):
            raise ValueError(f"--array must be {', '.join(ARRAYS)} or {BOTH}, not {array!r}")
        if array == "intersect" and value_width != 8:
            raise ValueError("the intersect array has 8-bit values; leave --value-width out")
        arrays = (array,) if array != BOTH else ARRAYS if value_width == 8 else ("broadcast",)
        workload = load_workload(model, size=size, calib=calib, shape=shape, count=count, mean=mean, std=std)
        front = _explore(console, workload, CHIPS[chosen.chip], share, value_width, arrays, exact)
        if not console.is_terminal:
            # A file or a pipe has room for whole lines.
            console.width = max(console.width, TABLE_WIDTH)
        console.print(build_table(front, CHIPS[chosen.chip], f"{board} ({chosen.chip})", megahertz or chosen.megahertz))
        for line in error_lines(arrays):
            console.print(line, highlight=False)
        if output is not None:
            write_config(front[0].config, output)
            console.print(f"wrote {output}: {front[0].config.name}; next: make sim CONFIG={output}, make bitstream "
                          f"BOARD={board} CONFIG={output}", highlight=False, markup=False, soft_wrap=True)
