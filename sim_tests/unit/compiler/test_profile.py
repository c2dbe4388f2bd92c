"""The profile of a layer against counts of all windows, and how many phases it leads to."""
from dataclasses import replace

import numpy as np
import pytest

from compiler.emit import compile_network
from compiler.phases import phase_weights
from compiler.pipeline import compile_quantised
from compiler.profile import BALANCE_ROWS, Profile, kernel_work, profile, profile_network
from golden.cycle_model import model_network
from golden.cycles import task_cycles
from golden.layer import Slice
from golden.network import QuantisedNetwork, run_network
from golden.tasks import count_tasks, walk_tasks
from golden.tiling import Tiling
from hw.configs import CONFIGS
from sim_tests.golden_model.random_layers import random_layer, random_map, single, with_prediction

TINY, SNAPEA = CONFIGS["tiny_snapea"], CONFIGS["snapea"]


def clipping(layer, share):
    """``layer`` with a bias that takes off ``share`` of what the weights above 0 add, for inputs of 64 on average."""
    return replace(layer, bias=np.rint(-64 * share * np.maximum(layer.weights, 0).sum((1, 2, 3))).astype(int))


def layer_of(channels, size, share=0.6, out_channels=16, name="a", source="input", kernel=3, **options):
    """A layer, most outputs of which are 0."""
    return clipping(random_layer(np.random.default_rng(2), name, source, (channels, *size), width=8,
                                 kernel=(kernel, kernel), out_channels=out_channels, pad=(kernel // 2,) * 4,
                                 **options), share)


def chosen(layer, config, x, classes=3, **options):
    """Phases that are chosen for ``layer`` alone."""
    network = single(layer)
    found = profile_network(network, [run_network(network, x)[0]], config, {"input": np.mean(x != 0), **options},
                            classes)
    return found[layer.name].work.phases


@pytest.mark.parametrize("phases", [1, 3])
def test_the_profile_of_a_low_map_is_that_of_all_its_rows(phases):
    rng = np.random.default_rng(3)
    layer = layer_of(20, (4, 9))
    inputs = [random_map(rng, layer.in_shape, width=8, signed=False, density=density) for density in (.2, .6)]
    weights = phase_weights(layer, phases)
    counts = [count_tasks(layer, x, Tiling(32, 3, 4, 9, 1, 1, phases), weights, int(phases > 1), block=TINY.block)
              for x in inputs]
    found, outputs = profile(layer, inputs, TINY, phases), 2 * 4 * 9 * 16
    assert found.tasks == pytest.approx(sum(count.tasks.sum(1) for count in counts) / outputs)
    assert found.weights == pytest.approx([np.count_nonzero(part) / layer.weights.size for part in weights])
    products, words = (sum(getattr(count, name) for count in counts) for name in ("products", "words"))
    tasks = sum(count.tasks for count in counts)
    cycles = np.array(found.cycles) * outputs
    assert (np.maximum(products, words).sum(1) <= cycles).all()
    assert (cycles <= (products + words + 8 * tasks).sum(1)).all()


def test_the_work_of_kernels_in_each_round():
    """Of a low map all rows count, of two inputs each the same, in chunks of rows of the kernel."""
    rng = np.random.default_rng(3)
    layer = layer_of(20, (BALANCE_ROWS, 9))
    inputs = [random_map(rng, layer.in_shape, width=8, signed=False, density=density) for density in (.2, .6)]
    tiling = Tiling(32, 1, 4, 9, 1, 1, 2)
    profiles = {"a": Profile(None, tiling)}
    found, expected = kernel_work(single(layer), inputs, profiles, TINY)["a"], 0
    for x in inputs:
        tasks, = walk_tasks(layer, x, tiling, phase_weights(layer, 2), 1, block=TINY.block)
        cycles = task_cycles(tasks.products, tasks.words).sum((1, 2))
        expected = expected + cycles / cycles.sum() / 2
    assert found.shape == (6, 16) and found == pytest.approx(expected)
    assert kernel_work(single(layer), [0 * inputs[0]], profiles, TINY)["a"].shape == (6, 16)


def test_variation_is_what_neither_window_nor_lane_explains():
    """All weights and inputs are not 0: padding alone makes a difference, the same for all lanes."""
    layer = layer_of(16, (4, 9))
    layer = replace(layer, weights=np.where(layer.weights < 0, -1, 1))
    x = np.ones(layer.in_shape, int)
    assert profile(layer, [x], TINY, 1).variation == pytest.approx((0,), abs=1e-4)
    stopping = random_map(np.random.default_rng(3), layer.in_shape, width=8, signed=False, density=1.0)
    assert profile(layer_of(16, (4, 9)), [stopping], TINY, 2).variation[1] > 0.1


def test_phases_are_not_more_than_allowed():
    rng = np.random.default_rng(4)
    layer = layer_of(64, (24, 24))
    x = random_map(rng, layer.in_shape, width=8, signed=False, density=.5)
    found = [chosen(layer, TINY, x, classes) for classes in range(5)]
    assert found[:2] == [1, 2] and all(phases <= 1 + most for most, phases in enumerate(found))
    predicted = with_prediction(rng, layer)
    assert [chosen(predicted, TINY, x, classes) >= 2 for classes in (0, 3)] == [True, True]
    assert chosen(predicted, TINY, x, 0) == 2
    assert chosen(layer_of(64, (24, 24), signed_in=True), TINY, x // 2) == 1


def test_where_nothing_stops_there_is_one_phase():
    x = random_map(np.random.default_rng(4), (64, 24, 24), width=8, signed=False, density=.5)
    assert [chosen(layer_of(64, (24, 24), share), TINY, x) > 1 for share in (-2, 0.6)] == [False, True]


def test_phases_are_fewer_where_loading_takes_longer():
    """On one lane a tile takes longer to load than to compute; few windows do not pay for the weights of a phase."""
    x = random_map(np.random.default_rng(4), (64, 24, 24), width=8, signed=False, density=.5)
    assert chosen(layer_of(64, (24, 24)), TINY, x) > 1
    assert chosen(layer_of(64, (24, 24), out_channels=1, kernel=1), TINY, x) == 1
    assert chosen(layer_of(64, (1, 1)), TINY, x[:, :1, :1]) == 1


def test_sparse_inputs_have_too_few_products_for_more_phases():
    x = random_map(np.random.default_rng(4), (64, 24, 24), width=8, signed=False, density=.5)
    few = x * (np.random.default_rng(5).random(x.shape) < 0.05)
    layer = layer_of(64, (24, 24))
    assert chosen(layer, SNAPEA, few) == 1 < chosen(layer, SNAPEA, x)


def network_of(rng):
    """Dense and sparse, wide and narrow layers, one without a ReLU."""
    sizes, layers, source, shape = (24, 40, 8, 70), [], "input", (3, 20, 20)
    shares = rng.permutation([-0.5, 0.2, 0.6, 0.8])
    for number, channels in enumerate(sizes):
        layer = random_layer(rng, f"l{number}", source, shape, width=8, kernel=(3, 3), out_channels=channels,
                             pad=(1, 1, 1, 1), relu=number != 3, pool=2 if number == 1 else 0)
        layer = replace(layer, weights=layer.weights * (rng.random(layer.weights.shape) < (1, .8, .3, .5)[number]))
        layers.append(clipping(layer, shares[number]))
        source, shape = f"l{number}", layer.pooled_shape or layer.full_shape
    return QuantisedNetwork("net", 8, (3, 20, 20), False, tuple(layers), ("l3",))


def cycles_of(program, x):
    run = model_network(program.network, *run_network(program.network, x), program.segments[0][1], program.config,
                        split=phase_weights, descriptor_address=program.descriptor_address,
                        log_address=program.log_address)
    return run.cycles


def test_stopping_is_not_slower_than_zero_skip_alone():
    """By the cycle model, on another input than that of the profile; outputs are the same."""
    gains = []
    for seed in (1, 3, 6, 7):
        rng = np.random.default_rng(seed)
        network = network_of(rng)
        profiled, x = (random_map(rng, network.input_shape, width=8, signed=False, density=.9) for _ in range(2))
        none, exact = (compile_quantised(network, [profiled], TINY, negative_classes=classes) for classes in (0, 3))
        assert (run_network(none.network, x)[0]["l3"] == run_network(exact.network, x)[0]["l3"]).all(), f"seed {seed}"
        gains.append(cycles_of(none, x) / cycles_of(exact, x))
    assert min(gains) > 0.999 and np.mean(gains) > 1.03, gains


def test_the_broadcast_array_needs_no_profile():
    network = network_of(np.random.default_rng(0))
    program = compile_quantised(network, [], CONFIGS["tiny"])
    assert program.segments == compile_network(network, CONFIGS["tiny"]).segments
    with pytest.raises(ValueError, match="negative_classes must be 0 to 6, not 7"):
        compile_quantised(network, [np.zeros(network.input_shape, int)], TINY, negative_classes=7)
    with pytest.raises(ValueError, match="the network has 8-bit values, configuration nullhop 16-bit ones"):
        compile_quantised(network, [], CONFIGS["nullhop"])


def test_a_layer_that_reads_two_maps_is_profiled_on_both():
    rng = np.random.default_rng(6)
    first = layer_of(3, (6, 6))
    both = layer_of(32, (6, 6), name="b", source=(Slice("a", 0, 16), Slice("a", 0, 16)))
    network = QuantisedNetwork("two", 8, first.in_shape, False, (first, both), ("b",))
    maps, _ = run_network(network, random_map(rng, first.in_shape, width=8, signed=False, density=.9))
    found = profile_network(network, [maps], TINY, {}, 0)["b"]
    assert found.work == profile(both, [np.concatenate([maps["a"], maps["a"]])], TINY, 1)
