"""A processing element against plain integers: random tiles, weights, windows, and sums that are stopped."""
import itertools
from dataclasses import dataclass

import numpy as np
import pytest

from hw.array.intersect.processing_element import ProcessingElement
from hw.config import ROUND_PHASES, UNPACKED, AcceleratorConfig
from sim_tests.bench.stream import STALL_GRID, StreamBench

TINY = AcceleratorConfig("tiny", value_width=8, groups=2, lanes=16, block=16, drain=4, weight_depth=160, tile_slots=16,
                         sum_windows=32, pool_columns=8, array="intersect", clusters=2, pes=2)
WIDE = AcceleratorConfig("wide", value_width=8, groups=1, lanes=64, block=64, drain=4, weight_depth=448, tile_slots=16,
                         sum_windows=32, pool_columns=8, array="intersect", clusters=4, pes=2)
DENSITIES = (0, 1 / 64, 0.1, 0.5, 1)


@dataclass
class Scene:
    """What the memories hold: ``tile[address, channel]``, ``weights[word, channel]``, the phase of the round that each
    of them is of, and the ``table`` of (row, column, address)."""
    config: AcceleratorConfig
    tile: np.ndarray
    weights: np.ndarray
    phases: np.ndarray
    table: list
    signed: int

    @classmethod
    def random(cls, config, rng, *, density, weight_density=0.5, signed=0, words=5, low=-128, high=127, phases=1):
        def sparse(shape, first, last, share):
            return rng.integers(first, last, shape, endpoint=True) * (rng.random(shape) < share)
        tile = sparse((2 * config.tile_slots * 4, config.block), *((-128, 127) if signed else (0, 255)), density)
        weights = sparse((2 * config.cluster_lanes * config.weight_words, config.block), low, high, weight_density)
        table = [(int(rng.integers(3)), int(rng.integers(3)), int(rng.integers(32))) for _ in range(words)]
        return cls(config, tile, weights, rng.integers(phases, size=weights.shape), table, signed)

    @property
    def maps(self):
        """(address, map) of each word of each lane, by phase."""
        lane_words = self.config.weight_words
        for at in range(0, len(self.weights), lane_words):
            for phase, number in itertools.product(range(ROUND_PHASES), range(len(self.table))):
                own = self.weights[at + number] * (self.phases[at + number] == phase)
                yield at * ROUND_PHASES + phase * len(self.table) + number, bits(own)

    def sum(self, task):
        """``(sum, dead, products added)`` of a task by its words, channel by channel."""
        total, added = task["sum"], 0
        for phase, (number, (row, column, address)) in itertools.product(range(task["joined"] + 1),
                                                                         enumerate(self.table)):
            if not (task["window"]["rows"] >> row & 1 and task["window"]["columns"] >> column & 1):
                continue
            values = self.tile[(task["window"]["address"] + address) % (2 * self.config.tile_slots * 4)]
            weights = self.weights[task["word"] + number] * (self.phases[task["word"] + number] == phase)
            for value, weight in zip(values, weights, strict=True):
                if value and weight:
                    total += int(value) * int(weight)
                    added += 1
                    if phase >= task["stop_part"] and total < 0:
                        return total, 1, added
        # A stop rule is looked at when something was added, or at the end of a task without any.
        return total, int(total < 0 and task["joined"] >= task["stop_part"]), added

    def task(self, rng, *, stop=7, joined=0, start=0, everywhere=False):
        mask = 7 if everywhere else int(rng.integers(8))
        return {"window": {"address": int(rng.integers(16)), "rows": mask, "columns": 7 if everywhere else
                           int(rng.integers(8))}, "word": int(rng.integers(self.config.cluster_lanes))
                * self.config.weight_words, "table": 1, "signed": self.signed, "joined": joined, "stop_part": stop,
                "sum": start}


async def write(ctx, port, rows):
    ctx.set(port.valid, 1)
    for row in rows:
        ctx.set(port.payload, row)
        await ctx.tick()
    ctx.set(port.valid, 0)


def packed(channels):
    return sum((int(value) & 255) << 8 * n for n, value in enumerate(channels))


def bits(channels):
    return sum(1 << n for n, value in enumerate(channels) if value)


