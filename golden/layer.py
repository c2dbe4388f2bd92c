"""One quantised layer: convolution, requantisation, max-pool.

Source: golden/README.md (normative).
"""
from dataclasses import dataclass

import numpy as np

from . import array, postprocess
from .tiling import Geometry, pooled_length

#: A threshold that no sum is below.
NEVER = -1 << 31
#: Turns are fractions of it.
TURNS = 1 << 16


@dataclass(frozen=True)
class Slice:
    """Channels ``first .. first + channels - 1`` of map ``map``: what a layer reads, or a part of it."""
    map: str
    first: int
    channels: int


@dataclass(frozen=True)
class Target:
    """Map ``map`` from channel ``first`` on: where a layer writes its channels."""
    map: str
    first: int = 0


@dataclass(frozen=True)
class Prediction:
    """Which outputs of a layer are predicted to be 0: those whose sum over ``weights`` alone, bias included, is below
    the threshold of their channel.

    Parameters
    ----------
    weights : int array [O, C, kh, kw]
        Each lies between 0 and the layer's weight: 0 or the weight itself (a speculation set), or its high bits.
    thresholds : int array [O]
        32 bits, signed; :data:`NEVER` where nothing is predicted.
    """
    weights: np.ndarray
    thresholds: np.ndarray


