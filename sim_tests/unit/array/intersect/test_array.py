# amaranth: UnusedElaboratable=no
"""The intersect array against plain NumPy windows: random tiles, rounds with stop rules, passes."""
from dataclasses import dataclass, field

import numpy as np
import pytest

from hw.array.intersect.array import IntersectArray
from hw.config import AcceleratorConfig
from sim_tests.bench.stream import STALL_GRID, StreamBench
from sim_tests.unit.array.test_group import DENSITIES, Tile, pack_tile

TINY = AcceleratorConfig("tiny", value_width=8, groups=2, lanes=16, block=16, drain=4, weight_depth=160, tile_slots=32,
                         sum_windows=16, pool_columns=8, array="intersect", clusters=2, pes=2)
WIDE = AcceleratorConfig("wide", value_width=8, groups=1, lanes=64, block=64, drain=4, weight_depth=576, tile_slots=16,
                         sum_windows=16, pool_columns=8, array="intersect", clusters=4, pes=1)
SINGLE = AcceleratorConfig("single", value_width=8, groups=1, lanes=32, block=32, drain=4, weight_depth=320,
                           tile_slots=16, sum_windows=8, pool_columns=8, array="intersect", clusters=1, pes=3)
JOB_FLAGS = ("first_chunk", "last_chunk", "pass_first", "weights_first", "weights_last")


@dataclass
class Round(Tile):
    """A job: a tile and the weights of a round. ``starts``: of each lane; ``parts``: weights of each of its phases;
    they add up to ``weights``."""
    parts: list = None
    starts: np.ndarray = None
    thresholds: np.ndarray = None
    rules: dict = field(default_factory=dict)

    def job(self, config):
        return super().job(config) | {
            "joined": len(self.parts) - 1, "stop_part": self.rules.get("stop_part", 7),
            "predict": self.rules.get("predict", 0)}

    def add(self, y, x, lane, total):
        """``(sum, dead, products)`` of a window and lane behind this round, product by product."""
        stop_part, added = self.rules.get("stop_part", 7), 0
        if stop_part == 0 and total < 0:
            return total, True, 0
        for phase, part in enumerate(self.parts):
            total, dead, products = self.add_part(part, y, x, lane, total, phase >= stop_part)
            added += products
            if dead:
                return total, True, added
        if self.rules.get("predict") and total < self.thresholds[lane]:
            return min(total, -1), True, added
        return total, False, added

    def add_part(self, weights, y, x, lane, total, stop):
        """The same with the weights of a phase."""
        added = 0
        kernel_rows, kernel_columns = self.weights.shape[1:3]
        for ky in range(kernel_rows):
            for kx in range(kernel_columns):
                row, column = self.y_first + y * self.stride + ky, self.x_first + x * self.stride + kx
                if not (0 <= row < self.values.shape[1] and 0 <= column < self.in_columns):
                    continue
                pixel = self.values[:, row, column + self.phase]
                for value, weight in zip(pixel, weights[lane, ky, kx], strict=True):
                    if value and weight:
                        total, added = total + int(value) * int(weight), added + 1
                        if stop and total < 0:
                            return total, True, added
        return total, False, added


def expected(config, rounds):
    """Words of each group, and all products added."""
    words, turn, places, state, products = [[] for _ in range(config.groups)], 0, [0] * config.groups, {}, 0
    for job in rounds:
        if job.flag("pass_first"):
            turn, places = 0, [0] * config.groups
        for y in range(job.rows):
            for x in range(job.columns):
                sums = [0] * config.lanes
                for lane in range(job.lanes):
                    key = turn, places[turn], lane
                    total, dead = (int(job.starts[lane]), False) if job.flag("first_chunk") else state[key]
                    added = 0
                    if not dead:
                        total, dead, added = job.add(y, x, lane, total)
                    state[key] = total, dead
                    sums[lane], products = total, products + added
                if job.flag("last_chunk"):
                    words[turn].append((sums[:job.words * config.drain], job.lanes))
                places[turn] += 1
                turn = (turn + 1) % config.groups
    return words, products


