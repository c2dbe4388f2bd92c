"""Quantisation after training: real weights and calibration inputs to the integers of golden/README.md.

Weights are symmetric for each output channel, ``s_w = max|w| / (2**(A-1) - 1)``. A map has one scale, so that
``real = integer * scale``: 16-bit maps span ``HEADROOM`` times the largest calibrated value; 8-bit maps are clipped
where the squared error is least (:func:`clip_scale`). On random seven-layer networks that was 0.1 dB better at the
output than spanning the maximum or the 99.99th percentile; the 99.9th lost 3 to 6 dB. The multiplier of a channel is
``s_in * s_w / s_out``, written as ``scale / 2**shift`` with a scale of 16 bits.

Source: B. Jacob et al., CVPR 2018, section 2; golden/README.md, "Requantisation".
"""
import math

import numpy as np

from golden.layer import QuantisedLayer
from golden.network import QuantisedNetwork
from golden.postprocess import value_limits
from hw.config import SCALE_BITS, SHIFT_BITS, AcceleratorConfig

from .graph import Network

#: 16-bit maps span this many times the largest calibrated value: a bit is lost, other inputs do not saturate.
HEADROOM = 2
#: Clipping candidates as fractions of the largest value, and values of a map that are looked at.
CLIP_FRACTIONS = np.linspace(0.2, 1.0, 41)
CLIP_SAMPLES = 1 << 17
MAX_SHIFT = (1 << SHIFT_BITS) - 1


def quantise(network: Network, calibration: list, config: AcceleratorConfig, *,
             clip: bool | None = None) -> QuantisedNetwork:
    """The quantised ``network`` for ``config``.

    Parameters
    ----------
    network : Network
    calibration : list of float arrays [C, H, W]
        Typical inputs; they decide the scales. An input below 0 makes the input map signed.
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
    input_signed = bool(min(x.min() for x in calibration) < 0)
    scales = _map_scales(network, calibration, config.value_width, input_signed, clip)
    signed = {network.input_name: input_signed}
    layers = []
    for layer in network.layers:
        layers.append(_quantise_layer(layer, network.maps[layer.input], signed[layer.input], scales[layer.input],
                                      scales[layer.name], config))
        signed |= dict.fromkeys(layer.outputs, not layer.relu)
    return QuantisedNetwork(network.name, config.value_width, tuple(network.input_shape), input_signed, tuple(layers),
                            network.outputs, scales, network.input_name)


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


def _map_scales(network, calibration, width, input_signed, clip):
    """The scale of every map. Both maps of a layer share one, taken before pooling if that map is kept."""
    signed = {network.input_name: input_signed} | {layer.name: not layer.relu for layer in network.layers}
    samples = {name: [] for name in signed}
    for x in calibration:
        maps = network.run_float(x)
        for name in signed:
            full = f"{name}.full"
            samples[name].append(maps[full if full in maps else name].reshape(-1))
    scales = {}
    for name, parts in samples.items():
        values = np.concatenate(parts)
        largest = float(np.abs(values).max())
        high = value_limits(width, signed[name])[1]
        # The range of the input is known: nothing beyond it is to be expected, nothing in it should be clipped.
        computed = name != network.input_name
        if clip and computed:
            scales[name] = clip_scale(values, width, signed[name])
        else:
            scales[name] = (HEADROOM if computed and width == 16 else 1) * largest / high if largest else 1.0
    for layer in network.layers:
        scales |= dict.fromkeys(layer.outputs, scales[layer.name])
    return scales


def _quantise_layer(layer, in_shape, signed_in, scale_in, scale_out, config):
    high = value_limits(config.value_width, True)[1]
    weights = np.asarray(layer.weights, np.float64)
    real_bias = np.zeros(len(weights)) if layer.bias is None else np.asarray(layer.bias, np.float64)
    # A channel of tiny weights must still be able to hold its bias.
    room = 1 << config.sum_width - 3
    channel_scale = np.maximum(np.abs(weights).max(axis=(1, 2, 3)) / high, np.abs(real_bias) / scale_in / room)
    # What gives a multiplier of 1: any other is as good for a channel of zeros.
    channel_scale[channel_scale == 0] = scale_out / scale_in
    integer = np.clip(np.rint(weights / channel_scale[:, None, None, None]), -high, high).astype(np.int64)
    bias = np.rint(real_bias / (scale_in * channel_scale)).astype(np.int64)
    pairs = [_normalise_channel(layer.name, scale_in * scale / scale_out) for scale in channel_scale]
    scale, shift = (np.array(column, np.int64) for column in zip(*pairs, strict=True))
    result = QuantisedLayer(layer.name, layer.input, in_shape, integer, bias, scale, shift, layer.stride,
                            tuple(layer.pad), layer.relu, signed_in, layer.pool, layer.pool_ceil,
                            layer.keep_full and bool(layer.pool), config.value_width)
    check_sums(result, config)
    return result


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
