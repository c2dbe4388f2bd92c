"""Every layout that crosses a folder, in pipeline order. ``c`` is the :class:`~hw.config.AcceleratorConfig`."""
from amaranth.hdl import signed, unsigned
from amaranth.lib import data

from .config import (
    BEAT,
    CHANNEL_BITS,
    COLUMN_BITS,
    LOCAL_BITS,
    ROUND_PHASES,
    ROW_BITS,
    SCALE_BITS,
    SEGMENT,
    SHIFT_BITS,
    UNPACKED,
    AcceleratorConfig,
)
from .descriptor import FIELDS

#: Output or input blocks of channels, absolute.
BLOCK_BITS = CHANNEL_BITS - 3
#: Segments of a row, absolute.
SEGMENT_BITS = COLUMN_BITS - 2


def layer() -> data.StructLayout:
    """The fields of one descriptor, as the sequencer checked them."""
    return data.StructLayout({field.name: (signed if field.signed else unsigned)(field.width) for field in FIELDS
                              if field.name != "magic"})


# ---- bus -------------------------------------------------------------------------------------------------------

def request() -> data.StructLayout:
    """A transfer of ``beats`` consecutive beats (1 or more) from or to ``address`` (a multiple of 8). Never crosses
    the end of the address space; may cross 4 KiB: the bus part splits it."""
    return data.StructLayout({"address": unsigned(32), "beats": unsigned(24)})


# ---- control -> decode -----------------------------------------------------------------------------------------

def load_job(c: AcceleratorConfig) -> data.StructLayout:
    """Input of one tile: ``rows x segments x blocks`` slots from ``(row, segment, block)`` on; rows = 0: nothing."""
    return data.StructLayout({
        "row": unsigned(ROW_BITS), "rows": unsigned(LOCAL_BITS),
        "segment": unsigned(SEGMENT_BITS), "segments": unsigned(LOCAL_BITS),
        "block": unsigned(BLOCK_BITS), "blocks": unsigned(BLOCK_BITS),
    })


# ---- decode -> tile buffer of every group ----------------------------------------------------------------------

def map_word(c: AcceleratorConfig) -> data.StructLayout:
    """One pixel and block: its sparsity map word and where its first value lies in the values of its slot."""
    return data.StructLayout({"map": unsigned(c.block), "offset": range(c.slot_values)})


def map_write(c: AcceleratorConfig) -> data.StructLayout:
    """``address = half * tile_slots * SEGMENT + slot * SEGMENT + pixel``."""
    return data.StructLayout({"address": range(2 * c.tile_slots * SEGMENT), "word": map_word(c)})


def value_write(c: AcceleratorConfig) -> data.StructLayout:
    """``address = (half * tile_slots + slot) * value_beats + beat``."""
    return data.StructLayout({"address": range(2 * c.tile_slots * c.value_beats), "data": unsigned(BEAT)})


# ---- weight loader -> lanes of every group ---------------------------------------------------------------------

def unit_weights(c: AcceleratorConfig):
    """What a multiplier's memory holds for an address. 8-bit: bits 0..7 the even lane's weight ``w0``, bits 8..16
    ``w1 - (w0 < 0)`` of the odd lane, 9 bits signed. 16-bit: the weight."""
    return unsigned(c.unit_weight_width)


