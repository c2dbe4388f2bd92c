"""Run a compiled network on a simulated board."""
from dataclasses import dataclass

import numpy as np

from hw.registers import COUNTERS, ERRORS, LOG_BYTES, register

from .simulator import SimulationError, Simulator

_ERROR_NAMES = {code: (name, text) for name, (code, text) in ERRORS.items()}


class RunError(SimulationError):
    """The accelerator ended a run with an error: ``name`` as in ``hw.registers.ERRORS``, and ``address``."""

    def __init__(self, name, address, layer, text):
        super().__init__(f"layer {layer} ended with {name} at {address:#x}: {text}")
        self.name, self.address, self.layer = name, address, layer


@dataclass(frozen=True)
class RunResult:
    """``layers``: for each layer its counters by name; ``cycles``: of the run, as the accelerator counts them;
    ``clock_cycles``: as the simulator counts them, from the first register written; ``read_beats``, ``write_beats``: as
    the memory counts them; ``maps``: the requested maps by name."""
    layers: list[dict[str, int]]
    cycles: int
    clock_cycles: int
    read_beats: int
    write_beats: int
    maps: dict


def mask(name: str, field: str) -> int:
    """Mask of a field of a register."""
    return {entry.name: entry for entry in register(name).fields}[field].mask


def parse_log(data: bytes) -> list[dict[str, int]]:
    """The counters of each layer in a log of ``LOG_BYTES`` a layer."""
    records = np.frombuffer(data, dtype="<u8").reshape(-1, LOG_BYTES // 8)
    return [{name: int(record[word]) for word, (name, _) in enumerate(COUNTERS)} for record in records]


def load(simulator: Simulator, address: int, data):
    """Copy ``data`` to DRAM at ``address``; ``ValueError`` if it does not fit there."""
    data = np.frombuffer(data, dtype=np.uint8)
    offset = address - simulator.base
    if not 0 <= offset <= simulator.dram.size - data.size:
        raise ValueError(f"{data.size} bytes at {address:#x} do not fit the DRAM of {simulator.dram.size} bytes "
                         f"at {simulator.base:#x}")
    simulator.dram[offset:offset + data.size] = data


def start(simulator: Simulator, program):
    """Clear the status, describe the descriptor list to the accelerator and start it."""
    status = mask("status", "done") | mask("status", "error")
    simulator.write_register("status", status)
    simulator.write_register("interrupt_enable", status)
    simulator.write_register("descriptor_address", program.descriptor_address)
    simulator.write_register("layer_count", program.layer_count)
    simulator.write_register("log_address", program.log_address)
    simulator.write_register("control", mask("control", "start"))


def check_status(simulator: Simulator, reason: str):
    """Raise what ``reason`` of :meth:`Simulator.run` and the status register say, if it is not success."""
    status = simulator.read_register("status")
    if status & mask("status", "error"):
        code = simulator.read_register("error_code")
        name, text = _ERROR_NAMES.get(code, (f"code {code}", "There is no such error."))
        raise RunError(name, simulator.read_register("error_address"), simulator.read_register("layer"), text)
    if not status & mask("status", "done"):
        layer = simulator.read_register("layer")
        raise SimulationError(f"the run ended by {reason} in layer {layer} with status {status:#x}, "
                              f"cycle {simulator.cycles}")


def run_program(simulator: Simulator, program, inputs, *, maps=None, max_cycles=100_000_000,
                progress=None) -> RunResult:
    """Run ``program`` (``compiler.emit.Program``) on ``inputs``.

    Parameters
    ----------
    inputs : array
        What ``program.encode_input`` takes.
    maps : iterable of str or None
        Names of the maps to read back with ``program.read_map``; None: all that the program has.
    max_cycles : int
        A run that takes longer is an error.
    progress : callable
        Called with the cycles done so far, about once a second.
    """
    for address, data in (*program.segments, program.encode_input(inputs)):
        load(simulator, address, data)
    before = simulator.read_beats, simulator.write_beats
    begin = simulator.cycles
    start(simulator, program)
    reason = simulator.run(max_cycles, progress=progress)
    clock_cycles = simulator.cycles - begin
    check_status(simulator, reason)
    # The low word is read first: it latches the high one.
    low = simulator.read_register("cycles_low")
    cycles = low | simulator.read_register("cycles_high") << 32
    log = []
    if program.log_address:
        offset = program.log_address - simulator.base
        log = parse_log(simulator.dram[offset:offset + program.layer_count * LOG_BYTES].tobytes())
    region = simulator.dram[program.base - simulator.base:]
    names = program.maps if maps is None else maps
    return RunResult(log, cycles, clock_cycles, simulator.read_beats - before[0], simulator.write_beats - before[1],
                     {name: program.read_map(name, region) for name in names})
