# amaranth: UnusedElaboratable=no
"""The design for the ECP5 in Verilator: its memory between models of cocotbext-axi, and all of it on a serial line."""
import pytest

from boards.ecp5.memory import BlockMemory
from boards.ecp5.top import MEMORY_BASE as BASE
from boards.ecp5.top import SerialTop
from hw.configs import CONFIGS
from hw.generate import generate_verilog
from sim_tests.bench.verilator import use_verilator

pytestmark = pytest.mark.cosim

#: Smaller and quicker than on the board.
MEMORY_SIZE = 1 << 15
DIVISOR, QUIET = 4, 500
#: The top's pins; with everything visible, as is usual for cocotb, the C++ is far larger.
PINS = """`verilator_config
public_flat_rw -module "{name}" -var "clk"
public_flat_rw -module "{name}" -var "rst"
public_flat_rw -module "{name}" -var "i_line"
public_flat_rw -module "{name}" -var "o_line"
public_flat_rw -module "{name}" -var "o_irq"
"""


def simulate(component, name, scenarios, folder, monkeypatch, options, sources=()):
    """Run the cocotb tests of the module ``scenarios`` on ``component``; returns (tests, failures)."""
    from cocotb_tools.check_results import get_results
    from cocotb_tools.runner import get_runner

    use_verilator(monkeypatch)
    runner = get_runner("verilator")
    runner.build(sources=[*sources, generate_verilog(component, folder / f"{name}.v", name)], hdl_toplevel=name,
                 build_dir=folder / "build", timescale=("1ns", "1ps"), build_args=["-Wno-fatal", "--assert", *options],
                 log_file=folder / "build.log")
    return get_results(runner.test(hdl_toplevel=name, test_module=f"sim_tests.cosim.{scenarios}",
                                   build_dir=folder / "build", test_dir=folder))


def test_memory_against_cocotbext_axi(tmp_path, monkeypatch):
    memory = BlockMemory(MEMORY_SIZE, BASE)
    results = simulate(memory, "block_memory", "ecp5_memory_scenarios", tmp_path, monkeypatch, ["-O3"])
    assert results == (4, 0)


@pytest.mark.slow
def test_driver_runs_the_design_over_its_serial_line(tmp_path, monkeypatch):
    from cocotb_tools.runner import VerilatorControlFile

    top = SerialTop(CONFIGS["tiny"], DIVISOR, memory_size=MEMORY_SIZE, quiet_bits=QUIET)
    pins = tmp_path / "pins.vlt"
    pins.write_text(PINS.format(name="serial_top"))
    options = ["-O3", "--no-public-flat-rw", "--output-split", "0", "-CFLAGS", "-O0"]
    results = simulate(top, "serial_top", "ecp5_top_scenarios", tmp_path, monkeypatch, options,
                       [VerilatorControlFile(pins)])
    assert results == (3, 0)


@pytest.mark.parametrize("size, base, sentence", [
    (1 << 11, 0, "at least 4096"), (5000, 0, "power of two"), (1 << 13, 1 << 12, "multiple of the size 0x2000"),
    (1 << 13, 1 << 32, "below 4 GiB")])
def test_memories_that_cannot_be_are_refused(size, base, sentence):
    with pytest.raises(ValueError, match=sentence):
        BlockMemory(size, base)
