"""`zeroskip explore`: the sweep, the front, and the file that it writes."""
import json
import random
import re
from dataclasses import fields, replace

import pytest
from typer.testing import CliRunner

from boards import explore
from boards.catalogue import BOARDS, CHIPS
from boards.cli import app
from boards.explore import (
    TOLERANCE,
    Candidate,
    Estimates,
    _cheapest,
    fitting,
    modelled,
    pareto,
    sweep,
    write_config,
)
from boards.resource_model import ARRAYS, Resources, calibrated
from boards.workload import load_workload
from compiler.tile import choose_tiling
from golden.cycles import even_work
from golden.tiling import Geometry
from hw.config import AcceleratorConfig
from hw.configs import CONFIGS, get_config
from sim_tests.unit.boards.workloads import two_layers

SMALL_GRID = {"GROUPS": (1, 2), "LANES": (16, 32), "BLOCKS": (16, 32), "DRAINS": (4,), "WEIGHT_DEPTHS": (256,),
              "TILE_SLOTS": (32, 64), "SUM_WINDOWS": (32,), "INTERSECT_GROUPS": (1, 2), "INTERSECT_CLUSTERS": (1, 2),
              "INTERSECT_PES": (2,), "INTERSECT_LANES": (16,), "INTERSECT_BLOCKS": (16, 32),
              "INTERSECT_WEIGHT_DEPTHS": (448,), "INTERSECT_TILE_SLOTS": (32,), "INTERSECT_SUM_WINDOWS": (64,)}


@pytest.fixture
def small_grid(monkeypatch):
    for name, values in SMALL_GRID.items():
        monkeypatch.setattr(explore, name, values)


@pytest.mark.parametrize("value_width", [8, 16])
def test_the_sweep_holds_each_configuration_once_in_one_order(value_width):
    configs = [*sweep(value_width)]
    names = [config.name for config in configs]
    assert len(set(names)) == len({config.configuration_id for config in configs}) == len(names) > 1000
    assert names == [config.name for config in sweep(value_width)]
    for array in ARRAYS:
        alone = [config.name for config in sweep(value_width, (array,))]
        assert alone == [config.name for config in configs if config.array == array]
        assert bool(alone) == (array == "broadcast" or value_width == 8)


def test_what_fits_takes_at_most_the_share():
    chip = CHIPS["xc7z010"]
    found = fitting(chip, .7, 8)
    assert found and all(used == calibrated().resources(config) for config, used in found)
    assert all(value <= .7 * limit for _, used in found for value, limit in zip(used, chip, strict=True))
    names = {config.name for config, _ in found}
    left_out = [config for config in sweep(8) if config.name not in names]
    assert left_out and all(max(calibrated().resources(config).shares(chip)) > .7 for config in left_out)
    assert {config.name for config, _ in fitting(chip, .6, 8)} < names
    assert names < {config.name for config, _ in fitting(CHIPS["xc7z020"], .7, 8)}


def random_candidates(seed, count):
    rng = random.Random(seed)
    return [Candidate(AcceleratorConfig(**vars(CONFIGS["tiny"]) | {"name": f"c{n}"}),
                      Resources(rng.randint(100, 160), 1, rng.randint(10, 16), rng.randint(10, 16) / 2),
                      rng.randint(1000, 1600), rng.randint(100, 160)) for n in range(count)]


@pytest.mark.parametrize("seed", range(5))
def test_the_front_is_what_nothing_betters(seed):
    candidates = random_candidates(seed, 60)
    front = pareto(candidates)

    def figures(candidate):
        return (candidate.cycles, candidate.dram_bytes, candidate.resources.luts, candidate.resources.dsps,
                candidate.resources.block_rams)

    def betters(one, other, slack):
        return all(a <= b * slack for a, b in zip(figures(one), figures(other), strict=True))

    assert [candidate.cycles for candidate in front] == sorted(candidate.cycles for candidate in front)
    for candidate in candidates:
        if candidate in front:
            # Nothing is clearly better everywhere.
            assert not any(betters(other, candidate, 1 / (1 + TOLERANCE) ** 2) for other in candidates), seed
        else:
            assert any(betters(other, candidate, 1 + TOLERANCE) for other in front), seed
    assert pareto(candidates[::-1]) == front


