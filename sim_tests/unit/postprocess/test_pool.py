"""Max-pool of whole maps cut into tiles, against torch."""
import numpy as np
import pytest
import torch
from torch.nn import functional

from hw.config import AcceleratorConfig
from hw.configs import CONFIGS
from hw.postprocess.pool import Pool
from sim_tests.bench.stream import STALL_GRID, StreamBench

T8 = AcceleratorConfig("t8", value_width=8, groups=2, lanes=32, block=16, drain=4, weight_depth=64, tile_slots=32,
                       sum_windows=16, pool_columns=4)
T16 = AcceleratorConfig("t16", value_width=16, groups=3, lanes=32, block=32, drain=8, weight_depth=64, tile_slots=32,
                        sum_windows=16)
#: One word a pixel: consecutive words share a column.
ONE_WORD = AcceleratorConfig("one", value_width=8, groups=1, lanes=16, block=16, drain=16, weight_depth=64,
                             tile_slots=32, sum_windows=16)
#: Three blocks a pixel, and a row buffer that is not a power of two.
THREE = AcceleratorConfig("three", value_width=8, groups=1, lanes=48, block=16, drain=8, weight_depth=64,
                          tile_slots=32, sum_windows=16, pool_columns=6)
CONFIG_LIST = [CONFIGS["tiny"], CONFIGS["snapea"], T8, T16, ONE_WORD, THREE]
SIZES = [(1, 1), (1, 2), (2, 1), (2, 2), (3, 3), (4, 5), (5, 4), (1, 9), (9, 1), (9, 8), (10, 9), (8, 10), (11, 17)]


def tile_origins(size, step, overlap):
    """First coordinate of each tile along an axis (golden/README.md, "Loop order")."""
    origins = [0]
    while step and origins[-1] + step < size - overlap:
        origins.append(origins[-1] + step)
    return origins


def tiles(height, width, step, overlap):
    for y in tile_origins(height, step, overlap):
        for x in tile_origins(width, step, overlap):
            yield (y, min(y + step + overlap, height) if step else height,
                   x, min(x + step + overlap, width) if step else width)


def to_words(config, array, bounds):
    """The words of ``array`` (channels, rows, columns; padded to whole blocks), kernel block by tile by pixel."""
    for first in range(0, array.shape[0], config.lanes):
        for top, bottom, left, right in bounds:
            for y in range(top, bottom):
                for x in range(left, right):
                    for channel in range(first, min(first + config.lanes, array.shape[0]), config.drain):
                        values = array[channel:channel + config.drain, y, x] % (1 << config.value_width)
                        yield {"values": [int(value) for value in values], "position": {
                            "y": y, "x": x, "block": channel // config.block,
                            "word": channel % config.block // config.drain,
                            "row_first": int(y == top), "row_last": int(y == bottom - 1),
                            "column_first": int(x == left), "column_last": int(x == right - 1)}}


