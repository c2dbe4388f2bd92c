# amaranth: UnusedElaboratable=no
"""The serial line: bytes, and the bridge to AXI4-Lite."""
import binascii
import random
import struct

import pytest
from amaranth import *
from amaranth.sim import Simulator

from boards.ecp5.bridge import START, UartBridge
from boards.ecp5.uart import FRAME_BITS, UartReceiver, UartTransmitter
from sim_tests.bench.stream import StreamBench

DIVISOR = 5
PERIOD = 1e-8
BASE, SIZE = 0x1000_0000, 0x2000
QUIET = 40


async def send_bits(ctx, line, bits, cycles):
    """Bits on a line; ``cycles`` may be a fraction. The line is not synchronous to the clock."""
    for bit in bits:
        ctx.set(line, bit)
        await ctx.delay(cycles * PERIOD)


def frame(byte):
    """The bits of a byte on the line."""
    return [0, *(byte >> bit & 1 for bit in range(8)), 1]


def watch(bench, stream):
    """The bytes of an ``always_ready`` stream, as a list that fills."""
    received = []

    async def collect(ctx):
        async for *_, valid, byte in ctx.tick().sample(stream.valid, stream.payload):
            if valid:
                received.append(byte)
    bench.testbench(collect, background=True)
    return received


@pytest.mark.parametrize("divisor, speed", [(4, 1), (25, 1), (25, .97), (25, 1.03), (50, .96), (50, 1.04)])
def test_receiver_takes_bytes_one_after_the_other(divisor, speed):
    """Also from a PC whose clock is off by a few percent."""
    dut = UartReceiver(divisor)
    bench = StreamBench(dut)
    words = [0x00, 0xFF, 0x55, 0xAA, *random.Random(1).randbytes(12)]

    async def send(ctx):
        ctx.set(dut.i, 1)
        await ctx.tick().repeat(3 * divisor)
        await send_bits(ctx, dut.i, [bit for word in words for bit in frame(word)], divisor * speed)
        await ctx.tick().repeat(divisor)
    received = watch(bench, dut.o)
    bench.testbench(send)
    bench.run()
    assert received == words, f"seed 1, divisor {divisor}, speed {speed}"


def test_receiver_drops_glitches_and_bytes_without_stop_bit():
    dut = UartReceiver(16)
    bench = StreamBench(dut)

    async def send(ctx):
        ctx.set(dut.i, 1)
        await ctx.tick().repeat(16)
        await send_bits(ctx, dut.i, [0, *[1] * 15], 4)
        await send_bits(ctx, dut.i, frame(0x11), 16)
        await send_bits(ctx, dut.i, [*frame(0xFF)[:-1], 0], 16)
        await send_bits(ctx, dut.i, [1] * 12, 16)
        await send_bits(ctx, dut.i, frame(0x22), 16)
    received = watch(bench, dut.o)
    bench.testbench(send)
    bench.run()
    assert received == [0x11, 0x22]


def test_transmitter_sends_bits_of_equal_length():
    dut = UartTransmitter(DIVISOR)
    bench = StreamBench(dut)
    words = [0x00, 0xFF, 0xA5, 0x01]
    line = []

    async def watch_line(ctx):
        async for *_, bit in ctx.tick().sample(dut.o):
            line.append(bit)

    async def wait(ctx):
        await ctx.tick().repeat((FRAME_BITS + 2) * DIVISOR * len(words))
    bench.source(dut.i, words)
    bench.testbench(watch_line, background=True)
    bench.testbench(wait)
    bench.run()
    at = 0
    for word in words:
        at = line.index(0, at)
        expected = [bit for bit in frame(word) for _ in range(DIVISOR)]
        assert line[at:at + len(expected)] == expected, f"{word:#x} at cycle {at}"
        at += len(expected)
    assert set(line[at:]) == {1}


# ---- bridge ----------------------------------------------------------------------------------------------------

def with_checksum(body):
    return bytes([START]) + body + binascii.crc_hqx(body, 0).to_bytes(2, "big")


def request(op, last=0, address=0, words=()):
    return with_checksum(struct.pack("<BBI", op, last, address) + struct.pack(f"<{len(words)}I", *words))


