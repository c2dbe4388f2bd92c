"""The resource model: memories and DSP slices against synthesis runs, the fit against made-up ones."""
import json
import re
from collections import Counter

import numpy as np
import pytest
from amaranth import Const, Value
from amaranth.back import rtlil

from boards.resource_model import (
    ARRAYS,
    TERMS,
    Memory,
    Model,
    Point,
    Resources,
    calibrated,
    fit,
    leave_one_out,
    load_points,
    map_memory,
    memories,
)
from boards.resource_points import FILE, PAGE, POINTS, page
from hw.array.intersect.array import IntersectArray
from hw.array.intersect.weight_loader import IntersectWeightLoader
from hw.config import AcceleratorConfig
from hw.configs import CONFIGS


@pytest.mark.parametrize("point", load_points(), ids=lambda point: f"{point.part}-{point.config.name}")
def test_block_rams_and_dsp_slices_are_those_of_the_synthesis_runs(point):
    predicted = calibrated().resources(point.config, point.part)
    assert (predicted.dsps, predicted.block_rams) == (point.resources.dsps, point.resources.block_rams)


@pytest.mark.parametrize("array", ARRAYS)
def test_luts_and_flip_flops_of_a_design_left_out_are_near(array):
    errors = leave_one_out(load_points(), array)
    assert set(errors) == {"luts", "flip_flops"}
    for name, (mean, worst) in errors.items():
        assert mean <= worst < 0.2, name


def test_the_points_of_the_file_are_those_that_are_asked_for():
    points = [(point.part, point.config) for point in load_points()]
    assert len(points) == len(set(points)) and set(points) <= set(POINTS)
    # As many whole designs as terms that only they have, and one to leave out.
    for array, only in zip(ARRAYS, ("shared", "intersect"), strict=True):
        assert sum(part == "design" and config.array == array for part, config in points) > len(TERMS[only])


def test_the_page_is_that_of_the_points():
    assert PAGE.read_text() == page(json.loads(FILE.read_text()))


@pytest.mark.parametrize(("memory", "expected"), [
    (Memory(512, 72), (1, 0)),                      # a whole block RAM at its widest
    (Memory(1024, 18), (0.5, 0)),
    (Memory(1025, 18), (1, 0)),
    (Memory(1024, 17, 32), (16, 0)),                # two multipliers of 17 bits in each
    (Memory(32, 6), (0, 4)), (Memory(33, 6), (0, 8)), (Memory(64, 3), (0, 4)),
    (Memory(512, 72, sync=False), (0, 768)),        # read without a register: never a block RAM
    (Memory(32, 1, 8, sync=False), (0, 32)),        # each bit is written on its own
])
def test_what_a_memory_becomes(memory, expected):
    assert map_memory(memory) == expected


def shapes(memories):
    return Counter((memory.depth, memory.width * memory.parts) for memory in memories)


def in_hardware(*parts):
    """(words, bits) of each memory that Amaranth gives to Yosys for ``parts``."""
    texts = [rtlil.convert(part, ports=[Value.cast(port) for _, _, port in part.signature.flatten(part)
                                        if not isinstance(port, Const)]) for part in parts]
    return Counter((int(depth), int(width)) for text in texts
                   for width, depth in re.findall(r"memory width (\d+) size (\d+)", text))


@pytest.mark.parametrize("change", [
    {}, {"groups": 1, "lanes": 64, "block": 32, "drain": 8, "clusters": 4, "pes": 1, "weight_depth": 544,
         "tile_slots": 48, "sum_windows": 128}])
def test_the_memories_of_the_intersect_array_are_those_of_the_hardware(change):
    c = AcceleratorConfig(**vars(CONFIGS["tiny_snapea"]) | change)
    cluster, shared = memories(c)
    # Start values and thresholds are one memory with two ports to read, each of which has a copy of what it reads.
    starts, thresholds = cluster.pop("starts"), cluster.pop("thresholds")
    both = Memory(starts.depth, starts.width + thresholds.width)
    array = [memory for name, memory in shared.items() if name.startswith(("packed", "round", "joined", "jobs"))]
    array += c.groups * c.clusters * [*cluster.values(), both]
    found = in_hardware(IntersectArray(c), IntersectWeightLoader(config=c))
    # The two queues of finished sums in a cluster are a part of what is fitted.
    small = shapes(c.groups * c.clusters * [Memory(8, c.sum_width), Memory(
        2, c.sum_windows.bit_length() + c.cluster_lanes.bit_length())])
    assert found == shapes(array) + small


