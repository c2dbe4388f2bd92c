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

Source: golden/README.md, "Loop order"; hw/README.md.
"""
import math
from dataclasses import dataclass

import numpy as np

from hw.config import SEGMENT, AcceleratorConfig

from .layer import LayerResult
from .tiling import Geometry, Tiling, ceil_div, chunk_spans, row_loads, segment_loads, tile_spans

#: Cycles between windows of a group, cycles a tile costs every group, cycles to start and end a layer.
WINDOW_CYCLES = 1
TILE_CYCLES = 8
LAYER_CYCLES = 400
#: Standard deviation of a window's non-zero values, as a fraction of their mean, that the spread assumes.
VARIATION = 0.25


@dataclass(frozen=True)
class CycleEstimate:
    """Cycles of each stage of a layer; arrays if the arguments were arrays."""
    compute: float
    drain: float
    read: float
    write: float
    fill: float

    @property
    def cycles(self):
        """Cycles of the layer."""
        return np.maximum(np.maximum(self.compute, self.drain), np.maximum(self.read, self.write)) + self.fill

    @property
    def bound(self) -> str:
        """The slowest stage."""
        return max(("compute", "drain", "read", "write"), key=lambda name: getattr(self, name))


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


def weight_beats(geometry: Geometry, config: AcceleratorConfig) -> int:
    """Beats of all weights of a layer, read once."""
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
                   windows, passes, slots, density_in: float, density_out: float) -> CycleEstimate:
    """The estimate from the counts of a tiling; counts may be arrays (of candidates).

    Parameters
    ----------
    chunk_channels, chunk_rows : int
        Size of a chunk.
    tiles, windows, passes : int or array
        Tiles, their windows (shared ones counted for each tile) and passes of a kernel block.
    slots : int or array
        Slots loaded for a kernel block, by all chunks.
    density_in, density_out : float
        Fractions of non-zero values; ``density_in`` over the taps inside of the map.
    """
    pass_windows = ceil_div(windows / passes, config.groups) * passes
    factor = spread(windows / tiles / config.groups, config.groups)
    inside = inside_fraction(geometry)
    chunk_kinds = [(rows * geometry.kernel_columns, channels, rows_count * channels_count)
                   for rows, rows_count in kinds(geometry.kernel_rows, chunk_rows)
                   for channels, channels_count in kinds(geometry.in_channels, chunk_channels)]
    chunks = sum(count for *_, count in chunk_kinds)
    blocks = kinds(geometry.out_channels, config.lanes)
    compute = drain = 0
    for lanes, block_count in blocks:
        words = ceil_div(lanes, config.block) * config.block_words
        drain = drain + block_count * windows * words
        for taps, channels, count in chunk_kinds:
            work = max(taps * channels * density_in * inside, taps * ceil_div(channels, config.block) * inside, words)
            compute = compute + block_count * count * (pass_windows * (work + WINDOW_CYCLES) * factor
                                                       + tiles * TILE_CYCLES)
    kernel_blocks = ceil_div(geometry.out_channels, config.lanes)
    beats = slot_read_beats(geometry, config, density_in)
    read = (kernel_blocks * slots * beats + scale_beats(geometry, config)
            + weight_beats(geometry, config) * (passes if chunks > 1 else 1))
    first_taps, first_channels, _ = chunk_kinds[0]
    fill = (LAYER_CYCLES + slots * beats / chunks / tiles
            + first_taps * first_channels * ceil_div(blocks[0][0], config.values_per_beat))
    return CycleEstimate(compute, drain, read, write_beats(geometry, config, density_out), fill)


def estimate(geometry: Geometry, tiling: Tiling, config: AcceleratorConfig, *, density_in: float,
             density_out: float) -> CycleEstimate:
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
                          density_in=density_in, density_out=density_out)


def estimate_result(geometry: Geometry, tiling: Tiling, config: AcceleratorConfig,
                    result: LayerResult) -> CycleEstimate:
    """The estimate with the densities of a golden run; that of the input is the one under the windows."""
    work = result.macs / geometry.out_channels * inside_fraction(geometry)
    density = result.nonzeros.sum() / work if work else 0.0
    return estimate(geometry, tiling, config, density_in=float(density), density_out=result.density_out)


def tiled_nonzero_macs(geometry: Geometry, tiling: Tiling, result: LayerResult) -> int:
    """Non-zero MACs with the windows that tiles share counted for each tile: the hardware's ``lane_cycles``."""
    rows = tile_spans(geometry.out_height, tiling.tile_rows, geometry.tile_overlap)
    columns = tile_spans(geometry.out_width, tiling.tile_columns, geometry.tile_overlap)
    return geometry.out_channels * sum(int(result.nonzeros[top:bottom, left:right].sum())
                                       for top, bottom in rows for left, right in columns)
