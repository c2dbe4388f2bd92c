"""The packer against list operations."""
import random

import pytest

from hw.config import AcceleratorConfig
from hw.configs import CONFIGS
from hw.encode.packer import Packer, row_values
from sim_tests.bench.stream import StreamBench

CONFIG_LIST = [
    CONFIGS["tiny"],
    CONFIGS["snapea"],
    AcceleratorConfig("t16", value_width=16, groups=3, lanes=32, block=32, drain=8, weight_depth=64, tile_slots=32,
                      sum_windows=16),
    AcceleratorConfig("wide", value_width=8, groups=1, lanes=16, block=16, drain=16, weight_depth=64, tile_slots=32,
                      sum_windows=16),
]
SLOTS = 4


def make_slots(config, density, chance):
    """Four pixels of each of ``SLOTS`` slots, interleaved block by block; some slots end early."""
    words, ends = [], []
    pixels = [chance.randint(1, 4) for _ in range(SLOTS)]
    for pixel in range(4):
        for slot in range(SLOTS):
            for word in range(config.block_words if pixel < pixels[slot] else 0):
                values = [chance.randrange(1, 1 << config.value_width) if chance.random() < density else 0
                          for _ in range(config.drain)]
                words.append({"values": values, "map": sum((value > 0) << n for n, value in enumerate(values)),
                              "slot": slot, "first": int(pixel == word == 0),
                              "last": int(pixel == pixels[slot] - 1 and word == config.block_words - 1)})
                if words[-1]["last"]:
                    ends.append(slot)
    return words, ends


@pytest.mark.parametrize("config", CONFIG_LIST, ids=lambda config: config.name)
@pytest.mark.parametrize("density", (0, 1 / 64, 0.1, 0.5, 1))
@pytest.mark.parametrize("pause", (0, 0.5))
def test_rows_and_tails_hold_the_non_zeros_in_order(config, density, pause):
    seed = 1
    chance = random.Random(seed)
    rounds = [make_slots(config, density, chance) for _ in range(3)]
    dut = Packer(config, SLOTS)
    bench = StreamBench(dut, seed=seed)
    packed = {slot: [] for slot in range(SLOTS)}
    ended = []

    async def drive(ctx):
        async def cycle():
            *_, row_valid, row, end_valid, end = await ctx.tick().sample(
                dut.o_row.valid, dut.o_row.payload, dut.o_end.valid, dut.o_end.payload)
            if row_valid:
                assert row.row * row_values(config) == len(packed[row.slot]), f"row number (seed {seed})"
                packed[row.slot] += list(row["values"])
            if end_valid:
                assert end.count // row_values(config) * row_values(config) == len(packed[end.slot])
                values = packed[end.slot] + list(end.tail)
                assert not any(values[end.count:]), f"zeros behind the last value (seed {seed})"
                ended.append((end.slot, values[:end.count]))
                packed[end.slot] = []
        for words, _ in rounds:
            for word in words:
                while chance.random() < pause:
                    await cycle()
                ctx.set(dut.i.payload, word)
                ctx.set(dut.i.valid, 1)
                await cycle()
                ctx.set(dut.i.valid, 0)
        for _ in range(Packer.LATENCY):
            await cycle()
    bench.testbench(drive)
    bench.run(deadline=20_000)
    expected = [(slot, [value for word in words if word["slot"] == slot for value in word["values"] if value])
                for words, ends in rounds for slot in ends]
    assert ended == expected, f"config {config.name}, density {density}, seed {seed}"