@pytest.mark.parametrize(("name", "workload"), [("tiny", lambda: two_layers(1)),
                                                ("tiny_snapea", lambda: load_workload("digits"))])
def test_the_estimate_is_that_of_the_compiler(name, workload):
    workload, config = workload(), CONFIGS[name]
    choices = workload.quantise(config).compile(config).choices.values()
    cycles, dram_bytes = Estimates(workload)(config)
    # Of some layers the intersect array has phases of negative weights: exact mode.
    assert (len({choice.tiling.phases for choice in choices}) > 1) == config.intersect
    assert cycles == round(sum(float(choice.cost.cycles) for choice in choices))
    assert dram_bytes == 8 * round(sum(float(choice.cost.read + choice.cost.write) for choice in choices))


def test_estimates_do_not_depend_on_those_before():
    """Chunks and with them the phases are other ones with another depth, and tiles do not fit with fewer slots."""
    workload, tiny = load_workload("digits"), CONFIGS["tiny_snapea"]
    estimates, joined = Estimates(workload), []
    for depth, slots in ((1152, 64), (160, 32), (1152, 16), (1152, 64)):
        config = replace(tiny, name=f"w{depth}_s{slots}", weight_depth=depth, tile_slots=slots)
        choices = workload.quantise(config).compile(config).choices.values()
        assert estimates(config)[0] == round(sum(float(choice.cost.cycles) for choice in choices)), config.name
        joined.append([choice.tiling.joined for choice in choices])
    assert joined[0] == joined[3] and len(set(map(tuple, joined))) > 1, joined


def test_a_work_whose_tiles_do_not_fit_is_passed_over():
    """4 windows span 4 segments: 40 slots of 10 blocks, but ``tiny_snapea`` has 32."""
    config, geometry = CONFIGS["tiny_snapea"], Geometry(16, 40, 160, 1, 1, 4, 0, 0, 4, 10, 16)
    alone = even_work(geometry, config, density_in=.5)
    whole = replace(alone, cycles=(1.0,), whole=True)
    known = {"density_in": .5, "density_out": .5}
    assert _cheapest(config, geometry, .5, .5, (alone, whole)) == choose_tiling(geometry, config, work=alone,
                                                                              **known).cost
    roomy = replace(config, name="roomy", tile_slots=40)
    assert _cheapest(roomy, geometry, .5, .5, (alone, whole)) == choose_tiling(geometry, roomy, work=whole,
                                                                             **known).cost
    large = Geometry(60, 60, 3, 7, 7, 4, 0, 0, 14, 14, 3, 3)
    with pytest.raises(ValueError, match="no tile of a 7 x 7 kernel fits configuration tiny_snapea"):
        _cheapest(config, large, .5, .5, (alone, whole))


@pytest.mark.parametrize("name", ["tiny", "tiny_snapea"])
def test_the_cycle_model_gives_near_what_was_estimated(name):
    workload, config = two_layers(2), CONFIGS[name]
    estimated = Candidate(config, calibrated().resources(config), *Estimates(workload)(config))
    exact = modelled(workload, estimated)
    assert exact.exact and not estimated.exact and exact.config is config
    assert .5 < exact.cycles / estimated.cycles < 2 and .5 < exact.dram_bytes / estimated.dram_bytes < 2


@pytest.mark.parametrize("config", [CONFIGS["small"], next(sweep(16)), next(sweep(8, ("intersect",)))],
                         ids=lambda config: config.name)
def test_the_file_is_the_configuration(config, tmp_path):
    path = tmp_path / "folder" / "best.json"
    write_config(config, path)
    assert list(json.loads(path.read_text())) == [field.name for field in fields(AcceleratorConfig)]
    assert get_config(str(path)) == config


def run(*arguments):
    return CliRunner().invoke(app, ["explore", *map(str, arguments)], env={"COLUMNS": "160"})


def table(text):
    return text[text.index("worth building on"):]


