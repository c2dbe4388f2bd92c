"""The cycle estimate: counts are exact where they can be, and each stage grows with what it should grow with."""
import dataclasses

import numpy as np
import pytest

from compiler.weights import weight_image
from golden.cycles import (
    PhaseWork,
    estimate,
    estimate_result,
    even_work,
    inside_fraction,
    kinds,
    scale_beats,
    slot_read_beats,
    task_cycles,
    tiled_nonzero_macs,
    unpack_cycles,
    weight_beats,
    write_beats,
)
from golden.layer import run_layer
from golden.tiling import Geometry, Tiling, row_loads, segment_loads
from hw.configs import CONFIGS

from .random_layers import random_layer, random_map

TINY, DEFAULT, SNAPEA = CONFIGS["tiny"], CONFIGS["default"], CONFIGS["snapea"]
GEOMETRY = Geometry(20, 24, 40, 3, 3, 1, 1, 1, 20, 24, 100)
TILING = Tiling(32, 1, 4, 8, 3, 5)


def test_weights_and_scales_are_counted_to_the_beat():
    assert weight_beats(GEOMETRY, DEFAULT) == 9 * 40 * (8 + 5)
    assert scale_beats(GEOMETRY, DEFAULT) == 2 * (64 + 64)
    assert kinds(100, 64) == [(64, 1), (36, 1)] and kinds(64, 64) == [(64, 1)] and kinds(3, 64) == [(3, 1)]


def test_one_window_on_one_lane_block():
    geometry = Geometry(1, 1, 32, 1, 1, 1, 0, 0, 1, 1, 64)
    cost = estimate(geometry, Tiling(32, 1, 1, 1, 1, 1), DEFAULT, density_in=1.0, density_out=0.0)
    assert (cost.drain, cost.read, cost.write) == (8, 2 + 16 + 128 + 32 * 8, 4)
    assert 32 < cost.compute < 60 and cost.bound == "read"


def test_densities_drive_reads_and_compute():
    costs = [estimate(GEOMETRY, TILING, DEFAULT, density_in=density, density_out=density)
             for density in (0.0, 0.1, 0.5, 1.0)]
    for name in ("compute", "read", "write", "cycles"):
        values = [getattr(cost, name) for cost in costs]
        assert values == sorted(values) and values[0] < values[-1], name
    full = slot_read_beats(GEOMETRY, DEFAULT, 1.0)
    assert slot_read_beats(GEOMETRY, DEFAULT, 0.0) == 2 < full <= 18
    assert slot_read_beats(dataclasses.replace(GEOMETRY, dense_shift=2), DEFAULT, 0.0) == 2


def test_more_passes_read_the_weights_again():
    one = estimate(GEOMETRY, TILING, DEFAULT, density_in=0.5, density_out=0.5)
    more = estimate(GEOMETRY, dataclasses.replace(TILING, tiles_per_pass=1, passes=15), DEFAULT, density_in=0.5,
                    density_out=0.5)
    assert more.read - one.read == 10 * weight_beats(GEOMETRY, DEFAULT)


def test_outputs_are_written_once_each():
    pooled = dataclasses.replace(GEOMETRY, pool=2)
    assert write_beats(GEOMETRY, DEFAULT, 0.0) == 20 * 6 * 4 * 2
    assert write_beats(pooled, DEFAULT, 0.0) == (20 * 6 + 10 * 3) * 4 * 2
    assert write_beats(dataclasses.replace(pooled, write_full=False), DEFAULT, 0.0) == 10 * 3 * 4 * 2


def test_inside_fraction_counts_taps():
    assert inside_fraction(Geometry(3, 3, 1, 3, 3, 1, 1, 1, 3, 3, 1)) == pytest.approx(49 / 81)
    assert inside_fraction(Geometry(4, 4, 1, 2, 2, 2, 0, 0, 2, 2, 1)) == 1


def test_shared_windows_of_tiles_are_counted_for_each_tile():
    rng = np.random.default_rng(3)
    layer = random_layer(rng, "layer", "input", (4, 9, 18), width=8, kernel=(1, 1), out_channels=3, pool=3)
    result = run_layer(layer, random_map(rng, layer.in_shape, width=8, signed=False, density=0.5))
    geometry = layer.geometry()
    assert tiled_nonzero_macs(geometry, Tiling(4, 1, 10, 18, 1, 1), result) == result.nonzero_macs
    tiling = Tiling(4, 1, 4, 8, 6, 1)
    nonzeros = result.nonzeros
    extra = nonzeros[4].sum() + nonzeros[:, 8].sum() + nonzeros[:, 16].sum() + nonzeros[4, 8] + nonzeros[4, 16]
    assert tiled_nonzero_macs(geometry, tiling, result) == 3 * (nonzeros.sum() + extra)


def test_estimate_of_a_run_is_near_its_work():
    rng = np.random.default_rng(4)
    layer = random_layer(rng, "layer", "input", (32, 16, 16), width=8, kernel=(3, 3), out_channels=64, pad=(1, 1, 1, 1))
    result = run_layer(layer, random_map(rng, layer.in_shape, width=8, signed=False, density=0.5))
    cost = estimate_result(layer.geometry(), Tiling(32, 3, 4, 8, 8, 1), DEFAULT, result)
    assert 1 < cost.compute / (result.nonzero_macs / DEFAULT.total_lanes) < 1.4


