"""Descriptor reader: every range, every relation, the chunk limit, and what comes through."""
import random

import pytest
from amaranth import *

from hw import payloads
from hw.configs import CONFIGS
from hw.control.descriptor_reader import DescriptorReader, relations
from hw.descriptor import DESCRIPTOR_BYTES, FIELD_BY_NAME, FIELDS, pack
from hw.registers import ERRORS
from sim_tests.bench.stream import STALL_GRID, StreamBench

ADDRESS = 0x4000_0008
BEATS = DESCRIPTOR_BYTES // 8
FIELD_ERROR, CHUNK_ERROR = ERRORS["descriptor_field"][0], ERRORS["chunk_too_large"][0]

#: A compressed input of 48 channels in chunks of 32, no pooling, tiles that do not divide the map.
PLAIN = {field.name: max(field.low, 0) for field in FIELDS if field.name != "magic"} | dict(
    clamp_high=127, write_full=1, in_height=20, in_width=20, in_channels=48, chunk_channels=32, kernel_rows=3,
    kernel_columns=1, out_height=20, out_width=20, tile_rows=3, tile_columns=12, tiles_per_pass=2, passes=7,
    out_channels=40, full_row_bytes=4096, full_segment_bytes=256, pool_row_bytes=4096, pool_segment_bytes=256)
POOL2 = PLAIN | dict(pool=2, tile_rows=4, tile_columns=8)
POOL3 = POOL2 | dict(pool=3, tile_overlap=1, write_full=0)
DENSE = PLAIN | dict(dense_in=1, dense_shift=2, in_channels=3, chunk_channels=3)
#: Legal as they are: (base, changes).
LEGAL = [
    (PLAIN, {}), (POOL2, {}), (POOL3, {}), (DENSE, {}),
    (POOL2, dict(write_full=0)),
    (PLAIN, dict(in_channels=32)), (PLAIN, dict(in_channels=33, chunk_channels=33)),
    (PLAIN, dict(pool_address=1, pool_row_bytes=1, pool_segment_bytes=1)),      # not used without a pool
    (POOL3, dict(full_address=1, full_row_bytes=1, full_segment_bytes=1)),      # not written
    (PLAIN, dict(dense_shift=5, in_channels=48)),                               # not dense
    (DENSE, dict(in_channels=4, chunk_channels=4)), (DENSE, dict(in_channels=1, chunk_channels=1)),
    (DENSE, dict(dense_shift=4, in_channels=16, chunk_channels=16)),
    (PLAIN, dict(chunk_rows=3)),
    (PLAIN, dict(clamp_high=255)), (PLAIN, dict(clamp_high=0)), (PLAIN, dict(clamp_low=-128)),
    (PLAIN, dict(clamp_low=-1, clamp_high=0)), (PLAIN, dict(in_block_bytes=-2**31)),
    (PLAIN, dict(in_address=0x8000_0300, full_address=0x8000_0100, in_block_bytes=-256)),
    (PLAIN, dict(tile_columns=4)), (PLAIN, dict(tile_columns=21)), (PLAIN, dict(out_width=21, tile_columns=21)),
    (POOL2, dict(tile_rows=21)), (POOL2, dict(out_height=21, tile_rows=21)), (POOL2, dict(tile_columns=21)),
    (POOL3, dict(tile_rows=19, tile_columns=19)), (POOL3, dict(tile_columns=16)),
]
#: Refused: (field that the address names, base, changes).
REFUSED = [
    ("pool", POOL2, dict(pool=1)),
    ("write_full", PLAIN, dict(write_full=0)), ("write_full", POOL3, dict(write_full=1)),
    *((f"{name}_address", base, {f"{name}_address": bad})
      for name, base in (("in", PLAIN), ("full", PLAIN), ("pool", POOL2)) for bad in (64, 1, 0x8000_0008)),
    *(("in_block_bytes", PLAIN, dict(in_block_bytes=bad)) for bad in (64, 8, 1, -1, -64)),
    ("full_address", POOL2, dict(full_address=8)), ("pool_address", POOL3, dict(pool_address=8)),
    *(("weight_address", PLAIN, dict(weight_address=bad)) for bad in (1, 2, 4, 0xFFFF_FFFC)),
    *((f"{name}_bytes", base, {f"{name}_bytes": bad})
      for name, base in (("in_row", PLAIN), ("in_segment", PLAIN), ("full_row", PLAIN), ("full_segment", POOL2),
                         ("pool_row", POOL2), ("pool_segment", POOL3)) for bad in (65, 66, 68)),
    ("in_channels", DENSE, dict(in_channels=5, chunk_channels=5)),
    ("in_channels", DENSE, dict(dense_shift=0, in_channels=2, chunk_channels=2)),
    ("chunk_channels", PLAIN, dict(in_channels=31)), ("chunk_channels", DENSE, dict(chunk_channels=4)),
    *(("chunk_channels", PLAIN, dict(chunk_channels=bad)) for bad in (1, 31, 33, 40)),
    ("chunk_channels", DENSE, dict(chunk_channels=2)),
    ("chunk_rows", PLAIN, dict(chunk_rows=4)),
    ("tile_rows", POOL2, dict(tile_rows=5)), ("tile_rows", POOL2, dict(tile_rows=19)),
    ("tile_rows", POOL3, dict(tile_rows=17)),
    *(("tile_columns", PLAIN, dict(tile_columns=bad)) for bad in (5, 6, 19)),
    ("tile_columns", POOL2, dict(tile_columns=12)), ("tile_columns", POOL3, dict(tile_columns=12)),
    ("tile_columns", POOL3, dict(tile_columns=18)),
    ("tile_overlap", PLAIN, dict(tile_overlap=1)), ("tile_overlap", POOL2, dict(tile_overlap=1)),
    ("tile_overlap", POOL3, dict(tile_overlap=0)),
]
#: Only where values have 8 bits.
REFUSED_8 = [("clamp_low", PLAIN, dict(clamp_low=-129)), ("clamp_low", PLAIN, dict(clamp_low=-2**15)),
             ("clamp_high", PLAIN, dict(clamp_high=256)), ("clamp_high", PLAIN, dict(clamp_low=-1, clamp_high=128)),
             ("clamp_high", PLAIN, dict(clamp_low=-128, clamp_high=255))]
