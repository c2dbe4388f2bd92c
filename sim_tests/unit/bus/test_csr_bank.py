# amaranth: UnusedElaboratable=no
import random

import pytest

from hw.bus.csr_bank import CsrBank
from hw.registers import REGISTERS, RESET_VALUES, register
from sim_tests.bench.axi import OKAY, SLVERR, LiteMaster
from sim_tests.bench.stream import StreamBench

FIELDS = [(entry, field) for entry in REGISTERS for field in entry.fields]


def run(scenario, *, seed=0, stall=0.0):
    """Run ``async scenario(ctx, dut, master)`` on a new bank."""
    dut = CsrBank()
    bench = StreamBench(dut, seed=seed)
    master = LiteMaster(dut.axi, seed=seed, stall=stall)

    async def testbench(ctx):
        await scenario(ctx, dut, master)
    bench.testbench(testbench)
    bench.run()


def member(dut, entry, field):
    return getattr(dut, f"r_{entry.name}_{field.name}")


@pytest.mark.parametrize("stall", [0.0, 0.5, 0.9])
def test_read_only_fields_show_the_hardware(stall):
    chance = random.Random(2)

    async def scenario(ctx, dut, master):
        expected = {}
        for entry, field in FIELDS:
            if field.access == "ro":
                value = chance.getrandbits(field.width)
                ctx.set(member(dut, entry, field), value)
                expected[entry.name] = expected.get(entry.name, 0) | value << field.low
        for name, word in expected.items():
            assert await master.read(ctx, register(name).offset) == (word, OKAY), name
            assert await master.write(ctx, register(name).offset, 0) == OKAY
            assert await master.read(ctx, register(name).offset) == (word, OKAY), name
    run(scenario, seed=2, stall=stall)


@pytest.mark.parametrize("order", ["both", "address", "data"])
@pytest.mark.parametrize("stall", [0.0, 0.5])
def test_read_write_fields_keep_what_strobes_select(order, stall):
    chance = random.Random(3)

    async def scenario(ctx, dut, master):
        model = {entry.name: RESET_VALUES.get(entry.name, 0) for entry in REGISTERS}
        names = sorted({entry.name for entry, field in FIELDS if field.access == "rw"})
        for name in names:
            assert await master.read(ctx, register(name).offset) == (model[name], OKAY), f"{name} after reset"
        for _ in range(40):
            name, word, strobe = chance.choice(names), chance.getrandbits(32), chance.randrange(16)
            mask = sum(0xFF << 8 * byte for byte in range(4) if strobe >> byte & 1)
            mask &= sum(field.mask for field in register(name).fields)
            model[name] = model[name] & ~mask | word & mask
            assert await master.write(ctx, register(name).offset, word, strobe=strobe, order=order) == OKAY
            assert await master.read(ctx, register(name).offset) == (model[name], OKAY), f"{name} (seed 3)"
            for field in register(name).fields:
                value = ctx.get(member(dut, register(name), field))
                assert value == (model[name] & field.mask) >> field.low, f"{name}.{field.name} (seed 3)"
    run(scenario, seed=3, stall=stall)


@pytest.mark.parametrize("word, strobe, pulses", [(1, 15, (1, 0)), (2, 1, (0, 1)), (3, 15, (1, 1)), (3, 14, (0, 0)),
                                                  (0xFFFFFFFC, 15, (0, 0))])
def test_write_only_fields_pulse_for_one_cycle(word, strobe, pulses):
    async def scenario(ctx, dut, master):
        async def count():
            seen = [0, 0]
            for _ in range(20):
                *_, start, stop = await ctx.tick().sample(dut.r_control_start, dut.r_control_stop)
                seen = [seen[0] + start, seen[1] + stop]
            return tuple(seen)
        ctx.set(dut.axi.awaddr, register("control").offset)
        ctx.set(dut.axi.wdata, word)
        ctx.set(dut.axi.wstrb, strobe)
        ctx.set(dut.axi.awvalid, 1)
        ctx.set(dut.axi.wvalid, 1)
        await ctx.tick()
        ctx.set(dut.axi.awvalid, 0)
        ctx.set(dut.axi.wvalid, 0)
        assert await count() == pulses
        ctx.set(dut.axi.bready, 1)
        await ctx.tick()
        assert await master.read(ctx, register("control").offset) == (0, OKAY)
    run(scenario)


def test_sticky_bits_are_set_by_hardware_and_cleared_by_one():
    status = register("status").offset

    async def pulse(ctx, signal):
        ctx.set(signal, 1)
        await ctx.tick()
        ctx.set(signal, 0)

    async def scenario(ctx, dut, master):
        await pulse(ctx, dut.r_status_done_set)
        await pulse(ctx, dut.r_status_error_set)
        assert await master.read(ctx, status) == (0b110, OKAY)
        for word, strobe, left in ((0, 15, 0b110), (2, 14, 0b110), (2, 15, 0b100), (4, 1, 0)):
            await master.write(ctx, status, word, strobe=strobe)
            assert await master.read(ctx, status) == (left, OKAY)
        # An event in the cycle of the clear is not lost.
        await pulse(ctx, dut.r_status_done_set)
        ctx.set(dut.r_status_done_set, 1)
        await master.write(ctx, status, 2)
        ctx.set(dut.r_status_done_set, 0)
        assert await master.read(ctx, status) == (0b010, OKAY)
        assert ctx.get(dut.r_status_done) == 1
    run(scenario)


def test_unknown_addresses_are_answered_with_an_error():
    last = max(entry.offset for entry in REGISTERS)

    async def scenario(ctx, dut, master):
        for address in (last + 4, 0x7C, 0x400 + register("watchdog").offset, 0xFFC):
            assert await master.read(ctx, address) == (0, SLVERR), hex(address)
            assert await master.write(ctx, address, 0xFFFFFFFF) == SLVERR, hex(address)
        assert await master.read(ctx, register("watchdog").offset) == (RESET_VALUES["watchdog"], OKAY)
    run(scenario)


def test_cycles_are_read_as_one_number():
    async def scenario(ctx, dut, master):
        async def count():
            ctx.set(dut.r_cycles_low_value, 0xFFFFFFFF)
            ctx.set(dut.r_cycles_high_value, 7)
        await count()
        low, _ = await master.read(ctx, register("cycles_low").offset)
        ctx.set(dut.r_cycles_low_value, 0)
        ctx.set(dut.r_cycles_high_value, 8)
        assert (low, await master.read(ctx, register("cycles_high").offset)) == (0xFFFFFFFF, (7, OKAY))
        await master.read(ctx, register("cycles_low").offset)
        assert await master.read(ctx, register("cycles_high").offset) == (8, OKAY)
    run(scenario)


def test_refuses_an_address_width_that_is_too_small():
    with pytest.raises(ValueError, match="address_width must reach offset 0x3c, not 5"):
        CsrBank(address_width=5)


def test_latency():
    async def scenario(ctx, dut, master):
        for letter, requests in (("r", ["ar"]), ("b", ["aw", "w"])):
            for name in requests:
                ctx.set(getattr(dut.axi, f"{name}valid"), 1)
            await ctx.tick()
            for name in requests:
                ctx.set(getattr(dut.axi, f"{name}valid"), 0)
            for cycle in range(1, 5):
                assert ctx.get(getattr(dut.axi, f"{letter}valid")) == (cycle >= CsrBank.LATENCY), f"{letter}, {cycle}"
                await ctx.tick()
    run(scenario)
