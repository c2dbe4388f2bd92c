# amaranth: UnusedElaboratable=no
"""The sum joiner alone: order of the lanes under stalls, words that wait, rate."""
import random
from dataclasses import replace

import pytest

from hw.array.intersect.sum_joiner import SumJoiner
from hw.configs import CONFIGS
from sim_tests.bench.stream import STALL_GRID, StreamBench

#: One step a word; two; four clusters with four.
CONFIGS_JOINED = [replace(CONFIGS["tiny_snapea"], clusters=4), CONFIGS["tiny_snapea"], CONFIGS["snapea"]]


def random_words(config, count, seed):
    """Words of ``drain`` sums, and for each cluster its sums in order."""
    rng, limit = random.Random(seed), 1 << config.sum_width - 1
    words = [[rng.choice((0, limit - 1, -limit, rng.randrange(-limit, limit))) for _ in range(config.drain)]
             for _ in range(count)]
    return words, [[value for word in words for value in word[n::config.clusters]] for n in range(config.clusters)]


@pytest.mark.parametrize("config", CONFIGS_JOINED, ids=lambda config: f"{config.clusters} of {config.drain}")
@pytest.mark.parametrize("stalls", STALL_GRID)
def test_lanes_come_in_order(config, stalls):
    seed, count = 7, 40
    words, sums = random_words(config, count, seed)
    dut = SumJoiner(config)
    bench = StreamBench(dut, seed=seed)
    for port, values in zip(dut.i, sums, strict=True):
        bench.source(port, values, stall=stalls[0])
    received = bench.sink(dut.o, count=count, stall=stalls[1])
    bench.run()
    assert received == words, f"seed {seed}"


@pytest.mark.parametrize("config", CONFIGS_JOINED, ids=lambda config: f"{config.clusters} of {config.drain}")
def test_two_windows_wait(config):
    """Nobody takes a word for long: two windows are joined, no sum more is taken, and all of it leaves in a row."""
    seed, steps, depth = 8, config.drain // config.clusters, 2 * config.lanes // config.drain
    waiting = depth * steps
    words, sums = random_words(config, depth + 3, seed)
    dut = SumJoiner(config)
    bench = StreamBench(dut, seed=seed)
    taken, left = [], []

    async def watch(ctx):
        while len(left) < len(words):
            # From here on the sink takes what there is.
            ctx.set(dut.o.ready, len(taken) >= waiting and cycle[0] > waiting + 20)
            *_, took, leaves = await ctx.tick().sample(dut.i[0].ready & dut.i[0].valid, dut.o.valid & dut.o.ready)
            cycle[0] += 1
            taken.extend([cycle[0]] * took)
            left.extend([cycle[0]] * leaves)
            assert not ctx.get(dut.o_idle) or len(left) == len(words)

    cycle = [0]
    for port, values in zip(dut.i, sums, strict=True):
        bench.source(port, values)
    bench.testbench(watch)
    bench.run()
    before = [at for at in taken if at <= waiting + 20]
    assert len(before) == waiting and before[-1] - before[0] == waiting - 1, "a sum a cycle"
    assert left[depth - 1] - left[0] == depth - 1, "a word a cycle"
