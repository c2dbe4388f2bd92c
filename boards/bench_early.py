"""What early activation is worth: real networks on both arrays, and docs/results/early-activation.md
(``make bench-early``).

Cycles are those of the cycle model, which equals the counters of the RTL (docs/cycle-model.md).

Exit status: 0 all networks asked for were measured, 1 the compiler is at fault, 2 the input is not usable.
"""
import json
import time
from collections import Counter
from datetime import date
from typing import Annotated

import numpy as np
import torch
import typer
from rich.console import Console

from boards.build import ROOT, revision
from compiler.emit import Program
from compiler.phases import NEGATIVE_CLASSES, phase_weights, stop_phase
from compiler.pipeline import DENSITY_INPUTS, compile_float, compile_quantised, map_densities
from compiler.predictions import save_predictions
from compiler.progress import Stages
from compiler.quantise import quantise
from golden.cycle_model import energy, model_network
from golden.network import gather, run_network
from golden.tasks import count_tasks
from hw.configs import get_config

from .bench_networks.data import MissingData
from .bench_networks.measure import calibration_maps, load_case
from .bench_networks.page import markdown_table
from .bench_networks.registry import BENCHMARKS
from .predictions import (
    BUDGETS,
    Evaluation,
    blocks,
    halves,
    photographs,
    score_networks,
    search_predictions,
    training,
)
from .workload import exit_status

PAGE = ROOT / "docs" / "results" / "early-activation.md"
RESULTS = ROOT / "build" / "early"
#: Of each network: how its inputs are split between the search for predictions and what is measured, how many of the
#: latter accuracies are counted on, and how many are run for their cycles.
NETWORKS = {"resnet-20": (training, 1000, 8), "roshambonet": (blocks, 180, 8), "squeezenet": (halves, 88, 1),
            "open-nsfw": (photographs, 3, 1), "hed": (photographs, 3, 1)}
#: Both have 64 multipliers. By column: configuration, classes of negative weights.
COLUMNS = {"broadcast": ("small", 0), "intersect": ("snapea", 0), "exact": ("snapea", NEGATIVE_CLASSES)}
#: Picojoules of a millijoule.
MILLI = 1e9
HEAD = """\
# Early activation

<!-- Written by boards/bench_early.py (make bench-early) from its results. Do not edit. -->

`make bench-early` measures the networks below and writes this page; `make bench-early ONLY=resnet-20` one of them.
Results stay in `build/early`, and what is there is not measured again. Networks and data that no package brings are
read from the folder that the environment variable `ZEROSKIP_DATA` names.

Thousands of cycles of an input, from start to interrupt, the loading of weights included, with {multipliers}
multipliers:

"""
NOTES = """
- **Dense**: MACs of the float network / {multipliers}, an array that is always busy.
- **Broadcast**, **intersect**: zero skip alone on the two arrays, configurations `{broadcast}` and `{intersect}`;
  **exact**: the intersect array that stops a sum when it is known to end below 0 ({classes} classes of negative
  weights at most). Outputs are the same numbers. Cycles are those of the cycle model, which equals the RTL's counters
  (docs/cycle-model.md).
- **Gain**: intersect / exact. **Utilisation**: PE-cycles that add a product, of all of the run in exact mode.
- **Products**: of zero skip, of exact mode, and of an **oracle** that computes no output which ReLU clips: in millions.
  An oracle's cycles are not known; its products / {multipliers} bound them from below. A window that tiles share counts
  once. **Clipped**: outputs of 0 among those of layers with a ReLU.
- **Energy**: millijoules by the proxy of docs/cycle-model.md: arithmetic, buffers, DRAM.
- The layer before a residual sum does the sum too on the intersect array (compiler/sums.py) and so can stop, unless
  the other operand can be below 0, as behind a shortcut with a convolution of its own.
- Inputs are those that the search for predictions (below) does not see.
"""
PREDICTED_HEAD = """
## Predicted zeros

`methods/early_activation.py` chooses, for a loss that is allowed, the weights of phase 0 and the threshold of each
kernel (SnaPEA's three passes; candidates are speculation sets, largest products and high bits). Nothing is retrained.

"""
PREDICTED_NOTES = """
- **Loss**: in points against the same network without predictions: 100 times the probability that its class loses, on
  average, or the mean difference of outputs of 0 to 1. Allowed, on the inputs of the **search**, and on those **held
  out**, which everything else in the table is measured on; no photograph and no stretch of frames is on both sides.
  ResNet-20 is searched on training pictures, which it knows better than others.
- **Against 8 bits**: the measure with the outputs of the network without predictions in the place of labels.
- **Over intersect**, **over exact**: how many times fewer cycles than with zero skip alone, and than in exact mode,
  where those are of the first table.
- **Products**: in millions, to be read beside those of the first table.
- **Found**: share of the outputs of 0, in layers with predictions, that are predicted; **missed**: share of the others
  that are.
- **Pruned**, **random**: controls. Of each layer the same share of weights is 0, those smallest in relation to the
  largest of their kernel, so that exact mode has no more products than the predictions; as many outputs of each layer
  are 0 as are predicted to be, wherever they are. Neither is retrained.
"""


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
        tiling = program.choices[layer.name].tiling
        work = count_tasks(layer, gather(maps, layer.inputs), tiling, phase_weights(layer, tiling.phases),
                           stop_phase(layer, tiling.phases), block=program.config.block)
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
    data, case = benchmark.data(), load_case(benchmark, RESULTS / f"{name}.onnx")
    split = divide(data)
    inputs = [case.input_map(data.input(number)) for number in split.test[:count]]
    result = {"macs": case.macs, "inputs": len(inputs), "data": data.text}
    for column, (config_name, classes) in COLUMNS.items():
        config = get_config(config_name)
        with stages.stage(f"{name}: {column}, compile"):
            program = compile_float(case.network(config), calibration_maps(case, data), config,
                                    negative_classes=classes)
        result[column] = _model_programs(f"{name}: {column}, cycles", program, inputs, stages)
    with stages.stage(f"{name}: products"):
        result["counts"] = _means([count_program(program, x) for x in inputs])
    return result | {"predictive": measure_predictions(benchmark, case, data, split, inputs, stages)}


