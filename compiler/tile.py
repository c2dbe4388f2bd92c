"""The choice of chunks, tiles and passes of a layer: least estimated cycles, then least traffic.

All candidates that fit are costed at once, as arrays over (rows, columns) of a tile, for each way to cut the kernel
into chunks.

Source: golden/README.md, "Loop order", "Tile geometry"; golden/cycles.py for the cost.
"""
from dataclasses import dataclass

import numpy as np

from golden.cycles import CycleEstimate, PhaseWork, estimate, estimate_tiled, even_work
from golden.tiling import (
    MAX_TILE,
    Geometry,
    Tiling,
    ceil_div,
    check_tiling,
    keeps_sums,
    pass_windows,
    pooled_length,
    row_loads,
    segment_loads,
    stored_channels,
    tile_spans,
)
from hw.config import LOCAL_BITS, SEGMENT, AcceleratorConfig

#: Cycles that a cycle of each stage which is not the slowest counts: prefers less traffic among equals.
TIE = 0.05
#: Density that is assumed where none is known.
DENSITY = 0.4


@dataclass(frozen=True)
class Choice:
    """The tiling of a layer and what it was chosen for."""
    geometry: Geometry
    tiling: Tiling
    cost: CycleEstimate
    slots: int
    tile_slots: int
    density_in: float
    density_out: float

    @property
    def tiles(self) -> int:
        rows, columns = self._tile_counts()
        return rows * columns

    def _tile_counts(self):
        overlap = self.geometry.tile_overlap
        return (len(tile_spans(self.geometry.out_height, self.tiling.tile_rows, overlap)),
                len(tile_spans(self.geometry.out_width, self.tiling.tile_columns, overlap)))

    def explain(self) -> str:
        """A few lines for people."""
        tiling, cost, geometry = self.tiling, self.cost, self.geometry
        channel_chunks = ceil_div(geometry.in_channels, tiling.chunk_channels)
        row_chunks = ceil_div(geometry.kernel_rows, tiling.chunk_rows)
        rows, columns = self._tile_counts()
        names = ["compute", "drain", "read", "write", "fill", *(["unpack", "uneven"] if cost.unpack else [])]
        stages = ", ".join(f"{name} {getattr(cost, name):.0f}" for name in names)
        joined = f", the last {tiling.joined + 1} in one round" if tiling.joined else ""
        phases = f"phases {tiling.phases}{joined}; " if tiling.phases > 1 else ""
        return (f"{phases}chunks {channel_chunks} x {row_chunks} "
                f"(of {tiling.chunk_channels} channels x {tiling.chunk_rows} rows); "
                f"tiles {rows} x {columns} (of {tiling.tile_rows} x {tiling.tile_columns} windows, "
                f"{self.slots} of {self.tile_slots} slots); {tiling.passes} passes of {tiling.tiles_per_pass} tiles\n"
                f"about {cost.cycles:.0f} cycles, bound by {cost.bound}: {stages}")


def choose_tiling(geometry: Geometry, config: AcceleratorConfig, *, density_in: float = DENSITY,
                  density_out: float = DENSITY, work: PhaseWork | None = None, tiling: Tiling | None = None) -> Choice:
    """The cheapest tiling of a layer, or the given one; ``ValueError`` if none fits.

    Densities are fractions of non-zero values. ``work``: of the phases of the intersect array, by
    :func:`golden.cycles.even_work` of one phase, or of those of the given tiling, unless told.
    """
    given = {"phases": tiling.phases, "joined": tiling.joined} if tiling else {}
    work = work or even_work(geometry, config, **given, density_in=density_in)
    known = {"density_in": density_in, "density_out": density_out, "work": work}
    tiling = tiling or _search(geometry, config, known)
    check_tiling(geometry, tiling, config)
    cost = estimate(geometry, tiling, config, **known)
    slots = (max(map(max, row_loads(geometry, tiling.tile_rows, tiling.chunk_rows)))
             * max(segment_loads(geometry, tiling.tile_columns)) * ceil_div(tiling.chunk_channels, config.block))
    return Choice(geometry, tiling, cost, slots, config.tile_slots, density_in, density_out)


def fits_whole(geometry: Geometry, config: AcceleratorConfig) -> bool:
    """Whether the intersect array of ``config`` has room for a tile with all channels and rows of a kernel in one
    chunk."""
    columns = _column_candidates(geometry, config)
    return any(_passes(geometry, config, *chunk, _row_candidates(geometry, chunk[1]), columns, 1)[0].any()
               for chunk in _chunk_candidates(geometry, config, whole=True))


def _search(geometry, config, known):
    """The cheapest tiling."""
    columns = _column_candidates(geometry, config)
    best_cost, best = np.inf, None
    for chunk_channels, chunk_rows in _chunk_candidates(geometry, config, known["work"].whole):
        cost, candidate = _cheapest(geometry, config, chunk_channels, chunk_rows, columns, known)
        if cost < best_cost:
            best_cost, best = cost, candidate
    if best is None:
        raise ValueError(f"no tile of a {geometry.kernel_rows} x {geometry.kernel_columns} kernel fits configuration "
                         f"{config.name} (weight_depth {config.weight_depth}, tile_slots {config.tile_slots})")
    return _with_passes(geometry, config, *best, known["work"])


