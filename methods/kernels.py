"""Profiles of kernels: what a prediction of its zeros saves in each kernel of a layer, and what it loses.

A kernel's *candidates* are weights for phase 0. With those of a candidate, every threshold is judged at once: windows
are sorted by their sum over phase 0, and the first n of them predicted to be 0.

Source: V. Akhlaghi et al., "SnaPEA", ISCA 2018 (kernel profiling, speculation sets); M. Song et al., "Prediction Based
Execution on Deep Neural Networks", ISCA 2018 (high bits).
"""
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numba import njit

from compiler.phases import phase_weights, stops_exactly
from golden.cycles import TASK_CYCLES, task_cycles
from golden.layer import NEVER, Prediction, QuantisedLayer
from golden.postprocess import requantise
from golden.tiling import ceil_div

#: Parts of a kernel's weights that sets take.
FRACTIONS = (1 / 32, 1 / 16, 1 / 8, 1 / 4, 1 / 2)
#: Bits of a weight, and bits of its magnitude that phase 0 may have.
WEIGHT_BITS, HIGH_BITS = 8, (2, 3, 4)
#: Classes of negative weights behind a prediction, and without one.
REST_CLASSES, EXACT_CLASSES = (0, 1), (0, 1, 2, 3)


@dataclass(frozen=True)
class Option:
    """A prediction for a layer, on the sample: ``kinds`` names the candidate of each kernel, ``cost`` is that of an
    output's tasks, ``lost`` the share of the energy of the layer's outputs that is predicted to be 0, ``predicted`` the
    share of its outputs."""
    prediction: Prediction
    kinds: tuple[str, ...]
    cost: float
    lost: float
    predicted: float


