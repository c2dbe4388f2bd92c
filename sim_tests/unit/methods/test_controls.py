"""Controls: pruning to a number of products, and what the products of a network are."""
from dataclasses import replace

import numpy as np
import pytest

from compiler.phases import phase_weights, stop_phase
from golden.layer import NEVER, Prediction
from golden.tasks import count_tasks
from golden.tiling import Tiling
from hw.configs import get_config
from methods.controls import count_products, first_bits, prune, prune_to
from methods.kernels import cut_bits
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
    counts = [count_tasks(layer, x, tiling, phase_weights(layer, phases), stop_phase(layer, phases), block=CONFIG.block)
              for x in inputs]
    found = count_products(single(layer), inputs, CONFIG)
    assert found.products == pytest.approx(np.mean([count.products.sum() for count in counts]))
    assert found.skipping == pytest.approx(np.mean([count.skipping.sum() for count in counts]))
    assert found.bits == pytest.approx(found.products) and found.products < found.skipping


def test_bit_products_have_the_bits_of_their_phase(case):
    """Kernels with 2, 3 and 4 high bits, and three with whole weights."""
    layer, inputs = case
    first = np.stack([cut_bits(layer.weights[lane], 2 + lane) if lane < 3 else np.maximum(layer.weights[lane], 0)
                      for lane in range(6)])
    layer = replace(layer, prediction=Prediction(first, np.full(6, 200)))
    assert first_bits(layer).tolist() == [3, 4, 5, 8, 8, 8]
    tiling, expected = Tiling(layer.in_shape[0] + CONFIG.block, 3, 1, 1, 1, 1, 3), 0
    for x in inputs:
        products = count_tasks(layer, x, tiling, phase_weights(layer, 3), stop_phase(layer, 3),
                               block=CONFIG.block).products
        for lane, bits in enumerate((3, 4, 5, 8, 8, 8)):
            rest = 8 - bits if bits < 8 else 8
            expected += products[0, lane] * bits / 8 + products[1:, lane].sum() * rest / 8
    found = count_products(single(layer), inputs, CONFIG)
    assert found.bits == pytest.approx(expected / 2) and found.bits < found.products


def test_pruned_to_products_and_no_further(case):
    layer, inputs = case
    network = single(layer)

    def count(one):
        return count_products(one, inputs, CONFIG).products
    whole = count(network)
    found = prune_to(network, [whole, whole / 2, whole / 10], count)
    assert np.array_equal(found[0].layers[0].weights, layer.weights)
    for part, pruned in zip((1, 2, 10), found, strict=True):
        assert 0.9 * whole / part < count(pruned) <= whole / part
