# amaranth: UnusedElaboratable=no
"""A group against plain NumPy windows: random sparse tiles and weights, written through the write ports."""
import dataclasses
from dataclasses import dataclass, field

import numpy as np
import pytest
from amaranth import Module
from amaranth.lib import data

from hw import payloads
from hw.array.broadcast.group import Group
from hw.buffer.double_buffer import DoubleBufferControl
from hw.config import AcceleratorConfig
from hw.configs import CONFIGS
from sim_tests.bench.stream import STALL_GRID, StreamBench

TINY = CONFIGS["tiny"]
T16 = AcceleratorConfig("t16", value_width=16, groups=2, lanes=16, block=16, drain=4, weight_depth=64, tile_slots=32,
                        sum_windows=16)
ONE = AcceleratorConfig("one", value_width=8, groups=1, lanes=32, block=16, drain=4, weight_depth=320, tile_slots=64,
                        sum_windows=64)
DENSITIES = (0, 1 / 64, 0.1, 0.5, 1)


@dataclass
class Tile:
    """A loaded tile and one chunk. ``values``: channel, row, column of whole segments, what is not needed included."""
    values: np.ndarray
    weights: np.ndarray                  # lane, kernel row, kernel column, channel
    rows: int = 2
    columns: int = 3
    y_first: int = 0
    x_first: int = 0
    in_columns: int = 0
    phase: int = 0
    stride: int = 1
    dense: int = 0
    signed: int = 0
    words: int = 4
    lanes: int = 16
    flags: dict = field(default_factory=dict)

    def flag(self, name):
        return self.flags.get(name, 1)

    def job(self, config):
        channels, rows, columns = self.values.shape
        names = ("first_chunk", "last_chunk", "pass_first", "weights_first", "weights_last")
        return {
            "rows": self.rows, "columns": self.columns, "y_first": self.y_first, "x_first": self.x_first,
            "in_rows": rows, "in_columns": self.in_columns, "phase": self.phase, "segments": columns // 4,
            "blocks": -(-channels // config.block), "channels": channels, "kernel_rows": self.weights.shape[1],
            "kernel_columns": self.weights.shape[2], "stride": self.stride, "dense": self.dense,
            "signed": self.signed, "lanes": self.lanes, "words": self.words,
        } | {name: self.flag(name) for name in names}

    def window(self, y, x):
        """Sums of all lanes, and non-zero values, of one window."""
        kernel_rows, kernel_columns = self.weights.shape[1:3]
        total, work = np.zeros(self.weights.shape[0], dtype=object), 0
        for ky in range(kernel_rows):
            for kx in range(kernel_columns):
                row, column = self.y_first + y * self.stride + ky, self.x_first + x * self.stride + kx
                if 0 <= row < self.values.shape[1] and 0 <= column < self.in_columns:
                    pixel = self.values[:, row, column + self.phase]
                    total += self.weights[:, ky, kx, :].astype(object) @ pixel.astype(object)
                    work += np.count_nonzero(pixel)
        return total, work


def pack_tile(config, tile):
    """Map words, by slot and pixel, and value beats, by slot, as golden/README.md lays them out."""
    channels, rows, columns = tile.values.shape
    maps, beats = {}, {}
    slot = 0
    for block in range(0, channels, config.block):
        part = tile.values[block:block + config.block]
        for row in range(rows):
            for segment in range(0, columns, 4):
                stored = []
                for pixel in range(4):
                    vector = [int(value) for value in part[:, row, segment + pixel]]
                    word = sum(1 << bit for bit, value in enumerate(vector) if value)
                    maps[slot * 4 + pixel] = {"map": word, "offset": len(stored) % config.slot_values}
                    stored += vector if tile.dense else [value for value in vector if value]
                for start in range(0, len(stored), config.values_per_beat):
                    beats[slot * config.value_beats + start // config.values_per_beat] = sum(
                        (value & (1 << config.value_width) - 1) << config.value_width * n
                        for n, value in enumerate(stored[start:start + config.values_per_beat]))
                slot += 1
    assert slot <= config.tile_slots
    return maps, beats


def pack_weights(config, weights):
    """Rows of the multipliers' memories: (address, multiplier) -> stored bits."""
    lanes, kernel_rows, kernel_columns, channels = weights.shape
    flat = weights.reshape(lanes, -1)
    assert flat.shape[1] <= config.weight_depth
    rows = []
    for address in range(flat.shape[1]):
        lane = [int(weight) for weight in flat[:, address]]
        if config.value_width == 8:
            rows.append([(lane[n + 1] - (lane[n] < 0) & 0x1FF) << 8 | lane[n] & 0xFF for n in range(0, lanes, 2)])
        else:
            rows.append([weight & 0xFFFF for weight in lane])
    return rows


class Bench:
    """A group with the controls of its double buffers, loaders that overwrite a half as soon as it is free."""

    def __init__(self, config, tiles, *, index=0, seed=0, stall=(0.0, 0.0), loaders_stall=0.0):
        self.config, self.tiles, self.seed = config, tiles, seed
        self.chance = np.random.default_rng([seed, 99])
        self.loaders_stall = loaders_stall
        m = Module()
        m.submodules.group = self.group = Group(config, index)
        m.submodules.tile = self.tile_control = DoubleBufferControl(consumers=1)
        m.submodules.weights = self.weight_control = DoubleBufferControl(consumers=1)
        for name, control in (("tile", self.tile_control), ("weights", self.weight_control)):
            m.d.comb += [
                getattr(self.group, f"i_{name}_full").eq(control.o_full),
                getattr(self.group, f"i_{name}_half").eq(control.o_half),
                control.i_take.eq(getattr(self.group, f"o_{name}_take")),
                control.i_release.eq(getattr(self.group, f"o_{name}_release")),
            ]
        self.bench = StreamBench(m, seed=seed)
        self.activity, self.lane_work, self.releases = [], [], {"tile": 0, "weights": 0}
        self.bench.testbench(self.load_tiles, background=True)
        self.bench.testbench(self.load_weights, background=True)
        self.bench.testbench(self.watch, background=True)
        self.bench.source(self.group.i_job, [tile.job(config) for tile in tiles], stall=stall[0])
        self.expected = reference(config, tiles, index)
        self.received = self.bench.sink(self.group.o_sums, count=len(self.expected), stall=stall[1])
        self.cycles = self.bench.last_cycles
        self.bench.testbench(self.wait_idle)

    async def wait_free(self, ctx, control):
        while not ctx.get(control.o_free) or self.chance.random() < self.loaders_stall:
            await ctx.tick()
        return ctx.get(control.o_fill_half)

    async def filled(self, ctx, control):
        ctx.set(control.i_filled, 1)
        await ctx.tick()
        ctx.set(control.i_filled, 0)

    async def load_tiles(self, ctx):
        c, group = self.config, self.group
        for tile in self.tiles:
            half = await self.wait_free(ctx, self.tile_control)
            maps, beats = pack_tile(c, tile)
            # Backwards: what was read last is overwritten first.
            maps, beats = [*maps.items()][::-1], [*beats.items()][::-1]
            for n in range(max(len(maps), len(beats))):
                ctx.set(group.i_map.valid, n < len(maps))
                ctx.set(group.i_values.valid, n < len(beats))
                if n < len(maps):
                    ctx.set(group.i_map.payload, {"address": half * c.tile_slots * 4 + maps[n][0], "word": maps[n][1]})
                if n < len(beats):
                    ctx.set(group.i_values.payload,
                            {"address": half * c.tile_slots * c.value_beats + beats[n][0], "data": beats[n][1]})
                await ctx.tick()
            ctx.set(group.i_map.valid, 0)
            ctx.set(group.i_values.valid, 0)
            await self.filled(ctx, self.tile_control)

    async def load_weights(self, ctx):
        c, port = self.config, self.group.i_weights
        for tile in self.tiles:
            if not tile.flag("weights_first"):
                continue
            half = await self.wait_free(ctx, self.weight_control)
            ctx.set(port.valid, 1)
            for address, row in [*enumerate(pack_weights(c, tile.weights))][::-1]:
                for beat in range(c.units // c.units_per_beat):
                    units = row[beat * c.units_per_beat:(beat + 1) * c.units_per_beat]
                    ctx.set(port.payload, {"address": half * c.weight_depth + address, "beat": beat, "units": units})
                    await ctx.tick()
            ctx.set(port.valid, 0)
            await self.filled(ctx, self.weight_control)

    async def watch(self, ctx):
        group = self.group
        async for _, _, activity, work, tile, weights in ctx.tick().sample(
                group.o_activity, group.o_lane_work, group.o_tile_release, group.o_weights_release):
            names = [name for name, _ in activity.shape() if activity[name]]
            assert len(names) == 1, f"activity {names} (seed {self.seed})"
            self.activity.append(names[0])
            self.lane_work.append(int(work))
            self.releases["tile"] += tile
            self.releases["weights"] += weights

    async def wait_idle(self, ctx):
        released = 0
        while released < len(self.tiles) or not ctx.get(self.group.o_idle):
            *_, pulse = await ctx.tick().sample(self.group.o_tile_release)
            released += pulse
        await ctx.tick().repeat(10)
        assert ctx.get(self.group.o_idle)

    def run(self, deadline=60_000):
        self.bench.run(deadline=deadline)
        for n, (received, expected) in enumerate(zip(self.received, self.expected, strict=True)):
            assert received == expected, f"word {n} is {received}, not {expected} (seed {self.seed})"
        assert self.releases == {"tile": len(self.tiles), "weights": sum(t.flag("weights_last") for t in self.tiles)}
        return self


def windows(config, tiles):
    """Of all groups: (tile, group, index in its pass, sums, non-zero values)."""
    turn, indices = 0, [0] * config.groups
    for tile in tiles:
        if tile.flag("pass_first"):
            turn, indices = 0, [0] * config.groups
        for y in range(tile.rows):
            for x in range(tile.columns):
                yield tile, turn, indices[turn], *tile.window(y, x)
                indices[turn] += 1
                turn = (turn + 1) % config.groups


def reference(config, tiles, index):
    """Words that come out of group ``index``."""
    partial, words = {}, []
    modulus = 1 << config.sum_width
    for tile, group, position, total, _ in windows(config, tiles):
        if group != index:
            continue
        if not tile.flag("first_chunk"):
            total = total + partial[position]
        total = (total + modulus // 2) % modulus - modulus // 2
        partial[position] = total
        if tile.flag("last_chunk"):
            words += [[int(total[n * config.drain + lane]) for lane in range(config.drain)]
                      for n in range(tile.words)]
    return words


def own_work(config, tiles, index):
    return sum(work for _, group, _, _, work in windows(config, tiles) if group == index)


def random_tile(config, rng, *, density=0.5, kernel=(3, 3), channels=16, rows=2, columns=3, stride=1, pad=0,
                dense=0, is_signed=0, phase=0, weights=None, extreme=False, words=None, lanes=None, flags=None):
    """A tile of one segment row more than needed, with what the windows need below and beside cut off by ``pad``."""
    in_rows = (rows - 1) * stride + kernel[0] - pad
    in_columns = (columns - 1) * stride + kernel[1] - pad
    width = -(-(phase + max(in_columns, 0)) // 4) * 4
    low, high = (-(1 << config.value_width - 1), (1 << config.value_width - 1) - 1) if is_signed else \
        (0, (1 << config.value_width) - 1)
    shape = (channels, max(in_rows, 0), width)
    values = rng.choice([low, high], shape) if extreme else rng.integers(low, high + 1, shape)
    values = np.where(rng.random(shape) < density, values, 0)
    if weights is None:
        limit = 1 << config.value_width - 1
        shape = (config.lanes, *kernel, channels)
        weights = rng.choice([-limit, limit - 1], shape) if extreme else rng.integers(-limit, limit, shape)
    words = words or config.window_words
    return Tile(values, weights, rows=rows, columns=columns, y_first=-pad, x_first=-pad, in_columns=max(in_columns, 0),
                phase=phase, stride=stride, dense=dense, signed=is_signed, words=words,
                lanes=lanes or words * config.drain, flags=flags or {})


@pytest.mark.parametrize("stall", STALL_GRID)
def test_windows_match_numpy_under_stalls(stall):
    rng = np.random.default_rng(1)
    weights = random_tile(TINY, rng, density=0).weights
    tiles = [random_tile(TINY, rng, density=density, pad=pad, weights=weights, phase=phase,
                         flags={"pass_first": n == 0, "weights_first": n == 0, "weights_last": n == 4})
             for n, (density, pad, phase) in enumerate(zip(DENSITIES, (0, 1, 0, 1, 0), (0, 1, 2, 3, 0), strict=True))]
    for index in range(TINY.groups):
        Bench(TINY, tiles, index=index, seed=1, stall=stall).run()


@pytest.mark.parametrize("config", [TINY, T16], ids=lambda config: config.name)
@pytest.mark.parametrize("kernel, stride, channels", [
    ((1, 1), 1, 16), ((1, 1), 2, 48), ((2, 3), 1, 5), ((3, 3), 2, 7), ((5, 5), 3, 2), ((7, 7), 4, 1), ((1, 7), 2, 9),
    ((3, 1), 1, 17)])
def test_kernels_strides_and_channels(config, kernel, stride, channels):
    seed = 100 * kernel[0] + 10 * kernel[1] + stride
    rng = np.random.default_rng(seed)
    tiles = [random_tile(config, rng, density=density, kernel=kernel, channels=channels, columns=2,
                         rows=1 + (kernel[0] < 7), stride=stride, pad=pad, phase=phase)
             for density, pad, phase in ((0.5, 0, 3), (0.2, kernel[0] // 2, 0), (1, min(kernel) - 1, 1))]
    for index in range(config.groups) if config is TINY else [stride % 2]:
        Bench(config, tiles, index=index, seed=seed).run()


def test_padding_on_all_sides_and_beyond():
    rng = np.random.default_rng(7)
    tiles = []
    for y_first, x_first in ((-2, -2), (-5, 0), (0, -6), (1, 2), (-3, -1)):
        tile = random_tile(TINY, rng, density=0.6, rows=3, columns=2)
        tile.values, tile.in_columns = tile.values[:, :3], 3
        tile.y_first, tile.x_first, tile.rows, tile.columns = y_first, x_first, 4, 5
        tiles.append(tile)
    for index in range(TINY.groups):
        Bench(TINY, tiles, index=index, seed=7).run()


def test_an_empty_tile_gives_zero_sums():
    rng = np.random.default_rng(8)
    none = random_tile(TINY, rng)
    none.values, none.in_columns = np.zeros((16, 0, 4), dtype=int), 0
    tiles = [none, random_tile(TINY, rng, density=0), random_tile(TINY, rng, density=0.4), none]
    bench = Bench(TINY, tiles, seed=8).run()
    assert bench.received[:12] == [[0] * 4] * 12


@pytest.mark.parametrize("config", [TINY, T16], ids=lambda config: config.name)
@pytest.mark.parametrize("is_signed", [0, 1])
def test_dense_tiles(config, is_signed):
    rng = np.random.default_rng(9 + is_signed)
    tiles = [random_tile(config, rng, density=density, channels=4, dense=1, is_signed=is_signed, pad=1, columns=5)
             for density in DENSITIES]
    Bench(config, tiles, index=1, seed=9 + is_signed).run()


@pytest.mark.parametrize("config, taps", [(TINY, (2, 5)), (T16, (2, 2))], ids=["tiny", "t16"])
@pytest.mark.parametrize("is_signed", [0, 1])
def test_extreme_values_and_weights(config, taps, is_signed):
    rng = np.random.default_rng(11)
    limit = 1 << config.value_width - 1
    low = -limit if is_signed else 2 * limit - 1
    tiles = [random_tile(config, rng, density=1, kernel=taps, is_signed=is_signed, extreme=True, rows=1, columns=4)]
    for weight in (-limit, limit - 1):
        for value in (low, limit - 1):
            tile = random_tile(config, rng, density=1, kernel=taps, is_signed=is_signed, rows=1, columns=4)
            tile.values[:], tile.weights[:] = value, weight
            tiles.append(tile)
    Bench(config, tiles, seed=11).run()


@pytest.mark.parametrize("config", [TINY, T16], ids=lambda config: config.name)
@pytest.mark.parametrize("words", [1, 4])
@pytest.mark.parametrize("stall", [(0.0, 0.0), (0.5, 0.9)])
def test_partial_sums_over_chunks_tiles_and_passes(config, words, stall):
    rng = np.random.default_rng(20 + words)
    tiles = []
    for _ in range(2):                                                       # passes
        geometry = [(1, 3), (2, 2), (1, 1), (1, 2)]
        for chunk in range(3):
            weights = random_tile(config, rng, kernel=(1, 2)).weights
            for n, (rows, columns) in enumerate(geometry):
                tiles.append(random_tile(
                    config, rng, density=rng.choice([0, 0.05, 0.5]), kernel=(1, 2), rows=rows, columns=columns,
                    weights=weights, words=words,
                    flags={"first_chunk": chunk == 0, "last_chunk": chunk == 2, "pass_first": n == 0,
                           "weights_first": n == 0, "weights_last": n == len(geometry) - 1}))
    for index in range(config.groups):
        Bench(config, tiles, index=index, seed=20 + words, stall=stall, loaders_stall=0.5).run()


def test_a_job_without_an_own_window_releases_what_it_took():
    rng = np.random.default_rng(31)
    tiles = [random_tile(TINY, rng, rows=1, columns=1, kernel=(1, 1)) for _ in range(6)]
    bench = Bench(TINY, tiles, index=1, seed=31).run()
    assert bench.received == [] and "busy" not in bench.activity


@pytest.mark.parametrize("density, least", [(0.3, 0.98), (0.1, 0.95)])
@pytest.mark.parametrize("config", [ONE, TINY], ids=lambda config: config.name)
def test_lanes_are_busy(config, density, least, capsys):
    rng = np.random.default_rng(40)
    kernel, channels = ((3, 3), 32) if config is ONE else ((3, 3), 16)
    weights = random_tile(config, rng, channels=channels).weights
    tiles = [random_tile(config, rng, density=density, kernel=kernel, channels=channels, rows=2, columns=8,
                         weights=weights, flags={"weights_first": n == 0, "weights_last": n == 1}, lanes=13)
             for n in range(2)]
    bench = Bench(config, tiles, index=0, seed=40)
    bench.run()
    busy = [n for n, name in enumerate(bench.activity) if name == "busy"]
    span = bench.activity[busy[0]:busy[-1] + 1]
    share = len(busy) / len(span)
    reasons = {name: span.count(name) for name in sorted(set(span))}
    with capsys.disabled():
        print(f"\n{config.name}, density {density}: {share:.4f} of {len(span)} cycles busy, {reasons}")
    assert len(busy) == own_work(config, tiles, 0)
    assert sum(bench.lane_work) == 13 * len(busy)
    assert share >= least, reasons


@pytest.mark.parametrize("lanes", [16, 32])
def test_windows_end_every_words_cycles(lanes):
    """1x1 kernels with a single value: the drain is the limit, and it is reached."""
    rng = np.random.default_rng(41)
    config = dataclasses.replace(ONE, lanes=lanes)
    tile = random_tile(config, rng, density=1, kernel=(1, 1), channels=1, rows=1, columns=16)
    bench = Bench(config, [tile], seed=41).run()
    gaps = np.diff(bench.cycles)
    assert (gaps == 1).all(), gaps


def test_payloads_survive_wiring():
    """``wiring.connect`` compares widths only: the layouts have to be the same ones."""
    group = Group(TINY, 0)
    for name, layout in (("i_map", payloads.map_write), ("i_values", payloads.value_write),
                         ("i_weights", payloads.weight_write), ("o_sums", payloads.sums),
                         ("i_job", payloads.group_job)):
        assert data.Layout.cast(getattr(group, name).payload.shape()) == layout(TINY)
