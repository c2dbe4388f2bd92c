"""A quantised network to the contents of DRAM: descriptors, weight images and places for the maps.

The region starts with the descriptors; the log of counters, the weight images and the maps follow. No map shares memory
with another, so that every one can be read after a run.

A layer writes whole blocks of channels: every target starts at a multiple of ``config.block``, and every block of a map
has one writer. The blocks that a layer reads lie at one distance from each other: those of one slice, or one block each
of two maps. Maps that are read together get segments of the same size.

Source: golden/README.md, "Loop order"; hw/descriptor.py.
"""
from dataclasses import dataclass, field, replace
from itertools import pairwise

import numpy as np

from golden.cycles import PhaseWork, even_work
from golden.formats import MAP_ALIGNMENT, MapPlan, decode, dense_channels, encode, plan_map
from golden.layer import QuantisedLayer, Slice
from golden.network import QuantisedNetwork, linked, run_network
from golden.postprocess import value_limits
from golden.tiling import Tiling, ceil_div
from hw.config import AcceleratorConfig
from hw.descriptor import DESCRIPTOR_BYTES, pack
from hw.registers import LOG_BYTES

from .phases import NEGATIVE_CLASSES, needs_whole, phase_counts, stop_phase
from .tile import DENSITY, Choice, choose_tiling
from .weights import weight_image

#: Weight images start at multiples of this: no first burst is cut at 4 KiB for want of alignment.
WEIGHT_ALIGNMENT = 64
#: Tiles that a descriptor can count.
MAX_TILES = (1 << 16) - 1


@dataclass(frozen=True)
class Program:
    """What a driver puts into DRAM and registers to run a network.

    Parameters
    ----------
    config : AcceleratorConfig
    network : QuantisedNetwork
    base, memory_bytes : int
        The region of DRAM that the program takes.
    segments : list of (address, bytes)
        Initial contents, without the input (:meth:`encode_input`). All else may hold anything.
    descriptor_address, layer_count, log_address : int
        Values of the registers of these names.
    maps : dict of str to MapPlan
    layers : list of str
        Names in the order of the descriptors.
    choices : dict of str to Choice
        Tiling of each layer and its estimate.
    """
    config: AcceleratorConfig
    network: QuantisedNetwork
    base: int
    memory_bytes: int
    segments: list[tuple[int, bytes]]
    descriptor_address: int
    layer_count: int
    log_address: int
    maps: dict[str, MapPlan]
    layers: list[str]
    choices: dict[str, Choice] = field(default_factory=dict)

    def encode_input(self, x: np.ndarray) -> tuple[int, bytes]:
        """Address and bytes of the integer input ``x[C, H, W]``."""
        plan = self.maps[self.network.input_name]
        return plan.address, encode(np.asarray(x).transpose(1, 2, 0), self.config, plan)

    def read_map(self, name: str, dram: np.ndarray) -> np.ndarray:
        """Map ``name`` as integers ``[C, H, W]`` from the bytes (uint8) of the program's region of DRAM."""
        plan = self.maps[name]
        first = plan.address - self.base
        image = np.asarray(dram[first:first + plan.size], np.uint8).tobytes()
        return decode(image, self.config, plan).transpose(2, 0, 1).astype(np.int64)

    def expected(self, x: np.ndarray) -> dict[str, np.ndarray]:
        """Every map ``[C, H, W]`` by the golden model for the integer input ``x[C, H, W]``."""
        return run_network(self.network, x)[0]

    def load(self, x: np.ndarray) -> np.ndarray:
        """The bytes (uint8) of the whole region with the input ``x[C, H, W]`` in place."""
        dram = np.zeros(self.memory_bytes, np.uint8)
        for address, data in [*self.segments, self.encode_input(x)]:
            dram[address - self.base:address - self.base + len(data)] = np.frombuffer(data, np.uint8)
        return dram

    def explain(self) -> str:
        """Tiling and estimate of each layer, for people."""
        return "\n".join(f"{name}: {choice.explain()}" for name, choice in self.choices.items())


class _Region:
    """Hands out addresses one after the other."""
    def __init__(self, base):
        self.next = base

    def take(self, size, alignment):
        address = ceil_div(self.next, alignment) * alignment
        self.next = address + size
        return address


