"""Cycle estimate of a layer: what the compiler minimises when it chooses a tiling.

It knows densities, not maps, and is cheap enough to cost all tilings at once. The cycles that are quoted for a layer
are those of :mod:`golden.cycle_model`, which follows the hardware.

The four stages work at the same time, so the slowest sets the pace:

    cycles = max(compute, drain, read, write) + fill

* ``compute``: for each kernel block, pass and chunk every group works on ``ceil(windows of the pass / groups)`` windows
  of ``max(non-zero values, map words, drained words) + WINDOW_CYCLES`` cycles, longer by the factor :func:`spread`
  because windows differ and a group can be only one tile ahead of another; each tile costs ``TILE_CYCLES`` besides.
* ``drain``: a word of ``drain`` sums leaves the groups each cycle, for all channels of all finished windows.
* ``read``: beats of input slots (for each kernel block and chunk, halos included), weights (again for each pass if
  there is more than one chunk) and scales.
* ``write``: beats of the slots of the output maps.
* ``fill``: ``LAYER_CYCLES``, the first chunk of weights and the first tile: nothing overlaps with them.

In the intersect array a window is ``lanes`` tasks for each round, dealt to the PEs of a group. What they take, how much
that differs, and how many there are, says a :class:`PhaseWork`. Input is read again for each round. A word of finished
sums is joined from a sum of each cluster a cycle, in all groups at the same time. There is a fifth stage:

* ``unpack``: weights take :func:`unpack_cycles` for each round and lane of a cluster, input a cycle for each
  ``UNPACKED`` channels of each word; input and the weights of all clusters are unpacked at the same time.

Rounds follow each other, and do not have the same work for the same tiles: while one is bound by computing, another
may wait for tiles or weights. ``uneven`` is how much longer than the slowest stage of the layer the slowest stages of
each round are together. Where a round has no more than ``TILES_AHEAD`` tiles these are loaded ahead for the next round,
weights are in any case; finished sums leave in the last round.

Source: golden/README.md, "Loop order"; hw/README.md.
"""
import math
from dataclasses import dataclass
from functools import reduce

import numpy as np

from hw.config import BEAT, SEGMENT, UNPACKED, AcceleratorConfig

from .layer import LayerResult
from .tiling import Geometry, Tiling, ceil_div, chunk_spans, row_loads, segment_loads, tile_spans

#: Cycles between windows of a group, between tasks of a PE (0, or those of the products that are lost when one stops),
#: cycles a tile costs every group, cycles to start and end a layer.
WINDOW_CYCLES = 1
TASK_CYCLES = 1
#: Cycles from a task to its first word, and from its last product to the place for another task: a PE has two of them
#: (hw/array/intersect/processing_element.py).
PIPELINE_CYCLES, TASKS_INSIDE = 10, 2
#: Cycles of a lane and round besides those of its words (hw/array/intersect/round_loader.py).
LANE_CYCLES = 4
TILE_CYCLES = 8
LAYER_CYCLES = 400
#: Tiles of the intersect array that are loaded and unpacked ahead of the one that is computed.
TILES_AHEAD = 2
#: Standard deviation of a window's non-zero values, as a fraction of their mean, that the spread assumes.
VARIATION = 0.25


@dataclass(frozen=True)
class CycleEstimate:
    """Cycles of each stage of a layer; arrays if the arguments were arrays. ``unpack`` and ``uneven``: 0 in the
    broadcast array."""
    compute: float
    drain: float
    read: float
    write: float
    fill: float
    unpack: float = 0
    uneven: float = 0

    @property
    def cycles(self):
        """Cycles of the layer."""
        return _slowest(self.compute, self.drain, self.read, self.write, self.unpack) + self.uneven + self.fill

    @property
    def bound(self) -> str:
        """The slowest stage."""
        return max(("compute", "drain", "read", "write", "unpack"), key=lambda name: getattr(self, name))


@dataclass(frozen=True)
class PhaseWork:
    """What the intersect array does for a window and a lane in each phase of the weights, a tuple of means each; the
    last entry is that of all phases that share a round, the last ``joined`` and the one before them.

    ``cycles``: by :func:`task_cycles`; ``variation``: their standard deviation, as a fraction of the mean, that neither
    the window nor the lane explains; ``tasks``: 1, less the part of the windows whose sum is final before the phase;
    ``weights``: part of the lane's weights that are of the phase. ``whole``: a round must have all channels and rows of
    a kernel.
    """
    cycles: tuple[float, ...]
    variation: tuple[float, ...]
    tasks: tuple[float, ...]
    weights: tuple[float, ...]
    joined: int = 0
    whole: bool = False

    @property
    def phase_rounds(self) -> int:
        """Rounds of each chunk."""
        return len(self.cycles)

    @property
    def phases(self) -> int:
        return self.phase_rounds + self.joined

    def maps(self, number: int) -> int:
        """Phases in round ``number`` of a chunk: map words for each word of weights."""
        return self.joined + 1 if number == self.phase_rounds - 1 else 1


