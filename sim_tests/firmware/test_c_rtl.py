"""The C driver against the RTL, in one process: maps equal golden, errors, recovery, bad input."""
import zlib

import numpy as np
import pytest

from compiler.emit import compile_network
from compiler.image import write_image
from golden.network import QuantisedNetwork, run_network
from hw.configs import CONFIGS
from sim_tests.golden_model.random_layers import random_layer, random_map, with_prediction, with_scales

from .c_programs import assert_golden, library, make, need, run, write_digits, write_network

pytestmark = pytest.mark.cosim


@pytest.fixture(scope="module", params=["tiny", "tiny_snapea"])
def config(request):
    """The accelerator: one of each array."""
    return CONFIGS[request.param]


@pytest.fixture(scope="module")
def digits(config, tmp_path_factory):
    """Image and golden maps of the digit recogniser."""
    return write_digits(tmp_path_factory.mktemp("digits"), config)


@pytest.fixture(scope="module")
def program(config):
    """The command line program with its library."""
    need("gcc", "gcc libc6-dev")
    return [*make("zeroskip-sim"), "--library", library(config)]


@pytest.mark.parametrize("options", [[], ["--poll"]], ids=["interrupt", "poll"])
def test_digits_equal_golden(config, program, digits, tmp_path, options):
    image, golden = digits
    output = run(*program, *options, image, golden / "input.bin", tmp_path).stdout
    assert_golden(golden, tmp_path)
    rows = {line.split()[0]: list(map(int, line.split()[1:])) for line in output.splitlines()[1:6]}
    assert list(rows) == ["conv1", "conv2", "conv3", "fc1", "fc2"]
    for name, counters in rows.items():
        # Activities of two groups add up to all cycles of both (golden/README.md); the log is the accelerator's own.
        assert len(counters) == 10 and counters[0] > 0 and counters[1] > 0, name
        assert sum(counters[2:8]) == config.groups * counters[0], name


def run_network_with_pool(program, config, folder, *, predicts):
    """Run a network with a compressed input and a map before pooling, each map against golden; returns what golden says
    of its layers. With ``predicts`` the first one has a prediction."""
    seed = 5
    rng = np.random.default_rng(seed)
    first = random_layer(rng, "a", "input", (21, 9, 13), width=8, kernel=(3, 3), out_channels=18, pad=(1, 1, 1, 1),
                         pool=2, keep_full=True)
    second = random_layer(rng, "b", "a", first.pooled_shape, width=8, kernel=(1, 1), out_channels=40, relu=False)
    first = with_prediction(rng, first) if predicts else first
    network = with_scales(QuantisedNetwork("two", 8, (21, 9, 13), False, (first, second), ("b",)), 1.0)
    x = random_map(rng, (21, 9, 13), width=8, signed=False, density=0.3)
    compiled = compile_network(network, config)
    assert (compiled.choices["a"].tiling.phases > 1) == config.intersect
    image, golden = write_network(compiled, x, folder)
    assert (golden / "a.full.bin").exists()
    (folder / "out").mkdir()
    run(*program, image, golden / "input.bin", folder / "out")
    assert_golden(golden, folder / "out")
    return run_network(network, x)[1]


def test_compressed_input_and_maps_before_pooling(config, program, tmp_path):
    run_network_with_pool(program, config, tmp_path, predicts=False)


def test_predictions_equal_golden(tmp_path):
    config = CONFIGS["tiny_snapea"]
    need("gcc", "gcc libc6-dev")
    program = [*make("zeroskip-sim"), "--library", library(config)]
    assert run_network_with_pool(program, config, tmp_path, predicts=True)["a"].missed > 0


@pytest.mark.parametrize("mode", ["interrupt", "poll"])
def test_errors_and_recovery(config, digits, mode):
    need("gcc", "gcc libc6-dev")
    image, golden = digits
    run(*make("test_rtl"), library(config), image, golden / "input.bin", golden, mode)


def damage(image, folder, offset, change):
    """A copy of an image with ``change`` to the byte at ``offset``, header CRC right."""
    data = bytearray(image.read_bytes())
    data[offset] ^= change
    data[92:96] = zlib.crc32(bytes(data[:92])).to_bytes(4, "little")
    (folder / "damaged.zsn").write_bytes(data)
    return folder / "damaged.zsn"


def test_an_image_for_another_accelerator_is_refused(program, digits, tmp_path):
    image, golden = digits
    other = damage(image, tmp_path, 24, 1)
    error = run(*program, other, golden / "input.bin", tmp_path, status=2).stderr
    assert "compiled for another configuration" in error
    other = damage(image, tmp_path, 20, 1)
    error = run(*program, other, golden / "input.bin", tmp_path, status=2).stderr
    assert "compiled for an accelerator with another array, lanes or value width" in error
    seed = 1
    layer = random_layer(np.random.default_rng(seed), "a", "input", (3, 5, 5), width=8, kernel=(1, 1), out_channels=4)
    network = with_scales(QuantisedNetwork("one", 8, (3, 5, 5), False, (layer,), ("a",)), 1.0)
    write_image(compile_network(network, CONFIGS["small"]), tmp_path / "small.zsn")
    run(*program, tmp_path / "small.zsn", golden / "input.bin", tmp_path, status=2)


def test_bad_input_ends_with_a_sentence_and_status_2(program, digits, tmp_path):
    image, golden = digits
    values = golden / "input.bin"
    sim, *library_option = program
    (tmp_path / "short").write_bytes(values.read_bytes()[:-1])
    payload = bytearray(image.read_bytes())
    payload[-1] ^= 1
    (tmp_path / "payload.zsn").write_bytes(payload)
    for arguments, sentence in [
        ([*library_option, image, values], "IMAGE, INPUT and FOLDER are needed"),
        ([*library_option, image, values, tmp_path, "more"], "more is one argument too many"),
        ([*library_option, "--what", "1", image, values, tmp_path], "option --what 1 is not usable"),
        ([*library_option, "--max-cycles", "-1", image, values, tmp_path], "option --max-cycles -1 is not usable"),
        ([*library_option, tmp_path / "none", values, tmp_path], "No such file"),
        ([*library_option, image, tmp_path / "none", tmp_path], "No such file"),
        ([*library_option, tmp_path, values, tmp_path], "cannot read"),
        ([*library_option, image, tmp_path / "short", tmp_path], "has 783 bytes; map input needs 784: 1 x 28 x 28"),
        ([*library_option, image, values, tmp_path / "none"], "cannot write"),
        ([*library_option, tmp_path / "payload.zsn", values, tmp_path], "byte 16: The image is damaged (CRC)"),
        ([*library_option, damage(image, tmp_path, 92, 0), values, tmp_path, "--library", ""], "is not usable"),
        ([image, values, tmp_path], "--library is needed"),
        (["--library", image, image, values, tmp_path], "cannot load"),
        (["--library", "libm.so.6", image, values, tmp_path], "has no function board_open"),
    ]:
        result = run(sim, *arguments, status=2)
        assert sentence in result.stderr and result.stderr.startswith("error: "), result.stderr


def test_a_run_that_takes_too_long_is_stopped(program, digits, tmp_path):
    image, golden = digits
    error = run(*program, "--max-cycles", "1000", image, golden / "input.bin", tmp_path, status=1).stderr
    assert "took longer than allowed" in error
