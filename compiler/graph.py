"""A network in real numbers: the compiler's input.

A layer is a convolution with bias, a clamp (ReLU, ReLU6) and optional max-pool. It reads channels of one or more maps
and writes all its channels side by side into a map, in which other layers may write other channels: concatenation needs
no layer. A sum of maps is a 1x1 convolution that reads a block of each; a fully connected layer is a convolution whose
kernel spans its input, or a 1x1 kernel on a 1x1 map.

What a network needs to run on a configuration besides (``first`` a multiple of ``config.block``, blocks at one distance
from each other) is checked where blocks are known: ``compiler.emit``.
"""
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
import torch.nn.functional as functional

from golden.layer import Slice, Target, trimmed_size
from golden.network import gather, map_shapes
from golden.tiling import pooled_length
from hw.descriptor import FIELD_BY_NAME

__all__ = ["MAX_CHANNELS", "MAX_KERNEL", "MAX_PAD", "MAX_SIDE", "MAX_STRIDE", "Layer", "Network", "Slice", "Target"]

MAX_KERNEL = FIELD_BY_NAME["kernel_rows"].high
MAX_STRIDE = FIELD_BY_NAME["stride"].high
MAX_PAD = FIELD_BY_NAME["pad_top"].high
MAX_SIDE = FIELD_BY_NAME["in_height"].high
MAX_CHANNELS = FIELD_BY_NAME["in_channels"].high


@dataclass(frozen=True)
class Layer:
    """A convolution, its bias, clamp and max-pool.

    Parameters
    ----------
    name : str
        Name of the layer; no two layers share one.
    inputs : tuple of Slice
        Channels that it reads, one slice after the other; all from maps of one height and width.
    weights : float array [O, I, kh, kw]
        ``I`` counts the channels of all ``inputs``.
    bias : float array [O] or None
    output : Target or None
        Map and first channel that it writes (after pooling): channels ``first .. first + O - 1``. None: a map of its
        own, which has its name.
    stride : int
        1 to 4, both ways.
    pad : tuple
        (top, left, bottom, right) rows and columns of zeros, 0 to 15.
    relu : bool
        Values below 0 become 0.
    high : float or None
        Values above it become ``high`` (6 for ReLU6), above 0; None: no bound.
    pool : int
        Max-pool kernel 2 or 3, stride 2; 0 for none.
    pool_ceil : bool
        Pool in ceil mode; else rows and columns that do not fill a window are left out.
    full : Target or None
        Where the map before pooling goes, if that is needed too; only with ``pool`` 2.
    out_scale : float or None
        Real value of the integer 1 in what it writes, above 0; None: calibration decides.
    same_scale : tuple of str
        Names of layers whose scale is that of this layer too: equal values are equal integers then.
    low : float or None
        Values below it become ``low``, below 0; None: no bound, or that of ``relu``.
    """
    name: str
    inputs: tuple[Slice, ...]
    weights: np.ndarray
    bias: np.ndarray | None = None
    output: Target | None = None
    stride: int = 1
    pad: tuple[int, int, int, int] = (0, 0, 0, 0)
    relu: bool = True
    high: float | None = None
    pool: int = 0
    pool_ceil: bool = False
    full: Target | None = None
    out_scale: float | None = None
    same_scale: tuple[str, ...] = ()
    low: float | None = None

    def __post_init__(self):
        object.__setattr__(self, "inputs", tuple(self.inputs))
        if self.output is None:
            object.__setattr__(self, "output", Target(self.name))

    @property
    def targets(self) -> tuple[Target, ...]:
        """Where the layer writes: ``full``, if there is one, then ``output``."""
        return (self.full, self.output) if self.full else (self.output,)

    def written(self, in_size: tuple[int, int]) -> dict[Target, tuple[int, int, int]]:
        """Shape (O, H, W) of what goes to each of :attr:`targets`, for inputs of ``in_size`` (H, W); ``ValueError`` if
        the layer cannot run."""
        _check_layer(self)
        kernel = self.weights.shape[2:]
        size = trimmed_size(in_size, kernel, self.stride, self.pad, 0, True)
        trimmed = trimmed_size(in_size, kernel, self.stride, self.pad, self.pool, self.pool_ceil)
        if min(trimmed) < 1:
            raise ValueError(f"layer {self.name} has no output: its input of {in_size[0]} x {in_size[1]} is too small")
        if max(trimmed) > MAX_SIDE:
            raise ValueError(f"layer {self.name} has a side of {max(trimmed)}, the limit is {MAX_SIDE}")
        if self.full and trimmed != size:
            raise ValueError(f"layer {self.name} keeps the map before pooling, so that its pool must be in ceil mode "
                             f"or cover all of {size[0]} x {size[1]}")
        channels = self.weights.shape[0]
        full = (channels, *trimmed)
        if not self.pool:
            return {self.output: full}
        pooled = (channels, *(pooled_length(length, self.pool) for length in trimmed))
        return {self.full: full, self.output: pooled} if self.full else {self.output: pooled}