def measure_predictions(benchmark, case, data, split, inputs, stages: Stages) -> dict:
    """Networks with predictions for each budget, and pruned to as many products: cycles on ``inputs``, and accuracies
    with those of the random control; what was searched on and what came of it."""
    name, (_, accuracy_inputs, _) = benchmark.name, NETWORKS[benchmark.name]
    config_name, classes = COLUMNS["exact"]
    config, calibration = get_config(config_name), calibration_maps(case, data)
    network = case.network(config)
    evaluation = Evaluation(quantise(network, calibration, config), case, benchmark.measure, split.search)
    outcomes, networks = search_predictions(name, evaluation, config, stages)
    for budget in outcomes:
        save_predictions(networks[f"{budget:g}"], RESULTS / f"{name}-{budget:g}.npz")
    scores, zeros = score_networks(benchmark, case, data, networks, split.test[:accuracy_inputs], stages)
    densities, profiled = map_densities(network, calibration[:DENSITY_INPUTS]), [evaluation.integers[0]]
    runs = {}
    for column, quantised in list(networks.items())[1:]:
        with stages.stage(f"{name}: {column}, compile"):
            program = compile_quantised(quantised, profiled, config, densities=densities, negative_classes=classes)
        runs[column] = _model_programs(f"{name}: {column}, cycles", program, inputs, stages)
    return {"labelled": data.labels is not None, "searched": len(split.search), "runs": runs, "scores": scores,
            "scored": min(accuracy_inputs, len(split.test)),
            "zeros": {column: _rates(layers) for column, layers in zeros.items()},
            "budgets": {f"{budget:g}": _outcome(outcome) for budget, outcome in outcomes.items()}}


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
    layers = {name: {"share of cycles": level.cycles / outcome.exact[name], "loss": level.loss,
                     "kinds": dict(Counter(level.option.kinds))}
              for name, level in outcome.levels.items() if level.option}
    return {"loss": outcome.loss, "layers": layers}


def _means(records: list[dict]) -> dict[str, float]:
    return {key: float(np.mean([record[key] for record in records])) for key in records[0]}


def early_page(results: dict[str, dict]) -> str:
    """The page of what :func:`measure` returned for each network."""
    multipliers = get_config(COLUMNS["exact"][0]).total_lanes
    rows = [_row(name, result, multipliers) for name, result in results.items()]
    notes = NOTES.format(multipliers=multipliers, broadcast=COLUMNS["broadcast"][0],
                         intersect=COLUMNS["intersect"][0], classes=NEGATIVE_CLASSES)
    missing = "\n".join(f"- {BENCHMARKS[name].title}: make bench-early ONLY={name}"
                        for name in NETWORKS if name not in results) or "- none"
    sources = [{"network": BENCHMARKS[name].title, "inputs": f"{result['inputs']} of {result['data']}",
                "measured at": f"{result['commit']} ({result['date']})",
                "CPU min": f"{result['cpu_seconds'] / 60:.1f}"} for name, result in results.items()]
    predicted = [_predicted_row(name, result, budget) for name, result in results.items() for budget in BUDGETS]
    return (HEAD.format(multipliers=multipliers)
            + (markdown_table(rows) if rows else "No network has been measured.\n") + notes
            + (PREDICTED_HEAD + markdown_table(predicted) + PREDICTED_NOTES if predicted else "")
            + f"\nNot measured:\n\n{missing}\n"
            + ("\n## Networks and inputs\n\n" + markdown_table(sources) if sources else ""))


