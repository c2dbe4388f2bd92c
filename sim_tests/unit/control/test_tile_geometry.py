"""Tile geometry against golden/README.md, "Tile geometry" and "Loop order", in plain Python."""
import random

import pytest

from hw.config import CHANNEL_BITS, COLUMN_BITS, ROW_BITS, SEGMENT
from hw.control.tile_geometry import AxisGeometry, TileGeometry
from sim_tests.bench.stream import StreamBench, plain

SEED = 20
SIZE_MAX = 2 ** ROW_BITS - 1


def axis_of(case):
    """The page's definitions. The loaded range and ``first`` have no meaning where nothing is loaded."""
    windows = range(case["origin"], min(case["origin"] + case["step"] + case["overlap"], case["size_out"]))
    under = case["origin"] * case["stride"] - case["pad"] + case["kernel_first"]
    reached = under + (len(windows) - 1) * case["stride"] + case["kernel"] - 1
    low, high = max(0, under), min(case["size_in"] - 1, reached)
    further = case["origin"] + case["step"]
    result = {"windows": len(windows), "next": further, "last": int(further >= case["size_out"] - case["overlap"]),
              "loaded": max(0, high - low + 1)}
    if result["loaded"]:
        result |= {"low": low, "high": high, "first": under - low}
    return result


def random_axis(chance):
    """A legal axis; sizes, paddings and chunks lean towards their limits."""
    size_out = chance.choice([1, 2, 3, 4, SIZE_MAX, SIZE_MAX - 1, chance.randint(1, 64), chance.randint(1, SIZE_MAX)])
    size_in = chance.choice([1, 2, 3, 4, 5, SIZE_MAX, chance.randint(1, 64), chance.randint(1, SIZE_MAX), size_out])
    overlap, step = chance.randint(0, 1), chance.choice([1, 2, 3, 4, 127, 128, chance.randint(1, 128)])
    origins = range(0, max(1, size_out - overlap), step)
    kernel_first = chance.choice([0, 0, chance.randint(0, 6)])
    return {
        "origin": chance.choice([0, origins[-1], chance.choice(origins)]), "size_out": size_out, "size_in": size_in,
        "step": step, "overlap": overlap, "stride": chance.randint(1, 4), "pad": chance.choice([0, 1, 3, 15]),
        "kernel": chance.randint(1, 7 - kernel_first), "kernel_first": kernel_first,
    }


def edge_axes():
    """Shapes that have gone wrong elsewhere: one of everything, padding larger than the map, nothing to load."""
    usual = dict(origin=0, size_out=8, size_in=8, step=4, overlap=0, stride=1, pad=1, kernel=3, kernel_first=0)
    return [usual | changes for changes in (
        dict(),
        dict(origin=4),
        dict(size_out=1, size_in=1, step=1, pad=0, kernel=1),
        dict(size_out=1, size_in=1, step=1, overlap=1, pad=15, kernel=7),
        dict(size_out=30, size_in=1, pad=15, kernel=1),                    # only padding, above
        dict(size_out=30, size_in=1, pad=15, kernel=1, origin=16),         # only padding, below
        dict(size_out=30, size_in=1, pad=15, kernel=1, origin=12),         # the one row
        dict(size_out=30, size_in=3, pad=15, kernel=7, step=128),          # one tile around the whole map
        dict(kernel=1, kernel_first=0, step=1),                            # a chunk of padding only
        dict(kernel=1, kernel_first=2, origin=7, step=1),
        dict(size_out=9, step=8, overlap=1),                               # the overlap makes a further tile needless
        dict(size_out=10, step=8, overlap=1),
        dict(size_out=10, step=8, overlap=1, origin=8),
        dict(size_out=SIZE_MAX, size_in=SIZE_MAX, step=128, origin=31 * 128),
        dict(size_out=SIZE_MAX, size_in=SIZE_MAX, step=128, overlap=1, origin=31 * 128),
        dict(size_out=SIZE_MAX, size_in=SIZE_MAX, step=128, origin=31 * 128, stride=4, pad=0, kernel=7),
        dict(size_out=SIZE_MAX, size_in=1, step=1, origin=SIZE_MAX - 1, stride=4, pad=0, kernel=7),
        dict(size_out=1023, size_in=SIZE_MAX, step=128, origin=7 * 128, stride=4, pad=1, kernel=7),
    )]


