"""Phases of the weights: the split against a plain sort, and where how many phases are chosen."""
from dataclasses import replace

import numpy as np
import pytest

from compiler.phases import choose_phases, split, stops_exactly
from hw.configs import CONFIGS
from sim_tests.golden_model.random_layers import random_layer

SNAPEA = CONFIGS["snapea"]


def plain_split(lane, classes):
    """Phase of each weight of a list of them."""
    if classes == 0:
        return [0 if weight else -1 for weight in lane]
    negatives = sorted((weight, at) for at, weight in enumerate(lane) if weight < 0)
    rank = {at: number for number, (_, at) in enumerate(negatives)}
    return [0 if weight > 0 else -1 if weight == 0 else 1 + rank[at] * classes // len(negatives)
            for at, weight in enumerate(lane)]


@pytest.mark.parametrize("classes", range(7))
@pytest.mark.parametrize("seed", range(10))
def test_split_is_that_of_a_plain_sort(seed, classes):
    rng = np.random.default_rng(seed)
    # Few magnitudes: many are equal.
    limit = int(rng.choice([1, 3, 128]))
    weights = rng.integers(-limit, limit, (5, int(rng.integers(1, 20)), 2, 3))
    weights[1], weights[2] = 0, np.abs(weights[2])
    weights[3] = -1 - np.abs(weights[3]) % 128
    found = split(weights, classes)
    assert found.shape == weights.shape
    for lane in range(5):
        assert found[lane].ravel().tolist() == plain_split(weights[lane].ravel().tolist(), classes), f"seed {seed}"


@pytest.mark.parametrize("classes", [1, 2, 3, 6])
def test_classes_are_of_equal_number_with_the_largest_magnitudes_first(classes):
    weights = np.random.default_rng(0).integers(-127, 128, (4, 64, 3, 3))
    phase = split(weights, classes)
    for lane in range(4):
        counts = [int((phase[lane] == 1 + number).sum()) for number in range(classes)]
        assert max(counts) - min(counts) <= 1 and sum(counts) == (weights[lane] < 0).sum()
        parts = [weights[lane][phase[lane] == 1 + number] for number in range(classes)]
        assert all(before.max() <= after.min() for before, after in zip(parts, parts[1:], strict=False))


def layer_of(channels=64, side=28, kernel=(3, 3), **options):
    layer = random_layer(np.random.default_rng(0), "layer", "input", (channels, side, side), width=8, kernel=kernel,
                         out_channels=64, **options)
    return replace(layer, weights=np.clip(layer.weights, -20, 20))


def test_only_a_relu_on_unsigned_inputs_stops():
    assert stops_exactly(layer_of()) and stops_exactly(layer_of(limits=(0, 100)))
    assert not stops_exactly(layer_of(relu=False)) and not stops_exactly(layer_of(signed_in=True))
    assert not stops_exactly(layer_of(limits=(-1, 100)))
    for layer in (layer_of(relu=False), layer_of(signed_in=True)):
        assert choose_phases(layer, SNAPEA, 1.0, 3) == 1
    assert choose_phases(layer_of(), SNAPEA, 1.0, 3) == 4
    assert choose_phases(layer_of(), CONFIGS["default"], 1.0, 3) == 1


def test_phases_are_as_many_as_have_enough_to_do():
    layer = layer_of()
    negatives = (layer.weights < 0).sum() / 64
    # 9 map words: 11 multiplications a window and phase; 26 x 26 windows on 64 PEs, 85 cycles to unpack a lane.
    assert 85 * 64 / 26**2 < 11
    for density in np.linspace(0.01, 1, 34):
        for most in (0, 1, 3, 6):
            assert choose_phases(layer, SNAPEA, density, most) == 1 + min(most, int(density * negatives / 11)), density
    assert choose_phases(replace(layer, weights=np.abs(layer.weights)), SNAPEA, 1.0, 6) == 1


def test_few_windows_do_not_pay_for_unpacking_more_phases():
    # One window: 64 PEs would wait for weights.
    assert choose_phases(layer_of(side=3, kernel=(3, 3)), SNAPEA, 1.0, 3) == 1
    assert choose_phases(layer_of(side=12, kernel=(3, 3)), SNAPEA, 0.5, 6) == 1 + int(
        0.5 * (layer_of().weights < 0).sum() / 64 / (85 * 64 / 100))
