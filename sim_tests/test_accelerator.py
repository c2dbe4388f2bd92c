"""The whole accelerator in RTL against golden: random layers, random stalls, errors and what comes after them.

Every test prints its seed through its parameters: a failure names configuration, seed and the first wrong coordinate.
"""
from dataclasses import replace

import numpy as np
import pytest

from boards.sim.run import RunError, load, mask, run_program, start
from boards.sim.simulator import Simulator
from compiler.emit import compile_network
from compiler.phases import phase_weights, stop_phase
from golden.cycles import estimate_result, tiled_nonzero_macs
from golden.network import QuantisedNetwork, run_network
from golden.postprocess import value_limits
from golden.tasks import walk_tasks
from golden.tiling import tile_spans
from hw.config import AcceleratorConfig
from hw.configs import CONFIGS
from hw.descriptor import DESCRIPTOR_BYTES, FIELD_BY_NAME, unpack
from hw.registers import ERRORS
from sim_tests.golden_model.random_layers import DENSITIES, random_layer, random_map
from sim_tests.golden_model.random_networks import random_network, random_phases

pytestmark = pytest.mark.cosim

TINY16 = AcceleratorConfig("tiny16", value_width=16, groups=3, lanes=32, block=32, drain=8, weight_depth=112,
                           tile_slots=48, sum_windows=16, pool_columns=8)
CONFIGURATIONS = {"tiny": CONFIGS["tiny"], "tiny16": TINY16, "tiny_snapea": CONFIGS["tiny_snapea"]}
STALLS = {"none": {}, "all": {"ar": .4, "r": .4, "aw": .5, "w": .5, "b": .5, "interleave": .3},
          "reads": {"ar": .9, "r": .8}, "writes": {"aw": .9, "w": .8, "b": .9}}
MEMORY = 1 << 23
NETWORK_SEEDS, NETWORK_DEPTH = range(12), 5


@pytest.fixture(scope="module", params=CONFIGURATIONS)
def config(request):
    return CONFIGURATIONS[request.param]


def tiled_products(layer, x, choice, config):
    """Products of the intersect array, with the windows that tiles share counted for each tile."""
    tiling, geometry = choice.tiling, choice.geometry
    windows = np.concatenate([tasks.products.sum((0, 3), np.int64) for tasks in walk_tasks(
        layer, x, tiling, phase_weights(layer, tiling.phases, tiling.joined), stop_phase(layer, tiling.phases),
        block=config.block)])
    return sum(int(windows[top:bottom, left:right].sum())
               for top, bottom in tile_spans(geometry.out_height, tiling.tile_rows, geometry.tile_overlap)
               for left, right in tile_spans(geometry.out_width, tiling.tile_columns, geometry.tile_overlap))


def check(config, network, x, *, seed, stalls, latency=30, simulator=None):
    """Run and compare every output of every layer; the lane cycles must be those of the tiling, and of the phases."""
    program = compile_network(network, config, work=random_phases(np.random.default_rng(seed), network, config))
    expected, results = run_network(network, x)
    board = simulator or Simulator(config, memory_bytes=MEMORY, base=program.base, seed=seed, stalls=stalls,
                                   read_latency=latency, assertions=True)
    run = run_program(board, program, x, max_cycles=20_000_000)
    for name, values in expected.items():
        wrong = np.argwhere(run.maps[name] != values)
        assert not len(wrong), (f"{config.name} seed {seed} stalls {stalls}: {name} differs in {len(wrong)} of "
                                f"{values.size}, first at (c, y, x) = {tuple(wrong[0])}")
    for layer, counters in zip(network.layers, run.layers, strict=True):
        causes = ("busy", "stall_output", "stall_tile", "stall_weights", "stall_find", "idle")
        assert sum(counters[name] for name in causes) == counters["cycles"] * config.groups
        choice = program.choices[layer.name]
        if config.intersect:
            whole = np.concatenate([(expected | {network.input_name: x})[part.map][part.first:][:part.channels]
                                    for part in layer.inputs])
            work = tiled_products(layer, whole, choice, config)
        else:
            work = tiled_nonzero_macs(choice.geometry, choice.tiling, results[layer.name])
        assert counters["lane_cycles"] == work, f"{config.name} seed {seed} layer {layer.name}"
    if simulator is None:
        board.close()
    return run


