"""Correction by calibration: means come back, only weights and biases change, exact channels and lone inputs change
nothing, no sum wraps."""
import dataclasses

import numpy as np
import pytest

from compiler import correction
from compiler import quantise as quantise_module
from compiler.correction import correct
from compiler.graph import Layer, Network, Slice, Target
from compiler.quantise import check_sums, quantise
from golden.network import QuantisedNetwork, run_network
from hw.configs import CONFIGS

TINY, NULLHOP = CONFIGS["tiny"], CONFIGS["nullhop"]
SHAPE = (3, 14, 14)


def deep_network(depth=6, seed=0):
    """``depth`` layers, pooled and side by side in places, then one of signed values."""
    rng = np.random.default_rng(seed)

    def make(name, source, channels, inputs, kernel=3, **more):
        weights = rng.normal(size=(channels, inputs, kernel, kernel)) * np.sqrt(2 / (inputs * kernel * kernel))
        return Layer(name, [Slice(source, 0, inputs)], weights, rng.normal(size=channels) * 0.1, **more)
    layers = [make("first", "input", 16, 3, pad=(1, 1, 1, 1), pool=2, pool_ceil=True, full=Target("first.full")),
              make("left", "first", 16, 16, pad=(1, 1, 1, 1), output=Target("both")),
              make("right", "first", 16, 16, 1, high=2.0, output=Target("both", 16))]
    source, count = "both", 32
    for number in range(depth - 3):
        layers.append(make(f"layer{number}", source, 24, count, pad=(1, 1, 1, 1)))
        source, count = f"layer{number}", 24
    layers += [make("last", source, 10, count, relu=False), make("side", "first.full", 5, 16, 1, relu=False, low=-0.5)]
    return Network("deep", SHAPE, layers, outputs=("last", "side"))


def inputs(count, seed):
    rng = np.random.default_rng(seed)
    return [rng.uniform(0, 1, SHAPE).astype(np.float32) for _ in range(count)]


def quantise_without(monkeypatch, network, calibration, config=TINY) -> QuantisedNetwork:
    """What ``quantise`` gives to the correction."""
    with monkeypatch.context() as patched:
        patched.setattr(quantise_module, "correct", lambda network, quantised, *_: quantised)
        return quantise(network, calibration, config)


def errors(network, quantised, xs, name):
    """Differences of map ``name`` to the real network, [N, C, H, W]."""
    return np.stack([quantised.dequantise(name, run_network(quantised, quantised.quantise_input(x))[0][name])
                     - network.run_float(x)[name] for x in xs])


@pytest.mark.parametrize("seed", range(3))
def test_means_and_errors_of_inputs_that_it_has_not_seen(monkeypatch, seed):
    network, calibration, xs = deep_network(seed=seed), inputs(16, 10 + seed), inputs(8, 20 + seed)
    before = quantise_without(monkeypatch, network, calibration)
    after = quantise(network, calibration, TINY)
    means = {}
    for name, quantised in (("before", before), ("after", after)):
        found = errors(network, quantised, xs, "last")
        means[name] = np.sqrt((found.mean((0, 2, 3)) ** 2).mean()), np.sqrt((found ** 2).mean())
    # The mean of each channel, and with it the whole error.
    assert means["after"][0] < 0.5 * means["before"][0], (seed, means)
    assert means["after"][1] < means["before"][1], (seed, means)


def test_only_weights_and_biases_change(monkeypatch):
    network, calibration = deep_network(), inputs(8, 1)
    before, after = quantise_without(monkeypatch, network, calibration), quantise(network, calibration, TINY)
    for old, new in zip(before.layers, after.layers, strict=True):
        assert (old.bias != new.bias).any(), old.name
        assert 0 < np.mean(old.weights != new.weights) < 0.5, old.name
        for field in dataclasses.fields(old):
            if field.name not in ("weights", "bias"):
                assert np.array_equal(getattr(old, field.name), getattr(new, field.name)), (old.name, field.name)
    assert before.scales.keys() == after.scales.keys() and after.outputs == before.outputs


