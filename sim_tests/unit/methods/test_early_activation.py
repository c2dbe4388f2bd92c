"""The search for predictions: budgets, descent, repetition, and the networks that come out."""
from dataclasses import replace

import numpy as np
import pytest

from boards.bench_networks.batch import run_batch
from compiler.pipeline import compile_quantised
from golden.layer import NEVER, Prediction
from golden.network import QuantisedNetwork, run_network
from hw.configs import get_config
from methods import early_activation
from methods.controls import count_products, first_bits
from methods.early_activation import Level, descent, local_levels, predict, profile_layers
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
    costs = [outcomes[budget].cost for budget in BUDGETS]
    assert costs == sorted(costs, reverse=True) and costs[-1] < 0.9 * sum(outcomes[0.].exact.values())
    assert costs[0] <= sum(outcomes[0.].exact.values())


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
    assert outcome[0.].loss == 0 and outcome[0.].cost == pytest.approx(sum(outcome[0.].exact.values()))


def test_descent_takes_the_layer_that_wins_most_for_a_cycle():
    levels = {"a": [Level(None, 10., 4.), Level(None, 20., 1.), Level(None, 40., 0.)],
              "b": [Level(None, 5., 10.), Level(None, 30., 0.)]}
    # Slopes: a .3 and .05, b .4.
    assert descent(levels) == ["b", "a", "a"]


def test_costs_are_what_the_compiler_estimates(case):
    """Of exact mode, of which it chooses the same number of phases unless more of them save little, and of a level."""
    network, inputs, _ = case
    densities = {name: np.count_nonzero(values) / values.size
                 for name, values in run_network(network, inputs[0])[0].items() if name != "input"}
    found = profile_layers(network, inputs, CONFIG)
    assert set(found) == {"a", "b"}
    for name, levels in found.items():
        costs = [level.cost for level in levels]
        assert costs == sorted(costs) and costs[-2] <= (1 - early_activation.LEAST_GAIN) * costs[-1]
        losses = [level.loss for level in levels]
        assert losses == sorted(losses, reverse=True) and losses[-1] == 0 and losses[0] == levels[0].option.lost
        for level in (levels[0], levels[-1]):
            changed = early_activation._with_options(network, {name: level.option})
            program = compile_quantised(changed, inputs[:1], CONFIG, densities=densities)
            assert program.choices[name].cost.cycles == pytest.approx(level.cost, rel=0.025)


def test_predictions_that_do_not_pay_are_dropped(case, monkeypatch):
    network, inputs, _ = case
    monkeypatch.setattr(early_activation, "_estimator",
                        lambda *arguments: lambda layer, classes: 99 if layer.prediction and layer.name == "b" else 100)
    assert profile_layers(network, inputs, CONFIG) == {}
    monkeypatch.setattr(early_activation, "LEAST_GAIN", .01)
    found = profile_layers(network, inputs, CONFIG)
    # At equal cost the one that loses least is left.
    assert list(found) == ["b"] and [level.cost for level in found["b"]] == [99, 100]


def test_local_pass_goes_down_to_what_loses_too_much(case):
    network, inputs, _ = case
    found, measured = profile_layers(network, inputs, CONFIG), []

    def loss(changed):
        [layer] = [layer for layer in changed.layers if layer.prediction]
        [number] = [number for number, level in enumerate(found[layer.name][:-1])
                    if level.option.prediction is layer.prediction]
        measured.append((layer.name, number))
        return 8 * .5 ** number
    for most, count in ((3., None), (1., None), (.001, 1)):
        measured.clear()
        levels = local_levels(network, found, loss, most, lambda percent, text: None)
        for name, options in found.items():
            asked = [number for layer, number in measured if layer == name]
            assert asked == list(range(len(options) - 2, len(options) - 2 - len(asked), -1))
            assert count is None or len(asked) == count
            assert asked[-1] == 0 or 8 * .5 ** asked[-1] > most >= 4 * .5 ** asked[-1] or count
            assert all(level.loss <= most for level in levels[name]) and levels[name][-1].option is None


def test_the_local_pass_has_its_own_loss(case):
    network, inputs, _ = case
    (loss, calls), (local, local_calls) = loss_on(network, inputs), loss_on(network, inputs[:2])
    outcome = predict(network, inputs, loss, CONFIG, (2.,), local_loss=local)[2.]
    assert all(sum(layer.prediction is not None for layer in changed.layers) == 1 for changed in local_calls)
    assert calls and local_calls and outcome.loss == loss(outcome.network) <= 2


def test_high_bits_save_bit_products(case):
    network, inputs, others = case
    outcome = predict(network, inputs, loss_on(network, inputs)[0], CONFIG, (8.,), high_bits=True)[8.]
    predicted = [layer for layer in outcome.network.layers if layer.prediction]
    assert predicted and outcome.loss <= 8
    for layer in predicted:
        assert set(first_bits(layer)) <= {3, 4, 5}
        assert {kind.split("/")[0] for kind in outcome.levels[layer.name].option.kinds} == {"bits"}
    before, after = (count_products(one, others, CONFIG) for one in (network, outcome.network))
    assert after.bits < 0.9 * before.bits and after.bits < after.products
