"""Feature maps in memory: compressed or dense bytes from and to arrays [C, H, W].

Source: golden/README.md, "Compressed feature map" and "Dense feature map" (normative).
"""
from __future__ import annotations

import numpy as np

from .errors import MapError
from .image import SEGMENT, Map


def value_type(plan: Map) -> np.dtype:
    """Type of the values of a map."""
    return np.dtype(f"<{'i' if plan.signed else 'u'}{plan.value_width // 8}")


def check_values(values, plan: Map) -> np.ndarray:
    """``values`` as an array [C, H, W] of the type of the map.

    :class:`MapError` for another shape, for values that are no integers, or for integers beyond the map's range.
    """
    values = np.asarray(values)
    if values.shape != plan.shape:
        raise MapError(f"map {plan.name} has the shape (C, H, W) = {plan.shape}, the array has {values.shape}")
    if values.dtype.kind not in "iu":
        raise MapError(f"map {plan.name} takes integers, not {values.dtype}: convert them, or run with real=True")
    limits = np.iinfo(value_type(plan))
    if values.min() < limits.min or values.max() > limits.max:
        raise MapError(f"map {plan.name} takes values of {limits.min} to {limits.max}, the array has {values.min()} "
                       f"to {values.max()}")
    return values.astype(value_type(plan))


def encode_map(values, plan: Map) -> np.ndarray:
    """The ``plan.size`` bytes (uint8) of a map of integers ``values[C, H, W]``; errors as of :func:`check_values`."""
    values = check_values(values, plan)
    image = np.zeros(plan.size, np.uint8)
    stored = _stored(image, plan)
    if plan.dense:
        stored[...] = _segments(values, plan, 1 << plan.dense_shift).reshape(stored.shape)
        return image
    slots = _segments(values, plan, plan.block).reshape(-1, SEGMENT * plan.block)
    mask = slots != 0
    _words(image, plan)[...] = np.packbits(mask, axis=-1, bitorder="little").reshape(_words(image, plan).shape)
    packed = np.zeros_like(slots)
    packed[_leading(mask)] = slots[mask]
    stored[...] = packed.reshape(stored.shape)
    return image


def decode_map(image: np.ndarray, plan: Map) -> np.ndarray:
    """The integers ``values[C, H, W]`` of the bytes (uint8) of a map; :class:`MapError` if it is not well-formed."""
    stored = _stored(image, plan)
    if plan.dense:
        return _pixels(stored, plan, 1 << plan.dense_shift)
    words = np.ascontiguousarray(_words(image, plan)).reshape(-1, plan.map_bytes)
    mask = np.unpackbits(words, axis=-1, bitorder="little").view(bool)
    # The n-th non-zero value of a slot is the n-th that it stores: both selections run in the same order.
    found = stored.reshape(mask.shape)[_leading(mask)]
    if not found.all():
        raise MapError(f"map {plan.name} stores a zero: memory was read before it was written, or is not coherent")
    slots = np.zeros(mask.shape, value_type(plan))
    slots[mask] = found
    return _pixels(slots, plan, plan.block)


def _strided(image, plan, shape, strides, kind=np.uint8):
    """A view [H, segments, *shape] of the bytes ``image`` of a map."""
    return np.ndarray((plan.height, plan.segments) + shape, kind, image.data,
                      strides=(plan.row_bytes, plan.segment_bytes) + strides)


def _words(image, plan):
    """View [H, segments, blocks, bytes] of the sparsity words."""
    return _strided(image, plan, (plan.blocks, plan.map_bytes), (plan.slot_bytes, 1))


def _stored(image, plan):
    """View [H, segments, blocks, values] of the values, packed in each slot; one block in a dense map."""
    kind = value_type(plan)
    if plan.dense:
        return _strided(image, plan, (1, SEGMENT << plan.dense_shift), (0, kind.itemsize), kind)
    return _strided(image[plan.map_bytes:], plan, (plan.blocks, SEGMENT * plan.block),
                    (plan.slot_bytes, kind.itemsize), kind)


def _leading(mask):
    """A mask of the same shape whose rows have as many bits set as those of ``mask``, but at the start."""
    return np.arange(mask.shape[-1]) < np.count_nonzero(mask, axis=-1)[:, None]


def _segments(values, plan, group):
    """``values[C, H, W]`` as [H, segments, groups, 4, group], padded with zeros."""
    groups = -(-plan.channels // group)
    padded = np.zeros((groups * group, plan.height, plan.segments * SEGMENT), values.dtype)
    padded[:plan.channels, :, :plan.width] = values
    padded = padded.reshape(groups, group, plan.height, plan.segments, SEGMENT)
    return np.ascontiguousarray(padded.transpose(2, 3, 0, 4, 1))


def _pixels(slots, plan, group):
    """The inverse of :func:`_segments`; what lies beyond the map must be 0."""
    groups = -(-plan.channels // group)
    slots = slots.reshape(plan.height, plan.segments, groups, SEGMENT, group)
    values = slots.transpose(2, 4, 0, 1, 3).reshape(groups * group, plan.height, plan.segments * SEGMENT)
    if values[plan.channels:].any() or values[:, :, plan.width:].any():
        raise MapError(f"map {plan.name} has values beyond its {plan.channels} channels or {plan.width} columns: "
                       "memory was read before it was written, or is not coherent")
    return np.ascontiguousarray(values[:plan.channels, :, :plan.width])
