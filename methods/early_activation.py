"""Predictive early activation: which outputs of a network are predicted to be 0, for a loss that is allowed.

    outcomes = predict(network, inputs, loss, config)
    outcomes[1.].network                      the network with predictions that lose at most 1

The three passes of SnaPEA. *Kernels*: for each layer and price of lost energy the candidate and threshold of each
kernel (:mod:`methods.kernels`), and what the layer then costs, by the compiler's estimate of its cycles; predictions
that do not pay are dropped. *Local*: the loss of each layer's predictions alone, the safest first, up to one that loses
more than is allowed. *Global*: all layers begin with their lowest cost, and the one that wins most loss for its cost
steps to its next safer prediction, the last of which is none, until the loss is allowed.

With ``high_bits`` phase 0 has the high bits of all weights of a kernel, and a layer costs its bit-products.

Source: V. Akhlaghi et al., "SnaPEA", ISCA 2018, section IV; M. Song et al., "Prediction Based Execution on Deep Neural
Networks", ISCA 2018.
"""
from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np

from compiler.emit import choose_layer
from compiler.order import order
from compiler.phases import NEGATIVE_CLASSES, phase_counts, stops_exactly
from compiler.profile import profile
from golden.layer import QuantisedLayer
from golden.network import QuantisedNetwork, gather, run_network
from hw.config import AcceleratorConfig

from .kernels import REST_CLASSES, Option, Profile
from .windows import sample_windows

#: What the loss of all energy of a layer's outputs is worth, in costs of the layer: the levels of the local pass.
PRICES = (1., 3., 10., 30., 100., 300., 1000.)
#: Windows of each layer that kernels are profiled on, and inputs that they are taken from, at most.
WINDOWS, WINDOW_INPUTS = 2000, 32
#: Products that a kernel has at least, if its layer is looked at, and share of the cost that a prediction saves.
LEAST_PRODUCTS, LEAST_GAIN = 16, .02


@dataclass(frozen=True)
class Level:
    """A layer's prediction: ``option`` is None for none, ``cost`` is that of the layer for an input, ``loss`` that of
    this prediction alone."""
    option: Option | None
    cost: float
    loss: float


@dataclass(frozen=True)
class Outcome:
    """A network with predictions: ``levels`` of the layers that were looked at, ``exact`` their costs without
    predictions, and the ``loss`` on the inputs of the search."""
    network: QuantisedNetwork
    levels: dict[str, Level]
    exact: dict[str, float]
    loss: float

    @property
    def cost(self) -> float:
        """That of the layers that were looked at."""
        return sum(level.cost for level in self.levels.values())


