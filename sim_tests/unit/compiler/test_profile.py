"""The profile of a layer against counts of all windows, and how many phases it leads to."""
from dataclasses import replace

import numpy as np
import pytest

from compiler.emit import compile_network
from compiler.phases import phase_counts, phase_weights
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


def profiled(layer, config, x, classes=3, **options):
    """The profile that is chosen for ``layer`` alone."""
    network = single(layer)
    found = profile_network(network, [run_network(network, x)[0]], config, {"input": np.mean(x != 0), **options},
                            classes)
    return found[layer.name]


def chosen(*arguments, **options):
    """Rounds of each chunk that are chosen for a layer alone."""
    return profiled(*arguments, **options).work.phase_rounds


@pytest.mark.parametrize("phases, joined, depth", [(1, 0, 160), (3, 0, 160), (4, 2, 160), (4, 0, 288), (4, 3, 288)])
def test_the_profile_of_a_low_map_is_that_of_all_its_rows(phases, joined, depth):
    """In chunks of a block or, where the weight buffer has room for all, of two."""
    rng = np.random.default_rng(3)
    layer = layer_of(20, (4, 9))
    inputs = [random_map(rng, layer.in_shape, width=8, signed=False, density=density) for density in (.2, .6)]
    weights, chunks, config = phase_weights(layer, phases, joined), 320 // depth, replace(TINY, weight_depth=depth)
    counts = [count_tasks(layer, x, Tiling(32 // chunks, 3, 4, 9, 1, 1, phases, joined), weights, int(phases > 1),
                          block=TINY.block) for x in inputs]
    found, outputs, rounds = profile(layer, inputs, config, phases, joined), 2 * 4 * 9 * 16, phases - joined
    assert (found.phases, found.joined, found.phase_rounds, found.whole) == (phases, joined, rounds, joined == 3)
    # The last phases have a task together, which begins with the first of them.
    firsts = np.arange(rounds)
    tasks, products, words = (sum(getattr(count, name).sum(1) for count in counts)
                              for name in ("tasks", "products", "words"))
    tasks, products, words = tasks[firsts], np.add.reduceat(products, firsts), np.add.reduceat(words, firsts)
    assert found.tasks == pytest.approx(tasks / outputs / chunks)
    parts = np.add.reduceat([np.count_nonzero(part) for part in weights], firsts)
    assert found.weights == pytest.approx(parts / layer.weights.size)
    cycles = np.array(found.cycles) * outputs
    assert (np.maximum(products, words) <= cycles).all() and (cycles <= products + words + 8 * tasks).all()


@pytest.mark.parametrize("phases, joined, firsts", [(2, 0, range(6)), (5, 3, (0, 1, 2, 3, 7, 11))])
def test_the_work_of_kernels_in_each_round(phases, joined, firsts):
    """Of a low map all rows count, of two inputs each on its own, in chunks of rows of the kernel."""
    rng = np.random.default_rng(3)
    layer = layer_of(20, (BALANCE_ROWS, 9))
    inputs = [random_map(rng, layer.in_shape, width=8, signed=False, density=density) for density in (.2, .6)]
    tiling = Tiling(32, 1, 4, 9, 1, 1, phases, joined)
    profiles = {"a": Profile(None, tiling)}
    found, expected = kernel_work(single(layer), inputs, profiles, TINY)["a"], []
    for x in inputs:
        tasks, = walk_tasks(layer, x, tiling, phase_weights(layer, phases, joined), 1, block=TINY.block)
        cycles = task_cycles(np.add.reduceat(tasks.products, firsts), np.add.reduceat(tasks.words, firsts)).sum((1, 2))
        expected.append(cycles / cycles.sum())
    assert found.shape == (12, 16) and found == pytest.approx(np.concatenate(expected))
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
    assert found[:2] == [1, 2] and all(rounds <= 1 + most for most, rounds in enumerate(found))
    predicted = with_prediction(rng, layer)
    assert [chosen(predicted, TINY, x, classes) >= 2 for classes in (0, 3)] == [True, True]
    assert chosen(predicted, TINY, x, 0) == 2
    assert chosen(layer_of(64, (24, 24), signed_in=True), TINY, x // 2) == 1


def test_where_nothing_stops_there_is_one_phase():
    x = random_map(np.random.default_rng(4), (64, 24, 24), width=8, signed=False, density=.5)
    for channels in (64, 16):
        phases = [profiled(layer_of(channels, (24, 24), share), TINY, x[:channels]).work.phases for share in (-2, 0.6)]
        assert phases[0] == 1 < phases[1], channels


def test_phases_share_a_round_where_that_is_faster():
    """All of them where a kernel fits a chunk; the cycle model agrees."""
    layer = layer_of(16, (24, 24))
    network, x = single(layer), random_map(np.random.default_rng(4), layer.in_shape, width=8, signed=False, density=.5)
    found = profiled(layer, TINY, x)
    assert (found.work.phases, found.work.joined, found.work.whole) == (4, 3, True)
    assert found.tiling == replace(found.tiling, phases=4, joined=3, chunk_channels=16, chunk_rows=3)
    cycles = [cycles_of(compile_network(network, TINY, densities={"input": .5}, work={"a": profile(
        layer, [x], TINY, *count)}), x) for count in phase_counts(layer, TINY, 3)]
    best = phase_counts(layer, TINY, 3).index((4, 3))
    assert cycles[best] < min(cycles[:best] + cycles[best + 1:]), cycles


def test_a_layer_whose_tiles_do_not_fit_with_all_of_a_kernel_has_smaller_chunks():
    """4 windows span 4 segments: 40 slots of 10 blocks, more than there are."""
    layer = random_layer(np.random.default_rng(0), "a", "input", (160, 16, 40), width=8, kernel=(1, 1),
                         out_channels=16, stride=4)
    found = profiled(layer, TINY, random_map(np.random.default_rng(4), layer.in_shape, width=8, signed=False,
                                             density=.5))
    assert not found.work.whole and found.tiling.chunk_channels < 160


def test_phases_are_fewer_where_loading_takes_longer():
    """On one lane a tile takes longer to load than to compute; few windows do not pay for the weights of a round."""
    x = random_map(np.random.default_rng(4), (64, 24, 24), width=8, signed=False, density=.5)
    assert chosen(layer_of(64, (24, 24)), TINY, x) > 1
    assert chosen(layer_of(64, (24, 24), out_channels=1, kernel=1), TINY, x) == 1
    assert chosen(layer_of(64, (1, 1)), TINY, x[:, :1, :1]) == 1


def test_sparse_inputs_have_too_few_products_for_more_phases():
    x = random_map(np.random.default_rng(4), (64, 24, 24), width=8, signed=False, density=.5)
    few = x * (np.random.default_rng(5).random(x.shape) < 0.05)
    layer = layer_of(64, (24, 24))
    assert profiled(layer, SNAPEA, few).work.phases == 1 < profiled(layer, SNAPEA, x).work.phases


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
