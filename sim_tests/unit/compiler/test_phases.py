"""Phases of the weights: the split against a plain sort, and how many a layer may have."""
from dataclasses import replace

import numpy as np
import pytest

from compiler.phases import phase_counts, split, stops_exactly
from hw.configs import CONFIGS
from sim_tests.golden_model.random_layers import random_layer, with_prediction

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


def test_only_layers_that_stop_have_classes():
    for layer in (layer_of(relu=False), layer_of(signed_in=True)):
        assert list(phase_counts(layer, SNAPEA, 3)) == [1]
    assert list(phase_counts(layer_of(), CONFIGS["default"], 3)) == [1]
    for most in range(7):
        assert list(phase_counts(layer_of(), SNAPEA, most)) == list(range(1, most + 2))


def test_a_prediction_needs_a_phase_of_its_own():
    for layer, most, counts in ((layer_of(), 3, [2, 3, 4, 5]), (layer_of(), 0, [2]), (layer_of(signed_in=True), 3, [2]),
                                (layer_of(), 6, [2, 3, 4, 5, 6, 7])):
        predicted = with_prediction(np.random.default_rng(1), layer)
        assert list(phase_counts(predicted, SNAPEA, most)) == counts


@pytest.mark.parametrize("classes", [-1, 7])
def test_classes_that_are_too_many_are_refused(classes):
    with pytest.raises(ValueError, match=f"negative_classes must be 0 to 6, not {classes}"):
        phase_counts(layer_of(), SNAPEA, classes)
