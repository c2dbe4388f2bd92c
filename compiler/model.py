"""A float network of operators: what is left of an ONNX file after reading, and what compiler.lower takes.

A value is a map [C, H, W]; a fully connected layer is a convolution whose kernel spans its input. Constants have been
folded into the operators, layouts other than (C, H, W) have been resolved.
"""
from collections import Counter
from dataclasses import dataclass
from functools import cached_property
from typing import ClassVar

import numpy as np
import torch
import torch.nn.functional as functional

from .errors import first_line


@dataclass(frozen=True, eq=False)
class Operator:
    """What all operators share.

    Parameters
    ----------
    name : str
        Name of the value that it makes.
    inputs : tuple of str
        Names of the values that it reads.
    node : str
        The node of the ONNX file that it comes from, for messages: ``Conv node 'features.0'``.
    """
    name: str
    inputs: tuple[str, ...]
    node: str
    #: What a summary calls it.
    KIND: ClassVar[str] = ""

    def run(self, *inputs: torch.Tensor) -> torch.Tensor:
        """The value [1, C, H, W] for the inputs, each [1, C, H, W]."""
        raise NotImplementedError

    @property
    def macs_of_output(self) -> int:
        """Multiplications for one output value; 0 for what a float network does without any."""
        return 0


@dataclass(frozen=True, eq=False)
class Convolution(Operator):
    """``weights`` [O, I / groups, kh, kw], ``bias`` [O]; stride and dilation (rows, columns), ``pad`` (top, left,
    bottom, right). The last ``summed`` input channels are the operand of a sum, and cost a float network nothing."""
    weights: np.ndarray
    bias: np.ndarray
    stride: tuple[int, int] = (1, 1)
    pad: tuple[int, int, int, int] = (0, 0, 0, 0)
    dilation: tuple[int, int] = (1, 1)
    groups: int = 1
    summed: int = 0
    KIND = "convolution"

    def run(self, *inputs):
        """See :meth:`Operator.run`."""
        weights, bias = _tensor(self.weights, inputs[0]), _tensor(self.bias, inputs[0])
        return functional.conv2d(_pad(inputs[0], self.pad), weights, bias, self.stride, 0, self.dilation, self.groups)

    @property
    def macs_of_output(self):
        """See :class:`Operator`."""
        _, inputs, *kernel = self.weights.shape
        return int(np.prod(kernel)) * (inputs - self.summed)


@dataclass(frozen=True, eq=False)
class Add(Operator):
    """``sum of factors[n][c] * input n + bias[c]`` of two inputs of one shape; ``factors`` [2, C], ``bias`` [C]."""
    factors: np.ndarray
    bias: np.ndarray
    KIND = "add"

    def run(self, *inputs):
        """See :meth:`Operator.run`."""
        total = sum(x * _per_channel(factor, x) for x, factor in zip(inputs, self.factors, strict=True))
        return total + _per_channel(self.bias, total)


@dataclass(frozen=True, eq=False)
class Affine(Operator):
    """``factor[c] * x + bias[c]``: a batch normalisation that no convolution could take."""
    factor: np.ndarray
    bias: np.ndarray
    KIND = "batch norm"

    def run(self, *inputs):
        """See :meth:`Operator.run`."""
        return inputs[0] * _per_channel(self.factor, inputs[0]) + _per_channel(self.bias, inputs[0])


@dataclass(frozen=True, eq=False)
class Clamp(Operator):
    """``min(max(x, low), high)``; either may be infinite."""
    low: float
    high: float
    KIND = "clamp"

    def run(self, *inputs):
        """See :meth:`Operator.run`."""
        return inputs[0].clamp(self.low, self.high)


@dataclass(frozen=True, eq=False)
class PRelu(Operator):
    """``x`` where it is positive, else ``slope[c] * x``."""
    slope: np.ndarray
    KIND = "PReLU"

    def run(self, *inputs):
        """See :meth:`Operator.run`."""
        return inputs[0].clamp(min=0) + inputs[0].clamp(max=0) * _per_channel(self.slope, inputs[0])


@dataclass(frozen=True, eq=False)
class Round(Operator):
    """``scale * clamp(x / scale rounded half to even, low, high)``: QuantizeLinear and DequantizeLinear of a file that
    was quantised, ``low`` and ``high`` integers."""
    scale: float
    low: int
    high: int
    KIND = "quantise"

    def run(self, *inputs):
        """See :meth:`Operator.run`."""
        return torch.round(inputs[0] / self.scale).clamp(self.low, self.high) * self.scale


@dataclass(frozen=True, eq=False)
class MaxPool(Operator):
    """Largest value of each window; what ``pad`` (top, left, bottom, right) adds never wins. Kernel and stride are
    (rows, columns)."""
    kernel: tuple[int, int]
    stride: tuple[int, int]
    pad: tuple[int, int, int, int] = (0, 0, 0, 0)
    KIND = "max pool"

    def run(self, *inputs):
        """See :meth:`Operator.run`."""
        return functional.max_pool2d(_pad(inputs[0], self.pad, -torch.inf), self.kernel, self.stride)


