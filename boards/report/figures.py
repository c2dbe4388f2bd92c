"""The figures of a page, drawn with matplotlib: a line for each layer, or a point.

They are 400 pixels wide, so that their text can be read on a phone as well as beside another figure on a screen. What
is drawn in ``INK`` takes the colour of the text around it when the figure stands in a page.
"""
import io
import itertools
import pathlib
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Patch, PathPatch
from matplotlib.path import Path
from matplotlib.textpath import TextPath
from matplotlib.ticker import EngFormatter, FuncFormatter, MaxNLocator
from matplotlib.transforms import Bbox, offset_copy

from boards.sim.report import BEAT_BYTES
from boards.sim.table import node_label
from golden.tiling import MAX_PHASES

from .record import Row, Run

INK = "#010203"
#: Inches, at 96 pixels each.
WIDTH, LINE, MARGIN = 4.2, 0.17, 0.28
#: Lines from which on the axis is repeated above the figure; letters of a layer's name; names of points.
MANY_LINES, LETTERS, MOST_LABELS = 25, 16, 25
#: Colours that people who see fewer colours can tell apart (M. Okabe, K. Ito).
BLUE, SKY, ORANGE, GREEN, RED, PINK, GREY = ("#0072b2", "#56b4e9", "#e69f00", "#009e73", "#d55e00", "#cc79a7",
                                             "#999999")
#: Numbers without a unit: 0.5, not 500m.
PLAIN = FuncFormatter(lambda value, _: f"{value:g}")
#: Where a label can stand about its point: steps to the right and up.
PLACES = ((1, 0), (-1, 0), (0, 1), (0, -1), (1, 1), (-1, 1), (1, -1), (-1, -1))


@dataclass(frozen=True)
class Bar:
    """A kind of bar or point: what the legend calls it, and the counters that it is made of."""
    label: str
    colour: str
    formula: str


#: What the cycles of a layer go to (``Row.split``), in the order of the bars.
PARTS = {
    "work": Bar("work", BLUE, "lane_cycles / (groups × lanes)"),
    "empty": Bar("lanes without a kernel", SKY, "busy / groups − work"),
    "stall_find": Bar("find-non-zero bubbles", ORANGE, "stall_find / groups"),
    "stall_weights": Bar("weight load", GREEN, "stall_weights / groups"),
    "stall_tile": Bar("DRAM: waiting for input tiles", RED, "stall_tile / groups"),
    "stall_output": Bar("drain: waiting for postprocess and the write port", PINK, "stall_output / groups"),
    "idle": Bar("tail: groups without a job", GREY, "idle / groups"),
}
DENSITY = {"density_in": Bar("input", BLUE, "density_in"),
           "density_out": Bar("output, before pooling", ORANGE, "density_out")}
COMPARISON = {"dense": Bar("dense", GREY, "the network's macs / (groups × lanes)"),
              "measured": Bar("this run", BLUE, "cycles"),
              "bound": Bar("bound: what zero skip leaves, on all lanes", SKY,
                       "nonzero_macs or early.skipping / (groups × lanes)")}
TRAFFIC = {"dram_read_bytes": Bar("read", BLUE, "dram_read_bytes"),
           "dram_write_bytes": Bar("written", ORANGE, "dram_write_bytes")}
ROOFLINE = {"layer": Bar("a layer; the larger, the more cycles", BLUE, "nonzero_macs, cycles, dram_*_bytes")}
PHASES = {**{f"phase {number}": Bar(f"phase {number}", colour, f"early.products[{number}]") for number, colour in
             enumerate((BLUE, SKY, ORANGE, GREEN, RED, PINK, "#f0e442"))},
          "saved": Bar("not multiplied", GREY, "early.skipping − early.products")}
STOPPED = {"stopped": Bar("outputs stopped", BLUE, "early.stopped"),
           "predicted": Bar("predicted to be 0", ORANGE, "early.predicted"),
           "missed": Bar("predicted wrongly", RED, "early.missed")}
SPREAD = {"all": Bar("least to most", SKY, "cycles_of_runs"), "half": Bar("the middle half", BLUE, "cycles_of_runs"),
          "median": Bar("median", ORANGE, "cycles_of_runs")}
STYLE = {
    "font.size": 9, "text.parse_math": False, "svg.fonttype": "none", "svg.hashsalt": "zeroskip",
    "axes.spines.left": False, "axes.spines.right": False, "axes.spines.top": False, "axes.spines.bottom": False,
    "axes.titlesize": 9, "axes.titlelocation": "left", "axes.axisbelow": True, "axes.edgecolor": INK,
    "axes.labelcolor": INK, "text.color": INK, "xtick.color": INK, "ytick.color": INK, "grid.color": INK,
    "grid.alpha": 0.15, "xtick.major.size": 0, "ytick.major.size": 0,
}


