import random
from dataclasses import replace

import pytest
from amaranth import EnableInserter

from hw.array.intersect.weight_loader import IntersectWeightLoader, RoundWalker
from hw.configs import CONFIGS
from sim_tests.bench.memory import Memory
from sim_tests.bench.stream import STALL_GRID, StreamBench, plain

TINY = CONFIGS["tiny_snapea"]
MIDDLE = replace(TINY, name="middle", lanes=64, block=32, weight_depth=256)
WIDE = replace(TINY, name="wide", lanes=64, block=64, weight_depth=576)
BASE = 0x4_0000
DENSITIES = (0, 1 / 64, 0.1, 0.5, 1)


def layer(*, out=5, channels=3, chunk_channels=None, rows=3, columns=3, chunk_rows=None, passes=1, phases=1,
          joined=0):
    return {"out_channels": out, "in_channels": channels, "chunk_channels": chunk_channels or channels,
            "kernel_rows": rows, "kernel_columns": columns, "chunk_rows": chunk_rows or rows, "passes": passes,
            "phases": phases, "joined": joined}


def chunks_of(shape):
    """(channels, kernel rows) of the chunks, in their order."""
    for channel in range(0, shape["in_channels"], shape["chunk_channels"]):
        for row in range(0, shape["kernel_rows"], shape["chunk_rows"]):
            yield (range(channel, min(channel + shape["chunk_channels"], shape["in_channels"])),
                   range(row, min(row + shape["chunk_rows"], shape["kernel_rows"])))


def rounds_of(shape):
    """(phases, chunk) of the rounds of a pass."""
    last = shape["phases"] - shape["joined"] - 1
    return [(phases, chunk) for phases in [*([phase] for phase in range(last)), range(last, shape["phases"])]
            for chunk in chunks_of(shape)]


