"""What a configuration takes of a Zynq-7000, without synthesis.

Block RAMs and memories in LUTs follow from the shapes of the memories by the rule that Yosys chooses with, DSP slices
from the multipliers. The other LUTs and the flip-flops are a sum of ``TERMS``, fitted to real synthesis runs
(``resource_points.json``, ``make resource-points``) so that the squared relative error is least. How far that is off is
measured: each run is left out of the fit once and predicted (:func:`leave_one_out`).
"""
import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import NamedTuple

import numpy as np

from hw.config import (
    BEAT,
    ROUND_PHASES,
    SCALE_BITS,
    SEGMENT,
    SHIFT_BITS,
    UNPACKED,
    AcceleratorConfig,
    is_power_of_two,
)

POINTS = Path(__file__).with_name("resource_points.json")
#: DSP slices of the products of addresses and sizes: sequencer 3, descriptor 1, tile loader 1, encoders 2 x 2.
FIXED_DSPS = 9
#: DSP slices that requantise a value: its product is done in two parts.
REQUANTISE_DSPS = 2
#: Unsigned bits that a DSP slice takes as a factor, and bits of a product that Yosys leaves to LUTs.
FACTOR_BITS, LUT_PRODUCT_BITS = 24, 8
#: Block RAM of the 7 series, halves and wholes: address bits at a width of 1, widths, price in Yosys' choice, 36 Kb.
BLOCK_RAMS = ((14, (1, 2, 4, 9, 18, 36), 129, 0.5), (15, (1, 2, 4, 9, 18, 36, 72), 257, 1.0))
#: Simple dual-port memory in the LUTs of a slice half: address bits, width.
LUT_RAMS = ((5, 6), (6, 3))
LUTS_OF_LUT_RAM = 4
#: Intersect array: bits beside the address of an offset; tasks in a PE, bits of one beside addresses; words that wait
#: there, bits of one beside map word and addresses; bits of a job beside the numbers of lanes and words.
OFFSET_BITS, TASKS, TASK_BITS, WORK_WORDS, WORK_BITS, JOB_BITS = 7, 2, 20, 32, 3, 111


class Resources(NamedTuple):
    """Cells of a design, or of a chip: LUTs (memories included), flip-flops, DSP slices, 36 Kb block RAMs."""
    luts: float
    flip_flops: float
    dsps: float
    block_rams: float

    def shares(self, chip: "Resources") -> tuple[float, ...]:
        """Share that this takes of ``chip``, for each kind of cell."""
        return tuple(used / there for used, there in zip(self, chip, strict=True))


class Memory(NamedTuple):
    """Words, and the parts of ``width`` bits of a word, which are written separately. ``sync``: it is read through a
    register, so that it may be a block RAM."""
    depth: int
    width: int
    parts: int = 1
    sync: bool = True