#: Only where values have 16 bits.
REFUSED_NULLHOP = [("clamp_high", PLAIN, dict(clamp_low=-1, clamp_high=2**15))]
#: Legal in the intersect array only: (base, changes).
LEGAL_PHASES = [(PLAIN, dict(phases=phases, stop_phase=stop_phase, predict=predict))
                for phases, stop_phase, predict in ((2, 0, 0), (7, 0, 0), (2, 1, 0), (4, 1, 1), (7, 6, 0), (2, 0, 1))]
LEGAL_PHASES += [(PLAIN, dict(phases=3, signed_in=1)), (PLAIN, dict(phases=3, clamp_low=-128)),
                 (PLAIN, dict(phases=3, predict=1, signed_in=1))]
ONE_CHUNK = PLAIN | dict(chunk_rows=3, chunk_channels=48)
LEGAL_PHASES += [(base, dict(phases=phases, joined=joined, stop_phase=stop_phase, predict=predict))
                 for base, phases, joined, stop_phase, predict in (
                     (PLAIN, 2, 1, 0, 0), (PLAIN, 7, 3, 0, 0), (PLAIN, 5, 3, 1, 0), (PLAIN, 4, 2, 1, 1),
                     (ONE_CHUNK, 2, 1, 1, 0), (ONE_CHUNK, 4, 3, 1, 0), (ONE_CHUNK, 5, 3, 2, 1))]
#: Refused by the array of each kind.
REFUSED_BROADCAST = [("phases", PLAIN, dict(phases=2)), ("phases", PLAIN, dict(phases=7, stop_phase=1)),
                     ("stop_phase", PLAIN, dict(stop_phase=1)), ("predict", PLAIN, dict(predict=1)),
                     ("joined", PLAIN, dict(joined=1))]
