"""A program, run from its DRAM bytes by an independent walk, leaves in DRAM what the golden model expects."""
import random
from dataclasses import replace

import numpy as np
import pytest

from compiler.emit import compile_network
from compiler.tile import choose_tiling
from golden.array import convolve
from golden.cycles import even_work, tiled_nonzero_macs
from golden.formats import dense_channels
from golden.layer import run_layer
from golden.network import QuantisedNetwork, gather
from golden.tiling import Tiling
from hw.config import AcceleratorConfig
from hw.configs import CONFIGS
from hw.descriptor import DESCRIPTOR_BYTES, FIELD_BY_NAME, unpack

from .random_layers import DENSITIES, random_layer, random_map, single, with_prediction
from .random_networks import random_network
from .walk import IntersectWalk, Walk

TINY = CONFIGS["tiny"]
WIDE = AcceleratorConfig("wide", value_width=16, groups=3, lanes=32, block=32, drain=8, weight_depth=224, tile_slots=24,
                         sum_windows=20, pool_columns=4)
#: The intersect array with blocks of 16, 32 and 64 channels: four, two and one map word in a beat of the weight image.
BLOCK_16 = CONFIGS["tiny_snapea"]
BLOCK_32 = AcceleratorConfig("block_32", value_width=8, groups=3, lanes=32, block=32, drain=8, weight_depth=224,
                             tile_slots=24, sum_windows=16, pool_columns=4, array="intersect", clusters=8)
BLOCK_64 = AcceleratorConfig("block_64", value_width=8, groups=1, lanes=64, block=64, drain=4, weight_depth=448,
                             tile_slots=20, sum_windows=32, pool_columns=4, array="intersect", clusters=2, pes=3)
INTERSECT = [BLOCK_16, BLOCK_32, BLOCK_64]


def run_and_compare(network, config, x, note, **options):
    program = compile_network(network, config, base_address=0x2000_0000, **options)
    dram = program.load(x)
    # What is not initial contents may hold anything.
    untouched = np.ones(len(dram), bool)
    for address, data in [*program.segments, program.encode_input(x)]:
        untouched[address - program.base:address - program.base + len(data)] = False
    dram[untouched] = np.random.default_rng(0).integers(0, 256, int(untouched.sum()))
    walk = (IntersectWalk if config.intersect else Walk)(config, dram, program.base)
    walk.run(program.descriptor_address, program.layer_count)
    expected = program.expected(x)
    for name in network.maps:
        received = program.read_map(name, dram)
        wrong = np.argwhere(received != expected[name])
        assert not len(wrong), f"{note}: map {name} at {wrong[0]}: {program.explain()}"
    work = sum(macs(choice, layer, gather(expected, layer.inputs), config)
               for layer, choice in zip(network.layers, program.choices.values(), strict=True))
    if all(layer.prediction is None for layer in network.layers):
        stops = config.intersect and any(stop_phases(program, dram))
        assert walk.lane_work <= work if stops else walk.lane_work == work, note
    return program, expected, work - walk.lane_work


def macs(choice, layer, x, config):
    """Multiplications without a stop: both operands are not 0, or the activation alone; windows for each tile."""
    result = run_layer(layer, x)
    if config.intersect:
        result = replace(result, nonzeros=pairs(layer, x).sum(axis=0))
        return tiled_nonzero_macs(replace(choice.geometry, out_channels=1), choice.tiling, result)
    return tiled_nonzero_macs(choice.geometry, choice.tiling, result)


def pairs(layer, x):
    """Pairs of an activation and a weight that are both not 0, of each output [O, H, W]."""
    return convolve(x != 0, (layer.weights != 0).astype(int), stride=layer.stride, pad=layer.pad,
                    size=layer.full_shape[1:])


def stop_phases(program, dram):
    """Field ``stop_phase`` of each descriptor."""
    first = program.descriptor_address - program.base
    return [unpack(bytes(dram[at:at + DESCRIPTOR_BYTES]))["stop_phase"]
            for at in range(first, first + DESCRIPTOR_BYTES * program.layer_count, DESCRIPTOR_BYTES)]


def with_phases(network, config, phases, joined=0):
    """The tilings of ``network`` with ``phases`` phases of every layer, the last ``joined`` in the round before."""
    choices = compile_network(network, config).choices
    return {name: replace(choice.tiling, phases=phases, joined=joined) for name, choice in choices.items()}


