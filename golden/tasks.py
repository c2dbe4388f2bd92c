"""Tasks of the intersect array: what of each window's sum is multiplied, and where it stops.

A task is a window, a lane and a round. It multiplies where activation and weight of the round's phases are not zero,
phase by phase, tap by tap (row by row), block by block, lowest channel first; in a phase with the stop rule it ends
with the product after which the sum is below 0; where the sum already is when the round begins there is no task, nor
where it was predicted to be. What a task does for one phase is a step of it.

    work = count_tasks(layer, x, tiling, weights, stop_phase, block=config.block)
    work.products.sum(), work.skipping.sum(), work.dense

Source: golden/README.md, "Intersect array" (normative).
"""
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numba import njit, prange, types
from numba.extending import intrinsic

from .layer import QuantisedLayer
from .tiling import Tiling, ceil_div, chunk_spans

#: Bytes of the tasks that are in memory at a time.
MEMORY = 1 << 26
#: Values that are stored for a block, whatever its size.
BLOCK = 64
#: How numba compiles what allocates nothing: arrays then need no counts of references.
OPTIONS = {"error_model": "numpy", "_nrt": False}


@intrinsic
def first_one(typing, bits):
    """Number of the lowest set bit of a uint64 that is not 0."""
    def build(context, builder, signature, arguments):
        return builder.cttz(arguments[0], context.get_constant(types.boolean, 1))
    return types.int64(types.uint64), build


@intrinsic
def count_ones(typing, bits):
    """Number of set bits of a uint64."""
    def build(context, builder, signature, arguments):
        return builder.ctpop(arguments[0])
    return types.int64(types.uint64), build


@dataclass(frozen=True)
class Operands:
    """A layer's input and weights as the hardware holds them: blocks of channels, a map and values for each.

    ``x_maps`` uint64 [rows, columns, blocks], ``x_values`` int16 [rows, columns, blocks * BLOCK]: the input with zeros
    around it, so that every tap of every window lies inside. ``w_maps`` uint64 [phases, O, kernel rows, kernel columns,
    blocks], ``w_values`` int8 [phases, O, kernel rows, kernel columns, blocks * BLOCK]: the weights of each phase.
    """
    x_maps: np.ndarray
    x_values: np.ndarray
    w_maps: np.ndarray
    w_values: np.ndarray

    @property
    def shape(self) -> tuple[int, int, int, int, int]:
        """Columns of the padded input, kernel rows and columns, blocks, phases."""
        phases, _, *kernel, blocks = self.w_maps.shape
        return self.x_maps.shape[1], *kernel, blocks, phases


@dataclass(frozen=True)
class Tasks:
    """The tasks of the windows of rows ``row .. row + R - 1``.

    ``products``, ``words`` uint16 [steps, R, columns, O]: products added, and map words fetched until the task ended:
    all of the phase, or up to that of the product that stopped it; 0 words: there was no such step. The steps of a task
    follow each other: ``first_steps`` int [rounds] has the first of each. ``sums`` int64
    [R, columns, O]: sums at the end, less ``layer.zero_below``: below 0 where the output is 0. ``stopped`` bool
    [R, columns, O]: the sum was final before its last round ended. ``skipping`` int32 [R, columns, O]: products if
    nothing is stopped, those of zero skip.
    """
    row: int
    first_steps: np.ndarray
    products: np.ndarray
    words: np.ndarray
    sums: np.ndarray
    stopped: np.ndarray
    skipping: np.ndarray

    @property
    def round_products(self) -> np.ndarray:
        """``products`` of whole tasks, [rounds, R, columns, O]."""
        return np.add.reduceat(self.products, self.first_steps)

    @property
    def round_words(self) -> np.ndarray:
        """``words`` of whole tasks, [rounds, R, columns, O]."""
        return np.add.reduceat(self.words, self.first_steps)


@dataclass(frozen=True)
class TaskCounts:
    """A layer's tasks, summed over its windows; windows that tiles share count once.

    ``products``, ``words``, ``tasks`` int64 [phases, O]: products added, map words fetched, steps. ``stopped`` int64
    [O]: outputs whose sum was final before its last round ended. ``skipping`` int64 [O]: products of zero skip alone.
    ``oracle`` int64 [O]: of these, what belongs to outputs that are not 0: no stop rule needs fewer. ``dense``:
    products without skipping, padding included.
    """
    products: np.ndarray
    words: np.ndarray
    tasks: np.ndarray
    stopped: np.ndarray
    skipping: np.ndarray
    oracle: np.ndarray
    dense: int


