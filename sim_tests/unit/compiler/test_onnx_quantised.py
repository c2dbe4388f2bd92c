"""Files that were quantised before: QDQ and QCDQ against ONNX Runtime, integer by integer."""
import re

import ml_dtypes
import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static

from compiler.cli import signal_to_noise
from compiler.emit import compile_network
from compiler.lower import lower
from compiler.onnx import load_proto, read_proto, simplify
from compiler.quantise import quantise
from golden.network import run_network
from hw.configs import CONFIGS
from sim_tests.unit.compiler.onnx_graphs import (
    QUANTISED,
    QUANTISED_GRIDS,
    Graph,
    QuantisedGraph,
    random_quantised,
    run_onnx,
)

TINY, NULLHOP = CONFIGS["tiny"], CONFIGS["nullhop"]


def compare(graph, output, seed, config=TINY):
    """``(integers, expected)`` of golden and ONNX Runtime for the output, in multiples of its scale."""
    proto = graph.proto([output])
    model = simplify(read_proto(onnx.shape_inference.infer_shapes(proto), "net")[0])
    rng = np.random.default_rng(seed)
    inputs = [rng.normal(size=model.input_shape).astype(np.float32) for _ in range(3)]
    lowered = lower(model, config)
    quantised = quantise(lowered.network, inputs, config)
    compile_network(quantised, config)
    place = lowered.outputs[output]
    found = run_network(quantised, quantised.quantise_input(inputs[0]))[0][place]
    expected = run_onnx(proto, inputs[0][None])[0][0].reshape(found.shape) / quantised.scales[place][:, None, None]
    return found, expected


@pytest.mark.parametrize("build", QUANTISED.values(), ids=QUANTISED)
@pytest.mark.parametrize("seed", [0, 1])
def test_powers_of_two_are_exact(build, seed):
    graph = QuantisedGraph(opset=13, seed=seed)
    found, expected = compare(graph, build(graph, graph.quantised("x", 2**-5)), seed)
    assert len(np.unique(found)) > 10, f"seed {seed}"
    np.testing.assert_array_equal(found, expected, err_msg=f"seed {seed}")


def test_bounds_that_the_next_scale_rounds_away_from_zero_are_exact():
    graph = QuantisedGraph(opset=13, seed=0)
    # 7 quarters become 4 halves, and their differences up to 8.
    x = graph.quantised(graph.quantised("x", 2**-2, bounds=(-7, 7)), 2**-1)
    found, expected = compare(graph, graph.node("MaxPool", x, kernel_shape=[3, 3]), 0)
    assert found.max() == 4
    np.testing.assert_array_equal(found, expected)


@settings(max_examples=40, deadline=None, derandomize=True)
@given(steps=QUANTISED_GRIDS, seed=st.integers(0, 2**32 - 1), config=st.sampled_from([TINY, NULLHOP]))
def test_any_bit_width_is_exact(steps, seed, config):
    graph, message = QuantisedGraph(seed=seed), f"{steps}, seed {seed}, config {config.name}"
    output = random_quantised(graph, steps)
    try:
        found, expected = compare(graph, output, seed, config)
    except ValueError as error:
        # Differences and unsigned values of 8 bits do not fit signed ones.
        assert config is TINY and any(bits == 8 for _, (bits, *_) in steps), message
        assert re.search("node '.*' gives unsigned values of 8 bits that are read together with signed ones",
                         str(error)), message
        return
    np.testing.assert_array_equal(found, expected, err_msg=message)


@pytest.mark.parametrize(("kind", "bounds", "zero", "config"), [
    (np.uint8, (10, 200), 100, TINY), (np.uint8, None, 128, TINY), (np.uint8, None, 100, NULLHOP),
    (np.int8, None, 3, NULLHOP), (np.uint8, (3, 10), 3, TINY)])
def test_zero_points_within_the_range_are_exact(kind, bounds, zero, config):
    graph = QuantisedGraph(seed=7)
    x = graph.quantised("x", 2**-5, kind, bounds, zero)
    output = graph.quantised(graph.quantised_conv(x, 20, 2**-5, bits=5), 2**-4, kind, bounds, zero)
    found, expected = compare(graph, output, 7, config)
    assert len(np.unique(found)) > 5
    np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize("kind", ["INT4", "UINT4", "INT16"])
def test_types_of_new_opsets(kind):
    kind = onnx.TensorProto.DataType.Value(kind)
    graph = QuantisedGraph(opset=21, seed=8)

    def rounded(x, exponent):
        graph.constants.append(onnx.helper.make_tensor(f"zero{exponent}", kind, [], [0]))
        parameters = graph.constant(2.0**exponent), f"zero{exponent}"
        return graph.node("DequantizeLinear", graph.node("QuantizeLinear", x, *parameters), *parameters)

    config = NULLHOP if kind == onnx.TensorProto.INT16 else TINY
    found, expected = compare(graph, rounded(graph.quantised_conv(rounded("x", -2), 9, 2**-2, bits=3), -5), 8, config)
    assert len(np.unique(found)) > 7
    np.testing.assert_array_equal(found, expected)


