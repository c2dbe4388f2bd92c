import random
from dataclasses import replace

import pytest

from hw.config import SEGMENT
from hw.configs import CONFIGS
from hw.decode.tile_loader import TileLoader
from sim_tests.bench.memory import Memory
from sim_tests.bench.stream import STALL_GRID, StreamBench

TINY = CONFIGS["tiny"]
WIDE = replace(CONFIGS["nullhop"], name="wide", tile_slots=24)
ADDRESS = 0x12000


class CompressedMap:
    """A random map of ``channels`` x ``height`` x ``width`` in memory. What is not defined is random."""
    layer = {"dense_in": 0, "dense_shift": 5}

    def __init__(self, config, channels, height, width, density, chance, pad_rows=0):
        self.config = config
        self.height, self.segments, self.blocks = height, -(-width // SEGMENT), -(-channels // config.block)
        self.segment_bytes = self.blocks * config.slot_bytes
        self.row_bytes = self.segments * self.segment_bytes + pad_rows
        self.contents = bytearray(chance.randbytes(height * self.row_bytes))
        self.slots = {}
        top = 2 ** config.value_width - 1
        for y in range(height):
            for s in range(self.segments):
                for b in range(self.blocks):
                    pixels = [[chance.choice((1, top, chance.randint(1, top)))
                               if chance.random() < density and b * config.block + c < channels
                               and s * SEGMENT + p < width else 0 for c in range(config.block)]
                              for p in range(SEGMENT)]
                    self._write(y, s, b, pixels)

    def _write(self, y, s, b, pixels):
        config = self.config
        flat = [value for pixel in pixels for value in pixel]
        nonzero = [value for value in flat if value]
        beats = -(-len(nonzero) * config.value_width // 64)
        maps = sum((value != 0) << n for n, value in enumerate(flat))
        values = sum(value << n * config.value_width for n, value in enumerate(nonzero))
        raw = maps.to_bytes(config.map_beats * 8, "little") + values.to_bytes(beats * 8, "little")
        offset = y * self.row_bytes + s * self.segment_bytes + b * config.slot_bytes
        self.contents[offset:offset + len(raw)] = raw
        mask = 2 ** config.block - 1
        words, count = [], 0
        for p in range(SEGMENT):
            words.append({"map": maps >> p * config.block & mask, "offset": count})
            count += sum(value != 0 for value in pixels[p])
        data = [values >> 64 * n & 2 ** 64 - 1 for n in range(beats)]
        self.slots[y, s, b] = words, data


class DenseMap:
    """A random dense map with ``2**shift`` channels stored for a pixel."""

    def __init__(self, config, shift, height, width, density, chance):
        self.height, self.segments, self.blocks = height, -(-width // SEGMENT), 1
        bits, stored = config.value_width, 1 << shift
        self.layer = {"dense_in": 1, "dense_shift": shift}
        self.segment_bytes = max(8, SEGMENT * stored * bits // 8)
        self.row_bytes = self.segments * self.segment_bytes
        self.contents = bytearray()
        self.slots = {}
        for y in range(height):
            for s in range(self.segments):
                flat = [chance.randrange(1, 2 ** bits)
                        if chance.random() < density and s * SEGMENT + n // stored < width else 0
                        for n in range(SEGMENT * stored)]
                raw = sum(value << n * bits for n, value in enumerate(flat)).to_bytes(self.segment_bytes, "little")
                self.contents += raw
                words = [{"map": sum((value != 0) << c for c, value in enumerate(flat[p * stored:(p + 1) * stored])),
                          "offset": p * stored} for p in range(SEGMENT)]
                data = [int.from_bytes(raw[n:n + 8], "little") for n in range(0, len(raw), 8)]
                self.slots[y, s, 0] = words, data


def random_jobs(config, image, count, chance):
    jobs = []
    for _ in range(count):
        kind = chance.random()
        row, segment, block = (chance.randrange(n) for n in (image.height, image.segments, image.blocks))
        rows = chance.randint(1, image.height - row)
        segments = chance.randint(1, image.segments - segment)
        blocks = chance.randint(1, image.blocks - block)
        while rows * segments * blocks > config.tile_slots:
            rows, segments, blocks = (max(1, n - 1) for n in (rows, segments, blocks))
        if kind < 0.15:
            rows, segments, blocks = chance.choice(((0, segments, blocks), (rows, 0, blocks), (rows, segments, 0)))
        jobs.append({"row": row, "rows": rows, "segment": segment, "segments": segments, "block": block,
                     "blocks": blocks})
    return jobs


def expected_writes(config, image, job, half):
    """Both memories' contents of a job: {address: word}."""
    maps, values = {}, {}
    slot = half * config.tile_slots
    for b in range(job["blocks"]):
        for y in range(job["rows"]):
            for s in range(job["segments"]):
                words, data = image.slots[job["row"] + y, job["segment"] + s, job["block"] + b]
                maps |= {slot * SEGMENT + p: word for p, word in enumerate(words)}
                values |= {slot * config.value_beats + n: beat for n, beat in enumerate(data)}
                slot += 1
    return maps, values


class Run:
    """Load jobs under a model of the double buffer; ``filled`` gets the cycle and the writes of each tile."""

    def __init__(self, config, image, jobs, *, seed, stall=(0.0, 0.0), latency=(1, 1), shared=False, wait=0.0,
                 release=None):
        self.config, self.image, self.jobs, self.seed, self.wait = config, image, jobs, seed, wait
        self.release = release
        self.dut = dut = TileLoader(config=config)
        self.bench = StreamBench(dut, seed=seed)
        self.memory = Memory(image.contents, base=ADDRESS, seed=seed, latency=latency, stall=stall[0],
                             request_stall=stall[1], shared=shared)
        self.map_requests = self.memory.client(dut.o_map_request, dut.i_map_data)
        self.value_requests = self.memory.client(dut.o_value_request, dut.i_value_data)
        self.most_maps = 0
        self.filled = []
        self.bench.testbench(self._layer)
        self.bench.testbench(self.memory.run, background=True)
        self.bench.source(dut.i_job, jobs, stall=stall[0])
        self.bench.testbench(self._buffer)
        self.bench.run(deadline=30_000)

    async def _layer(self, ctx):
        ctx.set(self.dut.i_layer, {"in_address": ADDRESS, "in_row_bytes": self.image.row_bytes,
                                   "in_segment_bytes": self.image.segment_bytes,
                                   "in_block_bytes": self.config.slot_bytes, **self.image.layer})

    async def _buffer(self, ctx):
        dut, chance = self.dut, random.Random(f"{self.seed} buffer")
        free, half, cycle, quiet, stalls = False, 0, 0, 0, 0
        maps, values = {}, {}
        while len(self.filled) < len(self.jobs) or quiet < 20:
            free = free or (chance.random() >= self.wait and (not self.release or self.release(cycle)))
            ctx.set(dut.i_free, free)
            ctx.set(dut.i_half, half if free else chance.randrange(2))
            _, _, *sample = await ctx.tick().sample(
                dut.o_map_write.valid, dut.o_map_write.payload, dut.o_value_write.valid, dut.o_value_write.payload,
                dut.o_filled, dut.o_idle, dut.i_map_data.valid & ~dut.i_map_data.ready,
                dut.i_value_data.valid & ~dut.i_value_data.ready)
            map_valid, map_write, value_valid, value_write, filled, idle, map_stalls, value_stalls = sample
            job = self.jobs[min(len(self.filled), len(self.jobs) - 1)]
            where = f"cycle {cycle}, tile {len(self.filled)}, {job}, seed {self.seed}"
            # Other clients share the bus: only what there is room for is requested.
            stalls = stalls + 1 if map_stalls else 0
            assert stalls <= 1 and not value_stalls, f"data stalled ({where})"
            self.most_maps = max(self.most_maps, self.memory.outstanding[0])
            if map_valid:
                assert free and map_write.address not in maps, f"map write ({where})"
                maps[map_write.address] = {"map": map_write.word.map, "offset": map_write.word.offset}
            if value_valid:
                assert free and value_write.address not in values, f"value write ({where})"
                values[value_write.address] = value_write.data
            if filled:
                assert len(self.filled) < len(self.jobs), f"filled after the last job ({where})"
                assert free, f"filled while not free ({where})"
                assert not map_valid and not value_valid, f"filled not after the last write ({where})"
                expected = expected_writes(self.config, self.image, job, half)
                for name, got, want in zip(("map", "value"), (maps, values), expected, strict=True):
                    wrong = [(n, got.get(n), want.get(n)) for n in sorted(got | want) if got.get(n) != want.get(n)]
                    assert not wrong, f"{name} (address, got, want) {wrong[0]} ({where})"
                self.filled.append(cycle)
                maps, values, free, half = {}, {}, False, 1 - half
            cycle += 1
            quiet = quiet + 1 if len(self.filled) == len(self.jobs) else 0
        assert idle, f"not idle at the end (seed {self.seed})"


@pytest.mark.parametrize("stall", STALL_GRID)
@pytest.mark.parametrize("config", (TINY, WIDE), ids=lambda c: c.name)
def test_compressed_tiles_under_stalls(config, stall):
    seed = f"{config.name} {stall}"
    chance = random.Random(seed)
    image = CompressedMap(config, 2 * config.block + 1, 4, 9, 0.4, chance, pad_rows=8)
    jobs = random_jobs(config, image, 4, chance)
    Run(config, image, jobs, seed=seed, stall=stall, latency=(1, 30), wait=0.5)


@pytest.mark.parametrize("density", (0.0, 1 / 64, 0.1, 0.5, 1.0))
@pytest.mark.parametrize("config", (TINY, CONFIGS["default"], CONFIGS["snapea"], WIDE), ids=lambda c: c.name)
def test_densities(config, density):
    seed = f"{config.name} {density}"
    chance = random.Random(seed)
    image = CompressedMap(config, config.block + 3, 3, 7, density, chance)
    whole = {"row": 0, "rows": 3, "segment": 0, "segments": 2, "block": 0, "blocks": 2}
    Run(config, image, [whole, *random_jobs(config, image, 4, chance)], seed=seed, latency=(1, 20))


@pytest.mark.parametrize("shape", ((1, 1, 1), (1, 4, 1), (16, 1, 5), (17, 2, 4), (100, 1, 1)))
def test_edge_shapes(shape):
    chance = random.Random(f"{shape}")
    channels, height, width = shape
    image = CompressedMap(TINY, channels, height, width, 0.5, chance)
    Run(TINY, image, random_jobs(TINY, image, 6, chance), seed=shape, latency=(2, 9), wait=0.3)


@pytest.mark.parametrize(("config", "shift"), [
    pytest.param(config, shift, id=f"{config.name}-{shift}")
    for config in (TINY, CONFIGS["small"], CONFIGS["snapea"], WIDE) for shift in range(config.block.bit_length())])
def test_dense_tiles(config, shift):
    for density, stall in ((0.5, (0.0, 0.0)), (0.0, (0.5, 0.5)), (1 / 64, (0.0, 0.9)), (1.0, (0.9, 0.0))):
        seed = f"{config.name} {shift} {density}"
        chance = random.Random(seed)
        image = DenseMap(config, shift, 3, 10, density, chance)
        jobs = random_jobs(config, image, 3, chance)
        run = Run(config, image, jobs, seed=seed, stall=stall, latency=(1, 25), wait=0.4)
        assert not run.value_requests


@pytest.mark.parametrize("stall", STALL_GRID)
def test_dense_tiles_under_stalls(stall):
    chance = random.Random(f"{stall}")
    image = DenseMap(TINY, 2, 4, 12, 0.5, chance)
    Run(TINY, image, random_jobs(TINY, image, 5, chance), seed=stall, stall=stall, latency=(1, 30), wait=0.5)


@pytest.mark.parametrize("config", [TINY, WIDE], ids=lambda config: config.name)
@pytest.mark.parametrize("distance", [1, 0, -1, 0x2_7531, -0x2_7531, "least", "most"])
def test_addresses_of_far_rows_segments_and_blocks(config, distance):
    """Every bit of the products is used: the sum runs over the whole of 32 bits. ``distance`` of blocks in slots."""
    ends = {"least": -2**31, "most": 2**31 - config.slot_bytes}
    block_bytes = ends[distance] if distance in ends else distance * config.slot_bytes
    layer = {"in_address": 0x2000_0000, "in_row_bytes": 0xFF_FFF8, "in_segment_bytes": 0xF_FFF8,
             "in_block_bytes": block_bytes, "dense_shift": 0}
    job = {"row": 93, "rows": 2, "segment": 1023, "segments": 2, "block": 517, "blocks": 2}
    expected = [(layer["in_address"] + (93 + y) * layer["in_row_bytes"] + (1023 + s) * layer["in_segment_bytes"]
                 + (517 + b) * block_bytes) % 2 ** 32 for b in range(2) for y in range(2) for s in range(2)]
    dut = TileLoader(config=config)
    bench = StreamBench(dut, seed=1)

    async def set_layer(ctx):
        ctx.set(dut.i_layer, layer)
    bench.testbench(set_layer)
    bench.source(dut.i_job, [job])
    received = bench.sink(dut.o_map_request, count=8)
    bench.run(deadline=200)
    assert received == [{"address": address, "beats": config.map_beats} for address in expected]


@pytest.mark.parametrize("density", (0.1, 0.5, 1.0))
@pytest.mark.parametrize("name", ("tiny", "default", "nullhop"))
def test_rate_with_a_latency_of_40(name, density):
    """Slots come at the rate of the shared bus, or one in 4 cycles; only filling the pipeline costs more."""
    config = replace(CONFIGS[name], tile_slots=64)
    chance = random.Random(f"{name} {density}")
    image = CompressedMap(config, 2 * config.block, 4, 32, density, chance)
    job = {"row": 0, "rows": 4, "segment": 0, "segments": 8, "block": 0, "blocks": 2}
    run = Run(config, image, [job], seed=7, latency=(40, 40), shared=True)
    bound = sum(max(4, config.map_beats + len(data)) for _, data in image.slots.values())
    print(f"{name} density {density}: {run.filled[0]} cycles, {bound} cycles of slots")
    assert run.filled[0] <= 1.05 * bound + 110
    assert run.most_maps >= 16 * config.map_beats


@pytest.mark.parametrize("shift", (0, 2, 5))
def test_dense_rate_with_a_latency_of_40(shift):
    config = replace(CONFIGS["default"], tile_slots=64)
    image = DenseMap(config, shift, 8, 32, 0.5, random.Random(shift))
    job = {"row": 0, "rows": 8, "segment": 0, "segments": 8, "block": 0, "blocks": 1}
    run = Run(config, image, [job], seed=7, latency=(40, 40), shared=True)
    bound = 64 * max(4, image.segment_bytes // 8)
    print(f"dense_shift {shift}: {run.filled[0]} cycles, {bound} cycles of segments")
    assert run.filled[0] <= 1.05 * bound + 70


def test_no_more_is_requested_than_waits_without_a_stall():
    """While no half is free, data of dense segments that come at once do not block the bus."""
    image = DenseMap(CONFIGS["small"], 5, 3, 12, 0.5, random.Random(5))
    job = {"row": 0, "rows": 3, "segment": 0, "segments": 3, "block": 0, "blocks": 1}
    run = Run(CONFIGS["small"], image, [job], seed=5, release=lambda cycle: cycle == 300)
    requested = sum(beats for cycle, _, beats in run.map_requests if cycle < 300)
    assert requested == TileLoader.MAP_DEPTH


def test_requests_of_the_next_tile_run_ahead():
    """While no half is free, the maps of the next job are fetched already."""
    image = CompressedMap(TINY, 16, 4, 16, 0.5, random.Random(3))
    job = {"row": 0, "rows": 4, "segment": 0, "segments": 4, "block": 0, "blocks": 1}
    run = Run(TINY, image, [job, job], seed=3, latency=(40, 40), release=lambda cycle: cycle in (0, 600))
    assert sum(cycle < run.filled[0] + 100 for cycle, *_ in run.map_requests) == 32
    assert run.filled[1] - 600 < 16 * 9 + 60
