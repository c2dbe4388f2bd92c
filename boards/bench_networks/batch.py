"""Golden's integers for many inputs at once: what accuracies are counted with.

``golden.network.run_network`` does the same for one input and counts the work besides. Here convolutions are in
float32 where every partial sum stays below ``2**24``, else in float64 below ``2**53``: exact either way.
"""
import numpy as np
import torch
import torch.nn.functional as functional

from golden.layer import QuantisedLayer
from golden.network import QuantisedNetwork
from golden.postprocess import SUM_WIDTHS, requantise, value_limits
from golden.tiling import pooled_length

#: Integers up to these are exact.
EXACT32, EXACT64 = 1 << 24, 1 << 53
#: Sums up to this times a scale of 16 bits are exact in float64.
SCALABLE = EXACT64 >> 16


def run_batch(network: QuantisedNetwork, inputs: np.ndarray) -> dict[str, np.ndarray]:
    """The outputs of ``network``, each [N, C, H, W], for integer ``inputs[N, C, H, W]``: those of golden."""
    maps = Batch(network, inputs).maps
    return {name: maps[name].numpy().astype(np.int64) for name in network.outputs}


class Batch:
    """A network on integer ``inputs[N, C, H, W]``: ``maps`` has all maps by name, float32 [N, C, H, W]."""

    def __init__(self, network: QuantisedNetwork, inputs: np.ndarray):
        self.layers, self.shapes = network.layers, network.maps
        self.maps = {network.input_name: torch.from_numpy(np.asarray(inputs, np.float32))}
        self.maps = self._run(self.layers, {layer.name for layer in self.layers}, {})

    def rerun(self, network: QuantisedNetwork, zeros: dict[str, torch.Tensor] | None = None) -> dict[str, torch.Tensor]:
        """The maps of ``network``, which has other objects for the layers that differ; what they do not change is not
        computed again. ``zeros``: which outputs [N, O, H, W] of a layer are 0, by its name."""
        zeros = zeros or {}
        changed = {layer.name for layer, known in zip(network.layers, self.layers, strict=True)
                   if layer is not known or layer.name in zeros}
        return self._run(network.layers, changed, zeros)

    def _run(self, layers, changed, zeros):
        maps, written = dict(self.maps), set()
        for layer in layers:
            if not written.isdisjoint(part.map for part in layer.inputs) or layer.name in changed:
                values = run_layer(layer, self.gather(layer, maps), zeros.get(layer.name))
                for target, one in zip(layer.targets, values[-len(layer.targets):], strict=True):
                    maps[target.map] = self._write(maps, target, one, target.map in written)
                    written.add(target.map)
        return maps

    def _write(self, maps, target, values, own):
        """Map ``target.map`` with ``values``; a new one, unless it is the run's ``own``."""
        channels, end = self.shapes[target.map][0], target.first + values.shape[1]
        if values.shape[1] == channels:
            return values
        whole = maps.get(target.map)
        if whole is None:
            whole = torch.zeros((len(values), *self.shapes[target.map]))
        elif not own:
            whole = whole.clone()
        whole[:, target.first:end] = values
        return whole

    @staticmethod
    def gather(layer: QuantisedLayer, maps: dict[str, torch.Tensor]) -> torch.Tensor:
        """The input [N, C, H, W] of ``layer``."""
        return torch.cat([maps[part.map][:, part.first:part.first + part.channels] for part in layer.inputs], 1)


def run_layer(layer: QuantisedLayer, x: torch.Tensor,
              zeros: torch.Tensor | None = None) -> tuple[torch.Tensor, torch.Tensor]:
    """The outputs of ``layer`` before and after pooling, float32 [N, O, H, W], for its input ``x[N, C, H, W]``.
    ``zeros``: which outputs are 0, bool [N, O, H, W], in place of those that are predicted to be."""
    full = _requantise(_sums(layer, x, layer.weights), layer)
    if zeros is None and layer.prediction is not None:
        zeros = predict(layer, x)
    if zeros is not None:
        full[zeros] = 0
    return full, _max_pool(full, layer.pool) if layer.pool else full


def predict(layer: QuantisedLayer, x: torch.Tensor) -> torch.Tensor:
    """Which outputs, bool [N, O, H, W], a layer with a prediction predicts to be 0 for its input ``x[N, C, H, W]``."""
    prediction = layer.prediction
    return _sums(layer, x, prediction.weights) + _per_channel(layer.bias) < _per_channel(prediction.thresholds)


def _sums(layer: QuantisedLayer, x: torch.Tensor, weights: np.ndarray) -> torch.Tensor:
    """Exact sums of a layer over ``weights``, in float64."""
    largest = max(map(abs, value_limits(layer.value_width, layer.signed_in)))
    bound = largest * int(np.abs(weights).sum(axis=(1, 2, 3)).max())
    if bound >= EXACT64:
        raise ValueError(f"the sums of layer {layer.name} may exceed 2**53")
    parts = max(1, min(layer.in_shape[0], -(-bound // EXACT32)))
    chunks = np.array_split(np.arange(layer.in_shape[0]), parts)
    single = all(largest * int(np.abs(weights[:, chunk]).sum(axis=(1, 2, 3)).max()) < EXACT32
                 for chunk in chunks) and parts <= 4
    rows, columns = layer.full_shape[1:]
    (top, left), (height, width) = layer.pad[:2], layer.in_shape[1:]
    kernel_rows, kernel_columns = weights.shape[2:]
    bottom = (rows - 1) * layer.stride + kernel_rows - top - height
    right = (columns - 1) * layer.stride + kernel_columns - left - width
    padded = functional.pad(x, (left, right, top, bottom))
    if not single:
        return functional.conv2d(padded.double(), torch.from_numpy(weights.astype(np.float64)), stride=layer.stride)
    kernels = torch.from_numpy(weights.astype(np.float32))
    return sum(functional.conv2d(padded[:, chunk[0]:chunk[-1] + 1], kernels[:, chunk[0]:chunk[-1] + 1],
                                 stride=layer.stride).double() for chunk in chunks)


def _per_channel(values):
    return torch.from_numpy(np.asarray(values, np.float64))[:, None, None]


def _requantise(sums, layer):
    """As ``golden.postprocess.requantise``, [N, O, H, W] in float32."""
    total = sums + _per_channel(layer.bias)
    if float(total.abs().max()) < min(SCALABLE, 1 << SUM_WIDTHS[layer.value_width] - 1):
        # Both products are exact, and torch.round rounds half to even.
        scaled = total.mul_(_per_channel(layer.scale)).mul_(_per_channel(2.0 ** -layer.shift.astype(np.float64)))
        return scaled.round_().clamp_(layer.low, layer.high).float()
    return torch.stack([torch.from_numpy(requantise(
        one.numpy().astype(np.int64), layer.bias, layer.scale, layer.shift, low=layer.low, high=layer.high,
        value_width=layer.value_width).astype(np.float32)) for one in sums])


def _max_pool(values, kernel):
    """As ``golden.postprocess.max_pool``, [N, C, H, W]."""
    height, width = values.shape[2:]
    rows, columns = pooled_length(height, kernel), pooled_length(width, kernel)
    extra = (0, 2 * columns + kernel - 2 - width, 0, 2 * rows + kernel - 2 - height)
    return functional.max_pool2d(functional.pad(values, extra, value=-torch.inf), kernel, 2)
