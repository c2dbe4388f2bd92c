"""Nodes of an imported network: every layer belongs to one, and multiplications are those of the float network."""
import numpy as np
import onnx
import pytest

from compiler.lower import lower
from compiler.nodes import network_nodes
from compiler.onnx import read_proto, simplify
from hw.configs import CONFIGS
from sim_tests.unit.compiler.onnx_graphs import STEPS, Graph, random_graph


def nodes_of(graph, *outputs, names=None):
    """``(nodes, names of all layers)`` on ``tiny``; ``names``: those of the nodes of the graph."""
    proto = graph.proto(outputs)
    for node, name in zip(proto.graph.node, names or [], strict=False):
        node.name = name
    model = simplify(read_proto(onnx.shape_inference.infer_shapes(proto), "net")[0])
    lowered = lower(model, CONFIGS["tiny"])
    return network_nodes(model, lowered), [layer.name for layer in lowered.network.layers]


def test_what_chooses_pixels_for_a_node_is_part_of_it():
    graph = Graph((1, 3, 9, 11), seed=1)
    x = graph.node("Relu", graph.conv("x", 6))
    x = graph.node("Slice", x, *(graph.constant(values, np.int64) for values in ([0, 0], [7, 9], [2, 3], [2, 2])))
    (first, _, last), layers = nodes_of(graph, graph.conv(x, 8, groups=2))
    assert (first.name, first.shape, first.macs, first.groups) == ("Conv node 'n0'", (6, 7, 9), 6 * 63 * 27, 1)
    # The layer that takes every other pixel multiplies nothing in the float network.
    assert (last.name, last.shape, last.macs, last.groups) == ("Conv node 'n3'", (8, 2, 3), 8 * 6 * 27, 2)
    assert len(last.layers) == 2 and [*first.layers, *last.layers] == layers


def test_nodes_of_one_name_are_two():
    graph = Graph((1, 3, 9, 11), seed=2)
    found, _ = nodes_of(graph, graph.conv(graph.node("Relu", graph.conv("x", 6)), 4), names=["same", "relu", "same"])
    assert [(node.name, node.macs) for node in found] == [
        ("Conv node 'same'", 6 * 63 * 27), ("Relu node 'relu'", 0), ("Conv node 'same'", 4 * 35 * 54)]
    assert [len(node.layers) for node in found] == [1, 0, 1]


def test_a_copy_for_an_output_has_the_shape_of_its_map():
    graph = Graph((1, 3, 9, 11), seed=3)
    *_, copy = nodes_of(graph, graph.node("LeakyRelu", graph.conv("x", 6), alpha=0.2))[0]
    assert copy.name.startswith("output ") and (copy.kind, copy.shape, copy.macs) == ("copy", (6, 7, 9), 0)
    assert len(copy.layers) == 1


@pytest.mark.parametrize("seed", range(8))
def test_every_layer_belongs_to_one_node(seed):
    steps = np.random.default_rng(seed).choice(list(STEPS), 6).tolist()
    graph, output = random_graph(steps, seed, 13, head=False)
    found, layers = nodes_of(graph, output)
    assert sorted(name for node in found for name in node.layers) == sorted(layers), (seed, steps)
    convolutions = [node for node in graph.proto([output]).graph.node if node.op_type == "Conv"]
    weights = {tensor.name: tensor.dims for tensor in graph.constants}
    expected = {f"Conv node '{node.name}'": int(np.prod(weights[node.input[1]][1:])) for node in convolutions}
    assert {node.name: node.macs_of_output for node in found if node.name in expected} == expected, (seed, steps)
