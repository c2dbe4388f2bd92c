import pytest
from amaranth.lib import data

from hw.stream.register import StreamRegister
from sim_tests.bench.stream import STALL_GRID, StreamBench


@pytest.mark.parametrize("stall", STALL_GRID)
@pytest.mark.parametrize("shape", [8, data.ArrayLayout(4, 2)], ids=str)
def test_passes_words_on_under_stalls(shape, stall):
    sent = [n if shape == 8 else [n % 16, 15 - n % 16] for n in range(100)]
    dut = StreamRegister(shape)
    bench = StreamBench(dut, seed=1)
    bench.source(dut.i, sent, stall=stall[0])
    received = bench.sink(dut.o, count=len(sent), stall=stall[1])
    bench.run()
    assert received == sent, f"seed 1, stall {stall}"


def test_full_rate_and_latency():
    dut = StreamRegister(8)
    bench = StreamBench(dut)
    bench.source(dut.i, range(40))
    bench.sink(dut.o, count=40)
    cycles = bench.last_cycles
    bench.run()
    assert cycles == [1 + dut.LATENCY + n for n in range(40)]


def test_no_path_from_one_side_to_the_other():
    dut = StreamRegister(8)
    bench = StreamBench(dut)

    async def toggle(ctx):
        for valid, ready in ((0, 0), (1, 0), (1, 0), (1, 0), (0, 1), (0, 1)):
            before = ctx.get(dut.i.ready), ctx.get(dut.o.valid), ctx.get(dut.o.payload)
            ctx.set(dut.i.payload, 0xA5)
            for trial in (1 - valid, valid):
                ctx.set(dut.i.valid, trial)
                ctx.set(dut.o.ready, 1 - ready if trial != valid else ready)
                assert (ctx.get(dut.i.ready), ctx.get(dut.o.valid), ctx.get(dut.o.payload)) == before
            await ctx.tick()
    bench.testbench(toggle)
    bench.run(deadline=50)
