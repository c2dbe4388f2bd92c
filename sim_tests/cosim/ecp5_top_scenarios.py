"""Run inside the simulator by test_ecp5.py: the driver of firmware/python on the serial line of the ECP5's design.

The bits go over the pins one by one; the driver runs in a thread of its own while the simulation advances.
"""
import functools
from types import SimpleNamespace

import cocotb
import numpy as np
from cocotb.clock import Clock
from cocotb.task import bridge, resume
from cocotb.triggers import ClockCycles, FallingEdge, Timer
from cocotb.utils import get_sim_time
from zeroskip import Accelerator, BoardError, RunError, serial_line

from compiler.emit import compile_network
from compiler.image import write_image
from golden.network import QuantisedNetwork, run_network
from hw.configs import CONFIGS
from hw.descriptor import FIELD_BY_NAME
from hw.registers import register
from sim_tests.cosim.test_ecp5 import BASE, DIVISOR, MEMORY_SIZE, QUIET
from sim_tests.golden_model.random_layers import random_layer, random_map, with_scales

PERIOD = 10
#: Nanoseconds of a bit.
BIT = DIVISOR * PERIOD
SEED = 6


class Port:
    """The PC's end of the line, with what the driver uses of pyserial's ``Serial``."""

    baudrate = 1_000_000_000 / BIT

    def __init__(self, dut):
        self._dut, self._received, self.timeout = dut, bytearray(), None
        #: Requests by op, and bytes to be flipped: position in all that is written -> bits.
        self.ops, self.damage, self._written = [], {}, 0
        cocotb.start_soon(self._listen())
        self.write, self.read, self.sleep = resume(self._write), resume(self._read), resume(self._sleep)

    async def _listen(self):
        line = self._dut.o_line
        while True:
            await FallingEdge(line)
            byte = 0
            await Timer(3 * BIT // 2, "ns")
            for bit in range(8):
                byte |= int(line.value) << bit
                await Timer(BIT, "ns")
            assert line.value, "no stop bit"
            self._received.append(byte)

    async def _write(self, data):
        self.ops.append(data[1])
        for byte in data:
            byte ^= self.damage.pop(self._written, 0)
            self._written += 1
            for bit in (0, *(byte >> n & 1 for n in range(8)), 1):
                self._dut.i_line.value = bit
                await Timer(BIT, "ns")

    async def _read(self, count):
        end = get_sim_time("ns") + self.timeout * 1e9
        while len(self._received) < count and get_sim_time("ns") < end:
            await Timer(BIT, "ns")
        data = bytes(self._received[:count])
        del self._received[:count]
        return data

    async def _sleep(self, seconds):
        await Timer(round(seconds * 1e9), "ns")

    def reset_input_buffer(self):
        self._received.clear()

    def close(self):
        pass


async def start(dut):
    """Clock and reset; returns the PC's port."""
    cocotb.start_soon(Clock(dut.clk, PERIOD, "ns").start())
    dut.rst.value, dut.i_line.value = 1, 1
    await ClockCycles(dut.clk, 4)
    dut.rst.value = 0
    await ClockCycles(dut.clk, 4)
    port = Port(dut)
    # The driver's times, in simulated time: as long as the design's.
    serial_line.time = SimpleNamespace(sleep=port.sleep)
    serial_line.QUIET_BITS, serial_line.WAIT_BITS, serial_line.PATIENCE = QUIET * 11 // 10, 300, 1e-4
    return port


def open_accelerator(port):
    """As :meth:`Accelerator.from_serial`, on ``port``."""
    line = serial_line.SerialLine(port)
    return Accelerator(serial_line.SerialRegisters(line), serial_line.SerialMemory(line))


@functools.cache
def small_network():
    """Two layers, the input of a run, and the network's image in a file."""
    rng = np.random.default_rng(SEED)
    config, shape = CONFIGS["tiny"], (3, 5, 6)
    first = random_layer(rng, "first", "input", shape, width=8, kernel=(3, 3), out_channels=18, pad=(1, 1, 1, 1),
                         pool=2)
    last = random_layer(rng, "last", "first", first.pooled_shape, width=8, kernel=(1, 1), out_channels=5, relu=False)
    network = with_scales(QuantisedNetwork("chain", 8, shape, False, (first, last), ("last",)), 1.0)
    write_image(compile_network(network, config), "net.zsn")
    return network, random_map(rng, shape, width=8, signed=False, density=.5)


def check_run(accelerator):
    """A run of the small network; every value of its maps."""
    network, x = small_network()
    expected, _ = run_network(network, x)
    found = accelerator.run(x, maps=expected)
    for name, values in expected.items():
        assert (found[name] == values).all(), f"{name} differs, seed {SEED}"


@cocotb.test()
async def the_driver_runs_a_network_over_the_line(dut):
    port = await start(dut)
    small_network()

    @bridge
    def drive():
        with open_accelerator(port) as accelerator:
            assert (accelerator.memory.address, accelerator.memory.data.size) == (BASE, MEMORY_SIZE)
            accelerator.load("net.zsn")
            for _ in range(2):
                check_run(accelerator)
            assert [layer["cycles"] > 0 for layer in accelerator.counters()] == [True, True]
            assert dut.o_irq.value == 0
    await drive()
    # The interrupt ended the wait: a status poll, one wait, the status again.
    assert port.ops.count(serial_line.WAIT) == 2


@cocotb.test()
async def errors_of_bus_and_accelerator_are_named_and_the_next_run_is_right(dut):
    port = await start(dut)
    small_network()

    def refused(call, sentence):
        try:
            call()
        except (BoardError, RunError) as error:
            assert sentence in str(error), error
        else:
            raise AssertionError(f"not refused: {sentence}")

    @bridge
    def drive():
        with open_accelerator(port) as accelerator:
            line, network = accelerator.registers._line, small_network()
            accelerator.load("net.zsn")
            beyond = BASE + MEMORY_SIZE
            refused(lambda: line.read(beyond, 1), f"1 words at {beyond:#x} was answered with an AXI error")
            refused(lambda: line.write(0x80, bytes(8)), "2 words at 0x80 was answered with an AXI error")
            # The accelerator gets a weight address outside of the memory, and says so.
            at = BASE + 4 * FIELD_BY_NAME["weight_address"].word
            good = line.read(at, 1)
            line.write(at, beyond.to_bytes(4, "little"))
            refused(lambda: accelerator.run(network[1]), f"read_response at {beyond:#010x}")
            line.write(at, good)
            check_run(accelerator)
    await drive()


@cocotb.test()
async def damage_on_the_line_is_noticed_and_the_next_request_works(dut):
    port = await start(dut)

    @bridge
    def drive():
        with open_accelerator(port) as accelerator:
            watchdog = register("watchdog").offset
            for place in range(13):
                port.damage[port._written + place] = 0x10
                try:
                    accelerator.registers.write(watchdog, 0x5A5A5A5A)
                except BoardError as error:
                    assert "of 4 bytes of an answer" in str(error)
                else:
                    raise AssertionError(f"damage of byte {place} was not noticed")
                assert accelerator.read("watchdog") == 1_000_000, f"byte {place}"
            accelerator.write("watchdog", 0x5A5A5A5A)
            assert accelerator.read("watchdog") == 0x5A5A5A5A
    await drive()
