"""The benchmark of early activation: what it measures, resumption, page, errors."""
import json
from dataclasses import replace

import numpy as np
import pytest
import typer
from rich.console import Console
from typer.testing import CliRunner

from boards import bench_early as bench
from boards import early_page, resources
from boards.bench_networks.measure import load_case
from boards.bench_networks.registry import DECIBELS, TOP1
from boards.predictions import BUDGETS, HIGH_BITS, training
from compiler.pipeline import compile_float
from compiler.progress import Stages
from golden.network import run_network
from hw.configs import get_config
from sim_tests.unit.boards.test_bench_networks import SMALL, missing

COLUMNS = {"broadcast": ("tiny", 0), "intersect": ("tiny_snapea", 0), "exact": ("tiny_snapea", 3),
           "wide": ("tiny_snapea", 0), "wide exact": ("tiny_snapea", 1)}


@pytest.fixture
def small(monkeypatch, tmp_path):
    """The benchmark with one small network, in ``tmp_path``."""
    for name, value in {"BENCHMARKS": {"small": SMALL}, "NETWORKS": {"small": (training, 20, 2)}, "COLUMNS": COLUMNS,
                        "RESULTS": tmp_path / "early", "ROOT": tmp_path, "PAGE": tmp_path / "page.md"}.items():
        monkeypatch.setattr(bench, name, value)
    return tmp_path


def run(*arguments):
    app = typer.Typer()
    app.command()(bench.main)
    return CliRunner().invoke(app, arguments)


def test_products_are_those_of_the_cycle_model(small):
    (small / "early").mkdir()
    result = bench.measure("small", 2, Stages(Console(quiet=True)))
    counts = result["counts"]
    assert result["inputs"] == 2
    assert result["intersect"]["lane_cycles"] == counts["skipping"]
    assert result["exact"]["lane_cycles"] == counts["products"]
    assert 0 < counts["oracle"] < counts["products"] <= counts["skipping"] < result["macs"]
    predictive = result["predictive"]
    assert set(predictive["runs"]) == {HIGH_BITS, *(f"{budget:g}{kind}" for budget in BUDGETS
                                                    for kind in ("", " pruned"))}
    products = predictive["products"]
    assert set(products) == {"none", *(f"{budget:g}" for budget in BUDGETS), HIGH_BITS}
    assert products["none"]["skipping"] == counts["skipping"] >= products["none"]["bits"]
    assert products[HIGH_BITS]["bits"] < products["none"]["bits"]
    dearest = f"{BUDGETS[-1]:g}"
    assert predictive["runs"][dearest]["lane_cycles"] < counts["products"]
    assert predictive["scores"]["none"]["loss"] == 0 and predictive["searched"] == 8 and predictive["scored"] == 20
    for budget in BUDGETS:
        assert predictive["outcomes"][f"{budget:g}"]["loss"] <= budget
    layers = predictive["outcomes"][dearest]["layers"]
    assert layers and set(layers) | {"all"} == set(predictive["zeros"][dearest])
    # tiny has the same multiplications, but those with a weight of 0.
    assert result["broadcast"]["lane_cycles"] > counts["skipping"]


def test_high_bits_are_left_out_where_told(small, monkeypatch):
    monkeypatch.setattr(bench, "WITHOUT_HIGH_BITS", {"small"})
    assert run("--images", "1").exit_code == 0
    found = json.loads((small / "early" / "small.json").read_text())["predictive"]
    assert set(found["outcomes"]) == {f"{budget:g}" for budget in BUDGETS} and HIGH_BITS not in found["runs"]
    assert "1, high bits" not in (small / "page.md").read_text()


def test_oracle_and_clipped_outputs_from_golden(small):
    """By all windows at once: the oracle does the products of outputs above 0, and of layers without a ReLU all."""
    (small / "early").mkdir()
    data, case, config = SMALL.data(), load_case(SMALL, small / "small.onnx"), get_config("tiny_snapea")
    program = compile_float(case.network(config), data.calibration, config, negative_classes=0)
    x = case.input_map(data.input(0))
    maps, results = run_network(program.network, program.network.quantise_input(x))
    oracle = clipped = outputs = 0
    for layer in program.network.layers:
        whole = np.concatenate([maps[part.map][part.first:part.first + part.channels] for part in layer.inputs])
        rows, columns = layer.full_shape[1:]
        padded = np.pad(whole, ((0, 0), *((pad, pad + layer.weights.shape[2] * layer.stride)
                                          for pad in layer.pad[:2])))
        for y in range(rows):
            for column in range(columns):
                window = padded[:, y * layer.stride:, column * layer.stride:]
                window = window[:, :layer.weights.shape[2], :layer.weights.shape[3]].astype(np.int64)
                products = layer.weights * window
                live = results[layer.name].full[:, y, column] > 0 if layer.low == 0 else np.ones(len(products), bool)
                oracle += np.count_nonzero(products[live])
        if layer.low == 0:
            target = layer.targets[0]
            written = maps[target.map][target.first:target.first + len(layer.weights)]
            clipped, outputs = clipped + (written == 0).sum(), outputs + written.size
    counts = bench.count_program(program, x)
    assert (counts["oracle"], counts["clipped"], counts["outputs"]) == (oracle, clipped, outputs)


