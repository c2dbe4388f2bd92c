"""Quantisation: the integers stay near the real network, scales are what they say, and wrapping is refused."""
import dataclasses

import numpy as np
import pytest

from compiler.graph import Layer, Network, Slice, Target
from compiler.quantise import check_sums, clip_scale, normalise, quantise
from golden.network import run_network
from hw.configs import CONFIGS

TINY, NULLHOP = CONFIGS["tiny"], CONFIGS["nullhop"]


def small_network(seed=0):
    rng = np.random.default_rng(seed)

    def make(name, source, shape, **more):
        scale = np.sqrt(2 / np.prod(shape[1:]))
        return Layer(name, [Slice(source, 0, shape[1])], rng.normal(size=shape) * scale,
                     rng.normal(size=shape[0]) * 0.1, **more)
    layers = [make("a", "input", (16, 3, 3, 3), pad=(1, 1, 1, 1), pool=2, pool_ceil=True,
                   full=Target("a.full")),
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


def mixed_network(seed=0):
    """Two branches of ranges 1 : 40 side by side in one map, read together; then a sum of a ReLU and a signed map."""
    rng = np.random.default_rng(seed)

    def make(name, inputs, channels, **more):
        shape = (channels, sum(part.channels for part in inputs), 1, 1)
        return Layer(name, inputs, rng.normal(size=shape) / np.sqrt(shape[1]), rng.normal(size=channels) * 0.1, **more)
    source = [Slice("input", 0, 16)]
    small = make("small", source, 16, output=Target("both"))
    large = make("large", source, 10, output=Target("both", 16))
    large.weights[...] *= 40
    joined = make("joined", [Slice("both", 0, 16), Slice("both", 16, 10)], 16, relu=False)
    joined.weights[:, :16] *= 40
    ramp = make("ramp", [Slice("both", 0, 26)], 16, high=0.3)
    ramp.weights[...] /= 20
    total = Layer("sum", [Slice("joined", 0, 16), Slice("ramp", 0, 16)],
                  np.concatenate([np.eye(16), 50 * np.eye(16)], axis=1)[..., None, None], output=Target("end"))
    rest = make("rest", [Slice("joined", 0, 16)], 7, output=Target("end", 16), relu=False)
    return Network("mixed", (16, 6, 5), [small, large, joined, ramp, total, rest])


@pytest.mark.parametrize(("config", "limit"), [(TINY, 25), (NULLHOP, 70)], ids=["8 bit", "16 bit"])
def test_maps_of_different_scales_are_joined_and_added(config, limit):
    network, rng = mixed_network(), np.random.default_rng(3)
    quantised = quantise(network, [rng.uniform(0, 1, (16, 6, 5)) for _ in range(8)], config)
    scales = quantised.scales
    assert len(set(scales["both"])) == 2 and scales["both"][16] > 10 * scales["both"][0]
    assert len(set(scales["end"])) == 1, "an output has one scale"
    # Read together with a map that has negative values, the ReLU's map is signed too.
    assert {name for name in network.maps if quantised.signed(name)} == {"joined", "ramp", "end"}
    layers = {layer.name: layer for layer in quantised.layers}
    half = 2 ** (config.value_width - 1)
    assert (layers["small"].low, layers["small"].high) == (0, 2 * half - 1)
    assert (layers["sum"].low, layers["sum"].high) == (0, half - 1)
    assert (layers["rest"].low, layers["rest"].high) == (-half, half - 1)
    assert (layers["ramp"].low, layers["ramp"].high) == (0, min(round(0.3 / scales["ramp"][0]), half - 1))
    x = rng.uniform(0, 1, (16, 6, 5))
    expected, maps = network.run_float(x), run_network(quantised, quantised.quantise_input(x))[0]
    for name in ("both", "joined", "ramp", "end"):
        for channels in (slice(0, 16), slice(16, None)):
            if expected[name][channels].size:
                ratio = noise_ratio(expected[name][channels], quantised.dequantise(name, maps[name])[channels])
                assert ratio > limit, f"map {name} {channels}: {ratio:.1f} dB"
    assert expected["ramp"].max() == np.float32(0.3)
    assert quantised.dequantise("ramp", maps["ramp"]).max() == pytest.approx(0.3, abs=scales["ramp"][0])


def test_channels_without_a_writer_have_no_scale_and_no_weights():
    layers = [Layer("a", [Slice("input", 0, 1)], np.ones((2, 1, 1, 1)), output=Target("m")),
              Layer("b", [Slice("input", 0, 1)], np.ones((2, 1, 1, 1)), output=Target("m", 16)),
              Layer("c", [Slice("m", 0, 18)], np.full((1, 18, 1, 1), 9.0) ** np.arange(18)[None, :, None, None])]
    quantised = quantise(Network("n", (1, 2, 2), layers), [np.ones((1, 2, 2))], TINY)
    assert (quantised.scales["m"] > 0).tolist() == [True] * 2 + [False] * 14 + [True] * 2
    weights = quantised.layers[2].weights[0, :, 0, 0]
    assert not weights[2:16].any() and weights[17] == 127


def test_given_scales_are_used():
    def network(first, second):
        return Network("n", (1, 2, 2), [
            Layer("a", [Slice("input", 0, 1)], np.ones((2, 1, 1, 1)), output=Target("m"), out_scale=first),
            Layer("b", [Slice("input", 0, 1)], 7 * np.ones((2, 1, 1, 1)), output=Target("m", 16), out_scale=second)])
    for first, second in ((0.25, None), (0.25, 0.25), (None, 0.25)):
        scales = quantise(network(first, second), [np.ones((1, 2, 2))], TINY).scales["m"]
        assert set(scales[[0, 1, 16, 17]]) == {0.25}
    with pytest.raises(ValueError, match="layers a and b must have one scale, but their scales differ: 0.25, 0.5"):
        quantise(network(0.25, 0.5), [np.ones((1, 2, 2))], TINY)


@pytest.mark.parametrize("config", [TINY, NULLHOP], ids=["8 bit", "16 bit"])
def test_channels_of_zeros_and_of_bias_alone(config):
    weights = np.ones((3, 1, 1, 1))
    weights[:2] = 0
    layer = Layer("a", [Slice("input", 0, 1)], weights, np.array([0.0, 0.5, 0.0]))
    quantised = quantise(Network("n", (1, 2, 2), [layer]), [np.ones((1, 2, 2))], config)
    values = quantised.dequantise("a", run_network(quantised, quantised.quantise_input(np.ones((1, 2, 2))))[0]["a"])
    np.testing.assert_allclose(values[:, 0, 0], [0, 0.5, 1], atol=0.01)


@pytest.mark.parametrize(("config", "limit"), [(TINY, 30), (NULLHOP, 70)], ids=["8 bit", "16 bit"])
def test_maps_that_are_always_zero_leave_the_others_their_bits(config, limit):
    def one(weight):
        return np.full((1, 1, 1, 1), weight)
    x = np.random.default_rng(0).uniform(0, 1e-3, (1, 8, 8))
    network = Network("n", (1, 8, 8), [
        Layer("live", [Slice("input", 0, 1)], one(1.0), output=Target("m")),
        Layer("dead", [Slice("input", 0, 1)], one(-1.0), output=Target("m", 16)),
        Layer("sum", [Slice("m", 0, 17)], np.ones((1, 17, 1, 1)))])
    quantised = quantise(network, [x], config)
    maps = run_network(quantised, quantised.quantise_input(x))[0]
    assert not maps["m"][16].any()
    assert noise_ratio(network.run_float(x)["sum"], quantised.dequantise("sum", maps["sum"])) > limit


def test_a_bias_far_above_the_weights_does_not_wrap():
    layer = Layer("a", [Slice("input", 0, 1)], np.full((1, 1, 1, 1), 1e-12), np.array([1000.0]))
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