def weight_write(c: AcceleratorConfig) -> data.StructLayout:
    """``address = half * weight_depth + tap * chunk_channels + channel``; ``beat`` selects multipliers
    ``beat * units_per_beat`` and on."""
    return data.StructLayout({"address": range(2 * c.weight_depth),
                              "beat": range(max(2, c.units // c.units_per_beat)),
                              "units": data.ArrayLayout(unit_weights(c), c.units_per_beat)})


# ---- inside the intersect array: writes of unpacked data to all PEs ---------------------------------------------

def tile_map(c: AcceleratorConfig) -> data.StructLayout:
    """The sparsity map of a pixel and block; ``address`` as in :func:`map_write`."""
    return data.StructLayout({"address": range(2 * c.tile_slots * SEGMENT), "map": unsigned(c.block)})


def tile_values(c: AcceleratorConfig) -> data.StructLayout:
    """The values of channels ``UNPACKED * part`` .. of the pixel and block at ``address``, each in its place."""
    return data.StructLayout({"address": range(2 * c.tile_slots * SEGMENT), "part": range(c.block // UNPACKED),
                              "values": unsigned(UNPACKED * c.value_width)})


def lane_start(c: AcceleratorConfig) -> data.StructLayout:
    """What the lane of ``slot`` in a cluster begins a sum with in the first round of a layer, and what a predicted sum
    is compared with."""
    return data.StructLayout({"half": 1, "slot": range(c.cluster_lanes), "start": signed(c.sum_width),
                              "threshold": signed(c.sum_width)})


def phase_map(c: AcceleratorConfig) -> data.StructLayout:
    """Which weights of a word of the lane of ``slot`` belong to a phase of the round, 0 being its first: ``word = phase
    * words + tap * blocks + block``."""
    return data.StructLayout({"half": 1, "slot": range(c.cluster_lanes), "word": range(ROUND_PHASES * c.weight_words),
                              "map": unsigned(c.block)})


def phase_values(c: AcceleratorConfig) -> data.StructLayout:
    """The weights of channels ``8 * group`` .. + 7 of a word (tap * blocks + block), each in its place."""
    return data.StructLayout({"half": 1, "slot": range(c.cluster_lanes), "word": range(c.weight_words),
                              "group": range(c.block_groups), "values": unsigned(BEAT)})


def scale(c: AcceleratorConfig) -> data.StructLayout:
    """Requantisation parameters of one output channel."""
    return data.StructLayout({"bias": signed(c.sum_width), "scale": unsigned(SCALE_BITS),
                              "shift": unsigned(SHIFT_BITS)})


def clamp(c: AcceleratorConfig) -> data.StructLayout:
    """Lowest and highest output of a layer, ``low <= 0 <= high``. Outputs are signed where ``low < 0``."""
    return data.StructLayout({"low": signed(c.value_width), "high": unsigned(c.value_width)})


def scale_write(c: AcceleratorConfig) -> data.StructLayout:
    """``address = half * lanes + lane``."""
    return data.StructLayout({"address": range(2 * c.lanes), "scale": scale(c)})


# ---- control -> groups -----------------------------------------------------------------------------------------

def group_job(c: AcceleratorConfig) -> data.StructLayout:
    """One tile and chunk. All coordinates are local to the loaded input (golden/README.md, "Tile geometry").

    ``y_first``/``x_first``: loaded row/column (may be negative: padding) under tap (0, 0) of window (0, 0).
    ``phase``: pixel of its segment in which loaded column 0 lies. ``channels``: of the chunk (weight address stride).
    ``lanes``: output channels of this kernel block that exist. ``words``: drained words a window.
    """
    return data.StructLayout({
        "rows": unsigned(LOCAL_BITS + 1), "columns": unsigned(LOCAL_BITS + 1),
        "y_first": signed(LOCAL_BITS + 2), "x_first": signed(LOCAL_BITS + 2),
        "in_rows": unsigned(LOCAL_BITS), "in_columns": unsigned(LOCAL_BITS + 2),
        "phase": range(SEGMENT), "segments": unsigned(LOCAL_BITS), "blocks": unsigned(BLOCK_BITS),
        "channels": unsigned(CHANNEL_BITS), "kernel_rows": unsigned(3), "kernel_columns": unsigned(3),
        "stride": unsigned(3), "dense": 1, "signed": 1,
        "first_chunk": 1,      # partial sums start at zero
        "last_chunk": 1,       # sums are finished: they go to postprocess
        "pass_first": 1,       # first tile of a pass and chunk: window turn and partial-sum index restart at 0
        "weights_first": 1,    # wait for the next half of the weight buffer
        "weights_last": 1,     # give that half back after this tile
        "joined": range(ROUND_PHASES),     # intersect array: phases of the round, less one
        "stop_part": unsigned(3),          # the first of them in which a sum below 0 is final
        "predict": 1,          # intersect array: a sum that ends this job below its lane's threshold is final, as -1
        "lanes": range(c.lanes + 1), "words": range(c.window_words + 1),
    })


# ---- control -> postprocess ------------------------------------------------------------------------------------

def collect_job(c: AcceleratorConfig) -> data.StructLayout:
    """Windows of one tile whose sums are finished, in the order in which the groups took them."""
    return data.StructLayout({
        "rows": unsigned(LOCAL_BITS + 1), "columns": unsigned(LOCAL_BITS + 1),
        "y": unsigned(ROW_BITS), "x": unsigned(COLUMN_BITS), "block": unsigned(BLOCK_BITS),
        "words": range(c.window_words + 1),
        "pass_first": 1,       # window turn restarts at group 0
        "scales_first": 1,     # wait for the next half of the scale buffer
        "scales_last": 1,      # give it back after this tile
    })


# ---- array -> postprocess --------------------------------------------------------------------------------------

def sums(c: AcceleratorConfig) -> data.ArrayLayout:
    """``drain`` finished sums of consecutive lanes of one window."""
    return data.ArrayLayout(signed(c.sum_width), c.drain)


def position(c: AcceleratorConfig) -> data.StructLayout:
    """Where a word of ``drain`` channels belongs: pixel (y, x), absolute output ``block``, ``word`` within the block.
    ``row_first``.. say that the pixel is at an edge of its tile."""
    return data.StructLayout({
        "y": unsigned(ROW_BITS), "x": unsigned(COLUMN_BITS), "block": unsigned(BLOCK_BITS),
        "word": range(c.block_words), "row_first": 1, "row_last": 1, "column_first": 1, "column_last": 1,
    })


def sum_word(c: AcceleratorConfig) -> data.StructLayout:
    """Collector to requantiser. ``lane_word``: word within the kernel block; ``half``: of the scale buffer."""
    return data.StructLayout({"sums": sums(c), "lane_word": range(c.window_words), "half": 1,
                              "position": position(c)})


def value_word(c: AcceleratorConfig) -> data.StructLayout:
    """Requantiser to pool and encoder: ``drain`` values as raw bits. Bits 0.. of the array are the lowest channel."""
    return data.StructLayout({"values": data.ArrayLayout(unsigned(c.value_width), c.drain), "position": position(c)})


# ---- encode -> bus ---------------------------------------------------------------------------------------------

def map_target() -> data.StructLayout:
    """An output map in DRAM: where its encoder writes."""
    return data.StructLayout({"address": unsigned(32), "row_bytes": unsigned(24), "segment_bytes": unsigned(20)})


# ---- groups -> counters ----------------------------------------------------------------------------------------

def activity() -> data.StructLayout:
    """What a group does in a cycle: exactly one bit is set."""
    return data.StructLayout({name: 1 for name in ("busy", "output", "tile", "weights", "find", "idle")})
