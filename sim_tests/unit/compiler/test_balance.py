"""Kernels among clusters: what the network computes stays, the clusters' work evens out."""
from dataclasses import replace

import numpy as np
import pytest

from compiler.balance import balance, kernel_order
from golden.layer import QuantisedLayer, Slice, Target
from golden.network import QuantisedNetwork, run_network
from hw.configs import CONFIGS
from sim_tests.golden_model.random_layers import with_prediction

TINY = CONFIGS["tiny_snapea"]


def layer(rng, name, inputs, out_channels, size, output, **fields):
    channels = sum(part.channels for part in inputs)
    # Kernels of very different density.
    weights = rng.integers(-20, 20, (out_channels, channels, 3, 3)) * (
        rng.random((out_channels, channels, 3, 3)) < rng.random((out_channels, 1, 1, 1)))
    return QuantisedLayer(name, inputs, (channels, *size), weights, rng.permutation(1000)[:out_channels] - 500,
                          rng.integers(1, 400, out_channels), np.full(out_channels, 16), 0, 255, output,
                          pad=(1, 1, 1, 1), **fields)


def network(rng):
    """Two layers that may be reordered, one that writes half of a map, one that the user wants."""
    layers = (
        layer(rng, "a", (Slice("input", 0, 4),), 40, (8, 8), Target("a"), pool=2, full=Target("a_full")),
        layer(rng, "b", (Slice("a", 0, 40),), 32, (4, 4), Target("b")),
        layer(rng, "c", (Slice("b", 0, 32), Slice("a", 0, 40)), 16, (4, 4), Target("c", 0)),
        layer(rng, "d", (Slice("b", 0, 32),), 16, (4, 4), Target("c", 16)),
        layer(rng, "e", (Slice("c", 16, 16),), 8, (4, 4), Target("e")))
    return QuantisedNetwork("net", 8, (4, 8, 8), False, layers, ("e", "c"), {"a": rng.random(40)})


@pytest.mark.parametrize("seed", range(4))
def test_outputs_stay(seed):
    rng = np.random.default_rng(seed)
    before = network(rng)
    if seed % 2:
        before = replace(before, layers=tuple(with_prediction(rng, part) for part in before.layers))
    x = rng.integers(0, 256, before.input_shape)
    after = balance(before, {part.name: rng.integers(0, 100, (3, len(part.weights))) for part in before.layers}, TINY)
    old, new = run_network(before, x)[0], run_network(after, x)[0]
    for name in before.outputs:
        assert (old[name] == new[name]).all(), f"{name} (seed {seed})"
    for name, at in (("a", 0), ("a_full", 0), ("b", 1)):
        # No two biases are equal.
        order = [list(before.layers[at].bias).index(bias) for bias in after.layers[at].bias]
        assert sorted(order) == list(range(len(order))) and order != sorted(order), f"{name} (seed {seed})"
        assert (new[name] == old[name][order]).all(), f"{name} (seed {seed})"
        if name in before.scales:
            assert (after.scales[name] == before.scales[name][order]).all(), f"{name} (seed {seed})"


def test_clusters_get_even_work():
    rng = np.random.default_rng(5)
    work = rng.integers(0, 1000, (3, 44)) ** 2
    order = kernel_order(work, TINY)
    assert sorted(order) == list(range(44))
    for first, end in ((0, 16), (16, 32), (32, 44)):
        assert set(order[first:end]) == set(range(first, end)), "a channel has left its kernel block"
    def waiting(order):
        loads = np.array([[work[:, order[first:first + 16]][:, cluster::TINY.clusters].sum(1)
                           for cluster in range(TINY.clusters)] for first in (0, 16, 32)])
        return loads.max(1).sum() * TINY.clusters / loads.sum()
    assert waiting(order) < 1.06 < waiting(np.arange(44))


def test_no_exchange_of_two_kernels_helps():
    rng = np.random.default_rng(6)
    work = rng.random((5, 16)) ** 3
    order = kernel_order(work, TINY)

    def squares(order):
        return sum((work[:, order[cluster::TINY.clusters]].sum(1) ** 2).sum() for cluster in range(TINY.clusters))
    best = squares(order)
    assert best < 0.999 * squares(np.argsort(-work.sum(0)))
    for a in range(16):
        for b in range(a):
            other = order.copy()
            other[[a, b]] = order[[b, a]]
            assert squares(other) >= best * (1 - 1e-6)


def test_kernels_that_work_for_the_same_inputs_are_kept_apart():
    """All kernels have the same mean; the first 8 have much to do for one input, the others for the other one."""
    work = np.ones((2, 16))
    work[0, :8] = work[1, 8:] = 5
    order = kernel_order(work, TINY)
    for cluster in range(TINY.clusters):
        assert np.count_nonzero(order[cluster::TINY.clusters] < 8) == 8 // TINY.clusters