def test_the_type_of_a_node_without_a_zero_point():
    graph = QuantisedGraph(opset=21, seed=9)
    x = graph.node("QuantizeLinear", "x", graph.constant(2**-5), output_dtype=onnx.TensorProto.INT8)
    output = graph.quantised(graph.quantised_conv(graph.node("DequantizeLinear", x, graph.constant(2**-5)), 5, 2**-5),
                             2**-1)
    found, expected = compare(graph, output, 9)
    assert found.min() < 0
    np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize(("kind", "sign"), [(np.int8, 1), (np.uint8, -1)])
def test_the_file_says_whether_the_input_is_signed(kind, sign):
    graph = QuantisedGraph(seed=3)
    output = graph.quantised(graph.quantised_conv(graph.quantised("x", 2**-6, kind), 5, 2**-6, bits=4), 2**-4)
    proto = graph.proto([output])
    model = simplify(read_proto(onnx.shape_inference.infer_shapes(proto), "net")[0])
    # Beyond the range on the side that calibration does not show.
    inputs = sign * np.linspace(0, 5, np.prod(model.input_shape), dtype=np.float32).reshape(model.input_shape)
    lowered = lower(model, TINY)
    quantised = quantise(lowered.network, [inputs], TINY)
    for x in (inputs, -inputs):
        place, = lowered.outputs.values()
        found = quantised.dequantise(place, run_network(quantised, quantised.quantise_input(x))[0][place])
        np.testing.assert_array_equal(found, run_onnx(proto, x[None])[0][0])


@pytest.mark.parametrize(("build", "layers"), [
    (lambda g, x: g.quantised(g.node("MaxPool", g.node("Relu", g.quantised_conv(x, 5, 1)), kernel_shape=[2, 2],
                                     strides=[2, 2]), 1, np.int8, (-8, 7)), 1),
    (lambda g, x: g.quantised(g.clip(g.quantised_conv(x, 5, 1), -3, 3), 1, np.int8, (-8, 7)), 1),
    (lambda g, x: g.quantised(g.quantised(g.quantised_conv(x, 5, 1), 1), 1, np.int8, (-8, 7)), 1),
    (lambda g, x: g.quantised(g.node("Concat", g.quantised_conv(x, 16, 1), g.quantised_conv(x, 5, 1), axis=1), 1), 2),
    (lambda g, x: g.quantised_conv(g.quantised(g.pad("x", [0, 0, 1, 1, 0, 0, 1, 1]), 1), 5, 1), 1),
    (lambda g, x: g.quantised_conv(g.quantised("x", 1, np.int8, (-8, 7)), 5, 1), 2),
])
def test_rounding_costs_no_layer(build, layers):
    graph = QuantisedGraph()
    output = build(graph, graph.quantised("x", 1))
    assert len(lower(simplify(read_proto(graph.proto([output]), "net")[0]), TINY).network.layers) == layers


def test_biases_that_were_not_rounded():
    """They are rounded to the scale of the sums, and the difference that this makes is measured."""
    graph = QuantisedGraph(seed=2)
    x = graph.quantised("x", 2**-5)
    # With weights of 8 bits the scale of the sums cannot be finer than that of the weights.
    weights = graph.node("DequantizeLinear", graph.constant(graph.rng.integers(-127, 128, (6, 3, 3, 3)), np.int8),
                         graph.constant(2**-3), graph.constant(0, np.int8))
    outputs = [graph.quantised(graph.node("Conv", x, weights, graph.constant(bias)), 2**-7)
               for bias in (graph.rng.integers(-50, 50, 6) * 2**-8, graph.rng.normal(size=6) * 0.01)]
    ratios = []
    for output in outputs:
        model = simplify(read_proto(onnx.shape_inference.infer_shapes(graph.proto([output])), "net")[0])
        lowered, x = lower(model, TINY), graph.rng.uniform(-0.1, 0.1, model.input_shape).astype(np.float32)
        ratios.append(signal_to_noise(model, lowered, quantise(lowered.network, [x], TINY), x)[output])
    assert ratios[0] == 300 and 30 < ratios[1] < 100


def test_other_scales_are_within_one():
    graph = QuantisedGraph(opset=13)
    x = graph.quantised("x", 0.0301)
    x = graph.quantised(graph.node("Relu", graph.quantised_conv(x, 20, 0.0301)), 0.117, np.uint8)
    found, expected = compare(graph, graph.quantised(graph.quantised_conv(x, 7, 0.117), 0.61), 0)
    difference = np.abs(found - np.rint(expected))
    assert difference.max() <= 1 and (difference == 0).mean() > 0.98


