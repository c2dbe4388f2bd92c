"""The comparison with golden counts every value of every map that a layer writes."""
from dataclasses import replace

import numpy as np
import pytest

from boards.sim.compare import compare_run
from compiler.emit import compile_network
from compiler.graph import Layer, Network, Slice, Target
from compiler.quantise import quantise
from golden.network import run_network
from hw.configs import CONFIGS
from hw.registers import COUNTERS
from sim_tests.golden_model.random_layers import with_prediction

SEED = 11


@pytest.fixture
def run(request):
    """A network of two layers on a random input: program, golden's maps and results, counters."""
    rng = np.random.default_rng(SEED)
    layers = [Layer("first", [Slice("input", 0, 3)], rng.normal(size=(5, 3, 3, 3)), rng.normal(size=5),
                    pad=(1, 1, 1, 1), pool=2, pool_ceil=True, full=Target("first.full")),
              Layer("side", [Slice("first.full", 0, 5)], rng.normal(size=(1, 5, 1, 1)), relu=False)]
    network = Network("pair", (3, 7, 6), layers, ("first", "side"))
    x = rng.normal(size=(3, 7, 6)) * (rng.random((3, 7, 6)) < .5)
    config = CONFIGS[getattr(request, "param", "tiny")]
    quantised = quantise(network, [x], config)
    maps, results = run_network(quantised, quantised.quantise_input(x))
    counters = [{name: at + 1 for name, _ in COUNTERS} for at in range(2)]
    return compile_network(quantised, config), maps, results, counters


def test_equal_maps_have_no_mismatches(run):
    program, maps, results, counters = run
    records, problems = compare_run(program, maps, results, maps, counters)
    assert not problems and [record.mismatches for record in records] == [0, 0]
    # before pooling 5 x 7 x 6, pooled 5 x 4 x 3
    assert [record.compared for record in records] == [5 * 7 * 6 + 5 * 4 * 3, 7 * 6]
    first, side = records
    assert first.shape == (5, 7, 6) and first.macs == 7 * 6 * 5 * 27 and side.macs == 7 * 6 * 5
    assert first.input_values == 3 * 7 * 6 and first.input_nonzeros == np.count_nonzero(maps["input"])
    assert side.nonzero_macs == np.count_nonzero(maps["first.full"]) == first.output_nonzeros
    assert side.counters["cycles"] == 2 and first.early is side.early is None


@pytest.mark.parametrize("run", ["tiny_snapea"], indirect=True)
def test_what_the_intersect_array_does_not_multiply(run):
    program, maps, results, counters = run
    layers = [with_prediction(np.random.default_rng(1), program.network.layers[0]), program.network.layers[1]]
    program = compile_network(replace(program.network, layers=tuple(layers)), program.config)
    maps, results = run_network(program.network, maps["input"])
    first, side = (record.early for record in compare_run(program, maps, results, maps, counters)[0])
    padded = np.pad(maps["input"] != 0, ((0, 0), (1, 1), (1, 1))).astype(int)
    assert first["skipping"] == sum(
        np.einsum("oc,cyx->", layers[0].weights[..., row, column] != 0, padded[:, row:row + 7, column:column + 6])
        for row in range(3) for column in range(3))
    assert first["outputs"] == 5 * 7 * 6 and 0 < first["predicted"] == first["stopped"] < first["outputs"]
    assert 0 < first["missed"] < first["predicted"] and sum(first["products"]) != first["skipping"]
    assert first["products"][2:] == [0] * 5, "signed inputs: phase 0 and the rest"
    assert side["products"] == [side["skipping"], *[0] * 6] and side["stopped"] == side["predicted"] == 0


@pytest.mark.parametrize("name, layer", [("first", 0), ("first.full", 0), ("side", 1)])
def test_each_wrong_value_of_each_map_is_counted_and_the_first_is_named(run, name, layer):
    program, maps, results, counters = run
    wrong = dict(maps)
    wrong[name] = maps[name].copy()
    wrong[name][-1, -1, -1] += 1
    wrong[name][0, 1, 2] += 1
    records, problems = compare_run(program, maps, results, wrong, counters)
    assert [record.mismatches for record in records] == [2 * (at == layer) for at in range(2)]
    assert len(problems) == 1 and problems[0].startswith(f"{name}: 2 of {maps[name].size} values differ")
    assert f"(0, 1, 2) is {wrong[name][0, 1, 2]}, golden has {maps[name][0, 1, 2]}" in problems[0]


def test_a_missing_layer_record_is_an_error(run):
    program, maps, results, counters = run
    with pytest.raises(ValueError):
        compare_run(program, maps, results, maps, counters[:1])
