"""A memory behind AXI4 that stalls on every channel and checks the rules of the protocol, and an AXI4-Lite master.

Rules checked: ``valid`` does not fall and nothing of a channel changes before its transfer; bursts are INCR, of 8-byte
beats, of at most ``max_burst`` beats and within 4 KiB; WLAST is where AWLEN says.
"""
import random
from collections import deque

from amaranth.hdl import Cat

PAGE = 4096
OKAY, SLVERR = 0, 2


class Channel:
    """One channel driven by the device under test: its ready, and a watch on valid and payload."""

    def __init__(self, axi, letter, names, chance, stall):
        self.letter, self.names = letter, names
        self.valid, self.ready = getattr(axi, f"{letter}valid"), getattr(axi, f"{letter}ready")
        self.signals = [getattr(axi, f"{letter}{name}") for name in names]
        self._chance, self._stall = chance, stall
        self._pending = None
        self.ready_now = False

    def roll(self, ctx, allowed=True):
        self.ready_now = allowed and self._chance.random() >= self._stall
        ctx.set(self.ready, self.ready_now)

    def take(self, valid, values, where):
        """The transfer of the cycle that has just passed as a dict, or None."""
        if self._pending is not None:
            assert valid, f"{self.letter}valid fell before its transfer ({where})"
            assert values == self._pending, f"{self.letter}: payload changed while stalled ({where})"
        taken = valid and self.ready_now
        self._pending = values if valid and not taken else None
        return dict(zip(self.names, values, strict=True)) if taken else None


class AxiMemory:
    """Memory of ``size`` bytes at address 0, as testbench processes of a :class:`~sim_tests.bench.stream.StreamBench`.

    ``axi`` may have the read channels, the write channels, or both. ``stall`` is the chance to stall in a cycle, for
    each of the five channels; ``latency`` the range of cycles from an address to its first beat or from WLAST to B.
    Answers of one id stay in order, others are drawn at random. ``bad`` is a set of pages (address // 4096) that answer
    SLVERR; accesses beyond ``size`` do so, too.

    ``data`` is the bytearray, ``reads`` and ``writes`` list (id, address, beats) of the bursts, ``strobes`` counts the
    bytes written, ``in_flight`` and ``most_in_flight`` the read bursts.
    """

    def __init__(self, bench, axi, *, size=1 << 16, seed=0, stall=0.0, latency=(2, 2), max_burst=16, bad=()):
        self.data = bytearray(size)
        self.reads, self.writes, self.strobes = [], [], 0
        self.most_in_flight = 0
        self.read_beats = self.write_beats = 0
        self.cycle = 0
        self._where = f"seed {seed}, stall {stall}"
        self._axi, self._seed, self._stall, self._latency = axi, seed, stall, latency
        self._max_burst, self._bad = max_burst, set(bad)
        self._reads, self._addresses, self._beats, self._answers = [], deque(), deque(), []
        if hasattr(axi, "arvalid"):
            bench.testbench(self._serve_reads, background=True)
        if hasattr(axi, "awvalid"):
            bench.testbench(self._serve_writes, background=True)

    @property
    def in_flight(self):
        """Read bursts that are not finished, and write bursts that are not answered."""
        return len(self._reads) + len(self._addresses) + len(self._answers)

    def _response(self, address):
        return SLVERR if address // PAGE in self._bad or address >= len(self.data) else OKAY

    def _check_burst(self, burst):
        address, beats = burst["addr"], burst["len"] + 1
        text = f"burst at {address:#x} of {beats} beats ({self._where})"
        assert burst["burst"] == 1 and burst["size"] == 3, f"not INCR of 8 bytes: {text}"
        assert beats <= self._max_burst, f"longer than {self._max_burst}: {text}"
        assert address % 8 == 0 and address // PAGE == (address + 8 * beats - 1) // PAGE, f"crosses 4 KiB: {text}"

    def _due(self, chance):
        return self.cycle + chance.randint(*self._latency)

    def _pick(self, pending, chance):
        """One of the entries that are due and the oldest of their id, or None."""
        oldest = {}
        for entry in pending:
            oldest.setdefault(entry["id"], entry)
        due = [entry for entry in oldest.values() if entry["due"] <= self.cycle]
        return chance.choice(due) if due else None

    async def _serve_reads(self, ctx):
        axi = self._axi
        chance = random.Random(f"{self._seed} reads")
        channel = Channel(axi, "ar", ("id", "addr", "len", "size", "burst"), chance, self._stall)
        driven = None
        channel.roll(ctx)
        while True:
            *_, valid, rready, payload = await ctx.tick().sample(channel.valid, axi.rready, Cat(*channel.signals))
            self.cycle += 1
            burst = channel.take(bool(valid), _split(channel.signals, payload), self._where)
            if burst:
                self._check_burst(burst)
                self.reads.append((burst["id"], burst["addr"], burst["len"] + 1))
                self._reads.append(burst | {"due": self._due(chance), "beat": 0})
                self.most_in_flight = max(self.most_in_flight, len(self._reads))
            if driven and rready:
                self.read_beats += 1
                driven["beat"] += 1
                if driven["beat"] > driven["len"]:
                    self._reads = [entry for entry in self._reads if entry is not driven]
                driven = None
            if driven is None and chance.random() >= self._stall:
                driven = self._pick(self._reads, chance)
            ctx.set(axi.rvalid, driven is not None)
            if driven:
                address = driven["addr"] + 8 * driven["beat"]
                ctx.set(axi.rid, driven["id"])
                ctx.set(axi.rdata, int.from_bytes(self.data[address:address + 8], "little"))
                ctx.set(axi.rresp, self._response(address))
                ctx.set(axi.rlast, driven["beat"] == driven["len"])
            channel.roll(ctx)

    async def _serve_writes(self, ctx):
        axi = self._axi
        chance = random.Random(f"{self._seed} writes")
        address = Channel(axi, "aw", ("id", "addr", "len", "size", "burst"), chance, self._stall)
        word = Channel(axi, "w", ("data", "strb", "last"), chance, self._stall)
        driven = None
        address.roll(ctx)
        word.roll(ctx)
        while True:
            *_, awvalid, wvalid, bready, aw, w = await ctx.tick().sample(
                address.valid, word.valid, axi.bready, Cat(*address.signals), Cat(*word.signals))
            self.cycle += not hasattr(axi, "arvalid")
            burst = address.take(bool(awvalid), _split(address.signals, aw), self._where)
            beat = word.take(bool(wvalid), _split(word.signals, w), self._where)
            if burst:
                self._check_burst(burst)
                self.writes.append((burst["id"], burst["addr"], burst["len"] + 1))
                self._addresses.append(burst | {"beat": 0})
            if beat:
                self.write_beats += 1
                self._beats.append(beat)
            self._store(chance)
            if driven and bready:
                self._answers = [entry for entry in self._answers if entry is not driven]
                driven = None
            if driven is None and chance.random() >= self._stall:
                driven = self._pick(self._answers, chance)
            ctx.set(axi.bvalid, driven is not None)
            if driven:
                ctx.set(axi.bid, driven["id"])
                ctx.set(axi.bresp, self._response(driven["addr"]))
            address.roll(ctx)
            word.roll(ctx)

    def _store(self, chance):
        """Bring beats and bursts together; data may have come first."""
        while self._beats and self._addresses:
            burst, beat = self._addresses[0], self._beats.popleft()
            place = burst["addr"] + 8 * burst["beat"]
            last = burst["beat"] == burst["len"]
            assert beat["last"] == last, f"wlast is {beat['last']} on beat {burst['beat']} of {burst} ({self._where})"
            for byte in range(8):
                if beat["strb"] >> byte & 1 and place < len(self.data):
                    self.data[place + byte] = beat["data"] >> 8 * byte & 0xFF
                    self.strobes += 1
            burst["beat"] += 1
            if last:
                self._answers.append(self._addresses.popleft() | {"due": self._due(chance)})