def task_cycles(products, words):
    """Cycles of a task of so many products and map words, numbers or arrays: a cycle for each product, or for each word
    that is fetched, or half of the time that two tasks take to pass the PE. 0 words: there is no task."""
    longest = np.maximum(products, words)
    return np.where(words, np.maximum(longest, (longest + PIPELINE_CYCLES) / TASKS_INSIDE), 0)


def even_work(geometry: Geometry, config: AcceleratorConfig, *, phases: int = 1, joined: int = 0, density_in: float,
              density_weights: float = 1.0) -> PhaseWork:
    """The work of ``phases`` phases, the last ``joined`` of them in one round with the one before, with an equal share
    of the weights for each round, if no sum is stopped; densities are fractions of non-zero values."""
    rounds = phases - joined
    taps = geometry.kernel_rows * geometry.kernel_columns
    products = taps * geometry.in_channels * density_in * inside_fraction(geometry) * density_weights / rounds
    words = taps * ceil_div(geometry.in_channels, config.block)
    cycles = float(task_cycles(products, words))
    return PhaseWork(*((value,) * rounds for value in (cycles, 0.0, 1.0, density_weights / rounds)), joined)


def _slowest(*stages):
    return reduce(np.maximum, stages)


def kinds(total: int, step: int) -> list[tuple[int, int]]:
    """``(size, count)`` of the distinct parts when ``total`` is cut in steps of ``step``."""
    whole, rest = divmod(total, step)
    return [(size, count) for size, count in ((step, whole), (rest, 1)) if size and count]


def inside_fraction(geometry: Geometry) -> float:
    """Fraction of the taps of all windows that lie inside of the map."""
    def side(windows, taps, pad, length):
        at = np.arange(windows)[:, None] * geometry.stride - pad + np.arange(taps)
        return np.mean((at >= 0) & (at < length))
    return float(side(geometry.out_height, geometry.kernel_rows, geometry.pad_top, geometry.in_height)
                 * side(geometry.out_width, geometry.kernel_columns, geometry.pad_left, geometry.in_width))


def spread(parts_each, workers: int, variation: float = VARIATION):
    """Factor of the slowest of ``workers`` over their mean, if they meet after two tiles of ``parts_each``, windows for
    one."""
    return 1 + variation * math.sqrt(2 * math.log(workers)) / np.sqrt(np.maximum(2 * parts_each, 1))


def slot_read_beats(geometry: Geometry, config: AcceleratorConfig, density: float) -> float:
    """Mean beats of an input slot."""
    if geometry.dense_shift is not None:
        return max(1, (SEGMENT << geometry.dense_shift) / config.values_per_beat)
    return _mean_beats(geometry.in_channels, config, density)


def _mean_beats(channels, config, density):
    values = density * SEGMENT * channels / ceil_div(channels, config.block)
    # Rounding up to whole beats costs half a beat, but never more than a full slot has.
    return config.map_beats + min(values / config.values_per_beat + (0.5 if values else 0), config.value_beats)


