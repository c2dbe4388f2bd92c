"""Run inside the simulator by test_ecp5.py: the memory in block RAM between the AXI masters of cocotbext-axi."""
import logging
import random

import cocotb
from cocotb.clock import Clock
from cocotb.triggers import RisingEdge
from cocotbext.axi import AxiBus, AxiLiteBus, AxiLiteMaster, AxiMaster, AxiResp

from sim_tests.cosim.bus_scenarios import stalls
from sim_tests.cosim.test_ecp5 import BASE
from sim_tests.cosim.test_ecp5 import MEMORY_SIZE as SIZE

SEED = 4


async def watch(dut, bus, letter, names):
    """An answer stays as it is until it is taken."""
    signals = [getattr(dut, f"{bus}__{letter}{name}") for name in names]
    valid, ready = (getattr(dut, f"{bus}__{letter}{name}") for name in ("valid", "ready"))
    pending = None
    while True:
        await RisingEdge(dut.clk)
        now = [int(signal.value) for signal in signals] if valid.value else None
        assert pending is None or now == pending, f"{bus} {letter}: {now} after {pending}, which was not taken"
        pending = None if ready.value else now


async def start(dut, likely=0.0):
    """Clock and reset; returns the two masters, which stall with the probability ``likely``."""
    cocotb.start_soon(Clock(dut.clk, 10, "ns").start())
    logging.getLogger("cocotb.block_memory").setLevel(logging.WARNING)
    dut.rst.value = 1
    axi = AxiMaster(AxiBus.from_prefix(dut, "axi", bus_separator="__"), dut.clk, dut.rst)
    lite = AxiLiteMaster(AxiLiteBus.from_prefix(dut, "axil", bus_separator="__"), dut.clk, dut.rst)
    chance = random.Random(f"{SEED} {likely}")
    for master in (axi, lite):
        for part, letters in ((master.read_if, ("ar", "r")), (master.write_if, ("aw", "w", "b"))):
            for letter in letters:
                getattr(part, f"{letter}_channel").set_pause_generator(stalls(chance, likely))
    for _ in range(4):
        await RisingEdge(dut.clk)
    dut.rst.value = 0
    await RisingEdge(dut.clk)
    for bus, identity, last in (("axi", ("id",), ("last",)), ("axil", (), ())):
        cocotb.start_soon(watch(dut, bus, "r", (*identity, "data", "resp", *last)))
        cocotb.start_soon(watch(dut, bus, "b", (*identity, "resp")))
    return axi, lite


async def use(master, chance, image, first, grain, count):
    """Writes and reads of a master in its half of the memory, several at a time; ``image`` follows."""
    for _ in range(count):
        pieces, at = [], first
        while at < first + SIZE // 2 - 3 * 4096:
            at += grain * chance.randrange(200)
            size = chance.choice([1, 3, 8, 9, 64, 128, 1000, 2100, 5000])
            pieces.append((at, chance.randbytes(size)))
            at += -(-size // grain) * grain
        writes = [cocotb.start_soon(master.write(BASE + at, data)) for at, data in pieces]
        for (at, data), write in zip(pieces, writes, strict=True):
            assert (await write).resp == AxiResp.OKAY
            image[at:at + len(data)] = data
        chance.shuffle(pieces)
        reads = [cocotb.start_soon(master.read(BASE + at, len(data))) for at, data in pieces]
        for (at, data), read in zip(pieces, reads, strict=True):
            result = await read
            assert (result.resp, result.data) == (AxiResp.OKAY, data), f"seed {SEED}, {len(data)} bytes at {at:#x}"


@cocotb.test()
@cocotb.parametrize(likely=[0.0, 0.5])
async def both_masters_read_what_they_wrote(dut, likely):
    axi, lite = await start(dut, likely)
    chance, image = random.Random(f"{SEED} {likely}"), bytearray(SIZE)
    # The memory keeps its contents from test to test.
    await axi.write(BASE, bytes(SIZE))
    tasks = [cocotb.start_soon(use(axi, chance, image, 0, 8, 2)),
             cocotb.start_soon(use(lite, chance, image, SIZE // 2, 4, 1))]
    for task in tasks:
        await task
    # Each sees what the other wrote.
    assert (await axi.read(BASE, SIZE)).data == bytes(image), f"seed {SEED}, stalls {likely}"
    assert (await lite.read(BASE, 256)).data == bytes(image[:256])


@cocotb.test()
async def a_burst_takes_a_cycle_a_beat(dut):
    axi, _ = await start(dut)
    beats = {"r": 0, "w": 0}
    first, last = {}, {}

    async def count():
        cycle = 0
        while True:
            await RisingEdge(dut.clk)
            cycle += 1
            for letter in beats:
                if getattr(dut, f"axi__{letter}valid").value and getattr(dut, f"axi__{letter}ready").value:
                    beats[letter] += 1
                    first.setdefault(letter, cycle)
                    last[letter] = cycle
    cocotb.start_soon(count())
    await axi.write(BASE, bytes(8 * 256))
    await axi.read(BASE, 8 * 256)
    assert beats == {"r": 256, "w": 256}
    assert {letter: last[letter] - first[letter] for letter in beats} == {"r": 255, "w": 255}


@cocotb.test()
async def accesses_outside_are_refused_and_write_nothing(dut):
    axi, lite = await start(dut)
    data = random.Random(SEED).randbytes(64)
    await axi.write(BASE, data)
    await axi.write(BASE + SIZE - 64, data)
    for master in (axi, lite):
        for address in (0, BASE - 64, BASE + SIZE, BASE + 2 * SIZE, BASE | 1 << 31):
            assert (await master.write(address, bytes(64))).resp == AxiResp.DECERR, hex(address)
            assert (await master.read(address, 64)).resp == AxiResp.DECERR, hex(address)
        for address in (BASE, BASE + SIZE - 64):
            result = await master.read(address, 64)
            assert (result.resp, result.data) == (AxiResp.OKAY, data), hex(address)
