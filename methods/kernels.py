"""Profiles of kernels: what a prediction of its zeros saves in each kernel of a layer, and what it loses.

A kernel's *candidates* are weights for phase 0. With those of a candidate, every threshold is judged at once: windows
are sorted by their sum over phase 0, and the first n of them predicted to be 0.

Source: V. Akhlaghi et al., "SnaPEA", ISCA 2018 (kernel profiling, speculation sets); M. Song et al., "Prediction Based
Execution on Deep Neural Networks", ISCA 2018 (high bits).
"""
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from compiler.phases import phase_weights, stops_exactly
from golden.cycles import TASK_CYCLES, unpack_cycles
from golden.layer import NEVER, Prediction, QuantisedLayer
from golden.postprocess import requantise
from golden.tiling import ceil_div
from hw.config import SEGMENT, UNPACKED, AcceleratorConfig

#: Parts of a kernel's weights that sets take.
FRACTIONS = (1 / 32, 1 / 16, 1 / 8, 1 / 4, 1 / 2)
#: Bits of a magnitude, of 7, that phase 0 may have of each weight.
HIGH_BITS = (2, 3, 4)
#: Classes of negative weights behind a prediction, and without one.
REST_CLASSES, EXACT_CLASSES = (0, 1), (0, 1, 2, 3)


@dataclass(frozen=True)
class Option:
    """A prediction for a layer, on the sample: ``kinds`` names the candidate of each kernel, ``cycles`` are those of an
    output's tasks in a PE, ``lost`` the share of the energy of the layer's outputs that is predicted to be 0,
    ``predicted`` the share of its outputs."""
    prediction: Prediction
    kinds: tuple[str, ...]
    cycles: float
    lost: float
    predicted: float


