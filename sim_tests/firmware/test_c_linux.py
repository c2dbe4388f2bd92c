"""The program for Linux on a board, on a folder that looks like its /dev and /sys: no accelerator is behind it."""
import numpy as np
import pytest

from compiler.image import capability
from golden.formats import decode, plan_map
from hw.configs import CONFIGS
from hw.descriptor import FIELD_BY_NAME
from hw.registers import ERRORS, IDENTITY, VERSION, register

from .c_programs import make, need, run, write_digits

TINY = CONFIGS["tiny"]
PHYSICAL, SIZE = 0x1F30_0000, 1 << 20
MANAGER = "sys/class/fpga_manager/fpga0"


@pytest.fixture(scope="module")
def digits(tmp_path_factory):
    """Image and golden maps of the digit recogniser."""
    return write_digits(tmp_path_factory.mktemp("digits"))


@pytest.fixture
def program():
    need("gcc", "gcc libc6-dev")
    return make("zeroskip-linux")[0]


def write_registers(path, **values):
    words = np.zeros(1024, "<u4")
    values = {"identity": IDENTITY, "version": VERSION, "capability": capability(TINY),
              "configuration": TINY.configuration_id} | values
    for name, value in values.items():
        words[register(name).offset // 4] = value
    words.tofile(path)


@pytest.fixture(params=["u-dma-buf", "udmabuf"])
def root(request, tmp_path):
    """A folder with /dev and /sys. The register file keeps what is written: a cleared status reads done and error."""
    for folder in ("dev", f"sys/class/{request.param}/udmabuf0", MANAGER, "lib/firmware"):
        (tmp_path / folder).mkdir(parents=True)
    write_registers(tmp_path / "dev/uio0", error_code=ERRORS["watchdog"][0], error_address=0x1234)
    (tmp_path / "dev/udmabuf0").write_bytes(bytes(SIZE))
    attributes = tmp_path / f"sys/class/{request.param}/udmabuf0"
    for name, text in {"phys_addr": f"{PHYSICAL:#x}\n", "size": f"{SIZE}\n", "sync_offset": "", "sync_size": "",
                       "sync_direction": "9", "sync_for_cpu": "", "sync_for_device": ""}.items():
        (attributes / name).write_text(text)
    for name, text in {"flags": "", "firmware": "", "state": "operating\n"}.items():
        (tmp_path / MANAGER / name).write_text(text)
    (tmp_path / "out").mkdir()
    return tmp_path


def attribute(root, name):
    return next(root.glob(f"sys/class/*/udmabuf0/{name}")).read_text()


@pytest.mark.parametrize("by_uio", [True, False], ids=["uio", "mem"])
def test_registers_and_memory(program, digits, root, by_uio):
    image, golden = digits
    options = []
    if not by_uio:
        # A file of zeros, with the registers at an address that 32 bits can hold: sparse.
        with open(root / "dev/mem", "wb") as file:
            file.seek(0x43C0_0000)
            file.write((root / "dev/uio0").read_bytes())
        options = ["--mem", "0x43c00000"]
    error = run(program, "--root", root, *options, image, golden / "input.bin", root / "out", status=1).stderr
    assert "No progress for `watchdog` cycles" in error
    assert f"error_address 0x00001234, layer 0, DMA region at {PHYSICAL:#010x}" in error
    with open(root / ("dev/uio0" if by_uio else "dev/mem"), "rb") as file:
        file.seek(0 if by_uio else 0x43C0_0000)
        words = np.frombuffer(file.read(4096), "<u4")
    header = np.frombuffer(image.read_bytes()[:96], "<u4")
    assert words[register("layer_count").offset // 4] == header[44 // 4]
    assert words[register("descriptor_address").offset // 4] == PHYSICAL + header[40 // 4]
    assert words[register("interrupt_enable").offset // 4] == (6 if by_uio else 0)
    # The last range that was synchronised is the input map; direction: both ways.
    assert attribute(root, "sync_direction").startswith("0")
    assert attribute(root, "sync_for_device") == "1" and attribute(root, "sync_for_cpu") == ""
    memory = np.fromfile(root / "dev/udmabuf0", "<u4")
    in_address = int(memory[header[40 // 4] // 4 + FIELD_BY_NAME["in_address"].word])
    assert int(attribute(root, "sync_offset")) == in_address - PHYSICAL
    assert_input(memory, in_address - PHYSICAL, golden)


def assert_input(memory, offset, golden):
    """The dense input map at ``offset`` holds the values of golden's input."""
    plan = plan_map((1, 28, 28), TINY, signed=True, dense=True)
    values = decode(memory.view(np.uint8)[offset:offset + plan.size].tobytes(), TINY, plan)
    assert (values.reshape(-1) == np.fromfile(golden / "input.bin", np.int8)).all()


def test_bitstream_goes_through_the_fpga_manager(program, digits, root):
    image, golden = digits
    (root / "design.bin").write_bytes(b"bits" * 5000)
    command = [program, "--root", root, "--bitstream", root / "design.bin", image, golden / "input.bin", root / "out"]
    assert "watchdog" in run(*command, status=1).stderr
    assert (root / MANAGER / "firmware").read_text() == "design.bin"
    assert (root / MANAGER / "flags").read_text() == "0"
    assert (root / "lib/firmware/design.bin").read_bytes() == b"bits" * 5000
    # A file that is there already stays as it is.
    command[4] = root / "lib/firmware/design.bin"
    run(*command, status=1)
    assert (root / "lib/firmware/design.bin").read_bytes() == b"bits" * 5000
    (root / MANAGER / "state").write_text("write error\n")
    assert 'in state "write error"' in run(*command, status=2).stderr
    (root / MANAGER / "firmware").unlink()
    assert "device tree overlay" in run(*command, status=2).stderr


def test_what_is_missing_is_named(program, digits, root):
    image, golden = digits
    command = [program, "--root", root, image, golden / "input.bin", root / "out"]
    next(root.glob("sys/class/*/udmabuf0/size")).write_text("4096\n")
    assert "udmabuf0 has 4096 bytes at 0x1f300000; the network needs" in run(*command, status=2).stderr
    next(root.glob("sys/class/*/udmabuf0/size")).write_text("many\n")
    assert "which is no number" in run(*command, status=2).stderr
    next(root.glob("sys/class/*/udmabuf0")).rename(root / "elsewhere")
    assert "there is no u-dma-buf device udmabuf0" in run(*command, status=2).stderr
    write_registers(root / "dev/uio0", identity=0)
    (root / "elsewhere").rename(root / "sys/class/u-dma-buf/udmabuf0" if (root / "sys/class/u-dma-buf").exists()
                                else root / "sys/class/udmabuf/udmabuf0")
    (root / "elsewhere").mkdir()
    next(root.glob("sys/class/*/udmabuf0/size")).write_text(f"{SIZE}\n")
    assert "no zeroskip accelerator" in run(*command, status=1).stderr
    (root / "dev/uio0").unlink()
    assert "cannot map the registers" in run(*command, status=2).stderr
