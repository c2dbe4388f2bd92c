"""The comparison with golden counts every value of every map that a layer writes."""
import numpy as np
import pytest

from boards.sim.compare import compare_run
from compiler.graph import Layer, Network, Slice, Target
from compiler.quantise import quantise
from golden.network import run_network
from hw.configs import CONFIGS
from hw.registers import COUNTERS

SEED = 11


@pytest.fixture
def run():
    """A network of two layers on a random input: quantised, golden's maps and results, counters."""
    rng = np.random.default_rng(SEED)
    layers = [Layer("first", [Slice("input", 0, 3)], rng.normal(size=(5, 3, 3, 3)), rng.normal(size=5),
                    pad=(1, 1, 1, 1), pool=2, pool_ceil=True, full=Target("first.full")),
              Layer("side", [Slice("first.full", 0, 5)], rng.normal(size=(1, 5, 1, 1)), relu=False)]
    network = Network("pair", (3, 7, 6), layers, ("first", "side"))
    x = rng.normal(size=(3, 7, 6)) * (rng.random((3, 7, 6)) < .5)
    quantised = quantise(network, [x], CONFIGS["tiny"])
    maps, results = run_network(quantised, quantised.quantise_input(x))
    counters = [{name: at + 1 for name, _ in COUNTERS} for at in range(2)]
    return quantised, maps, results, counters


def test_equal_maps_have_no_mismatches(run):
    quantised, maps, results, counters = run
    records, problems = compare_run(quantised, maps, results, maps, counters)
    assert not problems and [record.mismatches for record in records] == [0, 0]
    # before pooling 5 x 7 x 6, pooled 5 x 4 x 3
    assert [record.compared for record in records] == [5 * 7 * 6 + 5 * 4 * 3, 7 * 6]
    first, side = records
    assert first.shape == (5, 7, 6) and first.macs == 7 * 6 * 5 * 27 and side.macs == 7 * 6 * 5
    assert first.input_values == 3 * 7 * 6 and first.input_nonzeros == np.count_nonzero(maps["input"])
    assert side.nonzero_macs == np.count_nonzero(maps["first.full"]) == first.output_nonzeros
    assert side.counters["cycles"] == 2


@pytest.mark.parametrize("name, layer", [("first", 0), ("first.full", 0), ("side", 1)])
def test_each_wrong_value_of_each_map_is_counted_and_the_first_is_named(run, name, layer):
    quantised, maps, results, counters = run
    wrong = dict(maps)
    wrong[name] = maps[name].copy()
    wrong[name][-1, -1, -1] += 1
    wrong[name][0, 1, 2] += 1
    records, problems = compare_run(quantised, maps, results, wrong, counters)
    assert [record.mismatches for record in records] == [2 * (at == layer) for at in range(2)]
    assert len(problems) == 1 and problems[0].startswith(f"{name}: 2 of {maps[name].size} values differ")
    assert f"(0, 1, 2) is {wrong[name][0, 1, 2]}, golden has {maps[name][0, 1, 2]}" in problems[0]


def test_a_missing_layer_record_is_an_error(run):
    quantised, maps, results, counters = run
    with pytest.raises(ValueError):
        compare_run(quantised, maps, results, maps, counters[:1])