@pytest.mark.parametrize("seed", NETWORK_SEEDS)
def test_random_networks_equal_golden(config, seed):
    rng = np.random.default_rng(seed)
    network = random_network(rng, config, depth=NETWORK_DEPTH)
    layer = network.layers[0]
    x = random_map(rng, layer.in_shape, width=config.value_width, signed=layer.signed_in, density=rng.choice(DENSITIES))
    stalls = STALLS[list(STALLS)[seed % len(STALLS)]]
    check(config, network, x, seed=seed, stalls=stalls, latency=int(rng.choice([1, 30, 200])))


def test_the_random_networks_have_all_that_layers_can_do(config):
    """What the networks of the test above are made of: otherwise it would compare less than it seems to."""
    seen = dict.fromkeys(("blocks of two maps", "backwards", "one block twice", "slice from a later block",
                          "partly filled block between", "ReLU into signed", "narrow", "several writers", "dense"), 0)
    for seed in NETWORK_SEEDS:
        network = random_network(np.random.default_rng(seed), config, depth=NETWORK_DEPTH)
        program = compile_network(network, config)
        writers = [target.map for layer in network.layers for target in layer.targets]
        seen["several writers"] += len(writers) > len(set(writers))
        for number, layer in enumerate(network.layers):
            fields = unpack(program.segments[0][1][number * DESCRIPTOR_BYTES:][:DESCRIPTOR_BYTES])
            low, high = value_limits(config.value_width, network.signed(layer.output.map))
            seen["blocks of two maps"] += len({part.map for part in layer.inputs}) > 1
            seen["backwards"] += fields["in_block_bytes"] < 0
            seen["one block twice"] += fields["in_block_bytes"] == 0
            seen["slice from a later block"] += layer.inputs[0].first > 0
            seen["partly filled block between"] += any(part.channels % config.block for part in layer.inputs[:-1])
            seen["ReLU into signed"] += layer.low == 0 > low
            seen["narrow"] += low < layer.low < 0 or layer.high < high
            seen["dense"] += fields["dense_in"]
    assert min(seen.values()) > 1, seen


@pytest.mark.parametrize("density", DENSITIES)
def test_every_density(config, density):
    rng = np.random.default_rng(7)
    layer = random_layer(rng, "layer", "input", (2 * config.block + 3, 13, 11), width=config.value_width, kernel=(3, 3),
                         out_channels=config.lanes + 5, pad=(1, 1, 1, 1), pool=2, keep_full=True)
    network = QuantisedNetwork("one", config.value_width, layer.in_shape, False, (layer,), (layer.name,))
    x = random_map(rng, layer.in_shape, width=config.value_width, signed=False, density=density)
    check(config, network, x, seed=7, stalls=STALLS["all"])


@pytest.mark.parametrize("value", ["low", "high"])
def test_saturation_of_every_product(config, value):
    """All inputs and weights at a limit: the largest sums that a chunk and a layer can have."""
    rng = np.random.default_rng(3)
    width = config.value_width
    layer = random_layer(rng, "layer", "input", (3 * config.block, 6, 7), width=width, kernel=(3, 3),
                         out_channels=config.lanes, pad=(1, 1, 1, 1), relu=value == "high")
    limit = -(1 << width - 1) if value == "low" else (1 << width - 1) - 1
    layer.weights[...] = limit
    network = QuantisedNetwork("one", width, layer.in_shape, False, (layer,), (layer.name,))
    x = np.full(layer.in_shape, (1 << width) - 1)
    check(config, network, x, seed=3, stalls={})


