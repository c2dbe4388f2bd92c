import random
from dataclasses import replace

import pytest

from hw.buffer.weight_loader import WeightLoader
from hw.configs import CONFIGS
from sim_tests.bench.memory import Memory
from sim_tests.bench.stream import STALL_GRID, StreamBench, plain

TINY = CONFIGS["tiny"]
WIDE = replace(CONFIGS["nullhop"], name="wide", lanes=32, weight_depth=160)
BASE = 0x4_0000


def layer(*, out=5, channels=3, chunk_channels=None, rows=3, columns=3, chunk_rows=None, passes=1):
    return {"out_channels": out, "in_channels": channels, "chunk_channels": chunk_channels or channels,
            "kernel_rows": rows, "kernel_columns": columns, "chunk_rows": chunk_rows or rows, "passes": passes}


def chunks_of(shape):
    """(channels, rows) of the chunks, in their order."""
    for channel in range(0, shape["in_channels"], shape["chunk_channels"]):
        for row in range(0, shape["kernel_rows"], shape["chunk_rows"]):
            yield (min(shape["chunk_channels"], shape["in_channels"] - channel),
                   min(shape["chunk_rows"], shape["kernel_rows"] - row))


def make_image(config, shape, chance):
    """The weight image of a layer, and the fills it leads to: ("scales" or "weights", {address in the half: word})."""
    bits = config.value_width
    image, fills = bytearray(), []
    edges = (0, 1, 2 ** bits - 1, 2 ** (bits - 1), 2 ** (bits - 1) - 1)
    for first in range(0, shape["out_channels"], config.lanes):
        lanes = min(config.lanes, shape["out_channels"] - first)
        scales = {}
        for lane in range(-(-lanes // config.block) * config.block):
            bias = chance.choice((-2 ** (config.sum_width - 1), 2 ** (config.sum_width - 1) - 1, 0, -1,
                                  chance.randint(-2 ** 31, 2 ** 31 - 1)))
            scale, shift = chance.choice((0, 65535, chance.randrange(65536))), chance.randrange(64)
            image += bias.to_bytes(8, "little", signed=True) + (scale | shift << 32).to_bytes(8, "little")
            scales[lane] = {"bias": bias, "scale": scale, "shift": shift}
        fills.append(("scales", scales))
        chunks = []
        for channels, rows in chunks_of(shape):
            writes = {}
            for word in range(rows * shape["kernel_columns"] * channels):
                weights = [chance.choice((*edges, chance.randrange(2 ** bits))) for _ in range(lanes)]
                weights += [0] * (-lanes % config.values_per_beat)
                image += b"".join(weight.to_bytes(bits // 8, "little") for weight in weights)
                for beat in range(len(weights) // config.values_per_beat):
                    part = weights[beat * config.values_per_beat:(beat + 1) * config.values_per_beat]
                    writes[word, beat] = pack(part, bits)
            chunks.append(("weights", writes))
        fills += chunks * (1 if len(chunks) == 1 else shape["passes"])
    return bytes(image), fills


def pack(weights, bits):
    if bits == 16:
        return weights
    pairs = []
    for even, odd in zip(weights[::2], weights[1::2], strict=True):
        high = (odd - 256 if odd >= 128 else odd) - (even >= 128)
        pairs.append(even | (high & 511) << 8)
    return pairs


class Run:
    """Load ``shapes`` one after the other and compare every fill with what the images say."""

    def __init__(self, config, shapes, *, seed, stall=(0.0, 0.0), latency=(1, 1), wait=0.0):
        self.config, self.seed, self.wait = config, seed, wait
        chance = random.Random(f"{seed} image")
        contents, layers, self.expected, self.layer_ends = b"", [], [], []
        for shape in shapes:
            image, fills = make_image(config, shape, chance)
            layers.append(shape | {"weight_address": BASE + len(contents)})
            # What lies between the images is none of the loader's business.
            contents += image + chance.randbytes(8)
            self.expected += fills
            self.layer_ends.append(len(self.expected))
        self.dut = dut = WeightLoader(config=config)
        self.bench = StreamBench(dut, seed=seed)
        memory = Memory(contents, base=BASE, seed=seed, latency=latency, stall=stall[0], request_stall=stall[1])
        self.requests = memory.client(dut.o_request, dut.i_data)
        self.filled = []
        self.bench.source(dut.i_layer, layers, stall=stall[0])
        self.bench.testbench(memory.run, background=True)
        self.bench.testbench(self._buffers)
        self.bench.run(deadline=50_000)

    async def _buffers(self, ctx):
        dut, chance = self.dut, random.Random(f"{self.seed} buffers")
        ports = {"weights": (dut.i_free, dut.i_half, dut.o_filled), "scales": (dut.i_scales_free, dut.i_scales_half,
                                                                               dut.o_scales_filled)}
        free, half = dict.fromkeys(ports, False), dict.fromkeys(ports, 0)
        writes, cycle, quiet, layers = {name: {} for name in ports}, 0, 0, 0
        while len(self.filled) < len(self.expected) or quiet < 20:
            for name, (o_free, o_half, _) in ports.items():
                free[name] = free[name] or chance.random() >= self.wait
                ctx.set(o_free, free[name])
                ctx.set(o_half, half[name] if free[name] else chance.randrange(2))
            _, _, weight_valid, weight, scale_valid, scale, *filled, taken, ready, idle = await ctx.tick().sample(
                dut.o_weights.valid, dut.o_weights.payload, dut.o_scales.valid, dut.o_scales.payload,
                dut.o_filled, dut.o_scales_filled, dut.i_layer.valid, dut.i_layer.ready, dut.o_idle)
            where = f"cycle {cycle}, fill {len(self.filled)}, seed {self.seed}"
            assert idle == ready, f"idle {idle}, ready {ready} ({where})"
            if taken and ready:
                ends = [0, *self.layer_ends]
                assert len(self.filled) == ends[layers], f"layer {layers} was taken early ({where})"
                layers += 1
            if weight_valid:
                word, offset = weight.address, half["weights"] * self.config.weight_depth
                assert free["weights"] and (word - offset, weight.beat) not in writes["weights"], f"write ({where})"
                writes["weights"][word - offset, weight.beat] = plain(weight.units)
            if scale_valid:
                lane = scale.address - half["scales"] * self.config.lanes
                assert free["scales"] and lane not in writes["scales"], f"scale write ({where})"
                writes["scales"][lane] = plain(scale.scale)
            for name, pulse in zip(ports, filled, strict=True):
                if pulse:
                    assert not weight_valid and not scale_valid, f"filled not after the last write ({where})"
                    assert free[name], f"{name} filled while not free ({where})"
                    self._compare(name, writes[name], where)
                    writes[name], free[name], half[name] = {}, False, 1 - half[name]
                    self.filled.append(cycle)
            cycle += 1
            quiet = quiet + 1 if len(self.filled) == len(self.expected) else 0
        assert idle and not any(writes.values()), f"not finished at the end (seed {self.seed})"

    def _compare(self, name, got, where):
        assert len(self.filled) < len(self.expected), f"a fill after the last ({where})"
        kind, want = self.expected[len(self.filled)]
        assert name == kind, f"filled {name}, not {kind} ({where})"
        wrong = [(place, got.get(place), want.get(place)) for place in sorted(got | want)
                 if got.get(place) != want.get(place)]
        assert not wrong, f"{name} (place, got, want) {wrong[0]} ({where})"


LOOPS = {
    "one chunk is loaded once": layer(passes=3),
    "kernel blocks": layer(out=37, channels=2),
    "row chunks with a remainder": layer(out=9, channels=4, rows=5, columns=2, chunk_rows=2, passes=2),
    "channel chunks with a remainder": layer(out=3, channels=37, rows=1, columns=1, chunk_channels=16, passes=3),
    "both, kernel blocks and passes": layer(out=18, channels=33, rows=3, columns=2, chunk_rows=2, chunk_channels=16,
                                            passes=2),
    "chunks larger than the layer": layer(out=1, channels=5, chunk_channels=16, chunk_rows=7, passes=2),
    "least": layer(out=1, channels=1, rows=1, columns=1),
    "full lanes": layer(out=32, channels=1, rows=1, columns=1),
}


@pytest.mark.parametrize("name", LOOPS)
@pytest.mark.parametrize("config", (TINY, WIDE), ids=lambda c: c.name)
def test_loops(config, name):
    Run(config, [LOOPS[name]], seed=f"{config.name} {name}", latency=(1, 12), wait=0.7)


@pytest.mark.parametrize("stall", STALL_GRID)
@pytest.mark.parametrize("config", (TINY, WIDE), ids=lambda c: c.name)
def test_layers_one_after_the_other_under_stalls(config, stall):
    shapes = [layer(out=19, channels=17, rows=2, columns=1, chunk_channels=16, chunk_rows=1, passes=2), layer(out=2)]
    Run(config, shapes, seed=f"{config.name} {stall}", stall=stall, latency=(1, 20), wait=0.9)


@pytest.mark.parametrize("seed", range(8))
def test_random_layers(seed):
    chance = random.Random(seed)
    config = chance.choice((TINY, WIDE))
    rows, columns = chance.randint(1, 7), chance.randint(1, 4)
    chunk_rows = chance.randint(1, rows)
    fit = config.weight_depth // (chunk_rows * columns)
    channels = chunk_channels = chance.randint(1, min(fit, 20))
    if fit >= config.block:
        channels, chunk_channels = chance.randint(1, 20), config.block * chance.randint(1, fit // config.block)
    lanes = chance.choice((chance.randint(1, 5), config.lanes + chance.randint(0, 5)))
    shape = layer(out=lanes, channels=channels, rows=rows, columns=columns, chunk_rows=chunk_rows,
                  chunk_channels=chunk_channels, passes=chance.randint(1, 2))
    Run(config, [shape], seed=f"{seed}", latency=(1, 5), wait=0.5)


def test_largest_request_of_the_largest_configuration():
    """Products and counters are wide enough: 16384 words of 256 16-bit lanes."""
    config = replace(CONFIGS["nullhop"], lanes=256, weight_depth=16384)
    dut = WeightLoader(config=config)
    bench = StreamBench(dut, seed=1)

    async def all_free(ctx):
        ctx.set(dut.i_free, 1)
        ctx.set(dut.i_scales_free, 1)
    shape = layer(out=8191, channels=8191, chunk_channels=4096, rows=2, columns=2, passes=65535)
    bench.testbench(all_free)
    bench.source(dut.i_layer, [shape | {"weight_address": 0x1000}])
    bench.source(dut.i_data, [0] * 512)
    received = bench.sink(dut.o_request, count=2)
    bench.run(deadline=2000)
    assert received == [{"address": 0x1000, "beats": 512}, {"address": 0x1000 + 512 * 8, "beats": 16384 * 64}]


def test_one_beat_a_cycle_and_short_gaps():
    """From the last beat of a part to the next request pass 3 cycles; the set-up is hidden behind the transfer."""
    latency = 40
    run = Run(TINY, [layer(out=16, channels=16, rows=3, columns=3, chunk_rows=1, passes=2)], seed=1,
              latency=(latency, latency))
    cycles = [cycle for cycle, *_ in run.requests]
    beats = [beats for *_, beats in run.requests]
    assert beats == [32] + 6 * [96]
    gaps = [after - before for before, after in zip(cycles[1:], cycles[2:], strict=False)]
    assert gaps == 5 * [latency + 96 - 1 + 3], f"{gaps}"
