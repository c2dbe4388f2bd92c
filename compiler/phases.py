"""Phases of the weights for the intersect array: which weight belongs to which, and how many there may be.

In exact mode phase 0 holds the weights above 0, and the phases behind it those below 0, the largest magnitudes first.
While inputs are not below 0, a sum can then only fall from phase 1 on: once it is below 0, a ReLU gives 0 whatever
follows, and the hardware stops. In a layer with a prediction phase 0 holds the weights that it looks at, and what is
left follows in the same way: above 0, then below 0.

Source: golden/README.md, "Intersect array"; V. Akhlaghi et al., "SnaPEA", ISCA 2018.
"""
import numpy as np

from golden.layer import QuantisedLayer
from golden.tiling import MAX_PHASES
from hw.config import AcceleratorConfig

#: Most classes of negative weights: a phase each behind phase 0; and how many there are unless told.
MAX_CLASSES = MAX_PHASES - 1
NEGATIVE_CLASSES = 3


def split(weights: np.ndarray, classes: int) -> np.ndarray:
    """Phase of each weight of ``weights[lanes, ...]`` (8-bit integers), -1 for a zero weight.

    Weights above 0 have phase 0. Those below 0 of a lane are cut into ``classes`` of equal number, the largest
    magnitudes in phase 1; among equals those that come first in the lane do in the phases, too. 0 classes: all weights
    that are not 0 have phase 0.
    """
    phase = np.where(weights != 0, 0, -1).astype(np.int8)
    if not classes:
        return phase
    lanes = weights.reshape(len(weights), -1).astype(np.int8)
    # Ascending: negative weights first, the largest magnitudes before all. Stable, and linear in time for 8 bits.
    order = np.argsort(lanes, axis=1, kind="stable")
    negatives = np.count_nonzero(lanes < 0, axis=1, keepdims=True)
    rank = np.arange(lanes.shape[1])
    ranked = np.where(rank < negatives, 1 + rank * classes // np.maximum(negatives, 1), 0).astype(np.int8)
    classed = np.empty_like(ranked)
    np.put_along_axis(classed, order, ranked, axis=1)
    return np.where(weights < 0, classed.reshape(weights.shape), phase)


def phase_weights(layer: QuantisedLayer, phases: int) -> np.ndarray:
    """The weights of each phase, int8 ``[phases, O, C, kh, kw]``, 0 where a weight is not of the phase; their sum are
    the weights of ``layer``. ``phases``: 1 or more, 2 or more with a prediction (``ValueError``)."""
    first, rest = [], layer.weights
    if layer.prediction is not None:
        first, rest = [layer.prediction.weights], layer.weights - layer.prediction.weights
    if phases <= len(first):
        raise ValueError(f"layer {layer.name} needs {len(first) + 1} phases or more, not {phases}")
    phase = split(rest, phases - len(first) - 1)
    return np.stack([*first, *(np.where(phase == number, rest, 0) for number in range(phases - len(first)))],
                    dtype=np.int8, casting="unsafe")


def stop_phase(layer: QuantisedLayer, phases: int) -> int:
    """The first of the phases of negative weights, 0 if there is none: descriptor field ``stop_phase``."""
    first = 1 if layer.prediction is None else 2
    return first if phases > first and stops_exactly(layer) else 0


def stops_exactly(layer: QuantisedLayer) -> bool:
    """Whether a sum below 0 that can only fall is known to give 0: a ReLU on inputs that are not below 0."""
    return layer.low == 0 and not layer.signed_in


def phase_counts(layer: QuantisedLayer, config: AcceleratorConfig, negative_classes: int) -> range:
    """Numbers of phases that ``layer`` may have on ``config``: one, two with a prediction; where stopping is exact, as
    many as ``negative_classes`` more. ``ValueError`` if those are not 0 to :data:`MAX_CLASSES`."""
    if not 0 <= negative_classes <= MAX_CLASSES:
        raise ValueError(f"negative_classes must be 0 to {MAX_CLASSES}, not {negative_classes}")
    least = 1 if layer.prediction is None else 2
    classes = negative_classes if config.intersect and stops_exactly(layer) else 0
    return range(least, min(least + classes, MAX_PHASES) + 1)
