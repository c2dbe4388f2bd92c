"""`zeroskip compare`: what a run or the cycle model says beside dense, SCALE-Sim and published figures."""
import csv
import json
import random
import subprocess
import sys

import numpy as np
import onnx
import pytest
from scalesim.compute.systolic_compute_is import systolic_compute_is
from scalesim.compute.systolic_compute_os import systolic_compute_os
from scalesim.compute.systolic_compute_ws import systolic_compute_ws
from scalesim.scale_config import scale_config
from scalesim.topology_utils import topologies
from typer.testing import CliRunner

from boards import compare_accelerators
from boards.bench_early import model_program
from boards.cli import COMMANDS, app
from boards.compare_accelerators import (
    DATAFLOWS,
    MOST_LINES,
    Run,
    Work,
    array_shape,
    build_table,
    from_model,
    layer_work,
    load_published,
    matching,
    notes,
    published_line,
    scale_sim_cycles,
    topology,
    vgg_layers,
)
from boards.report.record import COUNTS
from boards.sim.jobs import DigitsJob
from boards.sim.report import LayerRecord, build_report
from boards.workload import load_workload
from compiler.pipeline import compile_float
from golden.network import run_network
from hw.configs import CONFIGS
from hw.registers import COUNTERS
from sim_tests.unit.boards.workloads import two_layers
from sim_tests.unit.compiler.onnx_graphs import Graph

TINY = CONFIGS["tiny"]


def report(seed, runs=2):
    """A report of layers with random figures, as `make sim` writes it."""
    rng = random.Random(seed)
    records = []
    for n in range(4):
        channels, rows, columns = rng.randint(1, 40), rng.randint(1, 9), rng.randint(1, 9)
        macs = channels * rows * columns * rng.randint(1, 50)
        for _ in range(runs):
            cycles = rng.randint(100, 900)
            counters = {name: 0 for name, _ in COUNTERS} | {"cycles": cycles, "idle": cycles * TINY.groups}
            record = LayerRecord(f"layer{n}", (channels, rows, columns), macs, 0, 1, 0, 1, 0, 1, 0, counters)
            if len(records) > n:
                records[n] += record
            else:
                records.append(record)
    return build_report(network="random", config=TINY, records=records, run_cycles=1, wall_seconds=1.)


def run(*arguments):
    return CliRunner().invoke(app, ["compare", *map(str, arguments)], env={"COLUMNS": "200"})


def figure(text):
    return float(text[:-1]) * {"k": 1e3, "M": 1e6}[text[-1]] if text[-1] in "kM" else float(text)


@pytest.mark.parametrize("folder", [False, True])
def test_a_run_beside_dense_and_systolic_arrays(folder, tmp_path):
    content = report(seed := 1)
    (tmp_path / "report.json").write_text(json.dumps(content))
    result = run(tmp_path if folder else tmp_path / "report.json", "--topology", tmp_path / "layers.csv")
    assert result.exit_code == 0, result.output
    assert "RTL counters" in result.output and "MACs / lanes" in result.output and "SCALE-Sim 4x8" in result.output
    lines = {line.split()[0]: line.split() for line in result.output.splitlines() if line.strip()}
    for row in content["layers"]:
        cells = lines[row["name"]]
        assert figure(cells[3]) == pytest.approx(row["cycles"], rel=.006), seed
        assert figure(cells[4]) == pytest.approx(row["macs"] / TINY.total_lanes, rel=.006, abs=.51), seed
        # Twice what one run takes: two runs.
        m, n, k = np.prod(row["shape"][1:]), row["shape"][0], row["macs"] // 2 // np.prod(row["shape"])
        for cell, dataflow in zip(cells[5:], DATAFLOWS, strict=True):
            assert figure(cell) == pytest.approx(2 * scale_sim_cycles((m, n, k), (4, 8), dataflow), rel=.006), seed
    exported = list(csv.reader((tmp_path / "layers.csv").read_text().splitlines()))
    assert [row[0] for row in exported[1:]] == [row["name"] for row in content["layers"]]


def test_a_network_by_the_cycle_model():
    workload = two_layers(5)
    found = from_model(workload, TINY)
    quantised = workload.quantise(TINY)
    _, results = run_network(quantised.network, quantised.x)
    assert [(work.name, work.macs) for work in found.works] == [
        (name, result.macs) for name, result in results.items()]
    assert [work.product for work in found.works] == [(120, 40, 27), (30, 20, 40)]
    assert (found.source, found.unit) == ("cycle model", "layer") and all(work.cycles > 0 for work in found.works)


