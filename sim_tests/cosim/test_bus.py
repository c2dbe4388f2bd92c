"""The bus parts against the AXI models of cocotbext-axi, in Verilator."""
import pytest

from hw.generate import generate_verilog
from sim_tests.bench.verilator import use_verilator
from sim_tests.cosim.bus_top import BusTop

pytestmark = pytest.mark.cosim


def test_bus_against_cocotbext_axi(tmp_path, monkeypatch):
    from cocotb_tools.check_results import get_results
    from cocotb_tools.runner import get_runner

    use_verilator(monkeypatch)
    source = generate_verilog(BusTop(), tmp_path / "bus_top.v", "bus_top")
    runner = get_runner("verilator")
    runner.build(sources=[source], hdl_toplevel="bus_top", build_dir=tmp_path / "build", timescale=("1ns", "1ps"),
                 build_args=["-Wno-fatal", "-O3"], log_file=tmp_path / "build.log")
    results = runner.test(hdl_toplevel="bus_top", test_module="sim_tests.cosim.bus_scenarios",
                          build_dir=tmp_path / "build", test_dir=tmp_path)
    ran, failed = get_results(results)
    assert (ran, failed) == (3, 0)
