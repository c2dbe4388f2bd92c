"""The command: exit status, files, sentences. Golden stands in for the simulator; the RTL has tests of its own."""
import json

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

from boards.sim import main as command
from boards.sim.build import BuildError
from boards.sim.run import RunResult
from boards.sim.simulator import SimulationError
from compiler.images import package_file
from compiler.networks import digits, hed
from golden.network import run_network
from hw.registers import COUNTERS


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
