"""Run inside the simulator by test_top.py: the whole design between the AXI models of cocotbext-axi.

Memory, register access and bus checks are not those of the simulated board: what passes both is right for two readers
of the AXI specification. Every test begins with a reset; within a test there is none, unless it says so.
"""
import functools
import itertools
import logging

import cocotb
import numpy as np
from cocotb.clock import Clock
from cocotb.triggers import ClockCycles, RisingEdge, SimTimeoutError, with_timeout
from cocotbext.axi import AxiBus, AxiLiteBus, AxiLiteMaster, AxiSlave

from boards.sim.run import mask, parse_log
from compiler.emit import compile_network
from golden.cycles import tiled_nonzero_macs
from golden.network import QuantisedNetwork, run_network
from hw.configs import CONFIGS
from hw.descriptor import DESCRIPTOR_BYTES, FIELD_BY_NAME
from hw.registers import ERRORS, IDENTITY, LOG_BYTES, RESET_VALUES, VERSION, register
from sim_tests.cosim.bus_scenarios import stalls
from sim_tests.golden_model.random_layers import random_layer, random_map

CONFIG = CONFIGS["tiny"]
PERIOD = 10
#: Cycles without progress before the watchdog ends a run, and the tolerance for what still moves inside.
WATCHDOG, SLACK = 2000, 300
DONE, ERROR = mask("status", "done"), mask("status", "error")
#: Pauses in a cycle, by channel; the AXI4-Lite channels pause like "ar".
PAUSES = {"none": {}, "all": dict.fromkeys(("ar", "r", "aw", "w", "b"), 0.3), "reads": {"ar": 0.8, "r": 0.5},
          "writes": {"aw": 0.9, "w": 0.7, "b": 0.9}}


# ---- what runs -------------------------------------------------------------------------------------------------

@functools.cache
def compiled(*, long):
    """A network and its program. ``long``: 3x3 in several chunks with both outputs of a pool, 1x1 without ReLU, 3x3
    over signed values; else a dense input and two layers, for what is run often."""
    rng = np.random.default_rng(5)
    shape, width = ((20, 5, 6) if long else (3, 5, 6)), CONFIG.value_width
    first = random_layer(rng, "first", "input", shape, width=width, kernel=(3, 3), out_channels=18 if long else 16,
                         pad=(1, 1, 1, 1), pool=2, keep_full=long)
    point = random_layer(rng, "point", "first", first.pooled_shape, width=width, kernel=(1, 1), out_channels=5,
                         relu=False)
    layers = [first, point]
    if long:
        layers.append(random_layer(rng, "last", "point", point.full_shape, width=width, kernel=(3, 3),
                                   out_channels=17, pad=(1, 1, 1, 1), signed_in=True))
    network = QuantisedNetwork("chain", width, shape, False, tuple(layers), (layers[-1].name,))
    program = compile_network(network, CONFIG)
    tiling = program.choices["first"].tiling
    assert (tiling.chunk_rows < 3 or tiling.chunk_channels < shape[0]) == long
    return network, program


# ---- the board -------------------------------------------------------------------------------------------------

class Dram:
    """Memory from ``base`` on. A beat that lies outside or in ``faults[kind]`` is answered SLVERR."""
    def __init__(self, base, size):
        self.base, self.bytes = base, np.zeros(size, np.uint8)
        self.faults = {"read": set(), "write": set()}

    def span(self, address, length):
        first = address - self.base
        if not 0 <= first <= self.bytes.size - length:
            raise ValueError(f"{address:#x} is not in memory")
        return slice(first, first + length)

    def check(self, kind, address):
        if address & ~7 in self.faults[kind]:
            raise ValueError(f"fault at {address:#x}")

    async def read(self, address, length):
        self.check("read", address)
        return self.bytes[self.span(address, length)].tobytes()

    async def write(self, address, data):
        self.check("write", address)
        self.bytes[self.span(address, len(data))] = np.frombuffer(data, np.uint8)