def compile_network(quantised: QuantisedNetwork, config: AcceleratorConfig, *, base_address: int = 0x1000_0000,
                    tilings: dict[str, Tiling] | None = None, densities: dict[str, float] | None = None,
                    work: dict[str, PhaseWork] | None = None) -> Program:
    """The program that runs ``quantised`` on ``config``.

    Parameters
    ----------
    quantised : QuantisedNetwork
    config : AcceleratorConfig
        Of the same value width.
    base_address : int
        Where the program's region of DRAM starts, a multiple of 4096.
    tilings : dict of str to Tiling, optional
        Use these for the layers named, instead of searching.
    densities : dict of str to float, optional
        Fraction of non-zero values of the maps named, for the cost of a tiling.
    work : dict of str to PhaseWork, optional
        Intersect array: the phases of the layers named, and what they have to do (:mod:`compiler.profile`). Other
        layers have :data:`~compiler.phases.NEGATIVE_CLASSES` phases of negative weights where stopping is exact.

    Raises
    ------
    ValueError
        The widths differ, a layer has a prediction and ``config`` the broadcast array, a layer reads or writes what the
        hardware cannot address, a layer does not fit, or the region exceeds 32-bit addresses.
    """
    if base_address % MAP_ALIGNMENT:
        raise ValueError(f"base_address must be a multiple of {MAP_ALIGNMENT}, not {base_address:#x}")
    check_network(quantised, config)
    region = _Region(base_address)
    layers = [_with_whole_blocks(layer, quantised, config) for layer in quantised.layers]
    descriptors = region.take(DESCRIPTOR_BYTES * len(layers), MAP_ALIGNMENT)
    log = region.take(LOG_BYTES * len(layers), LOG_BYTES)
    choices = {layer.name: _choose(quantised, layer, config, densities or {}, (work or {}).get(layer.name),
                                   (tilings or {}).get(layer.name)) for layer in layers}
    segments, addresses = [], {}
    for layer in layers:
        image = weight_image(layer, choices[layer.name].tiling, config)
        addresses[layer.name] = region.take(len(image), WEIGHT_ALIGNMENT)
        segments.append((addresses[layer.name], image))
    maps = _place_maps(quantised, config, region)
    end = ceil_div(region.next, MAP_ALIGNMENT) * MAP_ALIGNMENT
    if end > 1 << 32:
        raise ValueError(f"the program ends at {end:#x}, beyond 32-bit addresses")
    words = b"".join(_descriptor(layer, choices[layer.name], addresses[layer.name], maps, config) for layer in layers)
    return Program(config, quantised, base_address, end - base_address, [(descriptors, words), *segments], descriptors,
                   len(layers), log, maps, [layer.name for layer in layers], choices)


def check_network(quantised: QuantisedNetwork, config: AcceleratorConfig) -> None:
    """``ValueError`` if ``config`` cannot run ``quantised``, whatever the tiling."""
    if quantised.value_width != config.value_width:
        raise ValueError(f"the network has {quantised.value_width}-bit values, configuration {config.name} "
                         f"{config.value_width}-bit ones")
    if not config.intersect and (names := [layer.name for layer in quantised.layers if layer.prediction is not None]):
        raise ValueError(f"layer {names[0]} has a prediction, which configuration {config.name} cannot use: it has the "
                         f"broadcast array")
    _check_targets(quantised, config)
    _check_signs(quantised)


def _check_targets(quantised, config):
    """``ValueError`` if a target does not start with a block, or a block of a map has no writer."""
    written = {name: set() for name in quantised.maps}
    for layer in quantised.layers:
        for target in layer.targets:
            if target.first % config.block:
                raise ValueError(f"layer {layer.name} writes {target.map} from channel {target.first} on, which must "
                                 f"be a multiple of {config.block} on configuration {config.name}")
            written[target.map] |= set(range(target.first, target.first + len(layer.weights), config.block))
    del written[quantised.input_name]
    for name, blocks in written.items():
        for first in range(0, quantised.maps[name][0], config.block):
            if first not in blocks:
                raise ValueError(f"no layer writes channels {first} to {first + config.block - 1} of {name}, which are "
                                 f"a block on configuration {config.name}")


