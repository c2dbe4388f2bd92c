"""Phases of the weights: the split against a plain sort, and how many a layer may have."""
from dataclasses import replace

import numpy as np
import pytest

from compiler.phases import needs_whole, phase_counts, phase_weights, split, stop_phase, stops_exactly
from golden.layer import Slice
from hw.configs import CONFIGS
from sim_tests.golden_model.random_layers import random_layer, with_prediction

SNAPEA, TINY = CONFIGS["snapea"], CONFIGS["tiny_snapea"]


def plain_split(lane, classes, parts):
    """Phase of each weight of a list of them."""
    phases = [0 if weight > 0 or classes == 0 and weight else -1 for weight in lane]
    if classes == 0:
        return phases
    negatives = sorted((weight, at) for at, weight in enumerate(lane) if weight < 0)
    for rank, (_, at) in enumerate(negatives):
        # In which of so many equal classes it lies, and in which of its equal parts.
        number = rank * classes // len(negatives)
        part = rank * classes * parts // len(negatives) - number * parts
        phases[at] = 1 + number + (part if number == classes - 1 else 0)
    return phases


@pytest.mark.parametrize("parts", [1, 2, 4])
@pytest.mark.parametrize("classes", range(7))
@pytest.mark.parametrize("seed", range(10))
def test_split_is_that_of_a_plain_sort(seed, classes, parts):
    rng = np.random.default_rng(seed)
    # Few magnitudes: many are equal.
    limit = int(rng.choice([1, 3, 128]))
    weights = rng.integers(-limit, limit, (5, int(rng.integers(1, 20)), 2, 3))
    weights[1], weights[2] = 0, np.abs(weights[2])
    weights[3] = -1 - np.abs(weights[3]) % 128
    found = split(weights, classes, parts)
    assert found.shape == weights.shape
    for lane in range(5):
        expected = plain_split(weights[lane].ravel().tolist(), classes, parts)
        assert found[lane].ravel().tolist() == expected, f"seed {seed}"


@pytest.mark.parametrize("classes", [1, 2, 3, 6])
def test_classes_are_of_equal_number_with_the_largest_magnitudes_first(classes):
    weights = np.random.default_rng(0).integers(-127, 128, (4, 64, 3, 3))
    phase = split(weights, classes)
    for lane in range(4):
        counts = [int((phase[lane] == 1 + number).sum()) for number in range(classes)]
        assert max(counts) - min(counts) <= 1 and sum(counts) == (weights[lane] < 0).sum()
        parts = [weights[lane][phase[lane] == 1 + number] for number in range(classes)]
        assert all(before.max() <= after.min() for before, after in zip(parts, parts[1:], strict=False))


def test_only_the_last_class_is_cut_again():
    weights = np.random.default_rng(0).integers(-127, 128, (4, 64, 3, 3))
    whole, cut = split(weights, 3), split(weights, 3, 4)
    assert (np.minimum(cut, 3) == whole).all()
    for lane in range(4):
        counts = [int((cut[lane] == phase).sum()) for phase in range(3, 7)]
        assert max(counts) - min(counts) <= 1 and min(counts) > 0
        parts = [weights[lane][cut[lane] == phase] for phase in range(3, 7)]
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
        assert phase_counts(layer, SNAPEA, 3) == [(1, 0)]
    assert phase_counts(layer_of(), CONFIGS["default"], 3) == [(1, 0)]
    assert phase_counts(layer_of(), SNAPEA, 0) == [(1, 0)]
    # Those of one round for each chunk first, then those of two, and so on, up to 7 phases.
    counts = [(1, 0), (4, 3), (2, 0), (5, 3), (3, 0), (6, 3), (4, 0), (7, 3), (5, 0), (6, 0), (7, 0)]
    for most in range(1, 7):
        assert phase_counts(layer_of(), SNAPEA, most) == counts[:min(2 * most + 2, most + 5)]


