"""Sums that convolutions take over: the same values, fewer operators, and only where stopping becomes exact."""
from dataclasses import replace

import numpy as np
import pytest

from compiler.lower import lower
from compiler.model import Add, Clamp, Convolution, Model
from compiler.sums import merge_sums
from hw.configs import CONFIGS

RELU = (0.0, np.inf)


def convolution(rng, name, source, channels, out_channels, *, kernel=(3, 3), pad=(1, 1, 1, 1), **fields):
    weights = rng.normal(size=(out_channels, channels, *kernel)).astype(np.float32)
    bias = rng.normal(size=out_channels)
    return Convolution(name, (source,), f"Conv node '{name}'", weights, bias, pad=pad, **fields)


def block(rng, *, order=("y", "r"), second=None, channels=20):
    """``relu(factors * (convolution(x), r) + bias)``, r and x behind a ReLU."""
    operators = (
        convolution(rng, "a", "input", 3, channels), Clamp("r", ("a",), "Relu node 'r'", *RELU),
        convolution(rng, "b", "r", channels, channels), Clamp("x", ("b",), "Relu node 'x'", *RELU),
        second or convolution(rng, "y", "x", channels, channels),
        Add("s", order, "Add node 's'", rng.normal(size=(2, channels)), rng.normal(size=channels)),
        Clamp("out", ("s",), "Relu node 'out'", *RELU))
    return Model("block", "input", (3, 7, 6), operators, ("out",))


def change(model, name, **fields):
    return replace(model, operators=tuple(replace(operator, **fields) if operator.name == name else operator
                                          for operator in model.operators))


def kinds(model):
    return [type(operator).__name__ for operator in model.operators]


@pytest.mark.parametrize("order", [("y", "r"), ("r", "y"), ("y", "x")])
@pytest.mark.parametrize("kernel, pad, dilation", [
    ((3, 3), (1, 1, 1, 1), (1, 1)), ((1, 1), (0, 0, 0, 0), (1, 1)), ((3, 2), (2, 0, 0, 1), (1, 1)),
    ((3, 3), (2, 4, 2, 4), (2, 4))])
def test_values_stay(order, kernel, pad, dilation):
    rng = np.random.default_rng(1)
    second = convolution(rng, "y", "x", 20, 20, kernel=kernel, pad=pad, dilation=dilation)
    model, x = block(rng, order=order, second=second), rng.normal(size=(3, 7, 6))
    merged = merge_sums(model)
    assert kinds(merged) == ["Convolution", "Clamp", "Convolution", "Clamp", "Concat", "Convolution", "Clamp"]
    expected, found = model.run(x)["out"], merged.run(x)["out"]
    assert expected.any() and np.allclose(found, expected, rtol=1e-4, atol=1e-4)
    macs = [operator.macs_of_output for operator in merged.operators if isinstance(operator, Convolution)]
    assert macs[-1] == 20 * np.prod(kernel), "the residual costs a float network no multiplications"


def test_a_block_behind_a_block():
    rng = np.random.default_rng(2)
    first = block(rng)
    second = (convolution(rng, "b2", "out", 20, 20), Clamp("x2", ("b2",), "Relu node 'x2'", *RELU),
              convolution(rng, "y2", "x2", 20, 20),
              Add("s2", ("y2", "out"), "Add node 's2'", np.ones((2, 20)), np.zeros(20)),
              Clamp("out2", ("s2",), "Relu node 'out2'", *RELU))
    model, x = replace(first, operators=(*first.operators, *second), outputs=("out2",)), rng.normal(size=(3, 7, 6))
    assert kinds(merge_sums(model)).count("Add") == 0
    for config in (CONFIGS["snapea"], CONFIGS["tiny_snapea"]):
        network = lower(model, config).network
        assert len(network.layers) == 5
        found, expected = network.run_float(x)[network.outputs[0]], model.run(x)["out2"]
        assert np.allclose(found, expected, rtol=1e-3, atol=1e-3)
    assert len(lower(model, CONFIGS["small"]).network.layers) > 5, "the broadcast array multiplies weights of 0"


@pytest.mark.parametrize("what", ["no ReLU", "signed residual", "signed input", "stride", "groups", "used twice",
                                  "an output", "sum used twice", "padding between pixels", "no own tap",
                                  "large residual"])
def test_sums_that_stay(what):
    rng = np.random.default_rng(3)
    model = block(rng)
    match what:
        case "no ReLU":
            model = change(model, "out", low=-np.inf)
        case "signed residual":
            model = change(model, "r", low=-1.0)
        case "signed input":
            model = change(model, "x", low=-1.0)
        case "stride":
            model = change(model, "y", stride=(2, 2))
        case "groups":
            model = change(model, "y", groups=20, weights=rng.normal(size=(20, 1, 3, 3)))
        case "used twice":
            model = replace(model, operators=(*model.operators, Clamp("more", ("y",), "Relu node 'more'", *RELU)),
                            outputs=("out", "more"))
        case "an output":
            model = replace(model, outputs=("out", "y"))
        case "sum used twice":
            model = replace(model, outputs=("out", "s"))
        case "padding between pixels":
            model = change(model, "y", pad=(1, 1, 3, 3), dilation=(2, 2))
        case "large residual":
            weights = model.operators[4].weights
            model = change(model, "y", weights=weights / 9 / np.abs(weights).max((1, 2, 3), keepdims=True))
            model = change(model, "s", factors=np.ones((2, 20)))
            assert merge_sums(change(model, "s", factors=np.ones((2, 20)) * [[1.2], [1]])) is not model
        case "no own tap":
            model = change(model, "y", pad=(3, 1, -1, 1))
    assert merge_sums(model) is model
