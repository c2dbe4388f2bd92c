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

from hw.config import BEAT, SCALE_BITS, SEGMENT, SHIFT_BITS, AcceleratorConfig

POINTS = Path(__file__).with_name("resource_points.json")
#: DSP slices of the products of addresses and sizes: sequencer 3, descriptor 1, loaders 2, encoders 2 x 2.
FIXED_DSPS = 10
#: DSP slices that requantise a value: its product is done in two parts.
REQUANTISE_DSPS = 2
#: Unsigned bits that a DSP slice takes as a factor, and bits of a product that Yosys leaves to LUTs.
FACTOR_BITS, LUT_PRODUCT_BITS = 24, 8
#: Block RAM of the 7 series, halves and wholes: address bits at a width of 1, widths, price in Yosys' choice, 36 Kb.
BLOCK_RAMS = ((14, (1, 2, 4, 9, 18, 36), 129, 0.5), (15, (1, 2, 4, 9, 18, 36, 72), 257, 1.0))
#: Simple dual-port memory in the LUTs of a slice half: address bits, width.
LUT_RAMS = ((5, 6), (6, 3))
LUTS_OF_LUT_RAM = 4


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
    """The memories of a group and those outside of the groups whose shape depends on the configuration."""
    slots = max(4, 2 * c.lanes // c.block)
    row = max(c.drain, c.values_per_beat)
    # A queue of more than 32 words keeps one of them in a register behind its memory.
    queue = 4 * c.window_words
    group = {
        "map": Memory(2 * c.tile_slots * SEGMENT, c.block + (c.slot_values - 1).bit_length()),
        "values": Memory(2 * c.tile_slots * c.value_beats, BEAT),
        "weights": Memory(2 * c.weight_depth, c.unit_weight_width, c.units),
        "partial": Memory(c.sum_windows * c.window_words, c.drain * c.sum_width),
        "queue": Memory(queue - (queue > 32), c.drain * c.sum_width, sync=queue > 32),
    }
    shared = {
        "pool_rows": Memory(c.window_words << (c.pool_columns - 1).bit_length(), c.drain * c.value_width),
        "pool_columns": Memory(max(2, c.window_words), c.drain * c.value_width),
    }
    shared |= {f"scales{bank}": Memory(2 * c.window_words, c.sum_width + SCALE_BITS + SHIFT_BITS)
               for bank in range(c.drain)}
    for encoder in ("full", "pooled"):
        shared |= {f"{encoder}_maps": Memory(slots * c.map_beats, c.drain, BEAT // c.drain),
                   f"{encoder}_rows": Memory(slots * c.slot_values // row, row * c.value_width),
                   f"{encoder}_tails": Memory(slots, row * c.value_width)}
    return group, shared


def map_memory(memory: Memory) -> tuple[float, int]:
    """36 Kb block RAMs and LUTs of a memory: Yosys takes what its price list makes cheapest."""
    luts = min((_price(memory, bits, width, width, 1) + 7 * _banks(memory, bits) * _bits(memory) / width,
                LUTS_OF_LUT_RAM * _cells(memory, bits, width, width)) for bits, width in LUT_RAMS)
    blocks = min((_price(memory, bits - n, width, min(9, width), price), size * _cells(memory, bits - n, width,
                                                                                       min(9, width)))
                 for bits, widths, price, size in BLOCK_RAMS for n, width in enumerate(widths))
    return (blocks[1], 0) if memory.sync and blocks[0] < luts[0] else (0, luts[1])


def _bits(memory):
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
    choosing = (banks - 1) * _bits(memory) + (banks * memory.parts if banks > 1 else 0)
    return price * _cells(memory, address_bits, width, byte) + choosing / 2


#: What the LUTs that are no memory, and the flip-flops, of a group grow with, and those outside of the groups.
GROUP_TERMS = {
    "a group": lambda c: 1,
    # A sum and its shadow register; the sum of a lane that has a DSP slice to itself is in the slice.
    "bits of lane sums": lambda c: c.lanes * c.lane_sum_width * c.lanes_per_unit,
    "bits drained": lambda c: c.drain * c.sum_width,
}
SHARED_TERMS = {
    "a design": lambda c: 1,
    "bits requantised": lambda c: c.drain * c.sum_width,
}
#: What can be synthesised: the whole design, or a group on its own, which takes a fraction of the time.
PARTS = ("design", "group")


class Point(NamedTuple):
    """A synthesis run: what ``part`` of the design with ``config`` took."""
    part: str
    config: AcceleratorConfig
    resources: Resources


def terms(part: str, c: AcceleratorConfig) -> list[float]:
    """The terms of ``part`` of the design, those of the groups first."""
    groups, shared = (c.groups, 1) if part == "design" else (1, 0)
    return ([groups * term(c) for term in GROUP_TERMS.values()] + [shared * term(c) for term in SHARED_TERMS.values()])


def memory_cells(part: str, c: AcceleratorConfig) -> tuple[float, int]:
    """Block RAMs, and LUTs that are memory, of ``part`` of the design."""
    group, shared = memories(c)
    mapped = [map_memory(memory) for memory in group.values()] * (c.groups if part == "design" else 1)
    if part == "design":
        mapped += [map_memory(memory) for memory in shared.values()]
    return sum(blocks for blocks, _ in mapped), sum(luts for _, luts in mapped)


def dsps(part: str, c: AcceleratorConfig) -> int:
    """DSP slices of ``part`` of the design."""
    if part == "group":
        return c.units
    # The distance of blocks is counted in slots, the words of a chunk of weights up to ``weight_depth``.
    wide_distance = 32 - (c.slot_bytes - 1).bit_length() > FACTOR_BITS
    wide_chunk = c.weight_depth.bit_length() > LUT_PRODUCT_BITS
    return c.groups * c.units + REQUANTISE_DSPS * c.drain + FIXED_DSPS + wide_distance + wide_chunk


@dataclass(frozen=True)
class Model:
    """Coefficients of the terms."""
    luts: tuple[float, ...]
    flip_flops: tuple[float, ...]

    def resources(self, config: AcceleratorConfig, part: str = "design") -> Resources:
        """What ``part`` of the design with ``config`` takes; ``ValueError`` for the intersect array, of which there
        are no synthesis runs."""
        if config.intersect:
            raise ValueError(f"the resource model knows the broadcast array only, and configuration {config.name} has "
                             f"the intersect array; make resources CONFIG={config.name} synthesises it")
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


def leave_one_out(points: Sequence[Point]) -> dict[str, tuple[float, float]]:
    """For LUTs and flip-flops the mean and the largest relative error of predicting a whole design from all other
    runs."""
    errors = {"luts": [], "flip_flops": []}
    for left_out, point in enumerate(points):
        if point.part == "design":
            predicted = fit([*points[:left_out], *points[left_out + 1:]]).resources(point.config)
            for name, found in errors.items():
                found.append(abs(getattr(predicted, name) / getattr(point.resources, name) - 1))
    return {name: (float(np.mean(found)), max(found)) for name, found in errors.items()}
