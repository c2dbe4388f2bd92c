"""Correction by calibration: weights rounded together, and what is left in the mean of a channel taken off its bias.

Layer by layer, the calibration inputs go through the real network and through the integers corrected so far. What a
layer's integer weights meet there decides which of them are rounded down and which up (``rounding.py``).

Bias correction: rounded weights and rounded, clipped maps move the mean of a channel's sums. That error is the same
everywhere in the channel, so it adds up in the next layers, where random errors cancel. The mean difference of the sums
is taken off the bias. Sums that the clamp of the real network changes do not count: errors of most of them have no
effect.

A channel's mean over few inputs is uncertain, so it is shrunk: times ``max(0, 1 - v / mean ** 2)``, with ``v`` the
variance of the mean over inputs. One input alone corrects nothing. Channels whose integer weights are the real ones
(copies, networks that were quantised before) keep weights and bias.

Source: M. Nagel et al., "Data-Free Quantization Through Weight Equalization and Bias Correction", ICCV 2019, section
4.2 and appendix D (there all sums count); W. James, C. Stein, "Estimation with Quadratic Loss", 1961 (positive part);
W. Cochran, "Sampling Techniques", 1977, chapter 6 (variance of a ratio).
"""
from dataclasses import replace

import numpy as np
import torch
import torch.nn.functional as functional

from golden.network import QuantisedNetwork, gather
from golden.postprocess import value_limits
from hw.config import AcceleratorConfig

from .graph import Layer, Network, pool_float
from .rounding import round_weights

#: Relative error of real weights that integers of them may have: that of a multiplier of 16 bits.
EXACT = 2.0 ** -15
#: Windows of a layer, of all inputs together, that decide how its weights are rounded. With less than half as many as
#: a channel has weights they are rounded to nearest: most of what would count is unknown, and time grows with the
#: square of the weights.
WINDOWS = 4096


def correct(network: Network, quantised: QuantisedNetwork, calibration: list[np.ndarray],
            config: AcceleratorConfig) -> QuantisedNetwork:
    """``quantised`` with weights that are rounded together and the biases that give its sums the means of ``network``.

    Parameters
    ----------
    network : Network
    quantised : QuantisedNetwork
        The integers of ``network``.
    calibration : list of float arrays [C, H, W]
    config : AcceleratorConfig
        Its ``sum_width`` counts: a correction ends where a sum could wrap.
    """
    if len(calibration) < 2:
        return quantised
    real = [_Run(network, x) for x in calibration]
    integer = [_Run(network, quantised.quantise_input(x)) for x in calibration]
    layers = []
    for number, (layer, whole) in enumerate(zip(network.layers, quantised.layers, strict=True)):
        expected = [run.sums(layer, layer.weights, layer.bias) for run in real]
        unit = _unit(whole, quantised)
        exact, real_weights = _real_weights(layer, whole, quantised, unit)
        whole = _rounded(layer, whole, real_weights, integer)
        found = [run.sums(layer, whole.weights, whole.bias) for run in integer]
        limits = _limits(layer)
        error = _mean_error(found, expected, unit, *limits)
        error[exact | ~np.isfinite(error)] = 0
        bias = _bounded(whole, whole.bias - np.rint(error), config)
        layers.append(replace(whole, bias=bias))
        multiplier = _per_channel(whole.scale * 2.0 ** -whole.shift)
        change = _per_channel(bias - whole.bias)
        for run, sums in zip(real, expected, strict=True):
            run.write(number, sums.clamp_(*limits))
        for run, sums in zip(integer, found, strict=True):
            run.write(number, sums.add_(change).mul_(multiplier).round_().clamp_(whole.low, whole.high))
    return replace(quantised, layers=tuple(layers))


