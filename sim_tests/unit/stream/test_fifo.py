# amaranth: UnusedElaboratable=no
import random

import pytest
from amaranth.hdl import EnableInserter, Module, signed
from amaranth.lib import data
from amaranth.sim import Simulator

from hw.stream.fifo import MAX_LUT_DEPTH, StreamFifo, fifo_latency
from sim_tests.bench.stream import STALL_GRID, StreamBench

DEPTHS = [1, 2, 3, 8, MAX_LUT_DEPTH, MAX_LUT_DEPTH + 1]
PAIR = data.StructLayout({"value": signed(5), "last": 1})


def words(count, seed):
    chance = random.Random(seed)
    return [{"value": chance.randint(-16, 15), "last": chance.randint(0, 1)} for _ in range(count)]


@pytest.mark.parametrize("stall", STALL_GRID)
@pytest.mark.parametrize("depth", DEPTHS)
def test_keeps_words_and_order_under_stalls(depth, stall):
    sent = words(60, depth)
    dut = StreamFifo(PAIR, depth)
    bench = StreamBench(dut, seed=depth)
    bench.source(dut.i, sent, stall=stall[0])
    received = bench.sink(dut.o, count=len(sent), stall=stall[1])
    bench.run()
    assert received == sent, f"depth {depth}, stall {stall}"


@pytest.mark.parametrize("depth", [2, 8, MAX_LUT_DEPTH + 1])
def test_full_rate_and_latency(depth):
    dut = StreamFifo(8, depth)
    bench = StreamBench(dut)
    bench.source(dut.i, range(40))
    bench.sink(dut.o, count=40)
    cycles = bench.last_cycles
    bench.run()
    assert [cycle - cycles[0] for cycle in cycles] == list(range(40))
    # The first word is offered before the first clock edge, which is cycle 1 of the bench.
    assert cycles[0] == 1 + fifo_latency(dut.depth)


@pytest.mark.parametrize("depth", DEPTHS)
def test_takes_exactly_depth_words_and_counts_them(depth):
    dut = StreamFifo(8, depth)
    bench = StreamBench(dut)

    async def fill(ctx):
        ctx.set(dut.i.valid, 1)
        for number in range(depth + 6):
            assert ctx.get(dut.level) <= depth
            ctx.set(dut.i.payload, number)
            await ctx.tick()
        assert ctx.get(dut.level) == depth and not ctx.get(dut.i.ready)
        ctx.set(dut.i.valid, 0)
        ctx.set(dut.o.ready, 1)
        levels = []
        for _ in range(depth + 1):
            levels.append(ctx.get(dut.level))
            await ctx.tick()
        assert levels == list(range(depth, -1, -1))
    bench.testbench(fill)
    bench.run(deadline=500)


@pytest.mark.parametrize("depth", [0, -1, 1.5])
def test_refuses_depth(depth):
    with pytest.raises(ValueError, match="depth must be a positive integer"):
        StreamFifo(8, depth)


@pytest.mark.parametrize("depth", DEPTHS)
def test_without_moves_a_clock_edge_changes_nothing(depth):
    """A queue that gets no other edges shows the same in every cycle."""
    m = Module()
    always, resting = StreamFifo(8, depth), StreamFifo(8, depth)
    m.submodules.always, m.submodules.resting = always, EnableInserter(resting.o_moves)(resting)
    chance = random.Random(depth)

    async def bench(ctx):
        for cycle in range(600):
            busy = cycle // 100 % 2
            valid, ready, word = chance.random() < (.1, .9)[busy], chance.random() < .5, chance.randrange(256)
            for queue in (always, resting):
                ctx.set(queue.i.valid, valid)
                ctx.set(queue.i.payload, word)
                ctx.set(queue.o.ready, ready)
            shown = [(ctx.get(queue.i.ready), ctx.get(queue.level), ctx.get(queue.o.valid),
                      ctx.get(queue.o.payload) if ctx.get(queue.o.valid) else None) for queue in (always, resting)]
            assert shown[0] == shown[1], f"depth {depth}, cycle {cycle}"
            await ctx.tick()

    simulator = Simulator(m)
    simulator.add_clock(1e-8)
    simulator.add_testbench(bench)
    simulator.run()