class Inputs(CalibrationDataReader):
    def __init__(self):
        self.inputs = iter([{"x": x} for x in np.random.default_rng(5).normal(size=(8, 1, 3, 12, 12)).astype("f4")])

    def get_next(self):
        return next(self.inputs, None)


def test_static_quantisation_of_onnx_runtime(tmp_path):
    graph = Graph((1, 3, 12, 12), opset=13, seed=1)
    x = graph.node("Relu", graph.conv("x", 20))
    y = graph.node("Relu", graph.node("Add", graph.conv(x, 20, pads=[1, 1, 1, 1]), x))
    y = graph.node("MaxPool", y, kernel_shape=[2, 2], strides=[2, 2])
    y = graph.node("Concat", y, graph.node("Relu", graph.conv(y, 10, (1, 1))), axis=1)
    y = graph.node("Flatten", graph.node("GlobalAveragePool", graph.node("Relu", graph.conv(y, 30))))
    y = graph.node("Gemm", y, graph.random(30, 6), graph.random(6))
    onnx.save(graph.proto([y]), tmp_path / "float.onnx")
    quantize_static(tmp_path / "float.onnx", tmp_path / "net.onnx", Inputs(), quant_format=QuantFormat.QDQ,
                    per_channel=True, activation_type=QuantType.QInt8, extra_options={"ActivationSymmetric": True})
    proto = load_proto(tmp_path / "net.onnx")
    model = simplify(read_proto(proto, "net")[0])
    x = np.random.default_rng(5).normal(size=(8, 1, 3, 12, 12)).astype("f4")[0]
    lowered = lower(model, TINY)
    quantised = quantise(lowered.network, [x[0]], TINY)
    place = lowered.outputs[model.outputs[0]]
    found = run_network(quantised, quantised.quantise_input(x[0]))[0][place]
    expected = run_onnx(proto, x)[0].reshape(found.shape) / quantised.scales[place][:, None, None]
    assert np.abs(expected).max() > 100 and np.abs(found - expected).max() <= 2.01


@pytest.mark.parametrize(("build", "message"), [
    (lambda g: g.quantised("x", 0.1, np.uint8, zero=100),
     "DequantizeLinear node 'n1' rounds to -100 .. 155; this configuration holds -128 .. 127 there: quantise "),
    (lambda g: g.quantised("x", 0.1, np.int8, zero=3), "rounds to -131 .. 124; this configuration holds -128 .. 127"),
    (lambda g: g.quantised("x", 0.1, np.uint16), "rounds to 0 .. 65535; this configuration holds 0 .. 255 there"),
    (lambda g: g.quantised("x", 0.1, np.uint8, (3, 10)), "rounds to 3 .. 10; 0 and integers above it must be among"),
    (lambda g: g.quantised("x", 0.1, np.uint8, (0, 0)), "rounds to 0 .. 0; 0 and integers above it must be among"),
    (lambda g: g.node("QuantizeLinear", "x", g.constant(0.1), g.constant(0, ml_dtypes.float8_e4m3fn)),
     "QuantizeLinear node 'n0' makes values of type float8_e4m3fn, which is not supported"),
    (lambda g: g.node("QuantizeLinear", "x", g.constant(0.1), g.constant(0, np.int8)), "is of integers"),
    (lambda g: g.node("DequantizeLinear", g.node("QuantizeLinear", "x", g.constant(0.1), g.constant(0, np.int8)),
                      g.constant(0.2), g.constant(0, np.int8)), "has another scale or zero point"),
    (lambda g: g.quantised(g.node("Add", g.quantised(g.node("Relu", g.quantised_conv("x", 5, 1)), 1, np.uint8),
                                  g.quantised(g.quantised_conv("x", 5, 1), 1)), 1),
     "DequantizeLinear node 'n5' gives unsigned values of 8 bits that are read together with signed ones"),
    (lambda g: g.node("Add", g.quantised("x", 1, np.uint8), g.quantised(g.quantised_conv(
        g.quantised("x", 1, np.uint8), 3, 1, pads=[1, 1, 1, 1]), 1)),
     "DequantizeLinear node 'n1' gives unsigned values of 8 bits that are read together with signed ones"),
    (lambda g: g.node("MaxPool", g.quantised(g.quantised_conv("x", 5, 1), 1), kernel_shape=[3, 3]),
     "MaxPool node 'n5' gives unsigned values of 8 bits that are read together with signed ones; quantise to "
     "7 bits there, or all activations as signed values (QInt8 in ONNX Runtime)"),
])
def test_quantisation_that_is_not_held_is_refused(build, message):
    graph = QuantisedGraph(opset=13)
    with pytest.raises(ValueError, match=re.escape(message)):
        lower(simplify(read_proto(graph.proto([build(graph)]), "net")[0]), TINY)