REFUSED_INTERSECT = [
    ("phases", PLAIN, dict(stop_phase=1)), ("phases", PLAIN, dict(predict=1)),
    ("stop_phase", PLAIN, dict(phases=2, stop_phase=2)), ("stop_phase", PLAIN, dict(phases=3, stop_phase=6)),
    ("stop_phase", PLAIN, dict(phases=2, stop_phase=1, signed_in=1)),
    ("stop_phase", PLAIN, dict(phases=2, stop_phase=1, clamp_low=-1)),
    ("predict", PLAIN, dict(phases=2, predict=1, clamp_low=-128)),
    ("joined", PLAIN, dict(joined=1)), ("joined", PLAIN, dict(phases=2, joined=2)),
    ("joined", PLAIN, dict(phases=3, joined=2, predict=1)),
    # Weights above 0 of another chunk would follow a stop.
    ("joined", ONE_CHUNK, dict(phases=2, joined=1, stop_phase=1, chunk_rows=1)),
    ("joined", ONE_CHUNK, dict(phases=4, joined=2, stop_phase=2, chunk_channels=32)),
]
#: Only where a map word has 16 channels.
REFUSED_16 = [("dense_shift", DENSE, dict(dense_shift=5)), ("chunk_channels", PLAIN, dict(chunk_channels=24))]


def words_of(layer):
    raw = pack(layer)
    return [int.from_bytes(raw[n:n + 4], "little") for n in range(0, DESCRIPTOR_BYTES, 4)]


def with_word(field, value):
    """A good descriptor but for one raw word; the words without a field are noise, which the reader ignores."""
    words = words_of(PLAIN)
    words[field.word] = value % 2**32
    return words[:len(FIELDS)] + [0xFFFF_FFFF] * (len(words) - len(FIELDS))


class Memory:
    """Answers the requests of a reader from ``images`` (lists of words) from ``address`` on, with stalls."""

    def __init__(self, dut, images, *, address=ADDRESS, stall=(0.0, 0.0), seed=0):
        self.dut, self.stall, self.chance = dut, stall, random.Random(seed)
        self.images = {address + DESCRIPTOR_BYTES * n: image for n, image in enumerate(images)}
        self.requests = []

    async def request(self, ctx):
        """The address of the next request."""
        port = self.dut.o_request
        while True:
            ready = self.chance.random() >= self.stall[1]
            ctx.set(port.ready, ready)
            _, _, valid, payload = await ctx.tick().sample(port.valid, port.payload)
            if valid and ready:
                ctx.set(port.ready, 0)
                assert payload.beats == BEATS
                self.requests.append(payload.address)
                return payload.address

    async def serve(self, ctx):
        data = self.dut.i_data
        while True:
            words = self.images[await self.request(ctx)]
            for low, high in zip(words[::2], words[1::2], strict=True):
                while self.chance.random() < self.stall[0]:
                    await ctx.tick()
                ctx.set(data.payload, low | high << 32)
                ctx.set(data.valid, 1)
                while not (await ctx.tick().sample(data.ready))[2]:
                    pass
                ctx.set(data.valid, 0)


async def start(ctx, dut, count, address=ADDRESS):
    assert ctx.get(dut.o_idle)
    ctx.set(dut.i_address, address)
    ctx.set(dut.i_count, count)
    ctx.set(dut.i_start, 1)
    await ctx.tick()
    ctx.set(dut.i_start, 0)