def random_config(rng, at):
    if at % 4 > 1:
        clusters, block = 2 ** int(rng.integers(0, 3)), int(rng.choice([16, 32, 64]))
        return AcceleratorConfig(
            f"random{at}", value_width=8, groups=int(rng.integers(1, 5)), lanes=int(rng.choice([64, 128])), block=block,
            drain=int(rng.choice([4, 8, 16])), weight_depth=block * int(rng.integers(7, 30)),
            tile_slots=int(rng.integers(16, 100)), sum_windows=2 ** int(rng.integers(4, 9)), array="intersect",
            clusters=clusters, pes=int(rng.integers(1, 9)))
    block = int(rng.choice([16, 32]))
    return AcceleratorConfig(
        f"random{at}", value_width=int(rng.choice([8, 16])), groups=int(rng.integers(1, 9)),
        lanes=block * int(rng.integers(1, 5)), block=block, drain=int(rng.choice([4, 8])),
        weight_depth=int(rng.integers(49, 2000)), tile_slots=int(rng.integers(16, 300)),
        sum_windows=int(rng.integers(1, 300)), pool_columns=int(rng.integers(4, 33)))


#: By part: group, cluster, shared, intersect.
TRUE = Model((300., 2., 1.5, 200., 10., 30., 3., 5., 5000., 12., 2000., 700., .4),
             (250., 2.1, 1.7, 150., 5., 40., 2., 9., 6000., 20., 1500., 350., .6))


def made_up(seed, count, true):
    rng = np.random.default_rng(seed)
    configs = [random_config(rng, at) for at in range(count)]
    parts = ["design" if at % 2 == 0 else "cluster" if config.intersect else "group"
             for at, config in enumerate(configs)]
    return [Point(part, config, true.resources(config, part)) for part, config in zip(parts, configs, strict=True)]


def test_the_fit_finds_the_coefficients_that_made_the_points():
    points = made_up(3, 60, TRUE)
    found = fit(points)
    # LUTs and flip-flops are whole numbers.
    assert np.allclose(found.luts, TRUE.luts, rtol=.05) and np.allclose(found.flip_flops, TRUE.flip_flops, rtol=.05)
    assert max(worst for array in ARRAYS for _, worst in leave_one_out(points, array).values()) < .002
    assert len(TRUE.luts) == sum(map(len, TERMS.values()))


def test_a_term_that_would_be_negative_is_left_out():
    negative = Model((*TRUE.luts[:2], -.5, *TRUE.luts[3:]), TRUE.flip_flops)
    points = [Point(point.part, point.config, Resources(point.resources.luts, point.resources.flip_flops, 0, 0))
              for point in made_up(4, 60, negative)]
    found = fit(points)
    assert min(found.luts) == found.luts[2] == 0


@pytest.mark.parametrize("at", [4, 6])
def test_an_outlier_shows_in_the_error_of_its_array(at):
    points = made_up(5, 40, TRUE)
    part, config, (luts, *rest) = points[at]
    points[at] = Point(part, config, Resources(2 * luts, *rest))
    assert part == "design" and leave_one_out(points, config.array)["luts"][1] > .4


@pytest.mark.parametrize(("name", "change"), [
    ("small", {"groups": 4}), ("small", {"lanes": 64}), ("small", {"drain": 8}), ("tiny_snapea", {"groups": 4}),
    ("tiny_snapea", {"clusters": 4}), ("tiny_snapea", {"pes": 4}), ("tiny_snapea", {"drain": 8})])
def test_more_of_anything_takes_more(name, change):
    small = CONFIGS[name]
    larger = AcceleratorConfig(**vars(small) | change)
    before, after = (calibrated().resources(config) for config in (small, larger))
    assert after.luts > before.luts and after.flip_flops > before.flip_flops and after.dsps > before.dsps