def pack_operands(layer: QuantisedLayer, x: np.ndarray, weights: np.ndarray, block: int) -> Operands:
    """The operands of ``layer`` for the input ``x[C, H, W]``; other arguments and errors as of :func:`count_tasks`."""
    if weights.shape[1:] != layer.weights.shape or (weights.sum(0, np.int64) != layer.weights).any():
        raise ValueError(f"the weights of the phases do not add up to those of {layer.name}")
    places = _places(layer, block)
    places, blocks = places // block * BLOCK + places % block, places[-1] // block + 1
    _, rows, columns = layer.full_shape
    kernel_rows, kernel_columns = layer.weights.shape[2:]
    top, left = layer.pad[:2]
    x_values = np.zeros(((rows - 1) * layer.stride + kernel_rows, (columns - 1) * layer.stride + kernel_columns,
                         blocks * BLOCK), np.int16)
    inside = x[:, :len(x_values) - top, :x_values.shape[1] - left].transpose(1, 2, 0)
    x_values[top:top + inside.shape[0], left:left + inside.shape[1], places] = inside
    w_values = np.zeros((*weights.shape[:2], kernel_rows, kernel_columns, blocks * BLOCK), np.int8)
    w_values[..., places] = weights.transpose(0, 1, 3, 4, 2)
    return Operands(_bits(x_values != 0), x_values, _bits(w_values != 0), w_values)


def _places(layer, block):
    """Where each channel of the input lies among the blocks of all inputs: each of them begins with a block."""
    places, blocks = [], 0
    for part in layer.inputs:
        places.append(blocks * block + np.arange(part.channels))
        blocks += ceil_div(part.channels, block)
    return np.concatenate(places)