def test_sums_that_the_clamp_changes_do_not_count():
    """A channel that is always clamped keeps its bias; one that a bound cuts is corrected by what is below it."""
    weights = np.array([0.7, 1 / np.pi])[None, :, None, None] * np.array([-1.0, 1.0])[:, None, None, None]
    rng = np.random.default_rng(3)
    calibration = [rng.uniform(0, 1, (2, 9, 9)).astype(np.float32) for _ in range(4)]
    network = Network("n", (2, 9, 9), [Layer("a", [Slice("input", 0, 2)], weights, high=0.5)])
    quantised = quantise(network, calibration, TINY)
    layer = quantised.layers[0]
    moved = dataclasses.replace(quantised, layers=(dataclasses.replace(layer, bias=layer.bias + 1000),))
    corrected = correct(network, moved, calibration, TINY).layers[0]
    assert corrected.bias[0] == layer.bias[0] + 1000
    assert abs(corrected.bias[1] - layer.bias[1]) <= 3


def test_weights_that_are_rounded_together_lower_the_error(monkeypatch):
    """Of inputs that it has not seen, beside nearest weights with biases of their own."""
    change = []
    for seed in range(4):
        network, calibration, xs = deep_network(seed=seed), inputs(16, 10 + seed), inputs(8, 20 + seed)
        together = quantise(network, calibration, TINY)
        with monkeypatch.context() as patched:
            patched.setattr(correction, "round_weights", lambda nearest, *_: nearest)
            nearest = quantise(network, calibration, TINY)
        change.append(np.log10((errors(network, together, xs, "last") ** 2).mean()
                               / (errors(network, nearest, xs, "last") ** 2).mean()))
    assert 10 * np.mean(change) < -0.5, change


def test_windows_are_what_weights_meet():
    """Sums of all windows, in whatever order, are those of the layer; stride, padding and rectangles included."""
    rng = np.random.default_rng(6)
    layer = Layer("a", [Slice("input", 1, 2), Slice("input", 0, 1)], rng.normal(size=(4, 3, 3, 2)), stride=2,
                  pad=(1, 0, 2, 1), relu=False)
    network = Network("n", (3, 9, 14), [layer])
    run = correction._Run(network, rng.uniform(-1, 1, (3, 9, 14)).astype(np.float32))
    sums = run.sums(layer, layer.weights, None)[0].flatten(1).numpy()
    windows = run.windows(layer, 1000).numpy()
    assert windows.shape == (18, sums.shape[1])
    assert np.allclose(np.sort(layer.weights.reshape(4, -1) @ windows, 1), np.sort(sums, 1), atol=1e-5)
    some = run.windows(layer, 7).numpy()
    assert some.shape == (18, 7) and np.array_equal(some, windows[:, :7])


def test_few_windows_leave_weights_at_the_nearest(monkeypatch):
    """A kernel that spans its input, of 75 weights: more than twice the inputs, and fewer."""
    rng = np.random.default_rng(7)
    network = Network("n", (3, 5, 5), [Layer("a", [Slice("input", 0, 3)], rng.normal(size=(5, 3, 5, 5)))])
    for count, moves in ((37, False), (38, True)):
        calibration = [x[:, :5, :5] for x in inputs(count, 7)]
        before, after = quantise_without(monkeypatch, network, calibration), quantise(network, calibration, TINY)
        assert np.array_equal(before.layers[0].weights, after.layers[0].weights) != moves


def test_channels_of_exact_weights_keep_weights_and_bias(monkeypatch):
    """Copies, weights of at most 8 bits, channels without weights: also where the scales are no powers of two."""
    rng = np.random.default_rng(4)
    grid = rng.integers(-127, 128, (8, 3, 3, 3)) * 0.0123
    grid[:, 0, 0, 0] = 127 * 0.0123
    grid[5] = 0
    free = rng.normal(size=(8, 8, 1, 1))
    free[:4] = np.eye(8)[:4, :, None, None] * 0.77
    network = Network("n", SHAPE, [
        Layer("grid", [Slice("input", 0, 3)], grid, rng.normal(size=8), out_scale=0.3),
        Layer("free", [Slice("grid", 0, 8)], free, rng.normal(size=8))])
    calibration = inputs(6, 2)
    before, after = quantise_without(monkeypatch, network, calibration), quantise(network, calibration, TINY)
    for field in ("weights", "bias"):
        old, new = ([getattr(layer, field) for layer in quantised.layers] for quantised in (before, after))
        assert np.array_equal(old[0], new[0]), field
        changed = (old[1] != new[1]).reshape(8, -1).any(1)
        assert not changed[:4].any() and changed[4:].any(), field