def outputs(size, kernel):
    return max(1, -(-(size - kernel) // 2) + 1)


def pooled(array, kernel):
    rows, columns = outputs(array.shape[1], kernel), outputs(array.shape[2], kernel)
    full = torch.full((array.shape[0], 2 * (rows - 1) + kernel, 2 * (columns - 1) + kernel), -np.inf,
                      dtype=torch.float64)
    kept = torch.from_numpy(array.astype(np.float64))[:, :full.shape[1], :full.shape[2]]
    full[:, :kept.shape[1], :kept.shape[2]] = kept
    result = functional.max_pool2d(full[None], kernel, 2)[0]
    if min(array.shape[1:]) >= kernel:
        assert torch.equal(result, functional.max_pool2d(kept[None], kernel, 2, ceil_mode=True)[0])
    return result.numpy().astype(np.int64)


def make_map(config, shape, *, signed, density, generator):
    width = config.value_width
    low, high = (-2 ** (width - 1), 2 ** (width - 1)) if signed else (0, 2 ** width)
    values = generator.integers(low, high, shape)
    values[generator.random(shape) < 0.05] = low
    values[generator.random(shape) < 0.05] = high - 1
    return values * (generator.random(shape) < density)


def run_pool(config, layers, *, kernel, signed, step, stall=(0.0, 0.0), seed=0):
    """``layers``: arrays, one after the other through the same pool. Returns the cycles of the outputs."""
    overlap = int(kernel == 3)
    words, expected = [], []
    for array in layers:
        words += to_words(config, array, list(tiles(*array.shape[1:], step, overlap)))
        result = pooled(array, kernel)
        # Windows of a tile: those that start in it, but for the overlap, which the next tile has.
        bounds = [(top // 2, max(top // 2 + 1, outputs(bottom, kernel)), left // 2,
                   max(left // 2 + 1, outputs(right, kernel)))
                  for top, bottom, left, right in tiles(*array.shape[1:], step, overlap)]
        expected += to_words(config, result, bounds)
    dut = Pool(config)
    bench = StreamBench(dut, seed=seed)

    async def settings(ctx):
        ctx.set(dut.i_kernel, kernel)
        ctx.set(dut.i_signed, signed)
    bench.testbench(settings)
    bench.source(dut.i, words, stall=stall[0], noise=True)
    received = bench.sink(dut.o, count=len(expected), stall=stall[1])
    cycles = bench.last_cycles

    async def idle(ctx):
        while len(received) < len(expected):
            await ctx.tick()
        await ctx.tick().repeat(Pool.LATENCY)
        assert ctx.get(dut.o_idle), f"not idle after the last word (seed {seed})"
    bench.testbench(idle)
    bench.run(deadline=20_000)
    for number, (got, want) in enumerate(zip(received, expected, strict=True)):
        assert got == want, (f"word {number} of maps {[array.shape for array in layers]}, kernel {kernel}, "
                             f"tile {step}, config {config.name}, stall {stall}, seed {seed}")
    return len(words), cycles


@pytest.mark.parametrize("step", (0, 8))
@pytest.mark.parametrize("kernel", (2, 3))
@pytest.mark.parametrize("size", SIZES, ids=lambda size: f"{size[0]}x{size[1]}")
def test_every_size_whole_and_in_tiles(size, kernel, step):
    seed = 3
    generator = np.random.default_rng(seed)
    config = THREE if size[1] <= 8 else ONE_WORD
    for signed in (0, 1):
        array = make_map(config, (config.block, *size), signed=signed, density=0.5, generator=generator)
        run_pool(config, [array], kernel=kernel, signed=signed, step=step, seed=seed)


@pytest.mark.parametrize("kernel", (2, 3))
@pytest.mark.parametrize("config", CONFIG_LIST, ids=lambda config: config.name)
def test_kernel_blocks_and_layers_follow_each_other(config, kernel):
    """Full and partial kernel blocks, 1x1 maps in a row, layers of other widths: the words of a pixel stay apart."""
    seed = 8
    generator = np.random.default_rng(seed)
    shapes = [(2 * config.lanes, 1, 1), (config.block, 1, 1), (config.block, 1, 1), (config.lanes, 3, 3),
              (config.lanes + config.block, 4, 5), (config.block, 2, 9)]
    for signed in (0, 1):
        layers = [make_map(config, shape, signed=signed, density=0.5, generator=generator) for shape in shapes]
        run_pool(config, layers, kernel=kernel, signed=signed, step=8 if config.pool_columns < 8 else 0, seed=seed)


@pytest.mark.parametrize("density", (0, 1 / 64, 0.1, 0.5, 1))
@pytest.mark.parametrize("kernel", (2, 3))
def test_every_density(density, kernel):
    seed = 2
    array = make_map(T8, (T8.lanes, 5, 6), signed=1, density=density, generator=np.random.default_rng(seed))
    run_pool(T8, [array], kernel=kernel, signed=1, step=0, seed=seed)


@pytest.mark.parametrize("stall", STALL_GRID)
@pytest.mark.parametrize("kernel", (2, 3))
def test_matches_under_stalls(kernel, stall):
    seed = 6
    for config, shape in ((ONE_WORD, (16, 9, 1)), (T8, (32, 3, 9))):
        array = make_map(config, shape, signed=0, density=0.5, generator=np.random.default_rng(seed))
        run_pool(config, [array], kernel=kernel, signed=0, step=8, stall=stall, seed=seed)


def test_one_word_a_cycle():
    array = make_map(T8, (T8.lanes, 4, 8), signed=0, density=1, generator=np.random.default_rng(0))
    words, cycles = run_pool(T8, [array], kernel=2, signed=0, step=0)
    assert cycles[-1] == words + Pool.LATENCY
