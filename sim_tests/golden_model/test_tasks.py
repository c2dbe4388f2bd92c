"""Tasks of the intersect array against a plain walk over windows, lanes, rounds, taps, blocks and channels."""
from dataclasses import replace

import numpy as np
import pytest

from compiler.phases import phase_weights, stop_phase
from golden import tasks
from golden.layer import Slice
from golden.tasks import count_tasks, walk_tasks
from golden.tiling import Tiling, chunk_spans

from .random_layers import random_layer, random_map, with_prediction

#: What the weights of a layer may be like, as a function of random ones.
KINDS = {
    "random": lambda weights: weights,
    "negative": lambda weights: -np.abs(weights) - (weights == 0),
    "positive": lambda weights: np.abs(weights),
    "zero": lambda weights: weights * 0,
}


def plain_walk(layer, x, tiling, weights, stop_phase, block):
    """{(round, row, column, lane): (products, words)}, and sum (less ``zero_below``), stop and products of zero skip of
    each output."""
    lanes, channels, kernel_rows, kernel_columns = layer.weights.shape
    rounds = [(phase, channel, row) for phase in range(tiling.phases)
              for channel in chunk_spans(channels, tiling.chunk_channels)
              for row in chunk_spans(kernel_rows, tiling.chunk_rows)]
    found, sums, stopped, skipping = {}, {}, {}, {}
    _, height, width = layer.full_shape
    for at in np.ndindex(height, width, lanes):
        y, column_at, lane = at
        below = int(layer.zero_below[lane])
        total, stopped[at], skipping[at] = int(layer.bias[lane]) - below, False, 0
        for number, (phase, (channel, channel_end), (row, row_end)) in enumerate(rounds):
            stop = stop_phase and phase >= stop_phase
            ended = stopped[at] or bool(stop and total < 0)
            products = words = 0
            running = not ended
            for tap_row in range(row, row_end):
                for tap_column in range(kernel_columns):
                    for first in range(channel, channel_end, block):
                        words += running
                        for c in range(first, min(first + block, channel_end)):
                            iy = y * layer.stride + tap_row - layer.pad[0]
                            ix = column_at * layer.stride + tap_column - layer.pad[1]
                            inside = 0 <= iy < x.shape[1] and 0 <= ix < x.shape[2]
                            weight = int(weights[phase, lane, c, tap_row, tap_column])
                            if inside and x[c, iy, ix] and weight:
                                # A weight may be in two phases.
                                skipping[at] += not weights[:phase, lane, c, tap_row, tap_column].any()
                                if running:
                                    total += int(x[c, iy, ix]) * weight
                                    products += 1
                                    running = not (stop and total < 0)
            found[number, *at] = products, words
            stopped[at] = ended or not running
            if layer.prediction and number + 1 == len(rounds) // tiling.phases:
                if total + below < layer.prediction.thresholds[lane]:
                    total, stopped[at] = min(total, -1), True
        sums[at] = total
    return len(rounds), found, sums, stopped, skipping


def check(layer, x, tiling, *, block, note):
    weights, stop = phase_weights(layer, tiling.phases), stop_phase(layer, tiling.phases)
    rounds, found, sums, stopped, skipping = plain_walk(layer, x, tiling, weights, stop, block)
    parts = list(walk_tasks(layer, x, tiling, weights, stop, block=block))
    assert [part.row for part in parts] == list(np.cumsum([0, *(len(part.sums) for part in parts[:-1])])), note
    for name, axis, expected in (("sums", 0, sums), ("stopped", 0, stopped), ("skipping", 0, skipping),
                                 ("products", 1, {at: pair[0] for at, pair in found.items()}),
                                 ("words", 1, {at: pair[1] for at, pair in found.items()})):
        received = np.concatenate([getattr(part, name) for part in parts], axis=axis)
        assert received.size == len(expected), f"{note}: {name}"
        wrong = [at for at, value in expected.items() if received[at] != value]
        assert not wrong, f"{note}: {name} at {wrong[0]}: {received[wrong[0]]}, not {expected[wrong[0]]}"
    counts = count_tasks(layer, x, tiling, weights, stop, block=block)
    lanes = len(layer.weights)
    for lane in range(lanes):
        outputs = [at for at in sums if at[-1] == lane]
        for number in range(rounds):
            pairs = [found[number, *at] for at in outputs]
            assert (counts.products[number, lane], counts.words[number, lane], counts.tasks[number, lane]) == (
                sum(products for products, _ in pairs), sum(words for _, words in pairs),
                sum(words > 0 for _, words in pairs)), note
        assert counts.stopped[lane] == sum(stopped[at] for at in outputs), note
        assert counts.skipping[lane] == sum(skipping[at] for at in outputs), note
        assert counts.oracle[lane] == sum(skipping[at] for at in outputs if sums[at] >= 0), note
    assert counts.dense == layer.weights.size * len(outputs)
    return counts


