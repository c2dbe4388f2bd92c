"""The drain alone: partial sums that wrap, and the shortest distance of windows."""
import random

from amaranth import *
from amaranth.lib import data

from hw.array.broadcast.bit_walker import MIN_WINDOW_CYCLES
from hw.array.broadcast.drain import Drain
from hw.configs import CONFIGS
from sim_tests.bench.stream import StreamBench

CONFIG = CONFIGS["tiny"]


class LanesAndDrain(Elaboratable):
    """The shadow registers of the units, in short, in front of the drain."""

    def __init__(self):
        self.drain = Drain(CONFIG)
        self.lanes = Signal(data.ArrayLayout(signed(CONFIG.lane_sum_width), CONFIG.lanes))

    def elaborate(self, platform):
        m = Module()
        m.submodules.drain = drain = self.drain
        shadow = Signal.like(self.lanes.as_value())
        m.d.comb += drain.i_lanes.eq(shadow)
        with m.If(drain.i_load):
            m.d.sync += shadow.eq(self.lanes)
        with m.Elif(drain.o_shift):
            m.d.sync += shadow.eq(shadow >> CONFIG.drain * CONFIG.lane_sum_width)
        return m


def test_partial_sums_wrap_at_the_shortest_distance():
    """Chunks of one window of one word, as close as the bit walker sends them."""
    seed, chunks = 5, 300
    rng = random.Random(seed)
    limit = 1 << CONFIG.lane_sum_width - 1
    lanes = [[limit - 1, -limit, rng.randrange(-limit, limit), chunk % 2] + [7] * (CONFIG.lanes - 4)
             for chunk in range(chunks)]
    expected = [(sum(lane) + (1 << 31)) % (1 << 32) - (1 << 31) for lane in list(zip(*lanes, strict=True))[:4]]
    assert abs(sum(lane[0] for lane in lanes)) >= 1 << 31
    top = LanesAndDrain()
    dut = top.drain
    bench = StreamBench(top, seed=seed)
    received = bench.sink(dut.o, count=1)

    async def load(ctx):
        ctx.set(dut.i_words, 1)
        for chunk, sums in enumerate(lanes):
            ctx.set(top.lanes, sums)
            ctx.set(dut.i_load, 1)
            ctx.set(dut.i_restart, 1)
            ctx.set(dut.i_first_chunk, chunk == 0)
            ctx.set(dut.i_last_chunk, chunk == chunks - 1)
            await ctx.tick()
            ctx.set(dut.i_load, 0)
            await ctx.tick().repeat(MIN_WINDOW_CYCLES - 1)
    bench.testbench(load)
    bench.run()
    assert received == [expected], f"seed {seed}"


def test_words_of_a_window_leave_in_order_after_the_latency():
    top = LanesAndDrain()
    dut = top.drain
    bench = StreamBench(top)
    sums = [n - 8 for n in range(CONFIG.lanes)]
    received = bench.sink(dut.o, count=2 * CONFIG.window_words)
    cycles = bench.last_cycles

    async def load(ctx):
        ctx.set(dut.i_words, CONFIG.window_words)
        ctx.set(dut.i_first_chunk, 1)
        ctx.set(dut.i_last_chunk, 1)
        for _ in range(2):
            ctx.set(top.lanes, sums)
            ctx.set(dut.i_load, 1)
            await ctx.tick()
            ctx.set(dut.i_load, 0)
            ctx.set(top.lanes, [99] * CONFIG.lanes)
            await ctx.tick().repeat(CONFIG.window_words - 1)
    bench.testbench(load)
    bench.run()
    assert received == 2 * [sums[n:n + CONFIG.drain] for n in range(0, CONFIG.lanes, CONFIG.drain)]
    assert cycles == [cycles[0] + n for n in range(2 * CONFIG.window_words)]
    assert cycles[0] in (Drain.LATENCY, Drain.LATENCY + 1)