def _predicted_row(name, result, budget):
    """A line of the table of predictions."""
    benchmark, found, column = BENCHMARKS[name], result["predictive"], f"{budget:g}"
    form, scores, cycles = benchmark.measure.form.format, found["scores"], found["runs"][column]["cycles"]
    labelled = found["labelled"]
    controls = [f"{column} pruned", f"{column} random"]
    rates = found["zeros"].get(column, {"all": {"found": 0, "missed": 0}})["all"]
    return {"network": benchmark.title, "loss allowed": column,
            "search / held out": f"{found['budgets'][column]['loss']:.2f} / {scores[column]['loss']:.2f}",
            "measure": benchmark.measure.text if labelled else benchmark.measure.unlabelled or benchmark.measure.text,
            "float / 8 bits / predicted": " / ".join([form(scores["float"]["score"]) if labelled else "-",
                                                      form(scores["none"]["score"]), form(scores[column]["score"])]),
            "against 8 bits": form(scores[column]["same"]),
            "products": f"{found['runs'][column]['lane_cycles'] / 1e6:,.1f}",
            "kilocycles": f"{cycles / 1e3:,.0f}",
            "over intersect": f"{result['intersect']['cycles'] / cycles:.2f}x",
            "over exact": f"{result['exact']['cycles'] / cycles:.2f}x",
            "found / missed": f"{100 * rates['found']:.0f} % / {100 * rates['missed']:.1f} %",
            "pruned / random": " / ".join(form(scores[name]["score"]) if name in scores else "-" for name in controls),
            "pruned: kilocycles": f"{found['runs'][controls[0]]['cycles'] / 1e3:,.0f}"}


def _row(name, result, multipliers):
    cycles = {column: result[column]["cycles"] for column in COLUMNS}
    counts = result["counts"]
    row = {"network": BENCHMARKS[name].title, "dense": f"{result['macs'] / multipliers / 1e3:,.0f}"}
    row |= {column: f"{value / 1e3:,.0f}" for column, value in cycles.items()}
    row |= {"gain": f"{cycles['intersect'] / cycles['exact']:.3f}x",
            "exact over broadcast": f"{cycles['broadcast'] / cycles['exact']:.2f}x",
            "utilisation": f"{100 * result['exact']['lane_cycles'] / cycles['exact'] / multipliers:.1f} %",
            "products: skip / exact / oracle": " / ".join(f"{counts[key] / 1e6:,.1f}"
                                                          for key in ("skipping", "products", "oracle")),
            "clipped": f"{100 * counts['clipped'] / counts['outputs']:.0f} %",
            "mJ: broadcast / intersect / exact": " / ".join(f"{result[column]['energy'] / MILLI:,.2f}"
                                                            for column in COLUMNS)}
    return row


def main(
    only: Annotated[list[str] | None, typer.Option(help=f"Measure this network alone; may be repeated: "
                                                        f"{', '.join(NETWORKS)}.", metavar="NAME")] = None,
    images: Annotated[int | None, typer.Option(help="Inputs to run, in place of each network's own number.", min=1,
                                               metavar="N")] = None,
):
    """Measure zero skip and early activation on both arrays, and write docs/results/early-activation.md.

    Results are kept in build/early; what is there is not measured again: delete NAME.json to do so. VGG-16 (hed) takes
    a quarter of an hour, the others minutes.

    Exit status: 0 all networks asked for were measured, 1 the compiler is at fault, 2 the input is not usable, or
    missing.
    """
    console, missing = Console(), []
    torch.set_num_threads(1)
    with exit_status():
        if unknown := sorted(set(only or []) - set(NETWORKS)):
            raise ValueError(f"there is no network {', '.join(unknown)}; there are {', '.join(NETWORKS)}")
        RESULTS.mkdir(parents=True, exist_ok=True)
        for name in only or NETWORKS:
            path, count = RESULTS / f"{name}.json", images or NETWORKS[name][-1]
            if path.exists() and json.loads(path.read_text())["asked"] == count:
                continue
            begin, stages = time.process_time(), Stages(console)
            try:
                with stages.progress:
                    result = measure(name, count, stages)
            except MissingData as error:
                missing.append(f"{name}: not measured: {error}")
                continue
            result |= {"asked": count, "commit": revision(), "date": str(date.today()),
                       "cpu_seconds": time.process_time() - begin}
            path.write_text(json.dumps(result, indent=1) + "\n")
    results = {name: json.loads(path.read_text()) for name in NETWORKS if (path := RESULTS / f"{name}.json").exists()}
    PAGE.write_text(early_page(results))
    for line in [*missing, f"{PAGE.relative_to(ROOT)}: {len(results)} of {len(NETWORKS)} networks"]:
        console.print(line, markup=False, highlight=False, soft_wrap=True)
    if missing:
        raise typer.Exit(2)


if __name__ == "__main__":
    typer.run(main)
