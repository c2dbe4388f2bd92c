"""Phases of the weights: the split against a plain sort, and how many a layer may have."""
import math
from dataclasses import replace
from fractions import Fraction
from itertools import product

import numpy as np
import pytest

from compiler.phases import (
    bend_turns,
    needs_whole,
    phase_counts,
    phase_weights,
    split,
    stop_phase,
    stops_exactly,
    turns,
)
from golden.layer import TURNS, Slice
from hw.configs import CONFIGS
from sim_tests.golden_model.random_layers import random_layer, with_prediction

SNAPEA, TINY = CONFIGS["snapea"], CONFIGS["tiny_snapea"]


def plain_turns(lane, falls):
    """Turn of each weight below 0 of a list of them, by a plain sort; None for the others."""
    below = sorted((weight * fall, at) for at, (weight, fall) in enumerate(zip(lane, falls, strict=True)) if weight < 0)
    found = [None] * len(lane)
    for place, (_, at) in enumerate(below):
        found[at] = min(math.ceil(Fraction(place * TURNS, len(below))), TURNS - 1)
    return found


def plain_split(lane, turns, classes, parts):
    """Phase of each weight of a list of them."""
    phases = []
    for weight, turn in zip(lane, turns, strict=True):
        # In which of so many equal classes it is, and in which of its equal parts.
        number, part = int(turn) * classes // TURNS, int(turn) * classes * parts // TURNS % parts
        phases.append(-1 if not weight else 0 if weight > 0 or not classes else
                      1 + number + (part if number == classes - 1 else 0))
    return phases


def random_weights(rng):
    # Few magnitudes: many are equal.
    limit = int(rng.choice([1, 3, 128]))
    weights = rng.integers(-limit, limit, (5, int(rng.integers(1, 20)), 2, 3))
    weights[1], weights[2] = 0, np.abs(weights[2])
    weights[3] = -1 - np.abs(weights[3]) % 128
    return weights


@pytest.mark.parametrize("even", [False, True])
@pytest.mark.parametrize("seed", range(20))
def test_turns_are_those_of_a_plain_sort(seed, even):
    rng = np.random.default_rng(seed)
    weights = random_weights(rng)
    # Powers of two, so that products are equal or not as they are in integers.
    falls = np.ones(weights.shape[1]) if even else 2. ** rng.integers(-3, 4, weights.shape[1])
    found = turns(weights) if even else turns(weights, falls)
    assert found.shape == weights.shape and found.dtype == np.uint16
    for lane in range(5):
        expected = plain_turns(weights[lane].ravel().tolist(), np.repeat(falls, 6).tolist())
        for turn, other in zip(found[lane].ravel().tolist(), expected, strict=True):
            assert other in (None, turn), f"seed {seed}"


def test_turns_of_as_many_weights_as_there_are_places_between():
    """The largest kernels have more weights than there are turns; none of them wraps."""
    weights = np.full((1, TURNS + 5, 1, 1), -1)
    found = turns(weights)[0, :, 0, 0].astype(int)
    assert found[0] == 0 and found[-1] == TURNS - 1 and (np.diff(found) >= 0).all()
    assert (bend_turns(turns(weights), 4.5)[0, :, 0, 0].astype(int)[[0, -1]] == [0, TURNS - 1]).all()


@pytest.mark.parametrize("parts", [1, 2, 4])
@pytest.mark.parametrize("classes", range(7))
@pytest.mark.parametrize("seed", range(10))
def test_split_is_that_of_plain_fractions(seed, classes, parts):
    rng = np.random.default_rng(seed)
    weights = random_weights(rng)
    when = rng.integers(0, TURNS, weights.shape).astype(np.uint16)
    when[4] = np.where(when[4] & 1, TURNS - 1, 0)
    found = split(weights, when, classes, parts)
    assert found.shape == weights.shape and found.dtype == np.int8
    for lane in range(5):
        expected = plain_split(weights[lane].ravel().tolist(), when[lane].ravel().tolist(), classes, parts)
        assert found[lane].ravel().tolist() == expected, f"seed {seed}"


@pytest.mark.parametrize("classes", [1, 2, 3, 6])
def test_classes_are_of_equal_number_with_the_largest_magnitudes_first(classes):
    weights = np.random.default_rng(0).integers(-127, 128, (4, 64, 3, 3))
    phase = split(weights, turns(weights), classes)
    for lane in range(4):
        counts = [int((phase[lane] == 1 + number).sum()) for number in range(classes)]
        assert max(counts) - min(counts) <= 1 and sum(counts) == (weights[lane] < 0).sum()
        parts = [weights[lane][phase[lane] == 1 + number] for number in range(classes)]
        assert all(before.max() <= after.min() for before, after in zip(parts, parts[1:], strict=False))


@pytest.mark.parametrize("bend", [0.5, 1.5, 4.5])
@pytest.mark.parametrize("classes", [2, 3, 6])
def test_a_bend_makes_the_first_classes_small(classes, bend):
    weights = -np.random.default_rng(0).integers(1, 128, (2, 64, 3, 3))
    even = turns(weights)
    # One bend for each kernel: the second one has none.
    phase = split(weights, bend_turns(even, np.array([bend, 0])), classes)
    ends = np.cumsum([(phase[0] == 1 + number).sum() for number in range(classes)])
    expected = np.expm1(bend * np.arange(1, classes + 1) / classes) / np.expm1(bend) * 576
    assert np.abs(ends - expected).max() <= 1
    assert (phase[1] == split(weights, even, classes)[1]).all()
    parts = [weights[0][phase[0] == 1 + number] for number in range(classes)]
    assert all(before.max() <= after.min() for before, after in zip(parts, parts[1:], strict=False))


def test_only_the_last_class_is_cut_again():
    weights = np.random.default_rng(0).integers(-127, 128, (4, 64, 3, 3))
    when = turns(weights)
    whole, cut = split(weights, when, 3), split(weights, when, 3, 4)
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
    own = np.random.default_rng(2).integers(0, TURNS, rest.shape).astype(np.uint16)
    for when, (phases, joined, cut) in product((None, own), ((4, 3, (3,)), (5, 3, (1, 4)), (6, 3, (2, 4)),
                                                             (4, 1, (2, 2)), (4, 2, (1, 3)), (4, 0, (3,)))):
        phase = split(rest, turns(rest) if when is None else when, *cut)
        found = phase_weights(replace(layer, turns=when), first + phases, joined)
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
