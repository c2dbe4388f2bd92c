"""Phases of the weights for the intersect array: which weight belongs to which, and how many there may be.

In exact mode phase 0 holds the weights above 0, and the phases behind it those below 0, which take the sum furthest
down first (:mod:`compiler.order`).
While inputs are not below 0, a sum can then only fall from phase 1 on: once it is below 0, a ReLU gives 0 whatever
follows, and the hardware stops. In a layer with a prediction phase 0 holds the weights that it looks at, and what is
left follows in the same way: above 0, then below 0.

Each phase has a round for each chunk, in which tiles are loaded again; the last phases may share one (*joined*), so
that a sum stops earlier in it.

Source: golden/README.md, "Intersect array"; V. Akhlaghi et al., "SnaPEA", ISCA 2018.
"""
from dataclasses import replace

import numpy as np

from golden.layer import TURNS, QuantisedLayer
from golden.tiling import MAX_PHASES, ceil_div
from hw.config import ROUND_PHASES, AcceleratorConfig

from .tile import fits_whole

#: Most classes of negative weights with rounds of their own; and how many there are unless told.
MAX_CLASSES = MAX_PHASES - 1
NEGATIVE_CLASSES = 3


def turns(weights: np.ndarray, falls: np.ndarray | float = 1.) -> np.ndarray:
    """uint16, of the shape of ``weights[O, C, kh, kw]`` (8-bit integers): when each weight below 0 has its turn, a
    fraction of :data:`golden.layer.TURNS`; any for the others.

    The largest ``|weight| * fall`` come first, with a ``fall`` above 0 for each channel, [C]; among equals those that
    come first in the kernel. The one at place ``r`` of ``N`` has the turn ``r / N``.
    """
    lanes, falls = len(weights), np.broadcast_to(falls, weights.shape[1])[:, None, None]
    products = np.minimum(weights, 0) * falls.astype(np.float32)
    # Ascending: weights below 0 first, the largest products before all.
    order = np.argsort(products.reshape(lanes, -1), axis=1, kind="stable")
    negatives = np.maximum(np.count_nonzero(weights < 0, axis=(1, 2, 3)), 1)[:, None]
    places, found = np.minimum(np.arange(order.shape[1]), negatives - 1), np.empty(order.shape, np.uint16)
    np.put_along_axis(found, order, np.minimum(-(-places * TURNS // negatives), TURNS - 1).astype(np.uint16), axis=1)
    return found.reshape(weights.shape)


def bend_turns(even: np.ndarray, bends: np.ndarray | float) -> np.ndarray:
    """``turns`` whose first classes are smaller than the last ones: turn t of a kernel becomes
    ``log(1 + t * (e ** bend - 1)) / bend``. ``bends`` [O] or one for all: 0 (as they are) or above."""
    bends = np.broadcast_to(bends, len(even))[:, None, None, None]
    curve = np.maximum(bends, 1e-9)
    bent = np.ceil(TURNS / curve * np.log1p(even / TURNS * np.expm1(curve)))
    return np.where(bends > 0, np.minimum(bent, TURNS - 1), even).astype(np.uint16)


def split(weights: np.ndarray, turns: np.ndarray, classes: int, parts: int = 1) -> np.ndarray:
    """Phase of each weight of ``weights[O, ...]``, -1 for a zero weight.

    Weights above 0 have phase 0. Those below 0 are cut by their ``turns`` into ``classes`` of equal turns, the first of
    which is phase 1. The last class is cut again into ``parts`` of equal turns, a phase each. 0 classes: all weights
    that are not 0 have phase 0.
    """
    phase = np.where(weights != 0, 0, -1).astype(np.int8)
    if not classes:
        return phase
    part = turns.astype(np.int32) * (classes * parts) // TURNS
    classed = 1 + np.where(part < (classes - 1) * parts, part // parts, part - (classes - 1) * (parts - 1))
    return np.where(weights < 0, classed, phase).astype(np.int8)


def rest_weights(layer: QuantisedLayer) -> np.ndarray:
    """The weights of ``layer`` that its prediction has not looked at."""
    return layer.weights if layer.prediction is None else layer.weights - layer.prediction.weights


def phase_weights(layer: QuantisedLayer, phases: int, joined: int = 0) -> np.ndarray:
    """The weights of each phase, int8 ``[phases, O, C, kh, kw]``, 0 where a weight is not of the phase; their sum are
    the weights of ``layer``. The last ``joined`` of ``phases`` share a round with the one before: they are cut
    from one class, unless that one holds the weights above 0. ``ValueError`` if there are not 1 or more rounds, 2 or
    more with a prediction."""
    first, rest = [] if layer.prediction is None else [layer.prediction.weights], rest_weights(layer)
    if phases - joined <= len(first):
        raise ValueError(f"layer {layer.name} needs {len(first) + 1} rounds or more, not {phases - joined}")
    rounds = phases - joined - len(first) - 1
    when = turns(rest) if layer.turns is None else layer.turns
    phase = split(rest, when, rounds, joined + 1) if rounds > 0 else split(rest, when, joined)
    return np.stack([*first, *(np.where(phase == number, rest, 0) for number in range(phases - len(first)))],
                    dtype=np.int8, casting="unsafe")


def stop_phase(layer: QuantisedLayer, phases: int) -> int:
    """The first of the phases of negative weights, 0 if there is none: descriptor field ``stop_phase``."""
    first = 1 if layer.prediction is None else 2
    return first if phases > first and stops_exactly(layer) else 0


def needs_whole(layer: QuantisedLayer, phases: int, joined: int) -> bool:
    """Whether a round has phases with and without the stop rule: it is exact only if no other chunk follows."""
    return joined > 0 and stop_phase(layer, phases) > phases - joined - 1


def stops_exactly(layer: QuantisedLayer) -> bool:
    """Whether a sum below 0 that can only fall is known to give 0: a ReLU on inputs that are not below 0."""
    return layer.low == 0 and not layer.signed_in


def phase_counts(layer: QuantisedLayer, config: AcceleratorConfig, negative_classes: int) -> list[tuple[int, int]]:
    """``(phases, joined)`` that ``layer`` may have on ``config``: one phase, two with a prediction; where stopping is
    exact, up to ``negative_classes`` more, and with each number of classes the last one in :data:`ROUND_PHASES` phases
    that are joined, or with no class to itself all phases, where a tile fits with all of a kernel in one chunk.
    ``ValueError`` if ``negative_classes`` are not 0 to :data:`MAX_CLASSES`."""
    if not 0 <= negative_classes <= MAX_CLASSES:
        raise ValueError(f"negative_classes must be 0 to {MAX_CLASSES}, not {negative_classes}")
    least = 1 if layer.prediction is None else 2
    classes = negative_classes if config.intersect and stops_exactly(layer) else 0
    joined = ROUND_PHASES - 1
    blocks = sum(ceil_div(part.channels, config.block) for part in layer.inputs)
    whole = classes and fits_whole(replace(layer.geometry(), in_channels=blocks * config.block), config)
    counts = [(least + number, 0) for number in range(classes + 1)]
    counts += [(least + number + joined, joined) for number in range(0 if whole else 1, classes + 1)]
    # Those with fewer rounds first.
    return sorted(((phases, shared) for phases, shared in counts if phases <= MAX_PHASES),
                  key=lambda count: (count[0] - count[1], count[1]))
