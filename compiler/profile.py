"""What the intersect array has to do for a layer, counted on typical inputs.

Source: golden/README.md, "Intersect array"; golden/tasks.py.
"""
from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np

from golden.cycles import PhaseWork, task_cycles
from golden.layer import QuantisedLayer
from golden.network import QuantisedNetwork, gather, run_network
from golden.tasks import Tasks, walk_tasks
from golden.tiling import Tiling
from hw.config import AcceleratorConfig

from .emit import choose_layer
from .phases import needs_whole, phase_counts, phase_weights, stop_phase

#: Rows of windows that a layer is profiled on, spread evenly, and those of each input that its kernels are compared on.
PROFILE_ROWS, BALANCE_ROWS = 4, 4
#: What more rounds must save, as a fraction of a layer's cycles.
LEAST_GAIN = 0.005


@dataclass(frozen=True)
class Profile:
    """``work``: means of all lanes, for the estimate of cycles; ``tiling``: what that leads to."""
    work: PhaseWork
    tiling: Tiling


def profile_network(quantised: QuantisedNetwork, runs: list[dict[str, np.ndarray]], config: AcceleratorConfig,
                    densities: dict[str, float], negative_classes: int) -> dict[str, Profile]:
    """The profile of each layer, with those of its :func:`compiler.phases.phase_counts` that take the fewest cycles by
    the estimate; with the first of them, in as few rounds as can be, that take at most ``LEAST_GAIN`` more.

    Parameters
    ----------
    quantised : QuantisedNetwork
    runs : list of dict of str to int array
        All maps for each of some typical inputs (:func:`golden.network.run_network`).
    config : AcceleratorConfig
        With the intersect array.
    densities : dict of str to float
        As of :func:`compiler.emit.compile_network`.
    negative_classes : int
        As of :func:`compiler.phases.phase_counts`.
    """
    found = {}
    for layer in quantised.layers:
        inputs = [gather(maps, layer.inputs) for maps in runs]
        works = [profile(layer, inputs, config, *phases) for phases in phase_counts(layer, config, negative_classes)]
        choices = [choose_layer(quantised, layer, config, densities, work) for work in works]
        best = fewest_phases([choice.cost.cycles for choice in choices])
        found[layer.name] = Profile(works[best], choices[best].tiling)
    return found


def fewest_phases(cycles: list[float]) -> int:
    """Which of several estimates, those with fewer rounds first, is chosen: the first that is not ``LEAST_GAIN`` above
    the lowest."""
    return int(np.argmax(np.array(cycles) <= (1 + LEAST_GAIN) * min(cycles)))


def profile(layer: QuantisedLayer, inputs: list[np.ndarray], config: AcceleratorConfig, phases: int,
            joined: int = 0) -> PhaseWork:
    """The work of ``layer`` in ``phases`` phases, of which the last ``joined`` share a round, for ``inputs`` [C, H, W],
    on ``PROFILE_ROWS`` rows of windows of each, in the chunks of :func:`profile_tiling`."""
    weights, tiling = phase_weights(layer, phases, joined), profile_tiling(layer, config, phases, joined)
    parts = [part for x in inputs for part in strips(layer, x, config, tiling, weights, PROFILE_ROWS)]
    shape, windows = (tiling.phase_rounds, -1), sum(part.sums[..., 0].size for part in parts)
    # [rounds of a chunk, chunks, windows, lanes].
    products, words = (np.concatenate([getattr(part, f"round_{name}") for part in parts], axis=1).reshape(
        *shape, windows, len(layer.weights)) for name in ("products", "words"))
    cycles = task_cycles(products, words).sum(1)
    tasks = (words > 0).mean((1, 2, 3))
    mean, windows, lanes = (cycles.mean(axis, keepdims=True) for axis in ((1, 2), 2, 1))
    variation = (cycles - windows - lanes + mean).std((1, 2)) / np.maximum(mean.ravel(), 1)
    counts = np.array([np.count_nonzero(weights[shared]) for shared in tiling.shared_phases])
    work = (mean.ravel(), variation, tasks, counts / layer.weights.size)
    return PhaseWork(*(tuple(map(float, part)) for part in work), joined, needs_whole(layer, phases, joined))


def profile_tiling(layer: QuantisedLayer, config: AcceleratorConfig, phases: int, joined: int = 0) -> Tiling:
    """Chunks of as many channels as the weight buffer has room for, one block at least, and all rows of the kernel."""
    chunk = max(config.weight_words // layer.weights[0, 0].size, 1) * config.block
    return Tiling(chunk, layer.weights.shape[2], 1, 1, 1, 1, phases, joined)


def kernel_work(quantised: QuantisedNetwork, inputs: list[np.ndarray], profiles: dict[str, Profile],
                config: AcceleratorConfig) -> dict[str, np.ndarray]:
    """For each layer what its kernels take in each round of each of the integer ``inputs`` [C, H, W],
    ``[inputs * rounds, lanes]``: cycles of a PE, as a share of the layer's for that input, on ``BALANCE_ROWS`` rows of
    windows."""
    found = {name: [] for name in profiles}
    weights = {layer.name: phase_weights(layer, profiles[layer.name].tiling.phases, profiles[layer.name].tiling.joined)
               for layer in quantised.layers}
    for x in inputs:
        maps = run_network(quantised, x)[0]
        for layer in quantised.layers:
            parts = strips(layer, gather(maps, layer.inputs), config, profiles[layer.name].tiling, weights[layer.name],
                           BALANCE_ROWS)
            cycles = sum(task_cycles(part.round_products, part.round_words).sum((1, 2)) for part in parts)
            found[layer.name].append(cycles / max(cycles.sum(), 1))
    return {name: np.concatenate(parts) for name, parts in found.items()}


def strips(layer: QuantisedLayer, x: np.ndarray, config: AcceleratorConfig, tiling: Tiling, weights: np.ndarray,
           count: int) -> Iterator[Tasks]:
    """The tasks of ``count`` rows of windows of ``layer`` on ``x`` [C, H, W], a row each, in the rounds of ``tiling``;
    ``weights``: those of each phase."""
    rows, kernel_rows = layer.full_shape[1], layer.weights.shape[2]
    padded = np.pad(x, ((0, 0), (layer.pad[0], kernel_rows), (0, 0)))
    for row in np.unique(((np.arange(count) + 0.5) * rows / count).astype(int)):
        band = padded[:, row * layer.stride:row * layer.stride + kernel_rows]
        strip = replace(layer, in_shape=band.shape, pad=(0, layer.pad[1], 0, layer.pad[3]), pool=0, full=None)
        yield from walk_tasks(strip, band, tiling, weights, stop_phase(layer, tiling.phases), block=config.block)