def _chunk_candidates(geometry, config, whole):
    """``(chunk_channels, chunk_rows)`` that fit ``weight_depth``: the smallest of each number of chunks; ``whole``: one
    chunk in all."""
    seen = set()
    block, channels = config.block, geometry.in_channels
    steps = [min(number * block, channels) for number in range(1, ceil_div(channels, block) + 1)]
    for rows in range(1, geometry.kernel_rows + 1):
        for step in steps:
            count = ceil_div(channels, step), ceil_div(geometry.kernel_rows, rows)
            depth = rows * geometry.kernel_columns * stored_channels(step, config)
            if count not in seen and depth <= config.weight_depth and (not whole or count == (1, 1)):
                seen.add(count)
                yield step, rows


def _column_candidates(geometry, config):
    """``(tile_columns, largest segments, all segments, windows, tiles)`` of each legal width of a tile, as arrays."""
    step = 2 * SEGMENT if geometry.pool else SEGMENT
    candidates = list(range(step, min(geometry.out_width, MAX_TILE + 1), step))
    if geometry.out_width <= MAX_TILE:
        candidates.append(geometry.out_width)
    rows = []
    for columns in candidates:
        spans = tile_spans(geometry.out_width, columns, geometry.tile_overlap)
        windows = [end - first for first, end in spans]
        if geometry.pool and pooled_length(max(windows), geometry.pool) > config.pool_columns:
            continue
        segments = segment_loads(geometry, columns)
        rows.append((columns, max(segments), sum(segments), sum(windows), max(windows), len(spans)))
    return np.array(rows).reshape(-1, 6).T


def _row_candidates(geometry, chunk_rows):
    """The same of each height of a tile: the smallest of each number of tiles."""
    step = 2 if geometry.pool else 1
    rows, seen = [], set()
    for tile_rows in range(step, min(geometry.out_height + step - 1, MAX_TILE) + 1, step):
        spans = tile_spans(geometry.out_height, tile_rows, geometry.tile_overlap)
        if len(spans) in seen:
            continue
        seen.add(len(spans))
        loads = row_loads(geometry, tile_rows, chunk_rows)
        windows = [end - first for first, end in spans]
        rows.append((tile_rows, max(map(max, loads)), sum(map(sum, loads)), sum(windows), max(windows), len(spans)))
    return np.array(rows).T[..., None]


def _passes(geometry, config, chunk_channels, chunk_rows, row_candidates, column_candidates, phase_rounds):
    """Which of the tiles fit, and how many passes each takes, for a cut into chunks."""
    _, most_rows, _, row_windows, most_row_windows, row_tiles = row_candidates
    _, most_segments, _, windows, most_windows, column_tiles = column_candidates
    tiles, windows = row_tiles * column_tiles, row_windows * windows
    blocks = ceil_div(chunk_channels, config.block)
    chunks = ceil_div(geometry.in_channels, chunk_channels) * ceil_div(geometry.kernel_rows, chunk_rows)
    fits = ((most_rows * most_segments * blocks <= config.tile_slots)
            & (most_rows < 1 << LOCAL_BITS) & (most_segments < 1 << LOCAL_BITS))
    passes = 1
    if keeps_sums(chunks * phase_rounds, config):
        room = config.groups * config.sum_windows
        per_pass = np.where(windows <= room, tiles, room // (most_row_windows * most_windows))
        fits = fits & (per_pass > 0)
        passes = ceil_div(tiles, np.maximum(per_pass, 1))
    return fits, passes


def _cheapest(geometry, config, chunk_channels, chunk_rows, column_candidates, known):
    """Cost and ``(chunk_channels, chunk_rows, tile_rows, tile_columns)`` of the cheapest tile for a cut into chunks."""
    row_candidates = _row_candidates(geometry, chunk_rows)
    fits, passes = _passes(geometry, config, chunk_channels, chunk_rows, row_candidates, column_candidates,
                           known["work"].phase_rounds)
    if not fits.any():
        return np.inf, None
    tile_rows, _, all_rows, row_windows, _, row_tiles = row_candidates
    tile_columns, _, all_segments, windows, _, column_tiles = column_candidates
    slots = all_rows * all_segments * ceil_div(geometry.in_channels, config.block)
    cost = estimate_tiled(geometry, config, chunk_channels=chunk_channels, chunk_rows=chunk_rows,
                          tiles=row_tiles * column_tiles, windows=row_windows * windows, passes=passes, slots=slots,
                          **known)
    total = np.where(fits, cost.cycles + TIE * (cost.compute + cost.read), np.inf)
    row, column = np.unravel_index(np.argmin(total), total.shape)
    return total[row, column], (chunk_channels, chunk_rows, int(tile_rows[row, 0]), int(tile_columns[column]))


def _with_passes(geometry, config, chunk_channels, chunk_rows, tile_rows, tile_columns, work):
    """The tiling with as few passes as the partial sums allow, all of about the same length."""
    tiles = (len(tile_spans(geometry.out_height, tile_rows, geometry.tile_overlap))
             * len(tile_spans(geometry.out_width, tile_columns, geometry.tile_overlap)))
    chunks = ceil_div(geometry.in_channels, chunk_channels) * ceil_div(geometry.kernel_rows, chunk_rows)
    total = pass_windows(geometry, Tiling(chunk_channels, chunk_rows, tile_rows, tile_columns, tiles, 1))[0]
    limited = keeps_sums(chunks * work.phase_rounds, config)
    fewest = ceil_div(total, config.groups * config.sum_windows) if limited else 1
    for passes in range(fewest, tiles + 1):
        per_pass = ceil_div(tiles, passes)
        tiling = Tiling(chunk_channels, chunk_rows, tile_rows, tile_columns, per_pass, ceil_div(tiles, per_pass),
                        work.phases, work.joined)
        if not limited or max(pass_windows(geometry, tiling)) <= config.groups * config.sum_windows:
            break
    return tiling