def test_the_command_lists_the_front_and_writes_the_fastest(small_grid, monkeypatch, tmp_path):
    monkeypatch.setattr(explore, "load_workload", lambda *args, **options: two_layers(3))
    path = tmp_path / "best.json"
    result = run("two", "--board", "arty_z7_20", "--exact", "2", "-o", path)
    assert result.exit_code == 0, result.output
    assert "16 configurations, 16 of them fit (12 broadcast, 4 intersect), 16 run two" in result.output
    assert "fitted to" in result.output
    assert all(f"a design with the {array} array that it was not fitted to" in result.output for array in ARRAYS)
    best = get_config(str(path))
    assert best.name in {config.name for config in sweep(8)} and f"CONFIG={path}" in result.output
    again = run("two", "--board", "arty_z7_20", "--exact", "2", "-o", path)
    assert get_config(str(path)) == best
    assert table(again.output) == table(result.output)


def test_a_file_gets_whole_lines(small_grid, monkeypatch):
    monkeypatch.setattr(explore, "load_workload", lambda *args, **options: two_layers(3))
    result = CliRunner().invoke(app, ["explore", "two", "--board", "arty_z7_20"], env={"COLUMNS": "80"})
    assert result.exit_code == 0, result.output
    rows = [line for line in table(result.output).splitlines() if re.match(r"(broadcast|intersect) \d", line)]
    assert rows and all(row.rstrip().endswith("%)") and row.count("(") == 3 for row in rows)


@pytest.mark.parametrize(("array", "count"), [("broadcast", 12), ("intersect", 4)])
def test_one_array_alone(array, count, small_grid, monkeypatch, tmp_path):
    workload, path = two_layers(3), tmp_path / "best.json"
    monkeypatch.setattr(explore, "load_workload", lambda *args, **options: workload)
    result = run("two", "--board", "arty_z7_20", "--array", array, "--exact", "1", "-o", path)
    assert result.exit_code == 0 and f"{count} configurations" in result.output, result.output
    rows = [line.split() for line in table(result.output).splitlines() if re.match(r" *(broadcast|intersect) \d", line)]
    best = get_config(str(path))
    assert {row[0] for row in rows} == {best.array} == {array}
    # The cycles of its row are those of the program that make sim runs.
    quantised = workload.quantise(best)
    cycles = quantised.model(quantised.compile(best)).cycles
    multipliers = f"{best.groups} x {best.clusters} x {best.pes}" if best.intersect else f"{best.groups} x {best.lanes}"
    assert f"{cycles:,}" in rows[0] and " ".join(rows[0]).startswith(f"{array} {multipliers} {best.lanes},")


@pytest.mark.parametrize(("arguments", "sentence"), [
    (("digits", "--board", "none"), "there is no board 'none'"),
    (("digits", "--board", "ulx3s_85f"), "does not cover"),
    (("digits", "--board", "arty_z7_10", "--value-width", 12), "must be 8 or 16, not 12"),
    (("digits", "--board", "arty_z7_10", "--array", "dense"), "must be broadcast, intersect or both, not 'dense'"),
    (("digits", "--board", "arty_z7_10", "--array", "intersect", "--value-width", 16), "has 8-bit values"),
    (("digits", "--board", "arty_z7_10", "--calib", "x"), "belong to an ONNX file"),
    (("digits", "--board", "arty_z7_10", "--size", "32"), "--size belongs to hed"),
    (("nothing", "--board", "arty_z7_10"), "there is no network 'nothing'"),
    (("nothing.onnx", "--board", "arty_z7_10"), "needs typical inputs"),
    (("nothing.onnx", "--board", "arty_z7_10", "--calib", "none"), "nothing.onnx"),
])
def test_what_cannot_be_used_is_refused_in_a_sentence(arguments, sentence):
    result = run(*arguments)
    assert result.exit_code == 2 and result.output.startswith("error: ") and result.output.count("\n") == 1
    assert sentence in result.output


def test_no_configuration_is_a_sentence_too(small_grid, monkeypatch):
    monkeypatch.setattr(explore, "load_workload", lambda *args, **options: two_layers(4))
    result = run("two", "--board", "arty_z7_10", "--share", "0.05")
    assert result.exit_code == 2 and "at most 5 % of the chip" in result.output


def test_every_board_has_a_chip():
    assert {board.chip for board in BOARDS.values()} - set(CHIPS) == {"LFE5U-85F"}
