"""Bench for parts with streams: sources and sinks that stall, with the stream contract watched at every sink.

A sink checks that ``valid`` does not fall and the payload does not change before the transfer, and that nothing follows
the last expected word for 20 cycles. The deadline turns a hang into a failure.
"""
import itertools
import random

from amaranth.lib import data
from amaranth.sim import Simulator

#: A sink that raises ready only after it has seen valid, and drops it after each transfer.
PATIENT = "patient"
#: (source, sink): how likely each stalls in a cycle.
STALL_GRID = [*itertools.product((0.0, 0.5, 0.9), repeat=2), (0.0, PATIENT)]


def plain(value):
    """A payload as plain integers, lists and dicts."""
    if isinstance(value, data.Const):
        layout = value.shape()
        if isinstance(layout, data.ArrayLayout):
            return [plain(value[index]) for index in range(layout.length)]
        return {name: plain(value[name]) for name, _ in layout}
    return int(value)


class StreamBench:
    """Drives and watches the streams of one component; ``seed`` fixes every stall.

    >>> bench = StreamBench(dut, seed=1)
    >>> bench.source(dut.i, words, stall=0.5)
    >>> received = bench.sink(dut.o, count=len(words), stall=0.9)
    >>> cycles = bench.run()
    """

    def __init__(self, dut, *, seed=0):
        self.seed = seed
        self._sinks = 0
        self._cycle = 0
        self._sources = 0
        self._sim = Simulator(dut)
        self._sim.add_clock(1e-8)
        self._sim.add_process(self._count)

    async def _count(self, ctx):
        async for _ in ctx.tick():
            self._cycle += 1

    def testbench(self, function, *, background=False):
        """Add a testbench ``async function(ctx)``; the run lasts until all that are not background have ended."""
        self._sim.add_testbench(function, background=background)

    def source(self, stream, words, *, stall=0.0, noise=False):
        """Send ``words`` (integers or dicts, as the payload takes them), stalling with probability ``stall``.

        With ``noise`` the payload of a stall is another of the words: nothing of it may be kept.
        """
        chance = random.Random(f"{self.seed} source {self._sinks} {self._sources}")
        self._sources += 1

        async def send(ctx):
            for word in words:
                while chance.random() < stall:
                    if noise:
                        ctx.set(stream.payload, chance.choice(words))
                    await ctx.tick()
                ctx.set(stream.payload, word)
                ctx.set(stream.valid, 1)
                while True:
                    *_, taken = await ctx.tick().sample(stream.ready)
                    if taken:
                        break
                ctx.set(stream.valid, 0)
        self._sim.add_testbench(send, background=True)

    def sink(self, stream, *, count, stall=0.0):
        """Receive ``count`` words into the returned list (as plain integers, lists, dicts) and watch the contract.

        ``last_cycles`` is the list of the cycles of its transfers, filled likewise.
        """
        chance = random.Random(f"{self.seed} sink {self._sinks}")
        self._sinks += 1
        received, cycles = [], []
        self.last_cycles = cycles

        async def receive(ctx):
            pending, quiet, ready = None, 0, False
            while len(received) < count or quiet < 20:
                if stall == PATIENT:
                    ready = pending is not None
                else:
                    ready = chance.random() >= stall
                ctx.set(stream.ready, ready)
                *_, valid, payload = await ctx.tick().sample(stream.valid, stream.payload)
                raw = int(payload.as_bits()) if isinstance(payload, data.Const) else int(payload)
                if pending is not None:
                    assert valid, f"valid fell before the transfer of word {len(received)} (seed {self.seed})"
                    assert raw == pending, f"payload of word {len(received)} changed while stalled (seed {self.seed})"
                if valid and ready:
                    assert len(received) < count, f"word {len(received)} follows the last (seed {self.seed})"
                    received.append(plain(payload))
                    cycles.append(self._cycle)
                pending = raw if valid and not ready else None
                quiet = quiet + 1 if len(received) >= count else 0
            ctx.set(stream.ready, 0)
        self._sim.add_testbench(receive)
        return received

    def run(self, *, deadline=100_000):
        """Run until all sinks and foreground testbenches are done, at most ``deadline`` cycles. Returns the cycles."""
        async def guard(ctx):
            for _ in range(deadline):
                await ctx.tick()
            raise AssertionError(f"not done after {deadline} cycles (seed {self.seed})")
        self._sim.add_testbench(guard, background=True)
        self._sim.run()
        return self._cycle


