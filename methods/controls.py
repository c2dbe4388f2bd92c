"""What predictions must beat: as many products saved without looking at the input; and how products are counted."""
from bisect import bisect_left
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cache

import numpy as np

from compiler.phases import NEGATIVE_CLASSES, phase_weights, stop_phase, stops_exactly
from golden.layer import QuantisedLayer
from golden.network import QuantisedNetwork
from golden.tasks import count_tasks
from golden.tiling import Tiling
from hw.config import AcceleratorConfig

from .early_activation import has_kernels
from .kernels import HIGH_BITS, REST_CLASSES, WEIGHT_BITS, cut_bits
from .windows import beside, sample_windows

#: Fractions of weights that pruning is tried with: multiples of 1 / STEPS.
STEPS = 128
#: Windows of each layer that products are counted on.
WINDOWS = 400


def prune(network: QuantisedNetwork, fraction: float) -> QuantisedNetwork:
    """Magnitude pruning: ``fraction`` of the non-zero weights of each layer are 0, those that are smallest in relation
    to the largest of their kernel, which is what integer weights are."""
    return replace(network, layers=tuple(_prune_layer(layer, fraction) if has_kernels(layer) else layer
                                         for layer in network.layers))


def _prune_layer(layer, fraction):
    weights = layer.weights.reshape(-1)
    places = np.flatnonzero(weights)
    smallest = places[np.argsort(np.abs(weights[places]), kind="stable")[:round(fraction * len(places))]]
    pruned = weights.copy()
    pruned[smallest] = 0
    return replace(layer, weights=pruned.reshape(layer.weights.shape))


def prune_to(network: QuantisedNetwork, products: list[float],
             count: Callable[[QuantisedNetwork], float]) -> list[QuantisedNetwork]:
    """``network`` pruned just far enough to have no more than each of ``products`` by ``count``."""
    counted = cache(lambda step: count(prune(network, step / STEPS)))
    return [prune(network, bisect_left(range(STEPS), -most, key=lambda step: -counted(step)) / STEPS)
            for most in products]


@dataclass(frozen=True)
class Products:
    """Products of a mean input: ``skipping`` of zero skip alone; ``products`` with exact stopping and predictions;
    ``bits``, bit-products: these, each weighted with the part of a weight's bits that its phase has."""
    skipping: float
    products: float
    bits: float


def count_products(network: QuantisedNetwork, inputs: list[np.ndarray], config: AcceleratorConfig,
                   seed: int = 1) -> Products:
    """The products of ``network`` for ``inputs`` [C, H, W] (integers), counted on :data:`WINDOWS` windows of each layer
    (or all, if it has fewer)."""
    windows, totals = sample_windows(network, inputs, {layer.name for layer in network.layers}, WINDOWS, seed), []
    for layer in network.layers:
        classes = NEGATIVE_CLASSES if layer.prediction is None else REST_CLASSES[-1]
        phases = 1 + (layer.prediction is not None) + classes * stops_exactly(layer)
        strip, x = beside(layer, windows[layer.name])
        tiling = Tiling(layer.in_shape[0] + config.block * len(layer.inputs), x.shape[1], 1, 1, 1, 1, phases)
        counts = count_tasks(strip, x, tiling, phase_weights(strip, phases), stop_phase(strip, phases),
                             block=config.block)
        first = first_bits(layer) / WEIGHT_BITS
        bits = np.array([first, *[np.where(first < 1, 1 - first, 1)] * (phases - 1)])
        totals.append(np.array([counts.skipping.sum(), counts.products.sum(), (counts.products * bits).sum()])
                      / len(windows[layer.name]) * layer.full_shape[1] * layer.full_shape[2])
    return Products(*map(float, np.sum(totals, 0)))


def first_bits(layer: QuantisedLayer) -> np.ndarray:
    """Bits of a weight, the sign included, that phase 0 of each kernel of ``layer`` has: all, unless its weights there
    are the high bits of all weights."""
    bits = np.full(len(layer.weights), WEIGHT_BITS)
    if layer.prediction is None:
        return bits
    for lane, (first, weights) in enumerate(zip(layer.prediction.weights, layer.weights, strict=True)):
        if ((first != 0) & (first != weights)).any():
            bits[lane] = next(1 + number for number in HIGH_BITS if np.array_equal(first, cut_bits(weights, number)))
    return bits