def _check_signs(quantised):
    """``ValueError`` if a layer takes a signed map for an unsigned one, or writes what its map cannot hold."""
    for layer in quantised.layers:
        for part in layer.inputs:
            if quantised.signed(part.map) != layer.signed_in:
                raise ValueError(f"layer {layer.name} takes the values of {part.map} for "
                                 f"{'signed' if layer.signed_in else 'unsigned'} ones, which they are not")
        for target in layer.targets:
            low, high = value_limits(quantised.value_width, quantised.signed(target.map))
            if layer.low < low or layer.high > high:
                raise ValueError(f"layer {layer.name} writes {layer.low} to {layer.high} to {target.map}, which holds "
                                 f"{low} to {high}")


def _with_whole_blocks(layer, quantised, config):
    """``layer`` as the hardware sees it: each input starts with a block, so weights of 0 fill up the one before it."""
    columns, start = [], 0
    for part in layer.inputs:
        if part.first % config.block:
            raise ValueError(f"layer {layer.name} reads {part.map} from channel {part.first} on, which must be a "
                             f"multiple of {config.block} on configuration {config.name}")
        end = part.first + part.channels
        fill = -end % config.block
        if fill and _has_writer(quantised, part.map, end, end + fill):
            raise ValueError(f"layer {layer.name} reads channels {part.first} to {end - 1} of {part.map} and so a part "
                             f"of a block: it must read up to channel {end + fill - 1} or to the end of what is "
                             f"written, with weights of 0 where it needs nothing")
        columns += [*range(start, start + part.channels), *[-1] * fill]
        start += part.channels
    columns = np.array(columns[:-fill or None])
    prediction = layer.prediction
    if prediction is not None:
        prediction = replace(prediction, weights=_take_channels(prediction.weights, columns))
    turns = layer.turns if layer.turns is None else _take_channels(layer.turns, columns)
    return replace(layer, weights=_take_channels(layer.weights, columns), prediction=prediction, turns=turns,
                   in_shape=(len(columns), *layer.in_shape[1:]))


def _take_channels(weights, channels):
    """``weights[O, C, kh, kw]`` of the input ``channels``, 0 for channel -1."""
    return np.where(channels[:, None, None] >= 0, weights[:, channels], 0)


def _has_writer(quantised, name, first, end):
    """Whether the user or a layer writes some of the channels ``first .. end - 1`` of map ``name``."""
    if name == quantised.input_name:
        return first < min(end, quantised.input_shape[0])
    return any(target.map == name and first < target.first + len(layer.weights) and target.first < end
               for layer in quantised.layers for target in layer.targets)


def choose_layer(quantised: QuantisedNetwork, layer: QuantisedLayer, config: AcceleratorConfig,
                 densities: dict[str, float], work: PhaseWork) -> Choice:
    """The tiling that :func:`compile_network` gives ``layer`` of ``quantised`` with these densities and this work."""
    return _choose(quantised, _with_whole_blocks(layer, quantised, config), config, densities, work)


def _choose(quantised, layer, config, densities, work, tiling=None):
    """The :class:`Choice` for ``layer`` with whole blocks."""
    dense = layer.inputs[0].map == quantised.input_name
    geometry = layer.geometry(_input_shift(quantised, config) if dense else None)
    density = _density_in(layer, quantised, densities)
    if work is None:
        phases, joined = (tiling.phases, tiling.joined) if tiling else max(
            count for count in phase_counts(layer, config, NEGATIVE_CLASSES) if not count[1])
        work = even_work(geometry, config, phases=phases, joined=joined, density_in=density,
                         density_weights=np.count_nonzero(layer.weights) / layer.weights.size)
    try:
        choice = choose_tiling(geometry, config, density_in=density,
                               density_out=densities.get(layer.output.map, DENSITY), work=work, tiling=tiling)
    except ValueError as error:
        raise ValueError(f"layer {layer.name}: {error}") from None
    tiling = choice.tiling
    if needs_whole(layer, tiling.phases, tiling.joined) and (
            tiling.chunk_channels < geometry.in_channels or tiling.chunk_rows < geometry.kernel_rows):
        raise ValueError(f"layer {layer.name}: a round has weights above and below 0, so all channels and rows of a "
                         f"kernel must be in one chunk")
    if choice.tiles > MAX_TILES:
        raise ValueError(f"layer {layer.name} has {choice.tiles} tiles, more than {MAX_TILES}")
    return choice


