"""Quantisation after training: real weights and calibration inputs to the integers of golden/README.md.

What a layer writes has one scale, so that ``real = integer * scale``: 16-bit values span ``HEADROOM`` times the largest
calibrated one; 8-bit values are clipped where the squared error is least (:func:`clip_scale`). On random seven-layer
networks that was 0.1 dB better at the output than spanning the maximum or the 99.99th percentile; the 99.9th lost 3 to
6 dB. A map may have several writers and so several scales, one for each channel; an output of the network has one. What
calibration leaves at 0 has the smallest scale of the network.

The scales of the input channels are folded into the weights, ``v[o, c] = w[o, c] * s_in[c]``, which are symmetric for
each output channel, ``s_v = max|v| / (2**(A-1) - 1)``: maps of any scales can be read together. The multiplier of a
channel is ``s_v / s_out``, written as ``scale / 2**shift`` with a scale of 16 bits.

In 8-bit mode, calibration also decides which weights are rounded down and which up (``rounding.py``), and biases make
up for what the mean of each channel lost (``correction.py``).

A layer reads signed or unsigned values: if a writer of one of its maps can give values below 0, all of them are signed.

Source: B. Jacob et al., CVPR 2018, section 2; golden/README.md, "Requantisation".
"""
import math

import numpy as np

from golden.layer import QuantisedLayer
from golden.network import QuantisedNetwork, linked
from golden.postprocess import value_limits
from hw.config import SCALE_BITS, SHIFT_BITS, AcceleratorConfig

from .correction import correct
from .graph import Network

#: 16-bit maps span this many times the largest calibrated value: a bit is lost, other inputs do not saturate.
HEADROOM = 2
#: Clipping candidates as fractions of the largest value, and values of a map that are looked at.
CLIP_FRACTIONS = np.linspace(0.2, 1.0, 41)
CLIP_SAMPLES = 1 << 17
#: Relative error of float32 that a multiple may have.
GRID_ERROR = 1e-6
MAX_SHIFT = (1 << SHIFT_BITS) - 1


def quantise(network: Network, calibration: list, config: AcceleratorConfig, *,
             clip: bool | None = None) -> QuantisedNetwork:
    """The quantised ``network`` for ``config``.

    Parameters
    ----------
    network : Network
    calibration : list of float arrays [C, H, W]
        Typical inputs; they decide the scales that the network leaves open. An input below 0 makes the input map
        signed, unless the network says what it is.
    config : AcceleratorConfig
        Its ``value_width`` and ``sum_width`` count.
    clip : bool, optional
        Search for the clipping of least squared error; by default in 8-bit mode only.

    Raises
    ------
    ValueError
        No or non-finite calibration inputs; a layer whose worst-case sum could wrap.
    """
    calibration = [np.asarray(x, np.float32) for x in calibration]
    if not calibration:
        raise ValueError("quantisation needs at least one calibration input")
    for x in calibration:
        if x.shape != tuple(network.input_shape):
            raise ValueError(f"a calibration input has shape {x.shape}, the network takes {tuple(network.input_shape)}")
        if not np.isfinite(x).all():
            raise ValueError("a calibration input has values that are not finite")
    clip = config.value_width == 8 if clip is None else clip
    input_signed = network.input_signed
    if input_signed is None:
        input_signed = bool(min(x.min() for x in calibration) < 0)
    signed = _signed_maps(network, input_signed)
    out_scales, input_scale = _scales(network, calibration, config.value_width, signed, clip)
    scales = {name: np.zeros(shape[0]) for name, shape in network.maps.items()}
    scales[network.input_name][:] = input_scale
    layers = []
    for layer in network.layers:
        layers.append(_quantise_layer(layer, network, signed, scales, out_scales[layer.name], config))
        for target in layer.targets:
            scales[target.map][target.first:target.first + len(layer.weights)] = out_scales[layer.name]
    quantised = QuantisedNetwork(network.name, config.value_width, network.input_shape, signed[network.input_name],
                                 tuple(layers), network.outputs, scales, network.input_name)
    return correct(network, quantised, calibration, config) if config.value_width == 8 else quantised


