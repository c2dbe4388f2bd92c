"""The command: exit status, files, sentences. Golden stands in for the simulator; the RTL has tests of its own."""
import io
import json

import numpy as np
import onnx
import pytest
from PIL import Image
from rich.console import Console
from typer.testing import CliRunner

from boards.sim import main as command
from boards.sim.build import BuildError
from boards.sim.jobs import host_sentence
from boards.sim.run import RunResult
from boards.sim.simulator import SimulationError
from boards.sim.table import build_table, node_label
from compiler.images import package_file
from compiler.networks import digits, hed
from compiler.onnx import run_file
from golden.network import run_network
from hw.configs import CONFIGS
from hw.registers import COUNTERS
from sim_tests.unit.compiler.onnx_graphs import Graph


class GoldenBoard:
    """Answers with golden's maps; ``damage`` may change them."""

    damage = staticmethod(lambda maps: None)

    def __init__(self, config, *, memory_bytes, base):
        self.dram = None

    def __enter__(self):
        return self

    def __exit__(self, *_):
        pass


def run_golden(board, program, x, *, maps, max_cycles, progress):
    maps, _ = run_network(program.network, x)
    board.dram = {name: values.copy() for name, values in maps.items()}
    board.damage(board.dram)
    progress(1000)
    counters = [{name: 100 for name, _ in COUNTERS} for _ in program.layers]
    return RunResult(counters, 1000, 1000, 1, 1, {})


@pytest.fixture
def invoke(monkeypatch, tmp_path):
    """Runs the command with arguments; gives the exit status, what it printed, and the folder of its files."""
    monkeypatch.setattr(command, "Simulator", GoldenBoard)
    monkeypatch.setattr(command, "run_program", run_golden)
    monkeypatch.setattr(command.DigitsJob, "TEST", 30)
    monkeypatch.setattr(command.Program, "read_map", lambda program, name, dram: dram[name])
    # The board of one test must not be damaged in the next.

    def run(*arguments):
        result = CliRunner().invoke(command.app, [*arguments, "--output", str(tmp_path)])
        assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
        return result.exit_code, result.output, tmp_path

    return run


@pytest.fixture
def packages():
    for package, path, _ in (hed.WEIGHTS, digits.WEIGHTS, digits.DIGITS):
        try:
            package_file(package, path)
        except FileNotFoundError as error:
            pytest.skip(str(error))


def test_digits_write_report_and_picture(invoke, packages):
    status, output, folder = invoke("--net", "digits", "--config", "tiny", "--count", "2")
    assert status == 0 and "0 mismatches in" in output
    report = json.loads((folder / "digits/report.json").read_text())
    assert report["network"] == "digits" and report["config"] == "tiny"
    assert [row["name"] for row in report["layers"]] == ["conv1", "conv2", "conv3", "fc1", "fc2"]
    # two runs of 100 cycles a layer, 1000 cycles in all
    assert report["layers"][0]["cycles"] == 200 and report["run_cycles"] == 2000
    assert report["layers"][0]["macs"] == 2 * 28 * 28 * 32 * 9
    assert len(report["predicted"]) == len(report["expected"]) == 2 and report["accuracy"]["float"] > .9
    assert (folder / "digits/digits.png").stat().st_size > 1000


def test_hed_writes_report_and_picture(invoke, packages, tmp_path):
    photo = tmp_path / "my photo.jpg"
    rng = np.random.default_rng(5)
    Image.fromarray(rng.integers(0, 256, (60, 90, 3)).astype(np.uint8)).resize((45, 30)).save(photo)
    status, output, folder = invoke("--image", str(photo), "--size", "40x24", "--config", "small")
    assert status == 0 and "0 mismatches in" in output and "mean absolute difference" in output
    report = json.loads((folder / "hed/report.json").read_text())
    assert len(report["layers"]) == 18 and report["layers"][0]["shape"] == [64, 24, 40]
    assert report["trunk"]["cycles"] == 1300 and report["total"]["cycles"] == 1800
    assert 0 < report["edge_mean_absolute_difference"] < .2
    assert (folder / "hed/edges.png").stat().st_size > 1000


