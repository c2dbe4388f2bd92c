"""The fuzzer's fast subset, the cases in which it found something, and the fuzzer itself on compilers that are broken.

A failure names the case; `make fuzz REPLAY=kind:seed:number` repeats it.
"""
import os
import time

import numpy as np
import onnx
import pytest

from compiler import calibration, cli
from compiler.image import image_bytes
from sim_tests.fuzz import cases, run
from sim_tests.fuzz.cases import Failure, Passed, check_compile, run_case
from sim_tests.unit.compiler.onnx_graphs import Graph

SEED = 0


@pytest.mark.parametrize("number", range(60))
def test_damaged_files(number, tmp_path):
    assert run_case("files", SEED, number, tmp_path).result in ("compiled", "refused")


@pytest.mark.parametrize("number", range(12))
def test_random_networks(number, tmp_path):
    assert run_case("graphs", SEED, number, tmp_path).result in ("8 bits", "16 bits", "refused")


@pytest.mark.cosim
@pytest.mark.parametrize("number", range(6))
def test_random_networks_in_the_rtl(number, tmp_path):
    assert run_case("rtl", SEED, number, tmp_path).result in ("equal", "refused")


#: Calibration archives with a wrong CRC and a wrong header, weights of half a number, an output twice.
FOUND = ["files:1:21", "files:1:48", "files:1:55", "files:1:76"]


@pytest.mark.parametrize("case", FOUND)
def test_what_was_found_stays_mended(case, tmp_path):
    kind, seed, number = case.split(":")
    assert run_case(kind, int(seed), int(number), tmp_path).result in ("compiled", "refused")


def test_a_seed_decides_everything(tmp_path):
    for number in (3, 7, 12):
        folders = [tmp_path / f"{number}.{which}" for which in range(2)]
        for folder in folders:
            folder.mkdir()
            run_case("files", SEED, number, folder)
        first, second = ({path.relative_to(folder): path.read_bytes() for path in folder.rglob("*") if path.is_file()}
                         for folder in folders)
        assert first == second and first


# The fuzzer itself.

@pytest.fixture
def files(tmp_path, monkeypatch):
    """Arguments of a network that compiles, in the working folder."""
    monkeypatch.chdir(tmp_path)
    graph = Graph((1, 3, 8, 8))
    onnx.save(graph.proto([graph.node("Relu", graph.conv("x", 4))]), "net.onnx")
    np.save("inputs.npy", np.random.default_rng(0).normal(size=(2, 3, 8, 8)).astype(np.float32))
    return ["net.onnx", "--calib", "inputs.npy", "--config", "tiny"]


def test_sound_files_compile_and_bad_ones_are_refused(files):
    assert check_compile(files) == Passed("compiled")
    assert check_compile(["none.onnx", *files[1:]]) == Passed("refused", "error: there is no file none.onnx")


def raise_type_error(*_):
    raise TypeError("no sentence")


def reshape(*_):
    return np.zeros(4).reshape(3)


def write_most(program, path):
    path.write_bytes(image_bytes(program)[:-9])


@pytest.mark.parametrize(("place", "name", "broken", "message"), [
    (cli, "read_onnx", raise_type_error, "no sentence"),
    (calibration, "_arrays", reshape, "a sentence that no check of ours has made"),
    (cli, "write_image", write_most, "in place of"),
])
def test_the_fuzzer_finds(files, monkeypatch, place, name, broken, message):
    monkeypatch.setattr(place, name, broken)
    with pytest.raises(Exception, match=message):
        check_compile(files)


def test_the_fuzzer_finds_networks_that_compute_something_else(tmp_path, monkeypatch):
    kept = cases.import_proto

    def import_wrong(*arguments, **options):
        imported = kept(*arguments, **options)
        layer = imported.program.network.layers[-1]
        layer.weights[:] = -layer.weights
        return imported

    monkeypatch.setattr(cases, "import_proto", import_wrong)
    with pytest.raises(Failure, match="dB with"):
        for number in range(4):
            run_case("graphs", SEED, number, tmp_path)


@pytest.mark.parametrize(("action", "message"), [
    (lambda *_: os._exit(3), "the process ended with status 3"),
    (lambda *_: time.sleep(60), "it hangs"),
    (raise_type_error, "no sentence"),
])
def test_crashes_and_hangs_are_failures_of_their_case(monkeypatch, action, message):
    monkeypatch.setattr(run, "run_case", action)
    monkeypatch.setattr(run, "WALL_SECONDS", 1)
    outcome = run.run_isolated(("files", 0, 0))
    assert outcome.result == "failed" and message in outcome.text
