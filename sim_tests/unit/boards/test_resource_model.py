"""The resource model: memories and DSP slices against synthesis runs, the fit against made-up ones."""
import json

import numpy as np
import pytest

from boards.resource_model import (
    GROUP_TERMS,
    SHARED_TERMS,
    Memory,
    Model,
    Point,
    Resources,
    calibrated,
    fit,
    leave_one_out,
    load_points,
    map_memory,
)
from boards.resource_points import FILE, PAGE, POINTS, page
from hw.config import AcceleratorConfig
from hw.configs import CONFIGS


@pytest.mark.parametrize("point", load_points(), ids=lambda point: f"{point.part}-{point.config.name}")
def test_block_rams_and_dsp_slices_are_those_of_the_synthesis_runs(point):
    predicted = calibrated().resources(point.config, point.part)
    assert (predicted.dsps, predicted.block_rams) == (point.resources.dsps, point.resources.block_rams)


def test_luts_and_flip_flops_of_a_design_left_out_are_near():
    errors = leave_one_out(load_points())
    assert set(errors) == {"luts", "flip_flops"}
    for name, (mean, worst) in errors.items():
        assert mean <= worst < 0.2, name


def test_the_points_of_the_file_are_those_that_are_asked_for():
    points = [(point.part, point.config) for point in load_points()]
    assert len(points) == len(set(points)) and set(points) <= set(POINTS)
    # As many whole designs as terms that only whole designs have, and one to leave out.
    assert sum(part == "design" for part, _ in points) > len(SHARED_TERMS)


def test_the_page_is_that_of_the_points():
    assert PAGE.read_text() == page(json.loads(FILE.read_text()))


@pytest.mark.parametrize(("memory", "expected"), [
    (Memory(512, 72), (1, 0)),                      # a whole block RAM at its widest
    (Memory(1024, 18), (0.5, 0)),
    (Memory(1025, 18), (1, 0)),
    (Memory(1024, 17, 32), (16, 0)),                # two multipliers of 17 bits in each
    (Memory(32, 6), (0, 4)), (Memory(33, 6), (0, 8)), (Memory(64, 3), (0, 4)),
    (Memory(512, 72, sync=False), (0, 768)),        # read without a register: never a block RAM
])
def test_what_a_memory_becomes(memory, expected):
    assert map_memory(memory) == expected


def random_config(rng, at):
    block = int(rng.choice([16, 32]))
    return AcceleratorConfig(
        f"random{at}", value_width=int(rng.choice([8, 16])), groups=int(rng.integers(1, 9)),
        lanes=block * int(rng.integers(1, 5)), block=block, drain=int(rng.choice([4, 8])),
        weight_depth=int(rng.integers(49, 2000)), tile_slots=int(rng.integers(16, 300)),
        sum_windows=int(rng.integers(1, 300)), pool_columns=int(rng.integers(4, 33)))


def made_up(seed, count, true):
    rng = np.random.default_rng(seed)
    parts = ["design", "group"] * count
    return [Point(part, config, true.resources(config, part)) for at, part in enumerate(parts[:count])
            for config in [random_config(rng, at)]]


def test_the_fit_finds_the_coefficients_that_made_the_points():
    true = Model((300., 2., 1.5, 5000., 12.), (250., 2.1, 1.7, 6000., 20.))
    points = made_up(3, 20, true)
    found = fit(points)
    assert np.allclose(found.luts, true.luts, rtol=.02) and np.allclose(found.flip_flops, true.flip_flops, rtol=.02)
    assert max(worst for _, worst in leave_one_out(points).values()) < .002
    assert len(true.luts) == len(GROUP_TERMS) + len(SHARED_TERMS)


def test_a_term_that_would_be_negative_is_left_out():
    points = [Point(point.part, point.config, Resources(point.resources.luts, point.resources.flip_flops, 0, 0))
              for point in made_up(4, 20, Model((300., 2., -.5, 5000., 12.), (250., 2.1, 1.7, 6000., 20.)))]
    found = fit(points)
    assert min(found.luts) == found.luts[2] == 0


def test_an_outlier_shows_in_the_error():
    points = made_up(5, 12, Model((300., 2., 1.5, 5000., 12.), (250., 2.1, 1.7, 6000., 20.)))
    part, config, (luts, *rest) = points[4]
    points[4] = Point(part, config, Resources(2 * luts, *rest))
    assert part == "design" and leave_one_out(points)["luts"][1] > .4


def test_the_intersect_array_is_refused():
    with pytest.raises(ValueError, match="the resource model knows the broadcast array only, and configuration snapea"):
        calibrated().resources(CONFIGS["snapea"])


@pytest.mark.parametrize("change", [{"groups": 4}, {"lanes": 64}, {"drain": 8}])
def test_more_of_anything_takes_more(change):
    small = CONFIGS["small"]
    larger = AcceleratorConfig(**{field: getattr(small, field) for field in small.__dataclass_fields__} | change)
    before, after = (calibrated().resources(config) for config in (small, larger))
    assert after.luts > before.luts and after.flip_flops > before.flip_flops and after.dsps > before.dsps
