"""The order of the weights below 0: whose turn comes first, and that it takes the fewest products."""
from dataclasses import replace

import numpy as np
import pytest

from compiler import emit
from compiler.order import BENDS, order, order_network
from compiler.phases import NEGATIVE_CLASSES, bend_turns, phase_weights, stop_phase, turns
from compiler.pipeline import compile_quantised
from golden.layer import NEVER, Prediction, Slice
from golden.network import QuantisedNetwork, gather, run_network
from golden.tasks import count_tasks
from golden.tiling import Tiling
from hw.configs import CONFIGS
from sim_tests.golden_model.random_layers import random_layer, random_map

TINY = CONFIGS["tiny_snapea"]


def layer_of(channels=16, size=(6, 8), name="a", source="input", out_channels=16, **options):
    """A layer, most outputs of which are 0."""
    layer = random_layer(np.random.default_rng(2), name, source, (channels, *size), width=8, kernel=(3, 3),
                         out_channels=out_channels, pad=(1,) * 4, **options)
    return replace(layer, bias=-4 * np.maximum(layer.weights, 0).sum((1, 2, 3)))


def inputs_of(layer, count=2, seed=0):
    """Maps whose channels are unlike each other, in how large their values are and in how many there are."""
    rng = np.random.default_rng(seed)
    sizes, shares = rng.choice([.05, .3, 1], layer.in_shape[0]), rng.choice([.1, .5, .9], layer.in_shape[0])
    return [np.rint(random_map(rng, layer.in_shape, width=8, signed=False, density=1) * sizes[:, None, None]
                    * (rng.random(layer.in_shape) < shares[:, None, None])).astype(int) for _ in range(count)]


def products(layer, x, turns, classes=NEGATIVE_CLASSES):
    """Of each kernel in exact mode."""
    layer, phases = replace(layer, turns=turns), classes + (1 if layer.prediction is None else 2)
    tiling = Tiling(16, 3, *layer.full_shape[1:], 1, 1, phases)
    return count_tasks(layer, x, tiling, phase_weights(layer, phases), stop_phase(layer, phases),
                       block=16).products.sum()


def test_what_an_input_that_is_not_0_takes_off_comes_first():
    """In channel 0 few inputs are large, in channel 1 many are small, in channel 2 all are 0."""
    layer = layer_of(3)
    weights = np.zeros(layer.weights.shape, int)
    weights[:, 0, 0, 0], weights[:, 1, 0, 0], weights[:, 2, 0, 0], weights[:, 0, 0, 1] = -3, -9, -100, 50
    x = np.zeros(layer.in_shape, int)
    x[0, :, ::4], x[1] = 80, 2
    found = order(replace(layer, weights=weights), [x], TINY)
    for lane in found[:, :, 0, 0].astype(int).tolist():
        assert lane[0] == 0 and lane[0] < lane[1] < lane[2]


@pytest.mark.parametrize("predicts", [False, True])
def test_each_kernel_has_the_bend_with_fewest_products(predicts):
    """The rows that bends are compared on are all of a map of one row."""
    layer = layer_of(size=(1, 40), source="input")
    if predicts:
        # The third of the weights that are largest, and no output is predicted to be 0.
        weights = np.where(np.abs(layer.weights) > 85, layer.weights, 0)
        layer = replace(layer, prediction=Prediction(weights, np.full(16, NEVER)))
    inputs = inputs_of(layer)
    falls = sum(x.sum((1, 2)) for x in inputs) / sum((x != 0).sum((1, 2)) for x in inputs)
    rest = layer.weights - layer.prediction.weights if predicts else layer.weights
    even, found = turns(rest, falls), order(layer, inputs, TINY)
    lanes = [replace(layer, weights=layer.weights[n:n + 1], bias=layer.bias[n:n + 1], scale=layer.scale[n:n + 1],
                     shift=layer.shift[n:n + 1], prediction=layer.prediction and replace(
                         layer.prediction, weights=layer.prediction.weights[n:n + 1],
                         thresholds=layer.prediction.thresholds[n:n + 1])) for n in range(16)]
    best = []
    for n, lane in enumerate(lanes):
        counts = [sum(products(lane, x, bend_turns(even[n:n + 1], bend)) for x in inputs) for bend in BENDS]
        best.append(int(np.argmin(counts)))
        below = rest[n] < 0
        assert (found[n][below] == bend_turns(even[n:n + 1], BENDS[best[-1]])[0][below]).all(), n
    assert predicts or len(set(best)) > 1


