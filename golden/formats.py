"""Feature maps in DRAM: the compressed map, the dense map, and the bytes that reading them takes.

Source: golden/README.md, "Compressed feature map" and "Dense feature map" (normative).
"""
from dataclasses import dataclass

import numpy as np

from hw.config import BEAT, SEGMENT, AcceleratorConfig

from .tiling import ceil_div

#: Every map starts at a multiple of this.
MAP_ALIGNMENT = 4096
#: Most channels that a dense map stores for a pixel; never more than a block.
MAX_DENSE_CHANNELS = 32


@dataclass(frozen=True)
class MapPlan:
    """Where a map of ``channels x height x width`` lies in DRAM and in which form.

    Parameters
    ----------
    height, width, channels : int
        Size of the map.
    address : int
        First byte, a multiple of 4096.
    row_bytes, segment_bytes : int
        Distance of rows and of segments.
    size : int
        Bytes that the map takes, its gaps included.
    signed : bool
        Values are signed.
    dense_shift : int or None
        Log2 of the channels stored for a pixel; None for a compressed map.
    """
    height: int
    width: int
    channels: int
    address: int
    row_bytes: int
    segment_bytes: int
    size: int
    signed: bool = False
    dense_shift: int | None = None

    @property
    def dense(self) -> bool:
        return self.dense_shift is not None

    @property
    def segments(self) -> int:
        return ceil_div(self.width, SEGMENT)

    def value_type(self, config: AcceleratorConfig) -> np.dtype:
        return np.dtype(f"<{'i' if self.signed else 'u'}{config.value_width // 8}")


def dense_channels(config: AcceleratorConfig) -> int:
    """Most channels of a dense map on ``config``."""
    return min(config.block, MAX_DENSE_CHANNELS)


