"""QONNX files against the executor of the qonnx package: after rewriting in ONNX Runtime, and by golden."""
import importlib.resources
import re
import tempfile
from pathlib import Path

import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import helper, numpy_helper
from qonnx.core.modelwrapper import ModelWrapper
from qonnx.core.onnx_exec import execute_onnx
from qonnx.custom_op.general.intquant import int_quant
from qonnx.transformation.infer_shapes import InferShapes

from compiler.onnx import load_proto, read_proto, run_file
from hw.configs import CONFIGS
from sim_tests.bench.imported import import_proto
from sim_tests.unit.compiler.onnx_graphs import QUANTISED, QUANTISED_GRIDS, QonnxGraph, random_quantised

#: Files of the qonnx package: opset 9 without the domain of its Quant node, and 11; scales are no powers of two.
FILES = ["eltwise_chanlast_testcase.onnx", "bsd300x3-espcn/subpixel/quant_model.onnx"]


def execute(proto, x):
    """The output by the executor of qonnx, which runs the Quant nodes themselves."""
    model = ModelWrapper(proto).transform(InferShapes())
    source, = {entry.name for entry in proto.graph.input} - {tensor.name for tensor in proto.graph.initializer}
    values, = execute_onnx(model, {source: x}).values()
    return values


def loaded(proto, folder):
    onnx.save(proto, folder / "net.onnx")
    return load_proto(folder / "net.onnx")


def check(graph, output, config, folder, seed, least=11):
    """Golden equals the executor of qonnx, and so does ONNX Runtime."""
    proto = graph.proto([output])
    imported = import_proto(proto, config, folder, seed=seed)
    expected = execute(proto, imported.inputs[0][None])
    assert len(np.unique(expected)) >= least, f"seed {seed}"
    found, = imported.outputs(imported.golden())
    np.testing.assert_array_equal(np.reshape(found, expected.shape), expected, err_msg=f"seed {seed}")
    np.testing.assert_array_equal(imported.expected()[0], expected, err_msg=f"seed {seed}")


@pytest.mark.parametrize("build", QUANTISED.values(), ids=QUANTISED)
@pytest.mark.parametrize(("opset", "domain"), [(10, "onnx.brevitas"), (13, "qonnx.custom_op.general")])
def test_powers_of_two_are_exact(build, opset, domain, tmp_path):
    graph = QonnxGraph(domain, opset=opset, seed=opset)
    check(graph, build(graph, graph.quantised("x", 2**-5)), CONFIGS["tiny"], tmp_path, opset)


@settings(max_examples=15, deadline=None, derandomize=True)
@given(steps=QUANTISED_GRIDS, seed=st.integers(0, 2**32 - 1))
def test_any_bit_width_is_exact(steps, seed):
    graph = QonnxGraph(seed=seed)
    output = random_quantised(graph, steps)
    with tempfile.TemporaryDirectory() as folder:
        # Values of 16 bits hold every range of 8, with and without a sign.
        check(graph, output, CONFIGS["nullhop"], Path(folder), seed, least=1)


@pytest.mark.parametrize(("bits", "narrow"), [(9, 0), (12, 1), (15, 0), (16, 1)])
def test_more_than_8_bits_are_exact(bits, narrow, tmp_path):
    graph = QonnxGraph(seed=bits)
    x = graph.rounded("x", bits, 1, narrow, -2)
    x = graph.rounded(graph.quantised_conv(x, 20, graph.scales[x], bits=5), bits, 0, narrow, -1)
    output = graph.rounded(graph.quantised_conv(x, 7, graph.scales[x], bits=5), bits, 1, narrow, -1)
    check(graph, output, CONFIGS["nullhop"], tmp_path, bits)


def test_16_bits_are_exact(tmp_path):
    graph = QonnxGraph(opset=11, seed=3)
    x = graph.quantised("x", 2**-12, np.int16)
    x = graph.quantised(graph.node("Relu", graph.quantised_conv(x, 20, 2**-12)), 2**-11, np.uint16)
    check(graph, graph.quantised(graph.quantised_conv(x, 7, 2**-11), 2**-10, np.int16), CONFIGS["nullhop"], tmp_path, 3)


