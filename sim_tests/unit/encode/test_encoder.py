"""The encoder against golden/README.md, "Compressed feature map", in NumPy: every request and every beat in order."""
import numpy as np
import pytest

from hw.config import AcceleratorConfig
from hw.configs import CONFIGS
from hw.encode.encoder import Encoder
from sim_tests.bench.stream import STALL_GRID, StreamBench

T8 = AcceleratorConfig("t8", value_width=8, groups=2, lanes=32, block=16, drain=4, weight_depth=64, tile_slots=32,
                       sum_windows=16)
T16 = AcceleratorConfig("t16", value_width=16, groups=3, lanes=32, block=32, drain=8, weight_depth=64, tile_slots=32,
                        sum_windows=16)
#: One word a block, and rows of two beats.
ONE_WORD = AcceleratorConfig("one", value_width=8, groups=1, lanes=16, block=16, drain=16, weight_depth=64,
                             tile_slots=32, sum_windows=16)
#: Three blocks a window: a ring of six slots.
THREE = AcceleratorConfig("three", value_width=16, groups=1, lanes=48, block=16, drain=16, weight_depth=64,
                          tile_slots=32, sum_windows=16)
CONFIG_LIST = [CONFIGS["tiny"], CONFIGS["default"], CONFIGS["snapea"], T8, T16, ONE_WORD, THREE]


def make_map(config, shape, density, generator):
    return generator.integers(1, 1 << config.value_width, shape) * (generator.random(shape) < density)


