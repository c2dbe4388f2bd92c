"""The cycle model against the counters of the RTL: every counter of every layer, and the cycles of the run, are equal.

No slack: the model follows the control of the hardware clock by clock. Where the RTL is changed so that something takes
another cycle, a test here fails and names layer, counter and both numbers.
"""
from dataclasses import replace

import numpy as np
import pytest

from boards.sim.jobs import DigitsJob
from boards.sim.run import run_program
from boards.sim.simulator import Simulator
from compiler.emit import compile_network
from compiler.phases import phase_weights
from compiler.pipeline import compile_float
from compiler.tile import choose_tiling
from golden.cycle_model import (
    ACCESSES,
    ENERGY,
    MemoryTiming,
    descriptor_fields,
    energy,
    layer_work,
    model_network,
    model_run,
)
from golden.cycles import even_work, scale_beats, weight_beats
from golden.formats import plan_map, slot_beats
from golden.network import gather, run_network
from golden.tasks import count_tasks
from golden.tiling import Geometry
from hw.config import AcceleratorConfig
from hw.configs import CONFIGS
from hw.descriptor import DESCRIPTOR_BYTES
from sim_tests.golden_model.random_layers import DENSITIES, random_layer, random_map, single
from sim_tests.golden_model.random_networks import random_network, random_phases

TINY = CONFIGS["tiny"]
ONE = replace(TINY, name="tiny1", groups=1)
TINY16 = AcceleratorConfig("tiny16", value_width=16, groups=3, lanes=32, block=32, drain=8, weight_depth=112,
                           tile_slots=48, sum_windows=16, pool_columns=8)
PES = CONFIGS["tiny_snapea"]
PES64 = AcceleratorConfig("pes64", value_width=8, groups=1, lanes=64, block=64, drain=8, weight_depth=448,
                          tile_slots=24, sum_windows=16, pool_columns=4, array="intersect", clusters=4, pes=3)
MEMORY_BYTES = 1 << 23
LATENCIES = (1, 30, 200)


def model(program, x, memory=None):
    """The model's counters of ``program`` on ``x``."""
    return model_network(program.network, *run_network(program.network, x), program.segments[0][1], program.config,
                         split=phase_weights, memory=memory, descriptor_address=program.descriptor_address,
                         log_address=program.log_address)


def compare(program, x, *, latency=30, seed):
    """Assert that model and RTL agree on every counter."""
    expected = model(program, x, MemoryTiming(latency, 30))
    with Simulator(program.config, memory_bytes=max(MEMORY_BYTES, program.memory_bytes), base=program.base, seed=seed,
                   read_latency=latency, assertions=True) as board:
        run = run_program(board, program, x, maps=(), max_cycles=20_000_000)
    for layer, found, counters in zip(program.layers, expected.layers, run.layers, strict=True):
        wrong = {name: (found[name], value) for name, value in counters.items() if found[name] != value}
        assert not wrong, f"{program.config.name} seed {seed} latency {latency} {layer}: (model, RTL) {wrong}"
    assert expected.cycles == run.cycles, f"{program.config.name} seed {seed}: cycles of the run"


def random_program(config, seed, depth):
    """A random network, compiled, its input, and a latency of memory."""
    rng = np.random.default_rng(seed)
    network = random_network(rng, config, depth=depth)
    first = network.layers[0]
    x = random_map(rng, first.in_shape, width=config.value_width, signed=first.signed_in, density=rng.choice(DENSITIES))
    program = compile_network(network, config, work=random_phases(rng, network, config))
    return program, x, int(rng.choice(LATENCIES))


@pytest.mark.cosim
@pytest.mark.parametrize("config", [ONE, PES64], ids=lambda config: config.name)
@pytest.mark.parametrize("seed", range(300, 312))
def test_one_group_equals_the_rtl(config, seed):
    program, x, _ = random_program(config, seed, depth=1)
    compare(program, x, seed=seed)


