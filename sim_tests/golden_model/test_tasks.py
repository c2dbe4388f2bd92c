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
    """The phase and whether it begins a round of each step, {(step, row, column, lane): (products, words)}, and sum
    (less ``zero_below``), stop and products of zero skip of each output."""
    lanes, channels, kernel_rows, kernel_columns = layer.weights.shape
    steps = []
    for phase in range(tiling.phases - tiling.joined):
        last = phase + tiling.joined + 1 == tiling.phases
        for channel in chunk_spans(channels, tiling.chunk_channels):
            for row in chunk_spans(kernel_rows, tiling.chunk_rows):
                steps.append((phase, True, channel, row))
                steps += [(phase + 1 + number, False, channel, row) for number in range(tiling.joined if last else 0)]
    found, sums, stopped, skipping = {}, {}, {}, {}
    _, height, width = layer.full_shape
    for at in np.ndindex(height, width, lanes):
        y, column_at, lane = at
        below = int(layer.zero_below[lane])
        total, stopped[at], skipping[at] = int(layer.bias[lane]) - below, False, 0
        for number, (phase, begins, (channel, channel_end), (row, row_end)) in enumerate(steps):
            stop = stop_phase and phase >= stop_phase
            ended = stopped[at] or bool(begins and stop and total < 0)
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
            if layer.prediction and phase == 0 and steps[number + 1][0] > 0:
                if total + below < layer.prediction.thresholds[lane]:
                    total, stopped[at] = min(total, -1), True
        sums[at] = total
    return [step[:2] for step in steps], found, sums, stopped, skipping


def check(layer, x, tiling, *, block, note):
    weights, stop = phase_weights(layer, tiling.phases, tiling.joined), stop_phase(layer, tiling.phases)
    steps, found, sums, stopped, skipping = plain_walk(layer, x, tiling, weights, stop, block)
    parts = list(walk_tasks(layer, x, tiling, weights, stop, block=block))
    assert [part.row for part in parts] == list(np.cumsum([0, *(len(part.sums) for part in parts[:-1])])), note
    for name, axis, expected in (("sums", 0, sums), ("stopped", 0, stopped), ("skipping", 0, skipping),
                                 ("products", 1, {at: pair[0] for at, pair in found.items()}),
                                 ("words", 1, {at: pair[1] for at, pair in found.items()})):
        received = np.concatenate([getattr(part, name) for part in parts], axis=axis)
        assert received.size == len(expected), f"{note}: {name}"
        wrong = [at for at, value in expected.items() if received[at] != value]
        assert not wrong, f"{note}: {name} at {wrong[0]}: {received[wrong[0]]}, not {expected[wrong[0]]}"
    begins = [number for number, (_, first) in enumerate(steps) if first]
    for part in parts:
        assert part.first_steps.tolist() == begins, note
        for name in ("products", "words"):
            by_step = np.split(getattr(part, name).astype(int), begins[1:])
            assert (getattr(part, f"round_{name}") == [task.sum(0) for task in by_step]).all(), note
    counts = count_tasks(layer, x, tiling, weights, stop, block=block)
    assert counts.products.shape == counts.words.shape == counts.tasks.shape == (tiling.phases, len(layer.weights))
    lanes = len(layer.weights)
    for lane in range(lanes):
        outputs = [at for at in sums if at[-1] == lane]
        for phase in range(tiling.phases):
            pairs = [found[number, *at] for at in outputs for number, step in enumerate(steps) if step[0] == phase]
            assert (counts.products[phase, lane], counts.words[phase, lane], counts.tasks[phase, lane]) == (
                sum(products for products, _ in pairs), sum(words for _, words in pairs),
                sum(words > 0 for _, words in pairs)), note
        assert counts.stopped[lane] == sum(stopped[at] for at in outputs), note
        assert counts.skipping[lane] == sum(skipping[at] for at in outputs), note
        assert counts.oracle[lane] == sum(skipping[at] for at in outputs if sums[at] >= 0), note
    assert counts.dense == layer.weights.size * len(outputs)
    return counts


def layer_of(rng, kind, bias, channels, stride=1):
    """A layer of a ``kind``, with biases about ``bias``, and an input."""
    layer = random_layer(rng, "layer", "input", (channels, 5, 4), width=8, kernel=(3, 2), out_channels=3,
                         stride=stride, pad=(1, 0, 1, 1))
    layer = replace(layer, weights=KINDS[kind](layer.weights), bias=np.array([bias, bias - 1, bias + 50]))
    return layer, random_map(rng, layer.in_shape, width=8, signed=False, density=0.5)


@pytest.mark.parametrize("joined", [False, True])
@pytest.mark.parametrize("bias", [-3000, 0, 3000])
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("block, channels", [(16, 35), (64, 70)])
def test_tasks_are_those_of_a_plain_walk(kind, bias, block, channels, joined, monkeypatch):
    """In several chunks; of the phases that may be joined then, all or none are: those with the stop rule."""
    monkeypatch.setattr(tasks, "MEMORY", 2000)
    for seed in range(joined, 3):
        rng = np.random.default_rng(seed)
        layer, x = layer_of(rng, kind, bias, channels, stride=1 + seed % 2)
        phases = 1 + seed * 2
        tiling = Tiling(2 * block if seed else channels, 1 + seed, 2, 4, 1, 1, phases, joined * (phases - 2))
        counts = check(layer, x, tiling, block=block, note=f"{kind}, bias {bias}, seed {seed}")
        if phases == 1 or kind in ("positive", "zero") and bias > 0:
            assert not counts.stopped.any() and (counts.products.sum(0) == counts.skipping).all()
        if kind == "negative" and bias < 0 and phases > 1:
            assert counts.tasks[0].all() and counts.tasks[1:].sum() == 0
        if phases > 1 + joined:
            predicting = with_prediction(rng, layer)
            tiling = replace(tiling, joined=joined * (phases - 3))
            check(predicting, x, tiling, block=block, note=f"{kind}, bias {bias}, seed {seed}, prediction")