def test_estimated_cycles_are_near_those_of_the_rtl(config):
    """The estimate that tilings are chosen by. Looser than a cycle model: it knows densities, not maps."""
    rng = np.random.default_rng(9)
    ratios = {}
    for density in (.1, .5, 1.0):
        layer = random_layer(rng, "layer", "input", (3 * config.block, 24, 24), width=config.value_width, kernel=(3, 3),
                             out_channels=2 * config.lanes, pad=(1, 1, 1, 1))
        network = QuantisedNetwork("one", config.value_width, layer.in_shape, False, (layer,), (layer.name,))
        x = random_map(rng, layer.in_shape, width=config.value_width, signed=False, density=density)
        run = check(config, network, x, seed=9, stalls={})
        program = compile_network(network, config)
        choice, result = program.choices["layer"], run_network(network, x)[1]["layer"]
        estimate = estimate_result(choice.geometry, choice.tiling, config, result)
        ratios[density] = estimate.cycles / run.layers[0]["cycles"]
    # It counts no stops of the intersect array.
    assert all(.75 < ratio < (1.6 if config.intersect else 1.25) for ratio in ratios.values()), ratios


def small_program(config, seed=5):
    rng = np.random.default_rng(seed)
    network = random_network(rng, config, depth=2)
    first = network.layers[0]
    x = random_map(rng, first.in_shape, width=config.value_width, signed=first.signed_in, density=.5)
    return network, x


def assert_good_run(board, config, network, x):
    """The accelerator works as if nothing had happened, without a hardware reset."""
    board.clear_errors()
    check(config, network, x, seed=0, stalls={}, simulator=board)


@pytest.mark.parametrize("where", ["input", "weights", "first descriptor", "descriptor", "output", "log"])
def test_bus_error_stops_cleanly_and_the_next_run_is_right(config, where):
    network, x = small_program(config)
    program = compile_network(network, config)
    last = program.maps[network.layers[-1].name]
    weights = program.segments[1][0]
    low, name = {"input": (program.maps["input"].address, "read_response"), "weights": (weights, "read_response"),
                 "first descriptor": (program.descriptor_address, "read_response"),
                 "descriptor": (program.descriptor_address + DESCRIPTOR_BYTES, "read_response"),
                 "output": (last.address, "write_response"), "log": (program.log_address, "write_response")}[where]
    with Simulator(config, memory_bytes=MEMORY, base=program.base, seed=1, stalls=STALLS["all"]) as board:
        board.inject_error(low, low + 8)
        with pytest.raises(RunError) as error:
            run_program(board, program, x, max_cycles=5_000_000)
        assert error.value.name == name
        assert abs(error.value.address - low) < 4096
        beats = board.read_beats, board.write_beats
        board.run(500)
        assert (board.read_beats, board.write_beats) == beats, "the bus is not quiet after an error"
        assert_good_run(board, config, network, x)


def test_descriptors_outside_of_memory_are_a_read_error(config):
    """DECERR for the first read: the error of the bus is reported, not that of the bits that came with it."""
    network, x = small_program(config)
    program = compile_network(network, config)
    with Simulator(config, memory_bytes=MEMORY, base=program.base, seed=3, stalls=STALLS["all"]) as board:
        outside = replace(program, descriptor_address=program.base + MEMORY)
        with pytest.raises(RunError) as error:
            run_program(board, outside, x, max_cycles=5_000_000)
        assert (error.value.name, error.value.address) == ("read_response", program.base + MEMORY)
        assert_good_run(board, config, network, x)


