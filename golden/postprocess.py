"""Postprocess: from a finished sum to an activation, then max-pool.

Source: golden/README.md, "Requantisation" and "Max-pool" (normative).
"""
import numpy as np

from .tiling import pooled_length

#: Bits of a partial sum and of a bias, by width of a value.
SUM_WIDTHS = {8: 32, 16: 48}


def value_limits(width: int, signed: bool) -> tuple[int, int]:
    """Lowest and highest value of ``width`` bits."""
    return (-1 << width - 1, (1 << width - 1) - 1) if signed else (0, (1 << width) - 1)


def wrap(values: np.ndarray, width: int) -> np.ndarray:
    """``values`` (int64) modulo ``2**width``, as signed numbers of that width."""
    unused = 64 - width
    return values << unused >> unused


def requantise(sums: np.ndarray, bias: np.ndarray, scale: np.ndarray, shift: np.ndarray, *, low: int,
               high: int, value_width: int) -> np.ndarray:
    """``clamp((sum + bias) * scale / 2**shift, low, high)``, rounded half to even, of ``sums[O, H, W]`` (int64).

    ``sum + bias`` wraps at the sum width. The product has at most 48 + 16 bits and fits an int64; rounding looks at the
    remainder, because adding half of ``2**shift`` could overflow.
    """
    def per_channel(values):
        return np.asarray(values, np.int64)[:, None, None]

    shift = per_channel(shift)
    product = wrap(sums + per_channel(bias), SUM_WIDTHS[value_width]) * per_channel(scale)
    quotient = product >> shift
    one = np.int64(1)
    rest = product & ((one << shift) - 1)
    half = one << np.maximum(shift - 1, 0)
    up = (shift > 0) & ((rest > half) | (rest == half) & (quotient & 1 == 1))
    return np.clip(quotient + up, low, high)


def max_pool(values: np.ndarray, kernel: int) -> np.ndarray:
    """Max-pool of ``values[C, H, W]``, stride 2, ceil mode."""
    channels, height, width = values.shape
    rows, columns = pooled_length(height, kernel), pooled_length(width, kernel)
    lowest = np.iinfo(values.dtype).min
    padded = np.full((channels, 2 * rows + kernel - 2, 2 * columns + kernel - 2), lowest, values.dtype)
    padded[:, :height, :width] = values[:, :padded.shape[1], :padded.shape[2]]
    return np.max([padded[:, y:y + 2 * rows - 1:2, x:x + 2 * columns - 1:2]
                   for y in range(kernel) for x in range(kernel)], axis=0)
