"""The search for predictions: budgets, descent, repetition, and the networks that come out."""
from dataclasses import replace

import numpy as np
import pytest

from boards.bench_networks.batch import run_batch
from golden.layer import NEVER, Prediction
from golden.network import QuantisedNetwork, run_network
from hw.configs import get_config
from methods.early_activation import Level, descent, predict
from sim_tests.golden_model.random_layers import random_layer, random_map

CONFIG = get_config("tiny_snapea")
BUDGETS = (0., 0.5, 2., 8.)


@pytest.fixture(scope="module")
def case():
    """A network of three layers, the last of them without a ReLU, inputs for the search, and others."""
    rng = np.random.default_rng(11)
    layers = [random_layer(rng, name, source, (channels, 16, 16), width=8, kernel=(3, 3), out_channels=12,
                           pad=(1, 1, 1, 1), relu=name != "c")
              for name, source, channels in (("a", "input", 8), ("b", "a", 12), ("c", "b", 12))]
    network = QuantisedNetwork("three", 8, (8, 16, 16), False, tuple(layers), ("c",))
    inputs = [random_map(rng, (8, 16, 16), width=8, signed=False, density=0.5) for _ in range(8)]
    return network, inputs[:4], inputs[4:]


def loss_on(network, inputs):
    """A loss of the mean difference of the outputs, and the networks that it was called with."""
    calls, expected = [], run_batch(network, inputs)["c"]

    def loss(changed):
        calls.append(changed)
        return float(np.abs(run_batch(changed, inputs)["c"] - expected).mean())
    return loss, calls


@pytest.fixture(scope="module")
def outcomes(case):
    network, inputs, _ = case
    return predict(network, inputs, loss_on(network, inputs)[0], CONFIG, BUDGETS)


def test_budgets_are_met_and_worth_something(case, outcomes):
    network, inputs, _ = case
    loss, _ = loss_on(network, inputs)
    for budget, outcome in outcomes.items():
        assert outcome.loss <= budget and outcome.loss == loss(outcome.network)
    cycles = [outcomes[budget].cycles for budget in BUDGETS]
    assert cycles == sorted(cycles, reverse=True) and cycles[-1] < 0.9 * sum(outcomes[0.].exact.values())
    assert cycles[0] <= sum(outcomes[0.].exact.values())


def test_only_layers_with_a_relu_are_predicted(outcomes):
    layers = {layer.name: layer for layer in outcomes[8.].network.layers}
    assert layers["a"].prediction and layers["b"].prediction and layers["c"].prediction is None


def test_golden_and_batches_agree_on_predictions(case, outcomes):
    *_, others = case
    for outcome in outcomes.values():
        found = run_batch(outcome.network, others)["c"]
        assert np.array_equal(found, [run_network(outcome.network, x)[0]["c"] for x in others])


def test_search_repeats(case, outcomes):
    network, inputs, _ = case
    again = predict(network, inputs, loss_on(network, inputs)[0], CONFIG, BUDGETS)
    for budget in BUDGETS:
        for one, other in zip(outcomes[budget].network.layers, again[budget].network.layers, strict=True):
            assert (one.prediction is None) == (other.prediction is None)
            if one.prediction:
                assert np.array_equal(one.prediction.weights, other.prediction.weights)
                assert np.array_equal(one.prediction.thresholds, other.prediction.thresholds)


def test_a_threshold_of_never_changes_nothing(case, outcomes):
    network, _, others = case
    layers = [layer if layer.prediction is None else replace(layer, prediction=Prediction(
        layer.prediction.weights, np.full_like(layer.prediction.thresholds, NEVER)))
        for layer in outcomes[8.].network.layers]
    never = replace(network, layers=tuple(layers))
    assert np.array_equal(run_batch(never, others)["c"], run_batch(network, others)["c"])


def test_no_budget_no_prediction(case):
    """With a loss for every change nothing is predicted."""
    network, inputs, _ = case
    outcome = predict(network, inputs, lambda changed: 1., CONFIG, (0., 0.99))
    assert outcome[0.].network.layers == outcome[0.99].network.layers == network.layers
    assert outcome[0.].loss == 0 and outcome[0.].cycles == pytest.approx(sum(outcome[0.].exact.values()))


def test_descent_takes_the_layer_that_wins_most_for_a_cycle():
    levels = {"a": [Level(None, 10., 4.), Level(None, 20., 1.), Level(None, 40., 0.)],
              "b": [Level(None, 5., 10.), Level(None, 30., 0.)]}
    # Slopes: a .3 and .05, b .4.
    assert descent(levels) == ["b", "a", "a"]