@dataclass(frozen=True, eq=False)
class AveragePool(Operator):
    """Mean of each window; the zeros of ``pad`` (top, left, bottom, right) count."""
    kernel: tuple[int, int]
    stride: tuple[int, int]
    pad: tuple[int, int, int, int] = (0, 0, 0, 0)
    KIND = "average pool"

    def run(self, *inputs):
        """See :meth:`Operator.run`."""
        return functional.avg_pool2d(_pad(inputs[0], self.pad), self.kernel, self.stride)


@dataclass(frozen=True, eq=False)
class Pad(Operator):
    """Rows and columns of ``value`` (0 or minus infinity) around the map: ``pad`` (top, left, bottom, right)."""
    pad: tuple[int, int, int, int]
    value: float = 0.0
    KIND = "pad"

    def run(self, *inputs):
        """See :meth:`Operator.run`."""
        return _pad(inputs[0], self.pad, self.value)


@dataclass(frozen=True, eq=False)
class Concat(Operator):
    """The inputs one after the other along the channels."""
    KIND = "concat"

    def run(self, *inputs):
        """See :meth:`Operator.run`."""
        return torch.cat(inputs, 1)


@dataclass(frozen=True, eq=False)
class Select(Operator):
    """Some channels of a map, in any order: ``channels`` [C]; -1 for a channel of zeros."""
    channels: np.ndarray
    KIND = "channel selection"

    def run(self, *inputs):
        """See :meth:`Operator.run`."""
        # The last channel, -1, is the one of zeros.
        padded = functional.pad(inputs[0], (0, 0, 0, 0, 0, 1))
        return padded[:, torch.as_tensor(self.channels, device=padded.device)]


@dataclass(frozen=True)
class Model:
    """Operators in an order in which they can run.

    Parameters
    ----------
    name : str
    input : str
        Name of the only input.
    input_shape : tuple
        (C, H, W).
    operators : tuple of Operator
    outputs : tuple of str
        Names of the values that are wanted.
    channels_last : bool
        Users of the ONNX file give the input as rows, columns, channels.
    """
    name: str
    input: str
    input_shape: tuple[int, int, int]
    operators: tuple[Operator, ...]
    outputs: tuple[str, ...]
    channels_last: bool = False

    @property
    def file_shape(self) -> tuple[int, ...]:
        """Shape of an input as users of the ONNX file give it, without the batch."""
        channels, *size = self.input_shape
        return (*size, channels) if self.channels_last else self.input_shape

    def input_map(self, x: np.ndarray) -> np.ndarray:
        """The input [C, H, W] from one in the order of the ONNX file, a batch of 1 or none before it; ``ValueError`` if
        its shape does not fit."""
        shape = self.file_shape
        vector = shape[1:] == (1, 1) and x.shape in (shape[:1], (1, shape[0]))
        if x.shape not in (shape, (1, *shape)) and not vector:
            raise ValueError(f"an input has shape {x.shape}, the network takes {shape}")
        x = x.reshape(shape)
        return x.transpose(2, 0, 1) if self.channels_last else x

    @cached_property
    def shapes(self) -> dict[str, tuple[int, int, int]]:
        """Name and shape (C, H, W) of every value."""
        shapes = {self.input: tuple(self.input_shape)}
        for operator in self.operators:
            shapes[operator.name] = output_shape(operator, shapes)
        return shapes

    @cached_property
    def uses(self) -> Counter:
        """How often each value is read, by operators and as an output."""
        return Counter([name for operator in self.operators for name in operator.inputs] + list(self.outputs))

    @cached_property
    def nonnegative(self) -> set[str]:
        """Names of the values that cannot be negative whatever the input is."""
        known = set()
        for operator in self.operators:
            passes_on = isinstance(operator, MaxPool | AveragePool | Concat | Select) or isinstance(
                operator, Pad) and operator.value == 0
            if (isinstance(operator, Clamp | Round) and operator.low >= 0
                    or (passes_on or isinstance(operator, Clamp | Round)) and known.issuperset(operator.inputs)):
                known.add(operator.name)
        return known

    def run(self, x: np.ndarray) -> dict[str, np.ndarray]:
        """Every value [C, H, W] in float32 for an input ``x[C, H, W]``."""
        values = {self.input: torch.as_tensor(np.asarray(x, np.float32))[None]}
        for operator in self.operators:
            values[operator.name] = operator.run(*(values[name] for name in operator.inputs))
        return {name: value[0].numpy() for name, value in values.items()}


def output_shape(operator: Operator, shapes: dict[str, tuple[int, int, int]]) -> tuple[int, int, int]:
    """Shape (C, H, W) of what ``operator`` makes of inputs of ``shapes``; ``ValueError`` names its node if they do not
    fit."""
    inputs = [shapes[name] for name in operator.inputs]
    try:
        return tuple(operator.run(*(torch.zeros((1, *shape), device="meta") for shape in inputs)).shape[1:])
    except (RuntimeError, TypeError, ValueError, OverflowError, IndexError) as error:
        raise ValueError(f"{operator.node} does not fit its input of {' and '.join(map(str, inputs))} (C, H, W): "
                         f"{first_line(error)}") from None


def _tensor(values, like):
    # A copy: weights of a file may not be written to, which PyTorch warns of.
    return torch.as_tensor(np.array(values, np.float32), device=like.device)


def _per_channel(values, like):
    return _tensor(values, like)[None, :, None, None]


def _pad(x, pad, value=0.0):
    top, left, bottom, right = pad
    return functional.pad(x, (left, right, top, bottom), value=value) if any(pad) else x