def _steps(layer, tiling, stop_phase, block):
    """``[phase, first and end block, first and end kernel row, whether it has the stop rule, whether sums are predicted
    behind it, whether it begins a task]`` of each step in order."""
    chunks = [(first // block, ceil_div(end, block), row, row_end)
              for first, end in chunk_spans(_places(layer, block)[-1] + 1, tiling.chunk_channels)
              for row, row_end in chunk_spans(layer.weights.shape[2], tiling.chunk_rows)]
    return np.array([(phase, *chunk, 0 < stop_phase <= phase,
                      layer.prediction is not None and phase == 0 and chunk == chunks[-1], phase == phases[0])
                     for phases in tiling.shared_phases for chunk in chunks for phase in phases], np.int64)


def _bits(present):
    """uint64 [..., blocks] of bool [..., blocks * 64], channel 0 lowest."""
    return np.packbits(present, axis=-1, bitorder="little").view("<u8")


@njit(**OPTIONS)
def walk_step(x_maps, x_values, w_maps, w_values, x_at, x_pitch, w_at, blocks, kernel_columns, block, block_end, row,
              row_end, stop, stopped, total, counts):
    """A step: the words of blocks ``block .. block_end - 1`` and kernel rows ``row .. row_end - 1``.

    The arrays are those of :class:`Operands`, flat. ``x_at``, ``w_at``: places of tap (0, 0) and block 0 of the window
    in ``x_maps``, of phase and lane in ``w_maps``; ``x_pitch``: words from one row of the input to the next. ``counts``
    gets the number of elements (activation and weight are not 0) of each word; nothing is added if the task is
    ``stopped``. Returns the products added, the words up to that of the last one (all, if it was not stopped), the sum,
    and whether it was stopped.
    """
    products, words, number = 0, 0, 0
    for tap_row in range(row, row_end):
        for column in range(kernel_columns):
            x_word = x_at + tap_row * x_pitch + column * blocks
            w_word = (tap_row * kernel_columns + column) * blocks
            for now in range(block, block_end):
                bits = x_maps[x_word + now] & w_maps[w_at + w_word + now]
                counts[number] = count_ones(bits)
                number += 1
                if stopped:
                    continue
                words = number
                x_value, w_value = (x_word + now) * BLOCK, (w_at + w_word + now) * BLOCK
                while bits:
                    channel = first_one(bits)
                    bits &= bits - np.uint64(1)
                    total += np.int64(x_values[x_value + channel]) * np.int64(w_values[w_value + channel])
                    products += 1
                    if stop and total < 0:
                        stopped = True
                        break
    return products, words, total, stopped


@njit(parallel=True, cache=True)
def _walk_rows(x_maps, x_values, w_maps, w_values, steps, starts, thresholds, stride, first, shape, products, words,
               sums, stopped, skipping):
    """All tasks of the windows of the rows from ``first`` on. ``shape``: columns of the padded input, kernel rows and
    columns, blocks, phases."""
    width, kernel_rows, kernel_columns, blocks, phases = shape
    lanes, lane_words = len(starts), kernel_rows * kernel_columns * blocks
    for at in prange(products.shape[1] * products.shape[2]):
        y, x = at // products.shape[2], at % products.shape[2]
        x_at = ((first + y) * stride * width + x * stride) * blocks
        counts = np.empty(lane_words, np.int64)
        for lane in range(lanes):
            total, final, lane_at = starts[lane], False, lane * lane_words
            for number in range(len(steps)):
                phase, block, block_end, row, row_end, stop, predict, begins = steps[number]
                final |= begins and stop and total < 0
                if final:
                    break
                products[number, y, x, lane], words[number, y, x, lane], total, final = walk_step(
                    x_maps, x_values, w_maps, w_values, x_at, width * blocks, phase * lanes * lane_words + lane_at,
                    blocks, kernel_columns, block, block_end, row, row_end, stop, False, total, counts)
                if predict and total < thresholds[lane]:
                    total, final = min(total, -1), True
            sums[y, x, lane], stopped[y, x, lane] = total, final
            for row in range(kernel_rows):
                for word in range(kernel_columns * blocks):
                    w_at, present = lane_at + row * kernel_columns * blocks + word, np.uint64(0)
                    for phase in range(phases):
                        present |= w_maps[phase * lanes * lane_words + w_at]
                    skipping[y, x, lane] += count_ones(x_maps[x_at + row * width * blocks + word] & present)


def walk_tasks(layer: QuantisedLayer, x: np.ndarray, tiling: Tiling, weights: np.ndarray, stop_phase: int, *,
               block: int) -> Iterator[Tasks]:
    """The tasks of all windows, some rows at a time from the top; arguments as of :func:`count_tasks`."""
    if len(weights) != tiling.phases:
        raise ValueError(f"layer {layer.name} has weights of {len(weights)} phases, its tiling {tiling.phases}")
    operands, steps = pack_operands(layer, x, weights, block), _steps(layer, tiling, stop_phase, block)
    (lanes, rows, columns), starts = layer.full_shape, layer.starts
    step = max(1, MEMORY // (columns * lanes * (4 * len(steps) + 13)))
    flat = [array.reshape(-1) for array in vars(operands).values()]
    for row in range(0, rows, step):
        size = (min(step, rows - row), columns, lanes)
        tasks = Tasks(row, np.flatnonzero(steps[:, -1]), *(np.zeros((len(steps), *size), np.uint16) for _ in range(2)),
                      np.zeros(size, np.int64), np.zeros(size, bool), np.zeros(size, np.int32))
        _walk_rows(*flat, steps, *starts, layer.stride, row, operands.shape, *list(vars(tasks).values())[2:])
        yield tasks


def count_tasks(layer: QuantisedLayer, x: np.ndarray, tiling: Tiling, weights: np.ndarray, stop_phase: int, *,
                block: int) -> TaskCounts:
    """The work of ``layer`` on the intersect array, by the rules and in the order of the hardware.

    Parameters
    ----------
    layer : QuantisedLayer
        With 8-bit values.
    x : int array [C, H, W]
        Its input.
    tiling : Tiling
        Its chunks and phases count; each input of the layer begins with a block of channels.
    weights : int8 array [phases, O, C, kh, kw]
        Those of each phase, 0 where a weight has no part in it.
    stop_phase : int
        From this phase on a sum below 0 is final; 0: none is.
    block : int
        Channels of a map word: 16, 32 or 64.

    Raises
    ------
    ValueError
        The weights of the phases do not add up to those of the layer, or are not as many as the tiling has phases.
    """
    totals, phases = [0] * 6, _steps(layer, tiling, stop_phase, block)[:, 0]

    def by_phase(steps):
        """[phases, O] of what is counted in each of ``steps``."""
        return np.stack([steps[phases == phase].sum((0, 1, 2), np.int64) for phase in range(tiling.phases)])
    for tasks in walk_tasks(layer, x, tiling, weights, stop_phase, block=block):
        windows = (0, 1)
        parts = (by_phase(tasks.products), by_phase(tasks.words), by_phase(tasks.words != 0),
                 tasks.stopped.sum(windows),
                 tasks.skipping.sum(windows, np.int64),
                 np.where(tasks.sums >= 0, tasks.skipping, 0).sum(windows, np.int64))
        totals = [total + part for total, part in zip(totals, parts, strict=True)]
    _, rows, columns = layer.full_shape
    return TaskCounts(*totals, layer.weights.size * rows * columns)
