"""In which order the weights below 0 of a kernel have their turns in exact mode, from typical inputs.

Any order is exact. The sum is to fall far with few products, so the largest ``|weight| * fall`` come first, with the
mean of the inputs of its channel that are not 0 as ``fall``. Most sums that stop do so early: the first classes are
smaller than the last ones, for each kernel as far as that takes fewest products (``bend`` of
:func:`compiler.phases.bend_turns`).

Source: V. Akhlaghi et al., "SnaPEA", ISCA 2018, section IV (there by the magnitude of the weights alone).
"""
from dataclasses import replace

import numpy as np

from golden.layer import QuantisedLayer
from golden.network import QuantisedNetwork, gather
from hw.config import AcceleratorConfig

from .phases import NEGATIVE_CLASSES, bend_turns, phase_weights, rest_weights, stops_exactly, turns
from .profile import profile_tiling, strips

#: Bends that a kernel may have, and rows of windows of each input that they are compared on.
BENDS, ROWS = (0., 1.5, 3., 4.5), 1


def order_network(network: QuantisedNetwork, runs: list[dict[str, np.ndarray]],
                  config: AcceleratorConfig) -> QuantisedNetwork:
    """``network`` with the ``turns`` of all layers that stop exactly.

    Parameters
    ----------
    network : QuantisedNetwork
    runs : list of dict of str to int array
        All maps for each of some typical inputs (:func:`golden.network.run_network`).
    config : AcceleratorConfig
        With the intersect array.
    """
    return replace(network, layers=tuple(
        replace(layer, turns=order(layer, [gather(maps, layer.inputs) for maps in runs], config))
        if stops_exactly(layer) else layer for layer in network.layers))


def order(layer: QuantisedLayer, inputs: list[np.ndarray], config: AcceleratorConfig) -> np.ndarray:
    """The turns of the weights of ``layer`` for ``inputs`` [C, H, W], with the bend of each kernel that takes fewest
    products in :data:`compiler.phases.NEGATIVE_CLASSES` classes; the smallest of those that take the same."""
    rest = rest_weights(layer)
    falls = sum(x.sum((1, 2)) for x in inputs) / np.maximum(sum(np.count_nonzero(x, axis=(1, 2)) for x in inputs), 1)
    # A channel without any value costs nothing, whenever it comes.
    falls = np.maximum(falls, 1e-3)
    even = turns(rest, falls)
    products = [_products(replace(layer, turns=bend_turns(even, bend)), inputs, config) for bend in BENDS]
    return bend_turns(even, np.array(BENDS)[np.argmin(products, axis=0)])


def _products(layer, inputs, config):
    """Of each kernel, [O]."""
    phases = NEGATIVE_CLASSES + (1 if layer.prediction is None else 2)
    weights, tiling = phase_weights(layer, phases), profile_tiling(layer, config, phases)
    return sum(part.products.sum((0, 1, 2), dtype=np.int64) for x in inputs
               for part in strips(layer, x, config, tiling, weights, ROWS))
