"""From the nodes of an ONNX graph to the operators of compiler.model.

While it reads, every tensor of the graph is a constant, an arrangement of a map (:class:`Tensor`), or what the host
computes at the end. Nodes that only move values (Transpose, Reshape, Slice, Split ...) are run on the *indices* of an
arrangement, by the reference implementation of the onnx package, and make no operator: a convolution that finds its
input in the order (C, H, W) again does not know that there were transposes, and a fully connected layer finds its
weights through the indices, whatever was flattened before it. Nodes with constant inputs are folded the same way.
"""
import re
from dataclasses import dataclass, field, replace

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper
from onnx.reference import ReferenceEvaluator

from golden.postprocess import value_limits

from ..errors import first_line, quoted
from ..model import (
    Add,
    Affine,
    AveragePool,
    Clamp,
    Concat,
    Convolution,
    MaxPool,
    Model,
    Operator,
    Pad,
    PRelu,
    Round,
    Select,
    output_shape,
)

#: Nodes that move values and compute nothing.
MOVES = {"DepthToSpace", "Flatten", "Gather", "Reshape", "Slice", "SpaceToDepth", "Split", "Squeeze", "Transpose",
         "Unsqueeze"}
#: Nodes whose map may be any of the inputs; of all others it is the first.
ANY_ORDER = {"Add", "Concat", "Max", "Min", "Mul", "Sub", "Sum"}
#: Nodes that may end a network, on the host.
HOST_FIRST = {"ArgMax", "Concat", "Exp", "LogSoftmax", "Sigmoid", "Softmax", "Tanh", "TopK"}
#: Nodes that the host runs on what it has computed.
HOST_NEXT = HOST_FIRST | MOVES | {"Add", "Cast", "Clip", "Div", "Expand", "Identity", "Mul", "Neg", "Pow", "Sqrt",
                                  "Sub", "ReduceMax", "Relu"}
#: What to do about nodes that cannot be run, by operator.
SUGGESTIONS = {
    "BipolarQuant": "train with 2 bits or more (Quant)",
    "ConvTranspose": "replace it by a convolution",
    "Elu": "train with ReLU instead",
    "FloatQuant": "train with integers (Quant)",
    "Gelu": "train with ReLU instead",
    "HardSigmoid": "train with ReLU instead",
    "HardSwish": "train with ReLU6 instead",
    "InstanceNormalization": "train with batch normalisation instead",
    "LayerNormalization": "train with batch normalisation instead",
    "Mul": "a product of two maps (gating, squeeze-and-excite, swish) cannot be computed; train without it",
    "Resize": "end the network before it, or train without it",
    "Sigmoid": "it can only end a network; train with ReLU instead",
    "Softmax": "it can only end a network",
    "Tanh": "it can only end a network; train with ReLU instead",
    "Trunc": "average with AvgPool2d and round behind it with a Quant node (QuantIdentity in Brevitas)",
    "Upsample": "end the network before it, or train without it",
}
FLOATS = {TensorProto.FLOAT, TensorProto.FLOAT16, TensorProto.DOUBLE, TensorProto.BFLOAT16}


#: Values of a map: about what 4 GiB of DRAM hold with all other maps.
MOST_VALUES = 1 << 28
#: Indices of padding.
ZERO, LOWEST = -1, -2
#: Exporters write this, or less, where they mean minus infinity.
VERY_LOW = -1e30


@dataclass(frozen=True)
class Tensor:
    """A tensor of the graph as an arrangement of a map.

    ``index`` has the tensor's shape; each element is the place in the flattened map ``value`` [C, H, W], or ZERO, or
    LOWEST for what is below all values.
    """
    value: str
    index: np.ndarray


@dataclass(frozen=True)
class Integers:
    """Integers between QuantizeLinear and DequantizeLinear: those of ``tensor / scale``, rounded, plus ``zero``,
    clamped to ``low .. high``."""
    tensor: Tensor
    scale: float
    zero: int
    low: int
    high: int


@dataclass(frozen=True)
class Host:
    """A tensor that the host computes; ``origin`` is the node with which that began."""
    origin: str


@dataclass(frozen=True)
class HostPart:
    """What the host computes after the accelerator: ``proto`` takes values of the model [1, C, H, W] by their names.

    ``nodes`` describes its nodes; ``outputs`` are the outputs of the ONNX file. There is nothing to do if ``proto`` is
    None: the outputs of the file are those of the model.
    """
    proto: onnx.ModelProto | None
    nodes: tuple[str, ...] = ()


def read_proto(proto: onnx.ModelProto, name: str) -> tuple[Model, HostPart]:
    """The operators of a checked ONNX model (:func:`compiler.onnx.load.load_proto`), and what is left for the host.

    Raises
    ------
    ValueError
        One sentence that names the node that cannot be run, and a suggestion.
    """
    return _Reader(proto).read(name)


def describe(node: onnx.NodeProto) -> str:
    """A node as messages name it."""
    return f"{node.op_type} node {quoted(node.name or (node.output[0] if node.output else ''))}"


