"""Predictive early activation: which outputs of a network are predicted to be 0, for a loss that is allowed.

    outcomes = predict(network, inputs, loss, config)
    outcomes[1.].network                      the network with predictions that lose at most 1

The three passes of SnaPEA. *Kernels*: for each layer and price of lost energy the candidate and threshold of each
kernel (:mod:`methods.kernels`). *Local*: the loss of each layer's predictions alone. *Global*: all layers begin with
their fewest cycles, and the one that wins most loss for a cycle steps to its next safer prediction, the last of which
is none, until the loss is allowed.

Source: V. Akhlaghi et al., "SnaPEA", ISCA 2018, section IV.
"""
from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np

from golden.layer import QuantisedLayer
from golden.network import QuantisedNetwork
from hw.config import AcceleratorConfig

from .kernels import Option, Profile
from .windows import sample_windows

#: What the loss of all energy of a layer's outputs is worth, in cycles of the layer: the levels of the local pass.
PRICES = (1., 3., 10., 30., 100., 300., 1000.)
#: Windows of each layer that kernels are profiled on, and inputs that they are taken from, at most.
WINDOWS, WINDOW_INPUTS = 2000, 64
#: Products that a kernel has at least, if its layer is looked at, and share of the cycles that a prediction saves.
LEAST_PRODUCTS, LEAST_GAIN = 16, .05


@dataclass(frozen=True)
class Level:
    """A layer's prediction: ``option`` is None for none, ``cycles`` are those of an input in all PEs, ``loss`` that of
    this prediction alone."""
    option: Option | None
    cycles: float
    loss: float


@dataclass(frozen=True)
class Outcome:
    """A network with predictions: ``levels`` of the layers that were looked at, ``exact`` their cycles without
    predictions, and the ``loss`` on the inputs of the search."""
    network: QuantisedNetwork
    levels: dict[str, Level]
    exact: dict[str, float]
    loss: float

    @property
    def cycles(self) -> float:
        """Cycles of the layers that were looked at."""
        return sum(level.cycles for level in self.levels.values())


def predict(network: QuantisedNetwork, inputs: list[np.ndarray], loss: Callable[[QuantisedNetwork], float],
            config: AcceleratorConfig, budgets: tuple[float, ...] = (0., 1., 3.), *, seed: int = 1,
            progress: Callable[[int, str], None] = lambda percent, text: None) -> dict[float, Outcome]:
    """Predictions for ``network``, by the loss of ``budgets`` that is allowed.

    Parameters
    ----------
    network : QuantisedNetwork
        Without predictions.
    inputs : list of int arrays [C, H, W]
        What kernels are profiled on.
    loss : callable
        The loss of a network against ``network``, on inputs of its choice: 0 for ``network`` itself.
    config : AcceleratorConfig
        With the intersect array.
    budgets : tuple of float
        0 or more.
    seed : int
        Of the windows that kernels are profiled on.
    progress : callable
        Gets per cent and a text.
    """
    levels = local_levels(network, profile_layers(network, inputs, config, seed, progress), loss, progress)
    steps, known = descent(levels), {}

    def measure(count):
        if count not in known:
            chosen = _after(levels, steps[:count])
            changed = _with_options(network, {name: level.option for name, level in chosen.items()})
            known[count] = Outcome(changed, chosen, {name: layer[-1].cycles for name, layer in levels.items()},
                                   loss(changed) if count < len(steps) else 0.)
            progress(75 + 25 * len(known) // (len(known) + 5), f"{count} of {len(steps)} steps")
        return known[count]

    return {budget: _first_within(measure, len(steps), budget) for budget in budgets}


def has_kernels(layer: QuantisedLayer) -> bool:
    """Whether the kernels of ``layer`` are trained ones, and large enough to save something in: not those of a pool or
    of a sum."""
    return np.count_nonzero(layer.weights) >= LEAST_PRODUCTS * len(layer.weights) and len(np.unique(
        layer.weights)) > 2


def profile_layers(network, inputs, config, seed=1, progress=lambda percent, text: None) -> dict[str, list[Level]]:
    """For each layer where predictions save enough, its options as levels of unknown loss, for each of
    :data:`PRICES`; none comes last."""
    names = {layer.name for layer in network.layers if layer.low == 0 and has_kernels(layer)}
    some = inputs[::-(-len(inputs) // WINDOW_INPUTS)]
    windows, found = sample_windows(network, some, names, WINDOWS, seed), {}
    for number, layer in enumerate(layer for layer in network.layers if layer.name in names):
        profile = Profile(layer, windows.pop(layer.name), config)
        scale = float(np.prod(layer.full_shape)) / config.total_lanes
        options = [option for option in profile.options(PRICES) if option.cycles <= (1 - LEAST_GAIN) * profile.exact]
        if options:
            found[layer.name] = [*(Level(option, option.cycles * scale, np.nan) for option in options),
                                 Level(None, profile.exact * scale, 0.)]
        progress(25 * (number + 1) // len(names), layer.name)
    return found


def local_levels(network, found, loss, progress) -> dict[str, list[Level]]:
    """``found`` with the loss of each level alone, without the levels that a mixture of two others would beat."""
    levels = {}
    for number, (name, options) in enumerate(found.items()):
        measured = [replace(level, loss=loss(_with_options(network, {name: level.option}))) for level in options[:-1]]
        levels[name] = _hull([*measured, options[-1]])
        progress(25 + 50 * (number + 1) // len(found), name)
    return levels


def descent(levels: dict[str, list[Level]]) -> list[str]:
    """The layer that each step of the global pass takes to its next level: the one that wins most loss for a cycle."""
    steps = [((before.loss - after.loss) / (after.cycles - before.cycles), name)
             for name, layer in levels.items() for before, after in zip(layer, layer[1:], strict=False)]
    return [name for _, name in sorted(steps, key=lambda step: -step[0])]


def _after(levels, steps):
    return {name: layer[steps.count(name)] for name, layer in levels.items()}


def _first_within(measure, last, budget):
    """Of ``measure(0) .. measure(last)`` the first whose loss is within ``budget``, if losses fall; the last one is."""
    low, high = 0, last
    while low < high:
        middle = (low + high) // 2
        low, high = (low, middle) if measure(middle).loss <= budget else (middle + 1, high)
    return measure(high)


def _hull(levels):
    """The levels on the lower convex hull of loss over cycles, fewest cycles first, down to a loss of 0."""
    hull = []
    for level in sorted(levels, key=lambda level: (level.cycles, level.loss)):
        if hull and level.loss >= hull[-1].loss:
            continue
        while len(hull) > 1 and (hull[-2].loss - hull[-1].loss) * (level.cycles - hull[-1].cycles) <= (
                hull[-1].loss - level.loss) * (hull[-1].cycles - hull[-2].cycles):
            hull.pop()
        hull.append(level)
    return hull


def _with_options(network, options):
    """``network`` with the prediction of each layer of ``options``; None for none."""
    return replace(network, layers=tuple(
        replace(layer, prediction=option.prediction) if (option := options.get(layer.name)) else layer
        for layer in network.layers))
