"""Sequencer against golden/README.md, "Loop order" and "Tile geometry", as a plain generator of jobs."""
import dataclasses
import random

import pytest

from hw import payloads
from hw.config import LOCAL_BITS, SEGMENT
from hw.configs import CONFIGS
from hw.control.sequencer import Sequencer
from hw.control.tile_geometry import TileGeometry
from hw.descriptor import FIELD_BY_NAME, FIELDS
from hw.registers import ERRORS
from sim_tests.bench.stream import PATIENT, STALL_GRID, StreamBench

#: Cycles from one job to the next without stalls: the rate that the docstring promises.
JOB_CYCLES = TileGeometry.LATENCY + 6
BASE = {field.name: field.low for field in FIELDS if field.name != "magic"} | {"write_full": 1}


# ---- the page as a generator ---------------------------------------------------------------------------------------

def ceil_div(number, divisor):
    return -(-number // divisor)


def chunks_of(total, step):
    return [(first, min(step, total - first)) for first in range(0, total, step)]


def tiles_of(layer):
    """(y, x, rows, columns) of every tile, row by row."""
    def side(length, step):
        overlap, origin, spans = layer["tile_overlap"], 0, []
        while not spans or origin < length - overlap:
            spans.append((origin, min(origin + step + overlap, length) - origin))
            origin += step
        return spans
    return [(y, x, rows, columns) for y, rows in side(layer["out_height"], layer["tile_rows"])
            for x, columns in side(layer["out_width"], layer["tile_columns"])]


def loaded(origin, windows, stride, pad, kernel_first, kernel, size):
    """(loaded lines, the line under the first window's first tap)."""
    under = origin * stride - pad + kernel_first
    last = under + (windows - 1) * stride + kernel - 1
    return range(max(0, under), min(size - 1, last) + 1), under


def jobs_of(layer, config):
    """(load, group, collect, errors) of every job in order; ``collect`` is None but for the last round.

    A field that has no meaning is left out. ``errors`` names what the hardware must refuse from this tile on.
    """
    channel_chunks = chunks_of(layer["in_channels"], layer["chunk_channels"])
    row_chunks = chunks_of(layer["kernel_rows"], layer["chunk_rows"])
    chunks = [(channel, row) for channel in channel_chunks for row in row_chunks]
    phase_rounds = layer["phases"] - layer["joined"]
    rounds = [(phase, chunk) for phase in range(phase_rounds) for chunk in chunks]
    tiles = tiles_of(layer)
    passes = [tiles[first:first + count] for first, count in chunks_of(len(tiles), layer["tiles_per_pass"])]
    for kernel, lanes in chunks_of(layer["out_channels"], config.lanes):
        for number, pass_ in enumerate(passes):
            for round_ in rounds:
                phase, chunk = round_
                windows = 0
                for tile in pass_:
                    load, group, slots = input_of(layer, config, tile, *chunk)
                    final = round_ == rounds[-1]
                    words = ceil_div(lanes, config.block) * config.block // config.drain
                    whole = len(rounds) == 1    # its weights stay for all passes
                    first, last = tile is tiles[0], tile is tiles[-1]
                    group |= {"first_chunk": round_ == rounds[0], "last_chunk": final, "pass_first": tile is pass_[0],
                              "joined": layer["joined"] if phase == phase_rounds - 1 else 0,
                              "stop_part": max(0, layer["stop_phase"] - phase) if layer["stop_phase"] else 7,
                              "predict": bool(layer["predict"]) and phase == 0 and chunk == chunks[-1],
                              "weights_first": first if whole else tile is pass_[0],
                              "weights_last": last if whole else tile is pass_[-1], "lanes": lanes, "words": words}
                    y, x, rows, columns = tile
                    collect = {"rows": rows, "columns": columns, "y": y, "x": x, "block": kernel // config.block,
                               "words": words, "pass_first": tile is pass_[0], "scales_first": first,
                               "scales_last": last}
                    windows += rows * columns
                    errors = set()
                    if slots > config.tile_slots or load["rows"] >= 1 << LOCAL_BITS:
                        errors.add("tile_too_large")
                    kept = not whole or config.intersect
                    if kept and ceil_div(windows, config.groups) > config.sum_windows:
                        errors.add("pass_too_large")
                    if layer["pool"] and max(1, ceil_div(columns - layer["pool"], 2) + 1) > config.pool_columns:
                        errors.add("pool_too_wide")
                    if tile is pass_[-1] and last != (number == layer["passes"] - 1):
                        errors.add("geometry")
                    yield load, group, collect if final else None, errors


def input_of(layer, config, tile, channel_chunk, row_chunk):
    """What a tile loads for a chunk: load job, the input part of the group job, slots."""
    y, x, rows, columns = tile
    (channel, channels), (row, kernel_rows) = channel_chunk, row_chunk
    in_rows, y_under = loaded(y, rows, layer["stride"], layer["pad_top"], row, kernel_rows, layer["in_height"])
    in_columns, x_under = loaded(x, columns, layer["stride"], layer["pad_left"], 0, layer["kernel_columns"],
                                 layer["in_width"])
    blocks = ceil_div(channels, config.block)
    load, slots = {"rows": 0}, 0
    group = {"rows": rows, "columns": columns, "in_rows": 0, "in_columns": 0, "channels": channels,
             "kernel_rows": kernel_rows, "kernel_columns": layer["kernel_columns"], "stride": layer["stride"],
             "dense": layer["dense_in"], "signed": layer["signed_in"]}
    if in_rows and in_columns:
        segments = range(in_columns[0] // SEGMENT, in_columns[-1] // SEGMENT + 1)
        load = {"row": in_rows[0], "rows": len(in_rows), "segment": segments[0], "segments": len(segments),
                "block": channel // config.block, "blocks": blocks}
        group |= {"y_first": y_under - in_rows[0], "x_first": x_under - in_columns[0], "in_rows": len(in_rows),
                  "in_columns": len(in_columns), "phase": in_columns[0] % SEGMENT, "segments": len(segments),
                  "blocks": blocks}
        slots = len(in_rows) * len(segments) * blocks
    return load, group, slots


# ---- layers --------------------------------------------------------------------------------------------------------

def passes_of(layer):
    return ceil_div(len(tiles_of(layer)), layer["tiles_per_pass"])


def random_layer(chance, config):
    """Any layer that a descriptor can name; it may not fit the buffers."""
    layer = dict(BASE)
    for name in ("clamp_high", "signed_in", "in_address", "weight_address", "full_row_bytes"):
        layer[name] = chance.randint(0, FIELD_BY_NAME[name].high)
    pool = chance.choice([0, 0, 2, 3])
    height, width = chance.randint(1, 20), chance.randint(1, 30)
    kernel_rows = chance.choice([1, 3, chance.randint(1, 7)])
    in_channels = chance.choice([1, config.block, config.block + 1, chance.randint(1, 3 * config.block)])
    stored = chance.choice([channels for channels in (in_channels, config.block, 2 * config.block)
                            if channels <= in_channels])
    layer |= {
        "pool": pool, "tile_overlap": int(pool == 3), "write_full": int(pool != 3),
        "out_height": height, "out_width": width, "stride": chance.choice([1, 1, 2, 3, 4]),
        "in_height": chance.choice([1, height, chance.randint(1, 60)]),
        "in_width": chance.choice([1, width, chance.randint(1, 60)]),
        "pad_top": chance.choice([0, 1, 3, 15]), "pad_left": chance.choice([0, 1, 3, 15]),
        "kernel_rows": kernel_rows, "kernel_columns": chance.choice([1, 3, chance.randint(1, 7)]),
        "in_channels": in_channels, "chunk_channels": stored, "chunk_rows": chance.randint(1, kernel_rows),
        "dense_in": int(in_channels <= config.block and chance.random() < .3),
        "out_channels": chance.choice([1, config.lanes, config.lanes + 1, chance.randint(1, 3 * config.lanes)]),
        "tile_rows": chance.choice([1, 2, 4, 7]) if not pool else chance.choice([2, 4, 6]),
        "tile_columns": chance.choice([4, 8, 12, 32]) if not pool else chance.choice([8, 16, 32]),
        "tiles_per_pass": chance.choice([1, 2, 3, 65535]),
    }
    if config.intersect:
        layer["phases"] = chance.choice([1, 2, 4])
        layer["stop_phase"] = chance.randrange(layer["phases"])
        layer["predict"] = chance.randint(0, 1)
        layer["joined"] = chance.randrange(layer["phases"])
    return layer | {"passes": passes_of(layer)}


def random_layers(seed, config, *, legal, most_jobs=60):
    """An endless sequence of layers of 2 to ``most_jobs`` jobs (before an error); ``legal``: without or with one."""
    chance = random.Random(seed)
    while True:
        layer = random_layer(chance, config)
        if not legal and chance.random() < .3:
            layer["passes"] = max(1, layer["passes"] + chance.choice([-1, 1, 3]))
        count, errors = 0, set()
        for *_, errors in jobs_of(layer, config):
            if errors or count > most_jobs:
                break
            count += 1
        if 2 <= count <= most_jobs and bool(errors) != legal:
            yield layer


def take(number, layers):
    return [layer for _, layer in zip(range(number), layers, strict=False)]


#: (configuration, seed) of the runs of random layers.
RANDOM_RUNS = [(name, seed) for name in ("tiny", "small", "default", "nullhop", "tiny_snapea")
               for seed in range(20 if name == "tiny_snapea" else 4)]


def layers_of_run(name, seed):
    return take(3, random_layers(f"{seed} {name}", CONFIGS[name], legal=True))


# ---- bench ---------------------------------------------------------------------------------------------------------

def meaningful(received, expected):
    """The received jobs without the fields that have no meaning."""
    assert len(received) == len(expected)
    return [{name: job[name] for name in wanted} for job, wanted in zip(received, expected, strict=True)]


class Layers:
    """Runs ``layers``; models ``i_idle`` and checks begin, end and ``o_layer``. The last may be ``refused``.

    ``i_idle`` is low for some cycles after every job, as in the accelerator, and flickers for less than ``SETTLE``
    cycles; it is long enough up only a while after the last job. ``quick``: it never falls.
    """

    def __init__(self, config, layers, *, stall=(0.0, 0.0), seed=0, refused=False, quick=False):
        self.layers, self.quick, self.refused, self.config = layers, quick, refused, config
        self.chance = random.Random(f"{seed} idle")
        self.dut = dut = Sequencer(config)
        self.bench = StreamBench(dut, seed=seed)
        self.context = f"seed {seed} stall {stall} config {config.name}"
        self.expected = [self.until_error(layer) for layer in layers]
        jobs = sum(self.expected, [])
        self.collects = [job for *_, job in jobs if job]
        self.bench.source(dut.i, [{"layer": layer, "address": self.address(n)} for n, layer in enumerate(layers)],
                          stall=stall[0])
        sinks, self.cycles = [], []
        for stream, count in ((dut.o_load, len(jobs)), (dut.o_group, len(jobs)), (dut.o_collect, len(self.collects))):
            sinks.append(self.bench.sink(stream, count=count, stall=stall[1]))
            self.cycles.append(self.bench.last_cycles)
        self.received, self.jobs = sinks, jobs
        self.begun, self.ended, self.end_delay = 0, 0, []
        self.bench.testbench(self.watch, background=True)
        self.bench.testbench(self.wait)

    @staticmethod
    def address(number):
        return 0x8000_0000 + 192 * number

    def until_error(self, layer):
        jobs = []
        for *job, errors in jobs_of(layer, self.config):
            if errors:
                break
            jobs.append(job)
        return jobs

    async def wait(self, ctx):
        """Keeps the run going until the end, or the error, of the last layer."""
        while not (ctx.get(self.dut.o_error) if self.refused else self.ended == len(self.layers)):
            await ctx.tick()

    async def watch(self, ctx):
        dut, history, busy_for, idle_since = self.dut, [], 3, 0
        raw = [payloads.layer().const(layer).as_bits() for layer in self.layers]
        while True:
            if self.quick:
                idle = True
            elif busy_for:
                busy_for -= 1
                idle = False
            else:
                # Flicker, but stay up once it has lasted: nothing brings it down but a job.
                idle = all(history[-dut.SETTLE:]) and len(history) > dut.SETTLE or self.chance.random() < .8
            ctx.set(dut.i_idle, idle)
            history.append(idle)
            streams = (dut.o_load, dut.o_group, dut.o_collect)
            _, _, begin, end, busy, layer, *moves = await ctx.tick().sample(
                dut.o_begin, dut.o_end, dut.o_busy, dut.o_layer.as_value(),
                *(stream.valid & stream.ready for stream in streams))
            assert busy == (self.begun > self.ended), self.context
            if begin:
                assert not busy and idle, f"began without i_idle ({self.context})"
                self.begun += 1
            if busy:
                assert layer == raw[self.begun - 1], f"o_layer ({self.context})"
            if any(moves):
                busy_for, idle_since = self.chance.randint(1, 30), len(history)
            if end:
                self.ended += 1
                assert all(history[-dut.SETTLE:]), f"i_idle was not up for SETTLE cycles ({self.context})"
                taken = sum(len(jobs) for jobs in self.expected[:self.ended])
                assert [len(received) for received in self.received[:2]] == [taken, taken], self.context
                self.end_delay.append(len(history) - idle_since)

    def run(self):
        self.bench.run(deadline=10_000)
        for received, expected in zip(self.received, ([job[0] for job in self.jobs], [job[1] for job in self.jobs],
                                                      self.collects), strict=True):
            assert meaningful(received, expected) == expected, self.context
        return self


# ---- tests ---------------------------------------------------------------------------------------------------------

@pytest.mark.parametrize("name", ["tiny", "default", "tiny_snapea"])
@pytest.mark.parametrize("stall", STALL_GRID)
def test_jobs_match_the_loop_order_under_stalls(stall, name):
    """Two layers in a row, at each stall pattern others."""
    seed = STALL_GRID.index(stall)
    Layers(CONFIGS[name], take(2, random_layers(f"{seed} {name}", CONFIGS[name], legal=True, most_jobs=30)),
           stall=stall, seed=seed).run()


@pytest.mark.parametrize("name, seed", RANDOM_RUNS)
def test_jobs_of_random_layers_match_the_loop_order(name, seed):
    Layers(CONFIGS[name], layers_of_run(name, seed), seed=seed, quick=seed % 2).run()


def test_random_layers_reach_every_loop():
    """The layers of the test above do have what makes the loops hard."""
    seen = set()
    for name, seed in RANDOM_RUNS:
        config = CONFIGS[name]
        for layer in layers_of_run(name, seed):
            jobs, tiles = list(jobs_of(layer, config)), tiles_of(layer)
            channels, stored = layer["in_channels"], layer["chunk_channels"]
            chunked, passes = layer["chunk_rows"] < layer["kernel_rows"], layer["passes"] > 1
            seen |= {reason for reason, holds in {
                "kernel blocks with a remainder": layer["out_channels"] > config.lanes
                and layer["out_channels"] % config.lanes,
                "channel chunks with a remainder": channels > stored and channels % stored,
                "row chunks with a remainder": chunked and layer["kernel_rows"] % layer["chunk_rows"],
                "channel and row chunks": chunked and channels > stored,
                "passes with a remainder": passes and len(tiles) % layer["tiles_per_pass"],
                "passes and chunks": passes and chunked and channels > stored,
                "passes and one chunk": passes and not chunked and channels <= stored,
                "overlap": layer["tile_overlap"] and tiles[-1][0] and tiles[-1][1],
                "tiles that do not divide the map": tiles[-1][2] < tiles[0][2] and tiles[-1][3] < tiles[0][3],
                "nothing to load": any(not load["rows"] for load, *_ in jobs),
                "a phase": any(group.get("phase") for _, group, *_ in jobs),
                "dense": layer["dense_in"], "stride 4": layer["stride"] == 4,
                "phases and one chunk": layer["phases"] > 1 and not chunked and channels <= stored,
                "phases, channel and row chunks": layer["phases"] > 1 and chunked and channels > stored,
                "phases and passes": layer["phases"] > 1 and passes,
                "a stop": any(group["stop_part"] == 0 for _, group, *_ in jobs),
                "a stop within a round": any(0 < group["stop_part"] <= group["joined"] for _, group, *_ in jobs),
                "joined phases and chunks": layer["joined"] and chunked,
                "joined phases behind others": 0 < layer["joined"] < layer["phases"] - 1,
                "all phases in one round": 0 < layer["joined"] == layer["phases"] - 1 and not chunked
                and channels <= stored,
                "a prediction": any(group["predict"] for _, group, *_ in jobs),
            }.items() if holds}
    assert len(seen) == 22, sorted(seen)


def layer_of(**changes):
    """One tile of 4 x 4 windows, one slot a row, unless changed; ``passes`` follows."""
    layer = BASE | dict(in_height=4, in_width=4, out_height=4, out_width=4, tile_rows=4, tile_columns=4) | changes
    return layer | {"passes": changes.get("passes", passes_of(layer))}


def test_a_job_takes_the_promised_cycles_and_all_of_them_wait_for_the_slowest():
    config = CONFIGS["tiny"]
    layer = layer_of(out_height=8, out_width=12, in_height=8, in_width=12)
    run = Layers(config, [layer], quick=True).run()
    loads, groups, collects = run.cycles
    assert loads == groups == collects == [loads[0] + JOB_CYCLES * n for n in range(6)]
    assert run.end_delay == [Sequencer.SETTLE + 1]
    run = Layers(config, [layer], stall=(0.0, PATIENT), seed=1).run()
    moves = list(zip(*run.cycles, strict=True))
    assert all(max(before) < min(after) for before, after in zip(moves, moves[1:], strict=False)), moves


TINY, TINY_SNAPEA = CONFIGS["tiny"], CONFIGS["tiny_snapea"]
#: Room for tiles of 256 rows: the limit is then the width of a job's field.
TALL = dataclasses.replace(TINY, name="tall", tile_slots=4096)


def windows(rows, columns, **changes):
    """A layer whose only tile has ``rows x columns`` windows, and as many pixels."""
    return layer_of(in_height=rows, in_width=columns, out_height=rows, out_width=columns, tile_rows=rows,
                    tile_columns=columns, **changes)


#: (name of the error, configuration, layer at the limit, layer beyond)
LIMITS = [
    ("tile_too_large", TINY, windows(4, 32), windows(3, 44)),
    ("tile_too_large", TINY, windows(4, 32), windows(4, 33)),
    ("tile_too_large", TINY, windows(32, 4), windows(33, 4)),
    ("tile_too_large", TINY, windows(2, 4, in_channels=256, chunk_channels=256),
     windows(2, 4, in_channels=257, chunk_channels=257)),
    ("tile_too_large", TALL, windows(128, 4) | {"stride": 2, "in_height": 255},
     windows(128, 4) | {"stride": 2, "in_height": 256, "kernel_rows": 2, "chunk_rows": 2}),
    ("pass_too_large", TINY, windows(8, 8, kernel_rows=2), windows(13, 5, kernel_rows=2)),
    ("pass_too_large", TINY, windows(8, 8, in_channels=32, chunk_channels=16),
     windows(13, 5, in_channels=32, chunk_channels=16)),
    ("pass_too_large", TINY, layer_of(out_height=8, out_width=16, tiles_per_pass=4, kernel_rows=2),
     layer_of(out_height=8, out_width=16, tiles_per_pass=5, kernel_rows=2)),
    ("pass_too_large", TINY_SNAPEA, windows(8, 8), windows(13, 5)),
    ("pass_too_large", TINY_SNAPEA, windows(8, 8, phases=2), windows(13, 5, phases=2)),
    ("pool_too_wide", TINY, windows(2, 16, pool=2), windows(2, 17, pool=2)),
    ("pool_too_wide", TINY, windows(2, 17, pool=3, tile_overlap=1, write_full=0),
     windows(2, 18, pool=3, tile_overlap=1, write_full=0)),
    ("geometry", TINY, layer_of(out_width=12, tiles_per_pass=2, passes=2),
     layer_of(out_width=12, tiles_per_pass=2, passes=3)),
    ("geometry", TINY, layer_of(out_width=12, tiles_per_pass=2, passes=2),
     layer_of(out_width=12, tiles_per_pass=2, passes=1)),
    ("geometry", TINY, layer_of(passes=1), layer_of(passes=65535)),
]


async def stays_refused(ctx, dut, code, address):
    """The error is up for good, with its code and address, and no layer ends."""
    for _ in range(40):
        assert ctx.get(dut.o_error) and not ctx.get(dut.o_end)
        assert (ctx.get(dut.o_error_code), ctx.get(dut.o_error_address)) == (code, address)
        await ctx.tick()


@pytest.mark.parametrize("error, config, at_limit, beyond", LIMITS)
def test_a_layer_at_the_limit_runs_and_one_beyond_is_refused(error, config, at_limit, beyond):
    """Both in one run: the good layer ends, jobs before the bad tile come, none after it."""
    assert not any(errors for *_, errors in jobs_of(at_limit, config))
    assert set.union(*(errors for *_, errors in jobs_of(beyond, config))) == {error}
    run = Layers(config, [at_limit, beyond], refused=True, seed=5)

    async def refused(ctx):
        while not ctx.get(run.dut.o_error):
            await ctx.tick()
        await stays_refused(ctx, run.dut, ERRORS[error][0], Layers.address(1))
    run.bench.testbench(refused)
    run.run()
    assert run.ended == 1


@pytest.mark.parametrize("seed", range(12))
def test_random_bad_layers_are_refused_at_the_right_tile(seed):
    layer = take(1, random_layers(f"bad {seed}", TINY, legal=False))[0]
    errors = next(errors for *_, errors in jobs_of(layer, TINY) if errors)
    run = Layers(TINY, [layer], refused=True, seed=seed, stall=STALL_GRID[seed % len(STALL_GRID)])

    async def refused(ctx):
        while not ctx.get(run.dut.o_error):
            await ctx.tick()
        code = ctx.get(run.dut.o_error_code)
        assert code in {ERRORS[error][0] for error in errors}, f"{run.context}: {code}, expected {errors}"
        await stays_refused(ctx, run.dut, code, Layers.address(0))
    run.bench.testbench(refused)
    run.run()


def test_single_chunk_layers_have_no_limit_on_a_pass():
    """Broadcast: partial sums are kept only between chunks: the window count may pass its limit."""
    layer = layer_of(out_height=40, out_width=16, tiles_per_pass=65535)
    assert 40 * 16 > TINY.groups * TINY.sum_windows
    Layers(TINY, [layer], quick=True).run()