def make_lane(config, shape, phases, chunk, weights, chance):
    """The bytes of a lane in a round; its start beat, and the maps and values by word and group.

    ``weights[row, column, channel] = (phase, value)``
    """
    start, threshold = (chance.choice((-2 ** 31, 2 ** 31 - 1, 0, -1, chance.randrange(2 ** 31))) for _ in range(2))
    head = start.to_bytes(4, "little", signed=True) + threshold.to_bytes(4, "little", signed=True)
    channels, rows = chunk
    words = [[weights.get((row, column, channel), (None, 0)) if channel in channels else (None, 0)
              for channel in range(block, block + config.block)]
             for row in rows for column in range(shape["kernel_columns"])
             for block in range(channels.start, channels.stop, config.block)]
    bits, packed, maps, values = "", b"", {}, {}
    for phase in phases:
        for word in words:
            own = [value * (owner == phase) for owner, value in word]
            # As text, the highest channel of the last word first.
            bits = "".join("1" if value else "0" for value in reversed(own)) + bits
            maps[len(maps)] = sum(1 << n for n, value in enumerate(own) if value)
    for number, word in enumerate(words):
        own = [value * (owner in phases) for owner, value in word]
        packed += bytes(value for value in own if value)
        for group in range(config.block // 8):
            part = bytes(own[8 * group:8 * group + 8])
            if any(part):
                values[number, group] = int.from_bytes(part, "little")
    image = head + int(bits, 2).to_bytes(-(-len(bits) // 64) * 8, "little") + packed
    return image + bytes(-len(image) % 8), {"start": start, "threshold": threshold}, maps, values


def make_image(config, shape, chance):
    """The weight image of a layer, its fills of scales (scales by lane), and its fills of rounds: (number of the kernel
    block, writes by kind and place)."""
    image, scale_fills, fills = bytearray(), [], []
    for first in range(0, shape["out_channels"], config.lanes):
        lanes = min(config.lanes, shape["out_channels"] - first)
        weights, scales, scale_image, part, rounds = [], {}, b"", b"", []
        for _ in range(lanes):
            density = chance.choice(DENSITIES)
            weights.append({(row, column, channel): (chance.randrange(shape["phases"]), chance.randrange(1, 256))
                            for row in range(shape["kernel_rows"]) for column in range(shape["kernel_columns"])
                            for channel in range(shape["in_channels"]) if chance.random() < density})
        for lane in range(-(-lanes // config.block) * config.block):
            bias = chance.choice((-2 ** 31, 2 ** 31 - 1, 0))
            scale, shift = chance.choice((0, 65535, chance.randrange(65536))), chance.randrange(64)
            scale_image += bias.to_bytes(8, "little", signed=True) + (scale | shift << 32).to_bytes(8, "little")
            scales[lane] = {"bias": bias, "scale": scale, "shift": shift}
        for phases, chunk in rounds_of(shape):
            writes = {}
            for lane in range(lanes):
                data, start, maps, values = make_lane(config, shape, phases, chunk, weights[lane], chance)
                part += data
                writes["start", lane] = start
                writes |= {("map", lane, word): bits for word, bits in maps.items()}
                writes |= {("values", lane, *place): value for place, value in values.items()}
            rounds.append((len(scale_fills), writes))
        scale_fills.append(scales)
        # Bits 32..63 of the header mean nothing yet.
        image += (len(part) // 8).to_bytes(4, "little") + chance.randbytes(4) + scale_image + part
        fills += rounds * (1 if len(rounds) == 1 else shape["passes"])
    return bytes(image), scale_fills, fills


class Run:
    """Load ``shapes`` one after the other and compare every fill with what the images say.

    ``gated``: without a clock edge where ``o_active`` is 0.
    """

    def __init__(self, config, shapes, *, seed, stall=(0.0, 0.0), latency=(1, 1), wait=0.0, gated=False):
        self.config, self.seed, self.wait = config, seed, wait
        chance = random.Random(f"{seed} image")
        contents, layers, self.scales, self.rounds, self.layer_ends = b"", [], [], [], [0]
        for shape in shapes:
            image, scales, rounds = make_image(config, shape, chance)
            layers.append(shape | {"weight_address": BASE + len(contents)})
            # What lies between the images is none of the loader's business.
            contents += image + chance.randbytes(8)
            self.rounds += [(number + len(self.scales), writes) for number, writes in rounds]
            self.scales += scales
            self.layer_ends.append(len(self.rounds))
        self.dut = dut = IntersectWeightLoader(config=config)
        self.bench = StreamBench(EnableInserter(dut.o_active)(dut) if gated else dut, seed=seed)
        memory = Memory(contents, base=BASE, seed=seed, latency=latency, stall=stall[0], request_stall=stall[1])
        self.requests = memory.client(dut.o_request, dut.i_data)
        self.filled, self.scales_filled, self.data_cycles, self.start_cycles = [], [], [], []
        self.bench.source(dut.i_layer, layers, stall=stall[0])
        self.bench.testbench(memory.run, background=True)
        self.bench.testbench(self._data_never_stall, background=True)
        self.bench.testbench(self._scale_buffer)
        self.bench.testbench(self._weight_buffer)
        self.bench.run(deadline=30_000)

    async def _data_never_stall(self, ctx):
        cycle = 0
        async for _, _, valid, ready in ctx.tick().sample(self.dut.i_data.valid, self.dut.i_data.ready):
            assert ready or not valid, f"the loader stalls the bus (cycle {cycle}, seed {self.seed})"
            if valid:
                self.data_cycles.append(cycle)
            cycle += 1

    async def _scale_buffer(self, ctx):
        dut, chance = self.dut, random.Random(f"{self.seed} scales")
        free, half, writes, valid = False, 0, {}, False
        while len(self.scales_filled) < len(self.scales):
            free = free or chance.random() >= self.wait
            ctx.set(dut.i_scales_free, free)
            ctx.set(dut.i_scales_half, half if free else chance.randrange(2))
            before = valid
            _, _, valid, write, filled, rounds = await ctx.tick().sample(
                dut.o_scales.valid, dut.o_scales.payload, dut.o_scales_filled, dut.o_filled)
            where = f"fill {len(self.scales_filled)} of scales, seed {self.seed}"
            if valid:
                lane = write.address - half * self.config.lanes
                assert free and lane not in writes, f"write of lane {lane} ({where})"
                writes[lane] = plain(write.scale)
            if filled:
                assert free and before and not valid, f"filled not after the last write ({where})"
                assert writes == self.scales[len(self.scales_filled)], f"scales {writes} ({where})"
                self.scales_filled.append(None)
                writes, free, half = {}, False, 1 - half
        ctx.set(dut.i_scales_free, 0)

    async def _weight_buffer(self, ctx):
        dut, chance = self.dut, random.Random(f"{self.seed} weights")
        outputs = [(kind, cluster, port) for kind, ports in (("start", dut.o_starts), ("map", dut.o_maps),
                                                             ("values", dut.o_values))
                   for cluster, port in enumerate(ports)]
        free, half, writes, cycle, quiet, layers = False, 0, {}, 0, 0, 0
        while len(self.filled) < len(self.rounds) or quiet < 20:
            free = free or chance.random() >= self.wait
            ctx.set(dut.i_free, free)
            ctx.set(dut.i_half, half if free else chance.randrange(2))
            samples = [signal for *_, output in outputs for signal in (output.valid, output.payload)]
            _, _, filled, taken, ready, idle, *samples = await ctx.tick().sample(
                dut.o_filled, dut.i_layer.valid, dut.i_layer.ready, dut.o_idle, *samples)
            where = f"cycle {cycle}, round {len(self.filled)}, seed {self.seed}"
            assert idle == ready, f"idle {idle}, ready {ready} ({where})"
            if taken and ready:
                assert len(self.filled) == self.layer_ends[layers], f"layer {layers} was taken early ({where})"
                layers += 1
            for (kind, cluster, _), valid, payload in zip(outputs, samples[::2], samples[1::2], strict=True):
                if valid:
                    assert not filled, f"write with filled ({where})"
                    assert free and payload.half == half, f"write of {kind} to half {payload.half} ({where})"
                    lane = payload.slot * self.config.clusters + cluster
                    self._write(writes, kind, {"lane": lane, **plain(payload)}, where)
                if valid and kind == "start":
                    self.start_cycles.append(cycle)
            if filled:
                assert free, f"filled while not free ({where})"
                self._compare(writes, where)
                writes, free, half = {}, False, 1 - half
                self.filled.append(cycle)
            cycle += 1
            quiet = quiet + 1 if len(self.filled) == len(self.rounds) else 0
        assert idle and not writes and len(self.scales_filled) == len(self.scales), f"not finished (seed {self.seed})"

    def _write(self, writes, kind, payload, where):
        place = (kind, *(payload[name] for name in ("lane", "word", "group") if name in payload))
        assert place not in writes, f"{place} written twice ({where})"
        if kind == "values":
            assert ("map", *place[1:3]) in writes, f"{place} written before its map ({where})"
        writes[place] = {name: payload[name] for name in ("start", "threshold")} if kind == "start" else \
            payload["values" if kind == "values" else "map"]

    def _compare(self, got, where):
        number, want = self.rounds[len(self.filled)]
        assert len(self.scales_filled) > number, f"filled before the scales of the kernel block ({where})"
        wrong = [(place, got.get(place), want.get(place)) for place in sorted(got | want)
                 if got.get(place) != want.get(place)]
        assert not wrong, f"(place, got, want) {wrong[0]} ({where})"


LOOPS = {
    "a round in all is loaded once": layer(passes=3),
    "phases": layer(phases=4, passes=2),
    "phases that share the last round": layer(phases=5, joined=3, passes=2),
    "phases of one round are loaded once": layer(out=9, phases=4, joined=3, passes=3),
    "the same with chunks": layer(out=17, channels=33, rows=2, chunk_rows=1, chunk_channels=16, phases=3, joined=2,
                                  passes=2),
    "kernel blocks": layer(out=37, channels=2, rows=1, columns=2),
    "row chunks with a remainder": layer(out=9, channels=4, rows=5, columns=2, chunk_rows=2, passes=2),
    "channel chunks with a remainder": layer(out=3, channels=37, rows=1, columns=1, chunk_channels=16, passes=3),
    "all loops": layer(out=17, channels=33, rows=3, columns=1, chunk_rows=2, chunk_channels=16, passes=2, phases=3),
    "chunks larger than the layer": layer(out=1, channels=5, chunk_channels=16, chunk_rows=7, passes=2),
    "least": layer(out=1, channels=1, rows=1, columns=1),
    "most phases, full lanes": layer(out=16, channels=1, rows=1, columns=1, phases=7),
}


@pytest.mark.parametrize("name", LOOPS)
def test_loops(name):
    Run(TINY, [LOOPS[name]], seed=name, latency=(1, 12), wait=0.7)


@pytest.mark.parametrize("config", (TINY, MIDDLE, WIDE), ids=lambda c: c.name)
def test_blocks_of_16_32_and_64_channels(config):
    """Full words, a block plus a channel, an odd number of words, a last kernel block of as many lanes as a block."""
    shapes = [layer(out=3, channels=2 * config.block, rows=1, columns=3, phases=2),
              layer(out=2, channels=config.block + 1, chunk_channels=config.block, rows=3, columns=2, passes=2),
              layer(out=config.lanes + config.block, channels=1, rows=1, columns=1)]
    Run(config, shapes, seed=config.name, latency=(1, 20), wait=0.5)


@pytest.mark.parametrize("stall", STALL_GRID)
def test_layers_one_after_the_other_under_stalls(stall):
    shapes = [layer(out=17, channels=17, rows=1, columns=2, chunk_channels=16, phases=2),
              layer(out=2)]
    Run(TINY, shapes, seed=f"{stall}", stall=stall, latency=(1, 20), wait=0.9)


@pytest.mark.parametrize("seed", range(8))
def test_random_layers(seed):
    chance = random.Random(seed)
    config = chance.choice((TINY, MIDDLE, WIDE))
    rows, columns = chance.randint(1, 4), chance.randint(1, 3)
    chunk_rows = chance.randint(1, rows)
    most = config.weight_words // (chunk_rows * columns)
    channels = chunk_channels = chance.randint(1, min(40, most * config.block))
    if chance.random() < 0.5:
        channels, chunk_channels = chance.randint(1, 80), config.block * chance.randint(1, most)
    shape = layer(out=chance.choice((1, 4, 17)), channels=channels, rows=rows, columns=columns, chunk_rows=chunk_rows,
                  chunk_channels=chunk_channels, passes=chance.randint(1, 2), phases=(phases := chance.randint(1, 3)),
                  joined=chance.randrange(phases))
    Run(config, [shape], seed=f"{seed}", stall=(chance.choice((0, 0.3)), 0.2), latency=(1, 40), wait=0.5)


def test_no_edge_is_needed_while_inactive():
    shape = layer(out=17, channels=5, rows=2, columns=1, chunk_rows=1)
    runs = [Run(TINY, [shape, layer()], seed=7, stall=(0.5, 0.5), latency=(1, 30), wait=0.995, gated=gated)
            for gated in (False, True)]
    assert runs[0].filled == runs[1].filled and runs[0].requests == runs[1].requests


def test_reads_ahead_what_the_queue_holds():
    """While no half of the weight buffer is free, 64 beats of the rounds are read, in requests of 16."""
    dut = IntersectWeightLoader(config=WIDE)
    bench = StreamBench(dut, seed=1)
    memory = Memory((0xFFFF_FFFF_1000_0000).to_bytes(8, "little") + bytes(8 * 300), base=BASE, latency=(30, 30))
    requests = memory.client(dut.o_request, dut.i_data)

    async def scales_free(ctx):
        ctx.set(dut.i_scales_free, 1)
        await ctx.tick().repeat(500)
    bench.testbench(scales_free)
    bench.testbench(memory.run, background=True)
    bench.source(dut.i_layer, [layer(out=8191, channels=8191, chunk_channels=128, passes=65535, phases=7)
                               | {"weight_address": BASE}])
    bench.run(deadline=1000)
    (_, *scales), *rounds = requests
    assert scales == [BASE, 1 + 2 * 64]
    assert rounds == [(rounds[0][0] + number, BASE + 8 * (1 + 2 * 64 + 16 * number), 16) for number in range(4)]


def test_next_round_is_worked_out_in_time():
    dut = RoundWalker(config=TINY)
    bench = StreamBench(dut)
    bench.source(dut.i, [layer(out=18, channels=33, chunk_channels=32, rows=3, columns=2, chunk_rows=2, passes=2,
                               phases=2)])
    rounds = bench.sink(dut.o, count=32)
    cycles = bench.last_cycles
    bench.run()
    assert rounds == [{"lanes": lanes, "words": words, "joined": 0}
                      for lanes in (16, 2) for _ in range(4) for words in (8, 4, 4, 2)]
    # The bench counts from 1.
    assert cycles[0] == 1 + dut.LATENCY
    gaps = [after - before for before, after in zip(cycles, cycles[1:], strict=False)]
    within, phase, one_pass, kernels = [5, 5, 5], [6], [7], [8]
    half = within + phase + within + one_pass + within + phase + within
    assert gaps == half + kernels + half


def lane_cycles(writes, lane, config):
    """What the loader of a cluster takes for a lane: 4, one for each map, one for each group with values. A word
    without any takes 1, and the last group of the lane has its turn in any case."""
    maps = sum(place[:2] == ("map", lane) for place in writes)
    groups = {place[2:] for place in writes if place[:2] == ("values", lane)} | {(8, config.block_groups - 1)}
    return 4 + maps + len(groups) + 9 - len({word for word, _ in groups})


@pytest.mark.parametrize("joined", (0, 1))
@pytest.mark.parametrize("config", (TINY, WIDE), ids=lambda c: c.name)
def test_cycles_of_a_round(config, joined):
    """A lane as above, a round 6 besides, of which 2 are those of the queue of the cluster."""
    run = Run(config, [layer(out=1, channels=config.block, phases=3, joined=joined)], seed=2, latency=(2, 2))
    expected = [lane_cycles(writes, 0, config) + 6 for _, writes in run.rounds]
    assert [after - before for before, after in zip(run.filled, run.filled[1:], strict=False)] == expected[1:]
    # The first beat of the rounds comes behind the header and the scales.
    assert run.start_cycles[0] - run.data_cycles[1 + 2 * config.block] == run.dut.LATENCY


@pytest.mark.parametrize("clusters", (1, 2, 4))
def test_the_lanes_of_all_clusters_are_loaded_at_the_same_time(clusters):
    """As long as the slowest cluster takes, and its first and last lane's wait for the others."""
    config = replace(WIDE, clusters=clusters, drain=4)
    run = Run(config, [layer(out=16, channels=64, phases=4)], seed=3, latency=(2, 2))
    took = [after - before for before, after in zip(run.filled, run.filled[1:], strict=False)]
    for cycles, (_, writes) in zip(took, run.rounds[1:], strict=True):
        lanes = [lane_cycles(writes, lane, config) for lane in range(16)]
        slowest = max(sum(lanes[cluster::clusters]) for cluster in range(clusters))
        assert slowest < cycles <= slowest + 2 * max(lanes), (cycles, lanes)