def verdicts(config, images):
    """For each descriptor alone, after a reset: None if it comes through unchanged, else (code, address)."""
    reset, dut = Signal(), DescriptorReader(config)
    bench = StreamBench(ResetInserter(reset)(dut))
    result = []

    async def one_by_one(ctx):
        for image in images:
            ctx.set(reset, 1)
            await ctx.tick()
            ctx.set(reset, 0)
            memory = Memory(dut, [image])
            await start(ctx, dut, 1)
            await memory.request(ctx)
            ctx.set(dut.i_data.valid, 1)
            for low, high in zip(image[::2], image[1::2], strict=True):
                ctx.set(dut.i_data.payload, low | high << 32)
                await ctx.tick().repeat(2)
            ctx.set(dut.i_data.valid, 0)
            await ctx.tick().repeat(6)
            assert ctx.get(dut.o.valid) != ctx.get(dut.o_error) and not ctx.get(dut.o_idle)
            if ctx.get(dut.o_error):
                result.append((ctx.get(dut.o_error_code), ctx.get(dut.o_error_address)))
            else:
                sent = ctx.get(dut.o.payload)
                assert sent.address == ADDRESS
                assert all(sent.layer[field.name] % 2**32 == image[field.word] for field in FIELDS[1:])
                result.append(None)
    bench.testbench(one_by_one)
    bench.run()
    return result


def field_error(name):
    return FIELD_ERROR, ADDRESS + 4 * FIELD_BY_NAME[name].word


def test_every_field_is_held_to_its_range():
    bad = [(field, value) for field in FIELDS for value in (
        field.low - 1, 0, field.high + 1, 1 << field.width, 2 ** 31 - 1, -2 ** 31, 2 ** 31, 2 ** 32 - 1)
        if (-2 ** 31 <= value < 2 ** 31 if field.signed else 0 <= value < 2 ** 32)
        and not field.low <= value <= field.high]
    assert {field.name for field, _ in bad} == {
        field.name for field in FIELDS if field.width < 32 or field.low > 0}
    found = verdicts(CONFIGS["tiny"], [with_word(*case) for case in bad])
    for (field, value), verdict in zip(bad, found, strict=True):
        assert verdict == field_error(field.name), f"{field.name} = {value:#x}"


def test_both_ends_of_a_range_come_through():
    """But for fields whose ends break a relation: those are tested with it."""
    tied = {"magic", "pool", "dense_in", "write_full", "tile_overlap", "chunk_channels", "tile_columns", "clamp_low",
            "clamp_high", "phases", "stop_phase", "predict", "joined"}
    ends = {"kernel_columns": (1, 5), "chunk_rows": (1, 3), "in_channels": (32, 8191)}
    aligned = {"in_address": 256, "full_address": 256, "in_block_bytes": 256, "weight_address": 8, "in_row_bytes": 8,
               "in_segment_bytes": 8, "full_row_bytes": 8, "full_segment_bytes": 8}
    cases = [(field, value - value % aligned.get(field.name, 1)) for field in FIELDS if field.name not in tied
             for value in ends.get(field.name, (field.low, field.high))]
    found = verdicts(CONFIGS["tiny"], [with_word(*case) for case in cases])
    for (field, value), verdict in zip(cases, found, strict=True):
        assert verdict is None, f"{field.name} = {value:#x}"


@pytest.mark.parametrize("name", ["tiny", "default", "nullhop", "tiny_snapea"])
def test_relations_refuse_and_name_the_field(name):
    config = CONFIGS[name]
    cases = REFUSED + (REFUSED_16 if config.block == 16 else []) + (
        REFUSED_8 if config.value_width == 8 else REFUSED_NULLHOP) + (
        REFUSED_INTERSECT if config.intersect else REFUSED_BROADCAST)
    found = verdicts(config, [words_of(base | changes) for _, base, changes in cases])
    for (field, _, changes), verdict in zip(cases, found, strict=True):
        assert verdict == field_error(field), f"{name}: {changes}"


@pytest.mark.parametrize("name, cases", [("tiny", REFUSED_BROADCAST), ("tiny_snapea", REFUSED_INTERSECT)])
def test_every_relation_has_a_test(name, cases):
    conditions = relations(Signal(payloads.layer()), CONFIGS[name])
    assert {field for field, _ in conditions} == {field for field, *_ in REFUSED + REFUSED_16 + REFUSED_8 + cases}


