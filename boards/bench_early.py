"""What early activation is worth: real networks on both arrays, and docs/results/early-activation.md
(``make bench-early``).

Cycles are those of the cycle model, which equals the counters of the RTL (docs/cycle-model.md).

Exit status: 0 all networks asked for were measured, 1 the compiler is at fault, 2 the input is not usable.
"""
import json
import time
from collections import Counter
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Annotated

import numpy as np
import typer
from rich.console import Console

from boards.build import ROOT, revision
from compiler.emit import Program
from compiler.phases import NEGATIVE_CLASSES, phase_weights
from compiler.pipeline import BALANCE_INPUTS, DENSITY_INPUTS, compile_quantised, map_densities
from compiler.predictions import save_predictions
from compiler.progress import Stages
from compiler.quantise import quantise
from golden.cycle_model import energy, model_network
from golden.network import QuantisedNetwork, gather, run_network
from hw.config import AcceleratorConfig
from hw.configs import get_config
from methods.controls import count_products

from .bench_networks.data import Data, MissingData
from .bench_networks.measure import calibration_maps, load_case
from .bench_networks.registry import BENCHMARKS, MORE_DATA
from .early_page import early_page
from .predictions import (
    COUNTED,
    SEED,
    Evaluation,
    blocks,
    halves,
    photographs,
    score_networks,
    search_predictions,
    training,
    use_one_thread,
)
from .sim.early import layer_tasks
from .workload import exit_status

PAGE = ROOT / "docs" / "results" / "early-activation.md"
RESULTS = ROOT / "build" / "early"
#: Of results; those of another one are measured again.
FORMAT = 4
#: Of each network: how its inputs are split between the search for predictions and what is measured, how many of the
#: latter accuracies are counted on, and how many are run for their cycles.
NETWORKS = {"resnet-20": (training, 1000, 8), "roshambonet": (blocks, 180, 8), "squeezenet": (halves, 88, 1),
            "open-nsfw": (halves, 40, 1), "hed": (photographs, 3, 1)}
#: Where the search by high bits alone is left out: it takes as long as the other one.
WITHOUT_HIGH_BITS = {"open-nsfw", "hed"}
#: All have 64 multipliers. By column: configuration, classes of negative weights.
COLUMNS = {"broadcast": ("small", 0), "intersect": ("snapea", 0), "exact": ("snapea", NEGATIVE_CLASSES),
           "wide": ("snapea_wide", 0), "wide exact": ("snapea_wide", NEGATIVE_CLASSES)}


def model_program(program: Program, x: np.ndarray) -> dict[str, float]:
    """Cycles, lane cycles and energy of the input ``x`` [C, H, W] by the cycle model."""
    maps, results = run_network(program.network, program.network.quantise_input(x))
    run = model_network(program.network, maps, results, program.segments[0][1], program.config, split=phase_weights,
                        descriptor_address=program.descriptor_address, log_address=program.log_address)
    return {"cycles": run.cycles, "lane_cycles": sum(layer["lane_cycles"] for layer in run.layers),
            "energy": sum(energy(accesses, program.config)["total"] for accesses in run.accesses)}


def count_program(program: Program, x: np.ndarray) -> dict[str, int]:
    """Products of zero skip, of ``program`` and of the oracle for ``x`` [C, H, W]; ``clipped`` of ``outputs``: zeros
    of layers with a ReLU. A layer without one has no output that need not be computed."""
    maps, _ = run_network(program.network, program.network.quantise_input(x))
    counts = dict.fromkeys(("skipping", "products", "oracle", "clipped", "outputs"), 0)
    for layer in program.network.layers:
        work = layer_tasks(program, layer, gather(maps, layer.inputs))
        counts["skipping"] += int(work.skipping.sum())
        counts["products"] += int(work.products.sum())
        counts["oracle"] += int((work.oracle if layer.low == 0 else work.skipping).sum())
        if layer.low == 0:
            target = layer.targets[0]
            written = maps[target.map][target.first:target.first + len(layer.weights)]
            counts["clipped"] += int(np.count_nonzero(written == 0))
            counts["outputs"] += written.size
    return counts


