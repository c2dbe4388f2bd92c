"""From a network and its golden maps to the counters of each layer."""
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from golden.formats import plan_map
from golden.layer import LayerResult, QuantisedLayer
from golden.network import QuantisedNetwork, gather
from golden.tasks import Operands, pack_operands
from golden.tiling import Geometry, Tiling, ceil_div, chunk_spans, pooled_length, share_phases
from hw.config import BEAT, LOCAL_BITS, ROUND_PHASES, SEGMENT, UNPACKED, AcceleratorConfig
from hw.descriptor import DESCRIPTOR_BYTES, FIELDS, unpack
from hw.registers import COUNTERS

from .intersect import simulate_intersect
from .machine import TOTALS, simulate
from .state import LAYER, RUN

#: Most clusters of the intersect array: bits of an integer, with the tile unpacker.
MAX_CLUSTERS = 62
#: Deepest queue without a register at its output (hw/stream/fifo.py).
MAX_LUT_DEPTH = 32


@dataclass(frozen=True)
class MemoryTiming:
    """What the memory behind the AXI bus does; the default is that of ``boards.sim.simulator.Simulator``.

    Parameters
    ----------
    read_latency, write_latency : int
        Cycles from a read address to its first beat, and from the last beat of a write to its response; at least 1.
    cycles_per_beat : int
        Cycles from one beat to the next, of reads and of writes; 1 is the most that a bus can do.
    """
    read_latency: int = 30
    write_latency: int = 30
    cycles_per_beat: int = 1

    def __post_init__(self):
        for name, value in vars(self).items():
            if not isinstance(value, int) or isinstance(value, bool) or value < 1:
                raise ValueError(f"{name} must be a positive integer, not {value!r}")


@dataclass(frozen=True)
class LayerWork:
    """A layer as the model sees it.

    Parameters
    ----------
    fields : dict
        Its descriptor, by field (``hw.descriptor.unpack``).
    words : uint8 array [blocks, in_height, in_width]
        Non-zero values of each sparsity map word of the input.
    full, pooled : uint16 array [blocks, height, segments] or None
        Non-zero values of each slot that the layer writes, before pooling and after; None where it does not write.
    operands, starts : Operands and int array [2, O], or None
        Input and weights, ``QuantisedLayer.starts``: what the time of the intersect array depends on.
    """
    fields: Mapping[str, int]
    words: np.ndarray
    full: np.ndarray | None
    pooled: np.ndarray | None
    operands: Operands | None = None
    starts: np.ndarray | None = None


@dataclass(frozen=True)
class ModelledRun:
    """``layers``: for each layer the counters of ``hw.registers.COUNTERS`` by name; ``accesses``: for each layer the
    counts of ``ACCESSES``; ``cycles``: of the run, from start to interrupt. ``layers`` and ``cycles`` are those of
    ``boards.sim.run.RunResult``."""
    layers: list[dict[str, int]]
    accesses: list[dict[str, int]]
    cycles: int


def _word_counts(values, block):
    """Non-zero values of each map word ``[blocks, H, W]`` of ``values[C, H, W]``."""
    values = np.asarray(values) != 0
    padded = np.pad(values, ((0, -len(values) % block), (0, 0), (0, 0)))
    return padded.reshape(-1, block, *values.shape[1:]).sum(axis=1, dtype=np.uint8)


def _slot_counts(words):
    """Non-zero values of each slot ``[blocks, H, segments]`` from those of its words."""
    blocks, height, width = words.shape
    padded = np.pad(words, ((0, 0), (0, 0), (0, -width % SEGMENT)))
    return padded.reshape(blocks, height, -1, SEGMENT).sum(axis=-1, dtype=np.uint16)


