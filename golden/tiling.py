"""Tiles, chunks and passes of a layer: which windows a tile computes and which input it loads.

Source: golden/README.md, "Loop order" and "Tile geometry" (normative).
"""
from dataclasses import dataclass

from hw.config import LOCAL_BITS, ROUND_PHASES, SEGMENT, AcceleratorConfig

#: Largest step of a tile, in windows (descriptor fields ``tile_rows`` and ``tile_columns``).
MAX_TILE = 128
#: Most phases of the weights (descriptor field ``phases``).
MAX_PHASES = 7


def ceil_div(number, divisor):
    """``number / divisor`` rounded up; also for arrays."""
    return -(-number // divisor)


@dataclass(frozen=True)
class Geometry:
    """Sizes of a layer, named as the fields of its descriptor.

    ``dense_shift`` is None for a compressed input; ``pool`` is 0, 2 or 3; ``write_full``: the map before pooling is
    written too.
    """
    in_height: int
    in_width: int
    in_channels: int
    kernel_rows: int
    kernel_columns: int
    stride: int
    pad_top: int
    pad_left: int
    out_height: int
    out_width: int
    out_channels: int
    pool: int = 0
    write_full: bool = True
    dense_shift: int | None = None

    @property
    def tile_overlap(self) -> int:
        """Windows shared by neighbouring tiles: a 3x3 pool with stride 2 needs one."""
        return int(self.pool == 3)

    @property
    def pooled_height(self) -> int:
        return pooled_length(self.out_height, self.pool) if self.pool else self.out_height

    @property
    def pooled_width(self) -> int:
        return pooled_length(self.out_width, self.pool) if self.pool else self.out_width


@dataclass(frozen=True)
class Tiling:
    """How a layer is cut, named as the fields of its descriptor. ``phases`` is above 1 in the intersect array only; the
    last ``joined`` of them share a round with the one before them."""
    chunk_channels: int
    chunk_rows: int
    tile_rows: int
    tile_columns: int
    tiles_per_pass: int
    passes: int
    phases: int = 1
    joined: int = 0

    @property
    def shared_phases(self) -> list[range]:
        """The phases of each round of a chunk."""
        return share_phases(self.phases, self.joined)

    @property
    def phase_rounds(self) -> int:
        """Rounds of each chunk."""
        return self.phases - self.joined


def share_phases(phases: int, joined: int) -> list[range]:
    """The phases of each round of a chunk: the last ``joined`` of ``phases`` share one with the phase before them."""
    last = phases - joined - 1
    return [*(range(phase, phase + 1) for phase in range(last)), range(last, phases)]


def stored_channels(channels: int, config: AcceleratorConfig) -> int:
    """Channels that a chunk of ``channels`` takes of ``weight_depth``: in the intersect array whole blocks."""
    return ceil_div(channels, config.block) * config.block if config.intersect else channels


def keeps_sums(rounds: int, config: AcceleratorConfig) -> bool:
    """Whether the partial sums of a pass are kept, and its windows limited: where a layer has more than one round, in
    the intersect array always."""
    return rounds > 1 or config.intersect


def pooled_length(length: int, kernel: int) -> int:
    """Outputs of a max-pool with stride 2 in ceil mode: ``max(1, ceil((length - kernel) / 2) + 1)``."""
    return max(1, ceil_div(length - kernel, 2) + 1)


def chunk_spans(total: int, step: int) -> list[tuple[int, int]]:
    """``(first, end)`` of each chunk of ``step`` of ``total`` channels or kernel rows."""
    return [(first, min(first + step, total)) for first in range(0, total, step)]


def tile_spans(length: int, step: int, overlap: int) -> list[tuple[int, int]]:
    """``(first, end)`` of the windows of each tile along one side of a map of ``length`` windows."""
    return [(first, min(first + step + overlap, length)) for first in range(0, max(length - overlap, 1), step)]


def loaded_span(first: int, end: int, *, stride: int, pad: int, tap: int, taps: int, length: int) -> tuple[int, int]:
    """``(first, end)`` of the input rows (columns) under windows ``first..end-1`` and taps ``tap..tap+taps-1``.

    ``end <= first`` says that nothing is loaded.
    """
    low = first * stride - pad + tap
    return max(0, low), min(length, low + (end - first - 1) * stride + taps)


def segments_of(span: tuple[int, int]) -> int:
    """Segments that hold the columns of ``span``; 0 if it is empty."""
    first, end = span
    return 0 if end <= first else (end - 1) // SEGMENT - first // SEGMENT + 1


def row_loads(geometry: Geometry, tile_rows: int, chunk_rows: int) -> list[list[int]]:
    """Input rows loaded for each chunk of kernel rows (outer) and each row of tiles (inner)."""
    spans = tile_spans(geometry.out_height, tile_rows, geometry.tile_overlap)
    return [[max(0, end - first) for first, end in (
        loaded_span(*span, stride=geometry.stride, pad=geometry.pad_top, tap=tap, taps=last - tap,
                    length=geometry.in_height) for span in spans)]
        for tap, last in chunk_spans(geometry.kernel_rows, chunk_rows)]


def segment_loads(geometry: Geometry, tile_columns: int) -> list[int]:
    """Input segments loaded for each column of tiles."""
    return [segments_of(loaded_span(*span, stride=geometry.stride, pad=geometry.pad_left, tap=0,
                                    taps=geometry.kernel_columns, length=geometry.in_width))
            for span in tile_spans(geometry.out_width, tile_columns, geometry.tile_overlap)]


def pass_windows(geometry: Geometry, tiling: Tiling) -> list[int]:
    """Windows of each pass."""
    rows = [end - first for first, end in tile_spans(geometry.out_height, tiling.tile_rows, geometry.tile_overlap)]
    columns = [end - first
               for first, end in tile_spans(geometry.out_width, tiling.tile_columns, geometry.tile_overlap)]
    tiles = [row * column for row in rows for column in columns]
    return [sum(tiles[first:end]) for first, end in chunk_spans(len(tiles), tiling.tiles_per_pass)]


def check_tiling(geometry: Geometry, tiling: Tiling, config: AcceleratorConfig):
    """``ValueError`` with the limit that ``tiling`` breaks on ``config``, if any: what the sequencer refuses, too."""
    for problem in _problems(geometry, tiling, config):
        raise ValueError(problem)


def _problems(geometry, tiling, config):
    if not (1 <= tiling.tile_rows <= MAX_TILE and 1 <= tiling.tile_columns <= MAX_TILE):
        yield f"a tile must step by 1 to {MAX_TILE} windows, not {tiling.tile_rows} x {tiling.tile_columns}"
    channels = min(tiling.chunk_channels, geometry.in_channels)
    blocks = ceil_div(channels, config.block)
    rows = max(max(loads) for loads in row_loads(geometry, tiling.tile_rows, tiling.chunk_rows))
    segments = max(segment_loads(geometry, tiling.tile_columns))
    spans = tile_spans(geometry.out_width, tiling.tile_columns, geometry.tile_overlap)
    chunks = ceil_div(geometry.in_channels, channels) * ceil_div(geometry.kernel_rows, tiling.chunk_rows)
    windows = pass_windows(geometry, tiling)
    weights = tiling.chunk_rows * geometry.kernel_columns * stored_channels(channels, config)
    most_phases = MAX_PHASES if config.intersect else 1
    aligned = 2 * SEGMENT if geometry.pool else SEGMENT
    if not 1 <= tiling.phases <= most_phases:
        yield f"phases must be 1 to {most_phases} in the {config.array} array, not {tiling.phases}"
    most_joined = min(tiling.phases, ROUND_PHASES) - 1
    if not 0 <= tiling.joined <= most_joined:
        yield f"of {tiling.phases} phases 0 to {most_joined} may be joined, not {tiling.joined}"
    if channels < geometry.in_channels and channels % config.block:
        yield f"chunk_channels must be a multiple of {config.block} or all channels, not {channels}"
    if weights > config.weight_depth:
        yield f"a chunk of {weights} weights does not fit weight_depth {config.weight_depth}"
    if rows * segments * blocks > config.tile_slots:
        yield f"a tile of {rows} x {segments} x {blocks} slots does not fit tile_slots {config.tile_slots}"
    if max(rows, segments) >= 1 << LOCAL_BITS:
        yield f"a tile loads {rows} rows and {segments} segments; both must be below {1 << LOCAL_BITS}"
    if len(spans) > 1 and tiling.tile_columns % aligned:
        yield f"tile_columns must be a multiple of {aligned}, not {tiling.tile_columns}"
    if geometry.pool and tiling.tile_rows % 2:
        yield f"tile_rows must be even with pooling, not {tiling.tile_rows}"
    if geometry.pool and max(pooled_length(end - first, geometry.pool) for first, end in spans) > config.pool_columns:
        yield f"a tile of {tiling.tile_columns} columns has more than {config.pool_columns} pooled columns"
    if keeps_sums(chunks * tiling.phase_rounds, config) and ceil_div(max(windows), config.groups) > config.sum_windows:
        yield f"a pass of {max(windows)} windows does not fit {config.groups} x {config.sum_windows} partial sums"
    if len(windows) != tiling.passes:
        yield f"there are {len(windows)} passes, not {tiling.passes}"