@pytest.fixture
def onnx_files(tmp_path):
    """A network with a Softmax at its end and an .npz with three inputs."""
    graph = Graph((1, 3, 8, 8), seed=3)
    x = graph.node("Relu", graph.node("Add", *(graph.conv("x", 40, pads=[1, 1, 1, 1]) for _ in range(2))))
    x = graph.node("Flatten", graph.node("GlobalAveragePool", x))
    x = graph.node("Softmax", graph.node("MatMul", x, graph.random(40, 4)), axis=1)
    onnx.save(graph.proto([x]), tmp_path / "net.onnx")
    np.savez(tmp_path / "inputs.npz", np.random.default_rng(0).normal(size=(3, 3, 8, 8)).astype(np.float32))
    return str(tmp_path / "net.onnx"), str(tmp_path / "inputs.npz")


def read_arrays(path):
    with np.load(path) as content:
        return dict(content)


def test_an_onnx_file_is_compared_with_onnx_runtime(invoke, onnx_files):
    model, inputs = onnx_files
    status, output, folder = invoke("--net", model, "--calib", inputs, "--config", "tiny")
    assert status == 0 and "0 mismatches in" in output and "input: the first calibration input" in output
    assert "host: Softmax node" in output and "the same largest value in 1 of 1" in output
    report = json.loads((folder / "net/report.json").read_text())
    # A sum is a layer for each block of 16 channels, a mean of 8x8 two steps of that, each one node.
    assert [len(node["layers"]) for node in report["nodes"]] == [1, 1, 3, 6, 1] and len(report["layers"]) == 12
    assert report["nodes"][2]["shape"] == [40, 8, 8] and report["nodes"][2]["cycles"] == 300
    assert report["inputs"] == 1 and report["calibration_inputs"] == 3
    result, = report["outputs"]
    expected = run_file(onnx.load(model), read_arrays(inputs)["arr_0"][0])[0]
    outputs = read_arrays(folder / "net/outputs.npz")
    np.testing.assert_array_equal(outputs["float0"], expected[None])
    difference = np.abs(outputs["accelerator0"] - expected).max()
    assert result["largest_difference"] == pytest.approx(difference) and 0 < difference < .05


def test_all_inputs_of_a_file_are_run(invoke, onnx_files):
    model, inputs = onnx_files
    status, output, folder = invoke("--net", model, "--calib", inputs, "--input", inputs, "--count", "1")
    report = json.loads((folder / "net/report.json").read_text())
    assert status == 0 and report["inputs"] == 3 and report["calibration_inputs"] == 1
    assert report["run_cycles"] == 3000 and f"input: {inputs}" in " ".join(output.split())


def test_pictures_that_are_not_normalised_are_named(invoke, onnx_files, tmp_path):
    model, inputs = onnx_files
    pixels = np.random.default_rng(2).integers(0, 256, (8, 8, 3)).astype(np.uint8)
    (tmp_path / "photos").mkdir()
    Image.fromarray(pixels).save(tmp_path / "photos" / "a.png")
    note = "pictures are taken as values 0 to 255"
    for arguments, expected in ((("--calib", str(tmp_path / "photos")), True),
                                (("--calib", inputs, "--input", str(tmp_path / "photos/a.png")), True),
                                (("--calib", str(tmp_path / "photos"), "--std", "255"), False),
                                (("--calib", inputs), False)):
        status, output, _ = invoke("--net", model, *arguments, "--config", "tiny")
        assert status == 0 and (note in output) == expected, arguments


def test_dense_is_counted_with_the_multiplications_of_the_network(invoke, onnx_files):
    model, inputs = onnx_files
    status, output, folder = invoke("--net", model, "--calib", inputs, "--config", "tiny")
    report = json.loads((folder / "net/report.json").read_text())
    # Two convolutions, a sum, a mean, a fully connected layer.
    counts = [40 * 64 * 27, 40 * 64 * 27, 0, 0, 160]
    assert status == 0 and [node["network_macs"] for node in report["nodes"]] == counts
    assert report["total"]["network_macs"] == sum(counts) < report["total"]["macs"]
    cycles = sum(counts) / CONFIGS["tiny"].total_lanes
    assert f"(the network's 138k MACs / lanes): {cycles / 1000:.2f}k cycles" in output
    assert f"{cycles / report['total']['cycles']:.2f} times as many" in output


