"""Profiles of kernels: windows, candidates, and the choice of candidate and threshold."""
from dataclasses import replace

import numpy as np
import pytest

from compiler.phases import phase_weights, stop_phase
from golden import array
from golden import cycles as cycles_module
from golden.cycles import TASK_CYCLES
from golden.layer import NEVER, Prediction, run_layer
from golden.network import run_network
from golden.tasks import walk_tasks
from golden.tiling import Tiling
from hw.configs import get_config
from methods.kernels import FRACTIONS, HIGH_BITS, Profile, candidates, cut_bits
from methods.windows import sample_windows, unfold
from sim_tests.golden_model.random_layers import random_layer, random_map, single

CONFIG = get_config("tiny_snapea")
PRICES = (1., 10., 100.)


def small_layer(seed, *, signed_in=False, size=(9, 20, 20), stride=1):
    """A layer and an input: no kernel, density or size stands out."""
    rng = np.random.default_rng(seed)
    layer = random_layer(rng, "small", "input", size, width=8, kernel=(3, 3), out_channels=6, stride=stride,
                         pad=(1, 1, 1, 1), signed_in=signed_in)
    return layer, random_map(rng, size, width=8, signed=signed_in, density=0.5)


def all_windows(layer, x):
    return unfold(layer, x, np.arange(layer.full_shape[1] * layer.full_shape[2]))


def task_cycles(layer, x, phases):
    """Cycles and products [windows, O] of the tasks of golden."""
    tiling = Tiling(layer.in_shape[0] + CONFIG.block, layer.weights.shape[2], 1, 1, 1, 1, phases)
    tasks = list(walk_tasks(layer, x, tiling, phase_weights(layer, phases), stop_phase(layer, phases),
                            block=CONFIG.block))
    products, words = (np.concatenate([getattr(part, name) for part in tasks], 1).astype(int)
                       for name in ("products", "words"))
    cycles = (cycles_module.task_cycles(products, words) + TASK_CYCLES * (words > 0)).sum(0)
    return cycles.reshape(-1, len(layer.weights)), products.sum(0).reshape(-1, len(layer.weights))


@pytest.mark.parametrize("stride", [1, 2])
def test_windows_are_those_of_the_convolution(stride):
    layer, x = small_layer(1, stride=stride)
    sums = all_windows(layer, x).astype(np.int64) @ layer.weights.reshape(6, -1).T
    expected = array.convolve(x, layer.weights, stride=stride, pad=layer.pad, size=layer.full_shape[1:])
    assert np.array_equal(sums.T.reshape(expected.shape), expected)


def test_sample_is_spread_and_repeats():
    layer, x = small_layer(2)
    network, inputs = single(layer), [x, x[:, ::-1]]
    found, again, other = (sample_windows(network, inputs, {"small"}, 50, seed)["small"] for seed in (1, 1, 2))
    assert len(found) == 50 and np.array_equal(found, again) and not np.array_equal(found, other)
    everything = sample_windows(network, inputs, {"small"}, 10_000, 1)["small"]
    assert np.array_equal(everything, np.concatenate([all_windows(layer, one) for one in inputs]))


def firsts(weights, size):
    """Weights of phase 0 by candidate."""
    return {kind: first for kind, first, _ in candidates(weights, size)}


def test_candidates_are_legal_predictions():
    layer, x = small_layer(3)
    weights, size = layer.weights.reshape(6, -1), np.ones(81)
    found = firsts(weights, size)
    for kind, first in found.items():
        replace(layer, prediction=Prediction(first.reshape(layer.weights.shape), np.full(6, NEVER)))
        assert np.any(first), kind
    for part in FRACTIONS:
        for kernel, *sets in zip(weights, *(found[f"{kind}/{round(1 / part)}"] for kind in ("set", "largest")),
                                 strict=True):
            for chosen in sets:
                assert np.count_nonzero(chosen) == max(1, round(np.count_nonzero(kernel) * part))
                assert set(chosen) <= {0, *kernel}
            assert np.abs(sets[1])[sets[1] != 0].min() >= np.abs(np.where(sets[1], 0, kernel)).max()


def test_speculation_set_has_the_largest_of_each_group():
    weights = np.array([[5, -1, 0, 8, -7, 2, 3, -6, 4]])
    found = firsts(weights, np.ones(9))
    assert set(found["set/4"][0]) - {0} == {4, 8} and set(found["largest/4"][0]) - {0} == {-7, 8}
    assert set(found["set/2"][0]) - {0} == {2, 4, -6, 8} and set(found["largest/2"][0]) - {0} == {5, -6, -7, 8}
    # 7 bits: 2, 3 and 4 of them.
    assert not found["bits/2"].any() and list(found["bits/4"][0]) == [0, 0, 0, 8, 0, 0, 0, 0, 0]
    larger_input = firsts(weights, np.where(np.arange(9) == 1, 100, 1))
    assert set(larger_input["largest/4"][0]) - {0} == {-1, 8}


