# amaranth: UnusedElaboratable=no
import random

import pytest

from hw.bus.burst import MAX_BURSTS, BurstScheduler, BurstTracker
from sim_tests.bench.stream import STALL_GRID, StreamBench


def split(address, beats, max_burst):
    """The bursts of a request: cut at every multiple of ``max_burst`` beats."""
    bursts = []
    while beats:
        step = min(beats, max_burst - address // 8 % max_burst)
        bursts.append((address // 8, step))
        address, beats = address + 8 * step, beats - step
    return bursts


def requests(chance, count, max_burst):
    lengths = [1, 2, max_burst, max_burst + 1, 3 * max_burst, chance.randint(1, 4 * max_burst)]
    return [{"address": chance.choice([chance.randrange(0, 1 << 32, 8), 4096 - 8, 4096 - 16 * 8]) % (1 << 31),
             "beats": chance.choice(lengths)} for _ in range(count)]


@pytest.mark.parametrize("stall", STALL_GRID)
@pytest.mark.parametrize("clients, max_burst", [(1, 16), (3, 16), (5, 4), (2, 1), (16, 256)])
def test_splits_every_request(clients, max_burst, stall):
    chance = random.Random(clients)
    dut = BurstScheduler(clients, max_burst)
    bench = StreamBench(dut, seed=clients)
    expected = []
    for n in range(clients):
        words = requests(chance, 40 // clients, max_burst)
        expected.append([burst for word in words for burst in split(word["address"], word["beats"], max_burst)])
        bench.source(dut.i_request[n], words, stall=stall[0])
    received = bench.sink(dut.o, count=sum(map(len, expected)), stall=stall[1])
    bench.run()
    for n in range(clients):
        bursts = [(burst["place"], burst["beats"]) for burst in received if burst["client"] == n]
        assert bursts == expected[n], f"client {n}, seed {clients}, stall {stall}"


def test_full_rate_and_latency_of_one_client():
    dut = BurstScheduler(2, 16)
    bench = StreamBench(dut)
    bench.source(dut.i_request[1], [{"address": 128 * n, "beats": 1 + n % 16} for n in range(40)])
    bench.sink(dut.o, count=40)
    cycles = bench.last_cycles
    bench.run()
    assert cycles == [1 + dut.LATENCY + n for n in range(40)]


def test_clients_take_turns():
    dut = BurstScheduler(3, 16)
    bench = StreamBench(dut)
    for n in range(3):
        bench.source(dut.i_request[n], [{"address": 0, "beats": 160}])
    received = bench.sink(dut.o, count=30)
    bench.run()
    clients = [burst["client"] for burst in received]
    assert all(sorted(clients[n:n + 3]) == [0, 1, 2] for n in range(0, 30, 3)), clients


def test_abort_forgets_requests():
    dut = BurstScheduler(2, 16)
    bench = StreamBench(dut)

    async def scenario(ctx):
        for client in dut.i_request:
            ctx.set(client.payload, {"address": 0, "beats": 1000})
            ctx.set(client.valid, 1)
        await ctx.tick().repeat(6)
        assert ctx.get(dut.o.valid)
        ctx.set(dut.i_abort, 1)
        await ctx.tick()
        ctx.set(dut.o.ready, 1)
        left = 0
        for _ in range(10):
            assert not ctx.get(dut.i_request[0].ready)
            left += ctx.get(dut.o.valid)
            await ctx.tick()
        assert left == 2, "what was issued leaves, and nothing else"
        assert ctx.get(dut.o_idle)
    bench.testbench(scenario)
    bench.run(deadline=100)


@pytest.mark.parametrize("parameters, text", [
    ((0, 16), "clients must be 1 to 16, not 0"), ((17, 16), "clients must be 1 to 16, not 17"),
    ((2, 12), "max_burst must be a power of two up to 256, not 12"),
    ((2, 512), "max_burst must be a power of two up to 256, not 512")])
def test_refuses_parameters(parameters, text):
    with pytest.raises(ValueError, match=text):
        BurstScheduler(*parameters)


@pytest.mark.parametrize("seed", range(5))
def test_tracker_names_the_first_failed_burst(seed):
    chance = random.Random(seed)
    dut = BurstTracker(3)
    bench = StreamBench(dut)

    async def scenario(ctx):
        flying, failed, seen_full = [[], [], []], [], False
        for cycle in range(300):
            assert ctx.get(dut.o_full) == (sum(map(len, flying)) == MAX_BURSTS)
            client, place = chance.randrange(3), chance.randrange(1 << 29)
            issue = not ctx.get(dut.o_full) and chance.random() < 0.8
            seen_full |= ctx.get(dut.o_full)
            answer = chance.randrange(3)
            respond = bool(flying[answer]) and chance.random() < 0.5
            last, error = chance.randrange(2), cycle > 100 and chance.random() < 0.1
            ctx.set(dut.i_issue, issue)
            ctx.set(dut.i_issue_client, client)
            ctx.set(dut.i_issue_place, place)
            ctx.set(dut.i_response, respond)
            ctx.set(dut.i_response_client, answer)
            ctx.set(dut.i_response_last, last)
            ctx.set(dut.i_response_error, error)
            if respond and error:
                failed.append(8 * flying[answer][0])
            if respond and last:
                flying[answer].pop(0)
            if issue:
                flying[client].append(place)
            await ctx.tick()
        ctx.set(dut.i_issue, 0)
        ctx.set(dut.i_response, 0)
        await ctx.tick().repeat(2)
        assert seen_full and failed
        assert ctx.get(dut.o_error) and ctx.get(dut.o_error_address) == failed[0], f"seed {seed}"
        ctx.set(dut.i_clear, 1)
        await ctx.tick()
        assert not ctx.get(dut.o_error)
    bench.testbench(scenario)
    bench.run(deadline=1000)