def candidates(weights: np.ndarray, size: np.ndarray) -> Iterator[tuple[str, np.ndarray]]:
    """Name and weights of phase 0, ``[O, K]``, for the kernels ``weights[O, K]``.

    ``positive``: the weights above 0. ``set/n``: the non-zero weights are cut into groups of n in the order of their
    magnitudes, and the largest of each group taken. ``largest/n``: one of n weights, those of the largest products
    where inputs are of ``size[K]``. ``bits/n``: the n high bits of all weights.
    """
    yield "positive", np.maximum(weights, 0)
    number = np.maximum(np.count_nonzero(weights, axis=1, keepdims=True), 1)
    by_weight, by_product = (np.argsort(np.argsort(-np.abs(values), axis=1, kind="stable"), axis=1)
                             for values in (weights, weights * size))
    for fraction in FRACTIONS:
        groups = np.maximum(np.rint(number * fraction).astype(int), 1)
        group = -(-by_weight * groups // number)
        yield f"set/{round(1 / fraction)}", np.where(by_weight == group * number // groups, weights, 0)
        yield f"largest/{round(1 / fraction)}", np.where(by_product < groups, weights, 0)
    for bits in HIGH_BITS:
        yield f"bits/{bits}", np.sign(weights) * (np.abs(weights) >> 7 - bits << 7 - bits)


def load_cycles(layer: QuantisedLayer, words: int, config: AcceleratorConfig) -> float:
    """Least cycles of a phase, for an output, in which a layer's weights (of ``words`` map words) and tiles are
    unpacked: of all PEs, so that they compare with those of a task."""
    lanes, _, kernel_rows, kernel_columns = layer.weights.shape
    rows, columns = layer.full_shape[1:]
    weights = unpack_cycles(words, config) * config.total_lanes / min(rows * columns,
                                                                      config.groups * config.sum_windows)
    blocks, tiles = sum(ceil_div(part.channels, config.block) for part in layer.inputs), []
    for tile_rows in range(1, rows + 1):
        high = (tile_rows - 1) * layer.stride + kernel_rows
        segments = min(config.tile_slots // blocks // high, ceil_div(layer.in_shape[2], SEGMENT))
        tile_columns = min((segments * SEGMENT - kernel_columns) // layer.stride + 1, columns)
        if tile_columns > 0:
            tiles.append(high * segments * blocks / (tile_rows * tile_columns))
    slot = SEGMENT * config.block // UNPACKED * ceil_div(lanes, config.lanes) * config.total_lanes / lanes
    return max(weights, min(tiles, default=np.inf) * slot)


class Profile:
    """What each candidate costs and loses in the kernels of ``layer`` on ``windows``, int16 ``[S, K]``.

    Cycles are those of a task, ``max(products, map words) + TASK_CYCLES`` for each phase that an output takes part in,
    and of each phase no fewer than :func:`load_cycles`. A sum that stops between the ends of a phase is taken to stop
    where a straight line between them does.
    """

    def __init__(self, layer: QuantisedLayer, windows: np.ndarray, config: AcceleratorConfig):
        lanes, _, *kernel = layer.weights.shape
        self.layer, self.weights = layer, layer.weights.reshape(lanes, -1)
        self.values, self.present = (np.asarray(part, np.float32) for part in (windows, windows != 0))
        self.words = int(np.prod(kernel)) * sum(ceil_div(part.channels, config.block) for part in layer.inputs)
        self.load = load_cycles(layer, self.words, config)
        self.sums = self._sums(self.weights) + layer.bias.astype(np.float32)
        outputs = requantise(self.sums.T[:, :, None].astype(np.int64), layer.bias * 0, layer.scale, layer.shift,
                             low=0, high=layer.high, value_width=layer.value_width)[:, :, 0].T
        self.energy = outputs.astype(np.float64) ** 2 / len(windows)
        self.exact = min(self._layer_cycles(*self.exact_cycles(classes), classes)
                         for classes in (EXACT_CLASSES if stops_exactly(layer) else (0,)))

    def _sums(self, weights):
        return self.values @ weights.T.astype(np.float32)

    def _products(self, weights):
        return self.present @ (weights != 0).T.astype(np.float32)

    def _task(self, products):
        return np.maximum(products, self.words) + TASK_CYCLES

    def _layer_cycles(self, first, rest, phases):
        """Mean cycles of an output, of those of phase 0 and of ``phases`` phases behind it."""
        return max(float(np.mean(first)), self.load) + max(float(np.mean(rest)), phases * self.load)

    def _stopping(self, sums, parts):
        """Cycles of phases of negative weights behind ``sums``; a window takes part while its sum is not below 0."""
        cycles = np.zeros_like(sums)
        for weights in parts:
            ends = sums + self._sums(weights)
            share = np.where(ends < 0, sums / np.maximum(sums - ends, 1), 1)
            products = self._products(weights) * share
            cycles += np.where(sums < 0, 0, np.maximum(products, self.words * share) + TASK_CYCLES)
            sums = ends
        return cycles

    def exact_cycles(self, classes: int) -> tuple[np.ndarray, np.ndarray]:
        """Cycles of each window and kernel, [S, O], in exact mode: of phase 0, and of ``classes`` of negative weights
        behind it."""
        if not classes:
            return self._task(self._products(self.weights)), np.zeros_like(self.sums)
        first, *parts = phase_weights(self.layer, classes + 1).reshape(classes + 1, *self.weights.shape)
        sums = self._sums(first) + self.layer.bias.astype(np.float32)
        return self._task(self._products(first)), self._stopping(sums, parts)

    def rest_cycles(self, rest: np.ndarray, sums: np.ndarray, classes: int) -> np.ndarray:
        """Cycles of each window and kernel, [S, O], behind a phase 0 that leaves the weights ``rest`` and has ended in
        ``sums``."""
        if not classes:
            return self._task(self._products(rest))
        positive, negative = np.maximum(rest, 0), np.minimum(rest, 0)
        return self._task(self._products(positive)) + self._stopping(sums + self._sums(positive), [negative])

    def options(self, prices: tuple[float, ...]) -> list[Option]:
        """For each price the prediction that is worth most: each kernel's candidate and threshold have the least
        ``cycles / exact cycles + price * energy lost / energy``, both of the whole layer."""
        present = self.present.sum(0)
        size = np.sqrt((self.values ** 2).sum(0, np.float64) / np.maximum(present, 1))
        classes = [number for number in REST_CLASSES if not number or stops_exactly(self.layer)]
        found = {(price, number): _Best(len(self.weights)) for price in prices for number in classes}
        for kind, first in candidates(self.weights, size):
            sums = self._sums(first) + self.layer.bias.astype(np.float32)
            order = np.argsort(sums, axis=0, kind="stable")
            ranked, lost = (np.take_along_axis(array, order, 0) for array in (sums, self.energy))
            lost, start = _sums_before(lost), self._task(self._products(first)).mean(0)
            for number in classes:
                rest = np.take_along_axis(self.rest_cycles(self.weights - first, sums, number), order, 0)
                cycles = start + _sums_before(rest[::-1].astype(np.float64) / len(rest))[::-1]
                for price in prices:
                    found[price, number].update(kind, first, ranked, cycles, lost, self._rate(price))
        return [min((self._option(found[price, number], number) for number in classes),
                    key=lambda option, price=price: option.cycles / self.exact + price * option.lost)
                for price in prices]

    def _rate(self, price):
        """Cycles that the loss of a unit of a kernel's energy is worth: what ``price`` is for the whole layer."""
        return price * self.exact * len(self.weights) / max(self.energy.sum(), 1e-9)

    def _option(self, best, number):
        weights = best.weights.reshape(self.layer.weights.shape)
        total = max(self.energy.sum(), 1e-9)
        first = self._task(self._products(best.weights)).mean(0)
        return Option(Prediction(weights, best.thresholds), tuple(best.kinds),
                      self._layer_cycles(first, best.cycles - first, 1 + number), float(best.lost.sum() / total),
                      float(best.predicted.mean()))


class _Best:
    """The best candidate and threshold of each kernel so far."""

    def __init__(self, lanes):
        self.value = np.full(lanes, np.inf)
        self.kinds, self.thresholds = [""] * lanes, np.full(lanes, NEVER)
        self.cycles, self.lost, self.predicted = (np.zeros(lanes) for _ in range(3))
        self.weights = None

    def update(self, kind, weights, ranked, cycles, lost, rate):
        """Take the candidate ``kind`` where one of its thresholds is better. ``ranked[S, O]``: its sums in ascending
        order; ``cycles``, ``lost`` ``[S + 1, O]``: if the first n windows are predicted to be 0."""
        value = cycles + rate * lost
        # Equal sums are on one side of a threshold.
        value[1:-1][ranked[1:] == ranked[:-1]] = np.inf
        cut, lanes = value.argmin(0), np.arange(len(self.value))
        better = value[cut, lanes] < self.value
        self.weights = np.where(better[:, None], weights, 0 if self.weights is None else self.weights)
        for at in np.flatnonzero(better):
            n = cut[at]
            self.kinds[at], self.value[at] = kind, value[n, at]
            self.cycles[at], self.lost[at], self.predicted[at] = cycles[n, at], lost[n, at], n / len(ranked)
            self.thresholds[at] = _threshold(ranked[:, at], n)


def _threshold(ranked, n):
    """A threshold that the first ``n`` of the sums ``ranked`` are below, in the middle of the gap; NEVER for none."""
    if n == 0:
        return NEVER
    below = int(ranked[n - 1])
    return below + 1 if n == len(ranked) else below + (int(ranked[n]) - below + 1) // 2


def _sums_before(values):
    """``[S + 1, O]``: the sum of the first n rows of ``values[S, O]``."""
    return np.concatenate([np.zeros((1, values.shape[1])), np.cumsum(values, 0)])
