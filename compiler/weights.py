"""Weight images: scales and weights of a layer in the order in which the hardware reads them.

Source: golden/README.md, "Weight image" and "Intersect array" (normative).
"""
import numpy as np

from golden.layer import QuantisedLayer
from golden.tiling import Tiling, ceil_div, chunk_spans
from hw.config import BEAT, AcceleratorConfig

from .phases import phase_weights

#: Bytes of a beat.
BEAT_BYTES = BEAT // 8


def weight_image(layer: QuantisedLayer, tiling: Tiling, config: AcceleratorConfig) -> bytes:
    """The weight image of ``layer``, cut as ``tiling`` says, in the format of the array that ``config`` has."""
    spans = chunk_spans(len(layer.weights), config.lanes)
    if not config.intersect:
        return b"".join(_broadcast_block(layer, first, end, tiling, config) for first, end in spans)
    phases = phase_weights(layer, tiling.phases, tiling.joined)
    starts = np.stack([*layer.starts, layer.zero_below])
    return b"".join(_intersect_block(layer, phases[:, first:end], starts[:, first:end], first, tiling, config)
                    for first, end in spans)


def _chunks(weights, tiling):
    """The parts ``[lanes, channels, rows, columns]`` of ``weights`` of each chunk in order."""
    for channel, channel_end in chunk_spans(weights.shape[1], tiling.chunk_channels):
        for row, row_end in chunk_spans(weights.shape[2], tiling.chunk_rows):
            yield weights[:, channel:channel_end, row:row_end]


def _scale_image(bias, scale, shift, config):
    """Two beats for each lane: the bias; the scale, and the shift from bit 32 on."""
    beats = np.zeros((ceil_div(len(scale), config.block) * config.block, 2), "<i8")
    beats[:len(scale), 0] = bias
    beats[:len(scale), 1] = scale | shift << 32
    return beats.tobytes()


def _broadcast_block(layer, first, end, tiling, config):
    """Kernel block ``first .. end - 1`` of the broadcast array."""
    scales = _scale_image(*(values[first:end] for values in (layer.bias, layer.scale, layer.shift)), config)
    return scales + b"".join(_chunk_image(chunk, config) for chunk in _chunks(layer.weights[first:end], tiling))


def _chunk_image(weights, config):
    """Whole beats of lane 0, 1, 2 ... for each tap and channel of ``weights[lanes, channels, rows, columns]``."""
    lanes, channels, rows, columns = weights.shape
    width = ceil_div(lanes, config.values_per_beat) * config.values_per_beat
    image = np.zeros((rows, columns, channels, width), f"<i{config.value_width // 8}")
    image[..., :lanes] = weights.transpose(2, 3, 1, 0)
    return image.tobytes()


def _intersect_block(layer, phases, starts, first, tiling, config):
    """The kernel block of the intersect array that begins with lane ``first``, with its weights of each phase and its
    ``starts``: start values, thresholds and what the requantiser adds. Header, scales, rounds."""
    start, thresholds, below = starts
    zeros, end = np.zeros_like(start), first + len(start)
    rounds = []
    for shared in tiling.shared_phases:
        for chunks in zip(*(_chunks(phases[number], tiling) for number in shared), strict=True):
            rounds.append(_round_image(np.stack(chunks), zeros if rounds else start,
                                       zeros if shared[0] else thresholds, config))
    body = b"".join(rounds)
    # The start values hold the bias, less this.
    scales = _scale_image(below, layer.scale[first:end], layer.shift[first:end], config)
    return (len(body) // BEAT_BYTES).to_bytes(BEAT_BYTES, "little") + scales + body


def _round_image(weights, start, thresholds, config):
    """Start, threshold, maps of each phase and values of all of each lane of ``weights[phases, lanes, channels, rows,
    columns]``, 0 where they are not of the round and phase."""
    phases, lanes, channels, rows, columns = weights.shape
    words = np.zeros((lanes, phases, rows, columns, ceil_div(channels, config.block) * config.block), np.int8)
    words[..., :channels] = weights.transpose(1, 0, 3, 4, 2)
    maps = np.packbits((words != 0).reshape(lanes, -1), axis=1, bitorder="little")
    # No weight has two phases of a round.
    words = words.sum(1, dtype=np.int8).reshape(lanes, -1)
    present = words != 0
    map_bytes = _whole_beats(maps.shape[1])
    counts = np.count_nonzero(present, axis=1)
    sizes = BEAT_BYTES + map_bytes + _whole_beats(counts)
    at = np.cumsum(sizes) - sizes
    image = np.zeros(sizes.sum(), np.uint8)
    image[at[:, None] + np.arange(BEAT_BYTES)] = np.stack([start, thresholds], 1).astype("<i4").view(np.uint8)
    image[at[:, None] + BEAT_BYTES + np.arange(maps.shape[1])] = maps
    first_value = at + BEAT_BYTES + map_bytes - (np.cumsum(counts) - counts)
    image[np.repeat(first_value, counts) + np.arange(counts.sum())] = words[present].view(np.uint8)
    return image.tobytes()


def _whole_beats(size):
    """``size`` bytes rounded up to whole beats; also for arrays."""
    return ceil_div(size, BEAT_BYTES) * BEAT_BYTES
