"""The layer descriptor: one record in DRAM for each layer. Plain data, read by compiler, golden and RTL.

Source: docs/architecture.md, "Descriptor list".
"""
from dataclasses import dataclass

from .config import CHANNEL_BITS, COLUMN_BITS, LOCAL_BITS, ROW_BITS

#: First word of every descriptor: "ZSK" and the version of the layout.
MAGIC = 0x5A534B04
#: Size of a descriptor in DRAM; word ``n`` (32 bits, little endian) lies at byte ``4 * n``. Unused words are zero.
DESCRIPTOR_BYTES = 192


@dataclass(frozen=True)
class Field:
    """``name``: an integer in ``low..high`` of ``width`` bits in word ``word``; the other bits are 0, or copies of the
    sign where ``low`` is below 0."""
    name: str
    word: int
    width: int
    low: int
    high: int
    text: str

    @property
    def signed(self) -> bool:
        return self.low < 0


def _fields(*rows):
    return tuple(Field(name, word, width, low, 2 ** width - 1 if high is None else high, text)
                 for word, (name, width, low, high, text) in enumerate(rows))


FIELDS = _fields(
    ("magic", 32, MAGIC, MAGIC, "Magic number and version of the layout."),
    ("dense_in", 1, 0, None, "1: the input is a dense map (golden/README.md), 0: a compressed one."),
    ("signed_in", 1, 0, None, "1: input values are signed, 0: unsigned."),
    ("clamp_low", 16, -2**15, 0, "Smaller outputs become it: -2**(value_width - 1) or more. Below 0: signed outputs."),
    ("clamp_high", 16, 0, None, "Larger outputs become it: 2**value_width - 1 or less, half of that if signed."),
    ("pool", 2, 0, 3, "Max-pool kernel, 2 or 3, stride 2, ceil mode; 0: no pooled output. 1 is refused."),
    ("write_full", 1, 0, None, "1: write the map before pooling."),
    ("in_address", 32, 0, None, "First block of channels of the input, a multiple of slot_bytes."),
    ("in_row_bytes", 24, 8, None, "Bytes from one input row to the next."),
    ("in_segment_bytes", 20, 8, None, "Bytes from one input segment to the next."),
    ("in_block_bytes", 32, -2**31, 2**31 - 1,
     "Bytes from one block of input channels to the next, a multiple of slot_bytes."),
    ("in_height", ROW_BITS, 1, None, "Input rows."),
    ("in_width", COLUMN_BITS, 1, None, "Input columns."),
    ("in_channels", CHANNEL_BITS, 1, None, "Input channels that have weights."),
    ("dense_shift", 3, 0, 5, "Dense input: log2 of the channels stored for a pixel."),
    ("kernel_rows", 3, 1, 7, "Kernel rows."),
    ("kernel_columns", 3, 1, 7, "Kernel columns."),
    ("stride", 3, 1, 4, "Stride, both ways."),
    ("pad_top", 4, 0, None, "Rows of zeros above the map."),
    ("pad_left", 4, 0, None, "Columns of zeros left of the map."),
    ("out_height", ROW_BITS, 1, None, "Rows of windows (before pooling)."),
    ("out_width", COLUMN_BITS, 1, None, "Columns of windows (before pooling)."),
    ("out_channels", CHANNEL_BITS, 1, None, "Output channels."),
    ("chunk_channels", CHANNEL_BITS, 1, None,
     "Input channels of a chunk: a multiple of the map block, or all input channels."),
    ("chunk_rows", 3, 1, 7, "Kernel rows of a chunk."),
    ("tile_rows", LOCAL_BITS, 1, 128, "Rows of windows from one tile to the next."),
    ("tile_columns", LOCAL_BITS, 1, 128, "Columns of windows from one tile to the next; a multiple of 4 "
     "(of 8 with pooling) unless one tile spans the map."),
    ("tile_overlap", 1, 0, None, "Windows that a tile shares with the next, both ways: 1 for a 3x3 pool, else 0."),
    ("tiles_per_pass", 16, 1, None, "Tiles whose partial sums are kept at a time."),
    ("passes", 16, 1, None, "Passes over the tiles: tiles / tiles_per_pass, rounded up."),
    ("weight_address", 32, 0, None, "Weight image of the layer, a multiple of 8."),
    ("full_address", 32, 0, None, "First block of the output before pooling, a multiple of slot_bytes."),
    ("full_row_bytes", 24, 0, None, "Bytes from one row of it to the next."),
    ("full_segment_bytes", 20, 0, None, "Bytes from one segment of it to the next."),
    ("pool_address", 32, 0, None, "First block of the pooled output, a multiple of slot_bytes."),
    ("pool_row_bytes", 24, 0, None, "Bytes from one row of it to the next."),
    ("pool_segment_bytes", 20, 0, None, "Bytes from one segment of it to the next."),
    ("phases", 3, 1, 7, "Intersect array: phases of the weights. Broadcast array: 1."),
    ("stop_phase", 3, 0, 6, "Intersect array: from this phase on, less than phases, a sum below 0 is final; 0: never. "
     "Only with clamp_low 0 and unsigned input."),
    ("predict", 1, 0, None, "Intersect array: 1: a sum below its lane's threshold after phase 0 becomes negative. Only "
     "with clamp_low 0, and in a round of its own."),
    ("joined", 2, 0, None, "Intersect array: the last phases, this many, share a round with the one before them; less "
     "than phases. A round with phases from stop_phase on and others needs one chunk in all."),
)

#: Bits of ``error_detail`` that name the field a refused descriptor failed on: the word's index.
FIELD_BY_NAME = {field.name: field for field in FIELDS}
assert len(FIELDS) * 4 <= DESCRIPTOR_BYTES


def pack(values: dict) -> bytes:
    """The descriptor's bytes. ``magic`` is filled in; ``ValueError`` names a missing, unknown or out-of-range field."""
    values = {"magic": MAGIC} | values
    unknown = set(values) - set(FIELD_BY_NAME)
    if unknown:
        raise ValueError(f"unknown descriptor fields: {', '.join(sorted(unknown))}")
    words = []
    for field in FIELDS:
        if field.name not in values:
            raise ValueError(f"descriptor field {field.name} is missing")
        value = int(values[field.name])
        if not field.low <= value <= field.high:
            raise ValueError(f"descriptor field {field.name} must be {field.low} to {field.high}, not {value}")
        words.append(value)
    return b"".join((word % 2**32).to_bytes(4, "little") for word in words).ljust(DESCRIPTOR_BYTES, b"\0")


def unpack(data: bytes) -> dict:
    """The fields of a packed descriptor; the inverse of :func:`pack`."""
    if len(data) != DESCRIPTOR_BYTES:
        raise ValueError(f"a descriptor has {DESCRIPTOR_BYTES} bytes, not {len(data)}")
    return {field.name: int.from_bytes(data[4 * field.word:4 * field.word + 4], "little", signed=field.signed)
            for field in FIELDS}
