"""The whole design as Verilog between the AXI models of cocotbext-axi, in Verilator."""
import pytest

from hw.configs import CONFIGS
from hw.generate import generate_verilog
from hw.top import Top
from sim_tests.bench.verilator import use_verilator

pytestmark = [pytest.mark.cosim, pytest.mark.slow]

#: Tests in sim_tests/cosim/top_scenarios.py.
SCENARIOS = 22
#: What the scenarios see. With everything visible, as is usual for cocotb, the C++ has four times the size.
VISIBLE = """`verilator_config
public_flat_rw -module "{name}" -var "clk"
public_flat_rw -module "{name}" -var "rst"
public_flat_rw -module "{name}" -var "irq"
public_flat_rw -module "{name}" -var "m_axi__*"
public_flat_rw -module "{name}" -var "s_axil__*"
"""
#: The design runs for 70,000 cycles: what counts is to be quick to compile.
FLAGS = ["-Wno-fatal", "-O3", "--assert", "--no-public-flat-rw", "--output-split", "0", "-CFLAGS", "-O0"]


def simulate(component, name, scenarios, folder, monkeypatch):
    """Run the cocotb tests of the module ``scenarios`` on ``component``; returns (tests, failures)."""
    from cocotb_tools.check_results import get_results
    from cocotb_tools.runner import VerilatorControlFile, get_runner

    use_verilator(monkeypatch)
    source = generate_verilog(component, folder / f"{name}.v", name)
    visible = folder / "visible.vlt"
    visible.write_text(VISIBLE.format(name=name))
    runner = get_runner("verilator")
    runner.build(sources=[VerilatorControlFile(visible), source], hdl_toplevel=name, build_dir=folder / "build",
                 timescale=("1ns", "1ps"), build_args=FLAGS, log_file=folder / "build.log")
    return get_results(runner.test(hdl_toplevel=name, test_module=scenarios, build_dir=folder / "build",
                                   test_dir=folder))


def test_top_against_cocotbext_axi(tmp_path, monkeypatch):
    results = simulate(Top(CONFIGS["tiny"]), "zeroskip_tiny", "sim_tests.cosim.top_scenarios", tmp_path, monkeypatch)
    assert results == (SCENARIOS, 0)
