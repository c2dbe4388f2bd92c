"""``zeroskip compile``: exit status, files, sentences."""
from types import SimpleNamespace

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from PIL import Image
from typer.testing import CliRunner
from zeroskip.image import read_image

from compiler import cli, pipeline
from compiler.model import Model
from sim_tests.golden_model.random_layers import random_layer
from sim_tests.unit.compiler.onnx_graphs import Graph


@pytest.fixture
def files(tmp_path, monkeypatch):
    """A network of two layers with a Softmax, and an .npz with four inputs, in the working folder."""
    monkeypatch.chdir(tmp_path)
    graph = Graph((1, 3, 8, 8), seed=3)
    x = graph.node("Relu", graph.batch_norm(graph.conv("x", 20)))
    x = graph.node("Flatten", graph.node("GlobalAveragePool", x))
    x = graph.node("Softmax", graph.node("MatMul", x, graph.random(20, 4)), axis=1)
    onnx.save(graph.proto([x]), "net.onnx")
    np.savez("inputs.npz", a=np.random.default_rng(0).normal(size=(4, 3, 8, 8)).astype(np.float32))
    return tmp_path


def run(*arguments, status=0):
    result = CliRunner().invoke(cli.app, ["compile", *map(str, arguments)])
    assert result.exit_code == status, result.output
    assert "Traceback" not in result.output
    return " ".join(result.output.split())


def test_writes_what_the_drivers_read(files):
    output = run("net.onnx", "--calib", "inputs.npz", "--config", "tiny")
    image = read_image("net.zsn")
    assert image.name == "net" and image.maps["x"].shape == (3, 8, 8)
    assert "BatchNorm" not in output and "Conv node 'n0' convolution 20x6x6 0.02 1" in output
    assert "Softmax node" in output and "net.host.onnx" in output
    host = onnxruntime.InferenceSession("net.host.onnx")
    scores = np.float32([1, 2, 3, 4])
    name, = (entry.name for entry in host.get_inputs())
    found, = host.run(None, {name: scores.reshape(1, 4, 1, 1)})
    np.testing.assert_allclose(found, [np.exp(scores) / np.exp(scores).sum()], rtol=1e-5)


def test_the_same_arguments_give_the_same_bytes(files):
    for name in ("a.zsn", "b.zsn"):
        run("net.onnx", "--calib", "inputs.npz", "-o", name, "--config", "tiny")
    assert (files / "a.zsn").read_bytes() == (files / "b.zsn").read_bytes()


def test_module_of_pytorch(files):
    torch.manual_seed(0)
    module = torch.nn.Sequential(torch.nn.Conv2d(3, 8, 3, padding=1), torch.nn.BatchNorm2d(8), torch.nn.PReLU(8),
                                 torch.nn.MaxPool2d(2), torch.nn.Flatten(), torch.nn.Linear(128, 5))
    with pytest.warns(DeprecationWarning):
        torch.onnx.export(module.eval(), (torch.zeros(1, 3, 8, 8),), "module.onnx", dynamo=False)
    assert "Gemm node" in run("module.onnx", "--calib", "inputs.npz", "--config", "tiny")


def test_half_precision(files):
    proto = onnx.load("net.onnx")
    for tensor in proto.graph.initializer:
        values = onnx.numpy_helper.to_array(tensor)
        if values.dtype == np.float32:
            tensor.CopyFrom(onnx.numpy_helper.from_array(values.astype(np.float16), tensor.name))
    for entry in [*proto.graph.input, *proto.graph.output]:
        entry.type.tensor_type.elem_type = onnx.TensorProto.FLOAT16
    onnx.save(proto, "half.onnx")
    assert "Softmax node" in run("half.onnx", "--calib", "inputs.npz", "--config", "tiny")


