"""Programs: the weight image by the byte, the descriptor list, and a region in which nothing overlaps."""
import dataclasses
import itertools

import numpy as np
import pytest

from compiler.emit import compile_network, weight_image
from compiler.tile import choose_tiling
from golden.network import QuantisedNetwork
from golden.tiling import Tiling
from hw.configs import CONFIGS
from hw.descriptor import DESCRIPTOR_BYTES, unpack
from sim_tests.golden_model.random_layers import random_layer, random_map, single

TINY = CONFIGS["tiny"]


def two_layers():
    rng = np.random.default_rng(0)
    first = random_layer(rng, "a", "input", (3, 9, 13), width=8, kernel=(3, 3), out_channels=20, pad=(1, 1, 1, 1),
                         pool=2, keep_full=True)
    second = random_layer(rng, "b", "a", first.pooled_shape, width=8, kernel=(3, 3), out_channels=4, relu=False)
    return QuantisedNetwork("two", 8, (3, 9, 13), False, (first, second), ("b",))


def test_weight_image_by_the_byte():
    rng = np.random.default_rng(1)
    layer = random_layer(rng, "a", "input", (17, 4, 4), width=8, kernel=(2, 2), out_channels=18)
    image = weight_image(layer, Tiling(16, 1, 2, 3, 1, 1), TINY)
    at = 0
    for lanes in (range(16), range(16, 18)):
        for lane in range(lanes[0], lanes[0] + 16):
            bias, scale, shift = ((int(values[lane]) for values in (layer.bias, layer.scale, layer.shift))
                                  if lane in lanes else (0, 0, 0))
            assert image[at:at + 8] == bias.to_bytes(8, "little", signed=True)
            assert int.from_bytes(image[at + 8:at + 16], "little") == scale + (shift << 32)
            at += 16
        for channels in (range(16), range(16, 17)):
            for row in range(2):
                for column in range(2):
                    for channel in channels:
                        weights = [int(layer.weights[lane, channel, row, column]) & 255 for lane in lanes]
                        beats = bytes(weights).ljust(-(-len(lanes) // 8) * 8, b"\0")
                        assert image[at:at + len(beats)] == beats
                        at += len(beats)
    assert at == len(image)


def test_descriptors_and_registers():
    network = two_layers()
    program = compile_network(network, TINY, base_address=0x4000_0000)
    assert (program.layer_count, program.layers) == (2, ["a", "b"])
    assert program.descriptor_address % 8 == 0 and program.log_address % 128 == 0
    address, words = program.segments[0]
    assert address == program.descriptor_address
    first, second = (unpack(words[n * DESCRIPTOR_BYTES:][:DESCRIPTOR_BYTES]) for n in range(2))
    assert (first["dense_in"], first["dense_shift"], first["write_full"], first["pool"]) == (1, 2, 1, 2)
    assert first["full_address"] == program.maps["a.full"].address
    assert first["pool_address"] == second["in_address"] == program.maps["a"].address
    assert (second["relu"], second["signed_in"], second["pool_address"]) == (0, 0, 0)
    assert second["full_address"] == program.maps["b"].address and program.maps["b"].signed
    assert [first["weight_address"], second["weight_address"]] == [address for address, _ in program.segments[1:]]


def test_nothing_in_the_region_overlaps():
    program = compile_network(two_layers(), TINY)
    spans = [(address, len(data)) for address, data in program.segments]
    spans += [(plan.address, plan.size) for plan in program.maps.values()]
    spans.append((program.log_address, 128 * program.layer_count))
    spans.sort()
    assert all(plan.address % 4096 == 0 for plan in program.maps.values())
    spans.append((program.base + program.memory_bytes, 0))
    assert all(address + size <= following for (address, size), (following, _) in itertools.pairwise(spans))
    assert spans[0][0] == program.base == 0x1000_0000


@pytest.mark.parametrize(("channels", "dense"), [(1, True), (16, True), (17, False)])
def test_input_round_trip(channels, dense):
    rng = np.random.default_rng(channels)
    layer = random_layer(rng, "a", "input", (channels, 5, 6), width=8, kernel=(1, 1), out_channels=4, signed_in=True)
    program = compile_network(single(layer), TINY)
    assert program.maps["input"].dense == dense
    x = random_map(rng, layer.in_shape, width=8, signed=True, density=0.5)
    assert (program.read_map("input", program.load(x)) == x).all()
    assert (program.expected(x)["input"] == x).all()


def test_given_tilings_are_used():
    network = two_layers()
    tiling = Tiling(3, 1, 2, 8, 1, 10)
    program = compile_network(network, TINY, tilings={"a": tiling})
    assert program.choices["a"].tiling == tiling
    assert program.choices["b"].tiling == choose_tiling(network.layers[1].geometry(), TINY).tiling
    assert "a: chunks 1 x 3" in program.explain()


def test_programs_that_do_not_fit_are_refused():
    network = two_layers()
    with pytest.raises(ValueError, match="16-bit"):
        compile_network(network, CONFIGS["nullhop"])
    with pytest.raises(ValueError, match="multiple of 4096"):
        compile_network(network, TINY, base_address=8)
    with pytest.raises(ValueError, match="32-bit"):
        compile_network(network, TINY, base_address=0xFFFF_F000)
    with pytest.raises(ValueError, match="layer b: no tile"):
        compile_network(network, dataclasses.replace(TINY, weight_depth=49, block=32, lanes=32, tile_slots=16, groups=1,
                                                     sum_windows=1))
