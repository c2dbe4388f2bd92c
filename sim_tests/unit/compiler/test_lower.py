"""Lowering: the layers compute what the model computes, no more layers than needed, and what is refused."""
import re

import numpy as np
import onnx
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from compiler.emit import compile_network
from compiler.lower import lower
from compiler.onnx import read_proto, simplify
from compiler.quantise import quantise
from golden.network import run_network
from hw.configs import CONFIGS
from sim_tests.unit.compiler.onnx_graphs import SINCE, SPELLINGS, STEPS, Graph, assert_close, random_graph

TINY, DEFAULT, NULLHOP = CONFIGS["tiny"], CONFIGS["default"], CONFIGS["nullhop"]


def model_of(graph, *outputs):
    return simplify(read_proto(onnx.shape_inference.infer_shapes(graph.proto(list(outputs))), "net")[0])


def check(model, config, message, seed=0):
    """Lower ``model``, compare it with its float run, and compile it for ``config``."""
    lowered = lower(model, config)
    x = np.random.default_rng(seed).normal(size=model.input_shape).astype(np.float32)
    values, maps = model.run(x), lowered.network.run_float(x)
    outputs = [maps[lowered.outputs[name]] for name in model.outputs]
    assert_close(outputs, [values[name] for name in model.outputs], message)
    assert set(lowered.network.outputs) == set(lowered.outputs.values())
    quantised = quantise(lowered.network, [x], config)
    compile_network(quantised, config)
    if config.value_width == 16:
        maps = run_network(quantised, quantised.quantise_input(x))[0]
        for name in model.outputs:
            found, expected = quantised.dequantise(lowered.outputs[name], maps[lowered.outputs[name]]), values[name]
            # 16 bits, one of them headroom: 1/16384 of the largest value, many times over.
            np.testing.assert_allclose(found, expected, atol=5e-3 * max(1, np.abs(expected).max()), err_msg=message)
    return lowered, x, values


@pytest.mark.parametrize("config", [TINY, NULLHOP], ids=lambda config: config.name)
@pytest.mark.parametrize("name", SPELLINGS)
def test_layers_equal_the_model(name, config):
    graph = Graph(opset=max(13, SINCE[name]))
    check(model_of(graph, SPELLINGS[name](graph)), config, name)


@settings(max_examples=40, deadline=None, derandomize=True)
@given(steps=st.lists(st.sampled_from(sorted(STEPS)), min_size=1, max_size=7), seed=st.integers(0, 2**32 - 1),
       head=st.booleans(), config=st.sampled_from([TINY, NULLHOP]))
def test_random_networks_equal_the_model(steps, seed, head, config):
    graph, output = random_graph(steps, seed, 13, head)
    check(model_of(graph, output), config, f"{steps}, seed {seed}, head {head}, config {config.name}", seed)


def layers_of(graph, output, config=DEFAULT):
    return lower(model_of(graph, output), config).network.layers


def test_dense_convolution_stays_one_layer():
    graph = Graph((1, 96, 8, 8))
    layers = layers_of(graph, graph.node("Relu", graph.batch_norm(graph.conv("x", 200))))
    assert [layer.weights.shape for layer in layers] == [(200, 96, 3, 3)] and layers[0].relu


@pytest.mark.parametrize(("config", "ranges"), [(DEFAULT, [(0, 64), (64, 64), (128, 32)]),
                                                (TINY, [(first, 16) for first in range(0, 160, 16)])])
def test_depthwise_convolution_reads_the_blocks_it_needs(config, ranges):
    graph = Graph((1, 160, 6, 6))
    layers = layers_of(graph, graph.conv("x", 160, groups=160), config)
    assert [(layer.inputs[0].first, layer.inputs[0].channels) for layer in layers] == ranges
    assert [(layer.output.first, len(layer.weights)) for layer in layers] == ranges


def test_groups_read_their_own_channels_only():
    graph = Graph((1, 256, 4, 4))
    layers = layers_of(graph, graph.conv("x", 256, groups=2))
    assert [(layer.inputs[0].first, layer.weights.shape[:2]) for layer in layers] == [(0, (128, 128)),
                                                                                      (128, (128, 128))]


def test_concatenation_costs_no_layer():
    graph = Graph()
    layers = layers_of(graph, graph.conv(graph.node("Concat", *(graph.conv("x", 20) for _ in range(3)), axis=1), 4))
    assert [(layer.output.map, layer.output.first) for layer in layers[:3]] == [
        (layers[0].output.map, first) for first in (0, 32, 64)]
    assert len(layers) == 4 and layers[3].weights.shape[1] == 84
    assert not layers[3].weights[:, 20:32].any() and layers[3].weights[:, 19].all()


def test_add_is_one_layer_for_each_block_with_its_relu():
    graph = Graph()
    added = graph.node("Relu", graph.node("Sub", graph.conv("x", 40), graph.conv("x", 40)))
    layers = layers_of(graph, added)[2:]
    assert [layer.weights.shape for layer in layers] == [(32, 64, 1, 1), (8, 16, 1, 1)]
    assert all(layer.relu for layer in layers)
    np.testing.assert_array_equal(layers[1].weights[:, :, 0, 0], np.hstack([np.eye(8), -np.eye(8)]))