def test_an_onnx_file_by_the_cycle_model(tmp_path):
    graph = Graph(shape=(1, 3, 9, 11), seed=6)
    onnx.save(graph.proto([graph.node("Conv", "x", graph.random(8, 3, 3, 3))]), tmp_path / "net.onnx")
    np.savez(tmp_path / "calib.npz", x=np.random.default_rng(6).random((2, 3, 9, 11), np.float32))
    result = run(tmp_path / "net.onnx", "--calib", tmp_path / "calib.npz", "--config", "tiny")
    assert result.exit_code == 0, result.output
    assert "net: cycles on 32 multipliers (tiny)" in result.output and "cycle model" in result.output
    # One convolution: 8 channels of 7 x 9 pixels, 27 multiplications each.
    assert "8x7x9  13.6k" in " ".join(result.output.split("\n")) and 8 * 7 * 9 * 27 == 13_608


def blocks(tmp_path):
    """A network with a convolution that a pool drops rows of, a depthwise one, a grouped one, a sum, a mean, a fully
    connected layer; and its inputs."""
    graph = Graph((1, 3, 9, 11), seed=7)
    x = graph.node("MaxPool", graph.conv("x", 24, pads=[1, 1, 1, 1]), kernel_shape=[2, 2], strides=[2, 2])
    y = graph.conv(x, 24, groups=24, pads=[1, 1, 1, 1])
    x = graph.node("Add", x, graph.conv(y, 24, groups=3, pads=[1, 1, 1, 1]))
    x = graph.node("Flatten", graph.node("GlobalAveragePool", x))
    onnx.save(graph.proto([graph.node("MatMul", x, graph.random(24, 5))]), tmp_path / "net.onnx")
    np.save(tmp_path / "x.npy", np.random.default_rng(7).normal(size=(2, 3, 9, 11)).astype(np.float32))
    return tmp_path / "net.onnx", tmp_path / "x.npy"


#: Of each node of ``blocks``: output, MACs, and the product of matrices (M, N, K) of each group.
BLOCKS = [((24, 9, 11), 24 * 8 * 10 * 27, (99, 24, 27), 1), ((24, 4, 5), 24 * 20 * 9, (20, 1, 9), 24),
          ((24, 4, 5), 24 * 20 * 72, (20, 8, 72), 3), ((24, 4, 5), 0, None, 1), ((24, 1, 1), 0, None, 1),
          ((5, 1, 1), 120, (1, 5, 24), 1)]


def test_an_imported_network_is_compared_by_its_nodes(tmp_path):
    model, inputs = blocks(tmp_path)
    found = from_model(load_workload(str(model), calib=inputs), TINY)
    assert found.unit == "node" and [(work.shape, work.macs, work.product, work.groups)
                                     for work in found.works] == BLOCKS
    by_layers = load_workload(str(model), calib=inputs).quantise(TINY)
    assert len(by_layers.network.layers) > len(BLOCKS)
    counters = by_layers.model(by_layers.compile(TINY)).layers
    assert sum(work.cycles for work in found.works) == sum(counted["cycles"] for counted in counters)
    # The layers have zeros beyond the network's.
    assert sum(result.macs for result in by_layers.golden[1].values()) > sum(macs for _, macs, _, _ in BLOCKS)


def test_a_report_with_nodes_is_compared_by_them(tmp_path):
    content, rows = report(8), []
    named = zip(content["layers"], ["Conv node '/block/block.1/Conv'", "Add node 'sum'"], strict=False)
    for row, name in named:
        rows.append(row | {"name": name, "layers": [row["name"]], "macs_of_output": 0, "groups": 1, "network_macs": 0})
    last = [{key: sum(row[key] for row in content["layers"][2:]) for key in COUNTS}, *content["layers"][2:]]
    runs = {key: [sum(each) for each in zip(*(row[key] for row in last[1:]), strict=True)]
            for key in ("cycles_of_runs", "nonzero_macs_of_runs")}
    rows.append(last[1] | last[0] | runs | {"name": "Gemm node '7'", "layers": [row["name"] for row in last[1:]],
                                            "macs_of_output": 0, "groups": 1, "network_macs": 0})
    # A grouped convolution, and two nodes without multiplications, one of two layers.
    rows[0] |= {"shape": [6, 5, 4], "macs_of_output": 18, "groups": 3, "network_macs": 2 * 6 * 5 * 4 * 18}
    content["nodes"], content["total"]["network_macs"] = rows, rows[0]["network_macs"]
    (tmp_path / "report.json").write_text(json.dumps(content))
    result = run(tmp_path)
    assert result.exit_code == 0, result.output
    lines = {line.split()[0]: line.split() for line in result.output.splitlines() if line.strip()}
    # Two runs of three groups.
    cycles = [2 * 3 * scale_sim_cycles((20, 2, 18), (4, 8), dataflow) for dataflow in DATAFLOWS]
    dense = 2 * 2160 / TINY.total_lanes
    assert lines["/block/block.1/Conv"][1:3] == ["6x5x4", "4.32k"]
    assert [figure(cell) for cell in lines["/block/block.1/Conv"][4:]] == pytest.approx([dense, *cycles], rel=.006)
    assert lines["sum"][2] == "0" and lines["sum"][4:] == ["0"] * 4
    assert lines["Gemm"][1] == "7" and lines["Gemm"][3] == "0"
    ours = content["total"]["cycles"]
    assert [float(cell) for cell in lines["times"][2:]] == pytest.approx(
        [dense / other for other in (ours, dense, *cycles)], abs=.0051)
    assert "SCALE-Sim runs convolutions and fully connected layers only" in " ".join(result.output.split())
    assert "a depthwise or grouped convolution is" in " ".join(result.output.split())