def with_work(layer, config, phases, joined, whole):
    """The work of ``layer`` alone in phases, in one chunk if it is ``whole``."""
    work = even_work(layer.geometry(), config, phases=phases, joined=joined, density_in=0.5)
    return {layer.name: replace(work, whole=whole)}


def fits(layer, config):
    """Whether some tiling fits: with pooling, a large kernel or stride may ask for more slots than there are."""
    try:
        choose_tiling(layer.geometry(0 if layer.in_shape[0] <= dense_channels(config) else None), config)
    except ValueError:
        return False
    return True


def random_case(seed, config, most_macs=1_000_000):
    """A layer that fits, of random shape and at most ``most_macs`` multiplications, with a map."""
    pick = random.Random(seed)
    rng = np.random.default_rng(seed)
    while True:
        channels = pick.choice([1, 3, config.block - 1, config.block, config.block + 1, 70])
        kernel = (pick.randint(1, 7), pick.randint(1, 7))
        pool, relu, signed_in = pick.choice([0, 0, 2, 3]), pick.random() < 0.7, pick.random() < 0.4
        pad = tuple(pick.randint(0, 4) for _ in range(4))
        shape = (channels, pick.randint(1, 14), pick.randint(1, 18))
        layer = random_layer(rng, "layer", "input", shape, width=config.value_width, kernel=kernel,
                             out_channels=pick.choice([1, config.block, 37]), stride=pick.randint(1, 4), pad=pad,
                             relu=relu, signed_in=signed_in, pool=pool, pool_ceil=pick.random() < 0.7,
                             keep_full=bool(pool) and pick.random() < 0.5)
        size = layer.full_shape[1:]
        if min(size) >= 1 and layer.weights.size * size[0] * size[1] < most_macs and fits(layer, config):
            density = pick.choice(DENSITIES)
            return layer, random_map(rng, shape, width=config.value_width, signed=signed_in, density=density)


@pytest.mark.parametrize("config", [TINY, WIDE], ids=lambda config: config.name)
@pytest.mark.parametrize("seed", range(40))
def test_random_layer(config, seed):
    layer, x = random_case(seed, config)
    run_and_compare(single(layer), config, x, f"seed {seed}, config {config.name}, {layer.in_shape}, "
                    f"weights {layer.weights.shape}, stride {layer.stride}, pad {layer.pad}, pool {layer.pool}")


@pytest.mark.parametrize("config", [TINY, WIDE], ids=lambda config: config.name)
def test_network_with_many_chunks_passes_and_kernel_blocks(config):
    rng, width = np.random.default_rng(7), config.value_width
    first = random_layer(rng, "a", "input", (3, 21, 27), width=width, kernel=(3, 3), out_channels=20, stride=1,
                         pad=(1, 1, 1, 1), signed_in=True, pool=3, keep_full=True)
    second = random_layer(rng, "b", "a", first.pooled_shape, width=width, kernel=(3, 3), out_channels=70,
                          pad=(1, 1, 1, 1))
    third = random_layer(rng, "c", "a.full", first.full_shape, width=width, kernel=(1, 1), out_channels=9, stride=2,
                         pool=2, pool_ceil=False)
    fourth = random_layer(rng, "d", "b", second.full_shape, width=width, kernel=(5, 5), out_channels=18, stride=3,
                          relu=False)
    fifth = random_layer(rng, "e", "d", fourth.full_shape, width=width, kernel=fourth.full_shape[1:], out_channels=5,
                         signed_in=True, relu=False)
    network = QuantisedNetwork("network", width, (3, 21, 27), True, (first, second, third, fourth, fifth), ("c", "e"))
    x = random_map(rng, (3, 21, 27), width=width, signed=True, density=0.3)
    program, expected, _ = run_and_compare(network, config, x, f"config {config.name}")
    tilings = [choice.tiling for choice in program.choices.values()]
    assert max(tiling.passes for tiling in tilings) > 1
    pairs = list(zip(tilings, network.layers, strict=True))
    assert any(tiling.chunk_rows < layer.weights.shape[2] for tiling, layer in pairs)
    assert any(tiling.chunk_channels < layer.in_shape[0] for tiling, layer in pairs)
    assert expected["d"].min() < 0 < expected["d"].max()