@pytest.mark.parametrize("name", FILES)
def test_files_of_qonnx(name):
    path = importlib.resources.files("qonnx") / "data/onnx" / name
    source, = (entry for entry in onnx.load(path).graph.input if entry.name in ("global_in", "x.7"))
    shape = [dim.dim_value for dim in source.type.tensor_type.shape.dim]
    x = np.random.default_rng(0).integers(0, 256, shape).astype(np.float32)
    expected = execute(onnx.load(path), x)
    assert len(np.unique(expected)) > 10
    np.testing.assert_array_equal(run_file(load_proto(path), x)[0], expected)


def ranges(widest):
    return [(bits, signed, narrow) for bits in widest for signed in (0, 1) for narrow in (0, 1) if bits > signed]


@pytest.mark.parametrize("scale", [0.25, 0.1, 3.7])
def test_every_range_of_maps(scale, tmp_path):
    # Halves, bounds, values beyond them.
    x = np.float32(scale) * np.arange(-600, 600, dtype=np.float32).reshape(1, 1, 30, 40) / 2
    for bits, signed, narrow in ranges(range(1, 17)):
        x = x * 2 if bits > 8 else x
        graph = QonnxGraph(shape=x.shape)
        proto = graph.proto([graph.quant("x", np.full((1, 1, 1, 1), scale), bits, signed=signed, narrow=narrow)])
        np.testing.assert_array_equal(run_file(loaded(proto, tmp_path), x)[0], execute(proto, x),
                                      err_msg=f"{bits} bits, signed {signed}, narrow {narrow}")


@pytest.mark.parametrize("scale", [0.25, 0.1, np.array([0.5, 0.3, 7]).reshape(3, 1, 1)])
@pytest.mark.parametrize("zero", [0, 5, -1])
def test_every_range_of_constants(scale, zero, tmp_path):
    x = np.float32(np.linspace(-300, 300, 2400).reshape(1, 3, 40, 20))
    x.flat[:600] = np.rint(x.flat[:600]) / 2
    for bits, signed, narrow in ranges(range(1, 33)):
        graph = QonnxGraph(shape=x.shape)
        constant = graph.quant(graph.constant(x), scale, bits, zero=zero, signed=signed, narrow=narrow, kind="IntQuant")
        proto = loaded(graph.proto([graph.node("Add", "x", constant)]), tmp_path)
        found, = (numpy_helper.to_array(tensor) for tensor in proto.graph.initializer if tensor.name == constant)
        expected = int_quant(x, np.float32(scale), np.float32(zero), np.float32(bits), signed, narrow, "ROUND")
        np.testing.assert_array_equal(found, expected, err_msg=f"{bits} bits, signed {signed}, narrow {narrow}")


def test_parameters_from_nodes(tmp_path):
    graph = QonnxGraph(seed=4)
    step = graph.node("Constant", value=numpy_helper.from_array(np.float32(0.5)))
    x = graph.quant("x", graph.node("Mul", step, graph.constant(2.0**-4)), 8)
    weights = graph.node("Transpose", graph.random(3, 3, 3, 12), perm=[3, 0, 1, 2])
    weights = graph.quant(weights, graph.node("Mul", step, step), 4, narrow=1)
    check(graph, graph.quant(graph.node("Conv", x, weights), 2.0**-3, 8), CONFIGS["tiny"], tmp_path, 4)


@pytest.mark.parametrize("opset", [9, 13])
def test_files_that_list_their_weights_among_the_inputs(opset, tmp_path):
    graph = QonnxGraph(opset=opset, seed=5)
    x = graph.quantised("x", 2**-5)
    proto = graph.proto([graph.quantised(graph.quantised_conv(x, 5, 2**-5), 0.25)])
    x = graph.rng.normal(size=graph.shapes["x"]).astype(np.float32)
    expected = execute(proto, x)
    proto.ir_version = 3
    proto.graph.input.extend(helper.make_tensor_value_info(tensor.name, tensor.data_type, tensor.dims)
                             for tensor in proto.graph.initializer)
    np.testing.assert_array_equal(run_file(loaded(proto, tmp_path), x)[0], expected)