@dataclass
class _Reader:
    proto: onnx.ModelProto
    tensors: dict[str, np.ndarray | Tensor | Host] = field(default_factory=dict)
    shapes: dict[str, tuple[int, int, int]] = field(default_factory=dict)
    operators: list[Operator] = field(default_factory=list)
    #: ``(scale, low, high)`` of the values that hold multiples of a scale.
    grids: dict[str, tuple[float, int, int]] = field(default_factory=dict)

    def read(self, name):
        graph = self.proto.graph
        for tensor in graph.initializer:
            # A copy that may be written to, as PyTorch wants it.
            self.tensors[tensor.name] = np.array(numpy_helper.to_array(tensor))
        source = next(entry for entry in graph.input if entry.name not in self.tensors)
        sizes = [dim.dim_value for dim in source.type.tensor_type.shape.dim]
        self._add_input(source.name, sizes)
        for node in graph.node:
            self._read_node(node)
        outputs, host = self._outputs()
        if not self.operators or not outputs:
            raise ValueError(f"network {name} has nothing that the accelerator could compute")
        return Model(name, source.name, self.shapes[source.name], tuple(self.operators), outputs,
                     self._channels_last(source.name, len(sizes))), host

    def _add_input(self, name, sizes):
        """The input map: (C, H, W), also where the file has pictures as rows, columns, channels."""
        shape = tuple(sizes[1:]) if len(sizes) == 4 else (sizes[1], 1, 1)
        self._check_size(f"input {quoted(name)}", shape)
        index = np.arange(np.prod(shape)).reshape(sizes)
        if self._channels_last(name, len(sizes)):
            shape = (sizes[3], *sizes[1:3])
            index = np.arange(np.prod(shape)).reshape(shape).transpose(1, 2, 0)[None]
        self.shapes[name] = shape
        self.tensors[name] = Tensor(name, index)

    def _check_size(self, what, shape):
        if np.prod([float(size) for size in shape]) > MOST_VALUES:
            raise ValueError(f"{what} gives a map of {' x '.join(map(str, shape))} values, the limit is "
                             f"{MOST_VALUES:,}: make the input smaller (--shape)")

    def _channels_last(self, name, dimensions):
        """Whether the first node that moves values of the input puts the last dimension behind the batch."""
        for node in self.proto.graph.node if dimensions == 4 else ():
            if name in node.input:
                if node.op_type == "Transpose":
                    return tuple(_attribute(node, "perm", ())) == (0, 3, 1, 2)
                if node.op_type not in ("Add", "Cast", "Div", "Identity", "Mul", "Pad", "Sub"):
                    return False
                name = node.output[0]
        return False

    # Nodes.

    def _read_node(self, node):
        for name in node.input:
            if name and name not in self.tensors:
                raise ValueError(f"{describe(node)} reads {quoted(name)}, which is not supported as an input or is "
                                 f"missing")
        inputs = [self.tensors[name] if name else None for name in node.input]
        hosts = [entry for entry in inputs if isinstance(entry, Host)]
        if hosts:
            if node.op_type not in HOST_NEXT or node.domain not in ("", "ai.onnx"):
                raise ValueError(f"{describe(node)} needs the result of {hosts[0].origin}, which only the host could "
                                 f"compute, at the end of the network; end the network before it, or train without it")
            results = [Host(hosts[0].origin)] * len(node.output)
        elif node.domain not in ("", "ai.onnx"):
            raise ValueError(_unsupported(node))
        elif not any(isinstance(entry, Tensor | Integers) for entry in inputs):
            results = self._evaluate(node, inputs)
        elif any(isinstance(entry, Integers) for entry in inputs):
            results = self._of_integers(node, *inputs)
        elif node.op_type == "Shape":
            results = self._evaluate(node, [np.empty(inputs[0].index.shape, np.float32)])
        elif node.op_type in MOVES and isinstance(inputs[0], Tensor) and _constant(*inputs[1:]):
            moved = self._evaluate(node, [inputs[0].index, *inputs[1:]])
            results = [Tensor(inputs[0].value, index) for index in moved]
        else:
            results = [self._compute(node, inputs)]
        for name, result in zip(node.output, results, strict=False):
            if name:
                self.tensors[name] = result

    def _compute(self, node, inputs):
        """What a node makes of its inputs, one of which is a map."""
        known = node.op_type in ANY_ORDER or isinstance(inputs[0], Tensor)
        handler = getattr(self, f"_node_{node.op_type.lower()}", None) if known else None
        # Values that are not finite are found when they come to an operator.
        with np.errstate(all="ignore"):
            result = handler(node, *inputs) if handler else None
        if result is None and node.op_type in HOST_FIRST:
            return Host(describe(node))
        if result is None:
            raise ValueError(_unsupported(node))
        return result

    def _of_integers(self, node, integers, *constants):
        """What a node makes of integers between QuantizeLinear and DequantizeLinear: its outputs."""
        known = isinstance(integers, Integers) and node.op_type in {"Clip", "DequantizeLinear"} | MOVES
        if not known or not _constant(*constants):
            raise ValueError(f"{describe(node)} works on integers, which is not supported; quantise the network in "
                             f"the QDQ format")
        tensor = integers.tensor
        if node.op_type in MOVES:
            return [replace(integers, tensor=Tensor(tensor.value, index))
                    for index in self._evaluate(node, [tensor.index, *constants])]
        if node.op_type == "Clip":
            low, high = (otherwise if bound is None else int(_scalar(node, bound)) for bound, otherwise in
                         zip([*constants, None, None], (integers.low, integers.high), strict=False))
            return [replace(integers, low=max(low, integers.low), high=min(high, integers.high))]
        if _quantisation(node, *constants)[:2] != (integers.scale, integers.zero):
            raise ValueError(f"{describe(node)} has another scale or zero point than the QuantizeLinear before it")
        grid = integers.scale, integers.low - integers.zero, integers.high - integers.zero
        if self.grids.get(tensor.value) == grid:
            return [tensor]
        tensor = self._elementwise(Round, node, self._settle(tensor, node), **dict(zip(("scale", "low", "high"), grid,
                                                                                      strict=True)))
        self.grids[tensor.value] = grid
        return [tensor]

    def _evaluate(self, node, inputs):
        return evaluate(node, inputs, self.proto.opset_import)

    def _operator(self, kind, node, suffix, inputs, **fields):
        """Name of the value of a new operator."""
        name = node.output[0] + suffix
        for what, values in fields.items():
            if isinstance(values, np.ndarray) and not np.isfinite(values).all():
                raise ValueError(f"{describe(node)} has {what} with values that are not finite (NaN or infinite)")
        operator = kind(name, tuple(inputs), describe(node), **fields)
        self.shapes[name] = output_shape(operator, self.shapes)
        for what in ("kernel", "stride", "pad", "dilation"):
            if (largest := max(fields.get(what) or (0,))) > MOST_VALUES:
                raise ValueError(f"{describe(node)} has a {what} of {largest}, the limit is {MOST_VALUES:,}: export it "
                                 f"with one that is not longer than the map")
        self._check_size(describe(node), self.shapes[name])
        self.operators.append(operator)
        if isinstance(operator, MaxPool | Select) and operator.inputs[0] in self.grids:
            self.grids[name] = self.grids[operator.inputs[0]]
        return name

    # Arrangements.

    def _map(self, value):
        """A map in the order (1, C, H, W)."""
        shape = self.shapes[value]
        return Tensor(value, np.arange(np.prod(shape)).reshape(1, *shape))

    def _settle(self, tensor, node):
        """The same tensor without zeros from outside of the map: what may be added to or multiplied."""
        if tensor.index.min() >= 0:
            return tensor
        try:
            return self._map(self._plain(tensor, node))
        except ValueError:
            if tensor.index.ndim != 4:
                raise
        # Rows, columns, channels.
        value = self._plain(Tensor(tensor.value, tensor.index.transpose(0, 3, 1, 2)), node)
        return Tensor(value, self._map(value).index.transpose(0, 2, 3, 1))

    def _plain(self, tensor, node):
        """Name of the value whose map is ``tensor`` in the order (1, C, H, W) or, without rows and columns, (1, C)."""
        index = tensor.index
        if index.ndim == 2:
            index = index[:, :, None, None]
        channels, height, width = self.shapes[tensor.value]
        if index.ndim != 4 or index.shape[0] != 1:
            raise ValueError(f"{describe(node)} takes a tensor of shape {tensor.index.shape}, which is not a picture "
                             f"(1, C, H, W); only pictures and vectors are supported")
        index = index[0]
        if index.size == channels * height * width and (index.reshape(-1) == np.arange(index.size)).all():
            return tensor.value
        inside = index >= 0
        rows, columns, used = (np.flatnonzero(inside.any(axis)) for axis in ((0, 2), (0, 1), (1, 2)))
        refusal = ValueError(f"{describe(node)} takes values of {quoted(tensor.value)} in an order that is not "
                             f"supported: not whole channels, or rows and columns other than every n-th")
        if not used.size:
            raise refusal
        pad = (rows[0], columns[0], index.shape[1] - 1 - rows[-1], index.shape[2] - 1 - columns[-1])
        core = index[:, rows[0]:rows[-1] + 1, columns[0]:columns[-1] + 1]
        size = height * width
        taken = np.where(inside.any((1, 2)), core[:, 0, 0] // size, ZERO)
        step_y = (core[used[0], 1, 0] - core[used[0], 0, 0]) // width if core.shape[1] > 1 else height
        step_x = core[used[0], 0, 1] - core[used[0], 0, 0] if core.shape[2] > 1 else width
        if step_y < 1 or step_x < 1:
            raise refusal
        grid = np.arange(size).reshape(height, width)[::step_y, ::step_x]
        if not np.array_equal(core, np.where(taken[:, None, None] < 0, ZERO, taken[:, None, None] * size + grid)):
            raise refusal
        border = np.unique(index[:, ~inside.any(0)])
        if border.size > 1:
            raise refusal
        value = tensor.value
        if not np.array_equal(taken, np.arange(channels)):
            value = self._operator(Select, node, f".{value}.channels", [value], channels=taken)
        if (step_y, step_x) != (1, 1) and grid.shape != (height, width):
            ones = np.ones((len(taken), 1, 1, 1), np.float32)
            value = self._operator(Convolution, node, f".{value}.step", [value], weights=ones,
                                   bias=np.zeros(len(taken), np.float32), stride=(int(step_y), int(step_x)),
                                   groups=len(taken))
        if any(pad):
            value = self._operator(Pad, node, f".{value}.pad", [value], pad=tuple(map(int, pad)),
                                   value=0.0 if border == ZERO else -np.inf)
        return value

    def _channel_values(self, constant, tensor, node, otherwise):
        """A constant that is broadcast to ``tensor``, for each channel of the map: float32 [C]; ``otherwise`` for
        channels that the tensor does not hold."""
        channels, height, width = self.shapes[tensor.value]
        constant = np.asarray(constant, np.float32)
        if constant.size == 1 and constant.ndim <= tensor.index.ndim:
            return np.full(channels, constant.reshape(()), np.float32)
        try:
            values = np.broadcast_to(constant, tensor.index.shape)
        except ValueError:
            raise ValueError(f"{describe(node)} has a constant of shape {constant.shape} that does not fit its input "
                             f"of shape {tensor.index.shape}") from None
        place = tensor.index.reshape(-1) // (height * width)
        result = np.full(channels, otherwise, np.float32)
        result[place] = values.reshape(-1)
        if not np.array_equal(result[place], values.reshape(-1), equal_nan=True):
            raise ValueError(f"{describe(node)} has a constant of shape {constant.shape} that differs from pixel to "
                             f"pixel; only one value for each channel is supported")
        return result

    def _elementwise(self, kind, node, tensor, **fields):
        value = self._operator(kind, node, "", [tensor.value], **fields)
        return Tensor(value, tensor.index)

    def _affine(self, node, tensor, factor, bias):
        tensor = self._settle(tensor, node)
        return self._elementwise(Affine, node, tensor, factor=self._channel_values(factor, tensor, node, 1),
                                 bias=self._channel_values(bias, tensor, node, 0))

    # One method for each operator, _node_ and its name: inputs as in the ONNX specification. None: not supported.

    def _node_identity(self, node, x):
        return x

    def _node_dropout(self, node, x, ratio=None, training=None):
        return x if training is None or _constant(training) and not training.any() else None

    def _node_quantizelinear(self, node, x, scale, zero=None):
        if not isinstance(x, Tensor) or not _constant(scale, zero):
            return None
        scale, zero, kind = _quantisation(node, scale, zero)
        integer = re.fullmatch("(u?)int(2|4|8|16)", str(kind))
        if not integer:
            raise ValueError(f"{describe(node)} makes values of type {kind}, which is not supported: quantise to "
                             f"integers of at most 16 bits")
        return Integers(x, scale, zero, *value_limits(int(integer[2]), not integer[1]))

    def _node_cast(self, node, x):
        return x if _attribute(node, "to") in FLOATS else None

    def _node_pad(self, node, x, pads=None, value=None, axes=None):
        pads = np.asarray(_attribute(node, "pads", pads)).astype(int)
        value = np.float32(_attribute(node, "value", 0.0 if value is None else value)).reshape(())
        mode = _attribute(node, "mode", b"constant")
        readers = [reader for reader in self.proto.graph.node if node.output[0] in reader.input]
        if mode == b"edge" and all(reader.op_type == "MaxPool" and min(_attribute(reader, "kernel_shape")) > pads.max()
                                   for reader in readers):
            # A window that holds a repeated value holds the value too.
            mode, value = b"constant", np.float32(-np.inf)
        if mode != b"constant" or 0 != value > VERY_LOW or pads.min() < 0:
            raise ValueError(f"{describe(node)} is not supported: only padding with zeros is")
        axes = np.arange(x.index.ndim) if axes is None else axes
        widths = np.zeros((x.index.ndim, 2), int)
        widths[np.asarray(axes)] = pads.reshape(2, -1).T
        self._check_size(describe(node), x.index.shape + widths.astype(float).sum(1))
        return Tensor(x.value, np.pad(x.index, widths, constant_values=LOWEST if value else ZERO))

    def _node_conv(self, node, x, weights, bias=None):
        if not _constant(weights, bias):
            raise ValueError(f"{describe(node)} has weights that are not constant; export the network with its weights")
        if weights.ndim != 4 or x.index.ndim != 4:
            raise ValueError(f"{describe(node)} has a kernel of {weights.ndim - 2} dimensions; only those of pictures "
                             f"(2 dimensions) are supported")
        stride, dilation = (tuple(_attribute(node, name, (1, 1))) for name in ("strides", "dilations"))
        pad = _pads(node, x.index.shape[2:], weights.shape[2:], stride, dilation)
        bias = np.zeros(len(weights), np.float32) if bias is None else np.asarray(bias, np.float32)
        value = self._operator(Convolution, node, "", [self._plain(x, node)], weights=np.asarray(weights, np.float32),
                               bias=bias, stride=stride, dilation=dilation, pad=pad,
                               groups=_attribute(node, "group", 1))
        return self._map(value)

    def _node_gemm(self, node, x, weights, bias=None):
        if not _constant(weights, bias) or not isinstance(x, Tensor) or _attribute(node, "transA", 0):
            return None
        weights = (weights.T if _attribute(node, "transB", 0) else weights) * _attribute(node, "alpha", 1.0)
        bias = 0 if bias is None else np.asarray(bias, np.float32) * _attribute(node, "beta", 1.0)
        return self._fully_connected(node, x, weights, bias)

    def _node_matmul(self, node, x, weights):
        if not isinstance(x, Tensor) or not _constant(weights) or weights.ndim != 2:
            return None
        if np.prod(x.index.shape[:-1]) == 1:
            return self._fully_connected(node, x, weights, 0)
        if x.index.ndim != 4:
            return None
        # Pixel by pixel on rows, columns, channels.
        value = self._operator(Convolution, node, "",
                               [self._plain(Tensor(x.value, x.index.transpose(0, 3, 1, 2)), node)],
                               weights=np.asarray(weights.T, np.float32)[:, :, None, None],
                               bias=np.zeros(weights.shape[1], np.float32))
        return Tensor(value, self._map(value).index.transpose(0, 2, 3, 1))

    def _fully_connected(self, node, x, weights, bias):
        shape, outputs = self.shapes[x.value], weights.shape[1]
        if weights.shape[0] != x.index.size:
            raise ValueError(f"{describe(node)} has weights for {weights.shape[0]} inputs, but gets {x.index.size}")
        if np.size(bias) not in (1, outputs):
            raise ValueError(f"{describe(node)} has a bias of shape {np.shape(bias)} for {outputs} outputs")
        kernel = np.zeros((outputs, int(np.prod(shape))), np.float32)
        # Weights of padding see zeros.
        inside = x.index.reshape(-1) >= 0
        np.add.at(kernel, (slice(None), x.index.reshape(-1)[inside]), np.asarray(weights.T[:, inside], np.float32))
        value = self._operator(Convolution, node, "", [x.value], weights=kernel.reshape(outputs, *shape),
                               bias=np.broadcast_to(np.asarray(bias, np.float32).reshape(-1), outputs).copy())
        return Tensor(value, np.arange(outputs).reshape(*x.index.shape[:-1], outputs))

    def _node_batchnormalization(self, node, x, *constants):
        if not _constant(*constants) or _attribute(node, "training_mode", 0):
            raise ValueError(f"{describe(node)} is in training mode; export the network for inference (model.eval())")
        scale, bias, mean, variance = (np.asarray(values, np.float32).reshape(-1, *[1] * (x.index.ndim - 2))
                                       for values in constants)
        factor = scale / np.sqrt(variance + np.float32(_attribute(node, "epsilon", 1e-5)))
        return self._affine(node, x, factor, bias - mean * factor)

    def _node_relu(self, node, x):
        x = self._settle(x, node) if x.index.min() == LOWEST else x
        return self._elementwise(Clamp, node, x, low=0.0, high=np.inf)

    def _node_clip(self, node, x, low=None, high=None):
        if not _constant(low, high):
            return None
        low, high = _attribute(node, "min", low), _attribute(node, "max", high)
        return self._clamp(node, x, -np.inf if low is None else low, np.inf if high is None else high)

    def _clamp(self, node, x, low, high):
        low, high = float(_scalar(node, low)), float(_scalar(node, high))
        if np.isnan(low) or np.isnan(high):
            raise ValueError(f"{describe(node)} clamps to {low:g} .. {high:g}, which are not numbers")
        return self._elementwise(Clamp, node, self._settle(x, node), low=low, high=high)

    def _node_max(self, node, *inputs):
        return self._bound(node, inputs, lambda bound: (bound, np.inf))

    def _node_min(self, node, *inputs):
        return self._bound(node, inputs, lambda bound: (-np.inf, bound))

    def _bound(self, node, inputs, limits):
        tensors = [entry for entry in inputs if isinstance(entry, Tensor)]
        bounds = [entry for entry in inputs if not isinstance(entry, Tensor)]
        if len(tensors) != 1 or len(bounds) != 1 or np.size(bounds[0]) != 1:
            return None
        return self._clamp(node, tensors[0], *limits(bounds[0]))

    def _node_leakyrelu(self, node, x):
        return self._node_prelu(node, x, np.array(_attribute(node, "alpha", 0.01)))

    def _node_prelu(self, node, x, slope):
        if not _constant(slope) or not isinstance(x, Tensor):
            return None
        # A slope of shape (C,) belongs to the channels in files of old opsets.
        if slope.ndim == 1 and slope.size > 1 and x.index.ndim == 4 and slope.size == x.index.shape[1] \
                and slope.size != x.index.shape[3]:
            slope = slope[:, None, None]
        x = self._settle(x, node)
        return self._elementwise(PRelu, node, x, slope=self._channel_values(slope, x, node, 1))

    def _node_maxpool(self, node, x):
        if [name for name in node.output[1:] if name]:
            raise ValueError(f"{describe(node)} also puts out indices, which is not supported; leave them out")
        return self._pool(MaxPool, node, x, 0)

    def _node_averagepool(self, node, x):
        return self._pool(AveragePool, node, x, _attribute(node, "count_include_pad", 0))

    def _pool(self, kind, node, x, include_pad):
        kernel = tuple(_attribute(node, "kernel_shape"))
        stride = tuple(_attribute(node, "strides", (1, 1)))
        if len(kernel) != 2 or set(_attribute(node, "dilations", ())) - {1}:
            raise ValueError(f"{describe(node)} is not supported: only pools of pictures without dilation are")
        pad = list(_pads(node, x.index.shape[2:], kernel, stride, (1, 1)))
        more = [0, 0]
        if _attribute(node, "ceil_mode", 0):
            for axis, size in enumerate(x.index.shape[2:]):
                padded = size + pad[axis] + pad[axis + 2]
                count = -(-(padded - kernel[axis]) // stride[axis]) + 1
                # A window must not start behind the map.
                count -= (count - 1) * stride[axis] >= size + pad[axis]
                more[axis] = max(0, (count - 1) * stride[axis] + kernel[axis] - padded)
        if kind is AveragePool and (any(more) or any(pad) and not include_pad):
            raise ValueError(f"{describe(node)} divides by fewer values at the border, which is not supported; use "
                             f"count_include_pad=1 and ceil_mode=0, or a size without padding")
        pad = (*pad[:2], pad[2] + more[0], pad[3] + more[1])
        return self._map(self._operator(kind, node, "", [self._plain(x, node)], kernel=kernel, stride=stride, pad=pad))

    def _node_globalaveragepool(self, node, x):
        return self._reduce(AveragePool, node, x, range(2, x.index.ndim), True)

    def _node_globalmaxpool(self, node, x):
        return self._reduce(MaxPool, node, x, range(2, x.index.ndim), True)

    def _node_reducemean(self, node, x, axes=None):
        return self._reduce(AveragePool, node, x, _attribute(node, "axes", axes), _attribute(node, "keepdims", 1))

    def _node_reducemax(self, node, x, axes=None):
        return self._reduce(MaxPool, node, x, _attribute(node, "axes", axes), _attribute(node, "keepdims", 1))

    def _reduce(self, kind, node, x, axes, keep):
        if isinstance(axes, Tensor) or _attribute(node, "noop_with_empty_axes", 0):
            return None
        x = self._settle(x, node)
        channels, height, width = self.shapes[x.value]
        axes = [int(axis) % x.index.ndim for axis in (range(x.index.ndim) if axes is None else axes)]
        kept = [axis for axis in range(x.index.ndim) if axis not in axes]
        windows = x.index.transpose(*kept, *axes).reshape(-1, int(np.prod([x.index.shape[axis] for axis in axes])))
        channel = windows[:, 0] // (height * width)
        whole = channel[:, None] * height * width + np.arange(height * width)
        if not np.array_equal(np.sort(windows, axis=1), whole):
            return None
        value = self._operator(kind, node, "", [x.value], kernel=(height, width), stride=(1, 1))
        shape = [1 if axis in axes else size for axis, size in enumerate(x.index.shape) if keep or axis not in axes]
        return Tensor(value, channel.reshape(shape))

    def _node_add(self, node, a, b):
        if isinstance(a, Tensor) and isinstance(b, Tensor):
            return self._sum_of_maps(node, "", a, b, 1)
        tensor, constant = (a, b) if isinstance(a, Tensor) else (b, a)
        return self._affine(node, tensor, 1, constant)

    def _node_sub(self, node, a, b):
        if isinstance(a, Tensor) and isinstance(b, Tensor):
            return self._sum_of_maps(node, "", a, b, -1)
        return self._affine(node, a, 1, -b) if isinstance(a, Tensor) else self._affine(node, b, -1, a)

    def _node_mul(self, node, a, b):
        if isinstance(a, Tensor) and isinstance(b, Tensor):
            return None
        tensor, constant = (a, b) if isinstance(a, Tensor) else (b, a)
        return self._affine(node, tensor, constant, 0)

    def _node_div(self, node, a, b):
        if isinstance(b, Tensor):
            return None
        return self._affine(node, a, 1 / np.asarray(b, np.float32), 0)

    def _node_neg(self, node, x):
        return self._affine(node, x, -1, 0)

    def _node_sum(self, node, *inputs):
        total = inputs[0]
        for number, entry in enumerate(inputs[1:], start=2 - len(inputs)):
            if not (isinstance(total, Tensor) and isinstance(entry, Tensor)):
                return None
            total = self._sum_of_maps(node, f".{-number}" if number else "", total, entry, 1)
        return total

    def _sum_of_maps(self, node, suffix, a, b, sign):
        if a.index.shape != b.index.shape:
            raise ValueError(f"{describe(node)} adds maps of shapes {a.index.shape} and {b.index.shape}; only maps of "
                             f"one shape can be added")
        same = self.shapes[a.value] == self.shapes[b.value] and np.array_equal(a.index, b.index)
        if not same or a.index.min() < 0:
            a, b = (self._map(self._plain(tensor, node)) for tensor in (a, b))
        channels = self.shapes[a.value][0]
        if a.value == b.value:
            factor = np.full(channels, 1 + sign, np.float32)
            value = self._operator(Affine, node, suffix, [a.value], factor=factor, bias=np.zeros(channels, np.float32))
        else:
            value = self._operator(Add, node, suffix, [a.value, b.value],
                                   factors=np.repeat(np.float32([[1], [sign]]), channels, 1),
                                   bias=np.zeros(channels, np.float32))
        return Tensor(value, a.index)

    def _node_concat(self, node, *inputs):
        # A concatenation of maps of different sizes, or with constants, may end a network, as of a detector's heads.
        if not all(isinstance(entry, Tensor) for entry in inputs):
            return None
        values = [entry.value for entry in inputs]
        if len(set(values)) == 1:
            return Tensor(values[0], self._evaluate_concat(node, [entry.index for entry in inputs]))
        inputs = [self._settle(entry, node) for entry in inputs]
        if len({self.shapes[entry.value][1:] for entry in inputs}) > 1:
            return None
        values = list(dict.fromkeys(entry.value for entry in inputs))
        ends = np.cumsum([0, *(np.prod(self.shapes[value]) for value in values)])
        first = dict(zip(values, ends, strict=False))
        index = self._evaluate_concat(node, [entry.index + first[entry.value] for entry in inputs])
        return Tensor(self._operator(Concat, node, "", values), index)

    def _evaluate_concat(self, node, arrays):
        try:
            return np.concatenate(arrays, _attribute(node, "axis"))
        except ValueError as error:
            raise ValueError(f"{describe(node)} does not fit its inputs: {error}") from None

    # Outputs.

    def _outputs(self):
        """Names of the values that are outputs, and what the host does with them."""
        graph = self.proto.graph
        finals = [entry.name for entry in graph.output]
        for name in finals:
            if name not in self.tensors:
                raise ValueError(f"output {quoted(name)} is not supported: it is a further output of its node; "
                                 f"leave it out")
            if isinstance(self.tensors[name], Integers):
                raise ValueError(f"output {quoted(name)} is of integers; end the network with its DequantizeLinear")
            if not isinstance(self.tensors[name], Tensor | Host):
                raise ValueError(f"output {quoted(name)} is constant; leave it out")
            for maker in graph.node:
                if name in maker.output and isinstance(self.tensors[name], Tensor):
                    self.tensors[name] = self._settle(self.tensors[name], maker)
        if all(isinstance(self.tensors[name], Tensor) and self._is_map(self.tensors[name]) for name in finals):
            values = tuple(self.tensors[name].value for name in finals)
            if len(set(values)) == len(values):
                return values, HostPart(None)
        nodes, arranged = self._host_nodes(finals)
        values = list(dict.fromkeys(self.tensors[name].value for name in arranged))
        prefix = [helper.make_node("Constant", [], ["all"], value=numpy_helper.from_array(np.array([-1])))]
        for name in arranged:
            tensor = self.tensors[name]
            if tensor.index.min() < 0:
                raise ValueError(f"{quoted(name)} is padded with zeros before the host's part; end the network before "
                                 f"that")
            prefix += [helper.make_node("Reshape", [f"{tensor.value}.map", "all"], [f"{name}.flat"]),
                       helper.make_node("Constant", [], [f"{name}.index"],
                                        value=numpy_helper.from_array(tensor.index)),
                       helper.make_node("Gather", [f"{name}.flat", f"{name}.index"], [name])]
        constants = [numpy_helper.from_array(self.tensors[name], name)
                     for name in dict.fromkeys(name for node in nodes for name in node.input)
                     if name and isinstance(self.tensors[name], np.ndarray)]
        host = helper.make_graph(
            prefix + nodes, "host",
            [helper.make_tensor_value_info(f"{value}.map", TensorProto.FLOAT, (1, *self.shapes[value]))
             for value in values],
            [helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in finals], constants)
        proto = helper.make_model(host, opset_imports=self.proto.opset_import, ir_version=self.proto.ir_version)
        names = [describe(node) for node in nodes]
        names += [f"order of the values of output {quoted(name)}" for name in finals
                  if isinstance(self.tensors[name], Tensor) and not self._is_map(self.tensors[name])]
        return tuple(values), HostPart(proto, tuple(names))

    def _is_map(self, tensor):
        """Whether a tensor holds the values of its map in order."""
        return np.array_equal(tensor.index.reshape(-1), np.arange(np.prod(self.shapes[tensor.value])))

    def _host_nodes(self, finals):
        """The nodes that the host runs, and the tensors that they and the outputs take from the accelerator."""
        makers = {name: node for node in self.proto.graph.node for name in node.output}
        needed, arranged, open_names = set(), [], list(finals)
        while open_names:
            name = open_names.pop()
            if isinstance(self.tensors[name], Tensor):
                arranged.append(name)
            elif isinstance(self.tensors[name], Host) and id(makers[name]) not in needed:
                needed.add(id(makers[name]))
                open_names += [entry for entry in makers[name].input if entry]
        return [node for node in self.proto.graph.node if id(node) in needed], list(dict.fromkeys(arranged))


def evaluate(node: onnx.NodeProto, inputs: list, opsets) -> list[np.ndarray | None]:
    """Results of ``node`` for constant ``inputs`` (None where it has none) by onnx's reference implementation; None
    for outputs that it does not name. ``opsets``: the file's ``opset_import``. ``ValueError`` if it cannot."""
    names = [name for name in node.input if name]
    arrays = {name: np.asarray(value) for name, value in zip(node.input, inputs, strict=True) if name}
    graph = helper.make_graph(
        [node], "node", [helper.make_tensor_value_info(name, helper.np_dtype_to_tensor_dtype(arrays[name].dtype),
                                                       arrays[name].shape) for name in dict.fromkeys(names)],
        [helper.make_tensor_value_info(name, TensorProto.UNDEFINED, None) for name in node.output if name])
    if node.op_type in ("DequantizeLinear", "QuantizeLinear"):
        # The reference has only the newer versions of these; they take the older nodes too.
        opsets = [helper.make_opsetid("", 21)]
    try:
        evaluator = ReferenceEvaluator(helper.make_model(graph, opset_imports=opsets))
        with np.errstate(all="ignore"):
            found = dict(zip([name for name in node.output if name], evaluator.run(None, arrays), strict=True))
    except Exception as error:
        raise ValueError(f"{describe(node)} cannot be computed from its constants: {first_line(error)}") from None
    return [np.asarray(found[name]) if name else None for name in node.output]


def _unsupported(node):
    domain = f" of {node.domain}" if node.domain not in ("", "ai.onnx") else ""
    suggestion = SUGGESTIONS.get(node.op_type, "end the network before it, or train without it")
    return f"{describe(node)}{domain} is not supported: {suggestion}"


def _quantisation(node, scale, zero=None):
    """``(scale, zero point, type)`` of a node that quantises or dequantises a map."""
    if np.size(scale) != 1 or np.size(0 if zero is None else zero) != 1:
        raise ValueError(f"{describe(node)} has a scale for each channel of a map; only one for all is supported")
    scale = float(np.reshape(scale, ()))
    if not 0 < scale < np.inf:
        raise ValueError(f"{describe(node)} has a scale of {scale:g}, which must be above 0 and finite")
    if zero is None:
        return scale, 0, helper.tensor_dtype_to_np_dtype(_attribute(node, "output_dtype", 0) or TensorProto.UINT8)
    return scale, int(zero.reshape(())), zero.dtype


def _scalar(node, values):
    """The only element of an array."""
    if np.size(values) != 1:
        raise ValueError(f"{describe(node)} has {np.size(values)} bounds; only one for all values is supported")
    return np.reshape(values, ())


def _constant(*values):
    return all(value is None or isinstance(value, np.ndarray) for value in values)


def _attribute(node, name, default=None):
    for attribute in node.attribute:
        if attribute.name == name:
            return helper.get_attribute_value(attribute)
    return default


def _pads(node, size, kernel, stride, dilation):
    """(top, left, bottom, right) of a node with a kernel."""
    auto = _attribute(node, "auto_pad", b"NOTSET").decode()
    if auto in ("NOTSET", "VALID"):
        pads = _attribute(node, "pads", (0, 0, 0, 0)) if auto == "NOTSET" else (0, 0, 0, 0)
        if min(pads) < 0:
            raise ValueError(f"{describe(node)} has negative padding, which is not supported")
        return tuple(pads)
    pads = [0, 0, 0, 0]
    for axis in range(2):
        reach = (kernel[axis] - 1) * dilation[axis] + 1
        total = max(0, (-(-size[axis] // stride[axis]) - 1) * stride[axis] + reach - size[axis])
        pads[axis] = total // 2 if auto == "SAME_UPPER" else total - total // 2
        pads[axis + 2] = total - pads[axis]
    return tuple(pads)
