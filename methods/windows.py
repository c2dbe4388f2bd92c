"""Windows of a network's layers, to profile kernels on."""
from dataclasses import replace

import numpy as np

from golden.layer import QuantisedLayer
from golden.network import QuantisedNetwork, gather, run_network


def sample_windows(network: QuantisedNetwork, inputs: list[np.ndarray], names: set[str], count: int,
                   seed: int) -> dict[str, np.ndarray]:
    """Windows of the layers ``names``, int16 ``[windows, C * kh * kw]``, in the order of a kernel's weights.

    Every input [C, H, W] (integers) gives equally many, about ``count`` in all, or all that it has: one of each of as
    many equal stretches of the map, at a place drawn from ``seed``.
    """
    rng, found = np.random.default_rng(seed), {name: [] for name in names}
    for x in inputs:
        maps, _ = run_network(network, x)
        for layer in network.layers:
            if layer.name in names:
                windows = layer.full_shape[1] * layer.full_shape[2]
                number = min(windows, -(-count // len(inputs)))
                at = ((np.arange(number) + rng.random(number)) * windows / number).astype(int)
                found[layer.name].append(unfold(layer, gather(maps, layer.inputs), at))
    return {name: np.concatenate(parts) for name, parts in found.items()}


def unfold(layer: QuantisedLayer, x: np.ndarray, at: np.ndarray) -> np.ndarray:
    """The windows at places ``at`` (row by row) of the input ``x[C, H, W]``, int16 ``[len(at), C * kh * kw]``."""
    kernel_rows, kernel_columns = layer.weights.shape[2:]
    rows, columns = np.divmod(at, layer.full_shape[2])
    (top, left), (height, width) = layer.pad[:2], x.shape[1:]
    bottom, right = ((count - 1) * layer.stride + taps for count, taps in
                     zip(layer.full_shape[1:], (kernel_rows, kernel_columns), strict=True))
    padded = np.zeros((len(x), max(bottom, top + height), max(right, left + width)), np.int16)
    padded[:, top:top + height, left:left + width] = x
    taps = padded[:, (rows * layer.stride)[:, None, None] + np.arange(kernel_rows)[:, None],
                  (columns * layer.stride)[:, None, None] + np.arange(kernel_columns)]
    return taps.transpose(1, 0, 2, 3).reshape(len(at), -1)


def beside(layer: QuantisedLayer, windows: np.ndarray) -> tuple[QuantisedLayer, np.ndarray]:
    """``layer`` for the input, of one row of windows, that has ``windows`` (of :func:`unfold`) one beside the other;
    and that input."""
    _, channels, kernel_rows, kernel_columns = layer.weights.shape
    x = windows.reshape(-1, channels, kernel_rows, kernel_columns).transpose(1, 2, 0, 3)
    x = x.reshape(channels, kernel_rows, -1)
    return replace(layer, in_shape=x.shape, stride=kernel_columns, pad=(0, 0, 0, 0), pool=0, full=None), x
