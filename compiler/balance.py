"""Kernels among the clusters of the intersect array, so that clusters end a tile at about the same time.

A cluster has every ``clusters``-th lane of a kernel block, and waits for the others at the end of each round of a tile.
How much a kernel has to multiply depends on its weights and on how early its sums stop, which a profile tells
(:mod:`compiler.profile`). The order of a layer's output channels is free as long as those who read them know it.

Source: golden/README.md, "Intersect array"; V. Akhlaghi et al., "SnaPEA", ISCA 2018, section V (load balance).
"""
from dataclasses import replace

import numpy as np

from golden.network import QuantisedNetwork
from golden.tiling import chunk_spans
from hw.config import AcceleratorConfig


def balance(network: QuantisedNetwork, work: dict[str, np.ndarray], config: AcceleratorConfig) -> QuantisedNetwork:
    """``network`` with the output channels of its layers in an order that balances the clusters of ``config``.

    Channels stay in their kernel block. Maps that the user wants, and those that are read or written in part, keep
    their order. ``work``: of each layer, ``[phases, lanes]``.
    """
    for layer in network.layers:
        if _movable(network, layer):
            network = _reorder(network, layer.name, kernel_order(work[layer.name], config))
    return network


def kernel_order(work: np.ndarray, config: AcceleratorConfig) -> np.ndarray:
    """Which output channel each lane gets, ``[lanes]``, given the ``work[phases, lanes]`` of each channel.

    In each kernel block the channel with most work comes first and goes where it adds least to the sum of the squares
    of the clusters' work in each phase.
    """
    order = []
    for first, end in chunk_spans(work.shape[1], config.lanes):
        places = [list(range(first + cluster, end, config.clusters)) for cluster in range(config.clusters)]
        loads, chosen = np.zeros((len(work), config.clusters)), {}
        for channel in first + np.argsort(-work[:, first:end].sum(0), kind="stable"):
            costs = np.where([bool(free) for free in places], work[:, channel] @ loads, np.inf)
            cluster = int(np.argmin(costs))
            chosen[places[cluster].pop(0)] = channel
            loads[:, cluster] += work[:, channel]
        order += [chosen[lane] for lane in range(first, end)]
    return np.array(order)


def _movable(network, layer):
    """Whether the channels of what ``layer`` writes may change their places."""
    names = {target.map for target in layer.targets}
    channels = len(layer.weights)
    return not names & set(network.outputs) and all(
        network.maps[name][0] == channels for name in names) and all(
        (part.first, part.channels) == (0, channels)
        for reader in network.layers for part in reader.inputs if part.map in names)


def _reorder(network, name, order):
    """``network`` with the output channels of layer ``name`` in ``order``."""
    layers, scales = [], dict(network.scales)
    written = {target.map for layer in network.layers if layer.name == name for target in layer.targets}
    for layer in network.layers:
        columns, at = [], 0
        for part in layer.inputs:
            columns.append(at + (order if part.map in written else np.arange(part.channels)))
            at += part.channels
        layers.append(_take(layer, order if layer.name == name else slice(None), np.concatenate(columns)))
    scales.update({target: scales[target][order] for target in written if target in scales})
    return replace(network, layers=tuple(layers), scales=scales)


def _take(layer, outputs, inputs):
    """``layer`` with these output and input channels, in this order."""
    changes = {name: getattr(layer, name)[outputs] for name in ("bias", "scale", "shift")}
    if (prediction := layer.prediction) is not None:
        changes["prediction"] = replace(prediction, weights=prediction.weights[outputs][:, inputs],
                                        thresholds=prediction.thresholds[outputs])
    return replace(layer, weights=layer.weights[outputs][:, inputs], **changes)
