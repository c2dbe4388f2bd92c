"""A simulated board: the whole accelerator, clock by clock, with DRAM behind its bus.

The design is compiled (``build.py``); clock loop and memory model run in C++ (``harness.cpp``, ``dram.h``).
"""
import ctypes

import numpy as np

from hw.registers import register

from .build import build_library, design_verilog, flat_verilog

#: Channels of ``stalls`` in the order of ``Dram::Channel``.
CHANNELS = ("ar", "r", "aw", "w", "b", "interleave")
#: What ``board_run`` returns.
LIMIT, INTERRUPT, FAULT = range(3)
#: What ``board_read`` and ``board_write`` return in place of an AXI response.
NO_ANSWER = -1


class SimulationError(RuntimeError):
    """The design broke the bus protocol, failed an assertion, did not answer, or ended a run with an error."""


class DramSettings(ctypes.Structure):
    """``struct DramSettings`` of ``dram.h``."""
    _fields_ = [("memory", ctypes.c_void_p), ("base", ctypes.c_uint64), ("size", ctypes.c_uint64),
                ("seed", ctypes.c_uint64), ("read_latency", ctypes.c_uint32), ("write_latency", ctypes.c_uint32),
                ("stall", ctypes.c_uint32 * len(CHANNELS))]


def dram_settings(memory, base, *, seed, read_latency, write_latency, stalls) -> DramSettings:
    """The settings for the buffer ``memory``, checked."""
    stalls = dict(stalls or {})
    if unknown := set(stalls) - set(CHANNELS):
        raise ValueError(f"stalls has no channel {', '.join(sorted(unknown))}; there are {', '.join(CHANNELS)}")
    for channel, probability in stalls.items():
        if not 0 <= probability < 1:
            raise ValueError(f"the stall probability of {channel} must be at least 0 and below 1, not {probability}")
    if base % 4096 or base + memory.size > 1 << 32:
        raise ValueError(f"memory of {memory.size} bytes at {base:#x} must start at a multiple of 4096 and end below "
                         "4 GiB")
    if read_latency < 1 or write_latency < 1:
        raise ValueError(f"latencies must be at least 1 cycle, not {read_latency} and {write_latency}")
    return DramSettings(memory.ctypes.data, base, memory.size, seed, read_latency, write_latency,
                        (ctypes.c_uint32 * len(CHANNELS))(*(int(stalls.get(name, 0) * 2**32) for name in CHANNELS)))


def _load(path):
    library = ctypes.CDLL(str(path))
    board, u32, u64, text = ctypes.c_void_p, ctypes.c_uint32, ctypes.c_uint64, ctypes.c_char_p
    for name, result, *arguments in (
            ("open", board, ctypes.POINTER(DramSettings), text), ("close", None, board), ("reset", None, board, u32),
            ("write", ctypes.c_int, board, u32, u32), ("read", ctypes.c_int, board, u32, ctypes.POINTER(u32)),
            ("run", ctypes.c_int, board, u64), ("error", text, board), ("cycles", u64, board),
            ("every_edge", None, board),
            ("read_beats", u64, board), ("write_beats", u64, board), ("inject_error", None, board, u64, u64),
            ("clear_errors", None, board), ("write_coverage", ctypes.c_int, board, text)):
        function = getattr(library, f"board_{name}")
        function.restype, function.argtypes = result, arguments
    return library