#: 3 kernel blocks, the last of 8 lanes; 2 x 3 chunks, 5 passes of the 15 tiles.
WIDE, CUT = dataclasses.replace(GEOMETRY, in_channels=80, out_channels=136), Tiling(64, 1, 4, 8, 3, 5)


#: Its weights take longer to unpack than its tiles.
ONE_CLUSTER = dataclasses.replace(SNAPEA, groups=16, clusters=1)


def intersect(tiling=CUT, *, density_in=0.5, density_weights=1.0, config=SNAPEA):
    work = even_work(WIDE, SNAPEA, phases=tiling.phases, joined=tiling.joined, density_in=density_in,
                     density_weights=density_weights)
    return estimate(WIDE, tiling, config, density_in=density_in, density_out=0.3, work=work)


def test_tasks_of_the_intersect_array_multiply_what_is_left_or_look_at_a_word_a_cycle():
    per_window, windows = 9 * inside_fraction(WIDE), 20 * 24
    macs = per_window * 80 * 0.5 * 136 * windows
    tasks = 6 * 136 * windows
    assert 1 < intersect().compute / ((macs + tasks) / SNAPEA.total_lanes) < 1.2
    # Nothing to multiply: two tasks of 3 words pass a PE in 13 cycles, and one is lost between them.
    none = intersect(density_in=0)
    assert 1 < none.compute / (7.5 * tasks / SNAPEA.total_lanes) < 1.2
    assert intersect(density_weights=0).compute == none.compute
    by_density = [intersect(density_weights=density).compute for density in (0.1, 0.3, 0.6, 1.0)]
    assert by_density == sorted(by_density) and by_density[0] < by_density[-1]


def test_every_pass_unpacks_every_round_and_every_round_reads_the_input_again():
    assert unpack_cycles(3, SNAPEA) == 4 + 3 + 3 * 8
    assert intersect(config=ONE_CLUSTER).unpack == 5 * 136 * 6 * unpack_cycles(3, SNAPEA)
    # Two clusters have 32, 32 and 4 lanes each of the three kernel blocks.
    two = dataclasses.replace(SNAPEA, groups=8, clusters=2)
    assert intersect(config=two).unpack == 5 * 68 * 6 * unpack_cycles(3, SNAPEA)
    # A group of 8 channels without a weight takes no cycle.
    group = 1 - 0.75 ** 8
    assert intersect(dataclasses.replace(CUT, phases=4), config=ONE_CLUSTER).unpack == pytest.approx(
        4 * 5 * 136 * 6 * (4 + 3 + 3 * 8 * group))
    assert unpack_cycles(3, SNAPEA, 0) == 4 + 3 + 3
    # Of one lane, the input takes longer: 64 channels of each of the 4 pixels of a slot, 16 in a cycle.
    lane = estimate(dataclasses.replace(WIDE, out_channels=1), CUT, SNAPEA, density_in=0.5, density_out=0.3)
    assert lane.unpack == input_slots() * 4 * 4 > 5 * 6 * unpack_cycles(3, SNAPEA)
    reads = [intersect(dataclasses.replace(CUT, phases=phases), density_weights=0).read for phases in (1, 2, 3)]
    # Of 3 map words: start, maps, and half a beat that rounding up would cost.
    weights = 5 * 136 * 6 * (1 + 3 + 0.5)
    more = 3 * slot_read_beats(WIDE, SNAPEA, 0.5) * input_slots() + weights
    assert [reads[1] - reads[0], reads[2] - reads[1]] == pytest.approx([more, more])


def test_phases_that_share_a_round_read_the_input_once_and_their_maps_each():
    found = [intersect(dataclasses.replace(CUT, phases=phases, joined=joined), config=ONE_CLUSTER)
             for phases, joined in ((2, 0), (3, 1), (5, 3))]
    # 3 maps for each more phase in the last of two rounds of a chunk: a beat and a cycle each.
    more = 5 * 136 * 6 * 3
    for name in ("read", "unpack"):
        assert [getattr(cost, name) - getattr(found[0], name) for cost in found[1:]] == [more, 3 * more], name


def test_weights_of_one_round_in_all_are_loaded_once():
    geometry = dataclasses.replace(WIDE, in_channels=64, out_channels=64)

    def unpack(tiling, **phases):
        return estimate(geometry, dataclasses.replace(tiling, **phases), ONE_CLUSTER, density_in=1.0,
                        density_out=0.3).unpack
    one, more = Tiling(64, 3, 4, 8, 15, 1), Tiling(64, 3, 4, 8, 3, 5)
    assert unpack(one, phases=4, joined=3) == unpack(more, phases=4, joined=3) > unpack(one, phases=1)
    for phases, joined in ((2, 0), (4, 2), (7, 3)):
        assert unpack(more, phases=phases, joined=joined) > 1.5 * unpack(one, phases=phases, joined=joined)