def test_results_are_kept_and_the_page_written(small):
    done = run()
    assert done.exit_code == 0, done.output
    page = (small / "page.md").read_text()
    assert SMALL.title in page and "1 of 1 networks" in done.output and "Not measured:\n\n- none" in page
    path = small / "early" / "small.json"
    kept = json.loads(path.read_text())
    assert f"{kept['intersect']['cycles'] / kept['exact']['cycles']:.3f}x" in page
    for budget in BUDGETS:
        run_cycles = kept["predictive"]["runs"][f"{budget:g}"]["cycles"]
        assert f"{kept['exact']['cycles'] / run_cycles:.2f}x" in page
        assert (small / "early" / f"small-{budget:g}.npz").exists()
    assert (small / "early" / "small-1-high-bits.npz").exists()
    products = kept["predictive"]["products"]
    bits, skipping = products[HIGH_BITS]["bits"], products["none"]["skipping"]
    row = next(line for line in page.splitlines() if "1, high bits" in line)
    assert f"| {products[HIGH_BITS]['products'] / 1e6:,.1f} | {64 * bits / 1e6:,.0f} ({skipping / bits:.2f}x) |" in row
    path.write_text(json.dumps(kept | {"commit": "kept"}))
    assert run().exit_code == 0 and "kept" in (small / "page.md").read_text()
    path.write_text(json.dumps({"asked": kept["asked"], "commit": "of another form"}))
    assert run().exit_code == 0 and "of another form" not in (small / "page.md").read_text()
    assert json.loads(path.read_text())["exact"] == kept["exact"]
    assert run("--images", "1").exit_code == 0
    assert json.loads(path.read_text())["inputs"] == 1


def test_page_without_results_names_the_commands():
    page = bench.early_page({}, bench.BENCHMARKS, bench.COLUMNS, list(bench.NETWORKS))
    assert "No network has been measured." in page and "make bench-early ONLY=hed" in page


@pytest.mark.parametrize(("measure", "pruned", "random", "text"), [
    (TOP1, (89.0, 5.0, 100), 10.0, ("none of them", "none of them")),
    (TOP1, (90.0, 5.0, 100), 10.0, ("net at 1", "none of them")),
    (TOP1, (95.0, 5.0, 101), 90.5, ("none of them", "net at 1")),
    (DECIBELS, (95.0, 0.5, 100), 95.0, ("net at 1", "none of them"))])
def test_controls_that_are_as_good_are_named(measure, pruned, random, text):
    """By the share of right classes, at no more cycles; other measures by the loss. Where nothing is predicted there
    is nothing to beat."""
    score, loss, cycles = pruned
    found = {"scores": {"1": {"score": 90.0, "loss": 1.0}, "1 pruned": {"score": score, "loss": loss},
                        "1 random": {"score": random, "loss": 30.0}},
             "runs": {"1": {"cycles": 100}, "1 pruned": {"cycles": cycles}}, "zeros": {"1": {"all": {}}}}
    for budget in (f"{budget:g}" for budget in BUDGETS if budget != 1):
        found["scores"] |= {budget: found["scores"]["1"], f"{budget} pruned": {"score": 99.0, "loss": 0.0}}
    pages = early_page._verdict({"net": {"predictive": found}}, {"net": replace(SMALL, title="net", measure=measure)})
    for line, control, expected in zip(pages.splitlines(), ("pruned", "random"), text, strict=True):
        assert f"**{control}**" in line and line.endswith(f"on: {expected}.")


def test_area_is_that_of_the_last_synthesis(small, monkeypatch, tmp_path):
    monkeypatch.setattr(resources, "FOLDER", tmp_path)
    config = get_config("tiny")
    assert resources.synthesised(config) is None
    (tmp_path / f"design-tiny-{config.configuration_id:08x}.stat").write_text("  7 LUT6\n  2 RAMB36E1\n  3 FDRE\n")
    assert resources.synthesised(config) == resources.Resources(7, 3, 0, 2)
    assert resources.synthesised(replace(config, sum_windows=64)) is None
    (small / "early").mkdir()
    results = {"small": bench.measure("small", 1, Stages(Console(quiet=True))) | {
        "commit": "a", "date": "b", "cpu_seconds": 1}}
    page = bench.early_page(results, bench.BENCHMARKS, COLUMNS, ["small"])
    assert "| broadcast (`tiny`) | 7 | 3 | 0 | 2 |" in page and "make resources CONFIG=tiny_snapea" in page
    snapea = get_config("tiny_snapea")
    (tmp_path / f"design-tiny_snapea-{snapea.configuration_id:08x}.stat").write_text("  2000 LUT6\n  1 FDRE\n")
    page = bench.early_page(results, bench.BENCHMARKS, COLUMNS, ["small"])
    macs, cycles = results["small"]["macs"], results["small"]["exact"]["cycles"]
    assert f"| {macs / cycles / 2:.2f} |" in page.split("## Area")[1]


@pytest.mark.parametrize(("change", "arguments", "text"), [
    ({}, ["--only", "nothing"], "there is no network nothing; there are small"),
    ({"data": missing}, [], "small: not measured: set ZEROSKIP_DATA"),
])
def test_what_is_missing_is_named(small, monkeypatch, change, arguments, text):
    monkeypatch.setattr(bench, "BENCHMARKS", {"small": replace(SMALL, **change)})
    done = run(*arguments)
    assert done.exit_code == 2 and text in done.output
