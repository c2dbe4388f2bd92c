"""The driver as an ARM program, in QEMU, against the RTL in another process; what else a board with Linux needs."""
import pytest

from sim_tests.bench.board_server import board_server

from .c_programs import FIRMWARE, assert_golden, make, need, run, write_digits

pytestmark = pytest.mark.cosim
ARM_COMPILER = "arm-linux-gnueabihf-gcc", "gcc-arm-linux-gnueabihf libc6-dev-armhf-cross"
BASE = 0x1800_0000


@pytest.fixture(scope="module")
def digits(tmp_path_factory):
    """Image and golden maps of the digit recogniser."""
    return write_digits(tmp_path_factory.mktemp("digits"))


@pytest.fixture(scope="module")
def commands():
    """The program of this machine and, with QEMU, that of ARM."""
    need("gcc", "gcc libc6-dev")
    need(*ARM_COMPILER)
    need("qemu-arm-static", "qemu-user-static")
    native, arm = make("zeroskip-socket", "zeroskip-socket-arm")
    return {"native": [native], "arm": ["qemu-arm-static", arm]}


@pytest.mark.parametrize("options", [[], ["--poll"]], ids=["interrupt", "poll"])
@pytest.mark.parametrize("machine", ["native", "arm"])
def test_digits_equal_golden(commands, digits, tmp_path, machine, options):
    image, golden = digits
    (tmp_path / "out").mkdir()
    with board_server(tmp_path, base=BASE) as server:
        command = [*commands[machine], "--socket", server.socket, "--memory", server.memory, "--base", hex(BASE),
                   *options, image, golden / "input.bin", tmp_path / "out"]
        run(*command)
        assert_golden(golden, tmp_path / "out")
        # The same server once more: nothing is left of the first run.
        for path in (tmp_path / "out").iterdir():
            path.unlink()
        run(*command)
        assert_golden(golden, tmp_path / "out")


def test_errors_end_with_a_sentence(commands, digits, tmp_path):
    image, golden = digits
    arm = commands["arm"]
    files = [image, golden / "input.bin", tmp_path]
    assert "--socket and --memory are needed" in run(*arm, *files, status=2).stderr
    with board_server(tmp_path, memory_bytes=1 << 16) as server:
        memory = ["--memory", server.memory]
        error = run(*arm, "--socket", server.socket, *memory, *files, status=2).stderr
        assert "has 65536 bytes; the network needs" in error
        error = run(*arm, "--socket", tmp_path / "none", *memory, *files, status=2).stderr
        assert "is the server running?" in error
        error = run(*arm, "--socket", server.socket, "--memory", tmp_path / "none", *files, status=2).stderr
        assert "No such file" in error
        error = run(*arm, "--socket", server.socket, *memory, "--base", "0x1g", *files, status=2).stderr
        assert "option --base 0x1g is not usable" in error
    with board_server(tmp_path, base=BASE) as server:
        # The wrong base: what the accelerator is told to read, the descriptors first, is not there.
        error = run(*arm, "--socket", server.socket, "--memory", server.memory, *files, status=1).stderr
        assert "error_address 0x10000000, layer 0" in error
        command = [*arm, "--socket", server.socket, "--memory", server.memory, "--base", "0x18000008"]
        assert "must start at a multiple of 4096" in run(*command, *files, status=1).stderr


def test_the_arm_program_for_linux_is_built(commands, tmp_path):
    program = make("zeroskip-linux-arm")[0]
    assert "--udmabuf" in run("qemu-arm-static", program, "--help").stdout
    assert "Machine:                           ARM" in run("readelf", "-h", program).stdout


def test_overlay_compiles(tmp_path):
    need("dtc", "device-tree-compiler")
    run("dtc", "-@", "-I", "dts", "-O", "dtb", "-o", tmp_path / "zeroskip.dtbo", FIRMWARE / "linux/zeroskip.dtso")
    text = run("dtc", "-I", "dtb", "-O", "dts", tmp_path / "zeroskip.dtbo").stdout
    assert "interrupts = <0x00 0x1d 0x04>" in text and "reg = <0x43c00000 0x1000>" in text
