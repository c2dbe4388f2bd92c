"""ONNX files that cannot be used: one sentence each, that names what and where."""
import re

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from compiler.onnx import load_proto, read_proto
from sim_tests.unit.compiler.onnx_graphs import Graph


def small(**options):
    graph = Graph(**options)
    return graph.proto([graph.node("Relu", graph.conv("x", 4))])


def saved(proto, tmp_path, **options):
    path = tmp_path / "net.onnx"
    onnx.save(proto, path, **options)
    return path


def refused(path, *parts, shape=None):
    with pytest.raises(ValueError) as error:
        load_proto(path, shape)
    sentence = str(error.value)
    assert str(path) in sentence and "\n" not in sentence
    for part in parts:
        assert part in sentence


def test_a_good_file_is_loaded(tmp_path):
    assert read_proto(load_proto(saved(small(), tmp_path)), "net")[0].input_shape == (3, 9, 11)


def test_missing_file(tmp_path):
    refused(tmp_path / "none.onnx", "there is no file")


@pytest.mark.parametrize("keep", [0.1, 0.5, 0.99])
def test_truncated_file(tmp_path, keep):
    data = small().SerializeToString()
    path = tmp_path / "cut.onnx"
    path.write_bytes(data[:int(len(data) * keep)])
    refused(path, "is not a complete ONNX file")


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04 not a network", b"\x89PNG\r\n"])
def test_files_that_are_no_networks(tmp_path, content):
    path = tmp_path / "other.onnx"
    path.write_bytes(content)
    refused(path)


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_weights_that_are_not_finite(tmp_path, value):
    graph = Graph()
    weights = np.zeros((4, 3, 1, 1))
    weights[2, 1] = value
    proto = graph.proto([graph.node("Conv", "x", graph.constant(weights))])
    refused(saved(proto, tmp_path), "weights 'c0' with values that are not finite")


@pytest.mark.parametrize("version", [7, 22])
def test_wrong_opset(tmp_path, version):
    proto = small()
    proto.opset_import[0].version = version
    refused(saved(proto, tmp_path), f"has opset {version}, which is not one of 8 to 21")


def test_no_opset(tmp_path):
    proto = small()
    proto.opset_import[0].domain = "other"
    refused(saved(proto, tmp_path), "names no ONNX opset")


def test_shapes_that_do_not_fit(tmp_path):
    proto = small()
    proto.graph.input[0].type.tensor_type.shape.dim[1].dim_value = 5
    with pytest.raises(ValueError, match="does not fit|do not fit"):
        read_proto(load_proto(saved(proto, tmp_path)), "net")


def test_concatenated_maps_that_do_not_fit(tmp_path):
    graph = Graph()
    proto = graph.proto([graph.node("Add", graph.conv("x", 4), graph.conv("x", 4))])
    proto.graph.node[2].op_type = "Concat"
    proto.graph.node[2].attribute.append(helper.make_attribute("axis", 1))
    proto.graph.node[1].attribute.append(helper.make_attribute("strides", [2, 2]))
    refused(saved(proto, tmp_path), "shapes that do not fit")


