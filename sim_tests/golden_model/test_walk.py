"""A program, run from its DRAM bytes by an independent walk, leaves in DRAM what the golden model expects."""
import random

import numpy as np
import pytest

from compiler.emit import compile_network
from compiler.tile import choose_tiling
from golden.cycles import tiled_nonzero_macs
from golden.layer import run_layer
from golden.network import QuantisedNetwork, gather
from hw.config import AcceleratorConfig
from hw.configs import CONFIGS
from hw.descriptor import FIELD_BY_NAME

from .random_layers import DENSITIES, random_layer, random_map, single
from .random_networks import random_network
from .walk import Walk

TINY = CONFIGS["tiny"]
WIDE = AcceleratorConfig("wide", value_width=16, groups=3, lanes=32, block=32, drain=8, weight_depth=224, tile_slots=24,
                         sum_windows=20, pool_columns=4)


def run_and_compare(network, config, x, note):
    program = compile_network(network, config, base_address=0x2000_0000)
    dram = program.load(x)
    # What is not initial contents may hold anything.
    untouched = np.ones(len(dram), bool)
    for address, data in [*program.segments, program.encode_input(x)]:
        untouched[address - program.base:address - program.base + len(data)] = False
    dram[untouched] = np.random.default_rng(0).integers(0, 256, int(untouched.sum()))
    walk = Walk(config, dram, program.base)
    walk.run(program.descriptor_address, program.layer_count)
    expected = program.expected(x)
    for name in network.maps:
        received = program.read_map(name, dram)
        wrong = np.argwhere(received != expected[name])
        assert not len(wrong), f"{note}: map {name} at {wrong[0]}: {program.explain()}"
    work = sum(tiled_nonzero_macs(choice.geometry, choice.tiling, run_layer(layer, gather(expected, layer.inputs)))
               for layer, choice in zip(network.layers, program.choices.values(), strict=True))
    assert walk.lane_work == work, note
    return program, expected


def fits(layer, config):
    """Whether some tiling fits: with pooling, a large kernel or stride may ask for more slots than there are."""
    try:
        choose_tiling(layer.geometry(0 if layer.in_shape[0] <= config.block else None), config)
    except ValueError:
        return False
    return True


def random_case(seed, config):
    """A layer that fits, of random shape, with a map."""
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
        if min(size) >= 1 and layer.weights.size * size[0] * size[1] < 1_000_000 and fits(layer, config):
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
    program, expected = run_and_compare(network, config, x, f"config {config.name}")
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
