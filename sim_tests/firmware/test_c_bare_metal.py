"""The bare-metal example: where things lie in memory, and its start-up in QEMU's Zynq, which has no accelerator."""
import re

import numpy as np
import pytest

from compiler.image import capability
from golden.formats import decode, plan_map
from hw.configs import CONFIGS
from hw.descriptor import FIELD_BY_NAME
from hw.registers import ERRORS, IDENTITY, VERSION, register

from .c_programs import make, need, run, run_until, write_digits

TINY = CONFIGS["tiny"]
START, REGION_BYTES = 0x0010_0000, 1 << 20
#: 128 MB of DDR; the last MB of it stands for the registers of the accelerator.
DDR_END, FAKE_REGISTERS = 0x0800_0000, 0x07F0_0000


@pytest.fixture(autouse=True)
def tools():
    need("arm-none-eabi-gcc", "gcc-arm-none-eabi")
    need("qemu-system-arm", "qemu-system-arm")


@pytest.fixture(scope="module")
def digits(tmp_path_factory):
    """Image and golden maps of the digit recogniser."""
    return write_digits(tmp_path_factory.mktemp("digits"))


def build(digits, folder, **variables):
    image, golden = digits
    return make("zeroskip.elf", build=folder, IMAGE=image, INPUT=golden / "input.bin",
                **{"REGION_BYTES": hex(REGION_BYTES), "DDR_END": hex(DDR_END)} | variables)[0]


def emulate(elf, until, *options):
    """The output on UART1 until a line that holds ``until``."""
    return run_until(until, "qemu-system-arm", "-M", "xilinx-zynq-a9", "-m", "128M", "-display", "none", "-monitor",
                     "none", "-serial", "null", "-serial", "stdio", *options, "-kernel", elf)


def symbols(elf):
    rows = (line.split() for line in run("arm-none-eabi-nm", elf).stdout.splitlines())
    return {row[-1]: int(row[0], 16) for row in rows if len(row) == 3}


def test_sections_and_symbols_lie_where_the_linker_script_says(digits, tmp_path):
    elf = build(digits, tmp_path)
    image, golden = digits
    at = symbols(elf)
    text = run("arm-none-eabi-readelf", "-hS", elf).stdout
    assert int(re.search(r"Entry point address: +(0x\w+)", text)[1], 16) == START == at["_start"]
    sections = {name: (int(address, 16), int(size, 16)) for name, address, size in
                re.findall(r"\] (\.\w+) +\w+ +(\w{8}) \w+ (\w+)", text) if int(address, 16)}
    names = [".text", ".rodata", ".image", ".data", ".bss", ".table", ".stacks", ".region"]
    assert [name for name in sections if name in names] == [name for name in names if name in sections]
    ordered = sorted(sections.values())
    assert ordered[0][0] == START
    for (address, size), (following, _) in zip(ordered, ordered[1:], strict=False):
        assert address + size <= following
    assert at["image_end"] - at["image_start"] == image.stat().st_size and at["image_start"] % 64 == 0
    assert at["input_end"] - at["input_start"] == (golden / "input.bin").stat().st_size
    assert at["translation_table"] % 16384 == 0 and sections[".table"] == (at["translation_table"], 16384)
    assert at["__region_end"] - at["__region_start"] == REGION_BYTES and at["__region_start"] % 4096 == 0
    assert at["__ddr_end"] == DDR_END > at["__scratch_start"] >= at["__region_end"]
    for stack in ("__stack", "__irq_stack", "__fault_stack"):
        assert at[stack] % 8 == 0 and sections[".stacks"][0] < at[stack] <= sum(sections[".stacks"])
    assert not run("arm-none-eabi-nm", "-u", elf).stdout


def test_too_little_ddr_is_refused(digits, tmp_path):
    with pytest.raises(AssertionError, match="ddr|DDR_END"):
        build(digits, tmp_path, DDR_END="0x00200000")


def test_image_and_input_must_be_named(tmp_path):
    with pytest.raises(AssertionError, match="name the network image and its input"):
        make("zeroskip.elf", build=tmp_path)


def test_start_up_interrupt_caches_and_faults():
    elf = make("test_zynq.elf", REGION_BYTES=hex(REGION_BYTES), DDR_END=hex(DDR_END))[0]
    lines = emulate(elf, "abort").split("\n")
    assert lines[:7] == ["start", "data and bss", "18446744073709551615 0x0123cdef", "no interrupt", "interrupt",
                         "no interrupt", "caches"]
    assert lines[7] == "" and lines[8].startswith("error: data abort at 0x001")
    assert "data address 0x00000010" in lines[8]


def test_no_accelerator_is_reported(digits, tmp_path):
    elf = build(digits, tmp_path)
    output = emulate(elf, "error")
    assert output.startswith("zeroskip\nimage digits\nerror: What answers at the register address is no zeroskip")


def test_driver_runs_up_to_the_error_of_registers_in_memory(digits, tmp_path):
    """The registers are words of DDR, which keep what is written: a cleared status reads done and error."""
    elf = build(digits, tmp_path, ACCELERATOR_BASE=hex(FAKE_REGISTERS))
    image, golden = digits
    values = {"identity": IDENTITY, "version": VERSION, "capability": capability(TINY),
              "configuration": TINY.configuration_id, "error_code": ERRORS["watchdog"][0], "error_address": 0x1234}
    options = [part for name, value in values.items() for part in
               ("-device", f"loader,addr={FAKE_REGISTERS + register(name).offset:#x},data={value:#x},data-len=4")]
    # DDR as a file: what the program has put into the region can be looked at.
    options += ["-object", f"memory-backend-file,id=ddr,size=128M,mem-path={tmp_path / 'ddr'},share=on",
                "-machine", "memory-backend=ddr"]
    output = emulate(elf, "error", *options)
    assert "No progress for `watchdog` cycles" in output and "error_address 0x00001234, layer 0" in output
    memory = np.memmap(tmp_path / "ddr", "<u4", "r")
    registers = memory[FAKE_REGISTERS // 4:]
    header = np.frombuffer(image.read_bytes()[:96], "<u4")
    region = symbols(elf)["__region_start"]
    assert registers[register("descriptor_address").offset // 4] == region + header[40 // 4]
    assert registers[register("layer_count").offset // 4] == header[44 // 4]
    descriptor = memory[(region + int(header[40 // 4])) // 4:]
    plan = plan_map((1, 28, 28), TINY, signed=True, dense=True)
    first = int(descriptor[FIELD_BY_NAME["in_address"].word])
    assert region <= first < region + REGION_BYTES
    stored = decode(memory[first // 4:(first + plan.size) // 4].tobytes(), TINY, plan)
    assert (stored.reshape(-1) == np.fromfile(golden / "input.bin", np.int8)).all()