def test_external_data(tmp_path):
    graph = Graph()
    proto = graph.proto([graph.conv("x", 40, (5, 5))])
    path = saved(proto, tmp_path, save_as_external_data=True, location="weights.bin", size_threshold=0)
    assert load_proto(path).graph.initializer[0].HasField("raw_data")
    data = (tmp_path / "weights.bin").read_bytes()
    (tmp_path / "weights.bin").write_bytes(data[:len(data) // 2])
    refused(path, "'weights.bin', which is missing or too short")
    (tmp_path / "weights.bin").unlink()
    refused(path, "'c0'", "'weights.bin', which is missing or too short")


def test_no_valid_graph(tmp_path):
    proto = small()
    proto.graph.node[1].input[0] = "nowhere"
    refused(saved(proto, tmp_path), "is not valid ONNX", "nowhere")


def test_two_inputs(tmp_path):
    proto = small()
    proto.graph.input.append(helper.make_tensor_value_info("y", TensorProto.FLOAT, (1, 3)))
    refused(saved(proto, tmp_path), "has 2 inputs ('x', 'y')")


def test_batch(tmp_path):
    refused(saved(small(shape=(2, 3, 9, 11)), tmp_path), "'x'", "is a batch of 2")


def test_input_of_another_type(tmp_path):
    proto = small()
    proto.graph.input[0].type.tensor_type.elem_type = TensorProto.UINT8
    refused(saved(proto, tmp_path), "is of type UINT8")


def test_input_that_is_no_picture(tmp_path):
    graph = Graph((1, 3, 20))
    refused(saved(graph.proto([graph.node("Relu", "x")]), tmp_path), "has 3 dimensions")


def test_open_dimensions(tmp_path):
    proto = small()
    dims = proto.graph.input[0].type.tensor_type.shape.dim
    for number, name in ((0, "batch"), (2, "height"), (3, "width")):
        dims[number].dim_param = name
    proto.graph.output[0].type.tensor_type.shape.dim[0].dim_param = "batch"
    path = saved(proto, tmp_path)
    refused(path, "open dimensions (3x0x0", "--shape")
    refused(path, "shape 4x9x9 does not fit", shape=(4, 9, 9))
    refused(path, "shape 3x9 does not fit", shape=(3, 9))
    assert read_proto(load_proto(path, (3, 20, 30)), "net")[0].input_shape == (3, 20, 30)


@pytest.mark.parametrize("letter", [b"n", b"\xff"], ids=["text", "not text"])
def test_long_names_are_cut(tmp_path, letter):
    proto = small()
    weights = proto.graph.initializer[0]
    weights.CopyFrom(onnx.numpy_helper.from_array(np.full((4, 3, 3, 3), np.nan, np.float32), "n" * 5000))
    path = tmp_path / "net.onnx"
    path.write_bytes(proto.SerializeToString().replace(b"n" * 5000, letter * 5000))
    with pytest.raises(ValueError, match="has weights b?'[n\\\\xf]* ... [n\\\\xf]*' with values") as error:
        load_proto(path)
    assert len(str(error.value)) < 400 + len(str(path))


def gated(g):
    x = g.conv("x", 4)
    return g.node("Mul", x, g.node("Sigmoid", x))


def with_indices(g):
    return g.node("MaxPool", g.conv("x", 4), kernel_shape=[2, 2], outputs=2)[0]


def trained(g):
    x, constants = g.conv("x", 4), [g.constant(np.ones(4)) for _ in range(4)]
    return g.node("BatchNormalization", x, *constants, training_mode=1, outputs=3)[0]


@pytest.mark.parametrize(("build", "message"), [
    (lambda g: g.node("Elu", g.conv("x", 4)), "Elu node 'n1' is not supported: train with ReLU instead"),
    (lambda g: g.conv(g.node("Sigmoid", g.conv("x", 4)), 4), "Conv node 'n2' needs the result of Sigmoid node 'n1'"),
    (lambda g: g.node("Mul", g.conv("x", 4), g.conv("x", 4)), "Mul node 'n2' is not supported: a product of two maps"),
    (lambda g: g.conv(gated(g), 4), "Conv node 'n3' needs the result of Sigmoid node 'n1'"),
    (with_indices, "MaxPool node 'n1' also puts out indices"), (trained, "is in training mode"),
    (lambda g: g.node("Add", g.conv("x", 3, pads=[1, 1, 1, 1]), g.random(9, 11)), "differs from pixel to pixel"),
    (lambda g: g.node("Conv", "x", g.node("Reshape", g.conv("x", 3, (9, 11)), g.constant([1, 3, 1, 1], np.int64))),
     "Conv node 'n2' has weights that are not constant"),
    (lambda g: g.node("Add", g.conv("x", 3), g.node("GlobalAveragePool", g.conv("x", 3))),
     "Add node 'n3' adds maps of shapes (1, 3, 7, 9) and (1, 3, 1, 1)"),
    (lambda g: g.node("AveragePool", "x", kernel_shape=[3, 3], pads=[1, 1, 1, 1]),
     "AveragePool node 'n0' divides by fewer values at the border"),
    (lambda g: g.node("AveragePool", "x", kernel_shape=[9, 3], strides=[1 << 40, 1]),
     "AveragePool node 'n0' has a stride of 1099511627776, the limit is"),
    (lambda g: g.node("MaxPool", "x", kernel_shape=[2, 2], dilations=[2, 2]),
     "only pools of pictures without dilation"),
    (lambda g: g.conv(g.node("Pad", "x", g.constant([0, 0, 1, 1, 0, 0, 1, 1], np.int64), mode="reflect"), 3),
     "Pad node 'n0' is not supported: only padding with zeros"),
    (lambda g: g.conv(g.node("Transpose", "x", perm=[0, 1, 3, 2]), 3),
     "Conv node 'n1' takes values of 'x' in an order"),
    (lambda g: g.node("Div", "x", g.constant(0.0)), "Div node 'n0' has factor with values that are not finite"),
    (lambda g: g.node("Transpose", "x", perm=[0, 2, 3, 1]), "nothing that the accelerator could compute"),
])
def test_nodes_that_cannot_run_are_named(build, message, tmp_path):
    graph = Graph(opset=14)
    proto = load_proto(saved(graph.proto([build(graph)]), tmp_path))
    with pytest.raises(ValueError, match=re.escape(message)):
        read_proto(proto, "net")


def test_node_of_another_domain(tmp_path):
    proto = small()
    proto.opset_import.append(helper.make_opsetid("com.example", 1))
    proto.graph.node[1].domain = "com.example"
    proto = load_proto(saved(proto, tmp_path))
    with pytest.raises(ValueError, match="Relu node 'n1' of com.example is not supported"):
        read_proto(proto, "net")
