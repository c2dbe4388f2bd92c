"""ONNX networks in the RTL: every spelling of the reader's tests, networks of many kinds of nodes, a PyTorch module and
files that were quantised before, under random stalls.

Every map equals golden bit for bit; what golden computes is near ONNX Runtime in float32: at least LEAST decibels
between the values of an output and its error with 8 bits. With scales that are powers of two it is equal to it.
"""
import io

import numpy as np
import onnx
import pytest
import torch

from hw.configs import CONFIGS
from sim_tests.bench.imported import first_difference, import_proto, run_rtl
from sim_tests.unit.compiler.onnx_graphs import QUANTISED, SINCE, SPELLINGS, Graph, QonnxGraph, QuantisedGraph

pytestmark = pytest.mark.cosim

TINY = CONFIGS["tiny"]
#: 8 bits hold a value of 3 times the standard deviation with an error of 1/440 of that: 43 dB; a layer loses some.
LEAST = 26


def check(proto, folder, seed, least=LEAST):
    """Compile and run the first input in the RTL; what was compiled, and the maps."""
    imported = import_proto(proto, TINY, folder, seed=seed)
    golden = imported.golden()
    maps, memory = run_rtl(imported.program, golden[imported.program.network.input_name], seed=seed)
    difference = first_difference(maps, golden)
    assert not difference, f"seed {seed}, {memory}: {difference}"
    found = imported.signal_to_noise()
    assert found >= least, f"seed {seed}: {found:.1f} dB"
    return imported, maps


@pytest.mark.parametrize("name", SPELLINGS)
def test_spellings(name, tmp_path):
    graph = Graph(opset=max(13, SINCE[name]))
    check(graph.proto([SPELLINGS[name](graph)]), tmp_path, seed=list(SPELLINGS).index(name))


def residual(g):
    """Sums of maps of both signs, ReLU6, batch norm, a stride."""
    x = g.clip(g.batch_norm(g.conv("x", 20, pads=[1, 1, 1, 1])), 0, 6)
    for stride in (1, 2):
        y = g.batch_norm(g.conv(x, 20, strides=[stride] * 2, pads=[1, 1, 1, 1]))
        x = g.conv(x, 20, (1, 1), strides=[stride] * 2)
        x = g.node("Relu", g.node("Add" if stride == 1 else "Sub", x, y))
    return g.node("Add", x, g.conv(x, 20, (1, 1)))


def inverted_bottleneck(g):
    """Depthwise and pointwise convolutions, leaky ReLU, asymmetric padding, a mean, a fully connected layer."""
    x = g.conv("x", 24, (1, 1))
    y = g.clip(g.conv(x, 24, groups=24, strides=[2, 2], pads=[0, 1, 1, 0]), 0, 6)
    y = g.node("LeakyRelu", g.conv(y, 24, (1, 1)), alpha=0.1)
    y = g.conv(y, 24, groups=4, pads=[2, 2, 2, 2], dilations=[2, 2])
    y = g.node("Flatten", g.node("GlobalAveragePool", g.node("PRelu", y, g.random(24, 1, 1, scale=0.3))))
    return g.node("Softmax", g.node("Gemm", y, g.random(24, 5), g.random(5)), axis=1)


def fire(g):
    """Concatenations, pools of both kinds, a map that is read in several places."""
    x = g.node("MaxPool", g.node("Relu", g.conv("x", 16)), kernel_shape=[3, 3], strides=[2, 2])
    for _ in range(2):
        s = g.node("Relu", g.conv(x, 5, (1, 1)))
        parts = [g.node("Relu", g.conv(s, 9, (1, 1))), g.node("Relu", g.conv(s, 9, pads=[1, 1, 1, 1]))]
        x = g.node("Concat", *parts, s, axis=1)
    return g.conv(g.node("AveragePool", x, kernel_shape=[2, 2], strides=[2, 2]), 7, (1, 1))


@pytest.mark.parametrize("build", [residual, inverted_bottleneck, fire])
def test_networks(build, tmp_path):
    graph = Graph((1, 3, 17, 14), seed=7)
    check(graph.proto([build(graph)]), tmp_path, seed=7)


def test_module_of_pytorch(tmp_path):
    torch.manual_seed(1)
    module = torch.nn.Sequential(
        torch.nn.Conv2d(2, 20, 5, padding=2, bias=False), torch.nn.BatchNorm2d(20), torch.nn.PReLU(20),
        torch.nn.MaxPool2d(2), torch.nn.Conv2d(20, 20, 3, groups=20), torch.nn.Hardtanh(0, 1),
        torch.nn.Conv2d(20, 12, 3, dilation=2), torch.nn.ReLU6(), torch.nn.AvgPool2d(2), torch.nn.Flatten(),
        torch.nn.Linear(48, 6))
    for values in (module[1].running_mean, module[1].bias.data):
        values.normal_()
    file = io.BytesIO()
    with pytest.warns(DeprecationWarning):
        torch.onnx.export(module.eval(), (torch.zeros(1, 2, 20, 20),), file, dynamo=False)
    check(onnx.load_from_string(file.getvalue()), tmp_path, seed=1)


@pytest.mark.parametrize(("kind", "name"), [*((QuantisedGraph, name) for name in QUANTISED), (QonnxGraph, "few_bits")])
def test_quantised_files_are_exact(kind, name, tmp_path):
    graph = kind(opset=13, seed=2)
    output = QUANTISED[name](graph, graph.quantised("x", 2**-5))
    imported, maps = check(graph.proto([output]), tmp_path, seed=2)
    (found,), (expected,) = imported.outputs(maps), imported.expected()
    assert len(np.unique(expected)) > 10
    np.testing.assert_array_equal(np.reshape(found, expected.shape), expected, err_msg="seed 2")