class Simulator:
    """An accelerator of ``config`` with ``memory_bytes`` of DRAM at ``base``, out of reset.

    Parameters
    ----------
    config : AcceleratorConfig
        What to build; a library is compiled on first use and kept.
    memory_bytes, base : int
        Size and address of the DRAM. It starts as noise from ``seed``: nothing may depend on what was not written.
    memory : numpy.ndarray or None
        Writable array (uint8) of ``memory_bytes`` to be the DRAM; None: an own one.
    seed : int
        Fixes the noise and every stall.
    read_latency, write_latency : int
        Cycles from a read address to its first beat, from the last beat of a write to its response.
    stalls : dict
        Probability of a stall in a cycle for the channels ``ar``, ``r``, ``aw``, ``w``, ``b``; ``interleave``: that the
        next beat read comes from a burst of another id.
    trace : path or None
        VCD file to write. Slow.
    coverage, assertions : bool
        Build in coverage counters (:meth:`write_coverage`), the assertions of the design (a failing one ends a run).
    component : wiring.Component or None
        Simulate this instead of ``hw.top.Top(config)``: same ports.

    Members
    -------
    dram : numpy.ndarray
        The memory, uint8. Valid until :meth:`close`; the design sees what is written here at once.
    """

    def __init__(self, config, *, memory_bytes, base=0x1000_0000, memory=None, seed=0, read_latency=30,
                 write_latency=30, stalls=None, trace=None, coverage=False, assertions=False, component=None):
        self.config, self.base, self.seed = config, base, seed
        self._board = None
        self.dram = np.empty(memory_bytes, np.uint8) if memory is None else memory
        self.dram[:] = np.frombuffer(np.random.default_rng(seed).bytes(memory_bytes), np.uint8)
        settings = dram_settings(self.dram, base, seed=seed, read_latency=read_latency, write_latency=write_latency,
                                 stalls=stalls)
        self._library = _load(self._build(component, trace=trace is not None, coverage=coverage, assertions=assertions))
        self._board = self._library.board_open(settings, None if trace is None else str(trace).encode())
        self.reset()

    def _build(self, component, *, assertions, **options):
        if component is not None:
            verilog, name = flat_verilog(component, "design", assertions=assertions), type(component).__name__.lower()
        else:
            # Only the accelerator needs all of the hardware; any component with the same ports can be simulated.
            from hw.top import Top
            verilog, name = design_verilog(self.config, Top, assertions=assertions), self.config.name
        return build_library(verilog, name, assertions=assertions, **options)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()

    @property
    def cycles(self) -> int:
        """Clock cycles since construction, resets not counted."""
        return self._library.board_cycles(self._opened())

    @property
    def read_beats(self) -> int:
        return self._library.board_read_beats(self._opened())

    @property
    def write_beats(self) -> int:
        return self._library.board_write_beats(self._opened())

    def _opened(self):
        if self._board is None:
            raise SimulationError("the simulator is closed")
        return self._board

    def reset(self):
        """Reset the design and forget what was on the bus. The DRAM, the counts and injected errors stay."""
        self._library.board_reset(self._opened(), 8)

    def every_edge(self):
        """From now on clock parts that rest (hw/README.md, ``o_active``) as well: slower, otherwise the same."""
        self._library.board_every_edge(self._opened())

    def close(self):
        """Free the design and finish the trace. May be called twice."""
        if self._board is not None:
            self._library.board_close(self._board)
            self._board = None

    def inject_error(self, low: int, high: int):
        """Addresses ``low`` to ``high - 1`` answer SLVERR from now on; reads give a pattern, writes are dropped."""
        self._library.board_inject_error(self._opened(), low, high)

    def clear_errors(self):
        """Take back every :meth:`inject_error`."""
        self._library.board_clear_errors(self._opened())

    def write_coverage(self, path):
        """Write the coverage counters to ``path``, for ``verilator_coverage``."""
        if not self._library.board_write_coverage(self._opened(), str(path).encode()):
            raise SimulationError("this simulator was built without coverage")

    def _check(self, action):
        if fault := self._library.board_error(self._board):
            raise SimulationError(f"{fault.decode()}; {action}, cycle {self.cycles}, seed {self.seed}")

    def _answered(self, code, name, action):
        if code:
            answer = "did not answer" if code == NO_ANSWER else f"answered with the AXI response {code}"
            raise SimulationError(f"register {name} {answer} ({action}, cycle {self.cycles})")

    def write_word(self, offset: int, value: int) -> int:
        """Write over AXI4-Lite at byte ``offset`` (below 4096); the AXI response, or ``NO_ANSWER``."""
        code = self._library.board_write(self._opened(), offset, value)
        self._check(f"write at {offset:#x}")
        return code

    def read_word(self, offset: int) -> tuple[int, int]:
        """Read over AXI4-Lite at byte ``offset`` (below 4096): the AXI response, or ``NO_ANSWER``, and the value."""
        value = ctypes.c_uint32()
        code = self._library.board_read(self._opened(), offset, value)
        self._check(f"read at {offset:#x}")
        return code, value.value

    def write_register(self, name: str, value: int):
        """Write a register over AXI4-Lite; takes a few cycles."""
        self._answered(self.write_word(register(name).offset, value), name, "write")

    def read_register(self, name: str) -> int:
        """Read a register over AXI4-Lite; takes a few cycles."""
        code, value = self.read_word(register(name).offset)
        self._answered(code, name, "read")
        return value

    def run(self, max_cycles: int, *, progress=None, chunk: int = 1_000_000) -> str:
        """Clock until the interrupt line is high (returns ``"interrupt"``) or for ``max_cycles`` (``"limit"``).

        ``progress(cycles done)`` is called after every ``chunk`` cycles; Ctrl-C works between chunks.
        """
        start = self.cycles
        while True:
            left = max_cycles - (self.cycles - start)
            reason = self._library.board_run(self._opened(), min(chunk, left))
            self._check("run")
            if progress is not None:
                progress(self.cycles - start)
            if reason == INTERRUPT:
                return "interrupt"
            if left <= chunk:
                return "limit"