def test_of_many_layers_those_with_most_cycles_have_a_line():
    works = [layer_work(f"conv{n}", (1, 1, 1), 9, 100 + n % 7) for n in range(MOST_LINES + 2)]
    table = build_table(Run("net", TINY, "RTL counters", "layer", works), {}, (4, 8))
    # Two of those with least cycles, the last ones, are left out.
    shown = [f"conv{n}" for n in range(MOST_LINES + 2) if n not in (28, 35)]
    assert [str(cell) for cell in table.columns[0].cells] == [*shown, "total of 42", "times dense"]
    assert notes(Run("net", TINY, "RTL counters", "layer", works)) == [
        "2 layers with fewer cycles are in the totals only"]


def test_what_multiplies_nothing_is_not_divided_by(tmp_path):
    content = report(9)
    for row in content["layers"]:
        row |= {"layers": [row["name"]], "macs_of_output": 0, "groups": 1, "network_macs": 0}
    content["nodes"], content["total"]["network_macs"] = content["layers"], 0
    (tmp_path / "report.json").write_text(json.dumps(content))
    result = run(tmp_path)
    assert result.exit_code == 0 and "total of 4" in result.output and "times dense" not in result.output
    assert "depthwise" not in result.output


def test_commands_are_imported_when_they_run():
    loaded = "import sys; from boards.cli import app; app(standalone_mode=False); print(*sys.modules)"
    for arguments, there, missing in ((["--help"], "boards.cli", ("torch", "matplotlib", "numpy")),
                                      (["report", "--help"], "boards.report.command", ("torch", "onnx"))):
        done = subprocess.run([sys.executable, "-c", loaded, *arguments], capture_output=True, text=True, check=True)
        modules = done.stdout.splitlines()[-1].split()
        assert there in modules and not set(missing) & set(modules), arguments
    for name in COMMANDS:
        result = CliRunner().invoke(app, [name, "--help"])
        assert result.exit_code == 0 and f" {name} [OPTIONS]" in result.output
        assert f"  {name} " in CliRunner().invoke(app, ["--help"]).output
    result = CliRunner().invoke(app, ["compar"])
    assert result.exit_code == 2 and "No such command 'compar'. Did you mean 'compare'" in result.output


def demand_lines(product, array, dataflow):
    """Cycles of all folds of a product, run by SCALE-Sim as a whole."""
    m, n, k = product
    config = scale_config()
    config.set_arr_dims(*array)
    config.force_valid()
    compute = {"ws": systolic_compute_ws, "os": systolic_compute_os, "is": systolic_compute_is}[dataflow]()
    compute.set_params(config_obj=config, ifmap_op_mat=np.zeros((m, k)), filter_op_mat=np.zeros((k, n)),
                       ofmap_op_mat=np.zeros((m, n)))
    compute.create_demand_matrices()
    return len(compute.ofmap_demand_matrix)


@pytest.mark.parametrize("dataflow", DATAFLOWS)
@pytest.mark.parametrize("seed", range(4))
def test_a_fold_times_the_folds_is_what_scale_sim_takes_for_all(dataflow, seed):
    rng = random.Random(seed)
    product, array = tuple(rng.randint(1, 60) for _ in range(3)), (rng.randint(2, 9), rng.randint(2, 9))
    assert scale_sim_cycles(product, array, dataflow) == demand_lines(product, array, dataflow), (product, array)


