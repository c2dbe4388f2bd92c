"""Random integer layers and maps for tests."""
from dataclasses import replace

import numpy as np

from golden.layer import NEVER, Prediction, QuantisedLayer, Slice, Target
from golden.network import QuantisedNetwork
from golden.postprocess import value_limits

DENSITIES = (0.0, 1 / 64, 0.1, 0.5, 1.0)


def random_map(rng, shape, *, width, signed, density):
    """Integers of ``width`` bits, ``density`` of them not 0; small ones and both limits are among them."""
    low, high = value_limits(width, signed)
    values = rng.integers(low, high, shape, endpoint=True)
    values = np.where(rng.random(shape) < 0.1, rng.choice([low, high], shape), values)
    values[values == 0] = 1
    return values * (rng.random(shape) < density)


def random_layer(rng, name, source, in_shape, *, width, kernel, out_channels, stride=1, pad=(0, 0, 0, 0), relu=True,
                 signed_in=False, pool=0, pool_ceil=True, keep_full=False, limits=None, output=None):
    """A layer whose outputs spread over their range: some are clamped, at both ends.

    ``source`` is a map that is read whole, or slices. ``limits``: (low, high) of the clamp, else those of ``relu``.
    With ``keep_full`` the map before pooling is ``name.full``.
    """
    limit = value_limits(width, True)[1]
    inputs = (Slice(source, 0, in_shape[0]),) if isinstance(source, str) else tuple(source)
    shape = (out_channels, in_shape[0], *kernel)
    weights = rng.integers(-limit, limit, shape, endpoint=True) * (rng.random(shape) < 0.8)
    spread = float(limit) ** 2 * np.sqrt(np.prod(shape[1:]))
    bias = rng.integers(-int(spread), int(spread), out_channels, endpoint=True)
    scale = rng.integers(1 << 15, 1 << 16, out_channels)
    shift = np.full(out_channels, int(np.log2(spread / limit)) + 16)
    shift += rng.integers(-2, 1, out_channels)
    low, high = limits or value_limits(width, not relu)
    full = Target(f"{name}.full") if keep_full and pool else None
    return QuantisedLayer(name, inputs, in_shape, weights, bias, scale, shift, low, high, output or Target(name),
                          stride, pad, signed_in, pool, pool_ceil, full, width)


def with_prediction(rng, layer):
    """``layer`` with a random prediction: some of its weights, or their high bits; no, some or all outputs of a channel
    are predicted to be 0."""
    weights, lanes = layer.weights, len(layer.weights)
    if rng.random() < 0.5:
        first = weights * (rng.random(weights.shape) < rng.choice([0, 0.1, 0.5, 1]))
    else:
        bits = rng.integers(1, 7)
        first = np.sign(weights) * (np.abs(weights) >> bits << bits)
    spread = np.abs(weights).max(initial=1) ** 2 * np.sqrt(np.count_nonzero(first) / lanes + 1)
    thresholds = np.rint(layer.bias + spread * rng.normal(0, 1, lanes)).astype(np.int64)
    extreme = rng.choice([NEVER, -1 - NEVER], lanes, p=[0.7, 0.3])
    return replace(layer, prediction=Prediction(first, np.where(rng.random(lanes) < 0.3, extreme, thresholds)))


def with_scales(network, scales):
    """``network`` with the real ``scales`` of its maps: one for all, or one for each name."""
    return replace(network, scales={name: np.full(shape[0], scales[name] if isinstance(scales, dict) else scales)
                                    for name, shape in network.maps.items()})


def single(layer, name="single"):
    """A network of one layer."""
    return QuantisedNetwork(name, layer.value_width, layer.in_shape, layer.signed_in, (layer,), (layer.output.map,),
                            input_name=layer.inputs[0].map)