def test_all_phases_share_a_round_only_where_a_tile_fits_with_all_of_a_kernel():
    """``tiny_snapea`` has room for 10 words of weights and 32 slots."""
    for channels, kernel, stride, fits in ((16, (3, 3), 1, True), (17, (3, 3), 1, False), (160, (1, 1), 1, True),
                                           (161, (1, 1), 1, False), (160, (1, 1), 4, False), (80, (1, 2), 1, True),
                                           (81, (1, 2), 1, False)):
        counts = phase_counts(layer_of(channels, kernel=kernel, stride=stride), TINY, 1)
        assert counts == [(1, 0), *([(4, 3)] if fits else []), (2, 0), (5, 3)], (channels, kernel, stride)
    # Each of two inputs begins with a block.
    for parts, fits in (((8, 8), False), ((16,), True)):
        inputs = [Slice("input", 16 * number, count) for number, count in enumerate(parts)]
        layer = random_layer(np.random.default_rng(0), "layer", inputs, (16, 28, 28), width=8, kernel=(3, 3),
                             out_channels=4)
        assert ((4, 3) in phase_counts(layer, TINY, 1)) == fits, parts


def test_a_prediction_needs_a_round_of_its_own():
    for layer, most, counts in ((layer_of(), 3, [(2, 0), (5, 3), (3, 0), (6, 3), (4, 0), (7, 3), (5, 0)]),
                                (layer_of(), 0, [(2, 0)]), (layer_of(signed_in=True), 3, [(2, 0)]),
                                (layer_of(), 1, [(2, 0), (5, 3), (3, 0), (6, 3)])):
        predicted = with_prediction(np.random.default_rng(1), layer)
        assert phase_counts(predicted, SNAPEA, most) == counts
        for phases, joined in ((1, 0), (2, 1), (4, 3)):
            with pytest.raises(ValueError, match=f"layer layer needs 2 rounds or more, not {phases - joined}"):
                phase_weights(predicted, phases, joined)


@pytest.mark.parametrize("predicts", [False, True])
@pytest.mark.parametrize("signed_in", [False, True])
def test_weights_of_joined_phases_are_of_one_class(signed_in, predicts):
    """Or, where there is none to itself, all classes share the round of the weights above 0."""
    layer, first = layer_of(8, signed_in=signed_in), int(predicts)
    if predicts:
        layer = with_prediction(np.random.default_rng(1), layer)
    rest = layer.weights - layer.prediction.weights if predicts else layer.weights
    for phases, joined, phase in ((4, 3, split(rest, 3)), (5, 3, split(rest, 1, 4)), (6, 3, split(rest, 2, 4)),
                                  (4, 1, split(rest, 2, 2)), (4, 2, split(rest, 1, 3)), (4, 0, split(rest, 3))):
        found = phase_weights(layer, first + phases, joined)
        assert found.dtype == np.int8 and (found.sum(0, np.int64) == layer.weights).all()
        assert not predicts or (found[0] == layer.prediction.weights).all()
        for number in range(phases):
            assert (found[first + number] == np.where(phase == number, rest, 0)).all(), (phases, joined, number)


def test_a_round_of_all_phases_needs_all_channels_and_rows_of_a_kernel():
    layer = layer_of()
    predicted = with_prediction(np.random.default_rng(1), layer)
    # Phase 0 has no stop rule; with a prediction nor has phase 1.
    assert [needs_whole(layer, *count) for count in ((4, 0), (4, 1), (4, 2), (4, 3), (1, 0))] == [
        False, False, False, True, False]
    assert [needs_whole(predicted, *count) for count in ((5, 0), (5, 2), (5, 3), (2, 0))] == [False, False, True, False]
    for never in (layer_of(relu=False), layer_of(signed_in=True)):
        assert stop_phase(never, 4) == 0 and not needs_whole(never, 4, 3)


@pytest.mark.parametrize("classes", [-1, 7])
def test_classes_that_are_too_many_are_refused(classes):
    with pytest.raises(ValueError, match=f"negative_classes must be 0 to 6, not {classes}"):
        phase_counts(layer_of(), SNAPEA, classes)
