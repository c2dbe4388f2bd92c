"""docs/results/early-activation.md from the results in ``build/early``."""
from compiler.phases import NEGATIVE_CLASSES
from hw.configs import get_config

from .bench_networks.page import markdown_table
from .bench_networks.registry import TOP1, Benchmark
from .catalogue import CHIPS
from .predictions import BUDGETS
from .resources import synthesised

#: Picojoules of a millijoule; bits of an activation, and of a weight.
MILLI, BITS = 1e9, 8
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
kernel, so that cycles are fewest (SnaPEA's three passes; candidates are speculation sets, largest products and high
bits). **High bits**: phase 0 has nothing but high bits of all weights, and bit-products are fewest (prediction-based
execution); to save time not searched for on all networks. Nothing is retrained.

"""
PREDICTED_NOTES = """
- **Loss**: in points against the same network without predictions: 100 times the probability that its class loses, on
  average, or the mean difference of outputs of 0 to 1. Allowed, on the inputs of the **search**, and on those **held
  out**, which everything else in the table is measured on; no photograph and no stretch of frames is on both sides.
  ResNet-20 is searched on training pictures, which it knows better than others.
- **Against 8 bits**: the measure with the outputs of the network without predictions in the place of labels.
- **Over intersect**, **over exact**: how many times fewer cycles than with zero skip alone, and than in exact mode,
  where those are of the first table.
- **Products**: in millions, to be read beside those of the first table, but counted on a sample of windows.
- **Bit-products**: in millions, on the same sample, and how many times fewer than those of zero skip. A product has as
  many as its activation has bits times bits of the weight in its phase: 8 x 8 of a whole weight, 8 x (1 + n) of the n
  high bits of a magnitude, 8 x (7 - n) of the rest. This array takes a cycle for a product of any width.
- **Found**: share of the outputs of 0, in layers with predictions, that are predicted; **missed**: share of the others
  that are.
- **Pruned**, **random**: controls. Of each layer the same share of weights is 0, those smallest in relation to the
  largest of their kernel, so that exact mode has no more products than the predictions; as many outputs of each layer
  are 0 as are predicted to be, wherever they are. Neither is retrained.
"""
WIDE_HEAD = """
## More memory

`{wide}` has as many PEs as `{intersect}`, in more groups of fewer clusters, tiles of four times the size, and rounds
of twice as many weights: each PE has those of twice as many kernels, so that fewer PEs wait for others, and a tile is
loaded for more windows and weights. What that takes is under Area. Thousands of cycles:

"""
#: The largest chip of the boards that the open tools route.
CHIP = "xc7z020"
AREA_HEAD = """
## Area

Cells after synthesis (`make resources CONFIG=`), not placed, of the whole designs with {multipliers} multipliers each,
bus and control included:

"""
AREA_NOTES = """
MACs of the float network for each cycle and 1,000 LUTs:

