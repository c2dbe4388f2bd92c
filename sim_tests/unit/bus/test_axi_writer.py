import random

import pytest

from hw.bus.axi_writer import AxiWriter
from sim_tests.bench.axi import AxiMemory
from sim_tests.bench.stream import StreamBench

SIZE = 1 << 15


def build(clients=3, max_burst=16, seed=1, **options):
    dut = AxiWriter(clients, max_burst)
    bench = StreamBench(dut, seed=seed)
    memory = AxiMemory(bench, dut.axi, size=SIZE, seed=seed, max_burst=max_burst, **options)
    return dut, bench, memory


def until_idle(bench, dut, memory, bursts):
    """End the run once ``bursts`` bursts are answered and the part says that it is idle."""
    async def wait(ctx):
        while len(memory.writes) < bursts or not ctx.get(dut.o_idle):
            await ctx.tick()
        assert not memory.in_flight, "idle before the last answer"
        await ctx.tick().repeat(20)
        assert ctx.get(dut.o_idle) and len(memory.writes) == bursts
    bench.testbench(wait)


def plan(chance, client, clients, count):
    """Requests of one client in a part of the memory of its own, which do not overlap, and their words."""
    size = SIZE // clients
    address, requests, words = client * size + 8 * chance.randrange(16), [], []
    for _ in range(count):
        beats = chance.choice([1, 2, 16, 17, 40])
        requests.append({"address": address, "beats": beats})
        words += [chance.getrandbits(64) for _ in range(beats)]
        address += 8 * (beats + chance.randrange(8))
    assert address <= (client + 1) * size
    return requests, words


@pytest.mark.parametrize("source_stall", [0.0, 0.5, 0.9])
@pytest.mark.parametrize("clients, max_burst, memory_stall, latency",
                         [(1, 16, 0.0, (1, 1)), (3, 16, 0.5, (1, 30)), (5, 4, 0.8, (1, 9)), (2, 1, 0.2, (20, 30))])