def test_an_order_saves_products_on_inputs_that_it_was_not_made_for():
    layer = layer_of(32, (8, 16))
    seen, others = inputs_of(layer, 2, seed=5), inputs_of(layer, 4, seed=5)[2:]
    found = order(layer, seen, TINY)
    plain, ordered = (sum(products(layer, x, when) for x in others) for when in (None, found))
    assert ordered < .97 * plain


def test_only_layers_that_stop_have_an_order_and_no_output_depends_on_it():
    layers = (layer_of(), layer_of(name="b", source="a", relu=False), layer_of(name="c", source="b", signed_in=True))
    network = QuantisedNetwork("three", 8, (16, 6, 8), False, layers, ("c",),
                               {name: np.ones(16) for name in ("input", "a", "b", "c")})
    [x] = inputs_of(layers[0], 1)
    maps, _ = run_network(network, x)
    ordered = order_network(network, [maps], TINY)
    assert [layer.turns is not None for layer in ordered.layers] == [True, False, False]
    assert (ordered.layers[0].turns == order(layers[0], [gather(maps, layers[0].inputs)], TINY)).all()
    found, _ = run_network(ordered, x)
    assert all((found[name] == maps[name]).all() for name in maps)


@pytest.mark.parametrize("classes, ordered", [(0, False), (1, True), (3, True)])
def test_the_compiler_orders_what_it_stops(classes, ordered):
    """And what it emits has the order: channels that a balanced layer has moved, and blocks that are filled up."""
    network = QuantisedNetwork("two", 8, (16, 6, 8), False, (layer_of(), layer_of(name="b", source="a")), ("b",),
                               {name: np.ones(16) for name in ("input", "a", "b")})
    inputs = inputs_of(network.layers[0])
    program = compile_quantised(network, inputs, TINY, negative_classes=classes)
    for layer in program.network.layers:
        assert (layer.turns is not None) == ordered
    if not ordered:
        return
    alone = order_network(network, [run_network(network, x)[0] for x in inputs], TINY)
    first, second = program.network.layers
    rows = [[int(np.flatnonzero((alone.layers[0].weights == kernel).all((1, 2, 3)))[0]) for kernel in first.weights]]
    assert (first.turns == alone.layers[0].turns[rows[0]]).all()
    assert (second.turns == alone.layers[1].turns[:, rows[0]]).all()


def test_channels_that_fill_up_a_block_need_no_turn():
    """Two slices of 8 channels: the weights are those of two blocks of 16."""
    source = (Slice("a", 0, 8), Slice("b", 0, 8))
    first, second = (layer_of(name=name, out_channels=8) for name in "ab")
    last = layer_of(name="c", source=source)
    network = QuantisedNetwork("three", 8, (16, 6, 8), False, (first, second, last), ("c",),
                               {name: np.ones(channels) for name, channels in zip(("input", *"abc"), (16, 8, 8, 16),
                                                                                  strict=True)})
    program = compile_quantised(network, inputs_of(first), TINY)
    before = program.network.layers[2]
    layer = emit._with_whole_blocks(before, program.network, TINY)
    assert layer.weights.shape[1] == 24 and layer.turns.shape == layer.weights.shape
    assert (layer.turns[:, :8] == before.turns[:, :8]).all() and (layer.turns[:, 16:] == before.turns[:, 8:]).all()