class Board:
    """The design with memory and a register master, and a watch on its bus.

    ``bursts``: of channel "ar" and "aw" as (address, beats); ``answers``: of "r" (last beats) and "b"; ``beats``: of
    "r" and "w"; ``moved``: cycle of the last transfer. ``dead``: valid may fall, for the bus has been given up.
    """
    #: Payload of the channels that the design drives.
    PAYLOAD = {"ar": ("addr", "len", "id", "size", "burst"), "aw": ("addr", "len", "id", "size", "burst"),
               "w": ("data", "strb", "last")}

    def __init__(self, dut, *, seed, pauses="none", long=False):
        self.dut, self.seed, self.rng = dut, seed, np.random.default_rng(seed)
        self.network, self.program = compiled(long=long)
        self.dram = Dram(self.program.base, self.program.memory_bytes)
        self.pauses = PAUSES[pauses]
        self.label = f"seed {seed}, pauses {pauses}"
        self.cycle, self.moved, self.dead = 0, 0, False
        self.forget()

    def forget(self):
        """Start counting the bus again."""
        self.bursts, self.answers, self.beats = {"ar": [], "aw": []}, {"r": 0, "b": 0}, {"r": 0, "w": 0}

    async def start(self):
        """Clock, reset, and the models with their pauses."""
        dut = self.dut
        cocotb.start_soon(Clock(dut.clk, PERIOD, "ns").start())
        logging.getLogger(f"cocotb.{dut._name}").setLevel(logging.ERROR)
        dut.rst.value = 1
        self.master = AxiLiteMaster(AxiLiteBus.from_prefix(dut, "s_axil", bus_separator="__"), dut.clk, dut.rst)
        slave = AxiSlave(AxiBus.from_prefix(dut, "m_axi", bus_separator="__"), dut.clk, dut.rst, target=self.dram)
        write, read = self.master.write_if, self.master.read_if
        lite = [write.aw_channel, write.w_channel, write.b_channel, read.ar_channel, read.r_channel]
        self.channels = {"aw": slave.write_if.aw_channel, "w": slave.write_if.w_channel, "b": slave.write_if.b_channel,
                         "ar": slave.read_if.ar_channel, "r": slave.read_if.r_channel}
        for channel in lite:
            self.pause_at_random(channel, self.pauses.get("ar", 0))
        self.resume()
        await self.reset()
        cocotb.start_soon(self.watch())
        return self

    async def reset(self):
        self.dut.rst.value = 1
        await ClockCycles(self.dut.clk, 4)
        self.dut.rst.value = 0
        await RisingEdge(self.dut.clk)

    def pause_at_random(self, channel, likely):
        generator = np.random.default_rng(self.rng.integers(1 << 32))
        channel.set_pause_generator(stalls(generator, likely) if likely else None)
        channel.pause = False

    def resume(self):
        """The memory answers, with its pauses."""
        for name, channel in self.channels.items():
            self.pause_at_random(channel, self.pauses.get(name, 0))

    def hang(self):
        """The memory takes and answers nothing any more."""
        for channel in self.channels.values():
            channel.set_pause_generator(None)
            channel.pause = True

    def pin(self, name):
        return getattr(self.dut, f"m_axi__{name}")

    async def watch(self):
        """Count transfers; what is valid stays valid, and as it is, until it is taken."""
        driven = {name: (self.pin(f"{name}valid"), self.pin(f"{name}ready"), [self.pin(name[0] + entry if name == "w"
                  else name + entry) for entry in payload]) for name, payload in self.PAYLOAD.items()}
        taken = {name: [self.pin(name + entry) for entry in ("valid", "ready")] for name in ("r", "b")}
        last, stalled = self.pin("rlast"), {}
        edge = RisingEdge(self.dut.clk)
        while True:
            await edge
            self.cycle += 1
            if self.dut.rst.value or self.dead:
                stalled.clear()
            for name, (valid, ready, payload) in driven.items():
                before = stalled.pop(name, None)
                if not valid.value:
                    assert before is None, f"{name}valid fell before the transfer in cycle {self.cycle}, {self.label}"
                    continue
                now = [int(pin.value) for pin in payload]
                assert before in (None, now), f"{name} changed while stalled in cycle {self.cycle}, {self.label}"
                if not ready.value:
                    stalled[name] = now
                    continue
                self.moved = self.cycle
                if name == "w":
                    self.beats["w"] += 1
                else:
                    self.bursts[name].append((now[0], now[1] + 1))
            for name, (valid, ready) in taken.items():
                if valid.value and ready.value:
                    self.moved = self.cycle
                    self.answers[name] += name == "b" or bool(last.value)
                    if name == "r":
                        self.beats["r"] += 1

    # ---- registers ---------------------------------------------------------------------------------------------

    async def read(self, name):
        return await self.master.read_dword(register(name).offset)

    async def write(self, name, value):
        await self.master.write_dword(register(name).offset, value)

    # ---- a run -------------------------------------------------------------------------------------------------

    def load(self):
        """Anything in memory, then the program and a new input."""
        network = self.network
        self.x = random_map(self.rng, network.input_shape, width=CONFIG.value_width, signed=False, density=0.5)
        self.dram.bytes[:] = self.rng.integers(0, 256, self.dram.bytes.size)
        self.dram.faults = {"read": set(), "write": set()}
        self.image = [*self.program.segments, self.program.encode_input(self.x)]
        for address, data in self.image:
            self.poke(address, data)

    def poke(self, address, data):
        self.dram.bytes[self.dram.span(address, len(data))] = np.frombuffer(data, np.uint8)

    async def begin(self):
        """Start what is loaded."""
        await self.write("status", DONE | ERROR)
        assert not self.dut.irq.value, f"the interrupt stays up with a clear status, {self.label}"
        await self.write("interrupt_enable", DONE | ERROR)
        await self.write("descriptor_address", self.program.descriptor_address)
        await self.write("layer_count", self.program.layer_count)
        await self.write("log_address", self.program.log_address)
        self.forget()
        await self.write("control", mask("control", "start"))

    async def interrupt(self, *, deadline=40_000):
        """Wait for it."""
        if not self.dut.irq.value:
            try:
                await with_timeout(RisingEdge(self.dut.irq), deadline * PERIOD, "ns")
            except SimTimeoutError:
                raise AssertionError(f"no interrupt in {deadline} cycles, {self.label}") from None
            await RisingEdge(self.dut.clk)

    async def quiet(self, *, cycles=200):
        """Every burst has been answered, and nothing more comes."""
        self.check_answered()
        for _ in range(cycles):
            assert not (self.pin("arvalid").value or self.pin("awvalid").value or self.pin("wvalid").value), (
                f"the bus is not quiet in cycle {self.cycle}, {self.label}")
            await RisingEdge(self.dut.clk)

    def check_answered(self):
        bursts = {"r": len(self.bursts["ar"]), "b": len(self.bursts["aw"])}
        assert self.answers == bursts, f"bursts {bursts} and answers {self.answers} differ, {self.label}"
        for name, kind in (("r", "ar"), ("w", "aw")):
            assert self.beats[name] == sum(beats for _, beats in self.bursts[kind]), f"beats of {kind}, {self.label}"

    async def good_run(self):
        """Load, run, and compare all that is written: maps, log and registers."""
        self.load()
        await self.begin()
        await self.interrupt()
        await self.check_good()

    async def check_good(self):
        assert await self.read("status") == DONE, self.label
        assert (await self.read("error_code"), await self.read("layer")) == (0, self.program.layer_count), self.label
        self.check_answered()
        expected, results = run_network(self.network, self.x)
        self.check_maps(expected)
        for address, data in self.image:
            assert self.dram.bytes[self.dram.span(address, len(data))].tobytes() == data, (
                f"the program at {address:#x} has been overwritten, {self.label}")
        await self.check_log(results)

    def check_maps(self, expected):
        for name, values in expected.items():
            wrong = np.argwhere(self.program.read_map(name, self.dram.bytes) != values)
            assert not len(wrong), f"{name} differs at {len(wrong)} of {values.size}, first {wrong[0]}, {self.label}"

    async def check_log(self, results):
        log = self.dram.bytes[self.dram.span(self.program.log_address, LOG_BYTES * self.program.layer_count)]
        layers = parse_log(log.tobytes())
        for name, layer in zip(self.program.layers, layers, strict=True):
            causes = ("busy", "stall_output", "stall_tile", "stall_weights", "stall_find", "idle")
            total, cycles = sum(layer[cause] for cause in causes), layer["cycles"]
            assert total == cycles * CONFIG.groups, f"{name}: {layer}, {self.label}"
            choice = self.program.choices[name]
            assert layer["lane_cycles"] == tiled_nonzero_macs(choice.geometry, choice.tiling, results[name]), name
        written = sum(layer["write_beats"] + LOG_BYTES // 8 for layer in layers)
        assert written == self.beats["w"], f"{written} beats in the log, {self.beats['w']} on the bus, {self.label}"
        # The first descriptor is read before the first layer begins.
        read = sum(layer["read_beats"] for layer in layers)
        assert 0 < read <= self.beats["r"] - DESCRIPTOR_BYTES // 8, f"{read} of {self.beats['r']} beats, {self.label}"
        cycles = await self.read("cycles_low") | await self.read("cycles_high") << 32
        assert sum(layer["cycles"] for layer in layers) < cycles < self.cycle

    async def check_error(self, name):
        """The run has ended with error ``name``; returns its address."""
        code, status = await self.read("error_code"), await self.read("status")
        assert (code, status) == (ERRORS[name][0], ERROR), f"code {code}, status {status:#x}, not {name}; {self.label}"
        return await self.read("error_address")


# ---- registers -------------------------------------------------------------------------------------------------

@cocotb.test()
async def registers_say_what_was_generated(dut):
    board = await Board(dut, seed=1).start()
    assert await board.read("identity") == IDENTITY
    assert await board.read("version") == VERSION
    assert await board.read("configuration") == CONFIG.configuration_id
    capability = await board.read("capability")
    found = {field.name: (capability & field.mask) >> field.low for field in register("capability").fields}
    assert found == {"groups": CONFIG.groups, "lanes": CONFIG.lanes, "value_width": CONFIG.value_width,
                     "block": CONFIG.block, "array": 0}
    assert await board.read("watchdog") == RESET_VALUES["watchdog"]
    for name in ("status", "error_code", "error_address", "layer", "cycles_low", "interrupt_enable"):
        assert await board.read(name) == 0, name


@cocotb.test()
async def interrupt_follows_status_and_enable(dut):
    """A run of no layers ends at once; the interrupt is a level."""
    board = await Board(dut, seed=2).start()
    await board.write("control", mask("control", "start"))
    assert await board.read("status") == DONE
    for enable, level in ((0, 0), (DONE, 1), (ERROR, 0), (DONE | ERROR, 1)):
        await board.write("interrupt_enable", enable)
        assert dut.irq.value == level, enable
    await board.write("status", ERROR)
    assert await board.read("status") == DONE, "writing 1 to one bit clears another"
    await board.write("status", DONE)
    assert (await board.read("status"), int(dut.irq.value)) == (0, 0)
    assert not any(board.bursts.values())


# ---- good runs -------------------------------------------------------------------------------------------------

@cocotb.test()
@cocotb.parametrize(pauses=list(PAUSES))
async def network_equals_golden(dut, pauses):
    board = await Board(dut, seed=3, pauses=pauses, long=True).start()
    await board.good_run()
    assert dut.irq.value
    await board.write("status", DONE)
    assert (await board.read("status"), int(dut.irq.value)) == (0, 0), "done is not cleared by writing 1"
    await board.quiet()


# ---- errors of the bus -----------------------------------------------------------------------------------------

async def bus_error(board, kind, address):
    """A beat at ``address`` fails; the next runs are right, without a reset."""
    channel, code = {"read": ("ar", "read_response"), "write": ("aw", "write_response")}[kind]
    board.load()
    board.dram.faults[kind] = {address}
    await board.begin()
    await board.interrupt()
    burst = await board.check_error(code)
    beats = dict(board.bursts[channel]).get(burst, 0)
    assert burst <= address < burst + 8 * beats, f"{burst:#x} with {beats} beats is not the burst of {address:#x}"
    await board.quiet()
    for _ in range(2):
        await board.good_run()


@cocotb.test()
@cocotb.parametrize(place=["first descriptor", "second descriptor", "scales", "last weights", "input"])
async def read_error_stops_cleanly(dut, place):
    board = await Board(dut, seed=4, pauses="all").start()
    program = board.program
    (descriptors, _), (weights, _), (last, image), *_ = program.segments
    await bus_error(board, "read", {
        "first descriptor": descriptors + 8, "second descriptor": descriptors + DESCRIPTOR_BYTES, "scales": weights,
        "last weights": last + len(image) - 8, "input": program.maps["input"].address + 16}[place])


@cocotb.test()
@cocotb.parametrize(place=["pooled map", "last map", "first log record", "last log record"])
async def write_error_stops_cleanly(dut, place):
    board = await Board(dut, seed=5, pauses="all").start()
    program = board.program
    await bus_error(board, "write", {
        "pooled map": program.maps["first"].address, "last map": program.maps["point"].address,
        "first log record": program.log_address,
        "last log record": program.log_address + LOG_BYTES + LOG_BYTES - 8}[place])


# ---- stop ------------------------------------------------------------------------------------------------------

@cocotb.test()
async def stop_ends_a_run_anywhere(dut):
    board = await Board(dut, seed=6, pauses="all").start()
    await board.good_run()
    whole = await board.read("cycles_low")
    for part in np.linspace(0, 0.95, 12):
        board.load()
        await board.begin()
        await ClockCycles(dut.clk, 1 + int(part * (whole - 60)))
        await board.write("control", mask("control", "stop"))
        await board.interrupt(deadline=2000)
        await board.check_error("stopped")
        await board.quiet()
        await board.good_run()


@cocotb.test()
@cocotb.parametrize(commands=[["stop"], ["start", "stop"]])
async def stop_without_a_run_is_harmless(dut, commands):
    """Idle, or in the very write that starts."""
    board = await Board(dut, seed=11).start()
    board.load()
    await board.write("control", sum(mask("control", name) for name in commands))
    await ClockCycles(dut.clk, 20)
    await board.check_error("stopped")
    await board.quiet()
    await board.good_run()


# ---- descriptors -----------------------------------------------------------------------------------------------

@cocotb.test()
async def bad_descriptor_is_named(dut):
    """The layers before it are finished; the address is that of the field, or of the descriptor."""
    board = await Board(dut, seed=7).start()
    size = DESCRIPTOR_BYTES
    for which, (field, value, name) in itertools.product(range(2), (
            ("magic", 0x5A534B02, "descriptor_field"), ("kernel_rows", 8, "descriptor_field"),
            ("stride", 0, "descriptor_field"), ("in_width", 1 << 12, "descriptor_field"),
            ("in_address", 0x10000008, "descriptor_field"), ("pool", 1, "descriptor_field"),
            ("pool_segment_bytes", 1 << 20, "descriptor_field"), ("passes", 9, "geometry"))):
        board.load()
        place = board.program.descriptor_address + which * size + 4 * FIELD_BY_NAME[field].word
        board.poke(place, value.to_bytes(4, "little"))
        await board.begin()
        await board.interrupt()
        expected = place if name == "descriptor_field" else board.program.descriptor_address + which * size
        address = await board.check_error(name)
        assert address == expected, f"{field} of descriptor {which}: {address:#x}, not {expected:#x}"
        assert await board.read("layer") == which
        if which:
            board.check_maps({"first": board.program.expected(board.x)["first"]})
        await board.quiet(cycles=50)
    await board.good_run()


# ---- watchdog --------------------------------------------------------------------------------------------------

async def hang_in_the_middle(board, *, watchdog):
    board.load()
    await board.write("watchdog", watchdog)
    await board.begin()
    await ClockCycles(board.dut.clk, 300)
    board.hang()
    await ClockCycles(board.dut.clk, WATCHDOG - 10)
    assert await board.read("status") == mask("status", "busy"), f"ended before its time, {board.label}"


@cocotb.test()
async def watchdog_waits_for_a_bus_that_comes_back(dut):
    board = await Board(dut, seed=8, pauses="all").start()
    await hang_in_the_middle(board, watchdog=WATCHDOG)
    await ClockCycles(dut.clk, WATCHDOG // 2)
    assert await board.read("error_code") == ERRORS["watchdog"][0], "not ended in time"
    assert await board.read("status") == mask("status", "busy"), "ended with bursts in flight"
    board.resume()
    await board.interrupt(deadline=1500)
    assert await board.check_error("watchdog") == board.program.descriptor_address
    await board.quiet()
    await board.good_run()


@cocotb.test()
async def watchdog_gives_up_a_dead_bus(dut):
    board = await Board(dut, seed=9, pauses="all").start()
    await hang_in_the_middle(board, watchdog=WATCHDOG)
    board.dead = True
    await board.interrupt(deadline=3 * WATCHDOG)
    waited = board.cycle - board.moved
    assert 2 * WATCHDOG <= waited <= 2 * WATCHDOG + SLACK, f"{waited} cycles, {board.label}"
    assert await board.check_error("watchdog") == board.program.descriptor_address
    # Half a burst in the memory and none in the design: only a reset of both helps.
    board.resume()
    await board.reset()
    board.dead = False
    await board.good_run()


@cocotb.test()
async def watchdog_of_zero_waits_for_ever(dut):
    board = await Board(dut, seed=10, pauses="all").start()
    await hang_in_the_middle(board, watchdog=0)
    await ClockCycles(dut.clk, WATCHDOG)
    board.resume()
    await board.interrupt()
    await board.check_good()