@pytest.mark.parametrize("config", [TINY, WIDE], ids=lambda config: config.name)
@pytest.mark.parametrize("seed", range(20))
def test_random_network(config, seed):
    rng = np.random.default_rng(seed)
    network = random_network(rng, config, depth=4)
    first = network.layers[0]
    x = random_map(rng, first.in_shape, width=config.value_width, signed=first.signed_in, density=rng.choice(DENSITIES))
    run_and_compare(network, config, x, f"seed {seed}, config {config.name}")


@pytest.mark.parametrize("broken", ["weights", "scales", "descriptor"])
def test_walk_notices_a_wrong_image(broken):
    rng = np.random.default_rng(5)
    layer = random_layer(rng, "layer", "input", (20, 6, 9), width=8, kernel=(3, 3), out_channels=16, pad=(1, 1, 1, 1))
    x = random_map(rng, layer.in_shape, width=8, signed=False, density=0.5)
    program = compile_network(single(layer), TINY)
    dram = program.load(x)
    at = {"weights": program.segments[1][0] + 16 * TINY.lanes, "scales": program.segments[1][0],
          "descriptor": program.descriptor_address + 4 * FIELD_BY_NAME["pad_left"].word}[broken] - program.base
    dram[at] ^= 1 if broken == "descriptor" else 0x40
    if broken == "scales":
        dram[at:at + 4] = [0, 0, 0, 0x20]
    Walk(TINY, dram, program.base).run(program.descriptor_address, program.layer_count)
    assert (program.read_map("layer", dram) != program.expected(x)["layer"]).any()


# ---- intersect array -----------------------------------------------------------------------------------------------

@pytest.mark.parametrize("config", INTERSECT, ids=lambda config: config.name)
@pytest.mark.parametrize("seed", range(24))
def test_random_layer_in_phases(config, seed):
    layer, x = random_case(seed, config, 250_000)
    network, phases = single(layer), 1 + seed % 4
    run_and_compare(network, config, x, f"seed {seed}, config {config.name}, {phases} phases, {layer.in_shape}, "
                    f"weights {layer.weights.shape}, stride {layer.stride}, pad {layer.pad}, pool {layer.pool}",
                    tilings=with_phases(network, config, phases))


@pytest.mark.parametrize("config", INTERSECT, ids=lambda config: config.name)
@pytest.mark.parametrize("seed", range(12))
def test_random_layer_in_joined_phases(config, seed):
    """Weights above 0 have a round of their own: any chunks will do."""
    layer, x = random_case(seed, config, 250_000)
    network, (phases, joined) = single(layer), [(3, 1), (4, 2), (5, 3), (7, 3)][seed % 4]
    program, *_ = run_and_compare(network, config, x, f"seed {seed}, config {config.name}, {joined} of {phases} phases "
                                  f"joined, {layer.in_shape}, weights {layer.weights.shape}, pool {layer.pool}",
                                  tilings=with_phases(network, config, phases, joined))
    assert program.choices["layer"].tiling.phase_rounds == phases - joined


def test_random_layers_reach_what_makes_phases_hard():
    seen = set()
    for config in INTERSECT:
        for seed in range(24):
            layer, _ = random_case(seed, config, 250_000)
            if seed % 4 == 0:
                continue
            tiling = compile_network(single(layer), config).choices[layer.name].tiling
            stops = layer.low == 0 and not layer.signed_in
            seen |= {name for name, holds in {
                "stop": stops, "no stop": not stops, "ReLU of signed input": layer.low == 0 and layer.signed_in,
                "row chunks": stops and tiling.chunk_rows < layer.weights.shape[2],
                "passes": stops and tiling.passes > 1, "pool": stops and layer.pool,
                "kernel blocks": stops and len(layer.weights) > config.lanes,
            }.items() if holds}
    assert len(seen) == 7, sorted(seen)


@pytest.mark.parametrize("config", INTERSECT, ids=lambda config: config.name)
def test_phases_of_channel_and_row_chunks_with_remainders(config):
    rng = np.random.default_rng(8)
    layer = random_layer(rng, "layer", "input", (2 * config.block + 3, 7, 9), width=8, kernel=(3, 2), out_channels=5,
                         pad=(1, 0, 1, 1))
    x = random_map(rng, layer.in_shape, width=8, signed=False, density=0.5)
    all_saved = []
    for joined in (0, 2):
        tilings = {"layer": Tiling(config.block, 2, 2, 4, 3, 4, 4, joined)}
        program, _, saved = run_and_compare(single(layer), config, x, f"config {config.name}", tilings=tilings)
        assert program.choices["layer"].tiles == 12 and saved
        all_saved.append(saved)
    assert all_saved[0] != all_saved[1], "chunks of phases that share a round come in another order"