def plan_map(shape: tuple[int, int, int], config: AcceleratorConfig, *, address: int = 0, signed: bool = False,
             dense: bool = False) -> MapPlan:
    """The layout of a map of ``shape`` (C, H, W) without gaps between its rows."""
    channels, height, width = shape
    shift = (channels - 1).bit_length() if dense else None
    if dense and channels > dense_channels(config):
        raise ValueError(f"a dense map has at most {dense_channels(config)} channels, not {channels}")
    if dense:
        segment_bytes = max(BEAT // 8, (SEGMENT << shift) * config.value_width // 8)
    else:
        segment_bytes = ceil_div(channels, config.block) * config.slot_bytes
    row_bytes = ceil_div(width, SEGMENT) * segment_bytes
    return MapPlan(height, width, channels, address, row_bytes, segment_bytes, height * row_bytes, signed, shift)


def encode_map(values: np.ndarray, config: AcceleratorConfig, plan: MapPlan) -> bytes:
    """The ``plan.size`` bytes of the compressed map of ``values[H, W, C]``; unused bytes are 0."""
    image, slots = _slots(config, plan, np.zeros(plan.size, np.uint8))
    values = _slot_values(_checked(values, config, plan), config, plan)
    mask = values != 0
    slots[..., :config.map_beats * BEAT // 8] = np.packbits(mask, axis=-1, bitorder="little")
    where, place = _places(mask, config, slots.shape[-1])
    packed = np.zeros(slots.shape, np.uint8)
    packed.reshape(-1).view(plan.value_type(config))[place] = values.reshape(-1)[where]
    slots |= packed
    return image.tobytes()


def decode_map(image: bytes, config: AcceleratorConfig, plan: MapPlan) -> np.ndarray:
    """``values[H, W, C]`` of a compressed map; the inverse of :func:`encode_map`.

    ``ValueError`` on a map that breaks the format: a bit beyond the width or the channels, a stored zero, or a last
    beat that is not filled up with zeros.
    """
    _, slots = _slots(config, plan, np.frombuffer(image, np.uint8))
    slots = np.ascontiguousarray(slots)
    mask = np.unpackbits(slots[..., :config.map_beats * BEAT // 8], axis=-1, bitorder="little").astype(bool)
    where, place = _places(mask, config, slots.shape[-1])
    stored = slots.reshape(-1).view(plan.value_type(config))
    if not stored[place].all():
        slot = int(where[np.flatnonzero(stored[place] == 0)[0]]) // config.slot_values
        raise ValueError(f"slot {slot} stores a zero")
    _check_fill(mask, stored, config)
    values = np.zeros(mask.shape, plan.value_type(config))
    values.reshape(-1)[where] = stored[place]
    values = _pixels(values, config, plan)
    for name, beyond in (("width", values[:, plan.width:]), ("channels", values[:, :, plan.channels:])):
        if beyond.any():
            raise ValueError(f"a map word has bits beyond the {name} of the map")
    return values[:, :plan.width, :plan.channels].copy()


def encode_dense(values: np.ndarray, config: AcceleratorConfig, plan: MapPlan) -> bytes:
    """The ``plan.size`` bytes of the dense map of ``values[H, W, C]``."""
    values = _checked(values, config, plan)
    padded = np.zeros((plan.height, plan.segments * SEGMENT, 1 << plan.dense_shift), plan.value_type(config))
    padded[:, :plan.width, :plan.channels] = values
    rows = padded.reshape(plan.height, plan.segments, -1).view(np.uint8)
    image = np.zeros(plan.size, np.uint8)
    _strided(image, plan, (rows.shape[-1],), (1,))[...] = rows
    return image.tobytes()


def decode_dense(image: bytes, config: AcceleratorConfig, plan: MapPlan) -> np.ndarray:
    """``values[H, W, C]`` of a dense map; ``ValueError`` if channels or pixels beyond the map are not 0."""
    pixel_bytes = config.value_width // 8 << plan.dense_shift
    rows = np.ascontiguousarray(_strided(np.frombuffer(image, np.uint8), plan, (SEGMENT * pixel_bytes,), (1,)))
    values = rows.reshape(-1).view(plan.value_type(config))
    values = values.reshape(plan.height, plan.segments * SEGMENT, 1 << plan.dense_shift)
    if values[:, plan.width:].any() or values[:, :, plan.channels:].any():
        raise ValueError("a dense map has values beyond its width or channels")
    return values[:, :plan.width, :plan.channels].copy()


def encode(values: np.ndarray, config: AcceleratorConfig, plan: MapPlan) -> bytes:
    """The bytes of a map in the form of ``plan``."""
    return (encode_dense if plan.dense else encode_map)(values, config, plan)


def decode(image: bytes, config: AcceleratorConfig, plan: MapPlan) -> np.ndarray:
    """The values ``[H, W, C]`` of a map in the form of ``plan``."""
    return (decode_dense if plan.dense else decode_map)(image, config, plan)


def slot_beats(values: np.ndarray, config: AcceleratorConfig, plan: MapPlan) -> np.ndarray:
    """Beats (8 bytes) that a read or a write of each slot ``[H, segments, blocks]`` of ``values[H, W, C]`` takes."""
    if plan.dense:
        return np.full((plan.height, plan.segments, 1), plan.segment_bytes * 8 // BEAT)
    count = np.count_nonzero(_slot_values(np.asarray(values), config, plan), axis=-1)
    return config.map_beats + ceil_div(count, config.values_per_beat)


def _checked(values, config, plan):
    values = np.asarray(values)
    if values.shape != (plan.height, plan.width, plan.channels):
        raise ValueError(f"the map is {plan.height} x {plan.width} x {plan.channels}, the values are {values.shape}")
    limits = np.iinfo(plan.value_type(config))
    if values.min() < limits.min or values.max() > limits.max:
        raise ValueError(f"values must be {limits.min} to {limits.max}, not {values.min()} to {values.max()}")
    return values.astype(plan.value_type(config))


def _strided(image, plan, shape, strides):
    """A view ``[H, segments, *shape]`` of the bytes of a map."""
    if image.size < plan.size:
        raise ValueError(f"the map takes {plan.size} bytes, the image has {image.size}")
    return np.lib.stride_tricks.as_strided(image, (plan.height, plan.segments, *shape),
                                           (plan.row_bytes, plan.segment_bytes, *strides),
                                           writeable=image.flags.writeable)


def _slots(config, plan, image):
    """``image`` and a view ``[H, segments, blocks, slot_bytes]`` of it."""
    blocks = ceil_div(plan.channels, config.block)
    return image, _strided(image, plan, (blocks, config.slot_bytes), (config.slot_bytes, 1))


def _slot_values(values, config, plan):
    """``values[H, W, C]`` as ``[H, segments, blocks, SEGMENT * block]``, padded with zeros."""
    blocks = ceil_div(plan.channels, config.block)
    padded = np.zeros((plan.height, plan.segments * SEGMENT, blocks * config.block), values.dtype)
    padded[:, :plan.width, :plan.channels] = values
    padded = padded.reshape(plan.height, plan.segments, SEGMENT, blocks, config.block)
    return np.ascontiguousarray(padded.transpose(0, 1, 3, 2, 4)).reshape(plan.height, plan.segments, blocks, -1)


def _pixels(slots, config, plan):
    """The inverse of :func:`_slot_values`, padding included."""
    blocks = slots.shape[2]
    values = slots.reshape(plan.height, plan.segments, blocks, SEGMENT, config.block).transpose(0, 1, 3, 2, 4)
    return values.reshape(plan.height, plan.segments * SEGMENT, blocks * config.block)


def _places(mask, config, slot_bytes):
    """Flat indices of the set bits of ``mask``, and of their values among the values of all slots."""
    counts = np.count_nonzero(mask, axis=-1).reshape(-1)
    where = np.flatnonzero(mask)
    value_bytes = config.value_width // 8
    # What is added to the running number of a non-zero value to get its place: constant within a slot.
    base = (np.arange(counts.size) * slot_bytes + config.map_beats * BEAT // 8) // value_bytes
    return where, np.repeat(base - (np.cumsum(counts) - counts), counts) + np.arange(where.size)


def _check_fill(mask, stored, config):
    """``ValueError`` if the rest of the last beat of a slot is not 0."""
    stored = stored.reshape(-1, stored.size // (mask.size // config.slot_values))
    counts = np.count_nonzero(mask, axis=-1).reshape(-1)
    first = config.map_beats * config.values_per_beat
    for gap in range(1, config.values_per_beat):
        rows = np.flatnonzero(-counts % config.values_per_beat >= gap)
        if stored[rows, first + counts[rows] + gap - 1].any():
            raise ValueError("the last beat of a slot is not filled up with zeros")
