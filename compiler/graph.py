"""A network in real numbers: the compiler's input.

A layer is a convolution with bias, optional ReLU and optional max-pool, reading one map. A fully connected layer is a
convolution whose kernel spans its input, or a 1x1 kernel on a 1x1 map.
"""
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as functional

from golden.layer import trimmed_size
from golden.tiling import pooled_length
from hw.descriptor import FIELD_BY_NAME

MAX_KERNEL = FIELD_BY_NAME["kernel_rows"].high
MAX_STRIDE = FIELD_BY_NAME["stride"].high
MAX_PAD = FIELD_BY_NAME["pad_top"].high
MAX_SIDE = FIELD_BY_NAME["in_height"].high
MAX_CHANNELS = FIELD_BY_NAME["in_channels"].high


@dataclass(frozen=True)
class Layer:
    """A convolution, its bias, ReLU and max-pool.

    Parameters
    ----------
    name : str
        Name of the layer, and of the map that it makes (after pooling).
    input : str
        Name of the map that it reads.
    weights : float array [O, I, kh, kw]
    bias : float array [O] or None
    stride : int
        1 to 4, both ways.
    pad : tuple
        (top, left, bottom, right) rows and columns of zeros, 0 to 15.
    relu : bool
    pool : int
        Max-pool kernel 2 or 3, stride 2; 0 for none.
    pool_ceil : bool
        Pool in ceil mode; else rows and columns that do not fill a window are left out.
    keep_full : bool
        The map before pooling is needed too; it is called ``name.full``.
    """
    name: str
    input: str
    weights: np.ndarray
    bias: np.ndarray | None = None
    stride: int = 1
    pad: tuple[int, int, int, int] = (0, 0, 0, 0)
    relu: bool = True
    pool: int = 0
    pool_ceil: bool = False
    keep_full: bool = False

    @property
    def outputs(self) -> tuple[str, ...]:
        """Names of the maps that the layer makes."""
        return (f"{self.name}.full", self.name) if self.pool and self.keep_full else (self.name,)

    def map_shapes(self, in_shape: tuple[int, int, int]) -> dict[str, tuple[int, int, int]]:
        """Shapes (C, H, W) of :attr:`outputs` for an input of ``in_shape``; ``ValueError`` if it does not fit."""
        _check_layer(self, in_shape)
        kernel = self.weights.shape[2:]
        size = trimmed_size(in_shape[1:], kernel, self.stride, self.pad, 0, True)
        trimmed = trimmed_size(in_shape[1:], kernel, self.stride, self.pad, self.pool, self.pool_ceil)
        if min(trimmed) < 1:
            raise ValueError(f"layer {self.name} has no output: its input of {in_shape[1]} x {in_shape[2]} is too "
                             f"small")
        if max(trimmed) > MAX_SIDE:
            raise ValueError(f"layer {self.name} has a side of {max(trimmed)}, the limit is {MAX_SIDE}")
        if self.pool == 3 and self.keep_full:
            raise ValueError(f"layer {self.name} keeps the map before a 3x3 pool, which only a 2x2 pool allows; pool "
                             f"it in a layer of its own (a 1x1 convolution with identity weights)")
        if self.pool and self.keep_full and trimmed != size:
            raise ValueError(f"layer {self.name} keeps the map before pooling, so that its pool must be in ceil mode "
                             f"or cover all of {size[0]} x {size[1]}")
        channels = self.weights.shape[0]
        if not self.pool:
            return {self.name: (channels, *trimmed)}
        pooled = (channels, *(pooled_length(length, self.pool) for length in trimmed))
        return dict(zip(self.outputs, ((channels, *trimmed), pooled)[-len(self.outputs):], strict=True))