@pytest.mark.parametrize("phases, joined", [(3, 0), (6, 3)])
@pytest.mark.parametrize("seed", range(12))
def test_random_network_in_phases(seed, phases, joined):
    """Parts of maps, blocks of two maps, several writers of one."""
    rng = np.random.default_rng(seed)
    network = random_network(rng, BLOCK_16)
    first = network.layers[0]
    x = random_map(rng, first.in_shape, width=8, signed=first.signed_in, density=0.4)
    run_and_compare(network, BLOCK_16, x, f"seed {seed}", tilings=with_phases(network, BLOCK_16, phases, joined))


#: What the weights of a layer may be like, as a function of random ones.
ADVERSARIAL = {
    "negative": lambda weights: -np.abs(weights) - (weights == 0),
    "positive": lambda weights: np.abs(weights),
    "zero": lambda weights: weights * 0,
    "one positive": lambda weights: np.where(np.arange(weights.size).reshape(weights.shape) % weights[0].size == 3, 9,
                                             -np.abs(weights)),
    "equal": lambda weights: np.where(weights < 0, -5, 5),
    "extreme": lambda weights: np.where(weights < 0, -127, 127),
    "one lane of zeros": lambda weights: weights * (np.arange(len(weights)) != 1)[:, None, None, None],
}