def predict(network: QuantisedNetwork, inputs: list[np.ndarray], loss: Callable[[QuantisedNetwork], float],
            config: AcceleratorConfig, budgets: tuple[float, ...] = (0., 1., 3.), *,
            local_loss: Callable[[QuantisedNetwork], float] | None = None, high_bits: bool = False, seed: int = 1,
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
    local_loss : callable, optional
        The same on fewer inputs, for the local pass.
    high_bits : bool
        Phase 0 has high bits, and costs are bit-products, as many products of whole weights; else cycles.
    seed : int
        Of the windows that kernels are profiled on.
    progress : callable
        Gets per cent and a text.
    """
    found = profile_layers(network, inputs, config, high_bits, seed, progress)
    levels = local_levels(network, found, local_loss or loss, max(budgets), progress)
    steps, known = descent(levels), {}

    def measure(count):
        if count not in known:
            chosen = _after(levels, steps[:count])
            changed = _with_options(network, {name: level.option for name, level in chosen.items()})
            known[count] = Outcome(changed, chosen, {name: layer[-1].cost for name, layer in levels.items()},
                                   loss(changed) if count < len(steps) else 0.)
            progress(75 + 25 * len(known) // (len(known) + 5), f"{count} of {len(steps)} steps")
        return known[count]

    return {budget: _first_within(measure, len(steps), budget) for budget in budgets}


def has_kernels(layer: QuantisedLayer) -> bool:
    """Whether the kernels of ``layer`` are trained ones, and large enough to save something in: not those of a pool or
    of a sum."""
    return np.count_nonzero(layer.weights) >= LEAST_PRODUCTS * len(layer.weights) and len(np.unique(
        layer.weights)) > 2


def profile_layers(network, inputs, config, high_bits=False, seed=1,
                   progress=lambda percent, text: None) -> dict[str, list[Level]]:
    """For each layer where predictions save enough, its options for :data:`PRICES` as levels, without those that a
    mixture of two others would beat; their loss is the share of energy lost. The last level is none."""
    names = {layer.name for layer in network.layers if layer.low == 0 and has_kernels(layer)}
    some = inputs[::-(-len(inputs) // WINDOW_INPUTS)]
    windows, found = sample_windows(network, some, names, WINDOWS, seed), {}
    cycles = _estimator(network, some[0], config)
    for number, layer in enumerate(layer for layer in network.layers if layer.name in names):
        kernels = Profile(layer, windows.pop(layer.name), config.block, high_bits)
        outputs = float(np.prod(layer.full_shape))
        exact = kernels.exact * outputs if high_bits else cycles(layer, NEGATIVE_CLASSES)
        levels = _hull([Level(option, option.cost * outputs, option.lost) for option in kernels.options(PRICES)])
        if not high_bits:
            levels = _hull([replace(level, cost=cycles(replace(layer, prediction=level.option.prediction),
                                                       REST_CLASSES[-1])) for level in levels])
        if levels := [level for level in levels if level.cost <= (1 - LEAST_GAIN) * exact]:
            found[layer.name] = [*levels, Level(None, exact, 0.)]
        progress(25 * (number + 1) // len(names), layer.name)
    return found


def _estimator(network, x, config):
    """The compiler's estimate of the cycles of a layer with up to so many classes of negative weights, on the input
    ``x``."""
    maps, _ = run_network(network, x)
    densities = {name: np.count_nonzero(values) / values.size for name, values in maps.items()
                 if name != network.input_name}

    def cycles(layer, classes):
        inputs = [gather(maps, layer.inputs)]
        if stops_exactly(layer):
            layer = replace(layer, turns=order(layer, inputs, config))
        return min(choose_layer(network, layer, config, densities, profile(layer, inputs, config, *phases))
                   .cost.cycles for phases in phase_counts(layer, config, classes))
    return cycles


def local_levels(network, found, loss, most, progress) -> dict[str, list[Level]]:
    """``found`` with the loss of each level alone, the safest first, down to one that loses more than ``most``; without
    the levels that a mixture of two others would beat."""
    levels = {}
    for number, (name, options) in enumerate(found.items()):
        measured = options[-1:]
        for level in options[-2::-1]:
            level = replace(level, loss=loss(_with_options(network, {name: level.option})))
            if level.loss > most:
                break
            measured.append(level)
        levels[name] = _hull(measured)
        progress(25 + 50 * (number + 1) // len(found), name)
    return levels


def descent(levels: dict[str, list[Level]]) -> list[str]:
    """The layer that each step of the global pass takes to its next level: the one that wins most loss for its cost."""
    steps = [((before.loss - after.loss) / (after.cost - before.cost), name)
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
    """The levels on the lower convex hull of loss over cost, lowest cost first, down to the least loss."""
    hull = []
    for level in sorted(levels, key=lambda level: (level.cost, level.loss)):
        if hull and level.loss >= hull[-1].loss:
            continue
        while len(hull) > 1 and (hull[-2].loss - hull[-1].loss) * (level.cost - hull[-1].cost) <= (
                hull[-1].loss - level.loss) * (hull[-1].cost - hull[-2].cost):
            hull.pop()
        hull.append(level)
    return hull


def _with_options(network, options):
    """``network`` with the prediction of each layer of ``options``; None for none."""
    return replace(network, layers=tuple(
        replace(layer, prediction=option.prediction) if (option := options.get(layer.name)) else layer
        for layer in network.layers))