def measure(name: str, count: int, stages: Stages) -> dict:
    """Network ``name`` on its first ``count`` inputs that the search for predictions does not see: a dict for each of
    :data:`COLUMNS`, ``counts`` (means), and ``predictive``."""
    benchmark, (divide, _, _) = BENCHMARKS[name], NETWORKS[name]
    data, case = MORE_DATA.get(name, benchmark.data)(), load_case(benchmark, RESULTS / f"{name}.onnx")
    split = divide(data)
    inputs = [case.input_map(data.input(number)) for number in split.test[:count]]
    result, sources = {"macs": case.macs, "inputs": len(inputs), "data": data.text}, Sources(case, data)
    for column, (config_name, classes) in COLUMNS.items():
        config = get_config(config_name)
        with stages.stage(f"{name}: {column}, compile"):
            program = sources[config].compile(config, classes)
        result[column] = _model_programs(f"{name}: {column}, cycles", program, inputs, stages)
        if column == "exact":
            with stages.stage(f"{name}: products"):
                result["counts"] = _means([count_program(program, x) for x in inputs])
    return result | {"predictive": measure_predictions(benchmark, case, data, split, inputs, sources, stages)}


class Sources:
    """A network in integers, for a configuration: those with the same array and map words have the same one."""

    def __init__(self, case, data: Data):
        self.case, self.calibration, self._found = case, calibration_maps(case, data), {}

    def __getitem__(self, config: AcceleratorConfig) -> "Source":
        key = config.array, config.block, config.value_width
        if key not in self._found:
            network = self.case.network(config)
            quantised = quantise(network, self.calibration, config)
            self._found[key] = Source(quantised, [quantised.quantise_input(x)
                                                  for x in self.calibration[:BALANCE_INPUTS]],
                                      map_densities(network, self.calibration[:DENSITY_INPUTS]))
        return self._found[key]


@dataclass(frozen=True)
class Source:
    """``quantised``, the inputs that it is profiled on, and the densities of its maps."""
    quantised: QuantisedNetwork
    profiled: list[np.ndarray]
    densities: dict[str, float]

    def compile(self, config: AcceleratorConfig, classes: int, changed: QuantisedNetwork | None = None) -> Program:
        """The program of the network, or of one that was ``changed`` from it, with so many classes of negative
        weights."""
        return compile_quantised(changed or self.quantised, self.profiled, config, densities=self.densities,
                                 negative_classes=classes)


def measure_predictions(benchmark, case, data, split, inputs, sources: Sources, stages: Stages) -> dict:
    """Networks with predictions for each budget, and pruned to as many products: cycles on ``inputs``, and accuracies
    with those of the random control; what was searched on and what came of it."""
    name, (_, accuracy_inputs, _) = benchmark.name, NETWORKS[benchmark.name]
    config_name, classes = COLUMNS["exact"]
    config = get_config(config_name)
    source = sources[config]
    evaluation = Evaluation(source.quantised, case, benchmark.measure, split.search)
    outcomes, networks = search_predictions(name, evaluation, config, name not in WITHOUT_HIGH_BITS, stages)
    for column, outcome in outcomes.items():
        save_predictions(outcome.network, RESULTS / f"{name}-{column.replace(' ', '-')}.npz")
    scores, zeros = score_networks(benchmark, case, data, networks, split.test[:accuracy_inputs], stages)
    with stages.stage(f"{name}: bit-products"):
        maps = [evaluation.network.quantise_input(x) for x in inputs[:COUNTED]]
        products = {column: vars(count_products(networks[column], maps, config, SEED))
                    for column in ("none", *outcomes)}
    runs = {}
    for column, quantised in list(networks.items())[1:]:
        with stages.stage(f"{name}: {column}, compile"):
            program = source.compile(config, classes, quantised)
        runs[column] = _model_programs(f"{name}: {column}, cycles", program, inputs, stages)
    return {"labelled": data.labels is not None, "searched": len(split.search), "runs": runs, "scores": scores,
            "products": products, "scored": min(accuracy_inputs, len(split.test)),
            "zeros": {column: _rates(layers) for column, layers in zeros.items()},
            "outcomes": {column: _outcome(outcome) for column, outcome in outcomes.items()}}