@pytest.mark.parametrize("phases", [2, 4])
@pytest.mark.parametrize("bias", [-3000, 0, 3000])
@pytest.mark.parametrize("kind", KINDS)
def test_a_round_of_all_phases_stops_in_the_middle(kind, bias, phases):
    """In one chunk weights above 0 share a round with those below 0; a prediction has a round of its own."""
    rng = np.random.default_rng(phases)
    layer, x = layer_of(rng, kind, bias, 35)
    tiling, note = Tiling(48, 3, 2, 4, 1, 1, phases, phases - 1), f"{kind}, bias {bias}, {phases} phases"
    counts = check(layer, x, tiling, block=16, note=note)
    assert counts.tasks[0].all(), note
    if kind == "negative" and bias < 0:
        # The sum is below 0 from the start, but is looked at after the first product only.
        [part] = walk_tasks(layer, x, tiling, phase_weights(layer, phases, phases - 1), 1, block=16)
        assert (part.round_products[0] == np.minimum(part.skipping, 1)).all() and counts.tasks[2:].sum() == 0, note
    if kind == "random":
        assert counts.stopped.any() or bias > 0, note
    predicting, tiling = with_prediction(rng, layer), replace(tiling, phases=phases + 1)
    assert len(check(predicting, x, tiling, block=16, note=f"{note}, prediction").products) == phases + 1


def test_joined_phases_stop_as_early_in_one_round_less():
    """The same products of the last phases; those of the first without a round between are not looked at before."""
    rng = np.random.default_rng(7)
    layer = random_layer(rng, "layer", "input", (40, 6, 6), width=8, kernel=(3, 3), out_channels=6, pad=(1, 1, 1, 1))
    x = random_map(rng, layer.in_shape, width=8, signed=False, density=0.5)
    weights = phase_weights(layer, 4)
    alone, joined, whole = (count_tasks(layer, x, Tiling(48, 3, 4, 4, 1, 1, 4, joined), weights, 1, block=16)
                            for joined in (0, 2, 3))
    assert (alone.products == joined.products).all() and (alone.stopped == joined.stopped).all()
    assert (whole.products[0] == alone.products[0]).all() and (whole.products[1] > alone.products[1]).any()
    assert (whole.products[2:] == alone.products[2:]).all() and (whole.tasks[1] >= alone.tasks[1]).all()


def test_sums_stop_where_they_fall_below_0():
    """And tasks begin in the rounds before: some are stopped in the middle, some are never begun."""
    rng = np.random.default_rng(5)
    layer = random_layer(rng, "layer", "input", (40, 6, 6), width=8, kernel=(3, 3), out_channels=6, pad=(1, 1, 1, 1))
    x = random_map(rng, layer.in_shape, width=8, signed=False, density=0.5)
    counts = check(layer, x, Tiling(16, 3, 4, 4, 1, 1, 4), block=16, note="seed 5")
    windows, chunks = 36 * 6, 3
    assert 0 < counts.stopped.sum() < windows and counts.products.sum() < counts.skipping.sum() < counts.dense
    assert counts.oracle.sum() < counts.skipping.sum() and 0 < counts.tasks[-1].sum() < chunks * windows


def test_signed_input_and_inputs_that_begin_with_a_block_each():
    rng = np.random.default_rng(6)
    layer = random_layer(rng, "layer", (Slice("a", 0, 5), Slice("b", 16, 20)), (25, 4, 4), width=8, kernel=(2, 2),
                         out_channels=3, signed_in=True)
    x = random_map(rng, layer.in_shape, width=8, signed=True, density=0.7)
    [tasks] = walk_tasks(layer, x, Tiling(16, 1, 4, 4, 1, 1), phase_weights(layer, 1), 0, block=16)
    # Blocks: channels 0..4, 5..20, 21..24; each a chunk, as is each kernel row.
    assert (tasks.words == 2).all() and len(tasks.products) == 6
    parts, found = [np.s_[:5], np.s_[5:21], np.s_[21:]], tasks.products.sum((1, 2))
    for part, products in zip(parts, found[::2] + found[1::2], strict=True):
        weights = (layer.weights[:, part] != 0).astype(int)
        taps = sum(np.einsum("oc,cyx->o", weights[:, :, row, column], (x[part] != 0)[:, row:row + 3, column:column + 3])
                   for row in range(2) for column in range(2))
        assert (products == taps).all()
    expected = sum(np.einsum("oc,cyx->yxo", layer.weights[..., row, column], x[:, row:row + 3, column:column + 3])
                   for row in range(2) for column in range(2))
    assert (tasks.sums == expected + layer.bias - layer.zero_below).all()


def test_phases_that_are_not_those_of_the_weights_are_refused():
    layer = random_layer(np.random.default_rng(1), "layer", "input", (3, 4, 4), width=8, kernel=(3, 3), out_channels=2)
    x, weights = np.zeros(layer.in_shape, int), phase_weights(layer, 4)
    for wrong in (weights[:, :1], weights[:3], -weights):
        with pytest.raises(ValueError, match="the weights of the phases do not add up to those of layer"):
            count_tasks(layer, x, Tiling(3, 3, 4, 4, 1, 1, len(wrong)), wrong, 1, block=16)
    with pytest.raises(ValueError, match="layer layer has weights of 4 phases, its tiling 2"):
        count_tasks(layer, x, Tiling(3, 3, 4, 4, 1, 1, 2), weights, 1, block=16)
