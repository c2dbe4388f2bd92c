"""Kernels among the clusters of the intersect array, so that clusters end a tile at about the same time.

A cluster has every ``clusters``-th lane of a kernel block, and waits for the others at the end of each round of a tile.
How much a kernel has to multiply depends on its weights and on how early its sums stop, which a profile tells
(:mod:`compiler.profile`). Clusters are balanced on each calibration input, not on their mean: so kernels that have much
to do for the same inputs are kept apart. The order of a layer's output channels is free as long as those who read them
know it.

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
    their order. ``work``: of each layer, as of :func:`kernel_order`.
    """
    for layer in network.layers:
        if _movable(network, layer):
            network = _reorder(network, layer.name, kernel_order(work[layer.name], config))
    return network


def kernel_order(work: np.ndarray, config: AcceleratorConfig) -> np.ndarray:
    """Which output channel each lane gets, ``[lanes]``, given the ``work[rounds, lanes]`` of each channel: in the
    rounds of one input, then in those of the next.

    In each kernel block the sum of the squares of the clusters' work in each round is made small: the channel with most
    work comes first and goes where it adds least, then pairs of channels change places as long as that helps.
    """
    order = []
    for first, end in chunk_spans(work.shape[1], config.lanes):
        block = work[:, first:end]
        order.append(first + _exchange(block, _deal(block, config.clusters), config.clusters))
    return np.concatenate(order)


def _deal(work, clusters):
    """The channels of ``work[rounds, lanes]`` one after the other to the cluster where each adds least."""
    lanes = work.shape[1]
    places = [list(range(cluster, lanes, clusters)) for cluster in range(clusters)]
    loads, order = np.zeros((len(work), clusters)), np.zeros(lanes, int)
    for channel in np.argsort(-work.sum(0), kind="stable"):
        costs = np.where([bool(free) for free in places], work[:, channel] @ loads, np.inf)
        cluster = int(np.argmin(costs))
        order[places[cluster].pop(0)] = channel
        loads[:, cluster] += work[:, channel]
    return order


def _exchange(work, order, clusters):
    """``order`` with the pair of channels exchanged that takes most off the sum of squares, again and again, a time for
    each channel at most."""
    a, b = np.triu_indices(len(order), 1)
    apart = a % clusters != b % clusters
    a, b, order = a[apart], b[apart], order.copy()
    for _ in order if len(a) else ():
        now = work[:, order]
        loads = np.stack([now[:, cluster::clusters].sum(1) for cluster in range(clusters)], 1)
        moved = now[:, b] - now[:, a]
        change = 2 * (moved * (loads[:, a % clusters] - loads[:, b % clusters] + moved)).sum(0)
        best = int(np.argmin(change))
        if change[best] >= -1e-9 * np.square(loads).sum():
            break
        order[[a[best], b[best]]] = order[[b[best], a[best]]]
    return order


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
    if layer.turns is not None:
        changes["turns"] = layer.turns[outputs][:, inputs]
    return replace(layer, weights=layer.weights[outputs][:, inputs], **changes)
