"""ONNX files: every operator and spelling against ONNX Runtime, in all opsets."""
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sim_tests.unit.compiler.onnx_graphs import (
    SINCE,
    SPELLINGS,
    STEPS,
    Graph,
    assert_close,
    random_graph,
    random_input,
    run_imported,
    run_onnx,
)


@pytest.mark.parametrize("opset", [8, 13, 21])
@pytest.mark.parametrize("name", SPELLINGS)
def test_equals_onnx_runtime(name, opset):
    if opset < SINCE[name]:
        opset = SINCE[name]
    graph = Graph(opset=opset)
    proto = graph.proto([SPELLINGS[name](graph)])
    x = random_input(graph)
    assert_close(run_imported(proto, x)[0], run_onnx(proto, x), f"{name} in opset {opset}")


@settings(max_examples=40, deadline=None, derandomize=True)
@given(steps=st.lists(st.sampled_from(sorted(STEPS)), min_size=1, max_size=7), seed=st.integers(0, 2**32 - 1),
       opset=st.integers(8, 21), head=st.booleans())
def test_random_networks_equal_onnx_runtime(steps, seed, opset, head):
    graph, output = random_graph(steps, seed, opset, head)
    proto, x = graph.proto([output]), random_input(graph, seed)
    assert_close(run_imported(proto, x)[0], run_onnx(proto, x), f"{steps}, seed {seed}, opset {opset}, head {head}")