@pytest.mark.parametrize(("build", "message"), [
    (lambda g: g.quant("x", 0.1, 8, rounding_mode="FLOOR"), "Quant node 'n0' has rounding_mode FLOOR"),
    (lambda g: g.quant("x", "x", 8), "Quant node 'n0' has a scale that is not constant"),
    (lambda g: g.quant("x", 0.1, "x"), "Quant node 'n0' has a bit width that is not constant"),
    (lambda g: g.quant("x", [[[[0.1]], [[0.2]], [[0.1]]]], 8), "Quant node 'n0' has a scale for each channel of a map"),
    (lambda g: g.quant("x", 0, 8), "Quant node 'n0' has a scale of 0, which must be above 0"),
    (lambda g: g.quant("x", 0.1, 8, zero=3), "Quant node 'n0' has zero point 3 for a map; only 0"),
    (lambda g: g.quant("x", 0.1, 1), "Quant node 'n0' has a bit width of 1; whole numbers from 2 to 32"),
    (lambda g: g.quant("x", 0.1, 4.5), "Quant node 'n0' has a bit width of 4.5"),
    (lambda g: g.quant("x", 0.1, [4, 5, 4]), "Quant node 'n0' has 3 bit widths; only one"),
    (lambda g: g.quant("x", 0.1, 17), "Quant node 'n0' rounds a map to -65536 .. 65535; a map may have up to 16 bits"),
    (lambda g: g.node("Conv", "x", g.quant(g.random(4, 3, 3, 3), np.full(4, 0.1), 8)),
     "Quant node 'n0' has a scale of shape (4,) and a zero point of shape () that do not fit its input of shape "
     "(4, 3, 3, 3)"),
])
def test_quant_nodes_that_are_not_held_are_refused(build, message, tmp_path):
    graph = QonnxGraph()
    with pytest.raises(ValueError, match=re.escape(message)):
        loaded(graph.proto([build(graph)]), tmp_path)


@pytest.mark.parametrize(("kind", "message"), [
    ("BipolarQuant", "BipolarQuant node 'other' of onnx.brevitas is not supported: train with 2 bits or more"),
    ("Trunc", "Trunc node 'other' of onnx.brevitas is not supported: average with AvgPool2d"),
])
@pytest.mark.parametrize("quants", [0, 1])
def test_other_nodes_of_qonnx_are_refused(kind, message, quants, tmp_path):
    graph = QonnxGraph("onnx.brevitas", opset=11)
    x = graph.quant("x", 0.1, 8) if quants else "x"
    graph.nodes.append(helper.make_node(kind, [x, graph.constant(0.1)], ["y"], "other", domain="onnx.brevitas"))
    graph.shapes["y"] = graph.shapes["x"]
    proto = loaded(graph.proto(["y"]), tmp_path)
    with pytest.raises(ValueError, match=re.escape(message)):
        read_proto(proto, "net")


@pytest.mark.parametrize("damage", [lambda node: node.input.pop(), lambda node: node.output.append("more"),
                                    lambda node: node.output.__setitem__(0, "")])
def test_quant_nodes_without_their_inputs_and_outputs(damage, tmp_path):
    graph = QonnxGraph(opset=11)
    proto = graph.proto([graph.node("Relu", graph.quant("x", 0.1, 8))])
    damage(proto.graph.node[0])
    with pytest.raises(ValueError, match="Quant node 'n0' has . inputs and . outputs; it needs 4 and 1 with a name"):
        loaded(proto, tmp_path)


def test_a_damaged_file_that_would_crash_the_converter(tmp_path):
    graph = QonnxGraph(opset=11)
    proto = graph.proto([graph.node("Relu", graph.quant("x", 0.1, 8))])
    proto.graph.node[1].input[0] = "nowhere"
    with pytest.raises(ValueError, match="is not valid ONNX: .*nowhere"):
        loaded(proto, tmp_path)


def test_a_file_that_cannot_be_converted(tmp_path):
    graph = QonnxGraph(opset=11)
    constants = [graph.constant(np.ones(3)) for _ in range(4)]
    x = graph.node("BatchNormalization", graph.quant("x", 0.1, 16), *constants, outputs=5)[0]
    with pytest.raises(ValueError, match="net.onnx has opset 11, its Quant nodes need 21, and it cannot be converted"):
        loaded(graph.proto([x]), tmp_path)