@pytest.mark.parametrize("phases, joined", [(1, 0), (2, 0), (4, 0), (7, 0), (4, 2), (7, 3), (2, 1), (4, 3)])
@pytest.mark.parametrize("kind", ADVERSARIAL)
@pytest.mark.parametrize("shape, kernel, out_channels", [((1, 1, 1), (1, 1), 1), ((17, 5, 6), (3, 3), 18)])
def test_adversarial_weights_and_biases_of_both_signs(kind, phases, joined, shape, kernel, out_channels):
    whole = phases > 1 and phases == joined + 1
    config = replace(BLOCK_16, name="roomy", weight_depth=288) if whole else BLOCK_16
    for seed, (bias, signed_in) in enumerate([(-3000, False), (0, False), (3000, False), (100, True)]):
        rng = np.random.default_rng(seed)
        layer = random_layer(rng, "layer", "input", shape, width=8, kernel=kernel, out_channels=out_channels,
                             pad=(kernel[0] // 2,) * 4, signed_in=signed_in)
        layer = replace(layer, weights=ADVERSARIAL[kind](layer.weights), bias=np.full(out_channels, bias),
                        shift=np.full(out_channels, 20))
        x = random_map(rng, shape, width=8, signed=signed_in, density=0.6)
        network, note = single(layer), f"seed {seed}, bias {bias}, signed {signed_in}"
        program, _, saved = run_and_compare(network, config, x, note,
                                            work=with_work(layer, config, phases, joined, whole))
        assert stop_phases(program, program.load(x)) == [int(phases > 1 and not signed_in)], note
        if signed_in or phases == 1 or kind in ("positive", "zero"):
            assert saved == 0, note
        if (kind, bias, signed_in) == ("negative", -3000, False) and phases > 1:
            # Below 0 before the first multiplication; a round with weights above 0 looks after it only.
            first = np.count_nonzero(pairs(layer, x)) if whole else 0
            assert saved == macs(program.choices["layer"], layer, x, config) - first, note


@pytest.mark.parametrize("classes", [0, 1, 3])
def test_network_with_phases(classes):
    rng, shape = np.random.default_rng(11), (3, 12, 14)
    first = random_layer(rng, "a", "input", shape, width=8, kernel=(3, 3), out_channels=40, pad=(1, 1, 1, 1), pool=2)
    second = random_layer(rng, "b", "a", first.pooled_shape, width=8, kernel=(3, 3), out_channels=20, pad=(1, 1, 1, 1))
    third = random_layer(rng, "c", "b", second.full_shape, width=8, kernel=(2, 2), out_channels=9, relu=False)
    network = QuantisedNetwork("network", 8, shape, False, (first, second, third), ("c",))
    x = random_map(rng, shape, width=8, signed=False, density=0.8)
    config = replace(BLOCK_16, name="roomy", weight_depth=640, sum_windows=64)
    work = {layer.name: even_work(layer.geometry(), config, phases=1 + classes, density_in=0.9)
            for layer in (first, second)}
    program, _, saved = run_and_compare(network, config, x, f"{classes} classes", work=work)
    assert [choice.tiling.phases for choice in program.choices.values()] == [1 + classes, 1 + classes, 1]
    assert (saved > 0) == (classes > 0)


def test_network_with_weights_above_and_below_0_in_one_round():
    """Some layers in one round in all, some with a round before; several kernel blocks, passes and pools."""
    rng, shape = np.random.default_rng(11), (3, 12, 14)
    first = random_layer(rng, "a", "input", shape, width=8, kernel=(3, 3), out_channels=40, pad=(1, 1, 1, 1), pool=2)
    second = with_prediction(rng, random_layer(rng, "b", "a", first.pooled_shape, width=8, kernel=(3, 3),
                                               out_channels=20, pad=(1, 1, 1, 1)))
    third = random_layer(rng, "c", "b", second.full_shape, width=8, kernel=(2, 2), out_channels=9, signed_in=False)
    network = QuantisedNetwork("network", 8, shape, False, (first, second, third), ("c",))
    x = random_map(rng, shape, width=8, signed=False, density=0.8)
    config = replace(BLOCK_16, name="roomy", weight_depth=640, tile_slots=64)
    work = with_work(first, config, 4, 3, True) | with_work(second, config, 4, 2, True) | with_work(
        third, config, 3, 2, True)
    program, *_ = run_and_compare(network, config, x, "joined", work=work)
    tilings = [choice.tiling for choice in program.choices.values()]
    assert [tiling.phase_rounds for tiling in tilings] == [1, 2, 1] and max(tiling.passes for tiling in tilings) > 1
    assert stop_phases(program, program.load(x)) == [1, 2, 1]


@pytest.mark.parametrize("phases, joined", [(2, 0), (3, 0), (5, 0), (7, 0), (5, 2), (7, 3), (3, 1), (5, 3)])
@pytest.mark.parametrize("seed", range(6))
def test_predictions(seed, phases, joined):
    """Of some weights or their high bits; with signed inputs too. All behind phase 0 may share a round of one chunk."""
    rng = np.random.default_rng(seed)
    layer = with_prediction(rng, random_layer(rng, "layer", "input", (40, 5, 6), width=8, kernel=(2, 2),
                                              out_channels=18, signed_in=seed == 5))
    x = random_map(rng, layer.in_shape, width=8, signed=layer.signed_in, density=0.5)
    whole = joined and phases - joined == 2
    config = replace(BLOCK_16, name="roomy", weight_depth=192) if whole else BLOCK_16
    chunk = (48, 2) if whole else (16, 1)
    program, *_ = run_and_compare(single(layer), config, x, f"seed {seed}",
                                  tilings={"layer": Tiling(*chunk, 2, 8, 1, 2, phases, joined)})
    assert stop_phases(program, program.load(x)) == [2 * (phases > 2 and seed != 5)]
    result = run_layer(layer, x)
    assert 0 < result.predicted < result.full.size and result.missed


@pytest.mark.parametrize("broken", ["header", "scale", "start", "map", "value", "phases", "joined"])
def test_intersect_walk_notices_a_wrong_image(broken):
    rng = np.random.default_rng(5)
    layer = random_layer(rng, "layer", "input", (20, 6, 9), width=8, kernel=(3, 3), out_channels=16, pad=(1, 1, 1, 1))
    x = random_map(rng, layer.in_shape, width=8, signed=False, density=0.5)
    network = single(layer)
    program = compile_network(network, BLOCK_16, tilings=with_phases(network, BLOCK_16, 3, 1))
    dram, weights = program.load(x), program.segments[1][0] - program.base
    start = weights + 8 + 16 * 16
    words = program.choices["layer"].tiling.chunk_rows * 3 * 2
    at, flip = {"header": (weights, 1), "scale": (weights + 8 + 9, 0xFF), "start": (start + 3, 0x20),
                "map": (start + 8, 0x01), "value": (start + 8 + -(-words // 4) * 8, 0x40),
                **{name: (program.descriptor_address - program.base + 4 * FIELD_BY_NAME[name].word, 1)
                   for name in ("phases", "joined")}}[broken]
    dram[at] ^= flip
    with pytest.raises(AssertionError):
        IntersectWalk(BLOCK_16, dram, program.base).run(program.descriptor_address, program.layer_count)
        assert (program.read_map("layer", dram) == program.expected(x)["layer"]).all()