def test_exact_weights_stay_where_their_multiplier_is_rounded():
    """Many weights of one sign that meet equal values: all of them together seem to be off by more than 1."""
    rng = np.random.default_rng(8)
    grid = rng.integers(100, 128, (6, 160, 3, 3)) * 0.0123
    grid[:, 0, 0, 0] = 127 * 0.0123
    calibration = [np.full((160, 24, 24), value, np.float32) for value in (0.2, 0.7, 1.0)]
    for out_scale in np.arange(0.3, 0.4, 0.013):
        network = Network("n", (160, 24, 24), [Layer("a", [Slice("input", 0, 160)], grid, out_scale=out_scale)])
        found = quantise(network, calibration, TINY).layers[0].weights
        assert np.array_equal(found, np.rint(grid / 0.0123)), out_scale


def test_one_input_and_16_bits_change_nothing(monkeypatch):
    network = deep_network()
    for calibration, config in ((inputs(1, 1), TINY), (inputs(4, 1), NULLHOP)):
        before, after = quantise_without(monkeypatch, network, calibration, config), quantise(network, calibration,
                                                                                             config)
        for old, new in zip(before.layers, after.layers, strict=True):
            assert np.array_equal(old.bias, new.bias) and np.array_equal(old.weights, new.weights)


def test_a_mean_that_inputs_do_not_agree_on_is_not_corrected(monkeypatch):
    """Errors of opposite signs in two inputs: their variance is larger than their mean."""
    monkeypatch.setattr(correction, "round_weights", lambda weights, *_: weights)
    weights = np.array([[1.0, 0.3], [0.3, 1.0]])[:, :, None, None]
    network = Network("n", (2, 4, 4), [Layer("a", [Slice("input", 0, 2)], weights)])
    calibration = [np.full((2, 4, 4), 1.0), np.full((2, 4, 4), 0.2)]
    quantised = quantise(network, calibration, TINY)
    layer = quantised.layers[0]
    # 20 more for each 1 of the first channel's weight, and a bias that makes up for three quarters of it.
    wrong = dataclasses.replace(layer, weights=layer.weights - np.array([20, 0])[None, :, None, None],
                                bias=layer.bias + 20 * 150)
    moved = dataclasses.replace(quantised, layers=(wrong,))
    assert np.array_equal(correct(network, moved, calibration, TINY).layers[0].bias, wrong.bias)
    one_sided = [calibration[0], calibration[0]]
    assert (correct(network, moved, one_sided, TINY).layers[0].bias > wrong.bias).all()


def test_no_corrected_sum_wraps():
    """A correction ends where the worst-case sum would wrap."""
    network, calibration = deep_network(), inputs(4, 5)
    quantised = quantise(network, calibration, TINY)
    layer = quantised.layers[0]
    room = (1 << TINY.sum_width - 1) - 1 - 255 * np.abs(layer.weights).sum(axis=(1, 2, 3))
    away = dataclasses.replace(network.layers[0], bias=np.full(16, 1e9))
    shifted = dataclasses.replace(network, layers=(away, *network.layers[1:]))
    corrected = correct(shifted, quantised, calibration, TINY)
    assert np.array_equal(corrected.layers[0].bias, room)
    for found in corrected.layers:
        check_sums(found, TINY)


def test_a_channel_too_small_for_its_multiplier_stays():
    """No weights, and next to no bias: its multiplier is 0, and so is the unit of its sums."""
    network = deep_network()
    layers = list(network.layers)
    weights, bias = layers[2].weights.copy(), layers[2].bias.copy()
    weights[3], bias[3] = 0, 1e-14
    layers[2] = dataclasses.replace(layers[2], weights=weights, bias=bias)
    after = quantise(dataclasses.replace(network, layers=layers), inputs(4, 1), TINY).layers[2]
    assert after.scale[3] == 0 and not after.weights[3].any() and after.bias[3] == 1 << TINY.sum_width - 3
    assert after.weights.any((1, 2, 3)).sum() == 15
