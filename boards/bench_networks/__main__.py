"""Whole networks, measured, and docs/results/networks.md of it (``make bench-networks``).

Exit status: 0 all that could be run is within its bounds, 1 a bound is missed or a network failed, 2 the input or the
tools are not usable.
"""
import json
import time
from datetime import date
from functools import cache
from pathlib import Path
from typing import Annotated

import torch
import typer
from rich.console import Console

from boards.build import ROOT, revision
from boards.sim.build import BuildError
from boards.sim.simulator import SimulationError
from compiler.pipeline import CompilerFault
from compiler.progress import Stages
from hw.configs import CONFIGS, get_config

from .data import MissingData
from .measure import compile_case, load_case, measure_accuracy, measure_model, measure_run
from .page import BOUNDS, check, networks_page
from .registry import BENCHMARKS, Benchmark

PAGE = ROOT / "docs" / "results" / "networks.md"
RESULTS = ROOT / "build" / "networks"
#: Configuration whose width the accuracy of each step has.
WIDTHS = dict(zip(BOUNDS, ("default", "nullhop"), strict=True))
#: What is measured of a network, in this order.
STEPS = ("network", "rtl", "model", *WIDTHS)
FAILED, UNUSABLE = 1, 2


def load_result(folder: Path, name: str) -> dict:
    """The steps of network ``name`` that have been measured."""
    path = folder / f"{name}.json"
    return json.loads(path.read_text()) if path.exists() else {}


def measure(benchmark: Benchmark, folder: Path, stages: Stages, *, config: str = "default",
            images: int | None = None) -> dict:
    """Measure the steps of ``benchmark`` that ``folder`` has no result of, and write each into it when it is done.

    A step is measured again if it was asked for differently: with another number of inputs, or another ``config``.
    Returns what is known of each of :data:`STEPS`.

    Raises
    ------
    MissingData, ValueError, BuildError, SimulationError
        See ``data.py``, the compiler, and ``boards.sim``.
    """
    result, count = load_result(folder, benchmark.name), images or benchmark.images
    asked = {"network": {}, "rtl": {"config": config}, "model": {"config": config},
             **{step: {"config": name, "count": count} for step, name in WIDTHS.items()}}
    open_steps = [step for step, values in asked.items() if result.get(step, {}).get("asked") != values]
    if not open_steps:
        return result
    data, case = benchmark.data(), load_case(benchmark, folder / f"{benchmark.name}.onnx")

    @cache
    def program():
        with stages.stage(f"{benchmark.name}: compile"):
            return compile_case(case, data, get_config(config))

    steps = {"network": lambda: {"convolutions": case.convolutions, "macs": case.macs}}
    steps |= {step: lambda name=name: measure_accuracy(case, data, benchmark, get_config(name), count, stages)
              for step, name in WIDTHS.items()}
    steps |= {"rtl": lambda: measure_run(program(), case.input_map(data.input(0)), stages) | {"config": config},
              "model": lambda: measure_model(program(), case.input_map(data.input(0)))}
    for step in open_steps:
        begin = time.process_time()
        result[step] = steps[step]() | {"asked": asked[step], "commit": revision(), "date": str(date.today()),
                                        "cpu_seconds": time.process_time() - begin}
        draft = folder / f"{benchmark.name}.tmp"
        result = {known: result[known] for known in STEPS if known in result}
        draft.write_text(json.dumps(result, indent=1) + "\n")
        draft.replace(folder / f"{benchmark.name}.json")
    return result


def main(
    only: Annotated[list[str] | None, typer.Option(help=f"Measure this network alone; may be repeated: "
                                                        f"{', '.join(BENCHMARKS)}.", metavar="NAME")] = None,
    images: Annotated[int | None, typer.Option(help="Inputs to count the accuracy on, in place of each network's own "
                                                    "number (boards/bench_networks/registry.py).", min=1,
                                               metavar="N")] = None,
    config: Annotated[str, typer.Option(help=f"What runs in the RTL: {', '.join(CONFIGS)}.",
                                        metavar="NAME")] = "default",
    collect: Annotated[bool, typer.Option("--collect", help="Only write the page, from build/networks.")] = False,
):
    """Measure whole networks and write docs/results/networks.md.

    For each network: the accuracy of the integers of 8 and of 16 bits beside that of the float network, and one input
    in the RTL, every value compared with golden. Results are kept in build/networks, step by step; what is there is not
    measured again: delete NAME.json to do so. All networks take hours, the small ones minutes.

    Networks and data that no package brings come from the folder that ZEROSKIP_DATA names; without it they are listed
    as not run.

    Exit status: 0 all that was run is within its bounds, 1 a bound is missed or a network failed, 2 input or tools not
    usable.
    """
    console = Console()
    # Maps of most networks are too small for threads to help.
    torch.set_num_threads(1)
    names = list(only or ([] if collect else BENCHMARKS))
    try:
        if unknown := set(names) - set(BENCHMARKS):
            raise ValueError(f"there is no network {', '.join(sorted(unknown))}; there are {', '.join(BENCHMARKS)}")
        get_config(config)
        RESULTS.mkdir(parents=True, exist_ok=True)
        reasons, failed = measure_all(names, console, config, images)
    except (ValueError, OSError, BuildError) as error:
        typer.echo(f"error: {error}", err=True)
        raise typer.Exit(UNUSABLE) from None
    results = {name: result for name in BENCHMARKS if (result := load_result(RESULTS, name))}
    for name in BENCHMARKS:
        if missing := [step for step in STEPS if step not in results.get(name, {})]:
            reasons.setdefault(name, f"{', '.join(missing)}: make bench-networks ONLY={name}")
    PAGE.write_text(networks_page(results, reasons))
    missed = [line for name, result in results.items() for line in check(BENCHMARKS[name], result)]
    for line in [*(f"{name}: not run: {reason}" for name, reason in reasons.items()), *missed]:
        console.print(line, markup=False, highlight=False, soft_wrap=True)
    console.print(f"{PAGE.relative_to(ROOT)}: {len(results)} of {len(BENCHMARKS)} networks")
    if missed or failed:
        raise typer.Exit(FAILED)


def measure_all(names: list[str], console: Console, config: str, images: int | None) -> tuple[dict[str, str], bool]:
    """Measure the networks of ``names``: why some were not run, and whether one of them failed."""
    reasons, failed = {}, False
    for name in names:
        stages = Stages(console)
        try:
            with stages.progress:
                measure(BENCHMARKS[name], RESULTS, stages, config=config, images=images)
        except MissingData as error:
            reasons[name] = str(error)
        except (ValueError, CompilerFault, SimulationError) as error:
            reasons[name], failed = f"failed: {error}", True
    return reasons, failed


if __name__ == "__main__":
    typer.run(main)