@dataclass(frozen=True)
class QuantisedLayer:
    """A layer in the integers that the hardware works with.

    Parameters
    ----------
    name : str
    inputs : tuple of Slice
        Channels that it reads, one slice after the other.
    in_shape : tuple
        (C, H, W) of all inputs together.
    weights : int array [O, C, kh, kw]
    bias, scale, shift : int arrays [O]
    low, high : int
        Outputs are clamped to ``low .. high``, which hold 0.
    output : Target
        Where the outputs (after pooling) go.
    stride : int
    pad : tuple
        (top, left, bottom, right).
    signed_in : bool
        The inputs are signed.
    pool : int
        Max-pool kernel 2 or 3 (stride 2), 0 for none.
    pool_ceil : bool
        Ceil mode; else the map is trimmed to the windows that pooling looks at.
    full : Target or None
        Where the map before pooling goes too.
    value_width : int
    prediction : Prediction or None
        Only with ``low`` 0. Configurations with the intersect array alone can run it.
    turns : uint16 array [O, C, kh, kw], optional
        When each weight below 0 has its turn in exact mode, as a fraction of :data:`TURNS` (golden/README.md): outputs
        do not depend on it. ``None``: as the compiler has it without a calibration input.

    Raises
    ------
    ValueError
        A prediction that is not one of this layer.
    """
    name: str
    inputs: tuple[Slice, ...]
    in_shape: tuple[int, int, int]
    weights: np.ndarray
    bias: np.ndarray
    scale: np.ndarray
    shift: np.ndarray
    low: int
    high: int
    output: Target
    stride: int = 1
    pad: tuple[int, int, int, int] = (0, 0, 0, 0)
    signed_in: bool = False
    pool: int = 0
    pool_ceil: bool = True
    full: Target | None = None
    value_width: int = 8
    prediction: Prediction | None = None
    turns: np.ndarray | None = None

    def __post_init__(self):
        if self.prediction is not None:
            _check_prediction(self)

    @property
    def full_shape(self) -> tuple[int, int, int]:
        """(O, H, W) before pooling."""
        return (self.weights.shape[0], *trimmed_size(self.in_shape[1:], self.weights.shape[2:], self.stride, self.pad,
                                                     self.pool, self.pool_ceil))

    @property
    def pooled_shape(self) -> tuple[int, int, int] | None:
        if not self.pool:
            return None
        channels, height, width = self.full_shape
        return channels, pooled_length(height, self.pool), pooled_length(width, self.pool)

    @property
    def write_full(self) -> bool:
        return not self.pool or self.full is not None

    @property
    def targets(self) -> tuple[Target, ...]:
        """Where the layer writes: ``full``, if there is one, then ``output``."""
        return (self.full, self.output) if self.full else (self.output,)

    @property
    def zero_below(self) -> np.ndarray:
        """int64 [O]: a sum, bias included, below it gives an output of 0 (it is at most half a step of the output);
        0 where outputs may be below 0. No sum wraps if it is subtracted."""
        if self.low:
            return np.zeros(len(self.bias), np.int64)
        scale, shift = (np.asarray(values, np.int64) for values in (self.scale, self.shift))
        limits = postprocess.value_limits(self.value_width, self.signed_in)
        largest = (np.abs(self.bias) + np.abs(self.weights).sum((1, 2, 3), np.int64) * max(map(abs, limits)))
        room = (1 << postprocess.SUM_WIDTHS[self.value_width] - 1) - 1 - largest
        # Half a step rounds to 0; a channel without scale has no output above 0.
        half = np.where(shift, 1 << np.maximum(shift - 1, 0), 0)
        return np.clip(np.where(scale, half // np.maximum(scale, 1) + 1, room), 0, np.maximum(room, 0))

    @property
    def starts(self) -> tuple[np.ndarray, np.ndarray]:
        """int64 [O], [O]: what the intersect array begins a sum with, and the thresholds of the prediction (0 without
        one): bias and thresholds less :attr:`zero_below`, so that a sum below 0 gives 0."""
        below, thresholds = self.zero_below, np.zeros(len(self.bias), np.int64)
        if self.prediction is not None:
            thresholds = np.maximum(self.prediction.thresholds - below, NEVER)
        return self.bias - below, thresholds

    def written(self, in_size: tuple[int, int]) -> dict[Target, tuple[int, int, int]]:
        """Shape (O, H, W) of what goes to each of :attr:`targets`; ``ValueError`` if inputs of ``in_size`` (H, W) are
        not those that the layer is made for."""
        if tuple(in_size) != tuple(self.in_shape[1:]):
            raise ValueError(f"layer {self.name} is made for inputs of {self.in_shape[1:]}, not {tuple(in_size)}")
        full = {self.full: self.full_shape} if self.full else {}
        return full | {self.output: self.pooled_shape or self.full_shape}

    def geometry(self, dense_shift: int | None = None) -> Geometry:
        """Sizes for the tiling; ``dense_shift`` if the input is a dense map."""
        (channels, height, width), (_, out_height, out_width) = self.in_shape, self.full_shape
        out_channels, _, kernel_rows, kernel_columns = self.weights.shape
        return Geometry(height, width, channels, kernel_rows, kernel_columns, self.stride, *self.pad[:2], out_height,
                        out_width, out_channels, self.pool, self.write_full, dense_shift)


@dataclass(frozen=True)
class LayerResult:
    """Output maps and work of a layer.

    ``full`` [O, H, W] before pooling, ``pooled`` or None. ``macs``: of all taps inside and outside of the map;
    ``nonzero_macs``: of non-zero inputs only. ``nonzeros`` [H, W]: non-zero inputs under each window. Densities are
    fractions of non-zero values, ``density_out`` of the last map. ``predicted``: outputs that are predicted to be 0;
    ``missed``: those of them that are above 0 without the prediction (false negatives).
    """
    full: np.ndarray
    pooled: np.ndarray | None
    macs: int
    nonzero_macs: int
    nonzeros: np.ndarray
    density_in: float
    density_out: float
    predicted: int = 0
    missed: int = 0

    @property
    def output(self) -> np.ndarray:
        return self.full if self.pooled is None else self.pooled


def trimmed_size(in_size, kernel, stride, pad, pool, pool_ceil) -> tuple[int, int]:
    """Rows and columns of windows; without ``pool_ceil`` those that pooling does not look at are left out."""
    size = []
    for length, taps, before, after in zip(in_size, kernel, pad[:2], pad[2:], strict=True):
        count = (length + before + after - taps) // stride + 1
        if pool and not pool_ceil:
            count = 2 * ((count - pool) // 2) + pool
        size.append(count)
    return size[0], size[1]


def run_layer(layer: QuantisedLayer, x: np.ndarray) -> LayerResult:
    """The outputs of ``layer`` for the input ``x[C, H, W]``, bit for bit those of the hardware."""
    x = np.asarray(x)
    low, high = postprocess.value_limits(layer.value_width, layer.signed_in)
    if x.shape != layer.in_shape:
        raise ValueError(f"the input of {layer.name} is {layer.in_shape}, not {x.shape}")
    if x.min() < low or x.max() > high:
        raise ValueError(f"the input of {layer.name} must be {low} to {high}, not {x.min()} to {x.max()}")
    size, kernel = layer.full_shape[1:], layer.weights.shape[2:]
    sums = array.convolve(x, layer.weights, stride=layer.stride, pad=layer.pad, size=size)
    predicted = predict(layer, x)
    nonzeros = array.window_nonzeros(x, kernel, stride=layer.stride, pad=layer.pad, size=size)
    full = postprocess.requantise(sums, layer.bias, layer.scale, layer.shift, low=layer.low,
                                  high=layer.high, value_width=layer.value_width)
    missed = np.count_nonzero(full[predicted])
    full[predicted] = 0
    pooled = postprocess.max_pool(full, layer.pool) if layer.pool else None
    output = full if pooled is None else pooled
    return LayerResult(full, pooled, layer.weights.size * size[0] * size[1],
                       int(nonzeros.sum()) * layer.weights.shape[0], nonzeros,
                       np.count_nonzero(x) / x.size, np.count_nonzero(output) / output.size,
                       int(predicted.sum()), missed)


def predict(layer: QuantisedLayer, x: np.ndarray) -> np.ndarray:
    """Which outputs ``[O, H, W]`` (bool) of ``layer`` are predicted to be 0 for the input ``x[C, H, W]``."""
    if layer.prediction is None:
        return np.zeros(layer.full_shape, bool)
    sums = array.convolve(x, layer.prediction.weights, stride=layer.stride, pad=layer.pad, size=layer.full_shape[1:])
    return sums + layer.bias[:, None, None] < layer.prediction.thresholds[:, None, None]


def _check_prediction(layer):
    prediction, weights = layer.prediction, layer.weights
    if layer.low != 0:
        raise ValueError(f"layer {layer.name} has outputs below 0: none of them can be predicted to be 0")
    if prediction.weights.shape != weights.shape or prediction.thresholds.shape != (len(weights),):
        raise ValueError(f"layer {layer.name} has weights {weights.shape}, but a prediction with weights "
                         f"{prediction.weights.shape} and thresholds {prediction.thresholds.shape}")
    if (np.sign(prediction.weights) * np.sign(weights) < 0).any() or (
            np.abs(prediction.weights) > np.abs(weights)).any():
        raise ValueError(f"layer {layer.name} has a prediction whose weights do not lie between 0 and its own")
    if prediction.thresholds.min() < NEVER or prediction.thresholds.max() > -1 - NEVER:
        raise ValueError(f"layer {layer.name} has a threshold that does not fit 32 bits")