def descriptor_fields(geometry: Geometry, tiling: Tiling, config: AcceleratorConfig) -> dict[str, int]:
    """A descriptor of a layer that nobody has compiled: maps without gaps, everything at address 0.

    Time depends on addresses only where bursts are cut: at multiples of ``max_burst`` beats.
    """
    dense = geometry.dense_shift is not None
    plan = plan_map((geometry.in_channels, geometry.in_height, geometry.in_width), config, dense=dense)
    fields = dict.fromkeys((field.name for field in FIELDS), 0) | vars(tiling) | {
        name: value for name, value in vars(geometry).items() if name != "dense_shift"}
    return fields | {"dense_in": int(dense), "dense_shift": geometry.dense_shift or 0,
                     "write_full": int(geometry.write_full), "tile_overlap": geometry.tile_overlap,
                     "in_row_bytes": plan.row_bytes, "in_segment_bytes": plan.segment_bytes,
                     "in_block_bytes": config.slot_bytes}


def layer_work(fields: Mapping[str, int], inputs: Sequence[np.ndarray], full: np.ndarray | None,
               pooled: np.ndarray | None, config: AcceleratorConfig) -> LayerWork:
    """The work of a layer with a descriptor ``fields``.

    Parameters
    ----------
    inputs : sequence of arrays [C, H, W]
        What it reads, a map or slice after the other; each starts with a new block of channels. Only what is 0 and
        what is not matters.
    full, pooled : array [O, H, W] or None
        What it writes before and after pooling; None where the descriptor asks for no such map.

    Raises
    ------
    ValueError
        The maps are not of the sizes that the descriptor gives.
    """
    words = np.concatenate([_word_counts(part, config.block) for part in inputs])
    blocks = ceil_div(fields["in_channels"], config.block)
    expected = blocks, fields["in_height"], fields["in_width"]
    if words.shape != expected:
        raise ValueError(f"the descriptor reads {expected} (blocks of {config.block} channels, rows, columns), the "
                         f"input has {words.shape}")
    height, width = fields["out_height"], fields["out_width"]
    written = []
    for name, values, wanted, size in (
            ("full", full, fields["write_full"], (height, width)),
            ("pooled", pooled, fields["pool"], [pooled_length(side, fields["pool"]) for side in (height, width)])):
        expected = (fields["out_channels"], *size) if wanted else None
        if (None if values is None else np.shape(values)) != expected:
            raise ValueError(f"the descriptor writes a {name} map of {expected}, not of "
                             f"{None if values is None else np.shape(values)}")
        written.append(_slot_counts(_word_counts(values, config.block)) if wanted else None)
    return LayerWork(fields, words, *written)


def model_network(network: QuantisedNetwork, maps: Mapping[str, np.ndarray], results: Mapping[str, LayerResult],
                  descriptors: bytes, config: AcceleratorConfig, *,
                  split: Callable[[QuantisedLayer, int, int], np.ndarray] | None = None,
                  memory: MemoryTiming | None = None,
                  descriptor_address: int = 0, log_address: int = 0) -> ModelledRun:
    """The counters of every layer of a network that runs on one input.

    Parameters
    ----------
    network, maps, results
        A network, and what ``golden.network.run_network`` returned for it and the input.
    descriptors : bytes
        The packed descriptors of the layers, in their order: tilings and addresses (``Program.segments[0][1]``).
    config : AcceleratorConfig
    split : callable
        Intersect array: ``split(layer, phases, joined)`` gives the weights of each phase, ``[phases, O, C, kh, kw]``:
        ``compiler.phases.phase_weights`` for what the compiler made.
    memory : MemoryTiming, optional
    descriptor_address, log_address : int
        As in the registers of these names: bursts are cut at their addresses; no log is written at 0.

    Raises
    ------
    ValueError
        The descriptors are not those of this network.
    """
    if len(descriptors) != len(network.layers) * DESCRIPTOR_BYTES:
        raise ValueError(f"{len(descriptors)} bytes are not the descriptors of {len(network.layers)} layers, "
                         f"{DESCRIPTOR_BYTES} bytes each")
    layers = []
    for number, layer in enumerate(network.layers):
        fields = unpack(descriptors[number * DESCRIPTOR_BYTES:][:DESCRIPTOR_BYTES])
        inputs = [maps[part.map][part.first:part.first + part.channels] for part in layer.inputs]
        result = results[layer.name]
        try:
            work = layer_work(fields, inputs, result.full if fields["write_full"] else None, result.pooled, config)
            if config.intersect and split:
                weights = split(layer, fields["phases"], fields["joined"])
                operands = pack_operands(layer, gather(maps, layer.inputs), weights, config.block)
                work = replace(work, operands=operands, starts=np.stack(layer.starts))
            layers.append(work)
        except ValueError as error:
            raise ValueError(f"layer {layer.name}: {error}") from None
    return model_run(layers, config, memory=memory, descriptor_address=descriptor_address, log_address=log_address)