@pytest.mark.parametrize("high_bits", [False, True])
@pytest.mark.parametrize(("signed_in", "tied"), [(False, False), (True, False), (False, True)])
def test_choice_by_brute_force(signed_in, tied, high_bits):
    """Every candidate, every threshold: the best of them, and what it costs and loses; also with many equal sums."""
    layer, x = small_layer(4, signed_in=signed_in, size=(4, 6, 6))
    if tied:
        layer = replace(layer, weights=64 * np.sign(layer.weights), bias=np.full(6, -64), scale=np.ones(6, int),
                        shift=np.zeros(6, int))
        x = np.sign(x)
    profile = Profile(layer, all_windows(layer, x), CONFIG.block, high_bits)
    outputs = run_layer(layer, x).full.reshape(6, -1).T.astype(float)
    energy, number = (outputs ** 2).sum(), len(outputs)
    options = profile.options(PRICES)
    assert len(options) == (1 if signed_in else 2) * len(PRICES)
    for at, option in enumerate(options):
        price, total = PRICES[at % len(PRICES)], 0
        for lane in range(6):
            best = np.inf
            for kind, first, bits in candidates(profile.weights, sizes(profile)):
                if high_bits and not kind.startswith("bits"):
                    continue
                sums = profile.values.T.astype(int) @ first[lane] + layer.bias[lane]
                start = profile.present.T @ (first[lane] != 0)
                start = start * bits / 8 if high_bits else cycles_module.task_cycles(start, profile.words) + TASK_CYCLES
                rest = profile.rest_costs(profile.weights - first, sums + np.zeros((6, 1)), 8 - bits)
                rest = rest[at // len(PRICES)][lane]
                for threshold in [NEVER, *np.unique(sums), sums.max() + 1]:
                    cost = (start + np.where(sums < threshold, 0, rest)).mean()
                    lost = (outputs[:, lane] ** 2)[sums < threshold].sum() / energy
                    best = min(best, cost / profile.exact / 6 + price * lost)
            total += best
        assert option.cost / profile.exact + price * option.lost == pytest.approx(total, rel=1e-5)
        predicted = replace(layer, prediction=option.prediction)
        result = run_layer(predicted, x)
        assert option.predicted == pytest.approx(result.predicted / number / 6)
        lost = ((outputs ** 2).sum() - (result.full.astype(float) ** 2).sum()) / energy
        assert option.lost == pytest.approx(lost, abs=1e-9)


def sizes(profile):
    return np.sqrt((profile.values ** 2).sum(1) / np.maximum(profile.present.sum(1), 1))


def test_cycles_of_a_prediction_are_those_of_golden_tasks():
    """Signed inputs: no sum stops inside of a phase, so nothing is an estimate."""
    layer, x = small_layer(5, signed_in=True)
    profile = Profile(layer, all_windows(layer, x), CONFIG.block)
    cycles, _ = task_cycles(layer, x, 1)
    assert profile.exact == pytest.approx(cycles.mean())
    for option in profile.options(PRICES):
        cycles, products = task_cycles(replace(layer, prediction=option.prediction), x, 2)
        assert option.cost == pytest.approx(cycles.mean()) and products.mean() < 40
        assert option.cost < profile.exact


def test_bit_products_of_a_prediction_are_those_of_golden_tasks():
    layer, x = small_layer(5, signed_in=True)
    profile = Profile(layer, all_windows(layer, x), CONFIG.block, high_bits=True)
    _, products = task_cycles(layer, x, 1)
    assert profile.exact == pytest.approx(products.mean())
    for option in profile.options(PRICES):
        bits = np.array([1 + int(kind.removeprefix("bits/")) for kind in option.kinds])
        predicted = replace(layer, prediction=option.prediction)
        for lane, number in enumerate(bits - 1):
            assert np.array_equal(option.prediction.weights[lane], cut_bits(layer.weights[lane], number))
        tiling = Tiling(layer.in_shape[0] + CONFIG.block, layer.weights.shape[2], 1, 1, 1, 1, 2)
        tasks = list(walk_tasks(predicted, x, tiling, phase_weights(predicted, 2), stop_phase(predicted, 2),
                                block=CONFIG.block))
        first, rest = np.concatenate([part.products for part in tasks], 1).astype(int).mean((1, 2))
        assert option.cost == pytest.approx((first * bits / 8 + rest * (1 - bits / 8)).mean())


def test_high_bits_are_rounded_towards_zero():
    weights = np.array([127, -127, 31, -31, 64, 1, 0])
    assert cut_bits(weights, 2).tolist() == [96, -96, 0, 0, 64, 0, 0]
    assert [int(cut_bits(weights, bits)[0]) for bits in HIGH_BITS] == [96, 112, 120]


def test_stopping_inside_of_a_phase_is_estimated():
    layer, x = small_layer(6)
    profile = Profile(layer, all_windows(layer, x), CONFIG.block)
    for classes in (0, 1, 2, 3):
        cycles, _ = task_cycles(layer, x, 1 + classes)
        assert profile.exact_costs(classes).mean() == pytest.approx(cycles.mean(), rel=0.01 if classes else 1e-6)


def test_fewer_outputs_are_predicted_where_energy_is_dear():
    layer, x = small_layer(7)
    prices = (1., 10., 100., 1e9)
    options = Profile(layer, all_windows(layer, x), CONFIG.block).options(prices)[:len(prices)]
    for cheap, dear in zip(options, options[1:], strict=False):
        assert cheap.cost <= dear.cost and cheap.lost >= dear.lost
    assert options[0].lost > 0 == options[-1].lost and options[-1].predicted > 0
    network = single(replace(layer, prediction=options[-1].prediction))
    assert np.array_equal(run_network(network, x)[0]["small"], run_layer(layer, x).output)


def test_a_kernel_that_gains_nothing_is_not_predicted():
    """Outputs that are all far above 0: no threshold is worth anything."""
    layer, x = small_layer(8)
    layer = replace(layer, weights=np.abs(layer.weights), bias=np.abs(layer.bias) + 1000)
    for option in Profile(layer, all_windows(layer, x), CONFIG.block).options((1e6,)):
        assert (option.prediction.thresholds == NEVER).all() and option.predicted == option.lost == 0