class Bench:
    """The array with loaders that overwrite a half as soon as it is free."""

    def __init__(self, config, rounds, *, seed=0, stall=(0.0, 0.0), loaders_stall=0.0):
        self.config, self.rounds, self.seed = config, rounds, seed
        self.chance, self.loaders_stall = np.random.default_rng([seed, 99]), loaders_stall
        self.array = IntersectArray(config)
        self.bench = StreamBench(self.array, seed=seed)
        self.work, self.activity = 0, []
        for task in (self.load_tiles, self.load_weights, self.watch):
            self.bench.testbench(task, background=True)
        self.bench.source(self.array.i_job, [job.job(config) for job in rounds], stall=stall[0])
        self.words, self.products = expected(config, rounds)
        self.received, self.cycles = [], []
        for group in range(config.groups):
            count = sum(len(sums) // config.drain for sums, _ in self.words[group])
            self.received.append(self.bench.sink(self.array.o_sums[group], count=count, stall=stall[1]))
            self.cycles.append(self.bench.last_cycles)
        self.bench.testbench(self.wait_idle)

    async def wait(self, ctx, free, half):
        while not ctx.get(free) or self.chance.random() < self.loaders_stall:
            await ctx.tick()
        return ctx.get(half)

    async def pulse(self, ctx, signal):
        ctx.set(signal, 1)
        await ctx.tick()
        ctx.set(signal, 0)

    async def load_tiles(self, ctx):
        c, array = self.config, self.array
        for job in self.rounds:
            half = await self.wait(ctx, array.o_tile_free, array.o_tile_half)
            maps, beats = pack_tile(c, job)
            for port, name, size, words in ((array.i_map, "word", 4, maps),
                                            (array.i_values, "data", c.value_beats, beats)):
                for address, word in [*words.items()][::-1]:
                    ctx.set(port.valid, 1)
                    ctx.set(port.payload, {"address": half * c.tile_slots * size + address, name: word})
                    await ctx.tick()
                ctx.set(port.valid, 0)
            await self.pulse(ctx, array.i_tile_filled)

    async def load_weights(self, ctx):
        c, array = self.config, self.array
        for job in self.rounds:
            if not job.flag("weights_first"):
                continue
            half = await self.wait(ctx, array.o_weights_free, array.o_weights_half)
            for lane in range(job.lanes):
                slot, cluster = divmod(lane, c.clusters)
                await self.write(ctx, array.i_starts[cluster], {
                    "half": half, "slot": slot, "start": int(job.starts[lane]),
                    "threshold": int(job.thresholds[lane])})
                number = 0
                for part in job.parts:
                    for word in self.words_of(part[lane]):
                        await self.write(ctx, array.i_phase_map[cluster], {
                            "half": half, "slot": slot, "word": number,
                            "map": sum(1 << n for n, weight in enumerate(word) if weight)})
                        number += 1
                for number, word in enumerate(self.words_of(job.weights[lane])):
                    for group in range(c.block_groups):
                        values = word[8 * group:8 * group + 8]
                        if values.any():
                            packed = sum((int(value) & 255) << 8 * n for n, value in enumerate(values))
                            await self.write(ctx, array.i_phase_values[cluster], {
                                "half": half, "slot": slot, "word": number, "group": group, "values": packed})
            await self.pulse(ctx, array.i_weights_filled)

    def words_of(self, weights):
        """The channels of each word of ``weights[row, column, channel]``."""
        block = self.config.block
        for tap in weights.reshape(-1, weights.shape[-1]):
            for first in range(0, len(tap), block):
                yield np.pad(tap[first:first + block], (0, max(0, first + block - len(tap))))

    async def write(self, ctx, port, payload):
        ctx.set(port.payload, payload)
        await self.pulse(ctx, port.valid)

    async def watch(self, ctx):
        array = self.array
        async for _, _, *seen in ctx.tick().sample(*array.o_activity, *array.o_lane_work):
            groups = self.config.groups
            for activity in seen[:groups]:
                names = [name for name, _ in activity.shape() if activity[name]]
                assert len(names) == 1, f"activity {names} (seed {self.seed})"
                self.activity.append(names[0])
            self.work += sum(int(work) for work in seen[groups:])

    async def wait_idle(self, ctx):
        while any(len(got) < sum(len(sums) // self.config.drain for sums, _ in words)
                  for got, words in zip(self.received, self.words, strict=True)):
            await ctx.tick()
        await ctx.tick().repeat(40)
        assert ctx.get(self.array.o_idle), f"not idle (seed {self.seed})"

    def run(self, deadline=100_000):
        self.bench.run(deadline=deadline)
        modulus = 1 << self.config.sum_width
        for group, (got, windows) in enumerate(zip(self.received, self.words, strict=True)):
            flat = [value for word in got for value in word]
            for number, (sums, lanes) in enumerate(windows):
                own = flat[number * len(sums):(number + 1) * len(sums)]
                for lane in range(lanes):
                    place = f"group {group}, window {number}, lane {lane}"
                    assert (own[lane] - sums[lane]) % modulus == 0, (
                        f"{place}: {own[lane]}, not {sums[lane]} (seed {self.seed})")
        assert self.work == self.products, f"{self.work} products, not {self.products} (seed {self.seed})"
        return self


def make_rounds(config, rng, *, tiles=1, phases=2, joined=0, chunks=1, density=0.4, kernel=(3, 3), channels=None,
                windows=(2, 3), stop=True, signed=0, stride=1, lanes=None, predict=False, passes=1, pad=0, dense=0,
                weights=(-60, 60)):
    """Jobs of one kernel block: for each pass, phase, chunk and tile; the last ``joined`` phases share a round with the
    one before."""
    channels = channels or config.block
    lanes = min(config.lanes, 7) if lanes is None else lanes
    shape = (lanes, *kernel, channels)
    chunk_weights = [rng.integers(*weights, shape, endpoint=True) * (rng.random(shape) < 0.6) for _ in range(chunks)]
    starts, thresholds = rng.integers(-2000, 6000, lanes), rng.integers(-500, 3000, lanes)
    rows, columns = (windows[0] - 1) * stride + kernel[0] - pad, (windows[1] - 1) * stride + kernel[1] - pad
    words = -(-lanes // config.block) * config.block // config.drain
    last = phases - joined - 1
    rounds = [(phase, chunk) for phase in range(last + 1) for chunk in range(chunks)]
    jobs = []
    for _ in range(passes):
        shape = (chunks, tiles, channels, rows, -(-(columns + 1) // 4) * 4)
        values = rng.integers(*((-128, 127) if signed else (0, 255)), shape, endpoint=True)
        values = values * (rng.random(shape) < density)
        for phase, chunk in rounds:
            shared = range(phase, phase + 1 if phase < last else phases)
            parts = [phase_part(chunk_weights[chunk], number, phases) for number in shared]
            for tile in range(tiles):
                single = len(rounds) == 1
                flags = {"first_chunk": (phase, chunk) == rounds[0], "last_chunk": (phase, chunk) == rounds[-1],
                         "pass_first": tile == 0, "weights_first": tile == 0 and not single or not jobs,
                         "weights_last": tile == tiles - 1}
                jobs.append(Round(
                    values[chunk, tile], sum(parts), parts=parts, rows=windows[0], columns=windows[1], y_first=-pad,
                    x_first=-pad, in_columns=columns, phase=1, stride=stride, signed=signed, words=words, lanes=lanes,
                    dense=dense, flags={name: int(flag) for name, flag in flags.items()}, starts=starts,
                    thresholds=thresholds,
                    rules={"stop_part": max(0, 1 - phase) if stop and phases > 1 else 7,
                           "predict": int(predict and phase == 0 and chunk == chunks - 1)}))
    if len(rounds) == 1:
        for job in jobs:
            job.flags |= {"weights_first": int(job is jobs[0]), "weights_last": int(job is jobs[-1])}
    return jobs


def phase_part(weights, phase, phases):
    """Those of ``weights`` that are of ``phase``: all; or those above 0, then of some channels each those below 0."""
    if phases == 1:
        return weights
    if phase == 0:
        return np.maximum(weights, 0)
    return np.where(np.arange(weights.shape[-1]) % (phases - 1) == phase - 1, np.minimum(weights, 0), 0)


@pytest.mark.parametrize("density", DENSITIES)
@pytest.mark.parametrize("config", [TINY, WIDE, SINGLE], ids=lambda config: config.name)
def test_densities(config, density):
    rng = np.random.default_rng(round(density * 64))
    Bench(config, make_rounds(config, rng, density=density, phases=3, windows=(1, 3), kernel=(1, 3)), seed=1).run()


@pytest.mark.parametrize("stall", STALL_GRID[::3])
def test_stalls(stall):
    rng = np.random.default_rng(5)
    Bench(TINY, make_rounds(TINY, rng, tiles=2, phases=3, passes=2, windows=(1, 5), kernel=(2, 2)), seed=2, stall=stall,
          loaders_stall=stall[0]).run()


@pytest.mark.parametrize("seed", range(6))
def test_shapes(seed):
    rng = np.random.default_rng(seed)
    config = (TINY, SINGLE, WIDE)[seed % 3]
    kernel = [(1, 1), (3, 3), (1, 2), (2, 1)][seed % 4]
    jobs = []
    for _ in range(2):
        jobs += make_rounds(config, rng, tiles=int(rng.integers(1, 3)), phases=int(rng.integers(1, 4)),
                            chunks=int(rng.integers(1, 3)), passes=int(rng.integers(1, 3)), kernel=kernel,
                            channels=int(rng.integers(1, config.block + 1)), stride=int(rng.integers(1, 3)),
                            pad=seed % 2, lanes=int(rng.integers(1, 12)), windows=(int(rng.integers(1, 3)), 2),
                            signed=seed % 2, stop=seed % 2 == 0, density=0.3)
    Bench(config, jobs, seed=seed, loaders_stall=0.3).run()


@pytest.mark.parametrize("seed", range(6))
def test_joined_phases(seed):
    """All in one round; or those of negative weights, in several chunks."""
    rng = np.random.default_rng(seed)
    config = (TINY, SINGLE, WIDE)[seed % 3]
    jobs = []
    for phases in (2, 4):
        jobs += make_rounds(config, rng, tiles=2, phases=phases, joined=phases - 1, passes=2, kernel=(2, 2), lanes=9,
                            windows=(1, 3))
        jobs += make_rounds(config, rng, tiles=2, phases=phases + 1, joined=phases - 1, chunks=2, kernel=(1, 3),
                            windows=(1, 4), predict=seed % 2 == 0)
    Bench(config, jobs, seed=seed, loaders_stall=0.2).run()


@pytest.mark.parametrize("seed", range(3))
def test_predictions(seed):
    rng = np.random.default_rng(seed)
    Bench(TINY, make_rounds(TINY, rng, phases=3, chunks=2, predict=True, kernel=(1, 2)), seed=seed).run()


def test_a_dense_tile():
    rng = np.random.default_rng(8)
    jobs = make_rounds(TINY, rng, channels=4, dense=1, signed=1, phases=1, stop=False)
    Bench(TINY, jobs, seed=1).run()