@pytest.mark.cosim
@pytest.mark.parametrize("config", [TINY, TINY16, PES], ids=lambda config: config.name)
@pytest.mark.parametrize("seed", range(100, 108))
def test_random_networks_equal_the_rtl(config, seed):
    program, x, latency = random_program(config, seed, depth=4)
    compare(program, x, latency=latency, seed=seed)


@pytest.mark.cosim
@pytest.mark.parametrize("config", [TINY, PES], ids=lambda config: config.name)
@pytest.mark.parametrize("density", DENSITIES)
def test_every_density_equals_the_rtl(config, density):
    """Two kernel blocks, chunks, tiles that share windows, a pooled map beside the full one."""
    rng = np.random.default_rng(7)
    layer = random_layer(rng, "layer", "input", (2 * config.block + 3, 13, 11), width=8, kernel=(3, 3),
                         out_channels=config.lanes + 5, pad=(1, 1, 1, 1), pool=2, keep_full=True)
    x = random_map(rng, layer.in_shape, width=8, signed=False, density=density)
    compare(compile_network(single(layer), config), x, seed=7)


@pytest.mark.cosim
@pytest.mark.parametrize("classes", [0, 1, 6])
def test_every_number_of_phases_equals_the_rtl(classes):
    """With sums that are below 0 from the start, in the middle and at the end; half of the maps are zeros."""
    rng = np.random.default_rng(classes)
    layer = random_layer(rng, "layer", "input", (40, 9, 9), width=8, kernel=(3, 3), out_channels=20, pad=(1, 1, 1, 1))
    weights = layer.weights - 20 * (rng.random(layer.weights.shape) < .5)
    layer = replace(layer, weights=np.clip(weights, -127, 127), bias=rng.integers(-1 << 16, 1 << 18, 20))
    x = random_map(rng, layer.in_shape, width=8, signed=False, density=.5)
    work = even_work(layer.geometry(), PES, phases=1 + classes, density_in=.5)
    tiling = choose_tiling(layer.geometry(), PES, work=work).tiling
    compare(compile_network(single(layer), PES, tilings={"layer": tiling}), x, seed=classes)


@pytest.mark.cosim
@pytest.mark.parametrize("phases, joined, channels", [(2, 1, 10), (4, 3, 16), (3, 1, 40), (5, 3, 40), (7, 3, 35)])
def test_phases_that_share_a_round_equal_the_rtl(phases, joined, channels):
    """All in one round, where sums stop in the middle of it; or behind others, in several chunks; in two passes."""
    rng = np.random.default_rng(phases)
    layer = random_layer(rng, "layer", "input", (channels, 9, 9), width=8, kernel=(3, 3), out_channels=20,
                         pad=(1, 1, 1, 1))
    layer = replace(layer, bias=rng.integers(-1 << 16, 1 << 16, 20))
    x = random_map(rng, layer.in_shape, width=8, signed=False, density=.5)
    whole = phases == joined + 1
    work = replace(even_work(layer.geometry(), PES, phases=phases, joined=joined, density_in=.5), whole=whole)
    tiling = choose_tiling(layer.geometry(), PES, work=work).tiling
    assert tiling.passes == 2 and ((tiling.chunk_channels, tiling.chunk_rows) == (channels, 3)) == whole
    compare(compile_network(single(layer), PES, tilings={"layer": tiling}), x, seed=phases)


@pytest.mark.cosim
@pytest.mark.slow
@pytest.mark.parametrize("config", [TINY, PES], ids=lambda config: config.name)
def test_digits_equal_the_rtl(config):
    job = DigitsJob(1)
    program = compile_float(job.network, job.calibration, config)
    compare(program, program.network.quantise_input(job.inputs[0]), seed=0)


GEOMETRY = Geometry(9, 10, 20, 3, 3, 1, 1, 1, 9, 10, 24)


def random_work(geometry, config, density=.5, seed=1):
    """A layer with random maps, and its input."""
    rng = np.random.default_rng(seed)
    x = rng.random((geometry.in_channels, geometry.in_height, geometry.in_width)) < density
    full = rng.random((geometry.out_channels, geometry.out_height, geometry.out_width)) < density
    tiling = choose_tiling(geometry, config).tiling
    return layer_work(descriptor_fields(geometry, tiling, config), [x], full, None, config), x, full