def test_dense_need_not_compute_what_a_pool_drops(invoke, tmp_path):
    graph = Graph((1, 3, 7, 7), seed=4)
    pool = graph.node("MaxPool", graph.conv("x", 4, pads=[1, 1, 1, 1]), kernel_shape=[2, 2], strides=[2, 2])
    onnx.save(graph.proto([pool]), tmp_path / "net.onnx")
    np.save(tmp_path / "x.npy", np.random.default_rng(4).normal(size=(3, 7, 7)).astype(np.float32))
    status, output, folder = invoke("--net", str(tmp_path / "net.onnx"), "--calib", str(tmp_path / "x.npy"),
                                    "--config", "tiny")
    report = json.loads((folder / "net/report.json").read_text())
    assert status == 0 and "dense on as many lanes (MACs / lanes)" in output
    assert report["nodes"][0]["network_macs"] == report["total"]["macs"] == 6 * 6 * 4 * 27


def test_many_nodes_on_the_host_are_counted():
    nodes = [f"{name} node '{at}'" for at, name in enumerate(("Mul", "Slice", "Slice"))]
    assert host_sentence(nodes) == ", ".join(nodes)
    assert host_sentence([*nodes, "Slice node 'x'"]) == "4 nodes (3 Slice, 1 Mul)"


@pytest.mark.parametrize("text, label", [
    ("conv1_1", "conv1_1"), ("a_layer/with/a/long_name", "..th/a/long_name"), ("Conv node '185'", "Conv 185"),
    ("Conv node '/features/features.3/conv/conv.0/conv.0.0/Conv'", "..res.3/conv.0.0"),
    ("Add node '/layer1/layer1.0/Add_1'", "layer1.0"), ("Add node '/layer1.0/Add'", "/layer1.0/Add"),
    ("Conv node 'model/block_1_expand/Conv2D'", "..block_1_expand"),
    ("Conv node '/x/Convolution_of_x'", "..nvolution_of_x"),
    ("Conv node '//////////////////'", "..//////////////"), ("Gemm node 'it's'", "it's")])
def test_labels_of_nodes_keep_what_tells_them_apart(text, label):
    assert node_label(text, 16) == label


def test_run_model_gives_the_report(invoke, onnx_files):
    model, inputs = onnx_files
    inputs = list(read_arrays(inputs)["arr_0"])
    report = command.run_model(model, CONFIGS["tiny"], inputs, inputs[1:])
    assert report["total"]["mismatches"] == 0 and report["inputs"] == 2 and report["outputs"][0]["shape"] == [1, 4]


@pytest.mark.parametrize("arguments, sentence", [
    (("none.onnx",), "an ONNX file needs typical inputs for calibration: give --calib (CALIB=)"),
    (("none.onnx", "--calib", "x"), "there is no file none.onnx"),
    ((".", "--calib", "x"), ". is a folder: give the ONNX file in it"),
    (("", "--calib", "x"), "there is no network ''"),
    (("MODEL", "--calib", "x"), "there are no inputs at x"),
    (("MODEL", "--calib", "INPUTS", "--input", "x"), "there are no inputs at x"),
    (("MODEL", "--calib", "INPUTS", "--input", "README.md"), "README.md holds no inputs: give an .npz or .npy file"),
    (("MODEL", "--calib", "INPUTS", "--count", "0"), "--count must be 1 or more, not 0"),
    (("MODEL", "--calib", "INPUTS", "--shape", "3x9x9"), "shape 3x9x9 does not fit"),
    (("MODEL", "--calib", "INPUTS", "--size", "96"), "--size (SIZE=) belongs to --net hed"),
    (("MODEL", "--calib", "INPUTS", "--std", "x"), "--std must be a number"),
    (("hed", "--calib", "INPUTS", "--std", "1"), "--calib (CALIB=) and --std (STD=) belong to an ONNX file, not to"),
])
def test_bad_input_for_an_onnx_file_is_status_2_and_one_sentence(invoke, onnx_files, arguments, sentence):
    files = dict(zip(("MODEL", "INPUTS"), onnx_files, strict=True))
    status, output, folder = invoke("--net", *(files.get(word, word) for word in arguments))
    errors = [line for line in output.splitlines() if "error: " in line]
    assert status == 2 and len(errors) == 1 and sentence in errors[0], output
    assert not (folder / "net/report.json").exists()