# SCALE-Sim leaves the file to the garbage collector.
@pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::pytest.PytestUnraisableExceptionWarning")
def test_scale_sim_reads_the_topology(tmp_path):
    works = [layer_work("a, b", (6, 5, 4), 6 * 5 * 4 * 27, 1), Work("sum", (6, 5, 4), 0, 9, 0),
             Work("grouped", (6, 5, 4), 6 * 5 * 4 * 18, 1, 18, groups=3), layer_work("c", (1, 1, 1), 7, 1)]
    path = tmp_path / "layers.csv"
    path.write_text(topology(works))
    read = topologies()
    read.load_arrays(str(path), mnk_inputs=True)
    # A line for each group, none without multiplications.
    assert [(read.get_layer_num_ofmap_px(number), read.get_layer_window_size(number))
            for number in range(read.get_num_layers())] == [(120, 27), *[(40, 18)] * 3, (1, 7)]


@pytest.mark.parametrize("multipliers", [1, 2, 7, 32, 96, 128, 384, 4096])
def test_arrays_are_as_square_as_can_be(multipliers):
    rows, columns = array_shape(multipliers)
    assert rows * columns == multipliers and rows <= columns
    assert not any(multipliers % other == 0 for other in range(rows + 1, int(multipliers ** .5) + 1))


def test_vgg_has_its_published_size():
    # 15.3 and 19.5 GMACs of convolutions: K. Simonyan, A. Zisserman, ICLR 2015, configurations D and E.
    assert [sum(macs for _, macs in vgg_layers(blocks)) for blocks in ((2, 2, 3, 3, 3), (2, 2, 4, 4, 4))] == [
        15_346_630_656, 19_508_428_800]


def test_published_figures_agree_with_each_other():
    for published in load_published():
        dense = sum(macs for _, macs in published.layers) / published.multipliers
        # Operations a second and times dense are given with three digits.
        assert dense / published.cycles == pytest.approx(published.times_dense, rel=.005)
        assert "table XI" in published.source


def vgg_run(blocks, extra):
    layers = [layer_work(f"conv{n}", shape, macs, macs // 500) for n, (shape, macs) in enumerate(vgg_layers(blocks))]
    return Run("net", CONFIGS["nullhop"], "RTL counters", "layer", [*layers[:3], *extra, *layers[3:]])


def test_published_figures_go_with_their_layers_only():
    side = layer_work("side", (1, 224, 224), 64 * 224 * 224, 9)
    run = vgg_run((2, 2, 3, 3, 3), [side])
    line = published_line(run)
    assert "NullHop, VGG-16, 13 convolutions" in line
    # 500 MACs a cycle on 128 lanes.
    assert "3.28 times dense" in line and "3.91 times dense" in line and "(derived)" in line
    assert matching(run.works, vgg_layers((2, 2, 3, 3, 3))) == [work for work in run.works if work is not side]
    # VGG-19 has the layers of VGG-16 too.
    assert "NullHop, VGG-19, 16 convolutions" in published_line(vgg_run((2, 2, 4, 4, 4), []))
    assert published_line(Run("net", TINY, "RTL counters", "layer", run.works[:-1])) is None


def test_without_scale_sim_its_columns_are_missing_and_a_sentence_says_so(monkeypatch, tmp_path):
    compare_accelerators._fold_cycles.cache_clear()
    for name in [name for name in sys.modules if name.startswith("scalesim")]:
        monkeypatch.setitem(sys.modules, name, None)
    (tmp_path / "report.json").write_text(json.dumps(report(2)))
    result = run(tmp_path / "report.json")
    assert result.exit_code == 0 and "MACs / lanes" in result.output
    assert "SCALE-Sim 4x8" not in result.output and "pip install 'zeroskip[compare]'" in result.output


@pytest.mark.parametrize(("content", "sentence"), [
    ("", "not a report"), ("{}", "not a report"), ('{"layers": []}', "not a report"), (None, "No such file")])
def test_what_is_no_report_is_refused_in_a_sentence(content, sentence, tmp_path):
    path = tmp_path / "report.json"
    if content is not None:
        path.write_text(content)
    result = run(path)
    assert result.exit_code == 2 and result.output.startswith("error: ") and sentence in result.output


def test_an_unknown_network_or_configuration_is_refused():
    for arguments in (("nothing",), ("digits", "--config", "nothing")):
        result = run(*arguments)
        assert result.exit_code == 2 and "nothing" in result.output


def test_the_program_for_the_intersect_array_is_that_of_make_sim():
    """Phases by a profile of the same input, kernels in the same order; the cycle model knows that order."""
    config, workload, job = CONFIGS["tiny_snapea"], load_workload("digits"), DigitsJob(1)
    network = workload.quantise(config)
    found, expected = network.compile(config), compile_float(job.network, job.calibration, config)
    assert found.segments == expected.segments and found.network is not network.network
    assert len({choice.tiling.phases for choice in found.choices.values()}) > 1
    assert network.model(found).cycles == model_program(expected, job.inputs[0])["cycles"]