def run(scene, tasks, *, seed, stall=(0.0, 0.0)):
    """Results, their cycles, and the products added."""
    config, pe = scene.config, ProcessingElement(scene.config)
    bench = StreamBench(pe, seed=seed)
    work, ready = [], []

    async def load(ctx):
        for port, maps in ((pe.i_map, enumerate(map(bits, scene.tile))), (pe.i_phase_map, scene.maps)):
            await write(ctx, port, [{"address": at, "map": word} for at, word in maps])
        for value_port, words, name, size in ((pe.i_values, scene.tile, "part", UNPACKED),
                                              (pe.i_phase_values, scene.weights, "group", 8)):
            await write(ctx, value_port, [{"address": n, name: part, "values": packed(word[size * part:][:size])}
                                          for n, word in enumerate(words) for part in range(config.block // size)])
        await write(ctx, pe.i_offset, [
            {"table": 1, "word": n, "offset": {"address": address, "row": row, "column": column,
                                               "last": n == len(scene.table) - 1}}
            for n, (row, column, address) in enumerate(scene.table)])
        ready.append(True)

    async def send(ctx):
        chance = np.random.default_rng([seed, 5])
        while not ready:
            await ctx.tick()
        for task in tasks:
            while chance.random() < stall[0]:
                await ctx.tick()
            ctx.set(pe.i_task.payload, task)
            ctx.set(pe.i_task.valid, 1)
            *_, taken = await ctx.tick().sample(pe.i_task.ready)
            while not taken:
                *_, taken = await ctx.tick().sample(pe.i_task.ready)
            ctx.set(pe.i_task.valid, 0)

    async def watch(ctx):
        async for _, _, added in ctx.tick().sample(pe.o_work):
            work.append(added)

    async def idle(ctx):
        while len(received) < len(tasks):
            await ctx.tick()
        await ctx.tick().repeat(2)
        assert ctx.get(pe.o_idle)

    bench.testbench(load, background=True)
    bench.testbench(send, background=True)
    bench.testbench(watch, background=True)
    received = bench.sink(pe.o_result, count=len(tasks), stall=stall[1])
    cycles = bench.last_cycles
    bench.testbench(idle)
    bench.run(deadline=200_000)
    return received, cycles, sum(work)


def check(scene, tasks, *, seed, stall=(0.0, 0.0)):
    received, cycles, work = run(scene, tasks, seed=seed, stall=stall)
    total = 0
    for n, (task, got) in enumerate(zip(tasks, received, strict=True)):
        value, dead, added = scene.sum(task)
        total += added
        context = f"task {n} (seed {seed}): {got}"
        assert got["parity"] == n % 2, context
        assert got["partial"]["dead"] == dead, f"{context}, not {value}, dead {dead}"
        # Products that were on their way when a sum was stopped are not in it.
        assert got["partial"]["sum"] == value, f"{context}, not {value}"
    assert work == total, f"{work} products added, not {total} (seed {seed})"
    return cycles


@pytest.mark.parametrize("density", DENSITIES)
@pytest.mark.parametrize("config", [TINY, WIDE], ids=lambda config: config.name)
def test_sums(config, density):
    rng = np.random.default_rng(round(density * 64))
    scene = Scene.random(config, rng, density=density, signed=int(density == 0.1))
    check(scene, [scene.task(rng, start=int(rng.integers(-2**31, 2**31 - 2**20))) for _ in range(30)], seed=1)


@pytest.mark.parametrize("stall", STALL_GRID[::3])
def test_stalls_and_stops(stall):
    rng = np.random.default_rng(7)
    scene = Scene.random(TINY, rng, density=0.4, low=-60, high=40)
    tasks = [scene.task(rng, stop=rng.choice([0, 7]), start=int(rng.integers(0, 4000))) for _ in range(40)]
    check(scene, tasks, seed=2, stall=stall)


@pytest.mark.parametrize("seed", range(8))
def test_stops_at_any_place(seed):
    """Tasks of few and of many products in turn, stopped early, late, never."""
    rng = np.random.default_rng(seed)
    config = (TINY, WIDE)[seed % 2]
    scene = Scene.random(config, rng, density=(0.05, 0.3, 1)[seed % 3], low=-128, high=(-1, 20)[seed % 2],
                         words=int(rng.integers(1, 8)))
    starts = itertools.cycle([0, 1, 300, 3000, 100_000, 10**7])
    check(scene, [scene.task(rng, stop=0 if rng.random() < 0.8 else 7, start=start, everywhere=True)
                  for start, _ in zip(starts, range(60), strict=False)], seed=seed)


@pytest.mark.parametrize("seed", range(8))
def test_phases_one_after_the_other(seed):
    """Tasks of 1 to 4 phases, stopped in the first of them, in a later one, never."""
    rng = np.random.default_rng(seed)
    config = (TINY, WIDE)[seed % 2]
    scene = Scene.random(config, rng, density=(0.05, 0.3, 1)[seed % 3], low=-128, high=(40, 100)[seed % 2],
                         words=config.weight_words if seed == 7 else int(rng.integers(1, 8)), phases=ROUND_PHASES)
    stall = STALL_GRID[-1] if seed > 4 else (0.0, 0.0)
    check(scene, [scene.task(rng, stop=rng.choice([0, 1, 2, 3, 7]), joined=int(rng.integers(ROUND_PHASES)),
                             start=rng.choice([-300, 0, 3000, 100_000]), everywhere=rng.random() < 0.8)
                  for _ in range(60)], seed=seed, stall=stall)


def test_a_multiplication_in_every_cycle():
    rng = np.random.default_rng(3)
    scene = Scene.random(TINY, rng, density=0.5, low=1)
    tasks = [scene.task(rng, everywhere=True) for _ in range(40)]
    cycles = check(scene, tasks, seed=3)
    work = sum(scene.sum(task)[2] for task in tasks[1:])
    assert work <= cycles[-1] - cycles[0] <= work + 5


@pytest.mark.parametrize(("phases", "products"), ((1, 8), (4, 40)))
def test_a_task_that_stops_costs_its_products_and_the_latency_of_a_sum(phases, products):
    """Words of the next task are there; 4 phases have more words than the queue of the present one holds."""
    rng = np.random.default_rng(4)
    scene = Scene.random(TINY, rng, density=1, low=-1, high=-1, weight_density=1, words=10, phases=phases)
    scene.tile[:] = 1
    tasks = [scene.task(rng, stop=0, joined=phases - 1, start=products - 1, everywhere=True) for _ in range(20)]
    cycles = check(scene, tasks, seed=5)
    gaps = {after - before for before, after in itertools.pairwise(cycles)}
    assert gaps == {products + ProcessingElement.ADD_LATENCY}
