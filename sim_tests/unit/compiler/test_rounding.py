"""Rounding weights together: sums come nearer, each weight is one of its two neighbours, zeros and integers stay."""
import numpy as np
import pytest
import torch

from compiler.rounding import SWEEPS, round_weights

HIGH = 127


def correlated(places, count, seed):
    """``count`` observations of ``places`` values that are alike where they are near each other, all above 0."""
    rng = np.random.default_rng(seed)
    mixing = 0.9 ** np.abs(np.subtract.outer(range(places), range(places)))
    return np.abs(mixing @ rng.normal(size=(places, count)) * 10 + 40).astype(np.float32)


def example(channels=12, places=100, seed=0):
    """Real weights, a third of them 0, and their nearest integers."""
    rng = np.random.default_rng(seed)
    real = rng.normal(size=(channels, places)) * 40 * (rng.uniform(size=(channels, places)) > 1 / 3)
    real = np.clip(real, -HIGH, HIGH)
    return np.rint(real).astype(np.int64), real


def error(weights, real, observed):
    """Variance of what the sums of each channel err by."""
    return ((weights - real) @ observed).var(1)


@pytest.mark.parametrize("seed", range(3))
def test_sums_of_observations_that_it_has_not_seen_come_nearer(seed):
    nearest, real = example(seed=seed)
    rounded = round_weights(nearest, real, torch.from_numpy(correlated(100, 1000, seed)), HIGH)
    unseen = correlated(100, 1000, seed + 100)
    assert error(rounded, real, unseen).mean() < 0.5 * error(nearest, real, unseen).mean()


def test_each_weight_is_a_neighbour_of_its_real_value_and_zeros_stay():
    nearest, real = example()
    real[0, :50], nearest[0, :50] = HIGH + 0.4, HIGH
    rounded = round_weights(nearest, real, torch.from_numpy(correlated(100, 1000, 1)), HIGH)
    assert rounded.dtype == np.int64
    assert (np.abs(rounded - real) < 1).all() and np.abs(rounded).max() <= HIGH
    assert (rounded[real == 0] == 0).all()
    assert 0.05 < np.mean(rounded != nearest) < 0.3


@pytest.mark.parametrize("places", [1, 63, 64, 150])
def test_blocks_give_what_one_weight_after_the_other_gives(places):
    """The gradient anew for each weight, in float64."""
    nearest, real = example(5, places, seed=places)
    observed = correlated(places, 400, places)
    moments = 400 * np.cov(observed.astype(np.float64), bias=True).reshape(places, places)
    moments += places / 400 * np.diag(np.diag(moments))
    expected = nearest.astype(np.float64)
    for _ in range(SWEEPS):
        for place in range(places):
            best = expected[:, place] - (expected - real) @ moments[:, place] / moments[place, place]
            expected[:, place] = np.clip(np.rint(best), np.floor(real[:, place]), np.ceil(real[:, place]))
    assert np.mean(round_weights(nearest, real, torch.from_numpy(observed), HIGH) == expected) > 0.995


def test_integers_and_weights_of_values_that_never_change_stay():
    nearest, real = example()
    real[3] = nearest[3]
    observed = correlated(100, 1000, 2)
    observed[40:60] = 7
    rounded = round_weights(nearest, real, torch.from_numpy(observed), HIGH)
    assert np.array_equal(rounded[3], nearest[3])
    assert np.array_equal(rounded[:, 40:60], nearest[:, 40:60])
    assert (rounded != nearest).any()


@pytest.mark.parametrize("seed", range(3))
def test_chance_in_few_observations_does_little_harm(seed):
    """20 observations of 100 independent values: what they have in common is chance."""
    nearest, real = example(40, seed=seed)
    rng = np.random.default_rng(seed)
    rounded = round_weights(nearest, real, torch.from_numpy(rng.normal(size=(100, 20)).astype(np.float32)), HIGH)
    unseen = rng.normal(size=(100, 2000))
    assert error(rounded, real, unseen).mean() < 1.1 * error(nearest, real, unseen).mean()