def draw(make: Callable[[Run], Figure], run: Run, title: str, legend: Iterable[Bar], png: pathlib.Path) -> str:
    """Draws a figure of this module, ``make``, with title and legend into the file ``png``; the SVG for a page.

    The SVG has neither, refers to nothing outside, and has no names that another figure of the page could have.
    """
    with matplotlib.rc_context(STYLE):
        figure = make(run)
        text = io.StringIO()
        figure.savefig(text, format="svg", transparent=True, metadata={"Date": None})
        # Outside of the figure as it stands in a page: the file is made large enough for them.
        figure.legend(handles=[Patch(color=bar.colour, label=bar.label) for bar in legend], loc="upper left",
                      bbox_to_anchor=(0, 0), frameon=False)
        figure.text(0, 1, f"{run.network}, {run.config.name}: {title}", va="bottom")
        # The PNG writer does not take more pixels than 65,535 a side.
        figure.savefig(png, dpi=min(144, 60_000 / figure.get_figheight()), facecolor="white", bbox_inches="tight")
    svg = text.getvalue()
    svg = re.sub(r"<metadata>.*?</metadata>", "", svg[svg.index("<svg"):], flags=re.DOTALL)
    svg = re.sub(r' id="[A-Za-z0-9]+_[0-9]+"', "", svg)
    return svg.replace(INK, "currentColor").replace("<svg ", '<svg aria-hidden="true" ', 1)


def cycles(run: Run) -> Figure:
    """Cycles of each layer split by ``PARTS``: absolute, and as shares of the layer."""
    rows = _with_others(run)
    figure, (absolute, share) = _lines(rows, 2)
    splits = [row.split(run.config) for row in rows]
    for axes, title, limit, scale in ((absolute, "cycles", None, [1 / run.total.runs] * len(splits)),
                                      (share, "share of the layer, %", 100, [100 / row.cycles for row in rows])):
        _stack(axes, title, [([float(split[part]) * factor for split, factor in zip(splits, scale, strict=True)],
                              bar.colour) for part, bar in PARTS.items()], limit)
    return figure


def density(run: Run) -> Figure:
    """Share of non-zero values in the input and the output of each layer."""
    figure, (axes,) = _lines(run.lines, 1, bars=len(DENSITY))
    _side_by_side(axes, "non-zero values, %", [([100 * getattr(row, key) for row in run.lines], bar.colour)
                                               for key, bar in DENSITY.items()], 100)
    return figure


def comparison(run: Run) -> Figure:
    """Cycles of each layer against an array that multiplies zeros as well, and against the non-zero MACs alone."""
    rows = _with_others(run)
    figure, (absolute, ratio) = _lines(rows, 2, bars=len(COMPARISON))
    kinds = {"dense": run.dense_cycles, "measured": lambda row: row.cycles, "bound": run.bound_cycles}
    _side_by_side(absolute, "cycles", [([kinds[key](row) / run.total.runs for row in rows], bar.colour)
                                       for key, bar in COMPARISON.items()])
    _stack(ratio, "dense over this run", [([run.dense_cycles(row) / row.cycles for row in rows], BLUE)],
           formatter=PLAIN)
    ratio.axvline(1, color=INK, linewidth=1)
    return figure