def _density_in(layer, quantised, densities):
    """The expected density of a layer's inputs, each slice weighted with its channels."""
    parts = [(part.channels, densities.get(part.map, 1.0 if part.map == quantised.input_name else DENSITY))
             for part in layer.inputs]
    return sum(channels * density for channels, density in parts) / sum(channels for channels, _ in parts)


def _input_shift(quantised, config):
    """``dense_shift`` of the network's input; None if it is a compressed map: it has too many channels for a dense one,
    or a layer reads something else with it."""
    name, channels = quantised.input_name, quantised.input_shape[0]
    alone = all(layer.inputs == (Slice(name, 0, channels),) for layer in quantised.layers
                if any(part.map == name for part in layer.inputs))
    return (channels - 1).bit_length() if channels <= dense_channels(config) and alone else None


def _place_maps(quantised, config, region):
    dense = _input_shift(quantised, config) is not None
    plans = {name: plan_map(shape, config, signed=quantised.signed(name),
                            dense=dense and name == quantised.input_name) for name, shape in quantised.maps.items()}
    together = linked(plans, [[part.map for part in layer.inputs] for layer in quantised.layers])
    maps = {}
    for name, plan in plans.items():
        segment_bytes = max(plans[other].segment_bytes for other in together[name])
        row_bytes = plan.segments * segment_bytes
        size = plan.height * row_bytes
        maps[name] = replace(plan, address=region.take(size, MAP_ALIGNMENT), row_bytes=row_bytes,
                             segment_bytes=segment_bytes, size=size)
    return maps


def _blocks_read(layer, maps, config):
    """Address of the first block of channels that a layer reads, and the distance of each to the next."""
    addresses = [maps[part.map].address + (part.first // config.block + block) * config.slot_bytes
                 for part in layer.inputs for block in range(ceil_div(part.channels, config.block))]
    distances = {following - address for address, following in pairwise(addresses)} or {config.slot_bytes}
    if len(distances) > 1:
        raise ValueError(f"layer {layer.name} reads blocks of channels that are not at one distance from each other; "
                         f"it may read one slice, or one block ({config.block} channels) each of two maps")
    return addresses[0], distances.pop()


def _target_fields(kind, target, maps, config):
    """Fields ``kind_address`` and so on for an output; 0 if there is none."""
    if target is None:
        return {f"{kind}_{name}": 0 for name in ("address", "row_bytes", "segment_bytes")}
    plan = maps[target.map]
    return {f"{kind}_address": plan.address + target.first // config.block * config.slot_bytes,
            f"{kind}_row_bytes": plan.row_bytes, f"{kind}_segment_bytes": plan.segment_bytes}


def _descriptor(layer, choice, weight_address, maps, config):
    """The packed descriptor of a layer."""
    source, geometry, tiling = maps[layer.inputs[0].map], choice.geometry, choice.tiling
    in_address, in_block_bytes = _blocks_read(layer, maps, config)
    fields = {
        "dense_in": source.dense, "dense_shift": source.dense_shift or 0, "signed_in": layer.signed_in,
        "clamp_low": layer.low, "clamp_high": layer.high, "pool": layer.pool, "write_full": layer.write_full,
        "in_address": in_address, "in_row_bytes": source.row_bytes, "in_segment_bytes": source.segment_bytes,
        "in_block_bytes": in_block_bytes, "tile_overlap": geometry.tile_overlap, "weight_address": weight_address,
        "stop_phase": stop_phase(layer, tiling.phases), "predict": layer.prediction is not None,
        **_target_fields("full", layer.full if layer.pool else layer.output, maps, config),
        **_target_fields("pool", layer.output if layer.pool else None, maps, config),
    }
    for name in ("in_height", "in_width", "in_channels", "kernel_rows", "kernel_columns", "stride", "pad_top",
                 "pad_left", "out_height", "out_width", "out_channels"):
        fields[name] = getattr(geometry, name)
    for name in ("chunk_channels", "chunk_rows", "tile_rows", "tile_columns", "tiles_per_pass", "passes", "phases",
                 "joined"):
        fields[name] = getattr(tiling, name)
    return pack(fields)
