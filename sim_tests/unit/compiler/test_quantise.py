"""Quantisation: the integers stay near the real network, scales are what they say, and wrapping is refused."""
import dataclasses

import numpy as np
import pytest

from compiler.graph import Layer, Network
from compiler.quantise import check_sums, clip_scale, normalise, quantise
from golden.network import run_network
from hw.configs import CONFIGS

TINY, NULLHOP = CONFIGS["tiny"], CONFIGS["nullhop"]


def small_network(seed=0):
    rng = np.random.default_rng(seed)

    def make(name, source, shape, **more):
        scale = np.sqrt(2 / np.prod(shape[1:]))
        return Layer(name, source, rng.normal(size=shape) * scale, rng.normal(size=shape[0]) * 0.1, **more)
    layers = [make("a", "input", (16, 3, 3, 3), pad=(1, 1, 1, 1), pool=2, pool_ceil=True, keep_full=True),
              make("b", "a", (32, 16, 3, 3), pad=(1, 1, 1, 1)), make("c", "b", (24, 32, 3, 3), pool=3, pool_ceil=True),
              make("d", "c", (10, 24, 3, 3), relu=False), make("e", "a.full", (5, 16, 1, 1), relu=False)]
    return Network("network", (3, 16, 16), layers, outputs=("d", "e"))


def inputs(count, low, seed):
    rng = np.random.default_rng(seed)
    return [rng.uniform(low, 1, (3, 16, 16)).astype(np.float32) for _ in range(count)]


def noise_ratio(expected, values):
    """Signal to quantisation noise in dB."""
    return 10 * np.log10(np.mean(expected ** 2) / np.mean((values - expected) ** 2))


@pytest.mark.parametrize("low", [0, -1])
@pytest.mark.parametrize(("config", "limit"), [(TINY, 25), (NULLHOP, 70)], ids=["8 bit", "16 bit"])
def test_quantised_network_is_near_the_real_one(config, limit, low):
    network = small_network()
    quantised = quantise(network, inputs(8, low, seed=1), config)
    assert quantised.input_signed == (low < 0)
    for x in inputs(3, low, seed=2):
        expected = network.run_float(x)
        maps, _ = run_network(quantised, quantised.quantise_input(x))
        assert maps.keys() == expected.keys() == quantised.scales.keys()
        for name, values in maps.items():
            ratio = noise_ratio(expected[name], quantised.dequantise(name, values))
            assert ratio > limit, f"map {name}: {ratio:.1f} dB"
        assert maps["d"].min() < 0


def test_clipping_lowers_the_error_of_a_lone_outlier():
    values = np.abs(np.random.default_rng(0).normal(size=100_000))
    values[7] = 7
    clipped, whole = clip_scale(values, 8, False), values.max() / 255
    assert clipped < 0.9 * whole

    def error(scale):
        return np.mean((np.clip(np.rint(values / scale), 0, 255) * scale - values) ** 2)
    assert error(clipped) < error(whole)
    assert clip_scale(np.linspace(0, 1, 10_000), 8, False) == pytest.approx(1 / 255, rel=0.03)
    assert clip_scale(np.zeros(5), 8, False) == 1


@pytest.mark.parametrize("multiplier", [1e-6, 0.3, 0.5, 1.0, 0.99999999, 3.7, 65535.0, 2.0 ** -47, 2.0 ** -16])
def test_normalise_is_within_16_bits(multiplier):
    scale, shift = normalise(multiplier)
    assert 0 <= scale < 1 << 16 and 0 <= shift < 64
    assert scale / 2 ** shift == pytest.approx(multiplier, rel=2 ** -16)
    assert shift == 63 or shift == 0 or scale >= 1 << 15


def test_normalise_at_its_ends():
    assert normalise(0) == (0, 0)
    assert normalise(65535.9) == (65535, 0)
    assert normalise(2.0 ** -63) == (1, 63)
    with pytest.raises(ValueError, match="0 to 65535"):
        normalise(65536.0)


@pytest.mark.parametrize("config", [TINY, NULLHOP], ids=["8 bit", "16 bit"])
def test_channels_of_zeros_and_of_bias_alone(config):
    weights = np.ones((3, 1, 1, 1))
    weights[:2] = 0
    layer = Layer("a", "input", weights, np.array([0.0, 0.5, 0.0]))
    quantised = quantise(Network("n", (1, 2, 2), [layer]), [np.ones((1, 2, 2))], config)
    values = quantised.dequantise("a", run_network(quantised, quantised.quantise_input(np.ones((1, 2, 2))))[0]["a"])
    np.testing.assert_allclose(values[:, 0, 0], [0, 0.5, 1], atol=0.01)


def test_a_bias_far_above_the_weights_does_not_wrap():
    layer = Layer("a", "input", np.full((1, 1, 1, 1), 1e-12), np.array([1000.0]))
    quantised = quantise(Network("n", (1, 1, 1), [layer]), [np.ones((1, 1, 1))], TINY)
    values = run_network(quantised, quantised.quantise_input(np.ones((1, 1, 1))))[0]["a"]
    assert quantised.dequantise("a", values).item() == pytest.approx(1000, rel=0.01)


def test_sums_that_could_wrap_are_refused():
    quantised = quantise(small_network(), inputs(1, 0, seed=1), TINY)
    layer = quantised.layers[0]
    check_sums(layer, TINY)
    bias = np.array(layer.bias)
    worst = 255 * np.abs(layer.weights[3]).sum()
    bias[3] = (1 << 31) - 1 - worst
    check_sums(dataclasses.replace(layer, bias=bias), TINY)
    bias[3] += 1
    with pytest.raises(ValueError, match="layer a could wrap: the sum of channel 3"):
        check_sums(dataclasses.replace(layer, bias=bias), TINY)


def test_calibration_inputs_are_checked():
    network = small_network()
    for calibration, message in (([], "at least one"), ([np.zeros((3, 4, 4))], "has shape"),
                                 ([np.full((3, 16, 16), np.nan)], "not finite")):
        with pytest.raises(ValueError, match=message):
            quantise(network, calibration, TINY)