def _model_programs(text, program, inputs, stages):
    with stages.stage(text, len(inputs)) as update:
        runs = []
        for number, x in enumerate(inputs):
            runs.append(model_program(program, x))
            update(number + 1, f"{number + 1} of {len(inputs)}")
    return _means(runs)


def _rates(layers):
    """Of all ``layers`` (the first entry), and of each: the share of outputs of 0 that are predicted to be, and the
    share of the others that are."""
    return {name: {"found": (counts["predicted"] - counts["missed"]) / max(counts["zero"], 1),
                   "missed": counts["missed"] / max(counts["outputs"] - counts["zero"], 1)}
            for name, counts in {"all": sum(layers.values(), Counter()), **layers}.items()}


def _outcome(outcome):
    layers = {name: {"share of cost": level.cost / outcome.exact[name], "loss": level.loss,
                     "kinds": dict(Counter(level.option.kinds))}
              for name, level in outcome.levels.items() if level.option}
    return {"loss": outcome.loss, "layers": layers}


def _means(records: list[dict]) -> dict[str, float]:
    return {key: float(np.mean([record[key] for record in records])) for key in records[0]}


def load_result(path: Path) -> dict | None:
    """What ``path`` holds of a network; None if there is nothing, or of another :data:`FORMAT`."""
    result = json.loads(path.read_text()) if path.exists() else {}
    return result if result.get("format") == FORMAT else None


def main(
    only: Annotated[list[str] | None, typer.Option(help=f"Measure this network alone; may be repeated: "
                                                        f"{', '.join(NETWORKS)}.", metavar="NAME")] = None,
    images: Annotated[int | None, typer.Option(help="Inputs to run, in place of each network's own number.", min=1,
                                               metavar="N")] = None,
):
    """Measure zero skip and early activation on both arrays, and write docs/results/early-activation.md.

    Results are kept in build/early; what is there is not measured again: delete NAME.json to do so. All of them take
    an hour and a quarter of processor time, VGG-16 (hed) half of it.

    Exit status: 0 all networks asked for were measured, 1 the compiler is at fault, 2 the input is not usable, or
    missing.
    """
    console, missing = Console(), []
    use_one_thread()
    with exit_status():
        if unknown := sorted(set(only or []) - set(NETWORKS)):
            raise ValueError(f"there is no network {', '.join(unknown)}; there are {', '.join(NETWORKS)}")
        RESULTS.mkdir(parents=True, exist_ok=True)
        for name in only or NETWORKS:
            path, count = RESULTS / f"{name}.json", images or NETWORKS[name][-1]
            if (kept := load_result(path)) and kept["asked"] == count:
                continue
            begin, stages = time.process_time(), Stages(console)
            try:
                with stages.progress:
                    result = measure(name, count, stages)
            except MissingData as error:
                missing.append(f"{name}: not measured: {error}")
                continue
            result |= {"format": FORMAT, "asked": count, "commit": revision(), "date": str(date.today()),
                       "cpu_seconds": time.process_time() - begin}
            path.write_text(json.dumps(result, indent=1) + "\n")
    results = {name: result for name in NETWORKS if (result := load_result(RESULTS / f"{name}.json"))}
    PAGE.write_text(early_page(results, BENCHMARKS, COLUMNS, list(NETWORKS)))
    for line in [*missing, f"{PAGE.relative_to(ROOT)}: {len(results)} of {len(NETWORKS)} networks"]:
        console.print(line, markup=False, highlight=False, soft_wrap=True)
    if missing:
        raise typer.Exit(2)


if __name__ == "__main__":
    typer.run(main)
