"""Requantisation against golden/README.md in Python integers and fractions."""
import random
from fractions import Fraction

import pytest

from hw.config import AcceleratorConfig
from hw.configs import CONFIGS
from hw.postprocess.requantise import Requantise
from sim_tests.bench.stream import STALL_GRID, StreamBench

CONFIG_LIST = [
    CONFIGS["tiny"],
    AcceleratorConfig("t16", value_width=16, groups=3, lanes=32, block=32, drain=8, weight_depth=64, tile_slots=32,
                      sum_windows=16),
    AcceleratorConfig("t48", value_width=8, groups=2, lanes=48, block=16, drain=16, weight_depth=64, tile_slots=32,
                      sum_windows=16),
    CONFIGS["snapea"],
]


def wrapped(value, width):
    return (value + (1 << width - 1)) % (1 << width) - (1 << width - 1)


def clamps(config):
    """Limits of outputs by name: the whole range of unsigned and of signed values, and narrower ones."""
    half = 2 ** (config.value_width - 1)
    return {"unsigned": (0, 2 * half - 1), "signed": (-half, half - 1), "ReLU into signed": (0, half - 1),
            "ReLU6": (0, half + 13), "around 0": (-7, 9), "nothing": (0, 0), "below 0": (-half, 0)}


def requantise(config, total, scale, clamp):
    """The exact quotient as a fraction; Python's ``round`` rounds half to even."""
    total = wrapped(total + scale["bias"], config.sum_width)
    quotient = round(Fraction(total * scale["scale"], 1 << scale["shift"]))
    return min(max(quotient, clamp[0]), clamp[1])


def random_scale(config, chance):
    limit = 1 << config.sum_width - 1
    return {"bias": chance.choice((0, 1, -1, limit - 1, -limit, chance.randrange(-limit, limit),
                                   chance.randrange(-1000, 1000))),
            "scale": chance.choice((0, 1, 2, 3, 0x8000, 0xFFFF, chance.randrange(1 << 16))),
            "shift": chance.choice((0, 1, 2, 15, 16, 17, 31, 32, 47, 48, 49, 62, 63, chance.randrange(64)))}


def random_sum(config, scale, chance):
    """Extremes, small numbers, and sums whose result lies around the range of a value, ties included."""
    limit = 1 << config.sum_width - 1
    near = Fraction(chance.randrange(-2 ** (config.value_width + 1), 2 ** (config.value_width + 1)), 2)
    goal = int(near * (1 << scale["shift"]) / scale["scale"]) if scale["scale"] else 0
    choice = chance.choice((limit - 1, -limit, 0, chance.randrange(-limit, limit), chance.randrange(-300, 300),
                            *[goal - scale["bias"] + chance.choice((-1, 0, 0, 1))] * 6))
    return wrapped(choice, config.sum_width)


def make_words(config, scales, count, chance):
    words = []
    for _ in range(count):
        half, lane_word = chance.randrange(2), chance.randrange(config.window_words)
        entries = scales[half * config.lanes + lane_word * config.drain:][:config.drain]
        position = {"y": chance.randrange(4096), "x": chance.randrange(4096), "block": chance.randrange(1024),
                    "word": chance.randrange(config.block_words), "row_first": chance.randrange(2),
                    "row_last": chance.randrange(2), "column_first": chance.randrange(2),
                    "column_last": chance.randrange(2)}
        words.append({"sums": [random_sum(config, entry, chance) for entry in entries], "lane_word": lane_word,
                      "half": half, "position": position})
    return words


def expect(config, scales, words, clamp):
    expected = []
    for word in words:
        first = word["half"] * config.lanes + word["lane_word"] * config.drain
        values = [requantise(config, total, scales[first + n], clamp) % (1 << config.value_width)
                  for n, total in enumerate(word["sums"])]
        expected.append({"values": values, "position": word["position"]})
    return expected


async def write_scales(ctx, dut, scales, *, start=0):
    for address, scale in enumerate(scales, start):
        ctx.set(dut.i_scales.payload, {"address": address, "scale": scale})
        ctx.set(dut.i_scales.valid, 1)
        await ctx.tick()
    ctx.set(dut.i_scales.valid, 0)


async def send(ctx, dut, words, *, stall=0.0, seed=0):
    """A source that a testbench can call once the scales are written."""
    chance = random.Random(f"{seed} words")
    for word in words:
        while chance.random() < stall:
            await ctx.tick()
        ctx.set(dut.i.payload, word)
        ctx.set(dut.i.valid, 1)
        while True:
            *_, taken = await ctx.tick().sample(dut.i.ready)
            if taken:
                break
        ctx.set(dut.i.valid, 0)


