"""Phases of the weights for the intersect array: which weight belongs to which, and how many there may be.

In exact mode phase 0 holds the weights above 0, and the phases behind it those below 0, the largest magnitudes first.
While inputs are not below 0, a sum can then only fall from phase 1 on: once it is below 0, a ReLU gives 0 whatever
follows, and the hardware stops. In a layer with a prediction phase 0 holds the weights that it looks at, and what is
left follows in the same way: above 0, then below 0.

Each phase has a round for each chunk, in which tiles are loaded again; the last phases may share one (*joined*), so
that a sum stops earlier in it.

Source: golden/README.md, "Intersect array"; V. Akhlaghi et al., "SnaPEA", ISCA 2018.
"""
from dataclasses import replace

import numpy as np

from golden.layer import QuantisedLayer
from golden.tiling import MAX_PHASES, ceil_div
from hw.config import ROUND_PHASES, AcceleratorConfig

from .tile import fits_whole

#: Most classes of negative weights with rounds of their own; and how many there are unless told.
MAX_CLASSES = MAX_PHASES - 1
NEGATIVE_CLASSES = 3


def split(weights: np.ndarray, classes: int, parts: int = 1) -> np.ndarray:
    """Phase of each weight of ``weights[lanes, ...]`` (8-bit integers), -1 for a zero weight.

    Weights above 0 have phase 0. Those below 0 of a lane are cut into ``classes`` of equal number, the largest
    magnitudes in phase 1; among equals those that come first in the lane do in the phases, too. The last class is cut
    again into ``parts`` of equal number, a phase each. 0 classes: all weights that are not 0 have phase 0.
    """
    phase = np.where(weights != 0, 0, -1).astype(np.int8)
    if not classes:
        return phase
    lanes = weights.reshape(len(weights), -1).astype(np.int8)
    # Ascending: negative weights first, the largest magnitudes before all. Stable, and linear in time for 8 bits.
    order = np.argsort(lanes, axis=1, kind="stable")
    negatives = np.count_nonzero(lanes < 0, axis=1, keepdims=True)
    rank = np.arange(lanes.shape[1])
    part = rank * classes * parts // np.maximum(negatives, 1)
    ranked = np.where(rank < negatives, 1 + np.where(part < (classes - 1) * parts, part // parts,
                                                     part - (classes - 1) * (parts - 1)), 0).astype(np.int8)
    classed = np.empty_like(ranked)
    np.put_along_axis(classed, order, ranked, axis=1)
    return np.where(weights < 0, classed.reshape(weights.shape), phase)


def phase_weights(layer: QuantisedLayer, phases: int, joined: int = 0) -> np.ndarray:
    """The weights of each phase, int8 ``[phases, O, C, kh, kw]``, 0 where a weight is not of the phase; their sum are
    the weights of ``layer``. The last ``joined`` of ``phases`` share a round with the one before: they are cut
    from one class, unless that one holds the weights above 0. ``ValueError`` if there are not 1 or more rounds, 2 or
    more with a prediction."""
    first, rest = [], layer.weights
    if layer.prediction is not None:
        first, rest = [layer.prediction.weights], layer.weights - layer.prediction.weights
    if phases - joined <= len(first):
        raise ValueError(f"layer {layer.name} needs {len(first) + 1} rounds or more, not {phases - joined}")
    rounds = phases - joined - len(first) - 1
    phase = split(rest, rounds, joined + 1) if rounds > 0 else split(rest, joined)
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