def test_the_work_of_a_round_is_that_of_all_its_phases():
    work = even_work(WIDE, SNAPEA, phases=5, joined=3, density_in=0.5)
    assert (work.phases, work.joined, work.phase_rounds, work.whole) == (5, 3, 2, False)
    assert [work.maps(number) for number in range(2)] == [1, 4]
    assert work.cycles == even_work(WIDE, SNAPEA, phases=2, density_in=0.5).cycles and sum(work.weights) == 1


def test_beats_of_the_weights_of_the_intersect_array_are_about_those_of_the_image():
    rng = np.random.default_rng(4)
    layer = random_layer(rng, "a", "input", (80, 20, 24), width=8, kernel=(3, 3), out_channels=136, pad=(1, 1, 1, 1))
    density = np.count_nonzero(layer.weights) / layer.weights.size
    for phases, joined in ((1, 0), (4, 0), (4, 2), (7, 3)):
        tiling = dataclasses.replace(CUT, phases=phases, joined=joined)
        work = even_work(WIDE, SNAPEA, phases=phases, joined=joined, density_in=0, density_weights=density)
        free, without = (estimate(geometry, tiling, SNAPEA, density_in=0, density_out=0, work=work).read
                         for geometry in (WIDE, dataclasses.replace(WIDE, out_channels=1)))
        beats = len(weight_image(layer, tiling, SNAPEA)) / 8
        per_lane = 5 * beats / 136
        # The input is read three times, for one kernel block each.
        inputs = (phases - joined) * 2 * slot_read_beats(WIDE, SNAPEA, 0) * input_slots()
        assert free - without - inputs == pytest.approx(135 * per_lane, rel=0.1)


def test_tasks_take_a_cycle_for_each_product_or_word_unless_two_take_longer_to_pass_the_pe():
    assert task_cycles(np.array([100, 12, 10, 3, 0, 20, 0, 0]), np.array([9, 9, 9, 9, 9, 28, 1, 0])).tolist() == [
        100, 12, 10, 9.5, 9.5, 28, 5.5, 0]


def test_a_phase_with_little_to_do_waits_for_tiles():
    """What one phase saves in computing another does not lose again, unless tiles are loaded ahead of a whole round."""
    much, little, few = 8000.0, 8.0, dataclasses.replace(CUT, tiles_per_pass=1, passes=15, phases=2)
    many = dataclasses.replace(CUT, tiles_per_pass=15, passes=1, phases=2)

    def cost(cycles, tiling):
        work = PhaseWork(cycles, (0.0, 0.0), (1.0, 0.1), (0.5, 0.5))
        return estimate(dataclasses.replace(WIDE, out_channels=1), tiling, SNAPEA, density_in=0.5, density_out=0.3,
                        work=work)

    uneven, even = cost((much, little), many), cost(((much + little) / 2,) * 2, many)
    assert uneven.uneven > even.uneven and uneven.compute < even.compute * 1.1
    assert cost((much, little), few).uneven < uneven.uneven


def test_a_phase_with_little_to_do_waits_for_weights():
    """Also where its tiles are loaded ahead: weights of a round are loaded while the one before computes."""
    single = dataclasses.replace(CUT, tiles_per_pass=1, passes=15, phases=2)
    costs = [estimate(WIDE, single, ONE_CLUSTER, density_in=0.5, density_out=0.3,
                      work=PhaseWork(cycles, (0.0, 0.0), (1.0, 1.0), (0.5, 0.5))) for cycles in ((900, 0), (450, 450))]
    assert costs[0].unpack < costs[0].compute < 1.1 * costs[1].compute
    # The two chunks, of 64 and of 16 channels, have different amounts of work too.
    assert costs[0].uneven > 1.5 * costs[1].uneven > 0


def test_clusters_wait_for_each_other_the_more_their_tasks_differ():
    costs = [estimate(WIDE, CUT, SNAPEA, density_in=0.5, density_out=0.3,
                      work=PhaseWork((100.0,), (variation,), (1.0,), (1.0,))).compute for variation in (0.0, 0.5, 2.0)]
    assert costs == sorted(costs) and costs[0] < costs[1] < 1.1 * costs[0] < costs[2] < 1.5 * costs[0]


def test_sums_of_the_intersect_array_are_joined_from_those_of_the_clusters():
    """64 sums of a window in words of ``drain``, with 4 clusters 4 a cycle in each of the groups; a word a cycle leaves
    all of them."""
    for groups, drain, cycles in ((4, 4, 16), (4, 8, 8), (4, 16, 4), (1, 16, 16), (2, 16, 8)):
        config = dataclasses.replace(SNAPEA, groups=groups, drain=drain)
        assert estimate(WIDE, CUT, config, density_in=0.5, density_out=0.3).drain == 3 * 20 * 24 * cycles


def input_slots():
    """Slots that all chunks of ``CUT`` load for a kernel block."""
    rows, segments = sum(map(sum, row_loads(WIDE, 4, 1))), sum(segment_loads(WIDE, 8))
    return rows * segments * 2
