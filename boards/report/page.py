"""The page: sections with a figure, what its parts are made of, and the table behind it."""
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from boards.sim.report import BEAT_BYTES
from boards.sim.table import short

from . import figures
from .record import Row, Run

TEMPLATE = "page.html.j2"


@dataclass(frozen=True)
class Table:
    """``columns``: their headings; ``rows``: texts, as many in each; ``total``: the last row, or nothing; ``details``:
    for each row what is folded behind its name, or nothing."""
    columns: list[str]
    rows: list[list[str]]
    total: list[str] = field(default_factory=list)
    details: list[list[str]] = field(default_factory=list)


@dataclass(frozen=True)
class Section:
    """A part of the page.

    Parameters
    ----------
    name : str
        A word: what links and the picture's file are called.
    title, text : str
        The heading, and what there is to see.
    draw : callable
        Function of ``figures.py``.
    legend : list of figures.Bar
        What the figure shows.
    alt : str
        The figure in a sentence, for those who do not see it.
    tables : list of Table
        The numbers behind it.
    """
    name: str
    title: str
    text: str
    draw: Callable
    legend: list[figures.Bar]
    alt: str
    tables: list[Table]


def write_page(run: Run, path: Path, progress: Callable[[Iterable], Iterable] = iter) -> list[Path]:
    """Writes the page to ``path`` and its figures beside it, as ``<stem>-<section>.png``.

    Parameters
    ----------
    run : Run
        What the page is about.
    path : Path
        The HTML file; its folder is made.
    progress : callable
        Wraps the list of sections while it is gone through.

    Returns
    -------
    All files written, the page first.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    pictures, drawn = [], []
    for section in progress(sections(run)):
        pictures.append(path.with_name(f"{path.stem}-{section.name}.png"))
        drawn.append((section, Markup(figures.draw(section.draw, run, section.title.lower(), section.legend,
                                                   pictures[-1]))))
    environment = Environment(loader=FileSystemLoader(Path(__file__).parent), autoescape=True, trim_blocks=True,
                              lstrip_blocks=True, undefined=StrictUndefined)
    path.write_text(environment.get_template(TEMPLATE).render(run=run, sections=drawn, cards=cards(run),
                                                              facts=facts(run)), encoding="utf-8")
    return [path, *pictures]


def count(number, runs: int = 1) -> str:
    """The mean of a sum over ``runs`` runs: ``1,234``, or with one decimal if that is not whole."""
    mean = number / runs
    return f"{int(mean):,}" if mean == int(mean) else f"{float(mean):,.1f}"


def percent(part, whole=1) -> str:
    """``part`` of ``whole`` in per cent with one decimal."""
    return f"{float(100 * part / whole):.1f}" if whole else "-"


def ratio(part, whole) -> str:
    """``part`` over ``whole`` with two decimals."""
    return f"{float(part / whole):.2f}" if whole else "-"


def shape(row: Row) -> str:
    """The output of a row: ``64x224x224``."""
    return "x".join(map(str, row.shape or ()))


def cards(run: Run) -> list[tuple[str, str, str]]:
    """The figures at the top: value, what it is, how it is counted."""
    total, runs = run.total, run.total.runs
    return [
        (short(run.run_cycles / runs), "cycles an image", "start to interrupt, weight loading included"),
        (ratio(run.dense_cycles(total), total.cycles) + " ×", "as fast as dense",
         "the network's MACs / lanes over cycles"),
        (percent(total.lane_cycles, total.cycles * run.config.total_lanes) + " %", "of lane-cycles do work",
         "multiply a non-zero activation"),
        (percent(total.macs - total.nonzero_macs, total.macs) + " %", "of multiplications skipped",
         "a zero activation; padding included"),
        (f"{short(total.dram_read_bytes / runs)}B + {short(total.dram_write_bytes / runs)}B", "DRAM read + written",
         "maps and weights"),
        (f"{total.mismatches:,}", "values differ from golden", f"of {total.compared:,} compared"),
    ]


def facts(run: Run) -> list[tuple[str, str]]:
    """What was run."""
    config = run.config
    return [
        ("Network", f"{run.network}: {_rows(run)}" + (f", which the accelerator runs as {len(run.layers)} layers"
                                                      if run.unit == "node" else "")),
        ("Images", f"{run.total.runs}; cycles, MACs and bytes are of one, the mean of all" if run.total.runs > 1
         else run.images[0]),
        ("Configuration", f"{config.name}: {config.groups} groups of {_group(config)} = {config.total_lanes} MACs "
                          f"a cycle, {config.value_width}-bit values, {_multipliers(config)} multipliers"),
        ("Memory", f"one AXI4 port to read and one to write, {BEAT_BYTES} bytes a cycle each"),
    ]


def _group(config):
    """What multiplies in a group."""
    return f"{config.clusters} clusters of {config.pes} PEs" if config.intersect else f"{config.lanes} lanes"


def _multipliers(config):
    return config.total_lanes if config.intersect else config.units * config.groups


def sections(run: Run) -> list[Section]:
    """The parts of the page in their order; the spread has a part only if there are several images."""
    parts = [_cycles(run), _traffic(run), _comparison(run), _density(run), _roofline(run)]
    parts += [_early(run)] if run.total.early else []
    return parts + [_spread(run)] if run.total.runs > 1 else parts


def _rows(run):
    return f"{len(run.rows)} {run.unit}{'s' * (len(run.rows) > 1)}"


def _shown(run, summed=True):
    """What a figure leaves out, as a sentence; nothing if it has all rows. ``summed``: its last line has the others."""
    if run.others is None:
        return ""
    return (f" Shown are the {len(run.lines)} {run.unit}s that take most cycles"
            f"{', and the sum of the others' * summed}; the table has all.")


def _longest(run, key=lambda row: row.cycles):
    return max(run.rows, key=key)


def _table(run, columns, cells, total=True):
    """A table with a line for each row of the run; ``cells`` gives the texts of a row behind its name."""
    return Table([run.unit, *columns], [[row.name, *cells(row)] for row in run.rows],
                 [run.total.name, *cells(run.total)] if total else [])


def _layers(run):
    """For each row of the run the layers that it became, with their cycles, if they are several."""
    return [[f"{name}: {count(run.layers[name].cycles, run.total.runs)} cycles" for name in row.layers]
            if len(row.layers) > 1 else [] for row in run.rows]


def _cycles(run):
    runs, longest = run.total.runs, _longest(run)

    def cells(row):
        split = row.split(run.config)
        return [shape(row), count(row.cycles, runs), *(count(split[part], runs) for part in figures.PARTS),
                percent(split["work"], row.cycles)]

    split = run.total.split(run.config)
    shares = ", ".join(f"{bar.label.split(':')[0]} {percent(split[part], run.total.cycles)} %"
                       for part, bar in figures.PARTS.items())
    return Section(
        "cycles", "Where the cycles go",
        "Every group of lanes counts, in every cycle, what it does or waits for; the bars are those counters, divided "
        "by the number of groups. Together they are all cycles of a layer, from its start to its last write."
        + _shown(run),
        figures.cycles, list(figures.PARTS.values()),
        f"Bars of the cycles of {_rows(run)}, split by cause. The longest is {longest.name} with "
        f"{count(longest.cycles, runs)} cycles. Of all cycles: {shares}.",
        [replace(_table(run, ["output", "cycles", *(bar.label.split(":")[0] for bar in figures.PARTS.values()),
                              "work %"], cells), details=_layers(run))])


def _comparison(run):
    runs, total = run.total.runs, run.total
    best = _longest(run, lambda row: run.dense_cycles(row) / row.cycles)
    return Section(
        "comparison", "Against dense",
        "Dense is an array with as many lanes that multiplies the zeros as well and never waits: no such machine is "
        "faster. " + ("The bound is zero skip, of activations and weights, if no PE ever waits. " if total.early else
                      "Skipping zero activations is all that this machine does, so zero skip alone is the run itself. "
                      "The bound is what is left if no lane ever waits or lacks a kernel. ")
        + "MACs count multiplications with padding."
        + (" Dense has those of the network; its layers can have more: the zeros between the groups of a depthwise or "
           "grouped convolution, and sums and means, which are none of the network's." if run.unit == "node"
           else "") + _shown(run),
        figures.comparison, list(figures.COMPARISON.values()),
        f"Bars of dense cycles, cycles of this run and the bound for {_rows(run)}. In all, dense takes "
        f"{ratio(run.dense_cycles(total), total.cycles)} times the cycles of this run; most for {best.name}, "
        f"{ratio(run.dense_cycles(best), best.cycles)} times.",
        [_table(run, ["MACs", "dense", "this run", "bound", "dense / this run", "this run / bound"],
                lambda row: [count(row.dense_macs, runs), count(run.dense_cycles(row), runs), count(row.cycles, runs),
                             count(run.bound_cycles(row), runs), ratio(run.dense_cycles(row), row.cycles),
                             ratio(row.cycles, run.bound_cycles(row))])])


def _density(run):
    runs, total = run.total.runs, run.total
    return Section(
        "density", "Density",
        "The share of values that are not zero. Work follows the density of the input; that of the output is before "
        "pooling, which makes maps denser." + _shown(run, summed=False),
        figures.density, list(figures.DENSITY.values()),
        f"Bars of the density of input and output of {_rows(run)}. Over all layers the input has "
        f"{percent(total.density_in)} % non-zero values, the output {percent(total.density_out)} %.",
        [_table(run, ["in %", "out %", "MACs of the layers", "non-zero MACs", "skipped %"],
                lambda row: [percent(row.density_in), percent(row.density_out), count(row.macs, runs),
                             count(row.nonzero_macs, runs), percent(row.macs - row.nonzero_macs, row.macs)])])


def _roofline(run):
    def cells(row):
        if not row.port_bytes:
            return ["-", ratio(row.nonzero_macs, row.cycles), "-", "-", "-"]
        intensity = row.nonzero_macs / row.port_bytes
        roof, reached = run.ceiling(intensity), row.nonzero_macs / row.cycles
        return [f"{intensity:.3g}", f"{reached:.4g}", f"{roof:.4g}", percent(reached, roof),
                "lanes" if roof == run.config.total_lanes else "bus"]

    bus = [row for row in run.rows if cells(row)[-1] == "bus"]
    return Section(
        "roofline", "Roofline",
        "A layer cannot do more multiplications a cycle than there are lanes, nor than the bus brings data for: with "
        "work per byte to the right, that is the roof. The distance to it is what waits and empty lanes cost. Bytes "
        "are those of the busier port, reads or writes. Layers that multiply nothing have no point.",
        figures.roofline, list(figures.ROOFLINE.values()),
        f"Points of {_rows(run)} under a roof of {BEAT_BYTES} bytes a cycle and {run.config.total_lanes} "
        f"multiplications a cycle. The bus bounds {len(bus)} of the {run.unit}s, the lanes the others.",
        [_table(run, ["non-zero MACs / byte", "non-zero MACs / cycle", "roof", "% of the roof", "bound by"], cells)])


def _traffic(run):
    runs = run.total.runs
    most = _longest(run, lambda row: row.dram_read_bytes + row.dram_write_bytes)
    return Section(
        "traffic", "Memory traffic",
        "Bytes on the bus: compressed maps, with rows that tiles share read again for each, and weights. Descriptors "
        "and counter records are not in it. A port that is busy all the time bounds its layer." + _shown(run),
        figures.traffic, list(figures.TRAFFIC.values()),
        f"Bars of the bytes read and written by {_rows(run)}. {most.name} moves most: "
        f"{count(most.dram_read_bytes, runs)} bytes read and {count(most.dram_write_bytes, runs)} written.",
        [_table(run, ["bytes read", "bytes written", "read port busy %", "write port busy %"],
                lambda row: [count(row.dram_read_bytes, runs), count(row.dram_write_bytes, runs),
                             *(percent(size, BEAT_BYTES * row.cycles)
                               for size in (row.dram_read_bytes, row.dram_write_bytes))])])


def _early(run):
    total = run.total.early
    phases = [number for number, products in enumerate(total.products) if products]

    def cells(row):
        early = row.early
        return [count(early.skipping, run.total.runs), percent(sum(early.products), early.skipping),
                *(percent(early.products[number], early.skipping) for number in phases),
                *(percent(part, early.outputs) for part in (early.stopped, early.predicted, early.missed))]

    return Section(
        "early", "Early activation",
        "Zero skip leaves the products of an activation and a weight that are not zero. A sum is stopped when ReLU is "
        "known, or predicted, to make it 0: what is not multiplied then is saved. Phase 0 holds the weights above 0, "
        "those below 0 follow, the largest first; in a layer with a prediction phase 0 holds the weights that it looks "
        "at. Predicted wrongly are outputs above 0. Counted by golden, windows that tiles share once." + _shown(run),
        figures.early, [figures.PHASES[f"phase {number}"] for number in phases]
        + [figures.PHASES["saved"], *figures.STOPPED.values()],
        f"Bars of the products and stopped outputs of {_rows(run)}. In all, "
        f"{percent(sum(total.products), total.skipping)} % of zero skip's products are multiplied; "
        f"{percent(total.stopped, total.outputs)} % of the outputs are stopped.",
        [_table(run, ["products of zero skip", "multiplied %", *(f"phase {number} %" for number in phases),
                      "outputs stopped %", "predicted %", "wrongly %"], cells)])


def _spread(run):
    total = run.total
    low, high = min(total.cycles_of_runs), max(total.cycles_of_runs)

    def cells(row):
        each = row.cycles_of_runs
        return [count(min(each)), count(sum(each), len(each)), count(max(each)), percent(max(each) - min(each),
                                                                                      sum(each) / len(each))]

    images = Table(["image", "cycles", "non-zero MACs", "skipped %"],
                   [[name, count(cycles), count(macs), percent(total.macs / total.runs - macs, total.macs / total.runs)]
                    for name, cycles, macs in zip(run.images, total.cycles_of_runs, total.nonzero_macs_of_runs,
                                                  strict=True)])
    return Section(
        "spread", "Spread over the images",
        f"{total.runs} images. Images differ in what is zero, so they differ in cycles; layers that wait for weights "
        "differ least." + _shown(run),
        figures.spread, list(figures.SPREAD.values()),
        f"Ranges of the cycles of {total.runs} images about their mean, for each layer and all together. All layers "
        f"take from {count(low)} to {count(high)} cycles.",
        [images, _table(run, ["least", "mean", "most", "(most - least) / mean %"], cells)])