@dataclass(frozen=True)
class Network:
    """Layers in the order in which they run. ``outputs`` (map names) defaults to the last layer's map.

    Raises
    ------
    ValueError
        One sentence that names the layer and what is wrong with it.
    """
    name: str
    input_shape: tuple[int, int, int]
    layers: tuple[Layer, ...]
    outputs: tuple[str, ...] = ()
    input_name: str = "input"

    def __post_init__(self):
        object.__setattr__(self, "layers", tuple(self.layers))
        if not self.layers:
            raise ValueError(f"network {self.name} has no layers")
        object.__setattr__(self, "outputs", tuple(self.outputs) or (self.layers[-1].name,))
        _check_shape("the input", self.input_shape)
        for output in self.outputs:
            if output not in self.maps:
                raise ValueError(f"network {self.name} has no map {output!r} to put out")

    @property
    def maps(self) -> dict[str, tuple[int, int, int]]:
        """Name and shape (C, H, W) of every map, the input first."""
        maps = {self.input_name: tuple(self.input_shape)}
        for layer in self.layers:
            if layer.input not in maps:
                raise ValueError(f"layer {layer.name} reads {layer.input!r}, which no earlier layer makes")
            for name, shape in layer.map_shapes(maps[layer.input]).items():
                if name in maps:
                    raise ValueError(f"layer {layer.name} makes a map {name!r} that exists already")
                maps[name] = shape
        return maps

    def run_float(self, x) -> dict[str, np.ndarray]:
        """All maps in float32 for an input ``x[C, H, W]``."""
        maps = {self.input_name: torch.as_tensor(np.asarray(x, np.float32))}
        for layer in self.layers:
            top, left, bottom, right = layer.pad
            weights = torch.as_tensor(np.asarray(layer.weights, np.float32))
            bias = None if layer.bias is None else torch.as_tensor(np.asarray(layer.bias, np.float32))
            padded = functional.pad(maps[layer.input][None], (left, right, top, bottom))
            full = functional.conv2d(padded, weights, bias, stride=layer.stride)
            full = functional.relu(full) if layer.relu else full
            if layer.pool:
                maps[layer.name] = _pool_float(full, layer.pool, layer.pool_ceil)[0]
            maps[layer.outputs[0]] = maps[layer.name] if layer.pool and not layer.keep_full else full[0]
        return {name: values.numpy() for name, values in maps.items()}


def _pool_float(full, kernel, ceil_mode):
    """Max-pool; in ceil mode a side shorter than the kernel gives one output, which PyTorch refuses."""
    if ceil_mode:
        height, width = full.shape[2:]
        rows, columns = pooled_length(height, kernel), pooled_length(width, kernel)
        full = functional.pad(full, (0, 2 * columns + kernel - 2 - width, 0, 2 * rows + kernel - 2 - height),
                              value=-torch.inf)
    return functional.max_pool2d(full, kernel, 2)


def _check_shape(what, shape):
    if len(shape) != 3 or min(shape) < 1:
        raise ValueError(f"{what} must have a shape (C, H, W) of positive sizes, not {tuple(shape)}")
    if shape[0] > MAX_CHANNELS or max(shape[1:]) > MAX_SIDE:
        raise ValueError(f"{what} of {tuple(shape)} exceeds {MAX_CHANNELS} channels or a side of {MAX_SIDE}")


def _check_layer(layer, in_shape):
    name, shape = layer.name, np.shape(layer.weights)
    if len(shape) != 4 or 0 in shape:
        raise ValueError(f"layer {name} must have weights [O, I, kh, kw], none of them empty, not {shape}")
    if max(shape[2:]) > MAX_KERNEL:
        raise ValueError(f"layer {name} has a kernel of {shape[2]} x {shape[3]}, the limit is {MAX_KERNEL}")
    if shape[1] != in_shape[0]:
        grouped = " (groups are not supported)" if in_shape[0] % shape[1] == 0 else ""
        raise ValueError(f"layer {name} has weights for {shape[1]} channels, but its input has {in_shape[0]}{grouped}")
    if shape[0] > MAX_CHANNELS:
        raise ValueError(f"layer {name} has {shape[0]} output channels, the limit is {MAX_CHANNELS}")
    if not 1 <= layer.stride <= MAX_STRIDE:
        raise ValueError(f"layer {name} has stride {layer.stride}, which must be 1 to {MAX_STRIDE}")
    if len(layer.pad) != 4 or not all(0 <= pad <= MAX_PAD for pad in layer.pad):
        raise ValueError(f"layer {name} has padding {layer.pad}, which must be four numbers of 0 to {MAX_PAD}")
    if layer.pool not in (0, 2, 3):
        raise ValueError(f"layer {name} has a pool of {layer.pool}, which must be 0, 2 or 3")
    if layer.bias is not None and np.shape(layer.bias) != shape[:1]:
        raise ValueError(f"layer {name} has {shape[0]} output channels, but a bias of shape {np.shape(layer.bias)}")
    if not np.isfinite(layer.weights).all() or layer.bias is not None and not np.isfinite(layer.bias).all():
        raise ValueError(f"layer {name} has weights or biases that are not finite")