def run_requantise(config, scales, words, clamp, *, stall=(0.0, 0.0), seed=0):
    dut = Requantise(config)
    bench = StreamBench(dut, seed=seed)
    started = []

    async def prepare(ctx):
        ctx.set(dut.i_clamp, dict(zip(("low", "high"), clamp, strict=True)))
        await write_scales(ctx, dut, scales)
        started.append(bench._cycle)
        await send(ctx, dut, words, stall=stall[0], seed=seed)
    bench.testbench(prepare)
    expected = expect(config, scales, words, clamp)
    received = bench.sink(dut.o, count=len(expected), stall=stall[1])
    cycles = bench.last_cycles
    bench.run(deadline=20_000)
    for number, (got, want) in enumerate(zip(received, expected, strict=True)):
        assert got == want, f"word {number} of {config.name}: {words[number]} (stall {stall}, seed {seed})"
    return [cycle - started[0] for cycle in cycles]


@pytest.mark.parametrize(("seed", "kind"), enumerate(clamps(CONFIGS["tiny"])))
@pytest.mark.parametrize("config", CONFIG_LIST, ids=lambda config: config.name)
def test_matches_exact_fractions(config, kind, seed):
    chance, clamp = random.Random(seed), clamps(config)[kind]
    scales = [random_scale(config, chance) for _ in range(2 * config.lanes)]
    words = make_words(config, scales, 1200 // config.drain, chance)
    results = {value for word in expect(config, scales, words, clamp) for value in word["values"]}
    assert {limit % 2 ** config.value_width for limit in clamp} <= results
    assert len(results) >= min(30, (clamp[1] - clamp[0]) // 4)
    cycles = run_requantise(config, scales, words, clamp, seed=seed)
    assert cycles == [Requantise.LATENCY + 1 + number for number in range(len(words))]


@pytest.mark.parametrize("config", CONFIG_LIST[:2], ids=lambda config: config.name)
def test_ties_go_to_the_even_neighbour(config):
    """n + 1/2 for even and odd n of both signs, by every way to shift: 1 bit, 16 bits, more than 32."""
    chance, clamp = random.Random(5), clamps(config)["signed"]
    kinds = [{"bias": 0, "scale": 1, "shift": 1}, {"bias": 7, "scale": 0x8000, "shift": 16},
             {"bias": -7, "scale": 4, "shift": 20}, {"bias": 0, "scale": 2, "shift": 19}]
    scales = [kinds[lane % len(kinds)] for lane in range(2 * config.lanes)]
    words = []
    for number in range(-20, 20):
        word = make_words(config, scales, 1, chance)[0]
        word.update(half=0, lane_word=0)
        for lane in range(config.drain):
            scale = scales[lane]
            step = (1 << scale["shift"]) // scale["scale"]
            word["sums"][lane] = number * step + step // 2 - scale["bias"]
        words.append(word)
    values = [wrapped(word["values"][0], config.value_width) for word in expect(config, scales, words, clamp)]
    assert values == [number + (number % 2) for number in range(-20, 20)]
    run_requantise(config, scales, words, clamp)


@pytest.mark.parametrize("stall", STALL_GRID)
def test_matches_under_stalls(stall):
    config, seed = CONFIG_LIST[0], 9
    chance = random.Random(seed)
    scales = [random_scale(config, chance) for _ in range(2 * config.lanes)]
    run_requantise(config, scales, make_words(config, scales, 80, chance), clamps(config)["signed"], stall=stall,
                   seed=seed)


def test_one_half_is_written_while_the_other_is_read():
    config, seed = CONFIG_LIST[0], 4
    chance = random.Random(seed)
    scales = [random_scale(config, chance) for _ in range(2 * config.lanes)]
    later = [random_scale(config, chance) for _ in range(config.lanes)]
    words = [word for word in make_words(config, scales, 120, chance) if word["half"] == 0]
    after = [word | {"half": 1} for word in make_words(config, later * 2, 40, chance)]
    dut = Requantise(config)
    bench = StreamBench(dut, seed=seed)

    async def first(ctx):
        ctx.set(dut.i_clamp, {"low": -128, "high": 127})
        await write_scales(ctx, dut, scales)
        await send(ctx, dut, words + after)

    async def second(ctx):
        await ctx.tick().repeat(len(scales) + 10)
        assert not ctx.get(dut.o_idle)
        await write_scales(ctx, dut, later, start=config.lanes)
    bench.testbench(first)
    bench.testbench(second)
    expected = expect(config, scales[:config.lanes] + later, words + after, (-128, 127))
    received = bench.sink(dut.o, count=len(expected))
    bench.run(deadline=20_000)
    assert len(words) > config.lanes and received == expected, f"seed {seed}"


def test_idle_only_when_empty():
    config = CONFIG_LIST[0]
    dut = Requantise(config)
    bench = StreamBench(dut)
    words = make_words(config, [{"bias": 0, "scale": 0, "shift": 0}] * 2 * config.lanes, 3, random.Random(1))

    async def watch(ctx):
        assert ctx.get(dut.o_idle)
        ctx.set(dut.i.payload, words[0])
        ctx.set(dut.i.valid, 1)
        await ctx.tick()
        ctx.set(dut.i.valid, 0)
        for _ in range(20):
            assert not ctx.get(dut.o_idle)
            await ctx.tick()
        assert ctx.get(dut.o.valid)
        ctx.set(dut.o.ready, 1)
        await ctx.tick()
        assert ctx.get(dut.o_idle)
    bench.testbench(watch)
    bench.run(deadline=20_000)
