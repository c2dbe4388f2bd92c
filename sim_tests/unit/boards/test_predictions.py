"""Predictions on the benchmark's networks: incremental runs, counts, controls, splits, scores."""
from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
import torch
from rich.console import Console

from boards import predictions
from boards.bench_networks.batch import Batch, run_batch
from boards.bench_networks.measure import calibration_maps, load_case
from boards.predictions import (
    HIGH_BITS,
    HIGH_BITS_BUDGET,
    Evaluation,
    blocks,
    halves,
    photographs,
    score_networks,
    search_predictions,
    training,
    use_one_thread,
)
from compiler.images import PHOTOS
from compiler.progress import Stages
from compiler.quantise import quantise
from golden.layer import Prediction
from golden.network import run_network
from golden.postprocess import value_limits
from hw.configs import get_config
from methods.controls import count_products
from methods.kernels import HIGH_BITS as HIGH_BITS_OF_WEIGHTS
from sim_tests.golden_model.random_layers import with_prediction
from sim_tests.golden_model.random_networks import random_network
from sim_tests.unit.boards.test_bench_networks import SMALL

CONFIG = get_config("tiny_snapea")


@pytest.fixture
def small(tmp_path):
    """Case, data and quantised network of a small benchmark."""
    data, case = SMALL.data(), load_case(SMALL, tmp_path / "small.onnx")
    return case, data, quantise(case.network(CONFIG), calibration_maps(case, data), CONFIG)


@pytest.mark.parametrize("seed", range(6))
def test_reruns_are_runs(seed):
    """Of networks with residual sums and concatenations: some layers changed, and again others."""
    rng = np.random.default_rng(seed)
    network = random_network(rng, CONFIG, depth=5)
    low, high = value_limits(8, network.input_signed)
    inputs = rng.integers(low, high, (3, *network.input_shape), endpoint=True)
    batch = Batch(network, inputs)
    for _ in range(3):
        changed = replace(network, layers=tuple(
            with_prediction(rng, layer) if layer.low == 0 and rng.random() < .5 else layer for layer in network.layers))
        maps, expected = batch.rerun(changed), run_batch(changed, inputs)
        for name in network.outputs:
            assert np.array_equal(maps[name].numpy(), expected[name])
            assert np.array_equal(batch.rerun(network)[name].numpy(), run_batch(network, inputs)[name])


def predicted(network, share=0):
    """``network`` with thresholds of all layers with a ReLU, high enough for ``share`` to be wrong."""
    return replace(network, layers=tuple(
        replace(layer, prediction=Prediction(np.where(np.abs(layer.weights) > 40, layer.weights, 0),
                                             layer.bias + round(share * 1000))) if layer.low == 0 else layer
        for layer in network.layers))


def test_zeros_are_those_of_golden(small):
    case, data, network = small
    evaluation = Evaluation(network, case, SMALL.measure, data.calibration)
    changed, expected = predicted(network, 1), {}
    for x in evaluation.integers:
        for name, result in run_network(changed, x)[1].items():
            if result.predicted:
                expected.setdefault(name, Counter()).update(predicted=result.predicted, missed=result.missed)
    outputs, found = evaluation.run(changed)
    assert all(np.array_equal(one, other) for one, other in zip(outputs, evaluation.outputs(changed), strict=True))
    assert {name: counts["predicted"] for name, counts in found.items() if counts["predicted"]} == {
        name: counts["predicted"] for name, counts in expected.items()}
    assert sum(counts["missed"] for counts in found.values()) == sum(counts["missed"] for counts in expected.values())
    assert sum(counts["missed"] for counts in found.values()) > 0


def test_loss_is_the_probability_that_a_class_loses(small):
    case, data, network = small
    evaluation = Evaluation(network, case, SMALL.measure, data.calibration)
    assert evaluation.loss(network) == 0
    changed = predicted(network, 1)
    expected = []
    for found, before in zip(evaluation.outputs(changed), evaluation.undisturbed, strict=True):
        now, then = (np.exp(values[0]) / np.exp(values[0]).sum() for values in (found, before))
        expected.append(100 * max(0, (then - now).ravel()[then.argmax()]))
    assert evaluation.loss(changed) == pytest.approx(np.mean(expected)) and np.mean(expected) > 0


def test_a_sample_has_every_nth_batch(small, monkeypatch):
    case, data, network = small
    monkeypatch.setattr(predictions, "batch_size", lambda network: 2)
    inputs = [data.input(number) for number in range(15)]
    monkeypatch.setattr(predictions, "LOCAL_INPUTS", 5)
    evaluation, changed = Evaluation(network, case, SMALL.measure, inputs), predicted(network, 1)
    sample = evaluation.sample()
    chosen = [0, 1, 6, 7, 12, 13]
    assert all(np.array_equal(one, evaluation.integers[number])
               for one, number in zip(sample.integers, chosen, strict=True))
    losses = evaluation.losses(evaluation.outputs(changed))
    assert sample.loss(changed) == pytest.approx(np.mean([losses[number] for number in chosen])) and max(losses) > 0
    monkeypatch.setattr(predictions, "LOCAL_INPUTS", 50)
    assert evaluation.sample().loss(changed) == evaluation.loss(changed)


def test_parallel_loops_leave_torch_its_one_thread(small):
    """Of Numba, as in the count of products."""
    case, data, network = small
    use_one_thread()
    count_products(network, [network.quantise_input(case.input_map(data.input(0)))], CONFIG)
    assert torch.get_num_threads() == 1


def test_search_beats_its_controls(small, monkeypatch):
    case, data, network = small
    monkeypatch.setattr(predictions, "BUDGETS", (1., 5.))
    evaluation, stages = Evaluation(network, case, SMALL.measure, data.calibration), Stages(Console(quiet=True))
    outcomes, networks = search_predictions("small", evaluation, CONFIG, True, stages)
    assert set(networks) == {"none", "1", "5", "1 pruned", "5 pruned", HIGH_BITS}
    assert all(outcome.network is networks[name] for name, outcome in outcomes.items())
    assert set(outcomes) == {"1", "5", HIGH_BITS} and outcomes[HIGH_BITS].loss <= HIGH_BITS_BUDGET
    kinds = {kind for level in outcomes[HIGH_BITS].levels.values() if level.option for kind in level.option.kinds}
    assert kinds and kinds <= {f"bits/{bits}" for bits in HIGH_BITS_OF_WEIGHTS}
    scores, zeros = score_networks(SMALL, case, data, networks, list(range(20)), stages)
    assert scores["none"]["loss"] == 0 and scores["none"]["same"] == scores["float"]["score"] == 100
    assert zeros["5"] and scores["5"]["loss"] < scores["5 random"]["loss"]


def test_no_input_is_on_both_sides(small):
    _, data, _ = small
    for split in (halves(data), blocks(data)):
        searched = {x.tobytes() for x in split.search}
        held_out = {data.input(number).tobytes() for number in split.test}
        assert searched and not searched & held_out and len(searched) + len(held_out) == len(data.items)
    assert len(training(data).test) == len(data.items)
    two = replace(data, calibration=list(range(2 * len(PHOTOS))))
    assert photographs(two).search == list(range(2 * (len(PHOTOS) - 3)))
    assert photographs(two).test == list(range(len(PHOTOS) - 3, len(PHOTOS)))
