"""Files that were quantised before: QDQ and QCDQ against ONNX Runtime, integer by integer."""
import re

import numpy as np
import onnx
import pytest
from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static

from compiler.emit import compile_network
from compiler.lower import lower
from compiler.onnx import load_proto, read_proto, simplify
from compiler.quantise import quantise
from golden.network import run_network
from hw.configs import CONFIGS
from sim_tests.unit.compiler.onnx_graphs import QUANTISED, Graph, QuantisedGraph, run_onnx

TINY = CONFIGS["tiny"]


def compare(graph, output, seed):
    """``(integers, expected)`` of golden and ONNX Runtime for the output, in multiples of its scale."""
    proto = graph.proto([output])
    model = simplify(read_proto(onnx.shape_inference.infer_shapes(proto), "net")[0])
    rng = np.random.default_rng(seed)
    inputs = [rng.normal(size=model.input_shape).astype(np.float32) for _ in range(3)]
    lowered = lower(model, TINY)
    quantised = quantise(lowered.network, inputs, TINY)
    compile_network(quantised, TINY)
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
    (lambda g: g.quantised("x", 0.1, np.uint8, zero=100), "has zero point 100 for uint8 values"),
    (lambda g: g.quantised("x", 0.1, np.int8, zero=3), "has zero point 3 for int8 values"),
    (lambda g: g.quantised(g.quantised("x", 0.1), 0.2, np.int8, (-4, 3)), "rounds to -4 .. 3"),
    (lambda g: g.node("QuantizeLinear", "x", g.constant(0.1), g.constant(0, np.int8)), "is of integers"),
    (lambda g: g.node("DequantizeLinear", g.node("QuantizeLinear", "x", g.constant(0.1), g.constant(0, np.int8)),
                      g.constant(0.2), g.constant(0, np.int8)), "has another scale or zero point"),
    (lambda g: g.quantised(g.node("Add", g.quantised(g.node("Relu", g.quantised_conv("x", 5, 1)), 1, np.uint8),
                                  g.quantised(g.quantised_conv("x", 5, 1), 1)), 1),
     "gives unsigned values of 8 bits that are read together with signed ones"),
])
def test_quantisation_that_is_not_held_is_refused(build, message):
    graph = QuantisedGraph(opset=13)
    with pytest.raises(ValueError, match=re.escape(message)):
        lower(simplify(read_proto(graph.proto([build(graph)]), "net")[0]), TINY)
