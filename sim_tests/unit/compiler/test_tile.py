"""Tilings fit the configuration, are found whenever one exists, quickly, and are the cheapest of those."""
import dataclasses
import itertools
import random
import time

import pytest

from compiler.tile import TIE, choose_tiling, fits_whole
from golden.cycles import estimate, even_work
from golden.tiling import Geometry, Tiling, ceil_div, check_tiling, loaded_span, segments_of, tile_spans
from hw.configs import CONFIGS

TINY, DEFAULT, TINY_SNAPEA = CONFIGS["tiny"], CONFIGS["default"], CONFIGS["tiny_snapea"]


def random_geometry(seed, side=14):
    pick = random.Random(seed)
    kernel, stride, pool = (pick.randint(1, 7), pick.randint(1, 7)), pick.randint(1, 4), pick.choice([0, 0, 2, 3])
    pad = pick.randint(0, 3), pick.randint(0, 3)
    height, width = pick.randint(1, side), pick.randint(1, side)
    out = [max(1, (length + 2 * before - taps) // stride + 1)
           for length, before, taps in zip((height, width), pad, kernel, strict=True)]
    return Geometry(height, width, pick.choice([1, 16, 17, 40, 64]), *kernel, stride, *pad, *out,
                    pick.choice([1, 16, 40]), pool, not pool)


def cost_of(geometry, tiling, config):
    cost = estimate(geometry, tiling, config, density_in=0.4, density_out=0.4)
    return cost.cycles + TIE * (cost.compute + cost.read)


def all_tilings(geometry, config):
    """Every legal tiling, checked one by one, with the fewest passes of equal length."""
    rows_step, columns_step = (2, 8) if geometry.pool else (1, 4)
    steps = {min(step, geometry.in_channels) for step in range(config.block, geometry.in_channels + config.block,
                                                               config.block)}
    widths = {*range(columns_step, geometry.out_width + columns_step, columns_step), geometry.out_width}
    heights = range(rows_step, geometry.out_height + rows_step, rows_step)
    for channels, rows, height, width in itertools.product(steps, range(1, geometry.kernel_rows + 1), heights, widths):
        tiles = (len(tile_spans(geometry.out_height, height, geometry.tile_overlap))
                 * len(tile_spans(geometry.out_width, width, geometry.tile_overlap)))
        for passes in range(1, tiles + 1):
            per_pass = ceil_div(tiles, passes)
            tiling = Tiling(channels, rows, height, width, per_pass, ceil_div(tiles, per_pass))
            try:
                check_tiling(geometry, tiling, config)
            except ValueError:
                continue
            yield tiling
            break


@pytest.mark.parametrize("seed", range(40))
def test_choice_is_about_the_cheapest_of_all(seed):
    geometry = random_geometry(seed, side=10)
    costs = [cost_of(geometry, tiling, TINY) for tiling in all_tilings(geometry, TINY)]
    if not costs:
        with pytest.raises(ValueError, match="no tile"):
            choose_tiling(geometry, TINY)
        return
    choice = choose_tiling(geometry, TINY)
    # The search skips taller tiles of the same number, and takes the largest tile for the size of a pass.
    assert cost_of(geometry, choice.tiling, TINY) <= 1.1 * min(costs), f"seed {seed}: {geometry}"


@pytest.mark.parametrize("config", CONFIGS.values(), ids=CONFIGS)
@pytest.mark.parametrize("layer", [(224, 3, 64, 3, 1, 0), (224, 64, 64, 3, 1, 2), (56, 256, 256, 3, 1, 2),
                                   (14, 512, 512, 3, 1, 2), (112, 3, 64, 7, 2, 3), (1, 4096, 1000, 1, 1, 0)])
def test_large_layers_fit_quickly(config, layer):
    side, channels, out_channels, kernel, stride, pool = layer
    pad = kernel // 2
    out = (side + 2 * pad - kernel) // stride + 1
    geometry = Geometry(side, side, channels, kernel, kernel, stride, pad, pad, out, out, out_channels, pool, not pool)
    start = time.process_time()
    choice = choose_tiling(geometry, config)
    assert time.process_time() - start < 0.25
    check_tiling(geometry, choice.tiling, config)
    assert choice.slots <= config.tile_slots
    text = choice.explain()
    assert f"{choice.tiling.passes} passes" in text and choice.cost.bound in text


def test_a_given_tiling_is_checked_and_used():
    geometry = Geometry(8, 8, 16, 3, 3, 1, 1, 1, 8, 8, 16)
    tiling = Tiling(16, 3, 2, 4, 8, 1)
    assert choose_tiling(geometry, TINY, tiling=tiling).tiling == tiling


@pytest.mark.parametrize(("changes", "message"), [
    ({"chunk_rows": 3, "chunk_channels": 32}, "weight_depth"), ({"chunk_channels": 8}, "multiple of 16"),
    ({"tile_columns": 6}, "tile_columns must be a multiple of 4"), ({"tile_rows": 12, "tile_columns": 8}, "tile_slots"),
    ({"tiles_per_pass": 12, "passes": 1}, "partial sums"), ({"passes": 2}, "passes"), ({"tile_rows": 0}, "step by 1")])
def test_tilings_that_do_not_fit_are_refused(changes, message):
    geometry = Geometry(12, 12, 32, 3, 3, 1, 1, 1, 12, 12, 16)
    good = {"chunk_channels": 16, "chunk_rows": 3, "tile_rows": 4, "tile_columns": 4, "tiles_per_pass": 4, "passes": 3}
    check_tiling(geometry, Tiling(**good), TINY)
    with pytest.raises(ValueError, match=message):
        check_tiling(geometry, Tiling(**good | changes), TINY)


@pytest.mark.parametrize(("changes", "message"), [
    ({"phases": 8}, "phases must be 1 to 7 in the intersect array, not 8"), ({"phases": 0}, "not 0"),
    ({"joined": 4}, "of 7 phases 0 to 3 may be joined, not 4"), ({"joined": -1}, "not -1"),
    ({"phases": 3, "joined": 3}, "of 3 phases 0 to 2 may be joined, not 3"),
    ({"phases": 1, "joined": 1}, "of 1 phases 0 to 0 may be joined, not 1"),
    ({"tiles_per_pass": 12, "passes": 1}, "a pass of 144 windows does not fit 2 x 32 partial sums"),
    ({"chunk_rows": 3, "chunk_channels": 33}, "a chunk of 432 weights does not fit weight_depth 160")])
def test_tilings_of_the_intersect_array_that_do_not_fit_are_refused(changes, message):
    """Sums are kept, and blocks stored whole, also in a single round."""
    geometry = Geometry(12, 12, 33, 3, 3, 1, 1, 1, 12, 12, 16)
    good = {"chunk_channels": 16, "chunk_rows": 3, "tile_rows": 4, "tile_columns": 4, "tiles_per_pass": 4, "passes": 3,
            "phases": 7}
    check_tiling(geometry, Tiling(**good), TINY_SNAPEA)
    check_tiling(geometry, Tiling(**good, joined=3), TINY_SNAPEA)
    with pytest.raises(ValueError, match=message):
        check_tiling(geometry, Tiling(**good | changes), TINY_SNAPEA)
    with pytest.raises(ValueError, match="phases must be 1 to 1 in the broadcast array, not 7"):
        check_tiling(geometry, Tiling(**good), TINY)


@pytest.mark.parametrize("phases, joined", [(1, 0), (2, 0), (4, 0), (4, 2)])
@pytest.mark.parametrize("seed", range(6))
def test_searched_tilings_of_the_intersect_array_fit(seed, phases, joined):
    geometry = random_geometry(seed, side=40)
    work = even_work(geometry, TINY_SNAPEA, phases=phases, joined=joined, density_in=0.4, density_weights=0.9)
    choice = choose_tiling(geometry, TINY_SNAPEA, work=work)
    check_tiling(geometry, choice.tiling, TINY_SNAPEA)
    assert (choice.tiling.phases, choice.tiling.joined) == (phases, joined) and choice.cost.unpack > 0
    text = choice.explain()
    assert (f"phases {phases}" in text) == (phases > 1) and "unpack" in text
    assert (f"phases {phases}, the last {joined + 1} in one round; " in text) == (joined > 0)


@pytest.mark.parametrize("seed", range(60))
def test_one_chunk_is_searched_for_where_a_work_needs_it(seed):
    """And ``fits_whole`` says whether there is one: any tile of all that are legal."""
    geometry = random_geometry(seed, side=10)
    work = dataclasses.replace(even_work(geometry, TINY_SNAPEA, phases=3, joined=2, density_in=0.4), whole=True)
    expected = any(tiling.chunk_channels >= geometry.in_channels and tiling.chunk_rows == geometry.kernel_rows
                   for tiling in all_tilings(geometry, TINY_SNAPEA))
    assert fits_whole(geometry, TINY_SNAPEA) == expected, f"seed {seed}: {geometry}"
    if not expected:
        with pytest.raises(ValueError, match="no tile"):
            choose_tiling(geometry, TINY_SNAPEA, work=work)
        return
    tiling = choose_tiling(geometry, TINY_SNAPEA, work=work).tiling
    assert (tiling.chunk_channels, tiling.chunk_rows) == (geometry.in_channels, geometry.kernel_rows), f"seed {seed}"


def test_some_kernels_fit_the_weight_buffer_but_no_tile_the_slots():
    geometries = [random_geometry(seed, side=10) for seed in range(60)]
    roomy = dataclasses.replace(TINY_SNAPEA, name="roomy", tile_slots=1024)
    fits = [(fits_whole(geometry, TINY_SNAPEA), fits_whole(geometry, roomy)) for geometry in geometries]
    assert {(True, True), (False, True), (False, False)} == set(fits)


def test_pooled_tilings_are_checked():
    geometry = Geometry(12, 40, 16, 1, 1, 1, 0, 0, 12, 40, 16, 3, False)
    check_tiling(geometry, Tiling(16, 1, 2, 16, 18, 1), TINY)
    with pytest.raises(ValueError, match="multiple of 8"):
        check_tiling(geometry, Tiling(16, 1, 2, 12, 24, 1), TINY)
    with pytest.raises(ValueError, match="even"):
        check_tiling(geometry, Tiling(16, 1, 3, 16, 12, 1), TINY)
    with pytest.raises(ValueError, match="pooled columns"):
        check_tiling(geometry, Tiling(16, 1, 2, 24, 12, 1), TINY)


def test_loaded_spans():
    assert loaded_span(0, 4, stride=1, pad=1, tap=0, taps=3, length=8) == (0, 5)
    assert loaded_span(4, 8, stride=1, pad=1, tap=2, taps=1, length=8) == (5, 8)
    assert loaded_span(3, 5, stride=2, pad=0, tap=0, taps=3, length=99) == (6, 11)
    first, end = loaded_span(0, 1, stride=1, pad=3, tap=0, taps=2, length=8)
    assert end <= first and segments_of((first, end)) == 0
    assert segments_of((3, 5)) == 2 and segments_of((4, 8)) == 1
    assert tile_spans(9, 4, 0) == [(0, 4), (4, 8), (8, 9)]
    assert tile_spans(9, 4, 1) == [(0, 5), (4, 9)] and tile_spans(1, 4, 1) == [(0, 1)]