"""


#: Columns of the first table.
MAIN = ("broadcast", "intersect", "exact")


def early_page(results: dict[str, dict], benchmarks: dict[str, Benchmark], columns: dict[str, tuple[str, int]],
               names: list[str]) -> str:
    """The page of what ``bench_early.measure`` returned for each network; ``names`` of all, ``columns`` as there."""
    configs = {column: get_config(name) for column, (name, _) in columns.items()}
    multipliers = configs["exact"].total_lanes
    rows = [_row(benchmarks[name], result, multipliers) for name, result in results.items()]
    notes = NOTES.format(multipliers=multipliers, broadcast=configs["broadcast"].name,
                         intersect=configs["intersect"].name, classes=NEGATIVE_CLASSES)
    missing = "\n".join(f"- {benchmarks[name].title}: make bench-early ONLY={name}"
                        for name in names if name not in results) or "- none"
    sources = [{"network": benchmarks[name].title, "inputs": f"{result['inputs']} of {result['data']}",
                "measured at": f"{result['commit']} ({result['date']})",
                "CPU min": f"{result['cpu_seconds'] / 60:.1f}"} for name, result in results.items()]
    predicted = [_predicted_row(benchmarks[name], result, column)
                 for name, result in results.items() for column in result["predictive"]["outcomes"]]
    return (HEAD.format(multipliers=multipliers)
            + (markdown_table(rows) if rows else "No network has been measured.\n") + notes
            + (WIDE_HEAD.format(wide=configs["wide"].name, intersect=configs["intersect"].name)
               + markdown_table([_wide_row(benchmarks[name], result, multipliers) for name, result in results.items()])
               if rows else "")
            + (PREDICTED_HEAD + markdown_table(predicted) + PREDICTED_NOTES
               + _verdict(results, benchmarks) if predicted else "")
            + _area(results, benchmarks, configs)
            + f"\nNot measured:\n\n{missing}\n"
            + ("\n## Networks and inputs\n\n" + markdown_table(sources) if sources else ""))


def _verdict(results, benchmarks):
    """Where the controls do as well as predictions, in a sentence each."""
    lines = []
    for control in ("pruned", "random"):
        cases = [f"{benchmarks[name].title} at {budget:g}" for name, result in results.items() for budget in BUDGETS
                 if _holds(benchmarks[name].measure, result["predictive"], f"{budget:g}", control)]
        lines.append(f"- The control **{control}** is as good as predictions or better, with no more cycles, on: "
                     f"{', '.join(cases) or 'none of them'}.\n")
    return "".join(lines)


def _holds(measure, found, column, control):
    """Whether a control is as good as the predictions of ``column``: by the share of right classes, else by the loss.
    Random zeros are taken for as fast."""
    ours, theirs = (found["scores"].get(name) for name in (column, f"{column} {control}"))
    if theirs is None or not found["zeros"].get(column):
        return False
    runs = found["runs"]
    slower = control == "pruned" and runs[f"{column} pruned"]["cycles"] > runs[column]["cycles"]
    return not slower and (theirs["score"] >= ours["score"] if measure is TOP1 else theirs["loss"] <= ours["loss"])


def _area(results, benchmarks, configs):
    """What both arrays take of a chip, and what they do for it."""
    sizes = {column: synthesised(configs[column]) for column in ("broadcast", "intersect", "wide")}
    chip = CHIPS[CHIP]
    rows = [{"array": f"{column} (`{configs[column].name}`)"} | ({
        "LUT": f"{size.luts:,}", "FF": f"{size.flip_flops:,}", "DSP": f"{size.dsps}",
        "block RAM": f"{size.block_rams:g}",
        f"of an {CHIP}": ", ".join(f"{100 * share:.0f}" for share in size.shares(chip)) + " %"} if size else {
        "LUT": f"make resources CONFIG={configs[column].name}", "FF": "", "DSP": "", "block RAM": "",
        f"of an {CHIP}": ""}) for column, size in sizes.items()]
    text = AREA_HEAD.format(multipliers=configs["exact"].total_lanes) + markdown_table(rows)
    if not all(sizes.values()) or not results:
        return text
    luts = {column: sizes["broadcast" if column == "broadcast" else "intersect"].luts for column in MAIN}
    rows = [{"network": benchmarks[name].title}
            | {column: f"{1000 * result['macs'] / result[column]['cycles'] / luts[column]:.2f}" for column in MAIN}
            | {f"predicted, loss {budget:g}": f"{1000 * result['macs'] / run['cycles'] / luts['exact']:.2f}"
               for budget in BUDGETS[1:2] for run in [result["predictive"]["runs"][f"{budget:g}"]]}
            for name, result in results.items()]
    return text + AREA_NOTES + markdown_table(rows)


def _predicted_row(benchmark, result, column):
    """A line of the table of predictions."""
    found = result["predictive"]
    form, scores, cycles = benchmark.measure.form.format, found["scores"], found["runs"][column]["cycles"]
    labelled, pruned = found["labelled"], found["runs"].get(f"{column} pruned")
    controls = [f"{column} pruned", f"{column} random"]
    rates = found["zeros"].get(column, {"all": {"found": 0, "missed": 0}})["all"]
    products, skipping = found["products"][column], found["products"]["none"]["skipping"]
    return {"network": benchmark.title, "loss allowed": column.replace(" ", ", ", 1),
            "search / held out": f"{found['outcomes'][column]['loss']:.2f} / {scores[column]['loss']:.2f}",
            "measure": benchmark.measure.text if labelled else benchmark.measure.unlabelled or benchmark.measure.text,
            "float / 8 bits / predicted": " / ".join([form(scores["float"]["score"]) if labelled else "-",
                                                      form(scores["none"]["score"]), form(scores[column]["score"])]),
            "against 8 bits": form(scores[column]["same"]),
            "products": f"{products['products'] / 1e6:,.1f}",
            "bit-products": f"{BITS ** 2 * products['bits'] / 1e6:,.0f} ({skipping / products['bits']:.2f}x)",
            "kilocycles": f"{cycles / 1e3:,.0f}",
            "over intersect": f"{result['intersect']['cycles'] / cycles:.2f}x",
            "over exact": f"{result['exact']['cycles'] / cycles:.2f}x",
            "found / missed": f"{100 * rates['found']:.0f} % / {100 * rates['missed']:.1f} %",
            "pruned / random": " / ".join(form(scores[name]["score"]) if name in scores else "-" for name in controls),
            "pruned: kilocycles": f"{pruned['cycles'] / 1e3:,.0f}" if pruned else "-"}


def _row(benchmark, result, multipliers):
    cycles = {column: result[column]["cycles"] for column in MAIN}
    counts = result["counts"]
    row = {"network": benchmark.title, "dense": f"{result['macs'] / multipliers / 1e3:,.0f}"}
    row |= {column: f"{value / 1e3:,.0f}" for column, value in cycles.items()}
    row |= {"gain": f"{cycles['intersect'] / cycles['exact']:.3f}x",
            "exact over broadcast": f"{cycles['broadcast'] / cycles['exact']:.2f}x",
            "utilisation": _utilisation(result["exact"], multipliers),
            "products: skip / exact / oracle": " / ".join(f"{counts[key] / 1e6:,.1f}"
                                                          for key in ("skipping", "products", "oracle")),
            "clipped": f"{100 * counts['clipped'] / counts['outputs']:.0f} %",
            "mJ: broadcast / intersect / exact": " / ".join(f"{result[column]['energy'] / MILLI:,.2f}"
                                                            for column in cycles)}
    return row


def _wide_row(benchmark, result, multipliers):
    cycles = {column: result[column]["cycles"] for column in ("wide", "wide exact")}
    return {"network": benchmark.title, "zero skip": f"{cycles['wide'] / 1e3:,.0f}",
            "exact": f"{cycles['wide exact'] / 1e3:,.0f}", "gain": f"{cycles['wide'] / cycles['wide exact']:.3f}x",
            "utilisation": _utilisation(result["wide exact"], multipliers),
            "exact over that of the first table": f"{result['exact']['cycles'] / cycles['wide exact']:.3f}x"}


def _utilisation(run, multipliers):
    return f"{100 * run['lane_cycles'] / run['cycles'] / multipliers:.1f} %"
