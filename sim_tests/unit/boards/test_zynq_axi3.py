"""The bridge from GP0 to the registers: bursts, ids, responses, stalls."""
import random

import pytest
from amaranth.sim import Simulator

from boards.zynq.axi3 import Axi3ToLite

WORDS = 64
#: Offset from which the slave answers SLVERR.
BAD = 0x80


async def transfer(ctx, signal, *others):
    """Let the clock tick until ``signal`` is 1 at an edge; what ``others`` are there."""
    for _ in range(500):
        _, _, done, *values = await ctx.tick().sample(signal, *others)
        if done:
            return values
    raise AssertionError(f"{signal.name} never rose")


async def stall(ctx, chance, probability):
    while chance.random() < probability:
        await ctx.tick()


class LiteSlave:
    """Words behind AXI4-Lite, two processes; addresses from ``BAD`` on answer SLVERR and change nothing."""

    def __init__(self, axi, seed, probability):
        self.axi, self.words, self.accesses = axi, list(range(WORDS)), []
        self.seed, self.probability = seed, probability

    async def read(self, ctx):
        axi, chance = self.axi, random.Random(self.seed + 1)
        while True:
            await stall(ctx, chance, self.probability)
            ctx.set(axi.arready, 1)
            while True:
                _, _, valid, address = await ctx.tick().sample(axi.arvalid, axi.araddr)
                if valid:
                    break
            ctx.set(axi.arready, 0)
            self.accesses.append(("read", address))
            await stall(ctx, chance, self.probability)
            ctx.set(axi.rdata, self.words[address // 4])
            ctx.set(axi.rresp, 2 if address >= BAD else 0)
            ctx.set(axi.rvalid, 1)
            await transfer(ctx, axi.rready)
            ctx.set(axi.rvalid, 0)

    async def write(self, ctx):
        axi, chance, seen = self.axi, random.Random(self.seed + 2), {}
        while True:
            ready = {name: chance.random() >= self.probability and name not in seen for name in ("aw", "w")}
            for name, value in ready.items():
                ctx.set(getattr(axi, f"{name}ready"), value)
            _, _, aw, address, w, value, strobes = await ctx.tick().sample(
                axi.awvalid, axi.awaddr, axi.wvalid, axi.wdata, axi.wstrb)
            if ready["aw"] and aw:
                seen["aw"] = address
            if ready["w"] and w:
                seen["w"] = value, strobes
            if len(seen) < 2:
                continue
            for name in ("aw", "w"):
                ctx.set(getattr(axi, f"{name}ready"), 0)
            address, (value, strobes) = seen["aw"], seen["w"]
            seen = {}
            self.accesses.append(("write", address))
            if address < BAD:
                mask = sum(0xFF << 8 * byte for byte in range(4) if strobes >> byte & 1)
                self.words[address // 4] = self.words[address // 4] & ~mask | value & mask
            await stall(ctx, chance, self.probability)
            ctx.set(axi.bresp, 2 if address >= BAD else 0)
            ctx.set(axi.bvalid, 1)
            await transfer(ctx, axi.bready)
            ctx.set(axi.bvalid, 0)


def run(scenario, seed, probability):
    """Run ``scenario(ctx, master port, stall)`` on a bridge in front of a :class:`LiteSlave`; the slave."""
    dut = Axi3ToLite(12)
    slave, chance = LiteSlave(dut.o, seed, probability), random.Random(seed)
    simulator = Simulator(dut)
    simulator.add_clock(1e-8)

    async def master(ctx):
        await scenario(ctx, dut.i, lambda: stall(ctx, chance, probability))
    simulator.add_testbench(master)
    simulator.add_testbench(slave.read, background=True)
    simulator.add_testbench(slave.write, background=True)
    simulator.run()
    return slave


async def read_burst(ctx, port, pause, *, address, beats, burst=1, identifier=5):
    """(data, responses, rlast of each beat, ids)."""
    for name, value in dict(arid=identifier, araddr=0x43C0_0000 + address, arlen=beats - 1, arsize=2, arburst=burst,
                            arvalid=1).items():
        ctx.set(getattr(port, name), value)
    await transfer(ctx, port.arready)
    ctx.set(port.arvalid, 0)
    result = []
    for _ in range(beats):
        await pause()
        ctx.set(port.rready, 1)
        result.append(tuple(await transfer(ctx, port.rvalid, port.rdata, port.rresp, port.rlast, port.rid)))
        ctx.set(port.rready, 0)
    return result


async def write_burst(ctx, port, pause, *, address, words, burst=1, identifier=9, strobes=0xF):
    """(response, id)."""
    for name, value in dict(awid=identifier, awaddr=0x43C0_0000 + address, awlen=len(words) - 1, awsize=2,
                            awburst=burst, awvalid=1).items():
        ctx.set(getattr(port, name), value)
    await transfer(ctx, port.awready)
    ctx.set(port.awvalid, 0)
    for n, word in enumerate(words):
        await pause()
        for name, value in dict(wdata=word, wstrb=strobes, wlast=n == len(words) - 1, wvalid=1).items():
            ctx.set(getattr(port, name), value)
        await transfer(ctx, port.wready)
        ctx.set(port.wvalid, 0)
    await pause()
    ctx.set(port.bready, 1)
    response, identifier = await transfer(ctx, port.bvalid, port.bresp, port.bid)
    ctx.set(port.bready, 0)
    return response, identifier


@pytest.mark.parametrize("seed, probability", [(1, 0.0), (2, 0.3), (3, 0.7)])
def test_random_bursts_are_served_beat_by_beat(seed, probability):
    chance, expected = random.Random(100 + seed), list(range(WORDS))

    async def scenario(ctx, port, pause):
        for _ in range(30):
            beats, fixed, identifier = chance.randint(1, 16), chance.random() < 0.2, chance.randrange(1 << 12)
            first = chance.randrange(BAD // 4 - 16)
            places = [first + (0 if fixed else n) for n in range(beats)]
            if chance.random() < 0.5:
                got = await read_burst(ctx, port, pause, address=4 * first, beats=beats, burst=int(not fixed),
                                       identifier=identifier)
                assert got == [(expected[place], 0, int(n == beats - 1), identifier)
                               for n, place in enumerate(places)], f"seed {seed}"
            else:
                words, strobes = [chance.randrange(1 << 32) for _ in places], chance.randrange(16)
                got = await write_burst(ctx, port, pause, address=4 * first, words=words, burst=int(not fixed),
                                        identifier=identifier, strobes=strobes)
                assert got == (0, identifier), f"seed {seed}"
                mask = sum(0xFF << 8 * byte for byte in range(4) if strobes >> byte & 1)
                for place, word in zip(places, words, strict=True):
                    expected[place] = expected[place] & ~mask | word & mask
    slave = run(scenario, seed, probability)
    assert slave.words == expected, f"seed {seed}"


def test_an_error_of_one_beat_is_the_response_of_the_burst_and_is_forgotten_after_it():
    async def scenario(ctx, port, pause):
        assert await write_burst(ctx, port, pause, address=BAD - 8, words=[1, 2, 3]) == (2, 9)
        assert await write_burst(ctx, port, pause, address=BAD - 8, words=[4, 5]) == (0, 9)
        beats = await read_burst(ctx, port, pause, address=BAD - 4, beats=2)
        assert [(word, response) for word, response, _, _ in beats] == [(5, 0), (BAD // 4, 2)]
    slave = run(scenario, 4, 0.4)
    assert ("write", BAD) in slave.accesses
