import random

import pytest

from hw.bus.axi_reader import AxiReader
from sim_tests.bench.axi import AxiMemory
from sim_tests.bench.stream import STALL_GRID, StreamBench

SIZE = 1 << 15


def random_requests(chance, count, longest=24):
    return [{"address": chance.randrange(0, SIZE - 8 * longest, 8), "beats": chance.choice([1, 2, 16, 17, longest])}
            for _ in range(count)]


def words_at(data, request):
    return [int.from_bytes(data[at:at + 8], "little")
            for at in range(request["address"], request["address"] + 8 * request["beats"], 8)]


def build(clients=3, max_burst=16, seed=1, **options):
    dut = AxiReader(clients, max_burst)
    bench = StreamBench(dut, seed=seed)
    memory = AxiMemory(bench, dut.axi, size=SIZE, seed=seed, max_burst=max_burst, **options)
    memory.data[:] = random.Random(seed).randbytes(SIZE)
    return dut, bench, memory


@pytest.mark.parametrize("stall", STALL_GRID)
@pytest.mark.parametrize("clients, max_burst, memory_stall, latency",
                         [(1, 16, 0.0, (1, 1)), (3, 16, 0.5, (1, 30)), (5, 4, 0.8, (1, 9)), (2, 1, 0.2, (20, 30))])
def test_every_client_gets_its_words(clients, max_burst, memory_stall, latency, stall):
    dut, bench, memory = build(clients, max_burst, stall=memory_stall, latency=latency)
    chance = random.Random(clients)
    expected, received = [], []
    for n in range(clients):
        requests = random_requests(chance, 1 + 4 // clients)
        expected.append([word for request in requests for word in words_at(memory.data, request)])
        bench.source(dut.i_request[n], requests, stall=stall[0])
        received.append(bench.sink(dut.o_data[n], count=len(expected[n]), stall=stall[1]))
    bench.run(deadline=5000)
    assert received == expected, f"seed 1, stalls {stall}, memory {memory_stall}, latency {latency}"
    assert memory.read_beats == sum(map(len, expected))
    assert len(memory.reads) >= clients and {burst[0] for burst in memory.reads} == set(range(clients))


def test_long_request_takes_aligned_bursts_at_full_rate():
    dut, bench, memory = build(1, latency=(20, 20))
    bench.source(dut.i_request[0], [{"address": 4096 - 3 * 8, "beats": 3 + 160 + 5}])
    bench.sink(dut.o_data[0], count=168)
    cycles = bench.last_cycles
    bench.run(deadline=5000)
    assert [beats for _, _, beats in memory.reads] == [3] + [16] * 10 + [5]
    assert all(address % 128 == 0 for _, address, _ in memory.reads[1:])
    assert cycles[-1] - cycles[0] == 167, "a beat each cycle"


def test_up_to_sixteen_bursts_are_in_flight():
    dut, bench, memory = build(2, latency=(100, 100))
    received = []
    for n in range(2):
        bench.source(dut.i_request[n], [{"address": 4096 * n, "beats": 20 * 16}])
        received.append(bench.sink(dut.o_data[n], count=320))
    bench.run(deadline=5000)
    assert memory.most_in_flight == 16


def test_idle_and_beats():
    dut, bench, memory = build(2, latency=(10, 10))
    request = {"address": 512, "beats": 20}
    bench.source(dut.i_request[1], [request])
    received = bench.sink(dut.o_data[1], count=20, stall=0.5)
    seen = []

    async def watch(ctx):
        beats = 0
        assert ctx.get(dut.o_idle)
        await ctx.tick()
        while len(received) < 20:
            assert not ctx.get(dut.o_idle)
            *_, beat = await ctx.tick().sample(dut.o_beats)
            beats += beat
        await ctx.tick()
        assert ctx.get(dut.o_idle)
        seen.append(beats)
    bench.testbench(watch)
    bench.run(deadline=5000)
    assert seen == [20] and received == words_at(memory.data, request)


@pytest.mark.parametrize("seed", range(4))
def test_error_names_its_burst_and_data_still_come(seed):
    dut, bench, memory = build(2, seed=seed, bad={3}, stall=0.3, latency=(1, 30))
    bench.source(dut.i_request[0], [{"address": 0, "beats": 100}])
    bench.source(dut.i_request[1], [{"address": 3 * 4096 - 64, "beats": 50}])
    received = [bench.sink(dut.o_data[n], count=count) for n, count in enumerate((100, 50))]

    async def watch(ctx):
        while not ctx.get(dut.o_idle) or len(received[1]) < 50:
            await ctx.tick()
        assert ctx.get(dut.o_error) and ctx.get(dut.o_error_address) == 3 * 4096, f"seed {seed}"
    bench.testbench(watch)
    bench.run(deadline=5000)
    assert not memory.in_flight and len(received[0]) == 100


def test_no_error_without_a_cause():
    dut, bench, memory = build(2)
    bench.source(dut.i_request[0], [{"address": 0, "beats": 100}])
    bench.sink(dut.o_data[0], count=100)

    async def watch(ctx):
        for _ in range(200):
            assert not ctx.get(dut.o_error)
            await ctx.tick()
    bench.testbench(watch)
    bench.run(deadline=5000)


@pytest.mark.parametrize("at", [0, 1, 2, 3, 4, 5, 7, 12, 33, 60])
@pytest.mark.parametrize("memory_stall", [0.0, 0.7])
def test_abort_empties_the_bus_and_leaves_the_part_usable(at, memory_stall):
    seed = at
    dut, bench, memory = build(2, seed=seed, stall=memory_stall, latency=(5, 20), bad={0})
    request = {"address": 4096 * 2, "beats": 30}

    async def scenario(ctx):
        # Client 0 takes no data, so the R channel is stuck when the abort comes.
        ctx.set(dut.o_data[1].ready, 1)
        for client in dut.i_request:
            ctx.set(client.payload, {"address": 0, "beats": 3000})
            ctx.set(client.valid, 1)
        await ctx.tick().repeat(at + 1)
        ctx.set(dut.i_abort, 1)
        for client in dut.i_request:
            ctx.set(client.valid, 0)
        waited = 0
        while not ctx.get(dut.o_idle):
            assert not ctx.get(dut.o_data[0].valid) and not ctx.get(dut.o_data[1].valid)
            await ctx.tick()
            waited += 1
            assert waited < 3000, f"not idle after an abort (seed {seed})"
        error, bursts = ctx.get(dut.o_error), len(memory.reads)
        assert not memory.in_flight and bool(bursts) == bool(error)
        await ctx.tick().repeat(10)
        assert ctx.get(dut.o_error) == error and len(memory.reads) == bursts and ctx.get(dut.o_idle)
        ctx.set(dut.i_abort, 0)
        await ctx.tick().repeat(2)
        assert not ctx.get(dut.o_error)

        ctx.set(dut.i_request[1].payload, request)
        ctx.set(dut.i_request[1].valid, 1)
        await ctx.tick()
        ctx.set(dut.i_request[1].valid, 0)
        received = []
        while len(received) < request["beats"]:
            *_, valid, word = await ctx.tick().sample(dut.o_data[1].valid, dut.o_data[1].payload)
            received += [word] * valid
        assert received == words_at(memory.data, request), f"seed {seed}"
    bench.testbench(scenario)
    bench.run(deadline=5000)
