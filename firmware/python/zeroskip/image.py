"""Network images: read and checked. Nothing in a file is believed before it is checked.

Source: docs/network-image.md (normative), golden/README.md (what a descriptor makes the accelerator read and write).
"""
from __future__ import annotations

import math
import struct
import zlib
from dataclasses import dataclass
from pathlib import Path

from .errors import ImageError
from .registers import DESCRIPTOR_BYTES, DESCRIPTOR_MAGIC, DESCRIPTOR_WORDS, FIELDS, LOG_BYTES

MAGIC = 0x494E535A
MAJOR = 1
HEADER = struct.Struct("<IHHIIIIIIIIIIIIII28sI")
SEGMENT_ENTRY = struct.Struct("<IIII")
MAP_ENTRY = struct.Struct("<48sIIHHHBBIIdH14s")
#: Alignment of region and maps.
PAGE = 4096
#: Pixels of a segment.
SEGMENT = 4
NO_LAYER = 0xFFFF
#: Ranges of the fields of a descriptor that the memory it leads to depends on. The accelerator checks all fields.
RANGES = {"magic": (DESCRIPTOR_MAGIC, DESCRIPTOR_MAGIC), "dense_in": (0, 1), "write_full": (0, 1), "pool": (0, 3),
          "dense_shift": (0, 5), "kernel_rows": (0, 7), "kernel_columns": (0, 7),
          **dict.fromkeys(("in_height", "in_width", "in_channels", "out_height", "out_width", "out_channels"),
                          (1, 0xFFFF))}
#: Values of the field ``array`` of the capability, and the value widths and blocks that there are with each.
BROADCAST, INTERSECT = 0, 1
FORMATS = {BROADCAST: ((8, 16), (16, 32)), INTERSECT: ((8,), (16, 32, 64))}
#: The same as ``RANGES`` for the weight image of the intersect array.
INTERSECT_RANGES = {"chunk_channels": (1, 0xFFFF), "chunk_rows": (1, 7), "phases": (1, 7), "joined": (0, 3)}
#: Bytes of a beat.
BEAT = 8
#: Most channels that a dense map stores for a pixel.
DENSE_CHANNELS = 32
#: Address fields of a descriptor, each with the field that says whether it is used (None: always).
ADDRESSES = (("in_address", None), ("weight_address", None), ("full_address", "write_full"), ("pool_address", "pool"))