def clip_scale(values: np.ndarray, width: int, signed: bool) -> float:
    """The scale whose quantisation of the real ``values`` has the least mean squared error, clipping included."""
    _, high = value_limits(width, signed)
    largest = float(np.abs(values).max(initial=0))
    # Zeros have no error.
    values = values[values != 0].astype(np.float64)
    if values.size == 0:
        return 1.0
    values = values[::max(1, values.size // CLIP_SAMPLES)]
    errors = []
    for fraction in CLIP_FRACTIONS:
        scale = largest * fraction / high
        errors.append(np.mean((np.clip(np.rint(values / scale), *value_limits(width, signed)) * scale - values) ** 2))
    return largest * CLIP_FRACTIONS[int(np.argmin(errors))] / high


def normalise(multiplier: float) -> tuple[int, int]:
    """``(scale, shift)`` of at most 16 and 6 bits with ``scale / 2**shift`` nearest to ``multiplier``."""
    if not 0 <= multiplier < 1 << SCALE_BITS:
        raise ValueError(f"a multiplier must be 0 to {(1 << SCALE_BITS) - 1}, not {multiplier}")
    if multiplier == 0:
        return 0, 0
    shift = min(max(SCALE_BITS - math.frexp(multiplier)[1], 0), MAX_SHIFT)
    scale = round(math.ldexp(multiplier, shift))
    if scale == 1 << SCALE_BITS:
        scale, shift = (scale >> 1, shift - 1) if shift else (scale - 1, 0)
    return scale, shift


def _signed_maps(network, input_signed):
    """Whether each map is signed: maps that a layer reads together are if one of them has a value below 0."""
    groups = linked(network.maps, [[part.map for part in layer.inputs] for layer in network.layers])
    negative = {target.map for layer in network.layers if not layer.relu for target in layer.targets}
    negative |= {network.input_name} if input_signed else set()
    return {name: not negative.isdisjoint(group) for name, group in groups.items()}


def _scales(network, calibration, width, signed, clip):
    """The scale of what each layer writes, taken before pooling if that is kept, and the scale of the input."""
    samples = {layer.name: [] for layer in network.layers}
    largest_input = 0.0
    for x in calibration:
        maps = network.run_float(x)
        largest_input = max(largest_input, float(np.abs(x).max()))
        for layer in network.layers:
            first = layer.targets[0].first
            if not np.isfinite(maps[layer.targets[0].map]).all():
                raise ValueError(f"layer {layer.name} gives values that are not finite (NaN or infinite) for a "
                                 f"calibration input")
            samples[layer.name].append(maps[layer.targets[0].map][first:first + len(layer.weights)].reshape(-1))
    # The range of the input is known: nothing beyond it is to be expected, nothing in it should be clipped.
    input_scale = network.input_scale or largest_input / value_limits(width, signed[network.input_name])[1] or 1.0
    groups = linked(samples, [*([layer.name for layer, _ in network.writers(name)] for name in network.outputs),
                              *([layer.name, *layer.same_scale] for layer in network.layers)])
    scales = {}
    for layer in network.layers:
        if layer.name not in scales:
            members = [other for other in network.layers if other.name in groups[layer.name]]
            values = np.concatenate([part for other in members for part in samples[other.name]])
            narrow = any(signed[target.map] for other in members for target in other.targets)
            scale = _given_scale(members) or (_scale(values, width, narrow, clip) if values.any() else None)
            scales |= dict.fromkeys(groups[layer.name], scale)
    # What calibration leaves at 0 may have any scale; with a large one, its weights in a layer that reads it beside
    # others would take the bits of theirs.
    least = min(filter(None, [input_scale, *scales.values()]))
    return {name: scale or least for name, scale in scales.items()}, input_scale


def _given_scale(layers):
    """The ``out_scale`` of layers that share a scale; None if none of them has one."""
    given = {layer.out_scale: layer.name for layer in layers if layer.out_scale is not None}
    if len(given) > 1:
        raise ValueError(f"layers {' and '.join(given.values())} must have one scale, but their scales "
                         f"differ: {', '.join(map(str, given))}")
    return next(iter(given), None)


def _scale(values, width, signed, clip):
    """The scale of ``values`` that a layer writes, not all of them 0."""
    if clip:
        return clip_scale(values, width, signed)
    return (HEADROOM if width == 16 else 1) * float(np.abs(values).max()) / value_limits(width, signed)[1]


def _quantise_layer(layer, network, signed, scales, scale_out, config):
    high = value_limits(config.value_width, True)[1]
    scale_in = np.concatenate([scales[part.map][part.first:part.first + part.channels] for part in layer.inputs])
    weights = np.asarray(layer.weights, np.float64) * scale_in[:, None, None]
    real_bias = np.zeros(len(weights)) if layer.bias is None else np.asarray(layer.bias, np.float64)
    # A channel of tiny weights must still be able to hold its bias.
    room = 1 << config.sum_width - 3
    channel_scale = np.maximum(np.abs(weights).max(axis=(1, 2, 3)) / high, np.abs(real_bias) / room)
    # What gives a multiplier of 1: any other is as good for a channel of zeros.
    channel_scale[channel_scale == 0] = scale_out
    for channel, (row, offset) in enumerate(zip(weights, real_bias, strict=True)):
        unit = _grid(row, offset, high)
        if unit and abs(offset) / unit <= room:
            channel_scale[channel] = unit
    integer = np.clip(np.rint(weights / channel_scale[:, None, None, None]), -high, high).astype(np.int64)
    bias = np.rint(real_bias / channel_scale).astype(np.int64)
    pairs = [_normalise_channel(layer.name, scale / scale_out) for scale in channel_scale]
    scale, shift = (np.array(column, np.int64) for column in zip(*pairs, strict=True))
    low, limit = value_limits(config.value_width, any(signed[target.map] for target in layer.targets))
    if layer.relu:
        low = 0
    elif layer.low is not None:
        low = max(low, round(layer.low / scale_out))
    if layer.high is not None:
        limit = min(limit, round(layer.high / scale_out))
    in_shape = (len(scale_in), *network.maps[layer.inputs[0].map][1:])
    result = QuantisedLayer(layer.name, layer.inputs, in_shape, integer, bias, scale, shift, low, limit, layer.output,
                            layer.stride, tuple(layer.pad), signed[layer.inputs[0].map], layer.pool, layer.pool_ceil,
                            layer.full, config.value_width)
    check_sums(result, config)
    return result


def _grid(weights, bias, high):
    """A number of which the real ``weights`` of a channel are multiples, of at most ``high``; None if there is none.

    So weights that were quantised before stay as they are, and those of sums and copies are exact. If ``bias`` can be a
    multiple too, it is; else the number is the smallest.
    """
    sizes = np.unique(np.abs(weights[weights != 0]))
    if sizes.size == 0:
        return None
    units = sizes[0] / np.arange(1, int(high * (1 + GRID_ERROR) * sizes[0] / sizes[-1]) + 1)
    # Few weights rule out most.
    for some in (sizes[:8], sizes):
        units = units[_are_whole(some[:, None] / units).all(0)]
    if units.size == 0:
        return None
    common = units[_are_whole(bias / units)]
    return common[0] if common.size else units[-1]


def _are_whole(numbers):
    return np.abs(numbers - np.rint(numbers)) <= GRID_ERROR * np.maximum(1, np.abs(numbers))


def _normalise_channel(name, multiplier):
    try:
        return normalise(multiplier)
    except ValueError as error:
        raise ValueError(f"layer {name} cannot be requantised: {error}") from None


def check_sums(layer: QuantisedLayer, config: AcceleratorConfig):
    """``ValueError`` if a sum of ``layer`` could wrap: ``max|in| * sum|w| + |bias| >= 2**(sum_width - 1)``."""
    largest = max(map(abs, value_limits(layer.value_width, layer.signed_in)))
    worst = largest * np.abs(layer.weights).sum(axis=(1, 2, 3)) + np.abs(layer.bias)
    channel = int(np.argmax(worst))
    if worst[channel] >= 1 << config.sum_width - 1:
        raise ValueError(f"layer {layer.name} could wrap: the sum of channel {channel} may reach {worst[channel]}, "
                         f"which does not fit {config.sum_width} bits")