@pytest.mark.parametrize("bias", [-3000, 0, 3000])
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("block, channels", [(16, 35), (64, 70)])
def test_tasks_are_those_of_a_plain_walk(kind, bias, block, channels, monkeypatch):
    monkeypatch.setattr(tasks, "MEMORY", 2000)
    for seed in range(3):
        rng = np.random.default_rng(seed)
        layer = random_layer(rng, "layer", "input", (channels, 5, 4), width=8, kernel=(3, 2), out_channels=3,
                             stride=1 + seed % 2, pad=(1, 0, 1, 1))
        layer = replace(layer, weights=KINDS[kind](layer.weights), bias=np.array([bias, bias - 1, bias + 50]))
        x = random_map(rng, layer.in_shape, width=8, signed=False, density=0.5)
        phases = 1 + seed * 2
        tiling = Tiling(2 * block if seed else channels, 1 + seed, 2, 4, 1, 1, phases)
        counts = check(layer, x, tiling, block=block, note=f"{kind}, bias {bias}, seed {seed}")
        if phases == 1 or kind in ("positive", "zero") and bias > 0:
            assert not counts.stopped.any() and (counts.products.sum(0) == counts.skipping).all()
        if kind == "negative" and bias < 0 and phases > 1:
            negative = len(counts.tasks) // phases
            assert counts.tasks[:negative].all() and counts.tasks[negative:].sum() == 0
        if phases > 1:
            predicting = with_prediction(rng, layer)
            check(predicting, x, tiling, block=block, note=f"{kind}, bias {bias}, seed {seed}, prediction")


def test_sums_stop_where_they_fall_below_0():
    """And tasks begin in the rounds before: some are stopped in the middle, some are never begun."""
    rng = np.random.default_rng(5)
    layer = random_layer(rng, "layer", "input", (40, 6, 6), width=8, kernel=(3, 3), out_channels=6, pad=(1, 1, 1, 1))
    x = random_map(rng, layer.in_shape, width=8, signed=False, density=0.5)
    counts = check(layer, x, Tiling(16, 3, 4, 4, 1, 1, 4), block=16, note="seed 5")
    windows = 36 * 6
    assert 0 < counts.stopped.sum() < windows and counts.products.sum() < counts.skipping.sum() < counts.dense
    assert counts.oracle.sum() < counts.skipping.sum() and 0 < counts.tasks[-1].sum() < windows


def test_signed_input_and_inputs_that_begin_with_a_block_each():
    rng = np.random.default_rng(6)
    layer = random_layer(rng, "layer", (Slice("a", 0, 5), Slice("b", 16, 20)), (25, 4, 4), width=8, kernel=(2, 2),
                         out_channels=3, signed_in=True)
    x = random_map(rng, layer.in_shape, width=8, signed=True, density=0.7)
    counts = count_tasks(layer, x, Tiling(16, 1, 4, 4, 1, 1), phase_weights(layer, 1), 0, block=16)
    # Blocks: channels 0..4, 5..20, 21..24; each a chunk, as is each kernel row.
    assert (counts.words == 2 * 9).all() and len(counts.products) == 6
    parts = [np.s_[:5], np.s_[5:21], np.s_[21:]]
    for part, products in zip(parts, counts.products[::2] + counts.products[1::2], strict=True):
        weights = (layer.weights[:, part] != 0).astype(int)
        taps = sum(np.einsum("oc,cyx->o", weights[:, :, row, column], (x[part] != 0)[:, row:row + 3, column:column + 3])
                   for row in range(2) for column in range(2))
        assert (products == taps).all()
    expected = sum(np.einsum("oc,cyx->yxo", layer.weights[..., row, column], x[:, row:row + 3, column:column + 3])
                   for row in range(2) for column in range(2))
    [part] = walk_tasks(layer, x, Tiling(16, 1, 4, 4, 1, 1), phase_weights(layer, 1), 0, block=16)
    assert (part.sums == expected + layer.bias - layer.zero_below).all()


def test_phases_that_are_not_those_of_the_weights_are_refused():
    layer = random_layer(np.random.default_rng(1), "layer", "input", (3, 4, 4), width=8, kernel=(3, 3), out_channels=2)
    x, weights = np.zeros(layer.in_shape, int), phase_weights(layer, 4)
    for wrong in (weights[:, :1], weights[:3], -weights):
        with pytest.raises(ValueError, match="the weights of the phases do not add up to those of layer"):
            count_tasks(layer, x, Tiling(3, 3, 4, 4, 1, 1, len(wrong)), wrong, 1, block=16)
    with pytest.raises(ValueError, match="layer layer has weights of 4 phases, its tiling 2"):
        count_tasks(layer, x, Tiling(3, 3, 4, 4, 1, 1, 2), weights, 1, block=16)
