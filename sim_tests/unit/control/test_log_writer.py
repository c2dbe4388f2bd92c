"""Log writer: the record in DRAM, under stalls."""
import random

import pytest

from hw.control.counters import COUNTER_BITS, counters_layout
from hw.control.log_writer import LogWriter
from hw.registers import COUNTERS, LOG_BYTES
from sim_tests.bench.stream import STALL_GRID, StreamBench

BEATS = LOG_BYTES // 8


@pytest.mark.parametrize("request_stall, data_stall", STALL_GRID)
def test_records_follow_each_other_under_stalls(request_stall, data_stall):
    seed = 3
    chance = random.Random(seed)
    high = 2 ** COUNTER_BITS - 1
    records = [dict.fromkeys((name for name, _ in COUNTERS), value) for value in (high, 0)]
    records += [{name: chance.randint(0, high) for name, _ in COUNTERS} for _ in range(2)]
    addresses = [0x1000, 0xFFFF_FF80, 0, chance.randrange(0, 2 ** 32, LOG_BYTES)]
    dut = LogWriter(counters_layout())
    bench = StreamBench(dut, seed=seed)
    requests = bench.sink(dut.o_request, count=len(records), stall=request_stall)
    data = bench.sink(dut.o_data, count=len(records) * BEATS, stall=data_stall)

    async def write(ctx):
        for number, (record, address) in enumerate(zip(records, addresses, strict=True)):
            assert ctx.get(dut.o_idle)
            ctx.set(dut.i_counters, record)
            ctx.set(dut.i_address, address)
            ctx.set(dut.i_write, 1)
            await ctx.tick()
            ctx.set(dut.i_write, 0)
            assert not ctx.get(dut.o_idle)
            while not ctx.get(dut.o_idle):
                assert ctx.get(dut.o_request.valid) + ctx.get(dut.o_data.valid) == 1, "data before their request"
                await ctx.tick()
            assert len(data) == (number + 1) * BEATS, "idle before the last beat"
            await ctx.tick().repeat(chance.randint(0, 3))
    bench.testbench(write)
    bench.run()
    assert requests == [{"address": address, "beats": BEATS} for address in addresses], f"seed {seed}"
    expected = [[*record.values(), *[0] * (BEATS - len(COUNTERS))] for record in records]
    assert data == sum(expected, []), f"seed {seed}"


def test_a_record_takes_one_cycle_a_beat_and_one_for_its_request():
    dut = LogWriter(counters_layout())
    bench = StreamBench(dut)
    bench.sink(dut.o_request, count=1)
    asked = bench.last_cycles
    bench.sink(dut.o_data, count=BEATS)
    sent = bench.last_cycles

    async def write(ctx):
        ctx.set(dut.i_write, 1)
        await ctx.tick()
        ctx.set(dut.i_write, 0)
    bench.testbench(write)
    bench.run()
    assert sent == [asked[0] + 1 + n for n in range(BEATS)]
