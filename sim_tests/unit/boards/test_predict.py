"""``zeroskip predict``: a file that the compiler takes, whose predictions lose what was allowed; bad input is named."""
import json

import numpy as np
import pytest
from rich.console import Console
from typer.testing import CliRunner

from boards.cli import app
from boards.predict import search
from boards.sim.main import app as simulation
from boards.workload import load_workload
from compiler.pipeline import compile_float
from compiler.predictions import load_predictions
from compiler.progress import Stages
from golden.network import run_network
from hw.configs import get_config
from sim_tests.unit.compiler.onnx_graphs import Graph

CONFIG = get_config("tiny_snapea")


def run(*arguments):
    return CliRunner().invoke(app, ["predict", *map(str, arguments)])


@pytest.fixture(scope="module")
def digits(tmp_path_factory):
    """The file of a search on the digits, and what was printed."""
    path = tmp_path_factory.mktemp("digits") / "early.npz"
    result = run("digits", "--config", CONFIG.name, "--loss", "1", "-o", path)
    assert result.exit_code == 0, result.output
    return path, result.output


def test_the_file_is_one_for_the_network_as_it_is_compiled(digits):
    path, _ = digits
    workload = load_workload("digits")
    network, _ = workload.build(CONFIG)
    program = compile_float(network, workload.calibration, CONFIG, predictions=path)
    assert sum(layer.prediction is not None for layer in program.network.layers) > 0
    phases = {name: choice.tiling.phases for name, choice in program.choices.items()}
    assert all(phases[layer.name] > 1 for layer in program.network.layers if layer.prediction)


def test_what_is_printed_is_what_is_in_the_file(digits):
    path, output = digits
    quantised = load_workload("digits").quantise(CONFIG).network
    predicted = load_predictions(quantised, path)
    for layer in predicted.layers:
        assert (layer.prediction is not None) == (layer.name in output and f"{layer.name} " in output), layer.name
    assert "points lost on 64 calibration inputs" in " ".join(output.split()) and "seed 1" in output
    assert f"make sim NET=digits CONFIG=tiny_snapea EARLY={path}" in " ".join(output.split())


def test_the_loss_that_is_named_is_that_of_the_scores(digits):
    path, output = digits
    workload = load_workload("digits")
    quantised = workload.quantise(CONFIG).network
    predicted, lost = load_predictions(quantised, path), []
    for x in workload.calibration:
        scores = []
        for network in (quantised, predicted):
            [name] = network.outputs
            real = network.dequantise(name, run_network(network, network.quantise_input(x))[0][name]).ravel()
            scores.append(np.exp(real - real.max()) / np.exp(real - real.max()).sum())
        best = scores[0].argmax()
        lost.append(100 * max(0, scores[0][best] - scores[1][best]))
    assert 0 < np.mean(lost) <= 1 and f"{np.mean(lost):.3f} points lost" in " ".join(output.split())


def test_outputs_that_are_no_scores_are_compared_with_the_largest(tmp_path):
    graph = Graph(seed=5)
    value = graph.node("Relu", graph.conv(graph.node("Relu", graph.conv("x", 24)), 20))
    (tmp_path / "net.onnx").write_bytes(graph.proto([value]).SerializeToString())
    np.save(tmp_path / "x.npy", np.random.default_rng(2).normal(size=(6, 3, 9, 11)).astype(np.float32))
    workload = load_workload(str(tmp_path / "net.onnx"), calib=tmp_path / "x.npy")
    outcome, point = search(workload, CONFIG, 5.0, None, Stages(Console(quiet=True)))
    assert point == "a hundredth of the largest output" and outcome.loss <= 5


@pytest.mark.parametrize("arguments, message", [
    (["digits", "--config", "tiny"], "predictions are for configurations with the intersect array, such as snapea, not "
                                     "for tiny"),
    (["nothing", "--config", "tiny_snapea"], "there is no network 'nothing'"),
    (["hed", "--size", "32", "--config", "tiny_snapea", "--classes"], "--classes needs one output with two scores"),
])
def test_bad_input_is_named(arguments, message, tmp_path):
    result = run(*arguments, "-o", tmp_path / "early.npz")
    assert result.exit_code == 2 and message in " ".join(result.output.split())
    assert not (tmp_path / "early.npz").exists()


@pytest.mark.cosim
def test_the_simulation_takes_the_file(digits, tmp_path):
    path, _ = digits
    result = CliRunner().invoke(simulation, ["--net", "digits", "--config", "tiny_snapea", "--count", "1", "--early",
                                             str(path), "--output", str(tmp_path)])
    assert result.exit_code == 0, result.output
    early = json.loads((tmp_path / "digits" / "report.json").read_text())["total"]["early"]
    assert early["predicted"] > 0 and "predicted to be 0" in result.output
    wrong = CliRunner().invoke(simulation, ["--net", "digits", "--config", "tiny_snapea", "--count", "1", "--early",
                                            "nothing.npz", "--output", str(tmp_path)])
    assert wrong.exit_code == 2 and "there are no predictions at nothing.npz" in wrong.output
