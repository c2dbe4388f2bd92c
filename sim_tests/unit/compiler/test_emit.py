"""Programs: the descriptor list, phases, and a region in which nothing overlaps."""
import dataclasses
import itertools

import numpy as np
import pytest

from compiler.emit import compile_network
from compiler.tile import choose_tiling
from golden.cycles import even_work
from golden.layer import Slice, Target
from golden.network import QuantisedNetwork
from golden.tiling import Tiling
from hw.configs import CONFIGS
from hw.descriptor import DESCRIPTOR_BYTES, unpack
from sim_tests.golden_model.random_layers import random_layer, random_map, single, with_prediction

TINY, SNAPEA = CONFIGS["tiny"], CONFIGS["snapea"]


def two_layers():
    rng = np.random.default_rng(0)
    first = random_layer(rng, "a", "input", (3, 9, 13), width=8, kernel=(3, 3), out_channels=20, pad=(1, 1, 1, 1),
                         pool=2, keep_full=True)
    second = random_layer(rng, "b", "a", first.pooled_shape, width=8, kernel=(3, 3), out_channels=4, relu=False)
    return QuantisedNetwork("two", 8, (3, 9, 13), False, (first, second), ("b",))


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
    assert (first["clamp_low"], first["clamp_high"], first["in_block_bytes"]) == (0, 255, 128)
    assert (second["clamp_low"], second["clamp_high"], second["signed_in"]) == (-128, 127, 0)
    assert (second["in_block_bytes"], second["pool_address"]) == (128, 0)
    assert second["full_address"] == program.maps["b"].address and program.maps["b"].signed
    assert [first["weight_address"], second["weight_address"]] == [address for address, _ in program.segments[1:]]


def phase_fields(network, config, names=("phases", "stop_phase", "predict"), **options):
    """The fields ``names`` of each layer."""
    _, words = compile_network(network, config, **options).segments[0]
    fields = (unpack(words[at:at + DESCRIPTOR_BYTES]) for at in range(0, len(words), DESCRIPTOR_BYTES))
    return [tuple(layer[name] for name in names) for layer in fields]


def test_layers_stop_where_that_is_exact():
    rng, options = np.random.default_rng(4), dict(width=8, kernel=(3, 3), pad=(1, 1, 1, 1), out_channels=64)
    layers = [random_layer(rng, "a", "input", (48, 16, 16), signed_in=True, **options),
              random_layer(rng, "b", "a", (64, 16, 16), **options),
              random_layer(rng, "c", "b", (64, 16, 16), relu=False, **options)]
    network = QuantisedNetwork("three", 8, (48, 16, 16), True, tuple(layers), ("c",))
    # Signed input, ReLU, no ReLU.
    assert phase_fields(network, SNAPEA) == [(1, 0, 0), (4, 1, 0), (1, 0, 0)]
    for phases, stop in ((1, 0), (2, 1), (7, 1)):
        work = even_work(layers[1].geometry(), SNAPEA, phases=phases, density_in=0.4)
        assert phase_fields(network, SNAPEA, work={"b": work}) == [(1, 0, 0), (phases, stop, 0), (1, 0, 0)]
    given = {layer.name: Tiling(48 if layer.name == "a" else 64, 3, 4, 4, 16, 1, 3) for layer in layers}
    assert phase_fields(network, SNAPEA, tilings=given) == [(3, 0, 0), (3, 1, 0), (3, 0, 0)]
    assert phase_fields(network, CONFIGS["small"]) == [(1, 0, 0)] * 3