class _Run:
    """The maps of ``network`` for an input ``x``, float32 [C, H, W], each until its last reader has run."""

    def __init__(self, network: Network, x: np.ndarray):
        self._network, self._maps = network, {network.input_name: np.asarray(x, np.float32)}
        self._last = {part.map: number for number, layer in enumerate(network.layers) for part in layer.inputs}

    def sums(self, layer: Layer, weights: np.ndarray, bias: np.ndarray | None) -> torch.Tensor:
        """What ``layer`` computes with ``weights`` and ``bias``, before clamp and pool, float32 [1, O, H, W]."""
        top, left, bottom, right = layer.pad
        padded = functional.pad(torch.from_numpy(gather(self._maps, layer.inputs))[None], (left, right, top, bottom))
        bias = None if bias is None else torch.as_tensor(np.asarray(bias, np.float32))
        return functional.conv2d(padded, torch.as_tensor(np.asarray(weights, np.float32)), bias, stride=layer.stride)

    def windows(self, layer: Layer, count: int) -> torch.Tensor:
        """What the ``n`` weights of a channel of ``layer`` meet at ``count`` places, or all if fewer, [n, count]."""
        top, left, bottom, right = layer.pad
        padded = functional.pad(torch.from_numpy(gather(self._maps, layer.inputs)), (left, right, top, bottom))
        kernel = np.shape(layer.weights)[2:]
        windows = padded.unfold(1, kernel[0], layer.stride).unfold(2, kernel[1], layer.stride)
        rows, columns = windows.shape[1:3]
        chosen = torch.from_numpy(np.random.default_rng(0).permutation(rows * columns)[:count])
        return windows[:, chosen // columns, chosen % columns].permute(0, 2, 3, 1).flatten(0, 2)

    def write(self, number: int, full: torch.Tensor) -> None:
        """Pool and write what layer ``number`` has computed, and forget what no later layer reads."""
        layer = self._network.layers[number]
        last = pool_float(full, layer.pool, layer.pool_ceil) if layer.pool else full
        for target, values in zip(layer.targets, (full, last)[-len(layer.targets):], strict=True):
            shape = self._network.maps[target.map]
            self._maps.setdefault(target.map, np.zeros(shape, np.float32))
            self._maps[target.map][target.first:target.first + len(layer.weights)] = values[0].numpy()
        self._maps = {name: values for name, values in self._maps.items() if self._last.get(name, -1) > number}


def _per_channel(values):
    return torch.as_tensor(np.asarray(values, np.float32))[:, None, None]


def _limits(layer):
    """The bounds of the clamp of the real ``layer``."""
    low = 0.0 if layer.relu else layer.low
    return -np.inf if low is None else low, np.inf if layer.high is None else layer.high


def _unit(whole, quantised):
    """Real value of 1 in the sums of each output channel."""
    target = whole.targets[0]
    scale_out = quantised.scales[target.map][target.first:target.first + len(whole.weights)]
    return whole.scale * 2.0 ** -whole.shift * scale_out


def _mean_error(found, expected, unit, low, high):
    """For each channel the mean of ``found - expected / unit`` where ``expected`` lies between ``low`` and ``high``,
    over all inputs, shrunk by its uncertainty."""
    sums, counts = [], []
    for ours, theirs in zip(found, expected, strict=True):
        counted = (theirs > low) & (theirs < high)
        sums.append(((ours - theirs / _per_channel(unit)) * counted).sum((0, 2, 3), dtype=torch.float64))
        counts.append(counted.sum((0, 2, 3)))
    sums, counts = torch.stack(sums), torch.stack(counts)
    total = counts.sum(0).clamp(min=1)
    mean = sums.sum(0) / total
    variance = ((sums - mean * counts) ** 2).sum(0) / total ** 2 * len(sums) / (len(sums) - 1)
    return torch.where(mean != 0, mean * (1 - variance / mean ** 2).clamp(min=0), 0).numpy()


def _real_weights(layer, whole, quantised, unit):
    """For each output channel whether its integer weights are the real ones, or nothing can be said of them as all that
    the channel sums is too small for its multiplier; and the real weights in units of the integers."""
    scale_in = np.concatenate([quantised.scales[part.map][part.first:part.first + part.channels]
                               for part in layer.inputs])
    real = np.asarray(layer.weights, np.float64) * scale_in[:, None, None]
    real = real / np.where(unit, unit, 1)[:, None, None, None]
    exact = np.abs(whole.weights - real).max(axis=(1, 2, 3)) <= EXACT * np.abs(real).max(axis=(1, 2, 3))
    exact |= unit == 0
    return exact, np.where(exact[:, None, None, None], whole.weights, real)


def _rounded(layer, whole, real, runs):
    """``whole`` with weights that are rounded together where ``runs`` show enough windows; ``real`` in its units."""
    if np.array_equal(real, whole.weights):
        return whole
    channels, count = len(real), real[0].size
    observed = torch.cat([run.windows(layer, -(-WINDOWS // len(runs))) for run in runs], 1)
    if 2 * observed.shape[1] < count:
        return whole
    high = value_limits(whole.value_width, True)[1]
    weights = round_weights(whole.weights.reshape(channels, count), real.reshape(channels, count), observed, high)
    return replace(whole, weights=weights.reshape(whole.weights.shape))


def _bounded(whole, bias, config):
    """``bias`` within what keeps the worst-case sum from wrapping."""
    largest = max(map(abs, value_limits(whole.value_width, whole.signed_in)))
    room = (1 << config.sum_width - 1) - 1 - largest * np.abs(whole.weights).sum(axis=(1, 2, 3))
    return np.clip(bias, -room, room).astype(np.int64)
