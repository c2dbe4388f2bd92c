"""The array: exact integer convolution, and the work that is left when zeros are skipped.

Source: golden/README.md, "Numbers" (normative).
"""
import numpy as np
import torch
import torch.nn.functional as functional

#: Integers below this are exact in a float64.
EXACT = 1 << 53
#: Bytes that one unfolded input may take; larger convolutions are split over input channels.
MEMORY = 1 << 30


def _padded(x: np.ndarray, pad, kernel, stride, size) -> np.ndarray:
    """``x[C, H, W]`` with zeros around it, cut so that a convolution gives exactly ``size`` (rows, columns) windows."""
    top, left = pad[0], pad[1]
    rows, columns = ((count - 1) * stride + taps for count, taps in zip(size, kernel, strict=True))
    padded = np.zeros((x.shape[0], rows, columns), np.float64)
    height, width = min(x.shape[1], rows - top), min(x.shape[2], columns - left)
    if height > 0 and width > 0:
        padded[:, top:top + height, left:left + width] = x[:, :height, :width]
    return padded


def convolve(x: np.ndarray, weights: np.ndarray, *, stride: int, pad: tuple[int, ...],
             size: tuple[int, int]) -> np.ndarray:
    """``sum[o, y, x]`` (int64) of the input ``x[C, H, W]`` and ``weights[O, C, kh, kw]``.

    ``pad`` starts with (top, left); below and right of the map are as many zeros as ``size`` (rows, columns of windows)
    asks for. Computed in float64, where every partial sum is exact: the bound on them is checked.
    """
    magnitude = int(np.abs(x).max(initial=0)) * np.abs(weights.astype(np.int64)).sum(axis=(0, 2, 3)).max(initial=0)
    taps = weights.shape[2] * weights.shape[3]
    exact = EXACT // max(1, int(magnitude))
    fits = MEMORY // (8 * taps * size[0] * size[1])
    if exact == 0:
        raise ValueError("the sums of a single channel exceed 2**53")
    step = max(1, min(exact, fits))
    padded = _padded(x, pad, weights.shape[2:], stride, size)
    total = np.zeros((weights.shape[0], *size), np.int64)
    for first in range(0, x.shape[0], step):
        part = functional.conv2d(torch.from_numpy(padded[None, first:first + step]),
                                 torch.from_numpy(weights[:, first:first + step].astype(np.float64)), stride=stride)
        total += part[0].numpy().astype(np.int64)
    return total


def window_nonzeros(x: np.ndarray, kernel: tuple[int, int], *, stride: int, pad: tuple[int, ...],
                    size: tuple[int, int]) -> np.ndarray:
    """``[rows, columns]``: non-zero inputs (tap, channel) under each window: the MACs that one lane does for it."""
    counts = np.count_nonzero(x, axis=0)[None]
    return convolve(counts, np.ones((1, 1, *kernel), np.int64), stride=stride, pad=pad, size=size)[0]