@dataclass(frozen=True)
class Map:
    """A feature map in the region of an image.

    Parameters
    ----------
    name : str
    offset, size : int
        Bytes: where it starts in the region, and how many it takes at most.
    channels, height, width : int
    signed, dense, output : bool
        Signed values; a dense map (else compressed); an output that the user wants.
    dense_shift : int
        Log2 of the channels stored for a pixel of a dense map, else 0.
    row_bytes, segment_bytes : int
        Distance of rows and of segments (4 pixels).
    scale : float
        Real value of 1; 0: not the same in all channels (never of the input or an output).
    layer : int or None
        The layer that writes it; None for the input.
    value_width, block : int
        Bits of a value; channels of a sparsity word.
    """
    name: str
    offset: int
    size: int
    channels: int
    height: int
    width: int
    signed: bool
    dense: bool
    output: bool
    dense_shift: int
    row_bytes: int
    segment_bytes: int
    scale: float
    layer: int | None
    value_width: int
    block: int

    @property
    def shape(self) -> tuple[int, int, int]:
        """(C, H, W)."""
        return self.channels, self.height, self.width

    @property
    def segments(self) -> int:
        return -(-self.width // SEGMENT)

    @property
    def blocks(self) -> int:
        return -(-self.channels // self.block)

    @property
    def map_bytes(self) -> int:
        """Bytes of the sparsity words at the start of a slot."""
        return SEGMENT * self.block // 8

    @property
    def slot_bytes(self) -> int:
        """Bytes of a slot: the power of two that holds words and values of the worst case."""
        return _slot_bytes(self.block, self.value_width)

    @property
    def extent(self) -> int:
        """Bytes from its first to behind its last."""
        return _extent(self.height, self.width, self.row_bytes, self.segment_bytes, self.used_bytes)

    @property
    def used_bytes(self) -> int:
        """Bytes of a segment that hold something."""
        return _used_bytes(self.channels, self.dense_shift if self.dense else None, self.block, self.value_width)


@dataclass(frozen=True)
class Image:
    """A checked network image.

    Parameters
    ----------
    name : str
    capability, configuration : int
        Registers of the accelerator that it was compiled for.
    link_base, region_bytes : int
        The region of DRAM: the address it was made for, and its size.
    descriptor_offset, layer_count, log_offset : int
        In the region: the descriptors, their number, the log of counters.
    segments : tuple of (offset, bytes)
        Initial contents of the region, the descriptors first.
    maps : dict of str to Map
    input : Map
        The one that the user fills.
    """
    name: str
    capability: int
    configuration: int
    link_base: int
    region_bytes: int
    descriptor_offset: int
    layer_count: int
    log_offset: int
    segments: tuple[tuple[int, bytes], ...]
    maps: dict[str, Map]
    input: Map

    def relocated(self, address: int) -> bytes:
        """The descriptors for a region at ``address``, a multiple of 4096."""
        data = bytearray(self.segments[0][1])
        for record, word in _addresses(data):
            linked = struct.unpack_from("<I", data, record + 4 * word)[0]
            struct.pack_into("<I", data, record + 4 * word, linked - self.link_base + address)
        return bytes(data)


def read_image(path) -> Image:
    """The image in the file ``path``; :class:`ImageError` says what is wrong with it."""
    try:
        data = Path(path).read_bytes()
    except OSError as error:
        raise ImageError(f"the image {path} cannot be read: {error.strerror}") from None
    try:
        return parse_image(data)
    except ImageError as error:
        raise ImageError(f"{path}: {error}") from None


def parse_image(data: bytes) -> Image:
    """The image that the bytes ``data`` begin with; :class:`ImageError` says what is wrong with it."""
    fields = _header(data)
    (_, _, _, _, size, _, capability, configuration, _, link_base, region_bytes, descriptor_offset, layer_count,
     log_offset, segment_count, map_count, input_map, name, _) = fields
    data = data[:size]
    array, value_width, block, lanes = (_capability_field(capability, name)
                                        for name in ("array", "value_width", "block", "lanes"))
    widths, blocks = FORMATS.get(array, ((), ()))
    if value_width not in widths or block not in blocks or not lanes or lanes % block:
        raise ImageError(f"values of {value_width} bits in blocks of {block} for {lanes} lanes are not possible in "
                         f"array {array}")
    _check_region(link_base, region_bytes, log_offset, layer_count)
    tables = HEADER.size + SEGMENT_ENTRY.size * segment_count
    end = tables + MAP_ENTRY.size * map_count
    if not segment_count or map_count < 2 or end > len(data):
        raise ImageError(f"{segment_count} segments and {map_count} maps are not possible in {len(data)} bytes")
    segments = tuple(_segment(index, data, end, region_bytes) for index in range(segment_count))
    descriptors, log = (descriptor_offset, layer_count * DESCRIPTOR_BYTES), (log_offset, layer_count * LOG_BYTES)
    _check_segments(segments, descriptors, log)
    maps = [_map(data[at:at + MAP_ENTRY.size], value_width, block, region_bytes, layer_count)
            for at in range(tables, end, MAP_ENTRY.size)]
    _check_input(maps, input_map, segments, log)
    by_name = {}
    for plan in maps:
        by_name.setdefault(plan.name, plan)
    image = Image(_text(name, "the network"), capability, configuration, link_base, region_bytes, descriptor_offset,
                  layer_count, log_offset, segments, by_name, maps[input_map])
    _check_descriptors(image, array, block, lanes, value_width)
    return image


def _header(data):
    """The fields of the header; size and both CRCs are right."""
    if len(data) < HEADER.size:
        raise ImageError(f"{len(data)} bytes are too short for a network image")
    fields = HEADER.unpack_from(data)
    magic, minor, major, header_bytes, file_bytes, payload_crc = fields[:6]
    if magic != MAGIC:
        raise ImageError("this is not a network image")
    if major != MAJOR:
        raise ImageError(f"it has format version {major}.{minor}; this package reads version {MAJOR}")
    if header_bytes != HEADER.size or zlib.crc32(data[:HEADER.size - 4]) != fields[-1]:
        raise ImageError("its header is damaged: copy or compile it again")
    if not HEADER.size <= file_bytes <= len(data):
        raise ImageError(f"it has {len(data)} bytes in place of {file_bytes}: copy or compile it again")
    if zlib.crc32(data[HEADER.size:file_bytes]) != payload_crc:
        raise ImageError("its content is damaged: copy or compile it again")
    if fields[8] != DESCRIPTOR_MAGIC:
        raise ImageError(f"its descriptors have version {fields[8]:#x}; this package knows {DESCRIPTOR_MAGIC:#x}")
    return fields


def _text(data, what):
    text, _, rest = data.partition(b"\0")
    if len(text) == len(data) or any(rest):
        raise ImageError(f"the name of {what} does not end")
    try:
        return text.decode()
    except UnicodeDecodeError:
        raise ImageError(f"the name of {what} is not UTF-8") from None


def _check_region(link_base, region_bytes, log_offset, layer_count):
    if link_base % PAGE or region_bytes % PAGE or link_base + region_bytes > 1 << 32:
        raise ImageError(f"a region of {region_bytes} bytes at {link_base:#x} is not possible")
    if not 1 <= layer_count <= 0xFFFF:
        raise ImageError(f"{layer_count} layers are not possible")
    if log_offset % LOG_BYTES or log_offset + layer_count * LOG_BYTES > region_bytes:
        raise ImageError(f"the log at {log_offset:#x} does not fit the region of {region_bytes} bytes")


def _segment(index, data, start, region_bytes):
    """(offset, bytes) of a segment."""
    offset, size, place, zero = SEGMENT_ENTRY.unpack_from(data, HEADER.size + SEGMENT_ENTRY.size * index)
    if not size or offset % 8 or place % 8 or zero:
        raise ImageError(f"segment {index} of {size} bytes at {offset:#x} is not possible")
    if offset + size > region_bytes:
        raise ImageError(f"segment {index} does not fit the region of {region_bytes} bytes")
    if place < start or place + size > len(data):
        raise ImageError(f"segment {index} does not lie in the file")
    return offset, data[place:place + size]


def _overlap(first, second):
    """Whether two spans (offset, size) share a byte."""
    return first[0] < second[0] + second[1] and second[0] < first[0] + first[1]


def _check_segments(segments, descriptors, log):
    """The first holds the descriptors; they are in ascending order and share no byte with each other or the log."""
    if (segments[0][0], len(segments[0][1])) != descriptors:
        raise ImageError(f"segment 0 does not hold the {descriptors[1] // DESCRIPTOR_BYTES} descriptors")
    last_end = 0
    for index, (offset, content) in enumerate(segments):
        if offset < last_end or _overlap((offset, len(content)), log):
            raise ImageError(f"segment {index} at {offset:#x} begins before the end of the one before it, or shares "
                             "bytes with the log")
        last_end = offset + len(content)


def _check_input(maps, input_map, segments, log):
    """The input is the only map that no layer writes, and keeps off what is loaded and the log."""
    if input_map >= len(maps):
        raise ImageError(f"the input is map {input_map}, which does not exist")
    for index, plan in enumerate(maps):
        if (plan.layer is None) != (index == input_map):
            raise ImageError(f"map {plan.name} is {'' if plan.layer is None else 'not '}without a layer that writes "
                             f"it; the input, map {input_map}, is the only one")
    plan = maps[input_map]
    for span in [*((offset, len(content)) for offset, content in segments), log]:
        if _overlap((plan.offset, plan.size), span):
            raise ImageError(f"the input map {plan.name} shares bytes with a segment or the log at {span[0]:#x}")


def _addresses(data):
    """(byte of the descriptor, word) of each address in use in the descriptors ``data``."""
    for record in range(0, len(data), DESCRIPTOR_BYTES):
        words = struct.unpack_from(f"<{DESCRIPTOR_BYTES // 4}I", data, record)
        for name, condition in ADDRESSES:
            if condition is None or words[DESCRIPTOR_WORDS[condition]]:
                yield record, DESCRIPTOR_WORDS[name]


def _check_descriptors(image, array, block, lanes, value_width):
    """What descriptors make the accelerator read and write lies in the region, and no output on what steers it."""
    # Descriptors, and the weights of the intersect array.
    kept = image.segments if array == INTERSECT else image.segments[:1]
    for layer in range(image.layer_count):
        words = struct.unpack_from(f"<{DESCRIPTOR_BYTES // 4}I", image.segments[0][1], layer * DESCRIPTOR_BYTES)
        fields = {name: words[word] for name, word in DESCRIPTOR_WORDS.items()}
        for name, (low, high) in {**RANGES, **(INTERSECT_RANGES if array == INTERSECT else {})}.items():
            if not low <= fields[name] <= high or name == "pool" and fields[name] == 1:
                raise ImageError(f"descriptor {layer} has {fields[name]:#x} in {name}")
        if array == INTERSECT and fields["joined"] >= fields["phases"]:
            raise ImageError(f"descriptor {layer} has {fields['joined']:#x} in joined of {fields['phases']} phases")
        sizes = _accesses(fields, block, value_width)
        if array == INTERSECT:
            _check_weights(image, layer, fields, block, lanes)
        else:
            sizes["weight_address"] = _weight_bytes(fields, block, lanes, value_width)
        # Below link_base the offset wraps to one far beyond the region.
        spans = {name: ((fields[name] - image.link_base) % (1 << 32), size) for name, size in sizes.items()}
        spans["in_block_bytes"] = spans["in_address"][0] + _last_block(fields, block), sizes["in_address"]
        for name, span in spans.items():
            if span[0] < 0 or sum(span) > image.region_bytes:
                first = (span[0] + image.link_base) % (1 << 32)
                raise ImageError(f"descriptor {layer} has {span[1]} bytes from {first:#x} on in {name}, which are "
                                 "outside of the region")
            if name in ("full_address", "pool_address"):
                _check_output(layer, span, kept)


def _check_output(layer, span, segments):
    """What a layer writes, (offset, size), is on none of the ``segments``."""
    for index, (offset, content) in enumerate(segments):
        if _overlap(span, (offset, len(content))):
            raise ImageError(f"descriptor {layer} writes to {f'segment {index}' if index else 'the descriptors'} from "
                             f"{span[0]:#x} on")


def _last_block(fields, block):
    """Distance of the last block of channels that a layer reads from the first; those between lie between."""
    distance = (fields["in_block_bytes"] + (1 << 31)) % (1 << 32) - (1 << 31)
    return 0 if fields["dense_in"] else (-(-fields["in_channels"] // block) - 1) * distance


def _accesses(fields, block, value_width):
    """Bytes from each address of a map in use of a descriptor on that the accelerator may access, for an input those of
    a block of channels."""
    def size(kind, height, width, used):
        return _extent(height, width, fields[f"{kind}_row_bytes"], fields[f"{kind}_segment_bytes"], used)

    out_height, out_width, pool = fields["out_height"], fields["out_width"], fields["pool"]
    shift = fields["dense_shift"] if fields["dense_in"] else None
    used = _used_bytes(fields["out_channels"], None, block, value_width)
    accesses = {"in_address": size("in", fields["in_height"], fields["in_width"],
                                   _used_bytes(1, shift, block, value_width))}
    if fields["write_full"]:
        accesses["full_address"] = size("full", out_height, out_width, used)
    if pool:
        pooled = (max(1, -(-(n - pool) // 2) + 1) for n in (out_height, out_width))
        accesses["pool_address"] = size("pool", *pooled, used)
    return accesses


def _weight_bytes(fields, block, lanes, value_width):
    """Bytes of a weight image of the broadcast array."""
    def kernel_block(channels):
        """Scales and weights."""
        taps = fields["kernel_rows"] * fields["kernel_columns"]
        return _scale_bytes(channels, block) + taps * fields["in_channels"] * _whole_beats(channels * value_width // 8)

    blocks, rest = divmod(fields["out_channels"], lanes)
    return blocks * kernel_block(lanes) + kernel_block(rest)


def _scale_bytes(lanes, block):
    """Bytes of the scales of a kernel block."""
    return -(-lanes // block) * block * 2 * BEAT


def _whole_beats(size):
    """``size`` bytes rounded up to whole beats."""
    return -(-size // BEAT) * BEAT


def _check_weights(image, layer, fields, block, lanes):
    """The weight image of a layer of the intersect array is loaded, and as long as the accelerator will find it: each
    header tells the beats that the maps behind it make."""
    content = _loaded(image, (fields["weight_address"] - image.link_base) % (1 << 32))
    if content is None:
        raise ImageError(f"descriptor {layer} has weights at {fields['weight_address']:#x}, which no segment loads")
    at = 0
    for first in range(0, fields["out_channels"], lanes):
        count = min(lanes, fields["out_channels"] - first)
        beats = int.from_bytes(content[at:at + BEAT], "little")
        rounds = at + BEAT + _scale_bytes(count, block)
        at = _rounds_end(content, rounds, fields, block, count)
        if at - rounds != beats * BEAT or at > len(content):
            raise ImageError(f"the weights of descriptor {layer} from channel {first} on do not have the {beats} beats "
                             f"that their header tells, or do not lie in their segment")


def _loaded(image, offset):
    """What is loaded from ``offset`` in the region on, by one segment; None if nothing is. Descriptors do not count:
    loading changes them."""
    for first, content in image.segments[1:]:
        if first <= offset < first + len(content):
            return content[offset - first:]
    return None


def _rounds_end(content, at, fields, block, lanes):
    """The byte behind the rounds of a kernel block of ``lanes``, which begin at byte ``at`` of ``content``; a byte
    behind the end of ``content`` if it has not all of them."""
    for words in _round_words(fields, block):
        map_bytes = words * block // 8
        for _ in range(lanes):
            maps = at + BEAT
            ones = bin(int.from_bytes(content[maps:maps + map_bytes], "little")).count("1")
            at = maps + _whole_beats(map_bytes) + _whole_beats(ones)
            if at > len(content):
                return at
    return at


def _round_words(fields, block):
    """For each round of a kernel block, phase by phase, the last ones joined, and chunk by chunk, the map words of a
    lane in all phases of the round."""
    alone = fields["phases"] - fields["joined"] - 1
    for phases in [*[1] * alone, fields["joined"] + 1]:
        for channel in range(0, fields["in_channels"], fields["chunk_channels"]):
            blocks = -(-min(fields["chunk_channels"], fields["in_channels"] - channel) // block)
            for row in range(0, fields["kernel_rows"], fields["chunk_rows"]):
                rows = min(fields["chunk_rows"], fields["kernel_rows"] - row)
                yield phases * rows * fields["kernel_columns"] * blocks


def _slot_bytes(block, value_width):
    return 1 << (SEGMENT * block // 8 * (1 + value_width) - 1).bit_length()


def _used_bytes(channels, dense_shift, block, value_width):
    """Bytes of a segment that hold something; ``dense_shift``: None for a compressed map."""
    if dense_shift is None:
        return -(-channels // block) * _slot_bytes(block, value_width)
    return max(8, (SEGMENT << dense_shift) * value_width // 8)


def _extent(height, width, row_bytes, segment_bytes, used):
    """Bytes from the first of a map to behind its last."""
    return (height - 1) * row_bytes + (-(-width // SEGMENT) - 1) * segment_bytes + used


def _capability_field(capability, name):
    low, mask = FIELDS["capability", name]
    return (capability & mask) >> low


def _map(entry, value_width, block, region_bytes, layer_count):
    """The map of an entry of the table."""
    (name, offset, size, channels, height, width, flags, dense_shift, row_bytes, segment_bytes, scale, layer,
     zeros) = MAP_ENTRY.unpack(entry)
    name = _text(name, "a map")
    plan = Map(name, offset, size, channels, height, width, bool(flags & 1), bool(flags & 2), bool(flags & 4),
               dense_shift, row_bytes, segment_bytes, scale, None if layer == NO_LAYER else layer, value_width, block)
    if not channels or not height or not width or flags > 7 or any(zeros):
        raise ImageError(f"map {name} has an impossible shape {plan.shape}, flags {flags:#x} or bytes that must be 0")
    # Inside of a network channels may have scales of their own.
    if not math.isfinite(scale) or scale < 0 or scale == 0 and (plan.output or plan.layer is None):
        raise ImageError(f"map {name} has the scale {scale}")
    if plan.layer is not None and layer >= layer_count:
        raise ImageError(f"map {name} is written by layer {layer} of {layer_count}")
    if dense_shift and not plan.dense or plan.dense and not channels <= 1 << dense_shift <= min(block, DENSE_CHANNELS):
        raise ImageError(f"map {name} of {channels} channels stores 2**{dense_shift} for a pixel")
    # Multiples of 8: the hardware reads whole beats.
    if segment_bytes % 8 or row_bytes % 8 or segment_bytes < plan.used_bytes \
            or row_bytes < plan.segments * segment_bytes:
        raise ImageError(f"rows of {row_bytes} bytes with segments of {segment_bytes} bytes do not hold map {name}")
    if offset % PAGE or offset + size > region_bytes:
        raise ImageError(f"map {name} of {size} bytes at {offset:#x} does not fit the region of {region_bytes} bytes")
    if size < plan.extent:
        raise ImageError(f"map {name} does not fit its {size} bytes")
    return plan