@pytest.mark.parametrize(("field", "value", "name"), [
    ("magic", 0, "descriptor_field"), ("stride", 5, "descriptor_field"), ("stride", 0, "descriptor_field"),
    ("kernel_rows", 8, "descriptor_field"), ("pool", 1, "descriptor_field"), ("in_address", 12, "descriptor_field"),
    ("chunk_channels", 8191, "descriptor_field"), ("out_height", 0, "descriptor_field"),
    ("passes", 9, "geometry"), ("in_width", 1 << 12, "descriptor_field"),
])
@pytest.mark.parametrize("which", [0, 1])
def test_bad_descriptor_ends_in_an_error_and_the_next_run_is_right(field, value, name, which):
    config = CONFIGS["tiny"]
    network, x = small_program(config)
    program = compile_network(network, config)
    with Simulator(config, memory_bytes=MEMORY, base=program.base, seed=2) as board:
        address, data = program.segments[0]
        assert address == program.descriptor_address
        at = which * DESCRIPTOR_BYTES + 4 * FIELD_BY_NAME[field].word
        broken = data[:at] + value.to_bytes(4, "little") + data[at + 4:]
        segments = list(program.segments)
        program.segments[0] = address, broken
        with pytest.raises(RunError) as error:
            run_program(board, program, x, max_cycles=5_000_000)
        assert error.value.name == name
        expected = address + (at if name == "descriptor_field" else which * DESCRIPTOR_BYTES)
        assert error.value.address == expected
        assert error.value.layer == which, "layers before the bad one are finished"
        program.segments[:] = segments
        assert_good_run(board, config, network, x)


@pytest.mark.parametrize("config", [CONFIGS["tiny"], CONFIGS["tiny_snapea"]], ids=lambda config: config.name)
def test_fuzzed_descriptors_never_hang(config):
    """Any bits in a descriptor: the run ends, done or with an error, and a later good one is right."""
    # The broadcast array takes one value of these.
    constant = {"magic"} if config.intersect else {"magic", "phases", "stop_phase", "predict", "joined"}
    network, x = small_program(config)
    program = compile_network(network, config)
    good = program.segments[0]
    rng = np.random.default_rng(11)
    ended = set()
    with Simulator(config, memory_bytes=MEMORY, base=program.base, seed=4) as board:
        board.write_register("watchdog", 3000)
        for _ in range(60):
            data = bytearray(good[1])
            for _ in range(rng.integers(1, 4)):
                field = FIELD_BY_NAME[str(rng.choice([name for name in FIELD_BY_NAME if name not in constant]))]
                if "address" in field.name and not field.name.startswith("in_"):
                    continue    # a legal address elsewhere would overwrite this test's own data
                value = int(rng.integers(field.low, field.high, endpoint=True)) if rng.random() < .8 else int(
                    rng.integers(1 << 32))
                data[4 * field.word:4 * field.word + 4] = (value % 2**32).to_bytes(4, "little")
            program.segments[0] = good[0], bytes(data)
            try:
                run_program(board, program, x, maps=(), max_cycles=60_000_000)
                ended.add("done")
            except RunError as error:
                ended.add(error.name)
        assert {"descriptor_field", "done"} < ended, ended
        program.segments[0] = good
        assert_good_run(board, config, network, x)


def test_stop_register_and_restart(config):
    network, x = small_program(config)
    program = compile_network(network, config)
    with Simulator(config, memory_bytes=MEMORY, base=program.base, seed=6) as board:
        for cycles in (1, 50, 333, 1000):
            for address, data in (*program.segments, program.encode_input(x)):
                load(board, address, data)
            start(board, program)
            board.run(cycles)
            board.write_register("control", mask("control", "stop"))
            assert board.run(5000) == "interrupt"
            assert board.read_register("error_code") == ERRORS["stopped"][0]
            assert_good_run(board, config, network, x)


def test_watchdog_ends_a_run_on_a_dead_bus():
    config = CONFIGS["tiny"]
    network, x = small_program(config)
    program = compile_network(network, config)
    with Simulator(config, memory_bytes=MEMORY, base=program.base, seed=8, read_latency=100_000) as board:
        board.write_register("watchdog", 2000)
        with pytest.raises(RunError) as error:
            run_program(board, program, x, max_cycles=50_000)
        assert error.value.name == "watchdog"