def test_folder_of_pictures(files):
    (files / "photos").mkdir()
    for number in range(3):
        pixels = np.random.default_rng(number).integers(0, 256, (10, 12, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(files / "photos" / f"{number}.png")
    run("net.onnx", "--calib", "photos", "--mean", "120,110,100", "--std", "60", "--config", "tiny")
    assert "mean has 2 numbers" in run("net.onnx", "--calib", "photos", "--mean", "1,2", status=2)
    assert "must not be 0" in run("net.onnx", "--calib", "photos", "--std", "2,0,2", status=2)
    (files / "photos" / "bad.png").write_bytes(b"no picture")
    assert "cannot be read as a picture" in run("net.onnx", "--calib", "photos", status=2)


def test_calibration_count(files, monkeypatch):
    seen = []

    def remember(network, inputs, config):
        seen.append([float(x[0, 0, 0]) for x in inputs])
        raise ValueError("enough")

    monkeypatch.setattr(pipeline, "quantise", remember)
    inputs = np.random.default_rng(0).normal(size=(9, 3, 8, 8)).astype(np.float32)
    inputs[:, 0, 0, 0] = np.arange(9)
    np.save("nine.npy", inputs)
    run("net.onnx", "--calib", "nine.npy", "--count", "3", status=2)
    assert seen == [[0, 4, 8]]


@pytest.mark.parametrize(("array", "sentence"), [
    (np.zeros((0, 3, 8, 8)), "calib.npy holds no inputs"),
    (np.zeros((2, 3, 9, 9)), "array of shape (2, 3, 9, 9); the network takes inputs of (3, 8, 8)"),
    (np.full((3, 8, 8), np.nan), "values that are not finite"),
    (np.full((3, 8, 8), "a"), "inputs are numbers"),
])
def test_calibration_that_cannot_be_used(files, array, sentence):
    np.save("calib.npy", array)
    assert sentence in run("net.onnx", "--calib", "calib.npy", status=2)
    assert not (files / "net.zsn").exists()


def test_calibration_that_is_no_array(files):
    assert "there are no inputs at calib" in run("net.onnx", "--calib", "calib", status=2)
    (files / "calib").mkdir()
    assert "calib holds no inputs" in run("net.onnx", "--calib", "calib", status=2)
    (files / "calib" / "a.npy").write_bytes(b"abc")
    assert "a.npy cannot be read as an array" in run("net.onnx", "--calib", "calib", status=2)
    archive = bytearray((files / "inputs.npz").read_bytes())
    archive[200] ^= 1
    (files / "inputs.npz").write_bytes(archive)
    assert "inputs.npz cannot be read as an array: Bad CRC-32" in run("net.onnx", "--calib", "inputs.npz", status=2)


@pytest.mark.parametrize(("change", "sentence"), [
    (lambda p: p.graph.output.append(p.graph.output[0]), "wrote net.zsn"),
    (lambda p: p.graph.input[0].type.tensor_type.shape.dim[2].__setattr__("dim_value", 2**40), "the limit is"),
    (lambda p: p.graph.input[0].type.tensor_type.shape.dim[2].__setattr__("dim_value", -1), "has a size below 0"),
    (lambda p: p.graph.initializer[0].__setattr__("raw_data", b"abc"), "weights 'c0' that cannot be read"),
    (lambda p: p.graph.node[0].__setattr__("domain", "com.microsoft"), "No opset import for domain 'com.microsoft'"),
    (lambda p: p.graph.node[0].attribute[0].__setattr__("i", 0), "node 'n0'"),
    (lambda p: p.graph.output[0].__setattr__("name", "t3_1"), "t3_1"),
])
def test_files_that_a_fuzzer_makes(files, change, sentence):
    """Each ended in a traceback, or was taken for something else."""
    proto = onnx.load("net.onnx")
    change(proto)
    onnx.save(proto, "net.onnx")
    output = run("net.onnx", "--calib", "inputs.npz", "--config", "tiny", status=0 if "wrote" in sentence else 2)
    assert sentence in output


def test_values_that_are_not_finite_in_the_network_are_named(files):
    np.save("large.npy", np.full((3, 8, 8), 3e38, np.float32))
    assert "has values that are not finite" in run("net.onnx", "--calib", "large.npy", status=2)


def test_weights_that_do_not_fit_float32_once_they_are_folded_are_named(files):
    graph = Graph((1, 3, 8, 8), seed=3)
    x = graph.node("Conv", "x", graph.random(4, 3, 1, 1), kernel_shape=[1, 1])
    for _ in range(2):
        x = graph.node("Mul", x, graph.constant(1e30))
    onnx.save(graph.proto([x]), "large.onnx")
    np.save("small.npy", np.full((3, 8, 8), 1e-30, np.float32))
    assert "so large that their products do not fit float32" in run("large.onnx", "--calib", "small.npy", status=2)


@pytest.mark.parametrize(("arguments", "sentence"), [
    (["none.onnx"], "error: there is no file none.onnx"), (["inputs.npz"], "is not a complete ONNX file"),
    (["net.onnx", "--config", "big"], "there is no configuration 'big'"),
    (["net.onnx", "--shape", "3xax8"], "--shape must be numbers"),
    (["net.onnx", "--shape", "3x9x9"], "shape 3x9x9 does not fit"),
    (["net.onnx", "--mean", "x"], "--mean must be a number"),
    (["net.onnx", "--std", "nan"], "--std must be a number"), (["net.onnx", "--count", "0"], "--count"),
])
def test_arguments_that_cannot_be_used(files, arguments, sentence):
    assert sentence in run(*arguments, "--calib", "inputs.npz", status=2)


def test_a_fault_of_the_reader_is_found(files, monkeypatch):
    right = Model.run
    monkeypatch.setattr(Model, "run", lambda model, x: {name: value + 0.01 for name, value in right(model, x).items()})
    # The sum of the scores moves all of them; Softmax would hide that.
    graph = Graph((1, 3, 8, 8))
    onnx.save(graph.proto([graph.conv("x", 4)]), "plain.onnx")
    assert "differs from ONNX Runtime" in run("plain.onnx", "--calib", "inputs.npz", status=1)


def test_help_teaches():
    result = CliRunner().invoke(cli.app, ["compile", "--help"])
    assert result.exit_code == 0
    for word in ("--calib", "--config", "Examples", "torch.onnx.export", "Exit status"):
        assert word in result.output


def test_multiplications_are_those_before_pooling():
    layer = random_layer(np.random.default_rng(0), "layer", "x", (4, 8, 12), width=8, kernel=(1, 1), out_channels=3,
                         pool=2)
    assert cli.network_macs(SimpleNamespace(layers=[layer, layer])) == 2 * 3 * 4 * 8 * 12