def layout(config, shape):
    """A target whose strides are larger than needed, and no powers of two."""
    channels, _, width = shape
    segment_bytes = (channels // config.block + 1) * config.slot_bytes
    return {"address": 0x1234000, "segment_bytes": segment_bytes, "row_bytes": (-(-width // 4) + 1) * segment_bytes}


def beats_of(config, pixels):
    """Beats of a slot with these values (pixel, channel); up to four pixels."""
    bits = 0
    for number, bit in enumerate((pixels != 0).reshape(-1)):
        bits |= int(bit) << number
    beats = [bits >> 64 * n & (1 << 64) - 1 for n in range(config.map_beats)]
    values = [int(value) for value in pixels.reshape(-1) if value]
    packed = sum(value << config.value_width * n for n, value in enumerate(values))
    count = -(-len(values) * config.value_width // 64)
    return beats + [packed >> 64 * n & (1 << 64) - 1 for n in range(count)]


def encode(config, array, target, tile_columns):
    """Words in, requests and beats out: kernel block by tile by row."""
    words, requests, beats = [], [], []
    channels, height, width = array.shape
    for first in range(0, channels, config.lanes):
        stop = min(first + config.lanes, channels)
        for left in range(0, width, tile_columns or width):
            right = min(left + (tile_columns or width), width)
            for y in range(height):
                for x in range(left, right):
                    for channel in range(first, stop, config.drain):
                        words.append({"values": [int(v) for v in array[channel:channel + config.drain, y, x]],
                                      "position": {"y": y, "x": x, "block": channel // config.block,
                                                   "word": channel % config.block // config.drain,
                                                   "row_first": int(y == 0), "row_last": int(y == height - 1),
                                                   "column_first": int(x == left),
                                                   "column_last": int(x == right - 1)}})
                for x in range(left, right, 4):
                    for channel in range(first, stop, config.block):
                        slot = beats_of(config, array[channel:channel + config.block, y, x:min(x + 4, right)].T)
                        requests.append({"address": target["address"] + y * target["row_bytes"]
                                         + x // 4 * target["segment_bytes"]
                                         + channel // config.block * config.slot_bytes, "beats": len(slot)})
                        beats += slot
    return words, requests, beats


def run_encoder(config, maps, *, tile_columns=0, stall=(0.0, 0.0), seed=0):
    """Encode the maps one after the other, at the same target. Returns (words, beats, cycles of the beats)."""
    target = layout(config, maps[0].shape)
    words, requests, beats = (sum(parts, []) for parts in zip(
        *(encode(config, array, target, tile_columns) for array in maps), strict=True))
    dut = Encoder(config)
    bench = StreamBench(dut, seed=seed)

    async def settings(ctx):
        assert ctx.get(dut.o_idle)
        ctx.set(dut.i_target, target)
    bench.testbench(settings)
    bench.source(dut.i, words, stall=stall[0], noise=True)
    got_requests = bench.sink(dut.o_request, count=len(requests), stall=stall[1])
    request_cycles = bench.last_cycles
    got_beats = bench.sink(dut.o_data, count=len(beats), stall=stall[1])
    beat_cycles = bench.last_cycles

    async def idle(ctx):
        await ctx.tick().repeat(3)
        while True:
            *_, is_idle = await ctx.tick().sample(dut.o_idle)
            if len(got_requests) == len(requests) and len(got_beats) == len(beats):
                break
            if stall[0] == 0:
                assert not is_idle, f"idle with slots inside (seed {seed})"
        await ctx.tick().repeat(2)
        assert ctx.get(dut.o_idle), f"not idle after the last beat (seed {seed})"
    bench.testbench(idle)
    bench.run(deadline=20_000)
    where = f"maps {[array.shape for array in maps]}, config {config.name}, stall {stall}, seed {seed}"
    for number, (got, want) in enumerate(zip(got_requests, requests, strict=True)):
        assert got == want, f"request {number}, {where}"
    for number, (got, want) in enumerate(zip(got_beats, beats, strict=True)):
        assert got == want, f"beat {number}: {got:016x}, not {want:016x}, {where}"
    if stall == (0.0, 0.0):
        first = 0
        for request, cycle in zip(requests, request_cycles, strict=True):
            assert cycle <= beat_cycles[first], f"a beat before its request, {where}"
            first += request["beats"]
    return words, beats, beat_cycles


@pytest.mark.parametrize("config", CONFIG_LIST, ids=lambda config: config.name)
@pytest.mark.parametrize("density", (0, 1 / 64, 0.1, 0.5, 1))
def test_every_density(config, density):
    seed = 1
    array = make_map(config, (config.lanes + config.block, 2, 7), density, np.random.default_rng(seed))
    run_encoder(config, [array], seed=seed)


@pytest.mark.parametrize("config", CONFIG_LIST, ids=lambda config: config.name)
@pytest.mark.parametrize("width", (1, 2, 3, 4, 5, 8, 9, 10))
def test_cut_segments(config, width):
    seed = 2
    generator = np.random.default_rng(seed)
    maps = [make_map(config, (channels, height, width), 0.5, generator)
            for channels, height in ((config.block, 1), (config.lanes, 3), (config.block, 2))]
    run_encoder(config, maps, seed=seed)


@pytest.mark.parametrize("config", CONFIG_LIST, ids=lambda config: config.name)
def test_maps_of_one_pixel_follow_each_other(config):
    """Kernel blocks and layers at the same pixel: nothing but the block tells their slots apart."""
    seed = 3
    generator = np.random.default_rng(seed)
    maps = [make_map(config, (channels, 1, 1), 0.3, generator)
            for channels in (3 * config.lanes, config.block, config.block, 2 * config.lanes + config.block)]
    run_encoder(config, maps, seed=seed)


@pytest.mark.parametrize("config", CONFIG_LIST, ids=lambda config: config.name)
def test_empty_and_full_slots_alternate(config):
    """A full slot leaves nothing behind for the empty one that takes its place."""
    array = np.zeros((config.lanes, 2, 20), dtype=np.int64)
    array[:, :, 0:4] = array[:, :, 12:16] = (1 << config.value_width) - 1
    array[-1] = 1
    run_encoder(config, [array])


@pytest.mark.parametrize("tile_columns", (4, 8))
def test_tiles_of_columns(tile_columns):
    seed = 4
    array = make_map(T8, (T8.lanes, 3, 14), 0.4, np.random.default_rng(seed))
    run_encoder(T8, [array], tile_columns=tile_columns, seed=seed)


@pytest.mark.parametrize("config", (T8, T16), ids=lambda config: config.name)
@pytest.mark.parametrize("stall", STALL_GRID)
def test_matches_under_stalls(config, stall):
    seed = 5
    array = make_map(config, (config.lanes, 2, 10), 0.5, np.random.default_rng(seed))
    run_encoder(config, [array], stall=stall, seed=seed)


@pytest.mark.parametrize("config", (CONFIGS["default"], CONFIGS["tiny"], T16), ids=lambda config: config.name)
@pytest.mark.parametrize("density", (0, 0.1, 0.5, 1))
def test_keeps_up_with_a_word_or_a_beat_a_cycle(config, density):
    seed = 6
    array = make_map(config, (config.lanes, 2, 32), density, np.random.default_rng(seed))
    words, beats, cycles = run_encoder(config, [array], seed=seed)
    # What is left after the last word: at most the slots of the ring.
    slot = config.map_beats + config.value_beats
    slots = max(4, 2 * config.lanes // config.block)
    assert cycles[-1] <= max(len(words), len(beats)) + Encoder.LATENCY + slots * slot
    assert cycles[0] <= 4 * config.window_words + Encoder.LATENCY + 1
    if len(beats) > len(words):
        assert cycles[-1] - cycles[0] == len(beats) - 1, "a bubble between beats"