def test_every_word_arrives_and_nothing_else_changes(clients, max_burst, memory_stall, latency, source_stall):
    dut, bench, memory = build(clients, max_burst, stall=memory_stall, latency=latency)
    chance = random.Random(clients)
    expected, bursts = bytearray(SIZE), 0
    for n in range(clients):
        requests, words = plan(chance, n, clients, 1 + 4 // clients)
        remaining = iter(words)
        for request in requests:
            first, beats = request["address"] // 8, request["beats"]
            bursts += (first + beats - 1) // max_burst - first // max_burst + 1
            for at in range(first, first + beats):
                expected[8 * at:8 * at + 8] = next(remaining).to_bytes(8, "little")
        bench.source(dut.i_request[n], requests, stall=source_stall)
        bench.source(dut.i_data[n], words, stall=source_stall)
    until_idle(bench, dut, memory, bursts)
    bench.run(deadline=5000)
    assert memory.data == expected, f"seed 1, stalls {source_stall}, memory {memory_stall}, latency {latency}"
    assert memory.strobes == 8 * memory.write_beats


def test_full_rate():
    dut, bench, memory = build(1, latency=(20, 20))
    bench.source(dut.i_request[0], [{"address": 4096 - 24, "beats": 168}])
    bench.source(dut.i_data[0], range(168))
    until_idle(bench, dut, memory, 12)
    beats = []

    async def watch(ctx):
        cycle = 0
        while len(beats) < 168:
            *_, beat = await ctx.tick().sample(dut.o_beats)
            beats.extend([cycle] * beat)
            cycle += 1
    bench.testbench(watch)
    bench.run(deadline=5000)
    assert [beats for _, _, beats in memory.writes] == [3] + [16] * 10 + [5]
    assert beats[-1] - beats[0] == 167, "a beat each cycle"


def test_data_do_not_wait_for_the_address_to_be_taken():
    dut = AxiWriter(1, 16)
    bench = StreamBench(dut)
    bench.source(dut.i_request[0], [{"address": 0, "beats": 4}])
    bench.source(dut.i_data[0], range(4))

    async def watch(ctx):
        ctx.set(dut.axi.wready, 1)
        beats = []
        for _ in range(20):
            *_, valid, word, last = await ctx.tick().sample(dut.axi.wvalid, dut.axi.wdata, dut.axi.wlast)
            beats += [(word, last)] * valid
        assert beats == [(0, 0), (1, 0), (2, 0), (3, 1)] and ctx.get(dut.axi.awvalid)
    bench.testbench(watch)
    bench.run(deadline=5000)


def test_eight_addresses_run_ahead_of_data():
    dut, bench, memory = build(1)

    async def scenario(ctx):
        ctx.set(dut.i_request[0].payload, {"address": 0, "beats": 160})
        ctx.set(dut.i_request[0].valid, 1)
        await ctx.tick()
        ctx.set(dut.i_request[0].valid, 0)
        await ctx.tick().repeat(40)
        assert len(memory.writes) == 8 and not ctx.get(dut.axi.wvalid)
    bench.testbench(scenario)
    bench.run(deadline=5000)


@pytest.mark.parametrize("seed", range(4))
def test_error_names_its_burst(seed):
    dut, bench, memory = build(2, seed=seed, bad={3}, stall=0.3, latency=(1, 30))
    for n, request in enumerate([{"address": 0, "beats": 64}, {"address": 3 * 4096 - 64, "beats": 40}]):
        bench.source(dut.i_request[n], [request])
        bench.source(dut.i_data[n], range(request["beats"]))
    until_idle(bench, dut, memory, 4 + 3)

    async def watch(ctx):
        while not ctx.get(dut.o_error):
            await ctx.tick()
        assert ctx.get(dut.o_error_address) == 3 * 4096, f"seed {seed}"
    bench.testbench(watch)
    bench.run(deadline=5000)


@pytest.mark.parametrize("at", [0, 1, 2, 3, 4, 5, 7, 12, 33, 60])
@pytest.mark.parametrize("memory_stall", [0.0, 0.7])
def test_abort_completes_bursts_without_writing(at, memory_stall):
    seed = at
    dut, bench, memory = build(2, seed=seed, stall=memory_stall, latency=(5, 20), bad={0})

    async def send(ctx, client, request, words):
        ctx.set(dut.i_request[client].payload, request)
        ctx.set(dut.i_request[client].valid, 1)
        await ctx.tick()
        ctx.set(dut.i_request[client].valid, 0)
        for word in words:
            ctx.set(dut.i_data[client].payload, word)
            ctx.set(dut.i_data[client].valid, 1)
            taken = False
            while not taken:
                *_, taken = await ctx.tick().sample(dut.i_data[client].ready)
        ctx.set(dut.i_data[client].valid, 0)

    async def scenario(ctx):
        # Client 0 has data, client 1 requests and never has any.
        for client in dut.i_request:
            ctx.set(client.payload, {"address": 0, "beats": 3000})
            ctx.set(client.valid, 1)
        ctx.set(dut.i_data[0].valid, 1)
        await ctx.tick().repeat(at + 1)
        ctx.set(dut.i_abort, 1)
        for client in dut.i_request:
            ctx.set(client.valid, 0)
        # A word may wait in the register of the W channel, and one may be on the bus.
        written, waited = memory.strobes, 0
        while not ctx.get(dut.o_idle):
            assert not ctx.get(dut.i_data[0].ready) and not ctx.get(dut.i_data[1].ready)
            await ctx.tick()
            waited += 1
            assert waited < 3000, f"not idle after an abort (seed {seed})"
        assert not memory.in_flight and memory.strobes <= written + 3 * 8, f"seed {seed}"
        assert memory.write_beats == sum(beats for *_, beats in memory.writes)
        assert ctx.get(dut.o_error) == bool(memory.writes)
        ctx.set(dut.i_data[0].valid, 0)
        ctx.set(dut.i_abort, 0)
        await ctx.tick().repeat(2)
        assert not ctx.get(dut.o_error)
        await send(ctx, 1, {"address": 8192, "beats": 30}, range(30))
        while not ctx.get(dut.o_idle):
            await ctx.tick()
        assert memory.data[8192:8192 + 240] == b"".join(n.to_bytes(8, "little") for n in range(30)), f"seed {seed}"
    bench.testbench(scenario)
    bench.run(deadline=5000)