@dataclass(frozen=True)
class Network:
    """Layers in the order in which they run.

    A layer may read what earlier layers have written; channels of a map that no layer writes are 0.

    Parameters
    ----------
    name : str
    input_shape : tuple
        (C, H, W) of the map ``input_name``, which the user fills.
    layers : tuple of Layer
    outputs : tuple of str
        Maps that the user wants; the map of the last layer unless told.
    input_name : str
    input_scale : float or None
        Real value of the integer 1 in the input; None: calibration decides.
    input_signed : bool or None
        Whether the integers of the input are signed; None: calibration decides.

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
    input_scale: float | None = None
    input_signed: bool | None = None

    def __post_init__(self):
        object.__setattr__(self, "layers", tuple(self.layers))
        object.__setattr__(self, "input_shape", tuple(self.input_shape))
        if not self.layers:
            raise ValueError(f"network {self.name} has no layers")
        object.__setattr__(self, "outputs", tuple(self.outputs) or (self.layers[-1].output.map,))
        _check_shape("the input", self.input_shape)
        names = set()
        for layer in self.layers:
            if layer.name in names:
                raise ValueError(f"network {self.name} has two layers {layer.name!r}; give each its own name")
            names.add(layer.name)
        for output in self.outputs:
            if output not in self.maps:
                raise ValueError(f"network {self.name} has no map {output!r} to put out")
        for name, shape in self.maps.items():
            _check_shape(f"map {name}", shape)

    @cached_property
    def maps(self) -> dict[str, tuple[int, int, int]]:
        """Name and shape (C, H, W) of every map, the input first. A map has as many channels as its writers fill."""
        return map_shapes(self.input_name, self.input_shape, self.layers)

    def writers(self, name: str) -> list[tuple[Layer, Target]]:
        """The layers that write map ``name``, each with its target in it, in the order in which they run."""
        return [(layer, target) for layer in self.layers for target in layer.targets if target.map == name]

    def run_float(self, x) -> dict[str, np.ndarray]:
        """All maps in float32 for an input ``x[C, H, W]``."""
        maps = {name: np.zeros(shape, np.float32) for name, shape in self.maps.items()}
        maps[self.input_name][...] = x
        for layer in self.layers:
            top, left, bottom, right = layer.pad
            weights = torch.as_tensor(np.asarray(layer.weights, np.float32))
            bias = None if layer.bias is None else torch.as_tensor(np.asarray(layer.bias, np.float32))
            padded = functional.pad(torch.from_numpy(gather(maps, layer.inputs))[None], (left, right, top, bottom))
            full = functional.conv2d(padded, weights, bias, stride=layer.stride)
            full = full.clamp(0 if layer.relu else layer.low, torch.inf if layer.high is None else layer.high)
            last = pool_float(full, layer.pool, layer.pool_ceil) if layer.pool else full
            for target, values in zip(layer.targets, (full, last)[-len(layer.targets):], strict=True):
                maps[target.map][target.first:target.first + len(weights)] = values[0].numpy()
        return maps


def pool_float(full, kernel, ceil_mode):
    """Max-pool of ``full`` [1, C, H, W], stride 2; in ceil mode a side shorter than the kernel gives one output, which
    PyTorch refuses."""
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


def _check_layer(layer):
    name, shape = layer.name, np.shape(layer.weights)
    if len(shape) != 4 or 0 in shape:
        raise ValueError(f"layer {name} must have weights [O, I, kh, kw], none of them empty, not {shape}")
    if max(shape[2:]) > MAX_KERNEL:
        raise ValueError(f"layer {name} has a kernel of {shape[2]} x {shape[3]}, the limit is {MAX_KERNEL}")
    channels = sum(part.channels for part in layer.inputs)
    if shape[1] != channels:
        raise ValueError(f"layer {name} has weights for {shape[1]} channels, but its inputs have {channels}")
    if max(shape[:2]) > MAX_CHANNELS:
        raise ValueError(f"layer {name} has {shape[1]} input and {shape[0]} output channels, the limit is "
                         f"{MAX_CHANNELS}")
    if not 1 <= layer.stride <= MAX_STRIDE:
        raise ValueError(f"layer {name} has stride {layer.stride}, which must be 1 to {MAX_STRIDE}")
    if len(layer.pad) != 4 or not all(0 <= pad <= MAX_PAD for pad in layer.pad):
        raise ValueError(f"layer {name} has padding {layer.pad}, which must be four numbers of 0 to {MAX_PAD}")
    if layer.pool not in (0, 2, 3):
        raise ValueError(f"layer {name} has a pool of {layer.pool}, which must be 0, 2 or 3")
    if layer.full and layer.pool != 2:
        raise ValueError(f"layer {name} keeps the map before pooling, which only a 2x2 pool allows; pool it in a layer "
                         f"of its own (a 1x1 convolution with identity weights)")
    if layer.bias is not None and np.shape(layer.bias) != shape[:1]:
        raise ValueError(f"layer {name} has {shape[0]} output channels, but a bias of shape {np.shape(layer.bias)}")
    if not np.isfinite(layer.weights).all() or layer.bias is not None and not np.isfinite(layer.bias).all():
        raise ValueError(f"layer {name} has weights or biases that are not finite")
    for what, value in (("an upper bound", layer.high), ("a scale", layer.out_scale)):
        if value is not None and not 0 < value < np.inf:
            raise ValueError(f"layer {name} has {what} of {value}, which must be above 0 and finite")
    if layer.low is not None and not -np.inf < layer.low < 0:
        raise ValueError(f"layer {name} has a lower bound of {layer.low}, which must be below 0 and finite")