def test_activations_and_pools_are_fused():
    graph = Graph()
    x = graph.node("MaxPool", graph.clip(graph.conv("x", 5), 0, 6), kernel_shape=[3, 3], strides=[2, 2])
    layer, = layers_of(graph, x)
    assert (layer.relu, layer.high, layer.pool, layer.pool_ceil) == (True, 6, 3, True)


def test_both_maps_of_a_pooled_layer_are_written():
    graph = Graph((1, 3, 8, 8))
    x = graph.node("Relu", graph.conv("x", 5, pads=[1, 1, 1, 1]))
    pooled = graph.node("MaxPool", x, kernel_shape=[2, 2], strides=[2, 2])
    other = graph.conv(x, 5, strides=[2, 2], pads=[1, 1, 1, 1])
    layers = layers_of(graph, graph.node("Add", pooled, other))
    assert len(layers) == 3 and layers[0].full and layers[0].pool == 2


@pytest.mark.parametrize("attributes", [{"kernel_shape": [3, 3], "pads": [1, 1, 1, 1]},
                                        {"kernel_shape": [5, 5], "pads": [2, 2, 2, 2]},
                                        {"kernel_shape": [3, 2], "strides": [3, 3]}])
def test_any_max_pool_is_exact_in_integers(attributes):
    graph = Graph((1, 3, 12, 13))
    source = graph.node("Relu", graph.conv("x", 20))
    output = graph.conv(graph.node("MaxPool", source, **attributes), 4, (1, 1))
    model = model_of(graph, source, output)
    lowered = lower(model, TINY)
    x = np.random.default_rng(0).normal(size=model.input_shape).astype(np.float32)
    quantised = quantise(lowered.network, [x], TINY)
    maps = run_network(quantised, quantised.quantise_input(x))[0]
    values = maps[lowered.outputs[source]]
    pooled = next(operator for operator in model.operators if operator.name == lowered.network.layers[-1].inputs[0].map)
    expected = pooled.run(torch.from_numpy(values[None].astype(np.float32)))[0].numpy()
    assert values.max() > 100
    np.testing.assert_array_equal(maps[pooled.name], expected)


@pytest.mark.parametrize(("build", "message"), [
    (lambda g: g.conv("x", 4, strides=[1, 2]), "Conv node 'n0' has stride 1 x 2; only the same stride both ways"),
    (lambda g: g.conv("x", 4, strides=[5, 5], pads=[2, 2, 2, 2]), "Conv node 'n0' has stride 5"),
    (lambda g: g.conv("x", 4, (2, 2), dilations=[8, 8]), "Conv node 'n0' has taps 8 pixels from"),
    (lambda g: g.clip(g.conv("x", 4), 1, 6), "Clip node 'n1' clamps to 1 .. 6; only a lower bound of at most 0"),
    (lambda g: g.clip(g.node("Relu", g.conv("x", 4)), 1), "clamps to 1 .. inf; "),
    (lambda g: g.clip(g.conv("x", 4), -6, -1), "Clip node 'n1' clamps to -6 .. -1; "),
    (lambda g: g.clip(g.conv("x", 4), 0, 0), "Clip node 'n1' clamps to 0 .. 0; "),
    (lambda g: g.node("MaxPool", g.conv("x", 4), kernel_shape=[3, 3], pads=[1, 1, 1, 1]),
     "MaxPool node 'n1' pads a map that may be negative"),
    (lambda g: g.node("MaxPool", g.conv("x", 4), kernel_shape=[3, 3], strides=[1, 2]),
     "MaxPool node 'n1' has stride 1 x 2"),
    (lambda g: g.node("MaxPool", g.conv("x", 4, (2, 2)), kernel_shape=[8, 8], strides=[1, 1]),
     "MaxPool node 'n1' has a window of 8 x 8"),
    (lambda g: g.node("AveragePool", g.conv("x", 4, (2, 2)), kernel_shape=[8, 8]),
     "AveragePool node 'n1' has a window of 8 x 8"),
    (lambda g: g.node("AveragePool", g.conv("x", 4), kernel_shape=[2, 2], strides=[5, 5]),
     "AveragePool node 'n1' has stride 5"),
    (lambda g: g.pad(g.node("Relu", g.conv("x", 4)), [0, 0, 1, 1, 0, 0, 1, 1], -np.inf), "pads with minus infinity"),
    (lambda g: g.conv("x", 9000, (1, 1)), "9000 output channels"),
])
def test_what_has_no_counterpart_is_refused(build, message):
    graph = Graph()
    with pytest.raises(ValueError, match=re.escape(message)):
        lower(model_of(graph, build(graph)), TINY)


def test_names_of_maps_are_short_and_different():
    graph = Graph()
    for name in ("/a" * 50, "/b" + "/a" * 50):
        graph.nodes.append(onnx.helper.make_node("Conv", ["x", graph.random(2, 3, 1, 1)], [name]))
        graph._infer([name])
    network = lower(model_of(graph, "/a" * 50, "/b" + "/a" * 50), TINY).network
    assert len(network.maps) == 3 and all(len(name.encode()) < 48 for name in network.maps)