def roofline(run: Run) -> Figure:
    """Non-zero MACs a cycle over non-zero MACs a byte of the busier port; the area of a point goes with its cycles.

    Layers that multiply or move nothing have no point. Labels that would cover another are left out, those of layers
    with fewer cycles first.
    """
    figure = Figure(figsize=(WIDTH, 0.85 * WIDTH), layout="constrained")
    axes = figure.subplots()
    points = sorted(((row.nonzero_macs / row.port_bytes, row.nonzero_macs / row.cycles, row) for row in run.rows
                     if row.nonzero_macs and row.port_bytes), key=lambda point: -point[2].cycles)
    lanes = run.config.total_lanes
    ridge = lanes / BEAT_BYTES
    left, right = (pick([ridge, *(x for x, _, _ in points)]) for pick in (min, max))
    roof = [left / 3, ridge, right * 4]
    axes.loglog(roof, [run.ceiling(x) for x in roof], color=INK, linewidth=1.2)
    axes.scatter([x for x, _, _ in points], [y for _, y, _ in points], color=BLUE, alpha=0.6, linewidths=0, zorder=3,
                 s=[max(12, 600 * row.cycles / run.total.cycles) for _, _, row in points])
    # Room for labels above the roof and below the points.
    low = min([run.ceiling(left), *(y for _, y, _ in points)])
    axes.set(xlim=(roof[0], roof[-1]), ylim=(low / 4, lanes * 8), xlabel="non-zero MACs a byte of the busier port",
             ylabel="non-zero MACs a cycle")
    texts = [axes.text(roof[0] * 1.1, lanes, f"{lanes} lanes", va="bottom"),
             axes.text(ridge / 12, lanes / 12 * 1.25, f"{BEAT_BYTES} bytes a cycle", rotation_mode="anchor",
                       rotation=np.degrees(np.arctan(1.25 * BEAT_BYTES)), transform_rotates_text=True)]
    axes.plot([roof[0], ridge], [lanes, lanes], ":", color=INK, linewidth=1)
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_formatter(PLAIN)
    axes.minorticks_off()
    axes.grid()
    lines = Path([(roof[0], lanes), (roof[-1], lanes), (ridge, lanes), (roof[0], run.ceiling(roof[0]))])
    _label(figure, axes, points, texts, lines)
    return figure


def traffic(run: Run) -> Figure:
    """Bytes of each layer on the bus, and how long each port was busy with them."""
    rows = _with_others(run)
    figure, (absolute, share) = _lines(rows, 2)
    _stack(absolute, "bytes", [([getattr(row, key) / run.total.runs for row in rows], bar.colour)
                               for key, bar in TRAFFIC.items()])
    _side_by_side(share, "port busy, % of cycles",
                  [([100 * getattr(row, key) / BEAT_BYTES / row.cycles for row in rows], bar.colour)
                   for key, bar in TRAFFIC.items()], 100)
    return figure


def early(run: Run) -> Figure:
    """Products of each layer by phase over those that zero skip leaves, and how many outputs were stopped."""
    rows = _with_others(run)
    figure, (products, outputs) = _lines(rows, 2, bars=2)
    parts = [[100 * row.early.products[number] / max(row.early.skipping, 1) for row in rows]
             for number in range(MAX_PHASES)]
    saved = [max(0, 100 * (row.early.skipping > 0) - sum(each))
             for row, each in zip(rows, zip(*parts, strict=True), strict=True)]
    _stack(products, "products, % of zero skip's", [
        (values, bar.colour) for values, bar in zip((*parts, saved), PHASES.values(), strict=True)])
    _side_by_side(outputs, "outputs, %", [([100 * getattr(row.early, key) / row.early.outputs for row in rows],
                                           bar.colour) for key, bar in STOPPED.items()], 100)
    return figure


def spread(run: Run) -> Figure:
    """Cycles of each image over the mean of all images, for each layer and the sum: least to most, the middle half as
    a bar, the median as a point."""
    rows = [run.total, *_with_others(run)]
    figure, (axes,) = _lines(rows, 1)
    relative = np.array([np.array(row.cycles_of_runs) / np.mean(row.cycles_of_runs) * 100 for row in rows])
    low, lower, median, upper, high = np.percentile(relative, (0, 25, 50, 75, 100), axis=1)
    places = np.arange(len(rows))
    axes.hlines(places, low, high, color=SKY, linewidth=1.5)
    axes.hlines(places, lower, upper, color=BLUE, linewidth=6)
    axes.plot(median, places, "o", color=ORANGE, markersize=4)
    margin = max(0.5, 0.03 * (high.max() - low.min()))
    _finish(axes, "cycles of an image, % of the mean", (low.min() - margin, high.max() + margin),
            PLAIN)
    return figure


def _with_others(run):
    """The rows of a figure whose lines add up to the total."""
    return [*run.lines, *([run.others] if run.others else [])]


def _lines(rows: list[Row], panels: int, bars: int = 1) -> tuple[Figure, list[Axes]]:
    """Empty axes side by side with a line of ``bars`` bars for each row, the first at the top."""
    names = [node_label(row.name, LETTERS) for row in rows]
    above = MARGIN * (1 + (len(rows) >= MANY_LINES))
    height = len(rows) * LINE * (1 + 0.4 * (bars - 1)) + above + MARGIN
    left = max(TextPath((0, 0), name, size=9).vertices[:, 0].max(initial=0) for name in names) / 72 + 0.1
    figure = Figure(figsize=(WIDTH, height))
    axes = figure.subplots(1, panels, sharey=True, squeeze=False, gridspec_kw={
        "left": left / WIDTH, "right": 1 - 0.15 / WIDTH, "bottom": MARGIN / height, "top": 1 - above / height,
        "wspace": 0.12})[0]
    # Not tick labels: matplotlib measures each of them again and again, on both sides of every panel.
    axes[0].set_yticks([])
    beside = offset_copy(axes[0].get_yaxis_transform(), figure, x=-3.5, units="points")
    for place, name in enumerate(names):
        axes[0].text(0, place, name, ha="right", va="center_baseline", transform=beside)
    axes[0].set_ylim(len(rows) - 0.5, -0.5)
    return figure, list(axes)


