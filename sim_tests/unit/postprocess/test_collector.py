"""The collector against the loop order of golden/README.md, written out as loops."""
import random

import pytest

from hw.config import AcceleratorConfig
from hw.configs import CONFIGS
from hw.postprocess.collector import Collector
from sim_tests.bench.stream import STALL_GRID, StreamBench

CONFIG_LIST = [
    CONFIGS["tiny"],
    AcceleratorConfig("t16", value_width=16, groups=3, lanes=32, block=32, drain=8, weight_depth=64, tile_slots=32,
                      sum_windows=16),
    AcceleratorConfig("t8", value_width=8, groups=2, lanes=32, block=16, drain=4, weight_depth=64, tile_slots=32,
                      sum_windows=16),
    AcceleratorConfig("t1", value_width=8, groups=1, lanes=16, block=16, drain=16, weight_depth=64, tile_slots=32,
                      sum_windows=16),
    CONFIGS["snapea"],
]


def make_job(config, *, rows, columns, y=0, x=0, block=0, words=None, pass_first=0, scales_first=0, scales_last=0):
    return {"rows": rows, "columns": columns, "y": y, "x": x, "block": block,
            "words": words or config.window_words, "pass_first": pass_first, "scales_first": scales_first,
            "scales_last": scales_last}


def random_jobs(config, count, chance):
    jobs = []
    for number in range(count):
        first = not jobs or jobs[-1]["scales_last"]
        jobs.append(make_job(
            config, rows=chance.choice((1, 1, 2, 5)), columns=chance.choice((1, 2, 3, 6)), y=chance.randrange(4000),
            x=chance.randrange(4000), block=chance.randrange(1000),
            words=config.block_words * chance.randint(1, config.lanes // config.block),
            pass_first=int(number == 0 or chance.random() < 0.3), scales_first=int(first),
            scales_last=int(chance.random() < 0.4 or number == count - 1)))
    return jobs


def deal(config, jobs, chance):
    """The words each group must send, the words that must come out, and the indices of a job's last words."""
    sent, expected, releases = [[] for _ in range(config.groups)], [], []
    turn, kernel_block = 0, -1
    limit = 1 << (config.sum_width - 1)
    for job in jobs:
        kernel_block += job["scales_first"]
        turn = 0 if job["pass_first"] else turn
        for row in range(job["rows"]):
            for column in range(job["columns"]):
                for lane_word in range(job["words"]):
                    sums = [chance.randrange(-limit, limit) for _ in range(config.drain)]
                    sent[turn].append(sums)
                    expected.append({"sums": sums, "lane_word": lane_word, "half": kernel_block % 2, "position": {
                        "y": job["y"] + row, "x": job["x"] + column,
                        "block": job["block"] + lane_word // config.block_words,
                        "word": lane_word % config.block_words,
                        "row_first": int(row == 0), "row_last": int(row == job["rows"] - 1),
                        "column_first": int(column == 0), "column_last": int(column == job["columns"] - 1)}})
                turn = (turn + 1) % config.groups
        if job["scales_last"]:
            releases.append(len(expected) - 1)
    return sent, expected, releases


class ScaleBuffer:
    """The consumer side of a double buffer that is filled at random times, checking each pulse."""

    def __init__(self, bench, dut, *, stall, seed):
        self.filled = self.taken = self.released = 0
        self.release_cycles = []
        chance = random.Random(f"{seed} scales")

        async def run(ctx):
            while True:
                if self.filled - self.released < 2 and chance.random() >= stall:
                    self.filled += 1
                ctx.set(dut.i_scales_full, self.filled > self.taken)
                ctx.set(dut.i_scales_half, self.taken % 2)
                *_, take, release = await ctx.tick().sample(dut.o_scales_take, dut.o_scales_release)
                assert not take or self.filled > self.taken, f"took a half that is not full (seed {seed})"
                self.taken += take
                self.released += release
                assert self.released <= self.taken, f"released more than was taken (seed {seed})"
                if release:
                    self.release_cycles.append(bench._cycle)
        bench.testbench(run, background=True)


def run_collector(config, jobs, *, stall=(0.0, 0.0), seed=0):
    chance = random.Random(seed)
    sent, expected, releases = deal(config, jobs, chance)
    dut = Collector(config)
    bench = StreamBench(dut, seed=seed)
    scales = ScaleBuffer(bench, dut, stall=stall[0], seed=seed)
    bench.source(dut.i_job, jobs, stall=stall[0])
    for group, words in enumerate(sent):
        bench.source(dut.i_sums[group], words, stall=stall[0])
    received = bench.sink(dut.o, count=len(expected), stall=stall[1])
    cycles = bench.last_cycles
    idle = []

    async def watch(ctx):
        while len(received) < len(expected):
            *_, is_idle, valid = await ctx.tick().sample(dut.o_idle, dut.o.valid)
            idle.append(is_idle)
            assert not (is_idle and valid), f"idle with a word on offer (seed {seed})"
        for _ in range(2):
            await ctx.tick()
        assert ctx.get(dut.o_idle), f"not idle after the last word (seed {seed})"
    bench.testbench(watch)
    bench.run(deadline=20_000)
    for number, (got, want) in enumerate(zip(received, expected, strict=True)):
        assert got == want, f"word {number} (config {config.name}, stall {stall}, seed {seed})"
    assert scales.taken == sum(job["scales_first"] for job in jobs), f"halves taken (seed {seed})"
    assert scales.release_cycles == [cycles[index] for index in releases], f"cycles of the releases (seed {seed})"
    return cycles


@pytest.mark.parametrize("config", CONFIG_LIST, ids=lambda config: config.name)
@pytest.mark.parametrize("stall", STALL_GRID)
def test_words_come_in_turn_with_their_position_under_stalls(config, stall):
    seed = 11
    run_collector(config, random_jobs(config, 5, random.Random(seed)), stall=stall, seed=seed)


@pytest.mark.parametrize("config", CONFIG_LIST, ids=lambda config: config.name)
def test_no_bubble_between_windows_and_jobs(config):
    jobs = [make_job(config, rows=1, columns=1, pass_first=1, scales_first=1),
            make_job(config, rows=2, columns=3, y=4, x=8),
            make_job(config, rows=1, columns=2, block=64, scales_last=1),
            make_job(config, rows=1, columns=1, y=7, scales_first=1, pass_first=1, scales_last=1)]
    cycles = run_collector(config, jobs)
    assert cycles == list(range(cycles[0], cycles[0] + len(cycles)))


def test_turn_runs_on_over_jobs_and_restarts_with_pass_first():
    config = CONFIG_LIST[1]
    jobs = [make_job(config, rows=1, columns=1, pass_first=first, scales_first=int(number == 0),
                     scales_last=int(number == 4)) for number, first in enumerate((1, 0, 1, 0, 0))]
    sent, _, _ = deal(config, jobs, random.Random(0))
    assert [len(words) for words in sent] == [2 * config.window_words, 2 * config.window_words, config.window_words]
    run_collector(config, jobs)
