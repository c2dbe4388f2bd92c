"""The golden layer against independent references: plain loops, exact fractions, PyTorch."""
import random
from dataclasses import replace
from fractions import Fraction

import numpy as np
import pytest
import torch

from golden import array
from golden.array import convolve, window_nonzeros
from golden.layer import NEVER, Prediction, run_layer
from golden.postprocess import max_pool, requantise, value_limits, wrap

from .random_layers import DENSITIES, random_layer, random_map


def plain_convolution(x, weights, stride, pad, size):
    """Sums and non-zero MACs, window by window in Python integers."""
    sums = np.zeros((len(weights), *size), object)
    nonzeros = np.zeros(size, int)
    for y, column in np.ndindex(*size):
        for channel, ky, kx in np.ndindex(*weights.shape[1:]):
            iy, ix = y * stride - pad[0] + ky, column * stride - pad[1] + kx
            if 0 <= iy < x.shape[1] and 0 <= ix < x.shape[2] and x[channel, iy, ix]:
                nonzeros[y, column] += 1
                sums[:, y, column] += weights[:, channel, ky, kx].astype(object) * int(x[channel, iy, ix])
    return sums, nonzeros


@pytest.mark.parametrize("seed", range(30))
def test_convolution_equals_plain_loops(seed):
    pick, rng = random.Random(seed), np.random.default_rng(seed)
    width, signed, density = pick.choice([8, 16]), pick.random() < 0.5, pick.choice(DENSITIES)
    x = random_map(rng, (pick.randint(1, 5), pick.randint(1, 8), pick.randint(1, 8)), width=width, signed=signed,
                   density=density)
    kernel, stride = (pick.randint(1, 7), pick.randint(1, 7)), pick.randint(1, 4)
    pad, size = (pick.randint(0, 9), pick.randint(0, 9)), (pick.randint(1, 7), pick.randint(1, 7))
    weights = random_map(rng, (3, x.shape[0], *kernel), width=width, signed=True, density=0.8)
    sums, nonzeros = plain_convolution(x, weights, stride, pad, size)
    assert (convolve(x, weights, stride=stride, pad=pad, size=size) == sums).all(), f"seed {seed}"
    assert (window_nonzeros(x, kernel, stride=stride, pad=pad, size=size) == nonzeros).all(), f"seed {seed}"


def test_convolution_in_parts_is_the_same(monkeypatch):
    rng = np.random.default_rng(1)
    x = random_map(rng, (9, 6, 6), width=16, signed=False, density=0.5)
    weights = random_map(rng, (4, 9, 3, 3), width=16, signed=True, density=1)
    whole = convolve(x, weights, stride=1, pad=(1, 1), size=(6, 6))
    monkeypatch.setattr(array, "MEMORY", 8 * 9 * 36 * 2)
    assert (convolve(x, weights, stride=1, pad=(1, 1), size=(6, 6)) == whole).all()
    monkeypatch.setattr(array, "MEMORY", 1 << 30)
    monkeypatch.setattr(array, "EXACT", 1 << 36)
    assert (convolve(x, weights, stride=1, pad=(1, 1), size=(6, 6)) == whole).all()
    monkeypatch.setattr(array, "EXACT", 1 << 20)
    with pytest.raises(ValueError, match="single channel"):
        convolve(x, weights, stride=1, pad=(1, 1), size=(6, 6))