@pytest.mark.parametrize("name", ["tiny", "default", "tiny_snapea"])
def test_legal_neighbours_of_the_relations_come_through(name):
    cases = LEGAL + (LEGAL_PHASES if CONFIGS[name].intersect else [])
    found = verdicts(CONFIGS[name], [words_of(base | changes) for base, changes in cases])
    for (_, changes), verdict in zip(cases, found, strict=True):
        assert verdict is None, f"{name}: {changes}"


@pytest.mark.parametrize("name, at_limit, beyond", [
    ("tiny", (5, 1, 32), (7, 1, 23)),           # 160 and 161 weights
    ("tiny", (2, 5, 16), (3, 6, 9)),            # 160 and 162
    ("tiny", (1, 1, 160), (1, 1, 161)),
    ("default", (4, 4, 32), (3, 3, 57)),        # 512 and 513
    ("default", (1, 1, 512), (1, 1, 513)),
    ("nullhop", (6, 6, 32), (7, 7, 32)),        # 49 taps
    ("nullhop", (6, 6, 32), (7, 7, 8191)),      # the largest product there is
    ("tiny_snapea", (5, 1, 17), (5, 1, 33)),    # whole blocks of 16: 5 x 32 and 5 x 48
    ("tiny_snapea", (2, 5, 1), (3, 4, 1)),      # 10 and 12 blocks
    ("snapea", (3, 3, 64), (3, 3, 65)),
    ("snapea", (3, 3, 1), (7, 7, 8191)),
])
def test_a_chunk_at_the_limit_fits_and_one_beyond_is_refused(name, at_limit, beyond):
    config = CONFIGS[name]
    layers = [PLAIN | dict(kernel_rows=rows, chunk_rows=rows, kernel_columns=columns, in_channels=channels,
                           chunk_channels=channels) for rows, columns, channels in (at_limit, beyond)]
    stored = -(-at_limit[2] // config.block) * config.block if config.intersect else at_limit[2]
    assert at_limit[0] * at_limit[1] * stored == config.weight_depth
    assert verdicts(config, [words_of(layer) for layer in layers]) == [None, (CHUNK_ERROR, ADDRESS)]


def test_the_first_bad_field_is_kept():
    """First are the ranges in the order of the words, then relations, then the size of the chunk."""
    words = words_of(PLAIN | dict(weight_address=4))
    words[FIELD_BY_NAME["kernel_columns"].word] = 0
    words[FIELD_BY_NAME["chunk_rows"].word] = 8
    large = words_of(PLAIN | dict(in_channels=8000, chunk_channels=8000))
    large[0] = 0
    related = words_of(PLAIN | dict(in_channels=7999, chunk_channels=8000))
    assert verdicts(CONFIGS["tiny"], [words, large, related]) == [
        field_error("kernel_columns"), field_error("magic"), field_error("chunk_channels")]


def random_layers(chance, count):
    """Good descriptors with noise in every field that takes any value."""
    layers = []
    for _ in range(count):
        base, changes = chance.choice(LEGAL)
        layer = base | changes
        for field in FIELDS:
            if field.name in ("signed_in", "in_height", "in_width", "stride", "pad_top", "pad_left",
                              "out_channels", "tiles_per_pass", "passes"):
                layer[field.name] = chance.randint(field.low, field.high)
        layer |= {"weight_address": chance.randrange(0, 2 ** 32, 8), "in_address": chance.randrange(0, 2 ** 32, 256),
                  "in_block_bytes": chance.randrange(-2 ** 31, 2 ** 31, 256)}
        layers.append(layer)
    return layers


@pytest.mark.parametrize("count", [0, 1, 3])
@pytest.mark.parametrize("stall", STALL_GRID)
def test_good_descriptors_pass_unchanged_and_in_order(stall, count):
    """Two lists in a row: the reader can start again when it is idle. Memory and receiver stall."""
    seed = 10 * STALL_GRID.index(stall) + count
    layers = random_layers(random.Random(seed), 2 * count)
    dut = DescriptorReader(CONFIGS["tiny"])
    bench = StreamBench(dut, seed=seed)
    received = bench.sink(dut.o, count=2 * count, stall=stall[1])
    random_stall = tuple(0.5 if isinstance(chance, str) else chance for chance in stall)
    memory = Memory(dut, map(words_of, layers), stall=random_stall, seed=seed)
    bench.testbench(memory.serve, background=True)
    addresses = [ADDRESS + DESCRIPTOR_BYTES * n for n in range(2 * count)]

    async def run(ctx):
        for first in (0, count):
            await start(ctx, dut, count, address=ADDRESS + DESCRIPTOR_BYTES * first)
            if not count:
                await ctx.tick().repeat(10)
            while not ctx.get(dut.o_idle):
                await ctx.tick()
            assert len(received) == first + count, f"seed {seed}"
    bench.testbench(run)
    bench.run()
    assert [word["address"] for word in received] == addresses == memory.requests, f"seed {seed} stall {stall}"
    assert [word["layer"] for word in received] == layers, f"seed {seed} stall {stall}"


@pytest.mark.parametrize("stall", STALL_GRID)
@pytest.mark.parametrize("bad, verdict", [
    (with_word(FIELD_BY_NAME["magic"], 0), field_error("magic")),
    (with_word(FIELD_BY_NAME["pool_segment_bytes"], 1 << 20), field_error("pool_segment_bytes")),
    (words_of(PLAIN | dict(chunk_channels=33)), field_error("chunk_channels")),
    (words_of(PLAIN | dict(chunk_channels=8000, in_channels=8000)), (CHUNK_ERROR, ADDRESS)),
])
def test_a_bad_second_descriptor_lets_the_first_through_and_stops_there(stall, bad, verdict):
    seed = STALL_GRID.index(stall)
    first, third = random_layers(random.Random(seed), 2)
    dut = DescriptorReader(CONFIGS["tiny"])
    bench = StreamBench(dut, seed=seed)
    received = bench.sink(dut.o, count=1, stall=stall[1])
    random_stall = tuple(0.5 if isinstance(chance, str) else chance for chance in stall)
    memory = Memory(dut, [words_of(first), bad, words_of(third)], stall=random_stall, seed=seed)
    bench.testbench(memory.serve, background=True)

    async def run(ctx):
        await start(ctx, dut, 3)
        while not ctx.get(dut.o_error):
            assert not ctx.get(dut.o_idle)
            await ctx.tick()
        await ctx.tick().repeat(2 * BEATS * 12)
        assert ctx.get(dut.o_error) and not ctx.get(dut.o_idle)
        code, address = verdict
        assert ctx.get(dut.o_error_code) == code, f"seed {seed}"
        assert ctx.get(dut.o_error_address) == address + DESCRIPTOR_BYTES, f"seed {seed}"
        # All beats of the bad one have been taken: the bus is free.
        assert not ctx.get(dut.i_data.valid)
    bench.testbench(run)
    bench.run()
    assert [word["layer"] for word in received] == [first], f"seed {seed}"
    assert memory.requests == [ADDRESS, ADDRESS + DESCRIPTOR_BYTES], f"seed {seed}"


def test_a_descriptor_takes_two_cycles_a_beat_and_seven():
    """From the start to ``o``: request, words, two products, the check, its report, then the layer is offered."""
    dut = DescriptorReader(CONFIGS["tiny"])
    bench = StreamBench(dut)
    bench.sink(dut.o, count=2)
    cycles = bench.last_cycles
    bench.source(dut.i_data, [low | high << 32 for _ in range(2) for low, high in
                              zip(words_of(PLAIN)[::2], words_of(PLAIN)[1::2], strict=True)])

    async def run(ctx):
        ctx.set(dut.o_request.ready, 1)
        await start(ctx, dut, 2)
    bench.testbench(run)
    bench.run()
    assert cycles[1] - cycles[0] == 2 * BEATS + 7