def answer(words=(), response=0):
    return with_checksum(struct.pack(f"<{len(words)}I", *words) + bytes([response]))


class Slave:
    """An AXI4-Lite slave: a word at each address, but SLVERR at those in ``bad``; stalls at random."""

    def __init__(self, axil, *, seed):
        self.words, self.writes, self.bad = {}, [], set()
        self._axil, self._chance = axil, random.Random(seed)

    def _response(self, address):
        return 2 if address in self.bad else 0

    async def _transfer(self, ctx, letter, driven, awaited, *signals):
        """Raise ``driven`` of a channel for one transfer, after a random pause; values of ``signals`` in it."""
        driven, awaited = (getattr(self._axil, f"{letter}{end}") for end in (driven, awaited))
        await ctx.tick().repeat(self._chance.choice([1, 1, 2, 9]))
        ctx.set(driven, 1)
        if not ctx.get(awaited):
            await ctx.posedge(awaited)
        *_, up = values = await ctx.tick().sample(*signals, awaited)
        assert up, f"{letter}: {awaited.name} fell before the transfer"
        ctx.set(driven, 0)
        assert not ctx.get(awaited), f"{letter}: more than one access at a time, or ready without valid"
        return values[2:-1]

    async def _take(self, ctx, letter, *signals):
        return await self._transfer(ctx, letter, "ready", "valid", *signals)

    async def _answer(self, ctx, letter):
        await self._transfer(ctx, letter, "valid", "ready")

    async def serve_reads(self, ctx):
        while True:
            address, = await self._take(ctx, "ar", self._axil.araddr)
            ctx.set(self._axil.rdata, self.words.get(address, 0))
            ctx.set(self._axil.rresp, self._response(address))
            await self._answer(ctx, "r")

    async def serve_writes(self, ctx):
        while True:
            if self._chance.random() < .5:
                address, = await self._take(ctx, "aw", self._axil.awaddr)
                word, strobes = await self._take(ctx, "w", self._axil.wdata, self._axil.wstrb)
            else:
                word, strobes = await self._take(ctx, "w", self._axil.wdata, self._axil.wstrb)
                address, = await self._take(ctx, "aw", self._axil.awaddr)
            assert strobes == 15
            self.writes.append((address, word))
            self.words[address] = word
            ctx.set(self._axil.bresp, self._response(address))
            await self._answer(ctx, "b")


class Line:
    """A bridge with a slave behind it, and the PC's end of its line."""

    def __init__(self, seed=0):
        self.dut = UartBridge(DIVISOR, BASE, SIZE, quiet_bits=QUIET)
        self.seed = seed
        self.slave = Slave(self.dut.axil, seed=seed)
        self.received = bytearray()

    def run(self, talk):
        """Simulate ``talk(ctx)``."""
        simulator = Simulator(self.dut)
        simulator.add_clock(PERIOD)

        async def listen(ctx):
            while True:
                await ctx.negedge(self.dut.o_line)
                await ctx.delay(1.5 * DIVISOR * PERIOD)
                byte = 0
                for bit in range(8):
                    byte |= ctx.get(self.dut.o_line) << bit
                    await ctx.delay(DIVISOR * PERIOD)
                assert ctx.get(self.dut.o_line), "no stop bit"
                self.received.append(byte)

        async def start(ctx):
            ctx.set(self.dut.i_line, 1)
            await ctx.delay(DIVISOR * PERIOD)
            await talk(ctx)
        for process in (listen, self.slave.serve_reads, self.slave.serve_writes):
            simulator.add_testbench(process, background=True)
        simulator.add_testbench(start)
        simulator.run()

    async def send(self, ctx, data):
        for byte in data:
            await send_bits(ctx, self.dut.i_line, frame(byte), DIVISOR)

    async def pause(self, ctx, bits):
        await ctx.delay(bits * DIVISOR * PERIOD)

    async def ask(self, ctx, data, expected):
        """A request, and the answer that must come."""
        self.received.clear()
        await self.send(ctx, data)
        for _ in range(FRAME_BITS * (len(expected) + 4) + QUIET):
            if len(self.received) >= len(expected):
                break
            await self.pause(ctx, 1)
        assert self.received == expected, f"seed {self.seed}: {self.received.hex()}, not {expected.hex()}"


