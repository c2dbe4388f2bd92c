"""Controls: pruning to a number of products, and what the products of a network are."""
from dataclasses import replace

import numpy as np
import pytest

from compiler.phases import phase_weights, stop_phase
from golden.layer import NEVER, Prediction
from golden.tasks import count_tasks
from golden.tiling import Tiling
from hw.configs import get_config
from methods.controls import count_products, prune, prune_to
from sim_tests.golden_model.random_layers import random_layer, random_map, single

CONFIG = get_config("tiny_snapea")


@pytest.fixture
def case():
    """A layer and two inputs."""
    rng = np.random.default_rng(5)
    size = (9, 4, 12)
    layer = random_layer(rng, "small", "input", size, width=8, kernel=(3, 3), out_channels=6, pad=(1, 1, 1, 1))
    return layer, [random_map(rng, size, width=8, signed=False, density=0.5) for _ in range(2)]


def test_smallest_magnitudes_are_pruned(case):
    layer, _ = case
    network = single(layer)
    for fraction in (0., .25, .9):
        weights = prune(network, fraction).layers[0].weights
        kept = weights != 0
        number = np.count_nonzero(layer.weights)
        assert np.count_nonzero(kept) == number - round(fraction * number)
        assert np.array_equal(weights[kept], layer.weights[kept])
        cut = (layer.weights != 0) & ~kept
        assert not cut.any() or np.abs(layer.weights[cut]).max() <= np.abs(weights[kept]).min()


def test_pools_and_sums_are_not_pruned(case):
    layer, _ = case
    ones = replace(layer, weights=np.ones_like(layer.weights))
    assert prune(single(ones), .5).layers == single(ones).layers


@pytest.mark.parametrize("predicted", [False, True])
def test_products_are_those_of_golden(case, predicted):
    layer, inputs = case
    if predicted:
        first = np.where(np.abs(layer.weights) > 64, layer.weights, 0)
        layer = replace(layer, prediction=Prediction(first, np.where(np.arange(6) % 2, NEVER, 500)))
    phases = 3 if predicted else 4
    tiling = Tiling(layer.in_shape[0] + CONFIG.block, 3, 1, 1, 1, 1, phases)
    expected = [count_tasks(layer, x, tiling, phase_weights(layer, phases), stop_phase(layer, phases),
                            block=CONFIG.block).products.sum() for x in inputs]
    assert count_products(single(layer), inputs, CONFIG) == pytest.approx(np.mean(expected))


def test_pruned_to_products_and_no_further(case):
    layer, inputs = case
    network = single(layer)

    def count(one):
        return count_products(one, inputs, CONFIG)
    whole = count(network)
    found = prune_to(network, [whole, whole / 2, whole / 10], count)
    assert np.array_equal(found[0].layers[0].weights, layer.weights)
    for part, pruned in zip((1, 2, 10), found, strict=True):
        assert 0.9 * whole / part < count(pruned) <= whole / part