def test_accesses_are_those_of_the_maps():
    """Counted here from the maps, a layer of a single tile and chunk."""
    config = replace(TINY, weight_depth=512, tile_slots=256)
    work, x, full = random_work(GEOMETRY, config)
    assert work.fields["tile_rows"] >= 9 and work.fields["tile_columns"] >= 10, "more than one tile"
    counted = model_run([work], config).accesses[0]
    padded = np.pad(x, ((0, 0), (1, 1), (1, 1))).astype(int)
    taps = sum(padded[:, row:row + 9, column:column + 10].sum() for row in range(3) for column in range(3))
    inside = sum(np.pad(np.ones((9, 10), int), 1)[row:row + 9, column:column + 10].sum() for row in range(3)
                 for column in range(3))
    reads, writes = (int(slot_beats(values.transpose(1, 2, 0), config, plan_map(values.shape, config)).sum())
                     for values in (x, full))
    kernel_blocks, slots = 2, 9 * 3 * 2
    map_beats = slots * config.map_beats
    assert counted == {
        "multiplications": 24 * taps, "weight_reads": kernel_blocks * taps * 16, "value_reads": kernel_blocks * taps,
        "weight_writes": 2 * weight_beats(GEOMETRY, config), "map_reads": kernel_blocks * 2 * inside,
        "map_writes": 2 * kernel_blocks * slots * 4, "value_writes": 2 * kernel_blocks * (reads - map_beats),
        "sum_reads": 0, "sum_writes": 0, "dram_writes": writes,
        # Scales and weights of the first kernel block are requested before the layer begins, and partly there.
        "dram_reads": counted["dram_reads"],
    }
    assert 0 <= (kernel_blocks * reads + weight_beats(GEOMETRY, config) + scale_beats(GEOMETRY, config)
                 - counted["dram_reads"]) <= 64


def test_accesses_of_the_intersect_array_are_those_of_its_tasks():
    """A layer of a single tile and chunk in four phases; both groups have windows, both clusters lanes."""
    config = replace(PES, weight_depth=512, tile_slots=256, sum_windows=64)
    rng = np.random.default_rng(4)
    layer = random_layer(rng, "layer", "input", (20, 9, 10), width=8, kernel=(3, 3), out_channels=16, pad=(1, 1, 1, 1))
    x = random_map(rng, layer.in_shape, width=8, signed=False, density=.5)
    tiling = choose_tiling(layer.geometry(), config,
                           work=even_work(layer.geometry(), config, phases=4, density_in=.5)).tiling
    assert (tiling.tile_rows, tiling.tile_columns, tiling.passes, tiling.chunk_channels) == (9, 10, 1, 20)
    program = compile_network(single(layer), config, tilings={"layer": tiling})
    counted = model(program, x).accesses[0]
    maps, _ = run_network(program.network, x)
    phases = phase_weights(layer, 4)
    tasks = count_tasks(layer, gather(maps, layer.inputs), tiling, phases, 1, block=16)
    assert counted["multiplications"] == counted["weight_reads"] == counted["value_reads"] == tasks.products.sum()
    # Words are fetched ahead of a stop.
    assert 2 * tasks.words.sum() < counted["map_reads"] <= 2 * 18 * tasks.tasks.sum()
    assert counted["sum_writes"] == tasks.tasks.sum()
    # Every sum leaves; sums below 0 that carry no mark are read before each phase, too.
    assert 90 * 16 + tasks.tasks[1:].sum() <= counted["sum_reads"] <= 4 * 90 * 16
    groups = sum(int(phases[:, :, first:min(first + 8, end)].any(axis=2).sum()) for begin, end in ((0, 16), (16, 20))
                 for first in range(begin, end, 8))
    assert counted["weight_writes"] == 2 * 2 * (4 * 16 * 18 + groups)
    assert counted["map_writes"] == 4 * 9 * 3 * 2 * 4 * (1 + 8)