def test_the_table_of_many_nodes_stays_short_and_shows_those_that_differ():
    row = {"macs": 1, "nonzero_macs": 1, "utilisation": .5, "density_in": .5, "density_out": .5, "compared": 9,
           "dram_read_bytes": 1, "dram_write_bytes": 1}
    nodes = [row | {"name": f"Conv node '/features/{at}/conv/Conv'", "shape": [1, 2, 3], "layers": ["x"],
                    "cycles": 1000 - at, "mismatches": int(at == 190)} for at in range(200)]
    report = {"network": "n", "config": "tiny", "layers": [], "nodes": nodes,
              "total": row | {"cycles": 5, "mismatches": 1}}
    console = Console(width=80, file=io.StringIO())
    console.print(build_table(report))
    assert node_label(nodes[7]["name"], 40) == "/features/7/conv/Conv"
    text = console.file.getvalue()
    assert text.count("/conv") == 40 and "..res/190/conv" in text and "features/7/conv" not in text
    assert "/38/conv" in text and "/39/conv" not in text and "160 nodes" in text
    assert max(map(len, text.splitlines())) <= 80


def test_one_wrong_value_is_status_1_and_named(invoke, packages, monkeypatch):
    def damage(maps):
        maps["conv2"][3, 2, 1] ^= 1
    monkeypatch.setattr(GoldenBoard, "damage", staticmethod(damage))
    status, output, folder = invoke("--net", "digits", "--config", "tiny", "--count", "1")
    assert status == 1 and "1 mismatches in" in output
    assert "conv2: 1 of" in output and "(3, 2, 1)" in output
    report = json.loads((folder / "digits/report.json").read_text())
    assert [row["mismatches"] for row in report["layers"]] == [0, 1, 0, 0, 0] and report["total"]["mismatches"] == 1


@pytest.mark.parametrize("arguments, sentence", [
    (("--config", "huge"), "there is no configuration 'huge'; choose one of tiny"),
    (("--size", "12"), "width and height must be 16 to 1024, not 12x12"),
    (("--size", "big"), "size must be a number or WIDTHxHEIGHT"),
    (("--image", "nowhere.jpg"), "there is no picture 'nowhere.jpg'"),
    (("--image", "Makefile"), "'Makefile' cannot be read as a picture"),
    (("--count", "3"), "--count belongs to --net digits"),
    (("--net", "digits", "--size", "96"), "belong to --net hed"),
    (("--net", "digits", "--count", "0"), "digits must be 1 to 100, not 0"),
])
def test_bad_input_is_status_2_and_one_sentence(invoke, arguments, sentence):
    status, output, _ = invoke(*arguments)
    assert status == 2 and output.count("\n") == 1 and output.startswith("error: ") and sentence in output, output


def test_unknown_network_is_status_2(invoke):
    status, output, _ = invoke("--net", "alexnet")
    assert status == 2 and "hed" in output and "digits" in output


@pytest.mark.parametrize("error, status", [(BuildError("there is no compiler"), 2), (SimulationError("no answer"), 1)])
def test_errors_of_tools_and_of_the_design_differ(invoke, packages, monkeypatch, error, status):
    def fail(*_, **__):
        raise error
    monkeypatch.setattr(command, "Simulator", fail)
    found, output, folder = invoke("--net", "digits", "--config", "tiny", "--count", "1")
    assert found == status and f"error: {error}" in output and "Traceback" not in output
    assert not (folder / "digits/report.json").exists()


def test_a_map_that_cannot_be_decoded_is_a_failure_of_the_design(invoke, packages, monkeypatch):
    def read_map(program, name, dram):
        raise ValueError("bits beyond the map")
    monkeypatch.setattr(command.Program, "read_map", read_map)
    status, output, _ = invoke("--net", "digits", "--config", "tiny", "--count", "1")
    assert status == 1 and "is not well-formed: bits beyond the map" in output


def test_help_teaches(invoke):
    status, output, _ = invoke("--help")
    assert status == 0
    for word in ("--net", "--config", "--image", "--size", "Exit status", "Examples", "nullhop", "320x240"):
        assert word in output, word
