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

In the intersect array a window is ``lanes`` tasks, dealt to the PEs of a group. For each round a task takes
``max(multiplications, map words) + TASK_CYCLES`` cycles; what stopping saves is not known beforehand and not counted.
Input is read again for each phase, and there is a fifth stage:

* ``unpack``: weights take :func:`unpack_cycles` for each round and lane, input a cycle for each ``UNPACKED`` channels
  of each word; both are unpacked at the same time.

Source: golden/README.md, "Loop order"; hw/README.md.
"""
import math
from dataclasses import dataclass

import numpy as np

from hw.config import BEAT, SEGMENT, UNPACKED, AcceleratorConfig

from .layer import LayerResult
from .tiling import Geometry, Tiling, ceil_div, chunk_spans, row_loads, segment_loads, tile_spans

#: Cycles between windows of a group, between tasks of a PE, cycles a tile costs every group, cycles to start and end a
#: layer.
WINDOW_CYCLES = 1
TASK_CYCLES = 2
#: Cycles of a lane and round besides those of its words (hw/array/intersect/weight_loader.py).
LANE_CYCLES = 4
TILE_CYCLES = 8
LAYER_CYCLES = 400
#: Standard deviation of a window's non-zero values, as a fraction of their mean, that the spread assumes.
VARIATION = 0.25


@dataclass(frozen=True)
class CycleEstimate:
    """Cycles of each stage of a layer; arrays if the arguments were arrays. ``unpack``: 0 in the broadcast array."""
    compute: float
    drain: float
    read: float
    write: float
    fill: float
    unpack: float = 0

    @property
    def cycles(self):
        """Cycles of the layer."""
        stages = np.maximum(np.maximum(self.compute, self.drain), np.maximum(self.read, self.write))
        return np.maximum(stages, self.unpack) + self.fill

    @property
    def bound(self) -> str:
        """The slowest stage."""
        return max(("compute", "drain", "read", "write", "unpack"), key=lambda name: getattr(self, name))


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


def spread(windows_per_group, groups: int):
    """Factor of the slowest of ``groups`` over their mean, if they meet after two tiles of ``windows_per_group``."""
    return 1 + VARIATION * math.sqrt(2 * math.log(groups)) / np.sqrt(np.maximum(2 * windows_per_group, 1))


def slot_read_beats(geometry: Geometry, config: AcceleratorConfig, density: float) -> float:
    """Mean beats of an input slot."""
    if geometry.dense_shift is not None:
        return max(1, (SEGMENT << geometry.dense_shift) / config.values_per_beat)
    return _mean_beats(geometry.in_channels, config, density)


def _mean_beats(channels, config, density):
    values = density * SEGMENT * channels / ceil_div(channels, config.block)
    # Rounding up to whole beats costs half a beat, but never more than a full slot has.
    return config.map_beats + min(values / config.values_per_beat + (0.5 if values else 0), config.value_beats)


def unpack_cycles(words: int, config: AcceleratorConfig) -> int:
    """Cycles that the weights of a lane and round, ``words`` map words, take to unpack in the intersect array: one for
    each word and for each 8 channels of it."""
    return LANE_CYCLES + words * (1 + config.block_groups)


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
                   windows, passes, slots, density_in: float, density_out: float, phases: int = 1,
                   density_weights: float = 1.0) -> CycleEstimate:
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
    phases : int
        Phases of the weights, each with an equal share of them.
    density_weights : float
        Fraction of non-zero weights: what the intersect array skips.
    """
    pass_windows = ceil_div(windows / passes, config.groups) * passes
    factor = spread(windows / tiles / config.groups, config.groups)
    inside = inside_fraction(geometry)
    chunk_kinds = [(rows * geometry.kernel_columns, channels, rows_count * channels_count)
                   for rows, rows_count in kinds(geometry.kernel_rows, chunk_rows)
                   for channels, channels_count in kinds(geometry.in_channels, chunk_channels)]
    chunks = sum(count for *_, count in chunk_kinds)
    blocks = kinds(geometry.out_channels, config.lanes)
    loads = passes if chunks * phases > 1 else 1
    compute = drain = 0
    for lanes, block_count in blocks:
        words = ceil_div(lanes, config.block) * config.block_words
        drain = drain + block_count * windows * words
        for taps, channels, count in chunk_kinds:
            nonzeros = taps * channels * density_in * inside
            map_words = taps * ceil_div(channels, config.block) * inside
            if config.intersect:
                task = max(nonzeros * density_weights / phases, map_words) + TASK_CYCLES
                work = task * lanes / config.group_multipliers
            else:
                work = max(nonzeros, map_words, words) + WINDOW_CYCLES
            compute = compute + block_count * count * phases * (pass_windows * work * factor + tiles * TILE_CYCLES)
    kernel_blocks = ceil_div(geometry.out_channels, config.lanes)
    beats = slot_read_beats(geometry, config, density_in)
    first_taps, first_channels, _ = chunk_kinds[0]
    if config.intersect:
        lane_cycles, weights = _intersect_weights(geometry, config, chunk_kinds, phases, density_weights)
        slot_cycles = SEGMENT * config.block // UNPACKED
        unpack = np.maximum(loads * geometry.out_channels * lane_cycles, phases * kernel_blocks * slots * slot_cycles)
        first_weights = blocks[0][0] * unpack_cycles(first_taps * ceil_div(first_channels, config.block), config)
    else:
        unpack, weights = 0, weight_beats(geometry, config)
        first_weights = first_taps * first_channels * ceil_div(blocks[0][0], config.values_per_beat)
    read = phases * kernel_blocks * slots * beats + scale_beats(geometry, config) + weights * loads
    fill = LAYER_CYCLES + slots * beats / chunks / tiles + first_weights
    return CycleEstimate(compute, drain, read, write_beats(geometry, config, density_out), fill, unpack)


def _intersect_weights(geometry, config, chunk_kinds, phases, density):
    """Cycles to unpack all rounds of a lane, and beats of all lanes and rounds, read once."""
    cycles = beats = 0
    for taps, channels, count in chunk_kinds:
        words = taps * ceil_div(channels, config.block)
        values = taps * channels * density / phases
        cycles += phases * count * unpack_cycles(words, config)
        # Rounding up to whole beats costs the values of a lane half a beat.
        beats += phases * count * (1 + ceil_div(words * config.block, BEAT) + values / config.values_per_beat + 0.5)
    return cycles, beats * geometry.out_channels


def estimate(geometry: Geometry, tiling: Tiling, config: AcceleratorConfig, *, density_in: float,
             density_out: float, density_weights: float = 1.0) -> CycleEstimate:
    """The estimate of a layer with a tiling."""
    rows = tile_spans(geometry.out_height, tiling.tile_rows, geometry.tile_overlap)
    columns = tile_spans(geometry.out_width, tiling.tile_columns, geometry.tile_overlap)
    windows = sum(end - first for first, end in rows) * sum(end - first for first, end in columns)
    blocks = sum(ceil_div(end - first, config.block)
                 for first, end in chunk_spans(geometry.in_channels, tiling.chunk_channels))
    loads = sum(map(sum, row_loads(geometry, tiling.tile_rows, tiling.chunk_rows)))
    slots = loads * sum(segment_loads(geometry, tiling.tile_columns)) * blocks
    return estimate_tiled(geometry, config, chunk_channels=tiling.chunk_channels, chunk_rows=tiling.chunk_rows,
                          tiles=len(rows) * len(columns), windows=windows, passes=tiling.passes, slots=slots,
                          density_in=density_in, density_out=density_out, phases=tiling.phases,
                          density_weights=density_weights)


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