@pytest.mark.parametrize("predicts", [False, True])
def test_phases_share_a_round_as_tiling_or_work_say(predicts):
    rng = np.random.default_rng(4)
    layer = random_layer(rng, "b", "input", (80, 16, 16), width=8, kernel=(3, 3), pad=(1, 1, 1, 1), out_channels=4)
    first, joined = int(predicts), ("phases", "stop_phase", "predict", "joined")
    if predicts:
        layer = with_prediction(rng, layer)
    network, roomy = single(layer), dataclasses.replace(SNAPEA, name="roomy", weight_depth=1152)
    assert phase_fields(network, SNAPEA, joined) == [(first + 4, first + 1, first, 0)]
    for phases, shared, whole in ((5, 3, False), (3, 1, False), (4, 3, True), (2, 1, True)):
        expected = [(first + phases, first + 1, first, shared)]
        tiling = Tiling(80, 3, 2, 4, 16, 2, first + phases, shared)
        assert phase_fields(network, roomy, joined, tilings={"b": tiling}) == expected
        work = even_work(layer.geometry(), roomy, phases=first + phases, joined=shared, density_in=0.4)
        assert phase_fields(network, roomy, joined, work={"b": dataclasses.replace(work, whole=whole)}) == expected
        for changes in ({"chunk_channels": 64}, {"chunk_rows": 2}):
            cut = {"b": dataclasses.replace(tiling, **changes)}
            if not whole:
                assert phase_fields(network, roomy, joined, tilings=cut) == expected
                continue
            with pytest.raises(ValueError, match="layer b: a round has weights above and below 0, so all channels and "
                                                 "rows of a kernel must be in one chunk"):
                compile_network(network, roomy, tilings=cut)
    with pytest.raises(ValueError, match=f"layer b: of {first + 2} phases 0 to {first + 1} may be joined, not 4"):
        compile_network(network, roomy, tilings={"b": dataclasses.replace(tiling, joined=4)})


def test_one_chunk_is_not_asked_for_where_nothing_stops():
    layer = random_layer(np.random.default_rng(4), "b", "input", (80, 16, 16), width=8, kernel=(3, 3),
                         pad=(1, 1, 1, 1), out_channels=4, relu=False)
    assert phase_fields(single(layer), SNAPEA, ("phases", "stop_phase", "joined"),
                        tilings={"b": Tiling(64, 3, 2, 4, 16, 2, 3, 2)}) == [(3, 0, 2)]


def test_the_cost_is_that_of_the_work():
    """With phases that compute little, loading decides."""
    layer = random_layer(np.random.default_rng(4), "b", "input", (64, 40, 40), width=8, kernel=(3, 3), out_channels=64,
                         pad=(1, 1, 1, 1))
    much = even_work(layer.geometry(), SNAPEA, phases=2, density_in=1.0)
    little = dataclasses.replace(much, cycles=(9.0, 9.0), tasks=(0.1, 0.1))
    choices = [compile_network(single(layer), SNAPEA, work={"b": work}, densities={"input": 1.0}).choices["b"]
               for work in (much, little)]
    assert [choice.cost.bound for choice in choices] == ["compute", "read"]


def test_an_input_of_more_than_32_channels_is_not_dense():
    for channels, dense in ((32, True), (33, False)):
        layer = random_layer(np.random.default_rng(5), "a", "input", (channels, 4, 4), width=8, kernel=(1, 1),
                             out_channels=3)
        assert compile_network(single(layer), SNAPEA).maps["input"].dense == dense


def test_layers_that_do_not_fit_the_intersect_array_are_refused_by_name():
    layer = random_layer(np.random.default_rng(5), "wide", "input", (3, 60, 60), width=8, kernel=(7, 7),
                         out_channels=3, stride=4, pool=3)
    with pytest.raises(ValueError, match="layer wide: no tile of a 7 x 7 kernel fits configuration tiny_snapea"):
        compile_network(single(layer), CONFIGS["tiny_snapea"])


def joined(*, order=(0, 1), **changes):
    """Two layers that write one map, 20 and 5 channels, one that reads both parts, one that adds a block of two maps.

    ``changes``: of the last layer; ``order``: of what it reads."""
    rng = np.random.default_rng(2)
    inputs = [Slice("both", 16, 4), Slice("whole", 0, 16)]
    options = dict(width=8, kernel=(1, 1))
    layers = [random_layer(rng, "a", "input", (3, 6, 5), out_channels=20, output=Target("both"), **options),
              random_layer(rng, "b", "input", (3, 6, 5), out_channels=5, output=Target("both", 32), **options),
              random_layer(rng, "c", [Slice("both", 0, 20), Slice("both", 32, 5)], (25, 6, 5), out_channels=16,
                           output=Target("whole"), **options),
              random_layer(rng, "d", [inputs[n] for n in order], (20, 6, 5), out_channels=4, limits=(-5, 99),
                           **options)]
    layers[-1] = dataclasses.replace(layers[-1], **changes)
    return QuantisedNetwork("joined", 8, (3, 6, 5), False, tuple(layers), ("d",))