def memories(c: AcceleratorConfig) -> tuple[dict[str, Memory], dict[str, Memory]]:
    """The memories of a group, or of a cluster of the intersect array, and those outside of them whose shape depends on
    the configuration."""
    slots = max(4, 2 * c.lanes // c.block)
    row = max(c.drain, c.values_per_beat)
    shared = {
        "pool_rows": Memory(c.window_words << _bits(c.pool_columns), c.drain * c.value_width),
        "pool_columns": Memory(max(2, c.window_words), c.drain * c.value_width),
    }
    shared |= {f"scales{bank}": Memory(2 * c.window_words, c.sum_width + SCALE_BITS + SHIFT_BITS)
               for bank in range(c.drain)}
    for encoder in ("full", "pooled"):
        shared |= {f"{encoder}_maps": Memory(slots * c.map_beats, c.drain, BEAT // c.drain),
                   f"{encoder}_rows": Memory(slots * c.slot_values // row, row * c.value_width),
                   f"{encoder}_tails": Memory(slots, row * c.value_width)}
    if c.intersect:
        return _cluster_memories(c), shared | _unpacking_memories(c)
    return _group_memories(c), shared


def _group_memories(c):
    # A queue of more than 32 words keeps one of them in a register behind its memory.
    queue = 4 * c.window_words
    return {
        "map": Memory(2 * c.tile_slots * SEGMENT, c.block + _bits(c.slot_values)),
        "values": Memory(2 * c.tile_slots * c.value_beats, BEAT),
        "weights": Memory(2 * c.weight_depth, c.unit_weight_width, c.units),
        "partial": Memory(c.sum_windows * c.window_words, c.drain * c.sum_width),
        "queue": Memory(queue - (queue > 32), c.drain * c.sum_width, sync=queue > 32),
    }


def _cluster_memories(c):
    pixels, words = _tile_pixels(c), _cluster_words(c)
    found = {
        "sums": Memory(c.sum_windows * c.cluster_lanes, c.sum_width + 1),
        "marks": Memory(c.sum_windows, 1, c.cluster_lanes, sync=False),
        "starts": Memory(2 * c.cluster_lanes, c.sum_width, sync=False),
        "thresholds": Memory(2 * c.cluster_lanes, c.sum_width, sync=False),
    }
    for n in range(c.pes):
        found |= {
            f"tile_map{n}": Memory(pixels, c.block),
            f"tile_values{n}": Memory(pixels * c.block // UNPACKED, UNPACKED * c.value_width),
            f"phase_map{n}": Memory(ROUND_PHASES * words, c.block),
            f"weights{n}": Memory(words * c.block_groups, BEAT),
            f"offsets{n}": Memory(2 << _bits(c.weight_words), _bits(pixels) + OFFSET_BITS, sync=False),
            f"tasks{n}": Memory(TASKS, _bits(pixels) + _bits(words) + TASK_BITS, sync=False),
            f"fetches{n}": Memory(TASKS, 2 * _bits(c.weight_words) + 2 * _bits(ROUND_PHASES), sync=False),
            f"task_sums{n}": Memory(TASKS, c.sum_width, sync=False),
            f"queue{n}": Memory(WORK_WORDS, c.block + _bits(pixels) + _bits(words) + WORK_BITS, sync=False),
        }
    return found


def _unpacking_memories(c):
    """Those that put tiles and weights in their places, of jobs before that and before each cluster, and of sums."""
    found = {
        "packed_map": Memory(_tile_pixels(c), c.block + _bits(c.slot_values)),
        # Of 64 beats; one of them is in a register.
        "round_beats": Memory(63, BEAT),
    }
    for cluster in range(c.clusters):
        found |= {f"round_maps{cluster}": Memory(c.weight_words, c.block, sync=False),
                  f"round_beats{cluster}": Memory(63, BEAT)}
    found |= {f"joined{group}": Memory(c.joined_words, c.clusters * c.sum_width, c.drain // c.clusters, sync=False)
              for group in range(c.groups)}
    found |= {f"packed_rows{n}": Memory(c.tile_slots * c.slot_values // UNPACKED, BEAT, UNPACKED // c.values_per_beat)
              for n in range(2)}
    return found | {f"jobs{n}": Memory(4, JOB_BITS + c.lanes.bit_length() + c.window_words.bit_length(), sync=False)
                    for n in range(c.groups * c.clusters + 1)}


def _bits(count):
    """Of a number below ``count``."""
    return (count - 1).bit_length()


def _tile_pixels(c):
    """Pixels and blocks of both halves of a tile."""
    return 2 * c.tile_slots * SEGMENT


def _cluster_words(c):
    """Map words of both halves of the weights of a cluster."""
    return 2 * c.cluster_lanes * c.weight_words


@cache
def map_memory(memory: Memory) -> tuple[float, int]:
    """36 Kb block RAMs and LUTs of a memory: Yosys takes what its price list makes cheapest."""
    luts = min((_price(memory, bits, width, width, 1) + 7 * _banks(memory, bits) * _width(memory) / width,
                LUTS_OF_LUT_RAM * _cells(memory, bits, width, width)) for bits, width in LUT_RAMS)
    blocks = min((_price(memory, bits - n, width, min(9, width), price), size * _cells(memory, bits - n, width,
                                                                                       min(9, width)))
                 for bits, widths, price, size in BLOCK_RAMS for n, width in enumerate(widths))
    return (blocks[1], 0) if memory.sync and blocks[0] < luts[0] else (0, luts[1])


def _width(memory):
    return memory.width * memory.parts


def _banks(memory, address_bits):
    """Cells one above the other that hold all words."""
    return -(-memory.depth >> address_bits)


def _cells(memory, address_bits, width, byte):
    """Cells of ``width`` bits; a part that is written separately starts with a new byte."""
    whole = memory.parts * (-(-memory.width // byte) * byte)
    return -(-_banks(memory, address_bits) * whole // width)


def _price(memory, address_bits, width, byte, price):
    """``price`` a cell, and half a point for each bit that is chosen from banks and each enable of a bank."""
    banks = _banks(memory, address_bits)
    choosing = (banks - 1) * _width(memory) + (banks * memory.parts if banks > 1 else 0)
    return price * _cells(memory, address_bits, width, byte) + choosing / 2


#: What the LUTs that are no memory, and the flip-flops, of a part of the design grow with.
TERMS = {
    "group": {
        "a group": lambda c: 1,
        # A sum and its shadow register; the sum of a lane that has a DSP slice to itself is in the slice.
        "bits of lane sums": lambda c: c.lanes * c.lane_sum_width * c.lanes_per_unit,
        "bits drained": lambda c: c.drain * c.sum_width,
    },
    "cluster": {
        "a cluster": lambda c: 1,
        "lanes of a cluster": lambda c: c.cluster_lanes,
        "PEs": lambda c: c.pes,
        "bits of map words": lambda c: c.pes * c.block,
        "bits of addresses": lambda c: c.pes * (_bits(_tile_pixels(c)) + _bits(_cluster_words(c))),
    },
    # Outside of groups and clusters: with either array, and with the intersect array alone.
    "shared": {
        "a design": lambda c: 1,
        "bits requantised": lambda c: c.drain * c.sum_width,
    },
    "intersect": {
        "an intersect array": lambda c: 1,
        "weight loaders": lambda c: c.clusters,
        "bits joined": lambda c: c.groups * c.drain * c.sum_width,
    },
}
ARRAYS = ("broadcast", "intersect")
#: What can be synthesised: the whole design, or a group or cluster on its own, which takes a fraction of the time.
PARTS = ("design", "group", "cluster")


class Point(NamedTuple):
    """A synthesis run: what ``part`` of the design with ``config`` took."""
    part: str
    config: AcceleratorConfig
    resources: Resources


def _unit(c):
    """The part that a design has many of."""
    return "cluster" if c.intersect else "group"


def _units(part, c):
    """How many of them ``part`` of the design is or has."""
    return c.groups * c.clusters if part == "design" else 1


def terms(part: str, c: AcceleratorConfig) -> list[float]:
    """The terms of ``part`` of the design, in the order of ``TERMS``."""
    counts = {_unit(c): _units(part, c)}
    if part == "design":
        counts |= {"shared": 1, "intersect": int(c.intersect)}
    return [counts[name] * term(c) if counts.get(name) else 0 for name, found in TERMS.items()
            for term in found.values()]


def memory_cells(part: str, c: AcceleratorConfig) -> tuple[float, int]:
    """Block RAMs, and LUTs that are memory, of ``part`` of the design."""
    own, shared = memories(c)
    mapped = [map_memory(memory) for memory in own.values()] * _units(part, c)
    if part == "design":
        mapped += [map_memory(memory) for memory in shared.values()]
    return sum(blocks for blocks, _ in mapped), sum(luts for _, luts in mapped)


def dsps(part: str, c: AcceleratorConfig) -> int:
    """DSP slices of ``part`` of the design."""
    if part == "group":
        return c.units
    if part == "cluster":
        return sum(_cluster_dsps(c))
    if c.intersect:
        each, once = _cluster_dsps(c)
        # Clusters, and what unpacks a tile: it counts slots and words.
        array = _units(part, c) * each + once + 2 * (c.tile_slots.bit_length() > LUT_PRODUCT_BITS)
    else:
        # The weight loader; it counts the words of a chunk, up to ``weight_depth``.
        array = c.groups * c.units + 1 + (c.weight_depth.bit_length() > LUT_PRODUCT_BITS)
    # The distance of blocks is counted in slots.
    wide_distance = 32 - (c.slot_bytes - 1).bit_length() > FACTOR_BITS
    return array + REQUANTISE_DSPS * c.drain + FIXED_DSPS + wide_distance


def _cluster_dsps(c):
    """Of each cluster; and of what all clusters write at the same addresses, which are worked out once.

    The first word of a lane is a product where the words of a lane are no power of two; places in a tile are products
    of rows of segments.
    """
    strided = _bits(_cluster_words(c)) > LUT_PRODUCT_BITS and not is_power_of_two(c.weight_words)
    wide_tile = _bits(_tile_pixels(c) // SEGMENT) > LUT_PRODUCT_BITS
    return c.pes + strided + 3 * wide_tile, 2 * strided


@dataclass(frozen=True)
class Model:
    """Coefficients of the terms."""
    luts: tuple[float, ...]
    flip_flops: tuple[float, ...]

    def resources(self, config: AcceleratorConfig, part: str = "design") -> Resources:
        """What ``part`` of the design with ``config`` takes."""
        blocks, luts = memory_cells(part, config)
        values = np.array(terms(part, config))
        return Resources(round(float(values @ self.luts)) + luts, round(float(values @ self.flip_flops)),
                         dsps(part, config), blocks)


def fit(points: Sequence[Point]) -> Model:
    """The model of least squared relative error on ``points``.

    A term that would be negative is left out, and so is one that the points cannot tell from those before it.
    """
    rows = [terms(point.part, point.config) for point in points]
    luts = [point.resources.luts - memory_cells(point.part, point.config)[1] for point in points]
    return Model(_coefficients(rows, luts), _coefficients(rows, [point.resources.flip_flops for point in points]))


def _coefficients(rows, targets):
    weighted = np.array(rows, float) / np.array(targets, float)[:, None]
    kept = []
    for column in range(weighted.shape[1]):
        # In units of the largest value, so that the rank does not depend on the units of the terms.
        scaled = weighted[:, [*kept, column]] / np.abs(weighted[:, [*kept, column]]).max(axis=0).clip(1e-12)
        if np.linalg.matrix_rank(scaled, tol=1e-3) > len(kept):
            kept.append(column)
    while True:
        found = np.linalg.lstsq(weighted[:, kept], np.ones(len(targets)), rcond=None)[0]
        if found.min() >= 0:
            break
        kept.pop(int(found.argmin()))
    result = np.zeros(weighted.shape[1])
    result[kept] = found
    return tuple(result.tolist())


def load_points(path: Path = POINTS) -> list[Point]:
    """The synthesis runs in ``path``, which ``make resource-points`` writes."""
    return [Point(run["part"], AcceleratorConfig(**run["config"]), Resources(**run["resources"]))
            for run in json.loads(path.read_text())["points"]]


@cache
def calibrated() -> Model:
    """The model fitted to all synthesis runs."""
    return fit(load_points())


def leave_one_out(points: Sequence[Point], array: str) -> dict[str, tuple[float, float]]:
    """For LUTs and flip-flops the mean and the largest relative error of predicting a whole design with ``array`` from
    all other runs."""
    errors = {"luts": [], "flip_flops": []}
    for left_out, point in enumerate(points):
        if point.part == "design" and point.config.array == array:
            predicted = fit([*points[:left_out], *points[left_out + 1:]]).resources(point.config)
            for name, found in errors.items():
                found.append(abs(getattr(predicted, name) / getattr(point.resources, name) - 1))
    return {name: (float(np.mean(found)), max(found)) for name, found in errors.items()}
