"""The nodes of an imported network: what the float network computes there, and the layers that do it.

Layers are not what a network is measured by: a node may be several of them, and have zeros among their weights.
"""
from dataclasses import dataclass
from itertools import chain, groupby, zip_longest

import numpy as np

from .lower import Lowered
from .model import Convolution, Model


@dataclass(frozen=True)
class Node:
    """A node of the network.

    Parameters
    ----------
    name : str
        Operator and name, as messages have them: ``Conv node 'features.0'``.
    kind : str
        As of :class:`~compiler.lower.Step`.
    shape : (C, H, W)
        Of its output.
    layers : tuple of str
        Names of the layers that compute it; none if those of other nodes do.
    macs_of_output : int
        Multiplications of the float network for one output value; 0 for sums, pools and copies.
    groups : int
        Groups of its convolution; 1 for anything else.
    """
    name: str
    kind: str
    shape: tuple[int, int, int]
    layers: tuple[str, ...]
    macs_of_output: int = 0
    groups: int = 1

    @property
    def macs(self) -> int:
        """Multiplications of the float network for one input."""
        return self.macs_of_output * int(np.prod(self.shape))

    def dense_macs(self, layer_macs: int, runs: int = 1) -> int:
        """Multiplications of a dense array for ``runs`` inputs, ``layer_macs`` being those of the layers: these leave
        out what a pool drops, and so could a dense array."""
        return min(self.macs * runs, layer_macs)


def network_nodes(model: Model, lowered: Lowered) -> tuple[Node, ...]:
    """All nodes of ``model``, in the order in which they run, with the layers that ``lowered`` has for them.

    What the reader puts before an operator of its own to choose channels and pixels belongs to the operator's node.
    """
    nodes, maps = [], lowered.network.maps
    outputs = {layer.name: maps[layer.output.map] for layer in lowered.network.layers}
    # A step for each operator, then those of copies for outputs.
    for name, pairs in groupby(zip_longest(lowered.steps, model.operators), key=lambda pair: pair[0].node):
        steps, operators = zip(*pairs, strict=True)
        layers, last = tuple(chain.from_iterable(step.layers for step in steps)), operators[-1]
        nodes.append(Node(name, steps[-1].kind, outputs[layers[-1]], layers) if last is None else
                     Node(name, steps[-1].kind, model.shapes[last.name], layers, last.macs_of_output,
                          last.groups if isinstance(last, Convolution) else 1))
    return tuple(nodes)
