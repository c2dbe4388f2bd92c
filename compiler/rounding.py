"""Rounding weights together: the error that one weight's rounding makes in a sum is made up for by the others.

Rounding each weight to the nearest integer makes its own error smallest, not that of the sum. With ``e[o]`` the
rounding errors of the weights of output channel ``o`` and ``H`` the second central moments of what they are multiplied
with, its sums err by ``e[o] H e[o]`` on average (their mean is left to the bias). Coordinate descent lowers that weight
by weight: each becomes the integer that is best beside the others, next below or next above its real value. Weights
that are 0 stay 0.

``H`` has as many rows as a channel has weights, and too few observations would fit it to themselves. So it counts
independent inputs, as many as there are weights, besides what was observed: ``H + n / S * diag(H)`` for ``n`` weights
and ``S`` observations.

Source: M. Nagel et al., "Up or Down? Adaptive Rounding for Post-Training Quantization", ICML 2020, section 3 (the
quadratic form of a layer); K. Behdin et al., "QuantEase: Optimization-based Quantization for Language Models", 2023
(coordinate descent on it).
"""
import numpy as np
import torch

#: Passes over the weights; with four, three networks were no better.
SWEEPS = 2
#: Weights whose gradients are computed at once.
BLOCK = 64


def round_weights(integer: np.ndarray, real: np.ndarray, observed: torch.Tensor, high: int) -> np.ndarray:
    """``integer`` with each weight rounded down or up so that sums come near those of ``real``.

    Parameters
    ----------
    integer : int array [O, n]
        Weights, each channel's in its own unit; where to start.
    real : float array [O, n]
        What they stand for, in the same unit. A row that equals that of ``integer`` stays.
    observed : float32 tensor [n, S]
        What the weights are multiplied with, ``S`` times.
    high : int
        The largest magnitude of a weight.
    """
    real = torch.as_tensor(real, dtype=torch.float32)
    weights = torch.as_tensor(integer, dtype=torch.float32)
    low, up = real.floor().clamp(-high, high), real.ceil().clamp(-high, high)
    centred = observed - observed.mean(1, keepdim=True)
    moments = centred @ centred.T
    moments.diagonal().mul_(1 + len(moments) / observed.shape[1])
    # A weight that always meets the same value has no effect beyond the bias.
    step = torch.where(moments.diagonal() > 0, 1 / moments.diagonal(), 0)
    for _ in range(SWEEPS):
        for first in range(0, len(moments), BLOCK):
            block = slice(first, first + BLOCK)
            gradient = (weights - real) @ moments[:, block]
            for number, place in enumerate(range(first, min(first + BLOCK, len(moments)))):
                best = weights[:, place] - gradient[:, number] * step[place]
                change = torch.clamp(best.round_(), low[:, place], up[:, place]) - weights[:, place]
                weights[:, place] += change
                gradient.addr_(change, moments[place, block])
    return weights.numpy().astype(np.int64)