def test_axis_matches_the_page():
    chance = random.Random(SEED)
    cases = edge_axes() + [random_axis(chance) for _ in range(1000)]
    expected = [axis_of(case) for case in cases]
    assert {result["last"] for result in expected} == {0, 1} and any(not result["loaded"] for result in expected)
    assert {result.get("first") for result in expected} >= {0, -1, -15}
    dut = AxisGeometry(bits=ROW_BITS)
    bench = StreamBench(dut, seed=SEED)

    async def compare(ctx):
        for case, result in zip(cases, expected, strict=True):
            ctx.set(dut.i, case)
            await ctx.tick().repeat(dut.LATENCY)
            found = plain(ctx.get(dut.o))
            assert result == {name: found[name] for name in result}, f"seed {SEED}: {case}"
    bench.testbench(compare)
    bench.run()


@pytest.mark.parametrize("step, overlap, sizes", [
    (1, 0, (1, 2, 9)), (2, 1, (1, 2, 3, 4, 9)), (8, 0, (1, 8, 9, 17)), (8, 1, (8, 9, 10, 17, 18, 130)),
    (128, 0, (128, 129, SIZE_MAX)), (128, 1, (129, 130, SIZE_MAX)),
])
def test_tiles_follow_each_other_to_the_end_of_the_map(step, overlap, sizes):
    """Walking ``next`` until ``last`` gives every window, the shared ones twice, and no tile beyond the map."""
    dut = AxisGeometry(bits=ROW_BITS)
    bench = StreamBench(dut)

    async def walk(ctx):
        for size in sizes:
            walked, tile = [], {"next": 0, "last": 0}
            while not tile["last"]:
                origin = tile["next"]
                ctx.set(dut.i, dict(origin=origin, size_out=size, size_in=size, step=step, overlap=overlap, stride=1,
                                    pad=0, kernel=1, kernel_first=0))
                await ctx.tick().repeat(dut.LATENCY)
                tile = plain(ctx.get(dut.o))
                walked.append((origin, tile["windows"]))
            origins = [0, *(origin for origin in range(step, size, step) if origin < size - overlap)]
            assert walked == [(origin, min(step + overlap, size - origin)) for origin in origins], f"size {size}"
    bench.testbench(walk)
    bench.run()


def test_tile_products_match_the_page():
    chance = random.Random(SEED + 1)
    edges = edge_axes()
    cases = [(rows, columns, 1) for rows in edges for columns in edges]
    cases += [(random_axis(chance), random_axis(chance), chance.choice([1, 2, 512, chance.randint(1, 512)]))
              for _ in range(500)]
    dut = TileGeometry(row_bits=ROW_BITS, column_bits=COLUMN_BITS)
    assert max(blocks for *_, blocks in cases) == 2 ** CHANNEL_BITS // 16
    bench = StreamBench(dut, seed=SEED)
    seen = set()

    async def compare(ctx):
        for rows, columns, blocks in cases:
            ctx.set(dut.i_rows, rows)
            ctx.set(dut.i_columns, columns)
            ctx.set(dut.i_blocks, blocks)
            await ctx.tick().repeat(dut.LATENCY)
            where = f"seed {SEED}: {rows} {columns} {blocks} blocks"
            for axis, found in ((rows, plain(ctx.get(dut.o_rows))), (columns, plain(ctx.get(dut.o_columns)))):
                assert {name: found[name] for name in axis_of(axis)} == axis_of(axis), where
            y, x = axis_of(rows), axis_of(columns)
            empty = not y["loaded"] or not x["loaded"]
            assert ctx.get(dut.o_empty) == empty, where
            assert ctx.get(dut.o_windows) == y["windows"] * x["windows"], where
            seen.add(empty)
            if not empty:
                segments = {column // SEGMENT for column in (x["low"], x["high"])}
                segments = range(min(segments), max(segments) + 1)
                assert (ctx.get(dut.o_segment), ctx.get(dut.o_segments)) == (segments[0], len(segments)), where
                assert ctx.get(dut.o_slots) == y["loaded"] * len(segments) * blocks, where
    bench.testbench(compare)
    bench.run()
    assert seen == {False, True}