def model_run(layers: Sequence[LayerWork], config: AcceleratorConfig, *, memory: MemoryTiming | None = None,
              descriptor_address: int = 0, log_address: int = 0) -> ModelledRun:
    """The same for layers whose work is known: random sparsity maps, for one.

    ``ValueError`` if the run does not end, or if a layer for the intersect array has no operands. Descriptors that the
    hardware refuses are not looked for: ``golden.tiling.check_tiling``.
    """
    if config.intersect and any(layer.operands is None for layer in layers):
        raise ValueError(f"configuration {config.name} has the intersect array, whose time depends on values: the "
                         f"cycle model needs operands of its layers, or split")
    if config.groups * config.clusters > MAX_CLUSTERS:
        raise ValueError(f"the cycle model knows at most {MAX_CLUSTERS} clusters, and configuration {config.name} has "
                         f"{config.groups * config.clusters}")
    if not layers:
        return ModelledRun([], [], 1)
    run = _run_record(config, memory or MemoryTiming(), len(layers), descriptor_address, log_address)
    arrays = [[], [], [], []]
    records = np.zeros(len(layers), LAYER)
    starts = [0, 0, 0, 0]
    for record, layer in zip(records, layers, strict=True):
        for name, value in layer.fields.items():
            record[name] = value
        slots = _slot_counts(layer.words)
        record["in_segments"] = slots.shape[-1]
        record["dense_beats"] = config.map_beats
        if layer.fields["dense_in"]:
            record["dense_beats"] = max(1, (SEGMENT << layer.fields["dense_shift"]) // config.values_per_beat)
        for name, counts in (("full", layer.full), ("pool", layer.pooled)):
            if counts is not None:
                record[f"{name}_rows"], record[f"{name}_segments"] = counts.shape[1:]
        for place, (name, counts) in enumerate((("words", layer.words), ("slots", slots), ("full", layer.full),
                                                ("pool", layer.pooled))):
            record[f"{name}_at"] = starts[place]
            if counts is not None:
                arrays[place].append(counts.reshape(-1))
                starts[place] += counts.size
    counts = [np.concatenate([np.zeros(0, np.uint16), *parts]) for parts in arrays]
    if config.intersect:
        totals, cycles = simulate_intersect(run, records, *counts, *_place_operands(layers, records, config),
                                            ROUND_PHASES * config.weight_words)
    else:
        totals, cycles = simulate(run, records, *counts)
    if cycles < 0:
        raise ValueError("the run never ends: the descriptors are not legal on this configuration")
    spent = totals[1::2] - totals[::2]
    layers = [dict(zip(TOTALS, map(int, row), strict=True)) for row in spent]
    return ModelledRun([_counters(total, config) for total in layers], [_accesses(total, config) for total in layers],
                       cycles)


def _place_operands(layers, records, config):
    """The operands of all layers, one behind the other, and the beats of the rounds of their kernel blocks; ``records``
    say where those of each layer begin."""
    places = {name: [] for name in ("x_at", "x_values", "maps_at", "w_values", "bias_at", "thresholds", "beats_at")}
    starts = dict.fromkeys(places, 0)
    for record, layer in zip(records, layers, strict=True):
        operands = layer.operands
        record["x_columns"], _, _, record["in_blocks"], _ = operands.shape
        for name, array, size in (("x_at", operands.x_maps, operands.x_maps.size),
                                  ("x_values", operands.x_values, 0),
                                  ("maps_at", operands.w_maps, operands.w_maps.size),
                                  ("w_values", operands.w_values, 0),
                                  ("bias_at", layer.starts[0].astype(np.int64), layer.starts.shape[1]),
                                  ("thresholds", layer.starts[1].astype(np.int64), 0),
                                  ("beats_at", _round_beats(operands, layer.fields, config),
                                   ceil_div(layer.starts.shape[1], config.lanes))):
            if size:
                record[name] = starts[name]
            places[name].append(array.reshape(-1))
            starts[name] += size
    *operands, beats = (np.concatenate(parts) for parts in places.values())
    return tuple(operands), beats


def _round_beats(operands, fields, config):
    """Beats of all rounds of each kernel block: start, maps and values of each lane (golden/README.md)."""
    counts = np.bitwise_count(operands.w_maps)
    beats = np.zeros(operands.w_maps.shape[1], np.int64)
    for first, end in chunk_spans(fields["in_channels"], fields["chunk_channels"]):
        for row, row_end in chunk_spans(fields["kernel_rows"], fields["chunk_rows"]):
            chunk = counts[:, :, row:row_end, :, first // config.block:ceil_div(end, config.block)]
            values = chunk.sum((2, 3, 4), np.int64)
            for phases in share_phases(len(values), fields["joined"]):
                maps = ceil_div(len(phases) * chunk[0, 0].size * config.block, BEAT)
                beats += 1 + maps + ceil_div(values[phases].sum(0), config.values_per_beat)
    return np.add.reduceat(beats, np.arange(0, len(beats), config.lanes))


def _run_record(config, memory, layers, descriptor_address, log_address):
    run = np.zeros(1, RUN)
    capacity = 4 * config.window_words
    address_bits = (2 * config.tile_slots * SEGMENT - 1).bit_length()
    for name, value in dict(
            groups=config.groups, lanes=config.lanes, block=config.block, drain=config.drain,
            max_burst=config.max_burst, values_per_beat=config.values_per_beat, map_beats=config.map_beats,
            block_words=config.block_words, slots=max(4, 2 * config.lanes // config.block),
            setup=max(address_bits, LOCAL_BITS + 2) + 1, capacity=capacity,
            sums_latency=1 if capacity <= MAX_LUT_DEPTH else 2, clusters=config.clusters, pes=config.pes,
            cluster_lanes=config.cluster_lanes, sum_windows=config.sum_windows, joins=config.drain // config.clusters,
            joined_words=config.joined_words, parts=config.block // UNPACKED, descriptor_address=descriptor_address,
            log_address=log_address, layers=layers, **vars(memory)).items():
        run[name] = value
    return run


def _counters(total, config):
    """The counters of ``hw.registers.COUNTERS``; a group that is neither busy nor stalled has no job."""
    counters = {"cycles": total["cycle"]} | {name: total[name] for name, _ in COUNTERS if name in total}
    spent = sum(total[name] for name in ("busy", "stall_output", "stall_tile", "stall_weights", "stall_find"))
    counters["idle"] = counters["cycles"] * config.groups - spent
    return {name: counters[name] for name, _ in COUNTERS}


def _accesses(total, config):
    if config.intersect:
        return _intersect_accesses(total, config)
    return {
        "multiplications": total["lane_cycles"], "weight_reads": total["busy"] * config.lanes,
        "weight_writes": total["weight_beats"] * config.groups, "map_reads": total["map_reads"],
        "map_writes": total["map_words"] * config.groups, "value_reads": total["busy"],
        "value_writes": total["value_beats"] * config.groups, "sum_reads": total["sum_reads"],
        "sum_writes": total["sum_writes"], "dram_reads": total["read_beats"], "dram_writes": total["write_beats"],
    }


def _intersect_accesses(total, config):
    """Every PE has the tile, and the weights of its cluster, in its own memories; a product reads a row of each."""
    products, pes = total["lane_cycles"], config.total_lanes
    return {
        "multiplications": products, "weight_reads": products,
        "weight_writes": total["weight_beats"] * config.groups * config.pes, "map_reads": total["map_reads"],
        "map_writes": total["map_words"] * (1 + pes), "value_reads": products,
        "value_writes": total["value_beats"] + total["unpacked"] * UNPACKED // config.values_per_beat * pes,
        "sum_reads": total["sum_reads"], "sum_writes": total["sum_writes"], "dram_reads": total["read_beats"],
        "dram_writes": total["write_beats"],
    }