def test_partial_sums_are_counted():
    config = replace(TINY, weight_depth=160, sum_windows=64)
    work, *_ = random_work(replace(GEOMETRY, out_channels=16), config)
    chunks = -(-20 // work.fields["chunk_channels"]) * -(-3 // work.fields["chunk_rows"])
    counted = model_run([work], config).accesses[0]
    assert chunks > 1 and counted["sum_reads"] == counted["sum_writes"] == (chunks - 1) * 90 * 16


def test_a_slower_memory_takes_longer():
    work, *_ = random_work(GEOMETRY, TINY)
    cycles = [model_run([work], TINY, memory=memory).cycles for memory in (
        MemoryTiming(1, 1), MemoryTiming(), MemoryTiming(300, 30), MemoryTiming(300, 300))]
    assert cycles == sorted(set(cycles))
    slow = model_run([work], TINY, memory=MemoryTiming(cycles_per_beat=5))
    assert slow.cycles >= 5 * slow.layers[0]["read_beats"] and slow.cycles > cycles[1]


def test_the_layer_after_reads_its_weights_ahead():
    """So the two together take less than each alone."""
    work, *_ = random_work(GEOMETRY, TINY)
    alone, both = model_run([work], TINY), model_run([work, work], TINY)
    assert len(both.layers) == 2 and alone.cycles < both.cycles < 2 * alone.cycles
    assert both.layers[1]["cycles"] < both.layers[0]["cycles"]


def test_energy_is_the_sum_over_accesses():
    counts = {name: 0 for name in ACCESSES}
    assert energy(counts, TINY)["total"] == 0
    assert energy(counts | {"dram_reads": 3}, TINY) == energy(counts, TINY) | {"dram_reads": 3900, "total": 3900}
    assert energy(counts | {"multiplications": 10}, TINY)["total"] == pytest.approx(3)
    assert energy(counts | {"multiplications": 10}, TINY16)["total"] == pytest.approx(8 + 1.5)
    assert energy(counts | {"weight_reads": 8}, TINY)["total"] == ENERGY["sram_64"]
    assert energy(counts | {"map_reads": 4, "sum_writes": 2}, TINY)["total"] == 2 * ENERGY["sram_64"]


@pytest.mark.parametrize("change", [{"in_height": 8}, {"in_channels": 40}, {"out_width": 9}, {"pool": 2},
                                    {"write_full": 0}])
def test_maps_that_do_not_fit_the_descriptor_are_refused(change):
    work, x, full = random_work(GEOMETRY, TINY)
    with pytest.raises(ValueError, match="the descriptor"):
        layer_work(work.fields | change, [x], full, None, TINY)


def test_bad_arguments_are_refused():
    with pytest.raises(ValueError, match="read_latency must be a positive integer, not 0"):
        MemoryTiming(0)
    program, x, _ = random_program(TINY, 3, depth=1)
    with pytest.raises(ValueError, match="not the descriptors of 1 layers"):
        model_network(program.network, *run_network(program.network, x), bytes(2 * DESCRIPTOR_BYTES), TINY)


def test_layers_of_the_intersect_array_without_values_are_refused():
    program, x, _ = random_program(PES, 3, depth=1)
    with pytest.raises(ValueError, match="configuration tiny_snapea has the intersect array, whose time depends on"):
        model_network(program.network, *run_network(program.network, x), program.segments[0][1], PES)
    with pytest.raises(ValueError, match="knows at most 62 clusters, and configuration many has 64"):
        model_run([], replace(PES, name="many", groups=16, clusters=4))


def test_a_run_that_never_ends_is_refused():
    """The groups wait for the weights of a second pass that the descriptor does not count."""
    config = replace(TINY, weight_depth=160, sum_windows=32)
    work, *_ = random_work(GEOMETRY, config)
    assert work.fields["passes"] == 2
    with pytest.raises(ValueError, match="never ends"):
        model_run([replace(work, fields=work.fields | {"passes": 1})], config)