def test_descriptors_of_slices_and_of_sums():
    program = compile_network(joined(), TINY)
    _, words = program.segments[0]
    _, b, c, d = (unpack(words[n * DESCRIPTOR_BYTES:][:DESCRIPTOR_BYTES]) for n in range(4))
    both, whole, slot = program.maps["both"], program.maps["whole"], TINY.slot_bytes
    assert b["full_address"] == both.address + 2 * slot
    # 20 channels fill two blocks of 16: the weights of 12 that nobody writes are 0.
    assert (c["in_address"], c["in_block_bytes"], c["in_channels"]) == (both.address, slot, 37)
    assert (d["in_address"], d["in_block_bytes"], d["in_channels"]) == (
        both.address + slot, whole.address - both.address - slot, 32)
    assert (d["clamp_low"], d["clamp_high"]) == (-5, 99)
    # What is read together has segments of one size, here those of three blocks.
    assert whole.segment_bytes == both.segment_bytes == 3 * slot
    assert whole.size == 6 * 2 * 3 * slot
    _, words = compile_network(joined(order=(1, 0)), TINY).segments[0]
    backwards = unpack(words[3 * DESCRIPTOR_BYTES:])
    assert (backwards["in_address"], backwards["in_block_bytes"]) == (whole.address, -d["in_block_bytes"])
    assert backwards["in_channels"] == 20


def test_weights_of_filled_up_blocks_are_zero():
    network = joined()
    program = compile_network(network, TINY, tilings={"c": Tiling(37, 1, 3, 5, 2, 1)})
    _, image = program.segments[3]
    layer = network.layers[2]
    rows = np.frombuffer(image[16 * 16:], np.int8).reshape(37, 16)
    assert (rows[:20] == layer.weights[:, :20, 0, 0].T).all() and (rows[32:] == layer.weights[:, 20:, 0, 0].T).all()
    assert not rows[20:32].any()


def test_an_input_that_is_read_in_parts_is_not_dense():
    rng = np.random.default_rng(3)
    layers = [random_layer(rng, "a", "input", (16, 6, 5), width=8, kernel=(1, 1), out_channels=16),
              random_layer(rng, "b", [Slice("a", 0, 16), Slice("input", 0, 16)], (32, 6, 5), width=8, kernel=(1, 1),
                           out_channels=16)]
    for count, dense in ((1, True), (2, False)):
        network = QuantisedNetwork("n", 8, (16, 6, 5), False, tuple(layers[:count]), ())
        assert compile_network(network, TINY).maps["input"].dense == dense


def test_densities_of_slices_are_weighted():
    network = joined()
    densities = {"both": 0.1, "whole": 0.9}
    program = compile_network(network, TINY, densities=densities)
    mean = (4 * 0.1 + 16 * 0.9) / 20
    assert program.choices["d"].cost.compute == choose_tiling(program.choices["d"].geometry, TINY,
                                                              density_in=mean).cost.compute


@pytest.mark.parametrize(("changes", "message"), [
    ({"output": Target("d", 8)}, "layer d writes d from channel 8 on, which must be a multiple of 16"),
    ({"output": Target("d", 16)}, "no layer writes channels 0 to 15 of d"),
    ({"inputs": (Slice("both", 4, 16), Slice("whole", 0, 4))}, "reads both from channel 4 on, which must be"),
    ({"inputs": (Slice("both", 0, 12), Slice("whole", 0, 8))}, "channels 0 to 11 of both and so a part of a block: it "
     "must read up to channel 15"),
    ({"inputs": (Slice("both", 0, 3), Slice("both", 32, 5), Slice("whole", 0, 12))}, "a part of a block"),
    ({"inputs": (Slice("input", 0, 3),), "in_shape": (3, 6, 5), "weights": np.ones((4, 3, 1, 1), int),
      "signed_in": True}, "layer d takes the values of input for signed ones, which they are not"),
    ({"signed_in": True}, "layer c writes 0 to 255 to whole, which holds -128 to 127"),
    ({"low": -1, "high": 200}, "layer d writes -1 to 200 to d, which holds -128 to 127")])
def test_layers_that_cannot_be_addressed_are_refused(changes, message):
    with pytest.raises(ValueError, match=message):
        compile_network(joined(**changes), TINY)


def test_blocks_at_different_distances_are_refused():
    network = joined(inputs=(Slice("both", 0, 16), Slice("whole", 0, 16), Slice("both", 32, 5)))
    with pytest.raises(ValueError, match="layer d reads blocks of channels that are not at one distance"):
        compile_network(dataclasses.replace(network, layers=(*network.layers[:3], dataclasses.replace(
            network.layers[3], in_shape=(37, 6, 5), weights=np.ones((4, 37, 1, 1), int)))), TINY)


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
