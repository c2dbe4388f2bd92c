"""The beats of a round, lane by lane, to the clusters."""
import random
from dataclasses import replace

import pytest

from hw.array.intersect.round_loader import LaneSplitter
from hw.configs import CONFIGS
from sim_tests.bench.stream import STALL_GRID, StreamBench

TINY = CONFIGS["tiny_snapea"]
WORDS = 9
SIZES = [replace(TINY, name=f"c{clusters}_{block}", lanes=64, drain=4, block=block, weight_depth=WORDS * block,
                 clusters=clusters) for clusters, block in ((1, 64), (2, 16), (4, 32))]


def lane_beats(config, words, maps, density, chance):
    """The beats of a lane, what lies behind its last map being garbage."""
    ones = [sum(1 << n for n in range(config.block) if chance.random() < density) for _ in range(words * maps)]
    image, parts = sum(bits << n * config.block for n, bits in enumerate(ones)), 64 // config.block
    beats = -(-len(ones) // parts)
    image |= chance.getrandbits(64) << len(ones) * config.block
    values = -(-sum(bits.bit_count() for bits in ones) // 8)
    return [chance.getrandbits(64), *(image >> 64 * n & 2**64 - 1 for n in range(beats)),
            *(chance.getrandbits(64) for _ in range(values))]


@pytest.mark.parametrize("stall", STALL_GRID[::2])
@pytest.mark.parametrize("config", SIZES, ids=lambda config: config.name)
def test_each_cluster_gets_the_beats_of_its_lanes(config, stall):
    chance = random.Random(f"{config.name} {stall}")
    rounds, beats, expected = [], [], [[] for _ in range(config.clusters)]
    for number in range(6):
        lanes, words, maps = chance.randint(1, 9), chance.choice((1, 3, WORDS)), chance.randint(1, 4)
        rounds.append({"lanes": lanes, "words": words, "joined": maps - 1})
        for lane in range(lanes):
            own = lane_beats(config, words, maps, (0, 0.02, 0.3, 1)[(number + lane) % 4] / maps, chance)
            beats += own
            expected[lane % config.clusters] += own
    dut = LaneSplitter(config=config)
    bench = StreamBench(dut, seed=7)
    bench.source(dut.i, rounds)
    bench.source(dut.i_beats, beats, stall=stall[0])
    received = [bench.sink(port, count=len(own), stall=stall[1])
                for port, own in zip(dut.o, expected, strict=True)]
    bench.run()
    assert received == expected


def test_a_beat_in_every_cycle():
    """But one for a lane without values, and one for a round."""
    config, chance = SIZES[1], random.Random(3)
    lanes = [lane_beats(config, 5, 2, density, chance) for density in (1, 0, 0.4, 0)]
    dut = LaneSplitter(config=config)
    bench = StreamBench(dut)
    bench.source(dut.i, [{"lanes": 4, "words": 5, "joined": 1}])
    bench.source(dut.i_beats, sum(lanes, []))
    bench.sink(dut.o[0], count=len(lanes[0]) + len(lanes[2]))
    bench.sink(dut.o[1], count=len(lanes[1]) + len(lanes[3]))
    cycles = bench.last_cycles
    bench.run()
    # From the first beat of lane 1 to the last one of lane 3: lane 1 costs a cycle more.
    assert cycles[-1] - cycles[0] == sum(map(len, lanes[1:])) + 1 - 1
