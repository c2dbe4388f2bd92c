"""A quantised network and its golden run.

Source: golden/README.md (normative).
"""
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np

from .layer import LayerResult, QuantisedLayer, Slice, run_layer
from .postprocess import value_limits


@dataclass(frozen=True)
class QuantisedNetwork:
    """Layers in the order in which they run, each reading what earlier ones have written.

    ``scales``: real value of 1 in each channel of each map, 0 in channels that no layer writes. ``outputs``: names of
    the maps that the user wants.
    """
    name: str
    value_width: int
    input_shape: tuple[int, int, int]
    input_signed: bool
    layers: tuple[QuantisedLayer, ...]
    outputs: tuple[str, ...]
    scales: dict[str, np.ndarray] = field(default_factory=dict)
    input_name: str = "input"

    @cached_property
    def maps(self) -> dict[str, tuple[int, int, int]]:
        """Name and shape of every map, the input first."""
        return map_shapes(self.input_name, self.input_shape, self.layers)

    def signed(self, name: str) -> bool:
        """Whether the values of map ``name`` are signed: what its readers take it for, else whether one is below 0."""
        if name == self.input_name:
            return self.input_signed
        readers = [layer.signed_in for layer in self.layers for part in layer.inputs if part.map == name]
        if readers:
            return readers[0]
        return any(layer.low < 0 for layer in self.layers for target in layer.targets if target.map == name)

    def quantise_input(self, x: np.ndarray) -> np.ndarray:
        """The integers of a real input ``x[C, H, W]``, rounded half to even and clamped."""
        low, high = value_limits(self.value_width, self.input_signed)
        scale = self.scales[self.input_name][:, None, None]
        return np.clip(np.rint(np.asarray(x, np.float64) / scale), low, high).astype(np.int64)

    def dequantise(self, name: str, values: np.ndarray) -> np.ndarray:
        """The real values of map ``name``."""
        return values * self.scales[name][:, None, None]


def map_shapes(input_name: str, input_shape: tuple[int, int, int], layers) -> dict[str, tuple[int, int, int]]:
    """Name and shape (C, H, W) of every map that ``layers`` write, the input first.

    A layer has ``name``, ``inputs``, ``targets`` and ``written(in_size)``. A map has as many channels as its writers
    fill.

    Raises
    ------
    ValueError
        A layer reads channels that no earlier layer has written, or from maps of different sizes; two layers write the
        same channels, or maps of different sizes under one name, or write what a layer before them has read.
    """
    shapes, used = {input_name: tuple(input_shape)}, {input_name: []}
    for layer in layers:
        sizes = set()
        for part in layer.inputs:
            if part.map not in shapes:
                raise ValueError(f"layer {layer.name} reads {part.map!r}, which no earlier layer makes")
            first, end = part.first, part.first + part.channels
            if not 0 <= first < end <= shapes[part.map][0]:
                raise ValueError(f"layer {layer.name} reads channels {first} to {end - 1} of {part.map}, which has "
                                 f"{shapes[part.map][0]} then")
            used[part.map].append((first, end, f"layer {layer.name}", "reads"))
            sizes.add(shapes[part.map][1:])
        if len(sizes) != 1:
            raise ValueError(f"layer {layer.name} reads maps of different sizes: {sorted(sizes)}" if sizes else
                             f"layer {layer.name} reads no map")
        for target, (channels, *size) in layer.written(sizes.pop()).items():
            first, end = target.first, target.first + channels
            if target.map == input_name:
                raise ValueError(f"layer {layer.name} writes to {input_name}, which only the user fills")
            if first < 0:
                raise ValueError(f"layer {layer.name} writes {target.map} from channel {first} on, which is below 0")
            for other_first, other_end, who, does in used.setdefault(target.map, []):
                if first < other_end and other_first < end:
                    raise ValueError(f"layer {layer.name} writes channels {first} to {end - 1} of {target.map}, but "
                                     f"{who} {does} channels {other_first} to {other_end - 1} before it")
            known, *known_size = shapes.get(target.map, (0, *size))
            if known_size != size:
                raise ValueError(f"layer {layer.name} writes {size[0]} x {size[1]} values to {target.map}, which has "
                                 f"{known_size[0]} x {known_size[1]}")
            used[target.map].append((first, end, f"layer {layer.name}", "writes"))
            shapes[target.map] = (max(known, end), *size)
    return shapes


def linked(members, links) -> dict[str, set[str]]:
    """For each of ``members`` the set that it belongs to if all of each of ``links`` (lists of members) belong
    together: the maps that layers read together, for one."""
    groups = {member: {member} for member in members}
    for link in links:
        merged = set().union(*(groups[member] for member in link))
        groups |= dict.fromkeys(merged, merged)
    return groups


def gather(maps: dict[str, np.ndarray], inputs: tuple[Slice, ...]) -> np.ndarray:
    """The channels ``[C, H, W]`` that ``inputs`` name, one slice after the other."""
    return np.concatenate([maps[part.map][part.first:part.first + part.channels] for part in inputs])


def run_network(network: QuantisedNetwork, x: np.ndarray) -> tuple[dict[str, np.ndarray], dict[str, LayerResult]]:
    """All maps by name (the input included) and the result of each layer, for an integer input ``x[C, H, W]``."""
    maps = {name: np.zeros(shape, np.int64) for name, shape in network.maps.items()}
    maps[network.input_name] = np.asarray(x)
    results = {}
    for layer in network.layers:
        result = results[layer.name] = run_layer(layer, gather(maps, layer.inputs))
        for target, values in zip(layer.targets, (result.full, result.output)[-len(layer.targets):], strict=True):
            maps[target.map][target.first:target.first + len(values)] = values
    return maps, results
