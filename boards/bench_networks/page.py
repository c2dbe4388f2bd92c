"""docs/results/networks.md from the results in ``build/networks``."""
from math import comb

from hw.configs import get_config

from .registry import BENCHMARKS, Benchmark

#: Points that 8 and 16 bits may lose where there are labels.
BOUNDS = {"8 bits": 1.0, "16 bits": 0.2}
HEAD = """\
# Networks

<!-- Written by boards/bench_networks (make bench-networks) from its results. Do not edit. -->

`make bench-networks` measures every network below and writes this page; `make bench-networks ONLY=resnet-20` one of
them. Results stay in `build/networks`, and what is there is not measured again. Networks and data that no package
brings are read from the folder that the environment variable `ZEROSKIP_DATA` names.
"""
NOTES = """\
- **Accuracy**: of golden's integers (`boards/bench_networks/batch.py`, equal to `golden/network.py` by test), not of a
  float network with rounding in it. Calibration inputs are others than those that are counted, except for RoshamboNet
  (every 15th frame). Without labels the outputs of the float network (ONNX Runtime) are the reference. Points lost are
  checked against {eight:g} for 8 bits and {sixteen:g} for 16 bits; one of 175 photographs is 0.6 points.
- **Lost / won**: inputs that the float network gets right and 8 bits wrong, and the other way round. Beside a missed
  bound, p is how likely two equally good networks are to be at least as far apart (exact McNemar test, two-sided), and
  how many inputs have a tie at the top, which integers of 8 bits leave where real scores have none.
- **Layers** are descriptors: a residual sum is one for each block of channels, a max-pool 3x3 with stride 1 several.
  **MMACs** are those of the float network, a fully connected layer included.
- **Cycles**: from start to interrupt for one input, the loading of weights included, by the counters of the RTL
  (Verilator) of the configuration named. **Mismatches**: values of all maps that differ from golden.
- **Utilisation**: lane-cycles that multiply a non-zero activation. In a block of a depthwise or grouped convolution
  most weights are zeros, and these multiplications count.
- **Over dense**: MACs of the float network / lanes, over the cycles. Below 1 the machine does more work than a dense
  array that is always busy, or waits: depthwise convolutions are dense inside a block here, layers with fewer output
  channels than a group has lanes leave lanes idle, small layers wait for their descriptors and weights.
- **CPU min**: processor time of all steps on one core, the building of the simulator excepted.
"""


def networks_page(results: dict[str, dict], reasons: dict[str, str]) -> str:
    """The page.

    Parameters
    ----------
    results : dict
        By name of the network what ``__main__.measure`` returns; steps may be missing.
    reasons : dict
        By name of the network why something of it was not run.
    """
    rows = [_row(benchmark, results.get(name, {})) for name, benchmark in BENCHMARKS.items()]
    verdicts = [line for name in results for line in check(BENCHMARKS[name], results[name])]
    notes = NOTES.format(eight=BOUNDS["8 bits"], sixteen=BOUNDS["16 bits"])
    sources = [_source(benchmark, results.get(name, {})) for name, benchmark in BENCHMARKS.items()]
    missed = "\n".join(f"- {line}" for line in verdicts) or "- none"
    not_run = "\n".join(f"- {BENCHMARKS[name].title}: {reason}" for name, reason in reasons.items()) or "- none"
    return "\n".join([HEAD, markdown_table(rows), notes, "Bounds that are missed:\n", missed + "\n", "Not run:\n",
                      not_run + "\n", "## Networks and inputs\n", markdown_table(sources)])


def check(benchmark: Benchmark, result: dict) -> list[str]:
    """A sentence for each bound that ``result`` misses: mismatches, accuracy."""
    lines = []
    if mismatches := result.get("rtl", {}).get("mismatches"):
        lines.append(f"{benchmark.title}: {mismatches} values in the RTL differ from golden")
    for step, bound in BOUNDS.items():
        if result.get(step, {}).get("float") is not None:
            lost = result[step]["float"] - result[step]["quantised"]
            if lost > bound + 1e-9:
                lines.append(f"{benchmark.title}: {step} lose {lost:.2f} points on {result[step]['inputs']} inputs, "
                             f"more than {bound:g} ({_flips_text(**result[step]['flips'])})")
    return lines


def mcnemar(lost: int, won: int) -> float:
    """Two-sided p-value of the exact McNemar test: how likely the heads of ``lost + won`` throws of a fair coin are at
    least as far from half of them as ``lost`` is. Source: Q. McNemar, Psychometrika 12, 1947."""
    flips = lost + won
    tail = sum(comb(flips, heads) for heads in range(min(lost, won) + 1))
    return min(1.0, 2 * tail / 2 ** flips)


def _flips_text(lost, won, ties):
    return (f"{lost} lost, {won} won against float, p = {mcnemar(lost, won):.2g}; on {ties} inputs several classes "
            f"share the largest score")


def _row(benchmark, result):
    """A line of the table; "not run" where a step has no result."""
    size, rtl, model = (result.get(step) for step in ("network", "rtl", "model"))
    missing = "not run"
    measure, form = benchmark.measure, benchmark.measure.form.format
    scores = [result[step] for step in BOUNDS if step in result]
    labelled = bool(scores) and scores[0]["float"] is not None
    row = {"network": benchmark.title,
           "convolutions": f"{size['convolutions']}" if size else missing,
           "layers": f"{rtl['layers']}" if rtl else missing,
           "MMACs": f"{size['macs'] / 1e6:,.1f}" if size else missing,
           "measure": measure.text if labelled or not scores else measure.unlabelled or measure.text,
           "inputs": " / ".join(dict.fromkeys(f"{result[step]['inputs']}" for step in BOUNDS if step in result))
           or missing}
    row["float"] = form(scores[0]["float"]) if labelled else "-"
    row |= {step: form(result[step]["quantised"]) if step in result else missing for step in BOUNDS}
    row["lost / won"] = "{lost} / {won}".format(**result["8 bits"]["flips"]) if labelled and "8 bits" in result else "-"
    row |= {"configuration": f"{rtl['config']}" if rtl else missing,
            "mismatches": f"{rtl['mismatches']} of {rtl['compared']:,}" if rtl else missing,
            "cycles, RTL": f"{rtl['cycles']:,}" if rtl else missing,
            "cycles, model": f"{model['cycles']:,}" if model else "-",
            "error": f"{100 * (model['cycles'] / rtl['cycles'] - 1):+.3f} %" if model and rtl else "-",
            "utilisation": f"{100 * rtl['utilisation']:.1f} %" if rtl else missing,
            "over dense": f"{size['macs'] / get_config(rtl['config']).total_lanes / rtl['cycles']:.2f}x"
            if rtl and size else missing,
            "CPU min": f"{sum(step['cpu_seconds'] for step in result.values()) / 60:.1f}" if result else missing}
    return row


def _source(benchmark, result):
    stamps = sorted({f"{step['commit']} ({step['date']})" for step in result.values()})
    return {"network": benchmark.title, "weights": benchmark.source,
            "inputs": result.get("8 bits", {}).get("data", "-"), "measured at": ", ".join(stamps) or "-"}


def markdown_table(rows: list[dict[str, str]]) -> str:
    """A table in Markdown; all rows have the columns of the first."""
    names = list(rows[0])
    lines = [names, ["---"] * len(names), *([row[name] for name in names] for row in rows)]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)