def _split(signals, word):
    values = []
    for signal in signals:
        values.append(word & (1 << len(signal)) - 1)
        word >>= len(signal)
    return values


class LiteMaster:
    """Reads and writes of one AXI4-Lite slave from a testbench. It watches that answers stay until they are taken."""

    def __init__(self, axi, *, seed=0, stall=0.0):
        self.axi = axi
        self._chance, self._stall = random.Random(f"{seed} lite"), stall
        self._where = f"seed {seed}, stall {stall}"

    async def _delay(self, ctx):
        while self._chance.random() < self._stall:
            await ctx.tick()

    async def _answer(self, ctx, letter, signal):
        valid, ready = getattr(self.axi, f"{letter}valid"), getattr(self.axi, f"{letter}ready")
        seen = None
        for _ in range(1000):
            go = self._chance.random() >= self._stall
            ctx.set(ready, go)
            *_, up, value, response = await ctx.tick().sample(valid, signal, getattr(self.axi, f"{letter}resp"))
            if seen is not None:
                assert up and (value, response) == seen, f"{letter}: changed before its transfer ({self._where})"
            if up and go:
                ctx.set(ready, 0)
                return value, response
            seen = (value, response) if up else None
        raise AssertionError(f"no {letter}valid in 1000 cycles ({self._where})")

    async def read(self, ctx, address):
        """Returns (word, response)."""
        await self._delay(ctx)
        ctx.set(self.axi.araddr, address)
        ctx.set(self.axi.arvalid, 1)
        taken = False
        while not taken:
            *_, taken = await ctx.tick().sample(self.axi.arready)
        ctx.set(self.axi.arvalid, 0)
        return await self._answer(ctx, "r", self.axi.rdata)

    async def write(self, ctx, address, word, *, strobe=15, order="both"):
        """``order``: "both" raises AW and W together, "address" or "data" raises that one first and the other after its
        transfer. Returns the response."""
        await self._delay(ctx)
        for name, value in (("awaddr", address), ("wdata", word), ("wstrb", strobe)):
            ctx.set(getattr(self.axi, name), value)
        todo = {"both": [{"aw", "w"}], "address": [{"aw"}, {"w"}], "data": [{"w"}, {"aw"}]}[order]
        for letters in todo:
            while letters:
                for letter in letters:
                    ctx.set(getattr(self.axi, f"{letter}valid"), 1)
                *_, aw, w = await ctx.tick().sample(self.axi.awready, self.axi.wready)
                for letter in [letter for letter, taken in (("aw", aw), ("w", w)) if taken and letter in letters]:
                    ctx.set(getattr(self.axi, f"{letter}valid"), 0)
                    letters.remove(letter)
            await self._delay(ctx)
        _, response = await self._answer(ctx, "b", self.axi.bresp)
        return response