def _bars(axes, places, height, left, right, colour):
    """Bars from ``left`` to ``right`` about ``places``, as one outline: hundreds of them are drawn at once."""
    low, high = places - height / 2, places + height / 2
    corners = np.array([[left, low], [right, low], [right, high], [left, high]]).transpose(2, 0, 1)
    # Not add_patch: it would look for the limits in each outline, and they are known.
    axes.add_artist(PathPatch(Path.make_compound_path_from_polys(corners), facecolor=colour, linewidth=0))


def _stack(axes, title, parts, limit=None, formatter=None):
    """Bars one after the other, (values, colour)."""
    ends = np.zeros(len(parts[0][0]))
    for values, colour in parts:
        _bars(axes, np.arange(len(ends)), 0.75, ends, ends + values, colour)
        ends = ends + values
    # Not 0 to 0: a network may have no multiplications.
    _finish(axes, title, (0, limit or 1.03 * ends.max() or 1), formatter)


def _side_by_side(axes, title, parts, limit=None):
    """Bars one below the other, (values, colour)."""
    height = 0.8 / len(parts)
    for number, (values, colour) in enumerate(parts):
        places = np.arange(len(values)) + (number - (len(parts) - 1) / 2) * height
        _bars(axes, places, height, np.zeros(len(values)), np.array(values), colour)
    _finish(axes, title, (0, limit or 1.03 * max(max(values) for values, _ in parts)))


def _finish(axes, title, limits, formatter=None):
    axes.set_title(title)
    axes.set_xlim(*limits)
    axes.xaxis.set_major_locator(MaxNLocator(4))
    axes.xaxis.set_major_formatter(formatter or EngFormatter(sep=""))
    axes.grid(axis="x")
    first, last = axes.get_ylim()
    axes.tick_params(axis="x", labeltop=first - last >= MANY_LINES)


def _label(figure, axes, points, texts, lines):
    """Names of the first points, where there is room beside ``texts``, ``lines`` and each other; far ones with a
    leader, which crosses no text and no other leader."""
    figure.draw_without_rendering()
    inside, lines = axes.get_window_extent(), axes.transData.transform_path(lines)
    centres = axes.transData.transform([point[:2] for point in points] or np.zeros((0, 2)))
    boxes = [text.get_window_extent() for text in texts]
    taken = np.array([box.extents for box in boxes] + [(x - 4, y - 4, x + 4, y + 4) for x, y in centres])
    # The diagonal of a box is where a slanted text stands.
    crossed = [Path([box.min, box.max]) for box in boxes]
    pixels = figure.dpi / 72
    for (x, y, row), centre in zip(points[:MOST_LABELS], centres, strict=False):
        label = axes.annotate(node_label(row.name, LETTERS), (x, y), (0, 0), fontsize=8, textcoords="offset points")
        size = np.array(label.get_window_extent().size)
        for far, place in itertools.product((9, 20, 32), map(np.array, PLACES)):
            # Its corner nearest to the point, or the middle of that side.
            near = centre + far * pixels * place
            low = near + size * (place - 1) / 2
            high, box, leader = low + size, Bbox([low, low + size]), Path([centre, near])
            if inside.contains(*low) and inside.contains(*high) \
                    and not ((taken[:, :2] < high) & (low < taken[:, 2:])).all(axis=1).any() \
                    and not lines.intersects_bbox(box, filled=False) \
                    and not any(path.intersects_bbox(box, filled=False) for path in crossed) \
                    and not any(path.intersects_path(leader, filled=False) for path in crossed):
                taken = np.vstack([taken, [*low, *high]])
                across, up = place
                label.set(position=far * place, ha=("center", "left", "right")[across],
                          va=("center", "bottom", "top")[up])
                crossed.append(Path([box.min, (box.x0, box.y1), box.max, (box.x1, box.y0), box.min]))
                if far > 9:
                    crossed.append(leader)
                    axes.annotate("", (x, y), xytext=far * place, textcoords="offset points",
                                  arrowprops={"arrowstyle": "-", "linewidth": 0.5, "color": INK})
                break
        else:
            label.remove()