def unpack_cycles(words: int, config: AcceleratorConfig, density: float = 1.0, maps: int = 1) -> float:
    """Cycles that the weights of a lane and round, ``words`` words with ``maps`` maps each, take to unpack in the
    intersect array: one for each map, and one for each 8 channels of a word with weights, at least one; ``density`` of
    the weights are not 0."""
    groups = config.block_groups * (1 - (1 - density) ** (config.block // config.block_groups))
    return LANE_CYCLES + words * (maps + max(1, groups))


def weight_beats(geometry: Geometry, config: AcceleratorConfig) -> int:
    """Beats of all weights of a layer of the broadcast array, read once."""
    weights = geometry.kernel_rows * geometry.kernel_columns * geometry.in_channels
    return sum(count * ceil_div(lanes, config.values_per_beat)
               for lanes, count in kinds(geometry.out_channels, config.lanes)) * weights


def scale_beats(geometry: Geometry, config: AcceleratorConfig) -> int:
    """Beats of all biases, scales and shifts of a layer."""
    return 2 * config.block * ceil_div(geometry.out_channels, config.block)


def write_beats(geometry: Geometry, config: AcceleratorConfig, density: float) -> float:
    """Mean beats of the output maps."""
    sizes = [(geometry.out_height, geometry.out_width)] if geometry.write_full else []
    if geometry.pool:
        sizes.append((geometry.pooled_height, geometry.pooled_width))
    blocks = ceil_div(geometry.out_channels, config.block)
    return sum(rows * ceil_div(columns, SEGMENT) for rows, columns in sizes) * blocks * _mean_beats(
        geometry.out_channels, config, density)


def estimate_tiled(geometry: Geometry, config: AcceleratorConfig, *, chunk_channels: int, chunk_rows: int, tiles,
                   windows, passes, slots, density_in: float, density_out: float,
                   work: PhaseWork | None = None) -> CycleEstimate:
    """The estimate from the counts of a tiling; counts may be arrays (of candidates).

    Parameters
    ----------
    chunk_channels, chunk_rows : int
        Size of a chunk.
    tiles, windows, passes : int or array
        Tiles, their windows (shared ones counted for each tile) and passes of a kernel block.
    slots : int or array
        Slots loaded for a kernel block and phase, by all chunks.
    density_in, density_out : float
        Fractions of non-zero values; ``density_in`` over the taps inside of the map.
    work : PhaseWork, optional
        Of the intersect array, which needs it.
    """
    chunks = [(rows * geometry.kernel_columns, channels, rows_count * channels_count)
              for rows, rows_count in kinds(geometry.kernel_rows, chunk_rows)
              for channels, channels_count in kinds(geometry.in_channels, chunk_channels)]
    counts = _Counts(chunks, tiles, windows, passes, slots, slot_read_beats(geometry, config, density_in))
    write = write_beats(geometry, config, density_out)
    if config.intersect:
        return _intersect_estimate(geometry, config, counts, write, work)
    return _broadcast_estimate(geometry, config, counts, write, density_in)


@dataclass(frozen=True)
class _Counts:
    """``chunks``: taps, channels and number of each kind of chunk; the others as of :func:`estimate_tiled`."""
    chunks: list
    tiles: object
    windows: object
    passes: object
    slots: object
    slot_beats: float

    @property
    def chunk_count(self):
        return sum(count for *_, count in self.chunks)

    def group_windows(self, config):
        """Windows of the group that has most of them."""
        return ceil_div(self.windows / self.passes, config.groups) * self.passes

    def fill(self, first_weights):
        return LAYER_CYCLES + self.slots * self.slot_beats / self.chunk_count / self.tiles + first_weights


def _broadcast_estimate(geometry, config, counts, write, density):
    blocks, inside = kinds(geometry.out_channels, config.lanes), inside_fraction(geometry)
    factor = spread(counts.windows / counts.tiles / config.groups, config.groups)
    compute = 0
    for lanes, block_count in blocks:
        words = ceil_div(lanes, config.block) * config.block_words
        for taps, channels, count in counts.chunks:
            work = max(taps * channels * density * inside, taps * ceil_div(channels, config.block) * inside, words)
            compute = compute + block_count * count * (
                counts.group_windows(config) * (work + WINDOW_CYCLES) * factor + counts.tiles * TILE_CYCLES)
    loads = counts.passes if counts.chunk_count > 1 else 1
    read = (ceil_div(geometry.out_channels, config.lanes) * counts.slots * counts.slot_beats
            + scale_beats(geometry, config) + weight_beats(geometry, config) * loads)
    taps, channels, _ = counts.chunks[0]
    fill = counts.fill(taps * channels * ceil_div(blocks[0][0], config.values_per_beat))
    return CycleEstimate(compute, _drain_cycles(geometry, config, counts), read, write, fill)


def _intersect_estimate(geometry, config, counts, write, work):
    """Sums over all rounds of each stage, and of the slowest stage of each."""
    rounds = [(count, *_round_stages(geometry, config, counts, work, phase, taps, channels))
              for phase in range(work.phase_rounds) for taps, channels, count in counts.chunks]
    compute, weights, read, tiles = (sum(count * stages[at] for count, *stages in rounds) for at in range(4))
    drain, read = _drain_cycles(geometry, config, counts), read + scale_beats(geometry, config)
    slowest = _slowest(compute, weights, read, tiles, drain, write)
    ahead = _slowest(sum(count * _slowest(*stages[:2]) for count, *stages in rounds), read, tiles, drain, write)
    apart = (sum(count * _slowest(*stages) for count, *stages in rounds)
             + np.maximum(0, _slowest(drain, write) - _slowest(*rounds[-1][1:])))
    alone = np.maximum(0, 1 - TILES_AHEAD * counts.passes / counts.tiles)
    first = ceil_div(kinds(geometry.out_channels, config.lanes)[0][0], config.clusters) * unpack_cycles(
        counts.chunks[0][0] * ceil_div(counts.chunks[0][1], config.block), config, work.weights[0], work.maps(0))
    return CycleEstimate(compute, drain, read, write, counts.fill(first), np.maximum(weights, tiles),
                         alone * np.maximum(apart, slowest) + (1 - alone) * ahead - slowest)


def _round_stages(geometry, config, counts, work, phase, taps, channels):
    """Cycles of computing, of unpacking weights, of reading, and of unpacking tiles, in a round with a chunk of
    ``channels`` and ``taps``; in all kernel blocks and passes."""
    kernel_blocks, loads = ceil_div(geometry.out_channels, config.lanes), counts.passes
    if counts.chunk_count * work.phase_rounds == 1:
        loads = 1
    words, values = taps * ceil_div(channels, config.block), taps * channels * work.weights[phase]
    share = taps * channels / (geometry.kernel_rows * geometry.kernel_columns * geometry.in_channels)
    maps = work.maps(phase)
    fetch = work.tasks[phase] * float(task_cycles(0, words))
    task = max(work.cycles[phase] * share, fetch) + work.tasks[phase] * TASK_CYCLES
    tasks = counts.windows / counts.tiles * min(geometry.out_channels, config.lanes) / config.groups / config.clusters
    factor = spread(tasks, config.groups * config.clusters, work.variation[phase])
    cluster_lanes = sum(count * ceil_div(lanes, config.clusters)
                        for lanes, count in kinds(geometry.out_channels, config.lanes))
    compute = (counts.group_windows(config) * task * factor * cluster_lanes / config.pes
               + kernel_blocks * counts.tiles * (TILE_CYCLES + words))
    # Rounding up to whole beats costs the values of a lane half a beat.
    beats = 1 + ceil_div(maps * words * config.block, BEAT) + values / config.values_per_beat + 0.5
    slots, lanes = kernel_blocks * counts.slots / counts.chunk_count, loads * geometry.out_channels
    return (compute, loads * cluster_lanes * unpack_cycles(words, config, work.weights[phase], maps),
            slots * counts.slot_beats + lanes * beats, slots * (SEGMENT * config.block // UNPACKED))


def _drain_cycles(geometry, config, counts):
    """Cycles in which words of ``drain`` sums leave the groups."""
    cycles = 0
    for lanes, count in kinds(geometry.out_channels, config.lanes):
        words = ceil_div(lanes, config.block) * config.block_words
        if config.intersect:
            words = max(words, words * (config.drain // config.clusters) / config.groups)
        cycles = cycles + count * counts.windows * words
    return cycles


def estimate(geometry: Geometry, tiling: Tiling, config: AcceleratorConfig, *, density_in: float,
             density_out: float, work: PhaseWork | None = None) -> CycleEstimate:
    """The estimate of a layer with a tiling; ``work``: of its phases in the intersect array, :func:`even_work` unless
    told."""
    work = work or even_work(geometry, config, phases=tiling.phases, joined=tiling.joined, density_in=density_in)
    rows = tile_spans(geometry.out_height, tiling.tile_rows, geometry.tile_overlap)
    columns = tile_spans(geometry.out_width, tiling.tile_columns, geometry.tile_overlap)
    windows = sum(end - first for first, end in rows) * sum(end - first for first, end in columns)
    blocks = sum(ceil_div(end - first, config.block)
                 for first, end in chunk_spans(geometry.in_channels, tiling.chunk_channels))
    loads = sum(map(sum, row_loads(geometry, tiling.tile_rows, tiling.chunk_rows)))
    slots = loads * sum(segment_loads(geometry, tiling.tile_columns)) * blocks
    return estimate_tiled(geometry, config, chunk_channels=tiling.chunk_channels, chunk_rows=tiling.chunk_rows,
                          tiles=len(rows) * len(columns), windows=windows, passes=tiling.passes, slots=slots,
                          density_in=density_in, density_out=density_out, work=work)


def estimate_result(geometry: Geometry, tiling: Tiling, config: AcceleratorConfig,
                    result: LayerResult) -> CycleEstimate:
    """The estimate with the densities of a golden run; that of the input is the one under the windows."""
    work = result.macs / geometry.out_channels * inside_fraction(geometry)
    density = result.nonzeros.sum() / work if work else 0.0
    return estimate(geometry, tiling, config, density_in=float(density), density_out=result.density_out)


def tiled_nonzero_macs(geometry: Geometry, tiling: Tiling, result: LayerResult) -> int:
    """Non-zero MACs with the windows that tiles share counted for each tile: the broadcast array's ``lane_cycles``."""
    rows = tile_spans(geometry.out_height, tiling.tile_rows, geometry.tile_overlap)
    columns = tile_spans(geometry.out_width, tiling.tile_columns, geometry.tile_overlap)
    return geometry.out_channels * sum(int(result.nonzeros[top:bottom, left:right].sum())
                                       for top, bottom in rows for left, right in columns)
