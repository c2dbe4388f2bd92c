"""Run inside the simulator by test_bus.py: the bus parts against the models of cocotbext-axi."""
import itertools
import logging
import random

import cocotb
from cocotb.clock import Clock
from cocotb.triggers import RisingEdge
from cocotbext.axi import AxiBus, AxiLiteBus, AxiLiteMaster, AxiRam, AxiResp

from hw.registers import IDENTITY, RESET_VALUES, register

SIZE = 1 << 17
SEED = 5


async def start(dut):
    """Clock and reset; returns (register master, memory)."""
    cocotb.start_soon(Clock(dut.clk, 10, "ns").start())
    logging.getLogger("cocotb.bus_top").setLevel(logging.WARNING)
    dut.rst.value = 1
    dut.i_done.value = 0
    for kind, n in itertools.product(("i_read", "i_write"), range(2)):
        getattr(dut, f"{kind}__{n}__valid").value = 0
    master = AxiLiteMaster(AxiLiteBus.from_prefix(dut, "s_axi", bus_separator="__"), dut.clk, dut.rst)
    ram = AxiRam(AxiBus.from_prefix(dut, "m_axi", bus_separator="__"), dut.clk, dut.rst, size=SIZE)
    for _ in range(4):
        await RisingEdge(dut.clk)
    dut.rst.value = 0
    await RisingEdge(dut.clk)
    return master, ram


def stalls(chance, likely):
    """An endless pause pattern."""
    while True:
        yield chance.random() < likely


async def request(dut, kind, n, address, beats):
    stream = f"{kind}__{n}__"
    getattr(dut, f"{stream}payload").value = address | beats << 32
    getattr(dut, f"{stream}valid").value = 1
    await RisingEdge(dut.clk)
    while not getattr(dut, f"{stream}ready").value:
        await RisingEdge(dut.clk)
    getattr(dut, f"{stream}valid").value = 0


@cocotb.test()
async def registers_answer(dut):
    master, _ = await start(dut)
    assert await master.read_dword(register("identity").offset) == IDENTITY
    watchdog = register("watchdog").offset
    assert await master.read_dword(watchdog) == RESET_VALUES["watchdog"]
    await master.write_dword(watchdog, 0x12345678)
    await master.write(watchdog + 1, b"\xaa\xbb")
    assert await master.read_dword(watchdog) == 0x12BBAA78
    assert int(dut.o_watchdog.value) == 0x12BBAA78
    assert (await master.read(0x80, 4)).resp == AxiResp.SLVERR
    assert (await master.write(0x80, bytes(4))).resp == AxiResp.SLVERR
    dut.i_done.value = 1
    await RisingEdge(dut.clk)
    dut.i_done.value = 0
    assert await master.read_dword(register("status").offset) == 2
    await master.write_dword(register("status").offset, 2)
    assert await master.read_dword(register("status").offset) == 0


async def copies(dut, likely):
    _, ram = await start(dut)
    chance = random.Random(SEED)
    image = bytearray(chance.randbytes(SIZE))
    ram.write(0, bytes(image))
    if likely:
        for channel in (ram.write_if.aw_channel, ram.write_if.w_channel, ram.write_if.b_channel,
                        ram.read_if.ar_channel, ram.read_if.r_channel):
            channel.set_pause_generator(stalls(chance, likely))

    plans = []
    for n in range(2):
        source, target = n << 15, 1 << 16 | n << 15
        plan = []
        for beats in (1, 2, 16, 100, 17, 600):
            source, target = source + 8 * chance.randrange(9), target + 8 * chance.randrange(9)
            plan.append((source, target, beats))
            image[target:target + 8 * beats] = image[source:source + 8 * beats]
            source, target = source + 8 * beats, target + 8 * beats
        plans.append(plan)

    async def client(kind, n, which):
        for entry in plans[n]:
            await request(dut, kind, n, entry[which], entry[2])
    for task in [cocotb.start_soon(client(kind, n, which)) for n in range(2)
                 for which, kind in enumerate(("i_read", "i_write"))]:
        await task
    quiet = 0
    for _ in range(8_000):
        await RisingEdge(dut.clk)
        quiet = quiet + 1 if dut.o_idle.value else 0
        if quiet == 8:
            break
    assert quiet == 8, f"not idle (seed {SEED})"
    assert not dut.o_error.value
    assert ram.read(0, SIZE) == bytes(image), f"seed {SEED}, stalls {likely}"


@cocotb.test()
async def copies_without_stalls(dut):
    await copies(dut, 0.0)


@cocotb.test()
async def copies_under_stalls(dut):
    await copies(dut, 0.6)
