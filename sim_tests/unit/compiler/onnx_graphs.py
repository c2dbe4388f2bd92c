"""ONNX graphs for tests: built node by node, single spellings of each operator, and random networks."""
import numpy as np
import onnx
import onnxruntime
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper

from compiler.onnx import read_proto, run_file, simplify
from compiler.onnx.qonnx import to_qdq

onnxruntime.set_default_logger_severity(4)


class Graph:
    """A graph that grows node by node; ``shapes`` holds the shape of every tensor."""

    def __init__(self, shape=(1, 3, 9, 11), opset=13, seed=0):
        self.opset, self.rng = opset, np.random.default_rng(seed)
        self.nodes, self.constants, self.shapes = [], [], {"x": tuple(shape)}

    def constant(self, values, dtype=np.float32):
        """Name of an initializer."""
        name = f"c{len(self.constants)}"
        self.constants.append(numpy_helper.from_array(np.array(values, dtype), name))
        return name

    def random(self, *shape, scale=1.0, offset=0.0):
        """Name of a random initializer."""
        return self.constant(self.rng.normal(size=shape) * scale + offset)

    def node(self, kind, *inputs, outputs=1, **attributes):
        """Name of the result, or a list of names."""
        names = [f"t{len(self.nodes)}_{n}" for n in range(outputs)]
        self.nodes.append(helper.make_node(kind, inputs, names, f"n{len(self.nodes)}", **attributes))
        self._infer(names)
        return names[0] if outputs == 1 else names

    def _infer(self, names):
        inferred = onnx.shape_inference.infer_shapes(self.proto(names), strict_mode=True, data_prop=True)
        for entry in [*inferred.graph.value_info, *inferred.graph.output]:
            self.shapes[entry.name] = tuple(dim.dim_value for dim in entry.type.tensor_type.shape.dim)

    def proto(self, outputs):
        """The model with these outputs."""
        opsets = [helper.make_opsetid("", self.opset)]
        entries = [helper.make_tensor_value_info(name, TensorProto.FLOAT, self.shapes[name]) if name in self.shapes
                   else onnx.ValueInfoProto(name=name) for name in outputs]
        graph = helper.make_graph(
            self.nodes, "graph", [helper.make_tensor_value_info("x", TensorProto.FLOAT, self.shapes["x"])],
            entries, self.constants)
        # Before version 4 weights had to be listed among the inputs.
        version = max(4, helper.find_min_ir_version_for(opsets))
        return helper.make_model(graph, opset_imports=opsets, ir_version=version)

    # Nodes whose form depends on the opset.

    def clip(self, x, low=None, high=None):
        if self.opset < 11:
            limits = {"min": low, "max": high}
            return self.node("Clip", x, **{key: float(value) for key, value in limits.items() if value is not None})
        return self.node("Clip", x, *("" if value is None else self.constant(value) for value in (low, high)))

    def pad(self, x, pads, value=0.0):
        if self.opset < 11:
            return self.node("Pad", x, pads=list(pads), value=value)
        return self.node("Pad", x, self.constant(pads, np.int64), self.constant(value))

    def with_axes(self, kind, x, axes, since, **attributes):
        """Squeeze, Unsqueeze (axes are an input since opset 13) and reductions (18)."""
        if self.opset < since:
            return self.node(kind, x, axes=list(axes), **attributes)
        return self.node(kind, x, self.constant(axes, np.int64), **attributes)

    def conv(self, x, outputs, kernel=(3, 3), bias=True, groups=1, **attributes):
        channels = self.shapes[x][1]
        fan = channels // groups * kernel[0] * kernel[1]
        weights = self.random(outputs, channels // groups, *kernel, scale=fan ** -0.5)
        inputs = [x, weights, self.random(outputs, scale=0.3)] if bias else [x, weights]
        return self.node("Conv", *inputs, group=groups, kernel_shape=list(kernel), **attributes)

    def batch_norm(self, x):
        channels = self.shapes[x][1]
        return self.node("BatchNormalization", x, self.random(channels, scale=0.3, offset=1),
                         self.random(channels, scale=0.3), self.random(channels, scale=0.3),
                         self.constant(self.rng.uniform(0.5, 2, channels)), epsilon=1e-3)

    def split(self, x, sizes):
        if self.opset < 13:
            return self.node("Split", x, outputs=len(sizes), axis=1, split=list(sizes))
        return self.node("Split", x, self.constant(sizes, np.int64), outputs=len(sizes), axis=1)

    def channels_last(self, x):
        return self.node("Transpose", x, perm=[0, 2, 3, 1])

    def channels_first(self, x):
        return self.node("Transpose", x, perm=[0, 3, 1, 2])


def run_onnx(proto, x):
    """Outputs of ONNX Runtime."""
    # Its own rewriting refuses some networks, such as a pool behind much padding.
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = onnxruntime.InferenceSession(proto.SerializeToString(), options, providers=["CPUExecutionProvider"])
    return session.run(None, {"x": x})


def random_input(graph, seed=0):
    return np.random.default_rng(seed).normal(size=graph.shapes["x"]).astype(np.float32)


def run_imported(proto, x):
    """``(outputs, model)`` of the simplified model and the host's part, for an input in the file's order."""
    model, host = read_proto(onnx.shape_inference.infer_shapes(proto), "net")
    model = simplify(model)
    x = x[0].transpose(2, 0, 1) if x.ndim == 4 and x.shape[1:] != model.input_shape else x.reshape(model.input_shape)
    values = model.run(x)
    if host.proto is None:
        return [values[name] for name in model.outputs], model
    session = onnxruntime.InferenceSession(host.proto.SerializeToString(), providers=["CPUExecutionProvider"])
    return session.run(None, {f"{name}.map": values[name][None] for name in model.outputs}), model


def assert_close(found, expected, message=""):
    """Equal up to the rounding of float32: 1e-4 of the largest value."""
    assert len(found) == len(expected), message
    for one, other in zip(found, expected, strict=True):
        assert one.size == other.size, f"{message}: {one.shape} and {other.shape}"
        np.testing.assert_allclose(one.reshape(other.shape), other, rtol=1e-4,
                                   atol=1e-4 * max(1, np.abs(other).max()), err_msg=message)


#: Spellings by name: a function of a graph that returns the output's name. All opsets unless SINCE says otherwise.
SPELLINGS = {}
SINCE = {}


def spelling(since=8):
    def register(function):
        SPELLINGS[function.__name__] = function
        SINCE[function.__name__] = since
        return function
    return register


@spelling()
def conv(g):
    return g.conv("x", 5, pads=[1, 1, 1, 1])


@spelling()
def conv_without_bias_strided_asymmetric(g):
    return g.conv("x", 5, (3, 2), bias=False, strides=[2, 2], pads=[0, 1, 2, 1])


@spelling()
def conv_same_upper(g):
    return g.conv("x", 4, (3, 4), strides=[2, 2], auto_pad="SAME_UPPER")


@spelling()
def conv_same_lower(g):
    return g.conv("x", 4, (2, 3), auto_pad="SAME_LOWER")


@spelling()
def conv_valid(g):
    return g.conv("x", 4, auto_pad="VALID")


@spelling()
def conv_dilated(g):
    return g.conv("x", 4, dilations=[2, 3], pads=[2, 3, 2, 3])


@spelling()
def conv_grouped(g):
    return g.conv(g.conv("x", 12), 18, groups=3)


@spelling()
def conv_depthwise(g):
    return g.conv(g.conv("x", 40), 40, groups=40, pads=[1, 1, 1, 1])


@spelling()
def conv_depthwise_multiplier(g):
    return g.conv(g.conv("x", 20), 40, groups=20)


@spelling()
def conv_large_kernel_and_stride(g):
    return g.conv("x", 4, (9, 11), strides=[4, 4], pads=[4, 5, 4, 5])


@spelling()
def conv_large_kernel(g):
    return g.conv("x", 4, (9, 9), pads=[4, 4, 4, 4])


@spelling()
def conv_large_dilation(g):
    return g.conv(g.node("Relu", g.conv("x", 4)), 4, dilations=[5, 5], pads=[5, 5, 5, 5])


@spelling()
def conv_stride_beyond_four(g):
    return g.conv("x", 4, (6, 6), strides=[6, 6], pads=[1, 1, 1, 1])


@spelling()
def conv_one_window_with_two_strides(g):
    return g.conv("x", 4, (9, 3), strides=[1, 2], pads=[0, 0, 0, 0])


@spelling()
def conv_weights_through_nodes(g):
    weights = g.node("Transpose", g.random(3, 3, 3, 4), perm=[3, 0, 1, 2])
    return g.node("Conv", "x", g.node("Mul", weights, g.random(4, 1, 1, 1)))


@spelling()
def conv_bias_added(g):
    return g.node("Add", g.conv("x", 5, bias=False), g.random(5, 1, 1))


@spelling()
def batch_norm(g):
    return g.node("Relu", g.batch_norm(g.conv("x", 5)))


@spelling()
def batch_norm_of_input_before_padding(g):
    return g.conv(g.batch_norm("x"), 5, pads=[1, 1, 1, 1])


@spelling()
def batch_norm_before_unpadded_conv(g):
    return g.conv(g.batch_norm("x"), 6, groups=3)


@spelling()
def batch_norm_after_pool(g):
    return g.node("Relu", g.batch_norm(g.node("MaxPool", g.conv("x", 5), kernel_shape=[2, 2], strides=[2, 2])))


@spelling()
def batch_norm_after_add(g):
    return g.node("Relu", g.batch_norm(g.node("Add", g.conv("x", 5), g.conv("x", 5))))


@spelling()
def batch_norm_in_pieces(g):
    x = g.node("Sub", g.conv("x", 5, bias=False), g.random(1, 5, 1, 1))
    x = g.node("Div", x, g.constant(g.rng.uniform(0.5, 2, (1, 5, 1, 1))))
    return g.node("Relu", g.node("Add", g.node("Mul", g.random(5, 1, 1), x), g.random(5, 1, 1)))


@spelling()
def batch_norm_channels_last(g):
    x = g.channels_last(g.conv("x", 5, bias=False))
    x = g.node("Add", g.node("Mul", g.node("Sub", x, g.random(5)), g.random(5)), g.random(1, 1, 1, 5))
    return g.conv(g.channels_first(g.node("Relu", x)), 4, pads=[1, 1, 1, 1])


@spelling()
def constant_minus_map(g):
    return g.node("Relu", g.node("Sub", g.random(5, 1, 1), g.conv("x", 5)))


@spelling()
def neg(g):
    return g.node("Relu", g.node("Neg", g.conv("x", 5)))


@spelling()
def relu6(g):
    return g.clip(g.node("Mul", g.conv("x", 5), g.constant(8)), 0, 6)


@spelling()
def clip_above_only(g):
    return g.clip(g.conv("x", 5), None, 0.5)


@spelling()
def clip_on_both_sides(g):
    x = g.clip(g.conv("x", 20), -0.5, 0.75)
    return g.node("MaxPool", g.clip(g.conv(x, 5), -0.25), kernel_shape=[2, 2], strides=[2, 2])


@spelling()
def relu_then_clip(g):
    return g.clip(g.node("Relu", g.conv("x", 5)), None, 0.5)


@spelling()
def max_with_zero(g):
    return g.node("Max", g.conv("x", 5), g.constant(0.0))


@spelling()
def min_max(g):
    return g.node("Min", g.node("Max", g.constant([0.0]), g.conv("x", 5)), g.constant(1.0))


@spelling()
def relu_of_shared_map(g):
    x = g.conv("x", 5)
    return g.node("Sub", g.node("Relu", x), x)


@spelling()
def leaky_relu(g):
    return g.conv(g.node("LeakyRelu", g.conv("x", 5), alpha=0.2), 4)


@spelling()
def leaky_relu_as_output(g):
    return g.node("LeakyRelu", g.conv("x", 5), alpha=0.2)


@spelling()
def prelu(g):
    return g.conv(g.node("PRelu", g.conv("x", 20), g.random(20, 1, 1)), 4)


@spelling()
def prelu_into_add_and_concat(g):
    a = g.node("PRelu", g.conv("x", 20), g.random(20, 1, 1))
    b = g.node("LeakyRelu", g.node("Add", a, g.conv("x", 20)))
    return g.conv(g.node("Concat", a, b, axis=1), 4, (1, 1))


@spelling()
def max_pool_2(g):
    return g.node("MaxPool", g.conv("x", 5, pads=[1, 1, 1, 1]), kernel_shape=[2, 2], strides=[2, 2])


@spelling()
def max_pool_3(g):
    return g.node("MaxPool", g.node("Relu", g.conv("x", 5)), kernel_shape=[3, 3], strides=[2, 2])


@spelling(10)
def max_pool_ceil(g):
    return g.node("MaxPool", g.conv("x", 5, (2, 2)), kernel_shape=[3, 3], strides=[2, 2], ceil_mode=1)


@spelling(10)
def max_pool_ceil_padded(g):
    return g.node("MaxPool", g.node("Relu", "x"), kernel_shape=[2, 2], strides=[2, 2], ceil_mode=1, pads=[1, 1, 1, 1])


@spelling()
def max_pool_before_relu(g):
    return g.node("Relu", g.node("MaxPool", g.conv("x", 5), kernel_shape=[3, 3], strides=[2, 2], pads=[1, 1, 1, 1]))


@spelling()
def max_pool_padded(g):
    return g.node("MaxPool", g.node("Relu", g.conv("x", 5)), kernel_shape=[3, 3], strides=[2, 2], pads=[1, 1, 1, 1])


@spelling()
def max_pool_same(g):
    return g.node("MaxPool", g.node("Relu", g.conv("x", 5)), kernel_shape=[3, 3], strides=[2, 2],
                  auto_pad="SAME_UPPER")


@spelling()
def max_pool_stride_1(g):
    return g.node("MaxPool", g.node("Relu", g.conv("x", 20)), kernel_shape=[3, 3], pads=[1, 1, 1, 1])


@spelling()
def max_pool_5_stride_1(g):
    return g.node("MaxPool", g.node("Relu", g.conv("x", 4)), kernel_shape=[5, 5], pads=[2, 2, 2, 2])


@spelling()
def max_pool_of_signed_map(g):
    return g.node("MaxPool", g.conv("x", 4), kernel_shape=[3, 2], strides=[3, 3])


@spelling()
def max_pool_and_its_input(g):
    x = g.node("Relu", g.conv("x", 5, pads=[1, 1, 0, 1], strides=[2, 2]))
    pooled = g.node("MaxPool", g.conv(x, 4, pads=[1, 1, 1, 1]), kernel_shape=[2, 2], strides=[2, 2])
    return g.node("Add", pooled, g.conv(g.node("MaxPool", x, kernel_shape=[2, 2], strides=[2, 2]), 4, (1, 1)))


@spelling()
def global_max_pool(g):
    return g.node("GlobalMaxPool", g.conv("x", 5))


@spelling()
def padding_before_max_pool(g):
    x = g.pad(g.conv("x", 5), [0, 0, 1, 1, 0, 0, 1, 1], -np.inf)
    return g.node("Relu", g.node("MaxPool", x, kernel_shape=[3, 3], strides=[2, 2]))


@spelling()
def average_pool(g):
    return g.node("AveragePool", g.node("Relu", g.conv("x", 20)), kernel_shape=[2, 3], strides=[2, 2])


@spelling()
def average_pool_counting_padding(g):
    return g.node("AveragePool", g.conv("x", 5), kernel_shape=[3, 3], pads=[1, 1, 1, 1], count_include_pad=1)


@spelling()
def global_average_pool(g):
    return g.node("GlobalAveragePool", g.conv("x", 20))


@spelling()
def global_average_pool_of_large_map(g):
    return g.node("GlobalAveragePool", g.node("Relu", g.conv(g.pad("x", [0, 0, 10, 0, 0, 0, 11, 5]), 4)))


@spelling()
def reduce_mean(g):
    return g.with_axes("ReduceMean", g.conv("x", 5), (2, 3), 18, keepdims=0)


@spelling()
def reduce_mean_channels_last(g):
    x = g.with_axes("ReduceMean", g.channels_last(g.conv("x", 5)), (1, 2), 18, keepdims=0)
    return g.node("MatMul", x, g.random(5, 7))


@spelling()
def residual_add(g):
    a = g.node("Relu", g.conv("x", 40))
    return g.node("Relu", g.node("Add", g.conv(a, 40, pads=[1, 1, 1, 1]), a))


@spelling()
def add_of_input(g):
    return g.node("Add", g.conv("x", 3, pads=[1, 1, 1, 1]), "x")


@spelling()
def sub_of_maps(g):
    return g.node("Sub", g.conv("x", 20), g.node("Mul", g.conv("x", 20), g.random(20, 1, 1)))


@spelling()
def sum_of_three(g):
    return g.node("Sum", g.conv("x", 20), g.conv("x", 20), g.conv("x", 20))


@spelling()
def add_to_itself(g):
    x = g.conv("x", 5)
    return g.node("Add", x, x)


@spelling()
def concat(g):
    parts = [g.node("Relu", g.conv("x", 20)), g.conv("x", 7), g.node("Relu", g.conv("x", 33))]
    return g.conv(g.node("Concat", *parts, axis=1), 9)


@spelling()
def concat_as_output(g):
    return g.node("Concat", g.conv("x", 16), g.conv("x", 7), axis=1)


@spelling()
def concat_with_input(g):
    return g.conv(g.node("Concat", "x", g.conv("x", 5, pads=[1, 1, 1, 1]), axis=1), 4)


@spelling()
def concat_channels_last(g):
    parts = [g.channels_last(g.conv("x", count)) for count in (5, 6)]
    return g.conv(g.channels_first(g.node("Concat", *parts, axis=3)), 9)


@spelling()
def concat_in_concat(g):
    a = g.conv("x", 5)
    b = g.node("Concat", a, g.node("Relu", g.conv("x", 20)), axis=1)
    c = g.node("Concat", b, g.conv(b, 7, (1, 1)), axis=1)
    return g.conv(g.node("Concat", a, c, axis=1), 8)


@spelling()
def map_in_two_concats(g):
    a, b = g.conv("x", 20), g.conv("x", 5)
    return g.node("Add", g.conv(g.node("Concat", a, b, axis=1), 4), g.conv(g.node("Concat", b, a, axis=1), 4))


@spelling()
def batch_norm_after_concat(g):
    return g.node("Relu", g.batch_norm(g.node("Concat", g.conv("x", 5), g.conv("x", 20), axis=1)))


@spelling()
def split_and_shuffle(g):
    a, b = g.split(g.node("Relu", g.conv("x", 12)), (4, 8))
    x = g.node("Concat", g.conv(a, 8, pads=[1, 1, 1, 1]), b, axis=1)
    rows, columns = g.shapes[x][2:]
    x = g.node("Reshape", x, g.constant([1, 2, 8, rows, columns], np.int64))
    x = g.node("Reshape", g.node("Transpose", x, perm=[0, 2, 1, 3, 4]),
               g.constant([1, 16, rows, columns], np.int64))
    return g.conv(x, 16, groups=4)


@spelling()
def strided_shortcut_with_zero_channels(g):
    x = g.node("Relu", g.conv("x", 6, pads=[1, 1, 1, 1]))
    if g.opset < 10:
        short = g.conv(x, 6, (1, 1), strides=[2, 2])
    else:
        short = g.node("Slice", x, *(g.constant(v, np.int64) for v in ([0, 0], [99, 99], [2, 3], [2, 2])))
    return g.node("Add", g.pad(short, [0, 3, 0, 0, 0, 3, 0, 0]), g.conv(x, 12, strides=[2, 2], pads=[1, 1, 1, 1]))


@spelling()
def padding_before_conv(g):
    return g.conv(g.pad("x", [0, 0, 1, 2, 0, 0, 0, 1]), 4, pads=[1, 1, 1, 1])


@spelling()
def flatten_gemm(g):
    x = g.node("Flatten", g.conv("x", 5))
    return g.node("Gemm", x, g.random(10, g.shapes[x][1], scale=0.1), g.random(10), transB=1, alpha=0.5, beta=2.0)


@spelling()
def flatten_of_large_map(g):
    x = g.node("Flatten", g.node("Relu", g.conv("x", 5, pads=[1, 1, 1, 1])))
    return g.node("Gemm", x, g.random(g.shapes[x][1], 10, scale=0.1), g.random(10))


@spelling()
def flatten_channels_last(g):
    x = g.channels_last(g.node("Relu", g.conv("x", 5)))
    x = g.node("Reshape", x, g.constant([1, -1], np.int64))
    x = g.node("MatMul", x, g.random(g.shapes[x][1], 10, scale=0.1))
    return g.node("MatMul", g.node("Relu", g.node("Add", x, g.random(10))), g.random(10, 3))


@spelling()
def flatten_with_computed_shape(g):
    x = g.conv("x", 5)
    count = g.node("Gather", g.node("Shape", x), g.constant(0, np.int64))
    shape = g.node("Concat", g.with_axes("Unsqueeze", count, [0], 13), g.constant([-1], np.int64), axis=0)
    x = g.node("Reshape", x, shape)
    size = int(np.prod(g.shapes[g.nodes[0].output[0]]))
    return g.node("MatMul", x, g.random(size, 10, scale=0.1))


@spelling()
def squeeze_before_gemm(g):
    x = g.with_axes("Squeeze", g.node("GlobalAveragePool", g.conv("x", 5)), [2, 3], 13)
    return g.node("Softmax", g.node("Gemm", x, g.random(5, 4), g.random(4)), axis=1)


@spelling()
def dense_pixel_by_pixel(g):
    x = g.node("Add", g.node("MatMul", g.channels_last("x"), g.random(3, 8)), g.random(8))
    return g.conv(g.channels_first(g.node("Relu", x)), 4)


@spelling()
def dropout_identity_cast(g):
    x = g.node("Cast", g.node("Identity", g.node("Dropout", g.conv("x", 5))), to=TensorProto.FLOAT)
    return g.node("Relu", x)


@spelling()
def sigmoid_at_the_end(g):
    return g.node("Sigmoid", g.conv("x", 5))


@spelling()
def transposed_output(g):
    return g.channels_last(g.conv("x", 5))


@spelling()
def depth_to_space_at_the_end(g):
    return g.node("DepthToSpace", g.conv("x", 12), blocksize=2)


@spelling()
def heads_of_two_sizes(g):
    heads = []
    for stride in (1, 2):
        x = g.channels_last(g.conv("x", 4, strides=[stride, stride]))
        heads.append(g.node("Reshape", x, g.constant([1, -1, 2], np.int64)))
    return g.node("Softmax", g.node("Concat", *heads, axis=1), axis=2)


# Networks that were quantised before.

class QuantisedGraph(Graph):
    """A graph with quantised weights and activations, all scales powers of two unless told; ``scales`` holds those of
    what :meth:`rounded` has made."""

    def __init__(self, *arguments, **options):
        super().__init__(*arguments, **options)
        self.scales = {}

    def rounded(self, x, bits, signed, narrow, offset=0):
        """``x`` rounded to integers of ``bits``; those next to each other are 2**offset of what would hold all of
        it."""
        low = narrow - 2 ** (bits - 1) if signed else 0
        high = 2 ** (bits - signed) - 1 - (narrow and not signed)
        values, = run_file(to_qdq(self.proto([x]), "graph"), self.rng.normal(size=self.shapes["x"]))
        scale = 2.0 ** (round(np.log2(max(np.abs(values).max(), 2**-8) / high)) + offset)
        name = self.quantised(x, scale, np.int8 if signed else np.uint8, (low, high))
        self.scales[name] = scale
        return name

    def quantised(self, x, scale, kind=np.int8, bounds=None, zero=0):
        """QuantizeLinear, Clip where there are ``bounds``, DequantizeLinear."""
        constants = [self.constant(scale), self.constant(zero, kind)]
        x = self.node("QuantizeLinear", x, *constants)
        if bounds:
            x = self.node("Clip", x, *(self.constant(bound, kind) for bound in bounds))
        return self.node("DequantizeLinear", x, *constants)

    def quantised_conv(self, x, outputs, in_scale, kernel=(3, 3), groups=1, bits=8, **attributes):
        """A convolution with integer weights and biases and a scale for each output channel."""
        shape = (outputs, self.shapes[x][1] // groups, *kernel)
        high = 2 ** (bits - 1) - 1
        scale = 2.0 ** self.rng.integers(-8, -5, outputs)
        weights = self.node("DequantizeLinear", self.constant(self.rng.integers(-high, high + 1, shape), np.int8),
                            self.constant(scale), self.constant(np.zeros(outputs), np.int8), axis=0)
        bias = self.node("DequantizeLinear", self.constant(self.rng.integers(-500, 501, outputs), np.int32),
                         self.constant(scale * in_scale), self.constant(np.zeros(outputs), np.int32), axis=0)
        return self.node("Conv", x, weights, bias, group=groups, **attributes)


class QonnxGraph(QuantisedGraph):
    """The same with the Quant nodes of QONNX."""

    def __init__(self, domain="qonnx.custom_op.general", **options):
        self.domain, self.quants = domain, []
        super().__init__(**options)

    def proto(self, outputs):
        proto = super().proto(outputs)
        proto.opset_import.append(helper.make_opsetid(self.domain, 1))
        # Nobody infers shapes behind nodes of another domain.
        proto.graph.value_info.extend(helper.make_tensor_value_info(name, TensorProto.FLOAT, self.shapes[name])
                                      for name in self.quants if name not in outputs)
        return proto

    def quant(self, x, scale, bits, *, zero=0, kind="Quant", signed=1, narrow=0, rounding_mode="ROUND"):
        """A Quant node; constants as numbers, arrays or names of tensors."""
        inputs = [value if isinstance(value, str) else self.constant(value) for value in (scale, zero, bits)]
        shape = next((list(tensor.dims) for tensor in self.constants if tensor.name == x), None)
        name = f"t{len(self.nodes)}_0"
        self.shapes[name] = self.shapes[x] if shape is None else tuple(shape)
        self.nodes.append(helper.make_node(kind, [x, *inputs], [name], f"n{len(self.nodes)}", domain=self.domain,
                                           signed=signed, narrow=narrow, rounding_mode=rounding_mode))
        self.quants.append(name)
        return name

    def quantised(self, x, scale, kind=np.int8, bounds=None, zero=0):
        signed = int(np.iinfo(kind).min < 0)
        bits = bounds[1].bit_length() + signed if bounds else np.iinfo(kind).bits
        narrow = bounds not in (None, (-(1 << bits - 1) if signed else 0, (1 << bits - signed) - 1))
        return self.quant(x, scale, bits, zero=zero, signed=signed, narrow=int(narrow))

    def quantised_conv(self, x, outputs, in_scale, kernel=(3, 3), groups=1, bits=8, **attributes):
        shape = (outputs, self.shapes[x][1] // groups, *kernel)
        scale = 2.0 ** self.rng.integers(-8, -5, outputs)
        # A few values beyond the bounds.
        reals = self.rng.normal(size=shape) * 2 ** (bits - 2) * scale.reshape(-1, 1, 1, 1)
        weights = self.quant(self.constant(reals), scale.reshape(-1, 1, 1, 1), bits, narrow=1)
        bias = self.quant(self.constant(self.rng.uniform(-500, 500, outputs) * scale * in_scale), scale * in_scale, 32)
        return self.node("Conv", x, weights, bias, group=groups, **attributes)


def _qdq_plain_chain(g, x):
    x = g.quantised(g.node("Relu", g.quantised_conv(x, 20, 2**-5)), 2**-3, np.uint8)
    x = g.node("MaxPool", x, kernel_shape=[2, 2], strides=[2, 2])
    x = g.quantised(x, 2**-3, np.uint8)
    return g.quantised(g.quantised_conv(x, 7, 2**-3), 2**-1)


def _qdq_without_relu_nodes(g, x):
    x = g.quantised(g.quantised_conv(x, 20, 2**-5, strides=[2, 2]), 2**-2, np.uint8)
    return g.quantised(g.quantised_conv(x, 20, 2**-2, groups=20), 2**-1)


def _qdq_residual(g, x):
    x = g.quantised(g.node("Relu", g.quantised_conv(x, 20, 2**-5)), 2**-3)
    y = g.quantised(g.quantised_conv(x, 20, 2**-3, pads=[1, 1, 1, 1]), 2**-1)
    return g.quantised(g.node("Relu", g.node("Add", x, y)), 2**-1, np.int8)


def _qdq_few_bits(g, x):
    x = g.quantised(g.node("Relu", g.quantised_conv(x, 18, 2**-5, bits=4)), 2**-4, np.uint8, (0, 15))
    return g.quantised(g.quantised_conv(x, 9, 2**-4, bits=3), 2**-6)


def _qdq_few_bits_with_signs(g, x):
    x = g.quantised(g.quantised(x, 2**-4, np.int8, (-32, 31)), 2**-3, np.int8, (-15, 15))
    x = g.quantised(g.quantised_conv(x, 18, 2**-3, bits=4, pads=[1, 1, 1, 1]), 2**-3, np.int8, (-8, 7))
    y = g.quantised(g.quantised_conv(x, 18, 2**-3, bits=4, pads=[1, 1, 1, 1]), 2**-4, np.int8, (-31, 31))
    z = g.quantised(g.node("Add", x, y), 2**-2, np.int8, (-4, 3))
    return g.node("Concat", z, y, axis=1)


def _qdq_concat_of_scales(g, x):
    a = g.quantised(g.node("Relu", g.quantised_conv(x, 5, 2**-5)), 2**-3)
    b = g.quantised(g.node("Relu", g.quantised_conv(x, 20, 2**-5)), 2**-3)
    return g.quantised(g.quantised_conv(g.node("Concat", a, b, axis=1), 7, 2**-3), 2**0)


def _qdq_any_max_pool(g, x):
    x = g.quantised(g.node("Relu", g.quantised_conv(x, 5, 2**-5)), 2**-3)
    x = g.node("MaxPool", x, kernel_shape=[3, 3], pads=[1, 1, 1, 1])
    return g.quantised(g.quantised_conv(x, 7, 2**-3), 2**0)


#: Functions by name: of a graph and its quantised input; the output is a DequantizeLinear.
QUANTISED = {
    "plain_chain": _qdq_plain_chain,
    "without_relu_nodes": _qdq_without_relu_nodes,
    "residual": _qdq_residual,
    "few_bits": _qdq_few_bits,
    "few_bits_with_signs": _qdq_few_bits_with_signs,
    "concat_of_scales": _qdq_concat_of_scales,
    "any_max_pool": _qdq_any_max_pool,
}


# Steps of random networks of this kind: of a graph, a tensor in ``scales`` and the arguments of ``rounded``.

def _rounded_conv(g, x, grid, outputs=None, **attributes):
    outputs = outputs or int(g.rng.integers(1, 20))
    attributes = attributes or {"pads": [1, 0, 1, 2], "strides": [1 + int(g.rng.integers(2))] * 2}
    if attributes.get("strides") == [2, 2] and min(g.shapes[x][2:]) < 4:
        attributes["strides"] = [1, 1]
    return g.rounded(g.quantised_conv(x, outputs, g.scales[x], bits=int(g.rng.integers(2, 9)), **attributes), *grid)


def _rounded_relu(g, x, grid):
    return g.rounded(g.node("Relu", g.quantised_conv(x, 18, g.scales[x], pads=[1, 1, 1, 1])), *grid)


def _rounded_clip(g, x, grid):
    y = g.quantised_conv(x, 9, g.scales[x], pads=[1, 1, 1, 1])
    return g.rounded(g.clip(y, -g.scales[x] * 21, g.scales[x] * 13.5), *grid)


def _rounded_residual(g, x, grid):
    y = _rounded_conv(g, x, (5, 1, 1, int(g.rng.integers(-1, 2))), g.shapes[x][1], pads=[1, 1, 1, 1])
    return g.rounded(g.node("Add", x, y), *grid) if _near(g, x, y) else y


def _near(g, x, y):
    """Whether one weight of 8 bits can hold the ratio of two scales."""
    return 1 / 64 <= g.scales[x] / g.scales[y] <= 64


def _rounded_concat(g, x, grid):
    y = _rounded_conv(g, x, (6, 1, 0, -1), 5, pads=[1, 1, 1, 1])
    return g.rounded(g.node("Concat", *((x, y) if g.rng.random() < 0.5 else (y, x)), axis=1), *grid)


def _concat_of_scales(g, x, grid):
    y = _rounded_conv(g, x, grid, 17, pads=[1, 1, 1, 1])
    if not _near(g, x, y):
        return y
    name = g.node("Concat", y, x, axis=1)
    g.scales[name] = min(g.scales[x], g.scales[y])
    # Weights of two bits leave room for the ratio of the scales.
    return g.rounded(g.quantised_conv(name, 7, g.scales[name], (1, 1), bits=2), 7, 1, 0)


def _pool_of_rounded(g, x, grid):
    name = g.node("MaxPool", g.rounded(x, *grid), kernel_shape=[2, 3], strides=[1, 1])
    g.scales[name] = g.scales[g.nodes[-1].input[0]]
    return name


def _rounded_pool(g, x, grid):
    y = g.quantised_conv(x, 5, g.scales[x], pads=[1, 1, 1, 1])
    return g.rounded(g.node("MaxPool", y, kernel_shape=[2, 2], strides=[2, 2]), *grid)


def _rounded_shortcut(g, x, grid):
    x = g.rounded(x, *grid)
    y = g.pad(x, [0, 3, 0, 0, 0, 3, 0, 0])
    z = _rounded_conv(g, x, (4, 1, 0), g.shapes[y][1], pads=[1, 1, 1, 1])
    return g.rounded(g.node("Add", y, z), 7, 1, 0) if _near(g, x, z) else z


def _large_kernel(g, x, grid):
    return _rounded_conv(g, x, grid, 4, kernel=(9, 1), pads=[4, 0, 4, 0])


QUANTISED_STEPS = {
    "conv": _rounded_conv, "relu": _rounded_relu, "clip": _rounded_clip, "residual": _rounded_residual,
    "concat": _rounded_concat, "concat_of_scales": _concat_of_scales, "pool_of_rounded": _pool_of_rounded,
    "rounded_pool": _rounded_pool, "shortcut": _rounded_shortcut, "large_kernel": _large_kernel,
    "reround": lambda g, x, grid: g.rounded(x, *grid),
}


#: Steps, each with bits, sign, narrow and the power of two beside the scale that holds all.
QUANTISED_GRIDS = st.lists(st.tuples(st.sampled_from(sorted(QUANTISED_STEPS)), st.tuples(
    st.integers(2, 8), st.integers(0, 1), st.integers(0, 1), st.integers(-2, 1))), min_size=2, max_size=6)


def random_quantised(graph, steps):
    """The output of ``steps``, pairs of a name of QUANTISED_STEPS and arguments of ``QuantisedGraph.rounded``, the
    first of which are for the input."""
    x = graph.rounded("x", *steps[0][1])
    for step, grid in steps[1:]:
        if min(graph.shapes[x][2:]) >= 3:
            x = QUANTISED_STEPS[step](graph, x, grid)
    return x


# Random networks.

def _random_conv(g, x):
    rng, (_, channels, height, width) = g.rng, g.shapes[x]
    kernel = [int(rng.integers(1, min(5, size) + 1)) for size in (height, width)]
    groups = int(rng.choice([n for n in (1, 2, 4, channels) if channels % n == 0]))
    outputs = groups * int(rng.integers(1, max(2, 24 // groups)))
    dilation = [int(rng.integers(1, 3)) if (taps - 1) * 2 < size else 1
                for taps, size in zip(kernel, (height, width), strict=True)]
    stride = int(rng.integers(1, 4))
    pads = [int(rng.integers(0, taps)) for taps in kernel * 2]
    return g.conv(x, outputs, kernel, groups=groups, strides=[stride] * 2, dilations=dilation, pads=pads)


def _random_residual(g, x):
    channels = g.shapes[x][1]
    y = g.conv(x, channels, pads=[1, 1, 1, 1])
    return g.node(str(g.rng.choice(["Add", "Sub"])), *((x, y) if g.rng.random() < 0.5 else (y, x)))


def _random_concat(g, x):
    y = g.conv(g.node("Relu", x), int(g.rng.integers(1, 20)), (1, 1))
    return g.node("Concat", *((x, y) if g.rng.random() < 0.5 else (y, x)), axis=1)


def _random_affine(g, x):
    kind, channels = str(g.rng.choice(["Add", "Sub", "Mul", "Div"])), g.shapes[x][1]
    constant = g.constant(g.rng.uniform(0.5, 1.5, (channels, 1, 1)) * g.rng.choice([-1, 1]))
    return g.node(kind, x, constant)


def _random_channels_last(g, x):
    y = g.channels_last(x)
    y = g.node(str(g.rng.choice(["Mul", "Add"])), y, g.random(g.shapes[x][1]))
    return g.channels_first(g.node("Relu", y))


def _random_max_pool(g, x):
    kernel, stride = [int(n) for n in g.rng.integers(2, 4, 2)], int(g.rng.integers(1, 4))
    pads = [int(g.rng.integers(0, taps)) for taps in kernel * 2] if g.rng.random() < 0.5 else [0] * 4
    return g.node("MaxPool", g.node("Relu", x), kernel_shape=kernel, strides=[stride] * 2, pads=pads)


def _random_average_pool(g, x):
    return g.node("AveragePool", x, kernel_shape=[2, 3], strides=[int(g.rng.integers(1, 3))] * 2, pads=[1, 0, 0, 2],
                  count_include_pad=1)


def _random_shuffle(g, x):
    channels = g.shapes[x][1]
    first = int(g.rng.integers(1, channels)) if channels > 1 else 0
    if not first:
        return x
    a, b = g.split(x, (first, channels - first))
    return g.node("Concat", b, a, axis=1)


STEPS = {
    "conv": _random_conv, "residual": _random_residual, "concat": _random_concat, "affine": _random_affine,
    "channels_last": _random_channels_last, "max_pool": _random_max_pool, "average_pool": _random_average_pool,
    "shuffle": _random_shuffle, "batch_norm": Graph.batch_norm,
    "relu": lambda g, x: g.node("Relu", x), "relu6": lambda g, x: g.clip(x, 0, 1.5),
    "leaky": lambda g, x: g.node("LeakyRelu", x, alpha=0.3),
    "prelu": lambda g, x: g.node("PRelu", x, g.random(g.shapes[x][1], 1, 1)),
    "pad": lambda g, x: g.pad(x, [0, 0, 1, 0, 0, 0, 2, 1]),
}


def random_graph(steps, seed, opset, head):
    """``(graph, output)`` of a network of ``steps`` (names of STEPS) with random sizes; those that do not fit are left
    out. ``head``: a fully connected layer and a Softmax at the end."""
    rng = np.random.default_rng(seed)
    graph = Graph((1, int(rng.integers(1, 20)), int(rng.integers(4, 12)), int(rng.integers(4, 12))), opset, seed)
    x = "x"
    for step in steps:
        if min(graph.shapes[x][2:]) >= 3:
            x = STEPS[step](graph, x)
    if not {node.op_type for node in graph.nodes} - {"Concat", "Pad", "Split"}:
        x = graph.conv(x, 6, (1, 1))
    if head:
        x = graph.node("Flatten", x)
        x = graph.node("Softmax", graph.node("MatMul", x, graph.random(graph.shapes[x][1], 5, scale=0.1)), axis=1)
    return graph, x
