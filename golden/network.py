"""A quantised network and its golden run.

Source: golden/README.md (normative).
"""
from dataclasses import dataclass, field

import numpy as np

from .layer import LayerResult, QuantisedLayer, run_layer
from .postprocess import value_limits


@dataclass(frozen=True)
class QuantisedNetwork:
    """Layers in the order in which they run, each reading one earlier map.

    ``scales``: real value of 1 in each map. ``outputs``: names of the maps that the user wants.
    """
    name: str
    value_width: int
    input_shape: tuple[int, int, int]
    input_signed: bool
    layers: tuple[QuantisedLayer, ...]
    outputs: tuple[str, ...]
    scales: dict[str, float] = field(default_factory=dict)
    input_name: str = "input"

    @property
    def maps(self) -> dict[str, tuple[int, int, int]]:
        """Name and shape of every map, the input first."""
        maps = {self.input_name: self.input_shape}
        for layer in self.layers:
            maps |= layer.maps
        return maps

    def signed(self, name: str) -> bool:
        """Whether the values of map ``name`` are signed."""
        if name == self.input_name:
            return self.input_signed
        return next(not layer.relu for layer in self.layers if name in layer.maps)

    def quantise_input(self, x: np.ndarray) -> np.ndarray:
        """The integers of a real input ``x[C, H, W]``, rounded half to even and clamped."""
        low, high = value_limits(self.value_width, self.input_signed)
        return np.clip(np.rint(np.asarray(x, np.float64) / self.scales[self.input_name]), low, high).astype(np.int64)

    def dequantise(self, name: str, values: np.ndarray) -> np.ndarray:
        """The real values of map ``name``."""
        return values * self.scales[name]


def run_network(network: QuantisedNetwork, x: np.ndarray) -> tuple[dict[str, np.ndarray], dict[str, LayerResult]]:
    """All maps by name (the input included) and the result of each layer, for an integer input ``x[C, H, W]``."""
    maps, results = {network.input_name: np.asarray(x)}, {}
    for layer in network.layers:
        result = run_layer(layer, maps[layer.input])
        results[layer.name] = result
        if layer.pool and layer.keep_full:
            maps[f"{layer.name}.full"] = result.full
        maps[layer.name] = result.output
    return maps, results