@pytest.mark.parametrize(("width", "sum_width"), [(8, 32), (16, 48)])
@pytest.mark.parametrize("kind", ["unsigned", "signed", "within"])
def test_requantise_rounds_exactly(width, sum_width, kind):
    pick = random.Random(width)
    low, high = value_limits(width, kind != "unsigned") if kind != "within" else (-7, 55)
    seen = set()
    for shift in range(64):
        scale = [0, 1, 1 << 15, 65535, pick.randint(1, 65535)]
        edge = 1 << sum_width - 1
        totals = [-edge, edge - 1, -1, 0, 1] + [pick.randint(-edge, edge - 1) for _ in range(20)]
        # Around ties and the clamps, where a tie is possible.
        steps = (-3, -2, -1, 0, 1, 2, high - 1, high, low - 1)
        totals += [(2 * step + 1 << shift) // 2 // (1 << 15) for step in steps]
        totals = [total for total in totals if -edge <= total < edge]
        bias = [pick.randint(-(edge >> 1), edge >> 1) for _ in scale]
        sums = np.array([[[wrapped(total - b, sum_width) for total in totals]] for b in bias], np.int64)
        result = requantise(sums, np.array(bias), np.array(scale), np.full(len(scale), shift), low=low,
                            high=high, value_width=width)
        for channel, row in enumerate(result[:, 0]):
            expected = [min(max(round(Fraction(total * scale[channel], 2 ** shift)), low), high) for total in totals]
            assert row.tolist() == expected, f"scale {scale[channel]}, shift {shift}"
            seen |= set(expected)
    assert {low, high} < seen


def wrapped(value, width):
    return (value + (1 << width - 1)) % (1 << width) - (1 << width - 1)


def test_requantise_rounds_ties_to_even():
    sums = np.array([[[-6, -5, -3, -2, -1, 0, 1, 2, 3, 5, 6, 7]]]) * 2
    result = requantise(sums, [0], [1 << 15], [17], low=-128, high=127, value_width=8)
    assert result.tolist() == [[[-3, -2, -2, -1, 0, 0, 0, 1, 2, 2, 3, 4]]]


def test_sums_wrap():
    values = np.array([1 << 31, -(1 << 31) - 1, (1 << 40) + 5])
    assert wrap(values, 32).tolist() == [-(1 << 31), (1 << 31) - 1, 5]


@pytest.mark.parametrize("kernel", [2, 3])
@pytest.mark.parametrize("size", [(3, 3), (4, 4), (5, 8), (8, 5), (6, 7), (13, 12)])
def test_max_pool_equals_torch(kernel, size):
    values = np.random.default_rng(kernel).integers(-128, 128, (3, *size))
    expected = torch.nn.functional.max_pool2d(torch.from_numpy(values.astype(float)), kernel, 2, ceil_mode=True)
    assert (max_pool(values, kernel) == expected.numpy()).all()


@pytest.mark.parametrize("kernel", [2, 3])
def test_max_pool_of_a_map_below_the_kernel_is_one_value(kernel):
    assert max_pool(np.array([[[-5]], [[-7]]]), kernel).tolist() == [[[-5]], [[-7]]]
    assert max_pool(np.array([[[1, 9]]]), kernel).tolist() == [[[9]]]


@pytest.mark.parametrize("pool_ceil", [False, True])
@pytest.mark.parametrize("pool", [0, 2, 3])
@pytest.mark.parametrize("width", [8, 16])
def test_layer_equals_torch_and_fractions(width, pool, pool_ceil):
    rng = np.random.default_rng(pool)
    shape, pad = (5, 12, 15), (1, 0, 2, 3)
    layer = random_layer(rng, "layer", "input", shape, width=width, kernel=(3, 2), out_channels=6, stride=2, pad=pad,
                         relu=False, pool=pool, pool_ceil=pool_ceil)
    x = random_map(rng, shape, width=width, signed=False, density=0.5)
    padded = torch.nn.functional.pad(torch.from_numpy(x.astype(float)), (pad[1], pad[3], pad[0], pad[2]))
    sums = torch.nn.functional.conv2d(padded[None], torch.from_numpy(layer.weights.astype(float)), stride=2)[0].numpy()
    low, high = value_limits(width, True)
    full = np.array([[[min(max(round((int(total) + int(layer.bias[o])) * Fraction(int(layer.scale[o]),
                                                                                2 ** int(layer.shift[o]))), low), high)
                       for total in row] for row in plane] for o, plane in enumerate(sums)])
    result = run_layer(layer, x)
    assert layer.full_shape == result.full.shape
    assert (result.full == full[:, :result.full.shape[1], :result.full.shape[2]]).all()
    if pool:
        expected = torch.nn.functional.max_pool2d(torch.from_numpy(full.astype(float)), pool, 2, ceil_mode=pool_ceil)
        assert (result.pooled == expected.numpy()).all()
        assert layer.pooled_shape == result.pooled.shape
    else:
        assert result.pooled is None and result.full.shape == full.shape
    assert {low, high} <= set(result.full.reshape(-1).tolist()), "no value was clamped"
    assert result.macs == 6 * 5 * 3 * 2 * result.full.shape[1] * result.full.shape[2]
    assert result.nonzero_macs == 6 * result.nonzeros.sum()
    assert result.density_in == np.mean(x != 0) and result.density_out == np.mean(result.output != 0)


@pytest.mark.parametrize("signed_in", [False, True])
def test_sums_that_give_0_are_those_below_zero_below(signed_in):
    pick, highest = random.Random(7), (1 << 31) - 1
    scale = [0, 1, 1 << 15, 65535, *(pick.randint(1, 65535) for _ in range(60))]
    shift = [5, 63, 15, 0, *(pick.randint(0, 40) for _ in range(60))]
    rng = np.random.default_rng(7)
    layer = replace(random_layer(rng, "layer", "input", (2, 3, 3), width=8, kernel=(1, 1), out_channels=64,
                                 signed_in=signed_in), scale=np.array(scale), shift=np.array(shift))
    below = layer.zero_below
    largest = np.abs(layer.bias) + np.abs(layer.weights).sum((1, 2, 3)) * (128 if signed_in else 255)

    def outputs(totals):
        return requantise(totals[:, None, None], np.zeros(64, int), layer.scale, layer.shift, low=0, high=255,
                          value_width=8).ravel()
    capped = below == highest - largest
    assert not outputs(below - 1).any() and capped[0] and 0 < capped.sum() < 40
    assert (outputs(below)[~capped] > 0).all()
    assert (layer.starts[0] == layer.bias - below).all() and not layer.starts[1].any()
    assert (-largest - below >= -highest).all(), "no sum wraps"
    assert not replace(layer, low=-128, high=127).zero_below.any()
    wraps = replace(layer, bias=np.full(64, highest))
    assert not wraps.zero_below.any()
    thresholds = np.array([NEVER, *range(63)])
    predicting = replace(layer, prediction=Prediction(layer.weights, thresholds))
    assert predicting.starts[1].tolist() == [max(NEVER, threshold - least) for threshold, least in
                                             zip(thresholds.tolist(), below.tolist(), strict=True)]


def test_inputs_that_do_not_fit_are_refused():
    layer = random_layer(np.random.default_rng(0), "layer", "input", (1, 2, 2), width=8, kernel=(1, 1), out_channels=1)
    with pytest.raises(ValueError, match=r"layer is \(1, 2, 2\)"):
        run_layer(layer, np.zeros((1, 2, 3), int))
    with pytest.raises(ValueError, match="0 to 255"):
        run_layer(layer, np.full((1, 2, 2), -1))
