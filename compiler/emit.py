"""A quantised network to the contents of DRAM: descriptors, weight images and places for the maps.

The region starts with the descriptors; the log of counters, the weight images and the maps follow. No map shares memory
with another, so that every one can be read after a run.

Source: golden/README.md, "Weight image", "Loop order"; hw/descriptor.py.
"""
from dataclasses import dataclass, field

import numpy as np

from golden.formats import MAP_ALIGNMENT, MapPlan, decode, encode, plan_map
from golden.layer import QuantisedLayer
from golden.network import QuantisedNetwork, run_network
from golden.tiling import Tiling, ceil_div, chunk_spans
from hw.config import AcceleratorConfig
from hw.descriptor import DESCRIPTOR_BYTES, pack
from hw.registers import LOG_BYTES

from .tile import DENSITY, Choice, choose_tiling

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
                    tilings: dict[str, Tiling] | None = None, densities: dict[str, float] | None = None) -> Program:
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

    Raises
    ------
    ValueError
        The widths differ, a layer does not fit, or the region exceeds 32-bit addresses.
    """
    if quantised.value_width != config.value_width:
        raise ValueError(f"the network has {quantised.value_width}-bit values, configuration {config.name} "
                         f"{config.value_width}-bit ones")
    if base_address % MAP_ALIGNMENT:
        raise ValueError(f"base_address must be a multiple of {MAP_ALIGNMENT}, not {base_address:#x}")
    region = _Region(base_address)
    layers = quantised.layers
    descriptors = region.take(DESCRIPTOR_BYTES * len(layers), MAP_ALIGNMENT)
    log = region.take(LOG_BYTES * len(layers), LOG_BYTES)
    choices = _choose(quantised, config, tilings or {}, densities or {})
    segments, addresses = [], {}
    for layer in layers:
        image = weight_image(layer, choices[layer.name].tiling, config)
        addresses[layer.name] = region.take(len(image), WEIGHT_ALIGNMENT)
        segments.append((addresses[layer.name], image))
    maps = _place_maps(quantised, config, region)
    end = ceil_div(region.next, MAP_ALIGNMENT) * MAP_ALIGNMENT
    if end > 1 << 32:
        raise ValueError(f"the program ends at {end:#x}, beyond 32-bit addresses")
    words = b"".join(_descriptor(layer, choices[layer.name], addresses[layer.name], maps) for layer in layers)
    return Program(config, quantised, base_address, end - base_address, [(descriptors, words), *segments], descriptors,
                   len(layers), log, maps, [layer.name for layer in layers], choices)


def weight_image(layer: QuantisedLayer, tiling: Tiling, config: AcceleratorConfig) -> bytes:
    """Scales and weights of a layer in the order in which the hardware reads them."""
    parts = []
    out_channels, channels, kernel_rows, _ = layer.weights.shape
    for first, end in chunk_spans(out_channels, config.lanes):
        parts.append(_scale_image(layer, first, end, config))
        for channel, channel_end in chunk_spans(channels, tiling.chunk_channels):
            for row, row_end in chunk_spans(kernel_rows, tiling.chunk_rows):
                parts.append(_chunk_image(layer.weights[first:end, channel:channel_end, row:row_end], config))
    return b"".join(parts)


def _scale_image(layer, first, end, config):
    """Two beats for each lane: the bias; the scale, and the shift from bit 32 on."""
    beats = np.zeros((ceil_div(end - first, config.block) * config.block, 2), "<i8")
    beats[:end - first, 0] = layer.bias[first:end]
    beats[:end - first, 1] = layer.scale[first:end] | layer.shift[first:end] << 32
    return beats.tobytes()


def _chunk_image(weights, config):
    """Whole beats of lane 0, 1, 2 ... for each tap and channel of ``weights[lanes, channels, rows, columns]``."""
    lanes, channels, rows, columns = weights.shape
    width = ceil_div(lanes, config.values_per_beat) * config.values_per_beat
    image = np.zeros((rows, columns, channels, width), f"<i{config.value_width // 8}")
    image[..., :lanes] = weights.transpose(2, 3, 1, 0)
    return image.tobytes()


def _choose(quantised, config, tilings, densities):
    """A :class:`Choice` for each layer."""
    dense_shift = _input_shift(quantised, config)
    choices = {}
    for layer in quantised.layers:
        reads_input = layer.input == quantised.input_name
        geometry = layer.geometry(dense_shift if reads_input else None)
        known = {"density_in": densities.get(layer.input, 1.0 if reads_input else DENSITY),
                 "density_out": densities.get(layer.name, DENSITY)}
        try:
            choice = choose_tiling(geometry, config, tiling=tilings.get(layer.name), **known)
        except ValueError as error:
            raise ValueError(f"layer {layer.name}: {error}") from None
        if choice.tiles > MAX_TILES:
            raise ValueError(f"layer {layer.name} has {choice.tiles} tiles, more than {MAX_TILES}")
        choices[layer.name] = choice
    return choices


def _input_shift(quantised, config):
    """``dense_shift`` of the network's input; None if it has too many channels for a dense map."""
    channels = quantised.input_shape[0]
    return (channels - 1).bit_length() if channels <= config.block else None


def _place_maps(quantised, config, region):
    maps = {}
    for name, shape in quantised.maps.items():
        dense = name == quantised.input_name and shape[0] <= config.block
        plan = plan_map(shape, config, signed=quantised.signed(name), dense=dense)
        address = region.take(plan.size, MAP_ALIGNMENT)
        maps[name] = plan_map(shape, config, address=address, signed=plan.signed, dense=dense)
    return maps


def _descriptor(layer, choice, weight_address, maps):
    """The packed descriptor of a layer."""
    source, geometry, tiling = maps[layer.input], choice.geometry, choice.tiling
    fields = {
        "dense_in": source.dense, "dense_shift": source.dense_shift or 0, "signed_in": layer.signed_in,
        "relu": layer.relu, "pool": layer.pool, "write_full": layer.write_full,
        "in_address": source.address, "in_row_bytes": source.row_bytes, "in_segment_bytes": source.segment_bytes,
        "tile_overlap": geometry.tile_overlap, "weight_address": weight_address,
    }
    for name in ("in_height", "in_width", "in_channels", "kernel_rows", "kernel_columns", "stride", "pad_top",
                 "pad_left", "out_height", "out_width", "out_channels"):
        fields[name] = getattr(geometry, name)
    for name in ("chunk_channels", "chunk_rows", "tile_rows", "tile_columns", "tiles_per_pass", "passes"):
        fields[name] = getattr(tiling, name)
    full = maps[layer.name if not layer.pool else f"{layer.name}.full"] if layer.write_full else None
    for kind, plan in (("full", full), ("pool", maps[layer.name] if layer.pool else None)):
        fields[f"{kind}_address"] = plan.address if plan else 0
        fields[f"{kind}_row_bytes"] = plan.row_bytes if plan else 0
        fields[f"{kind}_segment_bytes"] = plan.segment_bytes if plan else 0
    return pack(fields)