@pytest.mark.parametrize("seed", range(3))
def test_words_are_written_and_read(seed):
    line = Line(seed)
    chance = random.Random(seed)

    async def talk(ctx):
        for count in (1, 2, 7):
            words = [chance.getrandbits(32) for _ in range(count)]
            address = chance.randrange(0, 0xF00, 4)
            await line.ask(ctx, request(2, count - 1, address, words), answer())
            assert line.slave.writes[-count:] == [(address + 4 * n, word) for n, word in enumerate(words)]
            await line.ask(ctx, request(1, count - 1, address), answer(words))
    line.run(talk)


def test_errors_of_the_bus_are_answered():
    line = Line()

    async def talk(ctx):
        line.slave.bad = {0x44}
        line.slave.words = {0x40: 7, 0x44: 8, 0x48: 9}
        await line.ask(ctx, request(1, 2, 0x40), answer([7, 8, 9], 2))
        await line.ask(ctx, request(2, 2, 0x40, [1, 2, 3]), answer(response=2))
        await line.ask(ctx, request(1, 0, 0x48), answer([3]))
    line.run(talk)


def test_describe_and_wait():
    line = Line()

    async def talk(ctx):
        await line.ask(ctx, request(4, 1), answer([BASE, SIZE]))
        await line.ask(ctx, request(3, 0, 30), answer([0]))
        ctx.set(line.dut.i_irq, 1)
        await line.ask(ctx, request(3, 0, 0xFFFFFFFF), answer([1]))
        ctx.set(line.dut.i_irq, 0)
        line.received.clear()
        await line.send(ctx, request(3, 0, 100))
        await line.pause(ctx, 60)
        # The start byte goes out at once, the rest with the interrupt.
        assert len(line.received) == 1
        ctx.set(line.dut.i_irq, 1)
        await line.pause(ctx, 85)
        assert line.received == answer([1])
    line.run(talk)


@pytest.mark.parametrize("damage", ["flipped", "lost", "noise", "op"])
def test_damaged_request_does_nothing_and_the_next_one_works(damage):
    """After ``QUIET_BITS`` of silence, whatever came before."""
    line = Line()
    chance = random.Random(3)
    good = request(2, 1, 0x40, [0x11111111, 0x5A5A5A5A])

    async def talk(ctx):
        for _ in range(6):
            bad = bytearray(good)
            if damage == "flipped":
                bad[chance.randrange(1, len(bad))] ^= 1 << chance.randrange(8)
            elif damage == "lost":
                del bad[chance.randrange(len(bad))]
            elif damage == "noise":
                bad[:] = b"\x5a" + chance.randbytes(5)
            else:
                bad[:] = request(chance.choice([0, 5, 0x82, 0xFF]))
            line.received.clear()
            await line.send(ctx, bad)
            await line.pause(ctx, QUIET + 2)
            assert not line.received and not line.slave.writes, f"seed 3, {bad.hex()}"
            await line.ask(ctx, request(1, 0, 0x44), answer([0]))
        await line.ask(ctx, good, answer())
        assert line.slave.writes == [(0x40, 0x11111111), (0x44, 0x5A5A5A5A)]
    line.run(talk)


def test_slow_bytes_are_one_request():
    """Pauses shorter than the silence that ends a request."""
    line = Line()

    async def talk(ctx):
        for byte in request(2, 0, 8, [99])[:-1]:
            await line.send(ctx, [byte])
            await line.pause(ctx, QUIET - FRAME_BITS - 2)
        await line.ask(ctx, request(2, 0, 8, [99])[-1:], answer())
    line.run(talk)
    assert line.slave.writes == [(8, 99)]


@pytest.mark.parametrize("part", [UartReceiver, UartTransmitter])
def test_divisors_that_are_too_small_are_refused(part):
    with pytest.raises(ValueError, match="at least 4 clock cycles for a bit, not 3"):
        part(3)