def candidates(weights: np.ndarray, size: np.ndarray) -> Iterator[tuple[str, np.ndarray, int]]:
    """Name and weights of phase 0, ``[O, K]``, for the kernels ``weights[O, K]``, and bits that it has of each weight.

    ``positive``: the weights above 0. ``set/n``: the non-zero weights are cut into groups of n in the order of their
    magnitudes, and the largest of each group taken. ``largest/n``: one of n weights, those of the largest products
    where inputs are of ``size[K]``. ``bits/n``: the n high bits of all magnitudes, and the signs.
    """
    yield "positive", np.maximum(weights, 0), WEIGHT_BITS
    number = np.maximum(np.count_nonzero(weights, axis=1, keepdims=True), 1)
    by_weight, by_product = (np.argsort(np.argsort(-np.abs(values), axis=1, kind="stable"), axis=1)
                             for values in (weights, weights * size))
    for fraction in FRACTIONS:
        groups = np.maximum(np.rint(number * fraction).astype(int), 1)
        group = -(-by_weight * groups // number)
        yield f"set/{round(1 / fraction)}", np.where(by_weight == group * number // groups, weights, 0), WEIGHT_BITS
        yield f"largest/{round(1 / fraction)}", np.where(by_product < groups, weights, 0), WEIGHT_BITS
    for bits in HIGH_BITS:
        yield f"bits/{bits}", cut_bits(weights, bits), 1 + bits


def cut_bits(weights: np.ndarray, bits: int) -> np.ndarray:
    """``weights`` with the ``bits`` high bits of their magnitudes, rounded towards 0."""
    low = WEIGHT_BITS - 1 - bits
    return np.sign(weights) * (np.abs(weights) >> low << low)


class Profile:
    """What each candidate costs and loses in the kernels of ``layer`` on ``windows``, int16 ``[S, K]``.

    A task costs ``golden.cycles.task_cycles(products, map words) + TASK_CYCLES`` cycles, one for each phase that an
    output takes part in; with ``high_bits`` candidates are those of high bits alone, and it costs its bit-products: as
    many products as the phase has bits of a weight, of :data:`WEIGHT_BITS`. A sum that stops between the ends of a
    phase is taken to stop where a straight line between them does. ``block``: channels of a map word.
    """

    def __init__(self, layer: QuantisedLayer, windows: np.ndarray, block: int, high_bits: bool = False):
        lanes, _, *kernel = layer.weights.shape
        self.layer, self.weights, self.high_bits = layer, layer.weights.reshape(lanes, -1), high_bits
        self.values, self.present = (np.ascontiguousarray(part.T, np.float32) for part in (windows, windows != 0))
        self.words = int(np.prod(kernel)) * sum(ceil_div(part.channels, block) for part in layer.inputs)
        self.start = layer.starts[0].astype(np.float32)[:, None]
        self.sums = self._sums(self.weights) + self.start
        outputs = requantise(self.sums[:, :, None].astype(np.int64), layer.zero_below, layer.scale, layer.shift, low=0,
                             high=layer.high, value_width=layer.value_width)[:, :, 0]
        self.energy = outputs.astype(np.float64) ** 2 / len(windows)
        self.exact = min(float(self.exact_costs(classes).mean(dtype=np.float64))
                         for classes in (EXACT_CLASSES if stops_exactly(layer) else (0,)))

    def _sums(self, weights):
        return weights.astype(np.float32) @ self.values

    def _products(self, weights):
        return (weights != 0).astype(np.float32) @ self.present

    def _cost(self, products, words, bits=WEIGHT_BITS):
        """Of tasks, by their products and words: 0 words for none."""
        if self.high_bits:
            return products * np.float32(bits / WEIGHT_BITS)
        return task_cycles(products, words) + TASK_CYCLES * (words > 0)

    def _stopping(self, sums, products, ends, bits=WEIGHT_BITS):
        """The cost of a phase of negative weights with so many ``products``, which takes ``sums`` to ``ends``; a window
        takes part while its sum is not below 0."""
        share = np.where(sums < 0, 0, np.where(ends < 0, sums / np.maximum(sums - ends, 1), 1))
        return self._cost(products * share, self.words * share, bits)

    def exact_costs(self, classes: int) -> np.ndarray:
        """The cost of each kernel and window, [O, S], in exact mode with ``classes`` of negative weights."""
        first, *parts = phase_weights(self.layer, classes + 1).reshape(classes + 1, *self.weights.shape)
        sums, costs = self._sums(first) + self.start, self._cost(self._products(first), self.words)
        for weights in parts:
            ends = sums + self._sums(weights)
            costs, sums = costs + self._stopping(sums, self._products(weights), ends), ends
        return costs

    def rest_costs(self, rest: np.ndarray, sums: np.ndarray, bits: int = WEIGHT_BITS) -> list[np.ndarray]:
        """For each of :data:`REST_CLASSES` that the layer may have the cost of each kernel and window, [O, S], behind a
        phase 0 that has ended in ``sums`` and leaves the weights ``rest``, of so many ``bits``."""
        above, below = (self._products(part) for part in (np.maximum(rest, 0), np.minimum(rest, 0)))
        whole = self._cost(above + below, self.words, bits)
        if not stops_exactly(self.layer):
            return [whole]
        sums = sums + self._sums(np.maximum(rest, 0))
        return [whole, self._cost(above, self.words, bits) + self._stopping(sums, below, self.sums, bits)]

    def options(self, prices: tuple[float, ...]) -> list[Option]:
        """For each of :data:`REST_CLASSES` and each price the prediction that is worth most: each kernel's candidate
        and threshold have the least ``cost / exact cost + price * energy lost / energy``, both of the whole layer."""
        size = np.sqrt((self.values ** 2).sum(1, np.float64) / np.maximum(self.present.sum(1), 1))
        # What a unit of a kernel's energy costs.
        rates = np.array(prices) * self.exact * len(self.weights) / max(self.energy.sum(), 1e-9)
        kinds, firsts, found = [], [], {}
        for kind, first, bits in candidates(self.weights, size):
            if self.high_bits and bits == WEIGHT_BITS:
                continue
            kinds.append(kind)
            firsts.append(first.astype(np.int8))
            sums = self._sums(first) + self.start
            order, start = np.argsort(sums, axis=1), self._cost(self._products(first), self.words, bits).mean(1)
            rest = self.rest_costs(self.weights - first, sums, WEIGHT_BITS - bits)
            for classes, costs in enumerate(rest):
                best = found.setdefault(classes, _Best(len(rates), len(self.weights)))
                _find_cuts(sums, order, costs, self.energy, start, rates, len(kinds) - 1, *vars(best).values())
        return [self._option(best, at, kinds, firsts) for best in found.values() for at in range(len(prices))]

    def _option(self, best, at, kinds, firsts):
        chosen = best.candidate[at]
        weights = np.stack([firsts[number][lane] for lane, number in enumerate(chosen)]).astype(np.int64)
        thresholds = np.where(best.threshold[at] == NEVER, NEVER, best.threshold[at] + self.layer.zero_below)
        return Option(Prediction(weights.reshape(self.layer.weights.shape), thresholds),
                      tuple(kinds[number] for number in chosen), float(best.cost[at].mean()),
                      float(best.lost[at].sum() / max(self.energy.sum(), 1e-9)), float(best.share[at].mean()))


class _Best:
    """The best candidate and threshold so far, by price and kernel: its value; cost, energy lost and share of windows
    that are predicted to be 0."""

    def __init__(self, prices, lanes):
        self.value = np.full((prices, lanes), np.inf)
        self.candidate, self.threshold = (np.full((prices, lanes), start, np.int64) for start in (0, NEVER))
        self.cost, self.lost, self.share = (np.zeros((prices, lanes)) for _ in range(3))


@njit(cache=True, error_model="numpy")
def _find_cuts(sums, order, costs, energy, start, rates, number, value, candidate, threshold, cost, lost, share):
    """Take candidate ``number`` where one of its thresholds is better. ``sums[O, S]``: over phase 0; ``order``: of
    windows by them; ``costs[O, S]``: behind it, ``start[O]``: its own; ``energy[O, S]``: of outputs. The others are the
    arrays of :class:`_Best`."""
    lanes, windows = sums.shape
    for lane in range(lanes):
        now, gone, below = start[lane] + costs[lane].astype(np.float64).sum() / windows, 0.0, 0.0
        for n in range(windows + 1):
            if n:
                at = order[lane, n - 1]
                now -= costs[lane, at] / windows
                gone += energy[lane, at]
                below = sums[lane, at]
                # Equal sums are on one side of a threshold.
                if n < windows and sums[lane, order[lane, n]] == below:
                    continue
            for price in range(len(rates)):
                if now + rates[price] * gone < value[price, lane]:
                    value[price, lane], candidate[price, lane] = now + rates[price] * gone, number
                    cost[price, lane], lost[price, lane], share[price, lane] = now, gone, n / windows
                    # In the middle of the gap.
                    gap = int(sums[lane, order[lane, n]]) - int(below) if n < windows else 1
                    threshold[price, lane] = int(below) + (gap + 1) // 2 if n else NEVER
