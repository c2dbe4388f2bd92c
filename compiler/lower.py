"""From the operators of a float model to the layers that the accelerator has: convolutions of slices of maps.

The layers compute the model's function exactly in real numbers. What each operator becomes: compiler/README.md.

A value of the model is *placed*: each of its channels is a sum of channels of one map times factors, ``value[c] =
sum over t of factor[t, c] * map[index[t, c]]``. A layer that reads a value folds that into its weights. So a
concatenation with channels that fill up a block, a choice of channels, a factor and PReLU, which is
``relu(x) - slope * relu(-x)``, cost no layer of their own.
"""
from dataclasses import dataclass, replace

import numpy as np

from golden.network import linked
from golden.postprocess import value_limits
from golden.tiling import ceil_div, pooled_length
from hw.config import AcceleratorConfig

from .errors import quoted
from .graph import MAX_KERNEL, MAX_STRIDE, Layer, Network, Slice, Target
from .model import (
    Add,
    Affine,
    AveragePool,
    Clamp,
    Concat,
    Convolution,
    MaxPool,
    Model,
    Pad,
    PRelu,
    Round,
    Select,
)
from .sums import merge_sums

#: Bytes of a name of a map, of the 47 that a network image holds.
NAME_BYTES = 40
#: Relative error of a bound or a scale.
ROUNDING = 1e-6
NO_PAD = (0, 0, 0, 0)


@dataclass(frozen=True)
class Step:
    """What a node became: its operator's :attr:`~compiler.model.Operator.KIND` and the names of the layers that it
    added; none if other layers do its work."""
    node: str
    kind: str
    layers: tuple[str, ...]


@dataclass(frozen=True)
class Lowered:
    """A network, the map of each output of the model, and what the nodes became."""
    network: Network
    outputs: dict[str, str]
    steps: tuple[Step, ...]


@dataclass(frozen=True)
class Placed:
    """Where a value is: ``value[c] = sum over t of factor[t, c] * map[index[t, c]]``; both arrays are [T, C]."""
    map: str
    size: tuple[int, int]
    index: np.ndarray
    factor: np.ndarray

    @property
    def is_run(self) -> bool:
        """Whether it is consecutive channels of the map, each times its factor."""
        return len(self.index) == 1 and np.array_equal(self.index[0], self.index[0, 0] + np.arange(self.index.shape[1]))

    @property
    def is_plain(self) -> bool:
        """Whether it is channels of the map as they are, or zeros."""
        return bool(np.isin(self.factor, (0, 1)).all() and (self.factor.sum(0) <= 1).all())


@dataclass(frozen=True)
class Tail:
    """What a layer does with its sums, and the value of the model that comes out: a clamp or PReLU (``slope`` [C]),
    rounding to multiples of ``scale``, for which ``node`` has asked, then a pool as of ``Layer``; ``full`` is the value
    before pooling if that is wanted too."""
    value: str
    low: float = -np.inf
    high: float = np.inf
    slope: np.ndarray | None = None
    scale: float | None = None
    node: str = ""
    pool: int = 0
    pool_ceil: bool = False
    full: str | None = None
    #: Values that the layer goes through and does not write.
    through: tuple[str, ...] = ()

    def within(self, low, high):
        """The same for values of which is known that they lie in ``low .. high``."""
        return replace(self, low=max(self.low, low), high=min(self.high, high))


def lower(model: Model, config: AcceleratorConfig) -> Lowered:
    """The network of layers that computes ``model`` on ``config``, which decides where blocks of channels begin, and by
    its array whether convolutions take sums (:mod:`compiler.sums`).

    Raises
    ------
    ValueError
        One sentence that names the node that has no exact counterpart, and a suggestion.
    """
    return _Lowering(merge_sums(model) if config.intersect else model, config).run()


class _Lowering:
    def __init__(self, model, config):
        self.model, self.block, self.lanes, self.value_width = model, config.block, config.lanes, config.value_width
        self.layers, self.steps, self.placed, self.fused = [], [], {}, set()
        #: Spans of channels (first, end) that have been written to each map.
        self.written = {}
        self.names = {}
        #: What the operator that is being lowered is called, and by which node each layer was asked for.
        self.node, self.nodes = "", {}
        self.operators = {operator.name: operator for operator in model.operators}
        self.readers = {}
        for operator in model.operators:
            for name in operator.inputs:
                self.readers.setdefault(name, []).append(operator)
        #: Where parts of concatenations are to be written, and by which concatenation they are read there.
        self.homes, self.takers = {}, {}
        self._plan_homes()
        self.input_scale, self.input_signed = self._input_grid()

    def run(self):
        """The whole model."""
        model = self.model
        self._place(model.input, Target(self._name(model.input)), model.input_shape)
        for operator in model.operators:
            before, self.node = len(self.layers), operator.node
            if operator.name not in self.placed and operator.name not in self.fused:
                self._lower(operator)
            self._step(operator.node, operator.KIND, before)
        outputs = {name: self._output(name) for name in model.outputs}
        network = Network(model.name, model.input_shape, tuple(self.layers), tuple(dict.fromkeys(outputs.values())),
                          self._name(model.input), self.input_scale, self.input_signed)
        self._check_signs(network)
        return Lowered(network, outputs, tuple(self.steps))

    def _check_signs(self, network):
        """``ValueError`` if a map with a given scale would lose a bit: one of unsigned values that is read with signed
        ones."""
        most = value_limits(self.value_width, True)[1]
        groups = linked(network.maps, [[part.map for part in layer.inputs] for layer in network.layers])
        signed = {target.map for layer in network.layers if not layer.relu for target in layer.targets}
        wide = {target.map: self.nodes[layer.name] for layer in network.layers if layer.relu and layer.out_scale
                and self._range(layer)[1] > most * layer.out_scale * (1 + ROUNDING) for target in layer.targets}
        if self.input_signed:
            signed.add(network.input_name)
        elif self.input_scale:
            wide[network.input_name] = self.readers[self.model.input][0].node
        for name, node in wide.items():
            if not signed.isdisjoint(groups[name]):
                raise ValueError(f"{node} gives unsigned values of {self.value_width} bits that are read together with "
                                 f"signed ones; quantise to {self.value_width - 1} bits there, or all activations as "
                                 f"signed values (QInt8 in ONNX Runtime)")

    def _step(self, node, kind, before):
        self.steps.append(Step(node, kind, tuple(layer.name for layer in self.layers[before:])))

    def _lower(self, operator):
        sources = [self.placed[name] for name in operator.inputs]
        match operator:
            case Concat():
                self._concat(operator)
            case Select():
                source, channels = sources[0], np.maximum(operator.channels, 0)
                self.placed[operator.name] = Placed(source.map, source.size, source.index[:, channels],
                                                    source.factor[:, channels] * (operator.channels >= 0))
            case Add():
                self._add(operator, sources)
            case Convolution():
                self._convolution(operator, sources[0])
            case Affine() if not operator.bias.any() and not self._fuses(operator.name):
                self.placed[operator.name] = Placed(sources[0].map, sources[0].size, sources[0].index,
                                                    sources[0].factor * operator.factor)
            case Affine():
                self._per_channel(sources[0], operator.factor, operator.bias, self._tail(operator.name))
            case Clamp() if _bounds(operator)[1] == np.inf and operator.inputs[0] in self.model.nonnegative:
                self.placed[operator.name] = sources[0]
            case Clamp():
                self._identity(sources[0], self._tail(operator.name, *_bounds(operator)))
            case Round() if (operator.inputs[0] == self.model.input and self.input_scale
                             and (operator.low, operator.high) == value_limits(self.value_width, self.input_signed)):
                # The user rounds the input.
                self.placed[operator.name] = sources[0]
            case Round():
                low = 0.0 if operator.inputs[0] in self.model.nonnegative else -np.inf
                low, high = self._rounding(operator, low, np.inf)
                self._identity(sources[0], Tail(operator.name, low, high, scale=operator.scale, node=operator.node))
            case PRelu():
                self._identity(sources[0], Tail(operator.name, slope=operator.slope))
            case MaxPool():
                self._max_pool(operator, sources[0])
            case AveragePool():
                self._average_pool(operator, sources[0])
            case Pad(value=0.0):
                self._identity(sources[0], self._tail(operator.name), pad=operator.pad)
            case _:
                raise ValueError(f"{operator.node} pads with minus infinity, which only a max pool can take")

    # Places.

    def _name(self, value):
        """A name for the map of a value: short enough for an image, and no other's."""
        if value not in self.names:
            short = value.strip("/").encode()[-NAME_BYTES:].decode(errors="ignore") or "map"
            name, number, taken = short, 1, set(self.names.values())
            while name in taken:
                number += 1
                name = f"{short}~{number}"
            self.names[value] = name
        return self.names[value]

    def _whole_blocks(self, channels):
        return ceil_div(channels, self.block) * self.block

    def _plan_homes(self):
        """Value and first channel in its map of each part of a concatenation that can be written where it is read."""
        concats = [operator for operator in reversed(self.model.operators) if isinstance(operator, Concat)]
        # The last concatenation, which is the outermost, takes what it can.
        for operator in concats:
            for part in operator.inputs:
                if part not in self.model.outputs and not isinstance(self.operators.get(part), Select | None):
                    self.takers.setdefault(part, operator)
        for operator in concats:
            home, first = self.homes.setdefault(operator.name, (operator.name, 0))
            for part in operator.inputs:
                if self.takers.get(part) is operator:
                    self.homes[part] = (home, first)
                first += self._whole_blocks(self._width(operator, part))

    def _width(self, concat, part):
        """Channels of its map that a part of a concatenation takes."""
        maker, channels = self.operators.get(part), self.model.shapes[part][0]
        if self.takers.get(part) is not concat:
            return channels
        if isinstance(maker, Concat):
            *most, last = (self._width(maker, inner) for inner in maker.inputs)
            return sum(map(self._whole_blocks, most)) + last
        return self._whole_blocks(channels) + channels if isinstance(maker, PRelu) else channels

    def _home(self, value):
        name, first = self.homes.get(value, (value, 0))
        return Target(self._name(name), first)

    def _place(self, value, target, shape):
        """Note that ``value`` of ``shape`` (C, H, W) is in the channels of ``target``."""
        channels = shape[0]
        self.placed[value] = Placed(target.map, tuple(shape[1:]), target.first + np.arange(channels)[None],
                                    np.ones((1, channels)))
        self.written.setdefault(target.map, []).append((target.first, target.first + channels))

    def _span(self, name, first, end):
        """The slice of map ``name`` with channels ``first .. end - 1``: whole blocks, as far as they are written."""
        first, limit = first // self.block * self.block, self._whole_blocks(end)
        last = max(min(stop, limit) for start, stop in self.written[name] if start < limit)
        return Slice(name, first, last - first)

    def _output(self, value):
        """The map that holds a value and nothing else, with one scale."""
        place, channels = self.placed[value], self.model.shapes[value][0]
        scales = self._scales(place.map, place.index)
        if (place.is_run and place.index[0, 0] == 0 and (place.factor == 1).all() and len(scales) == 1
                and place.map != self._name(self.model.input)
                and max(end for _, end in self.written[place.map]) == channels):
            return place.map
        before, self.node = len(self.layers), f"output {quoted(value)}"
        # Parts with scales of their own keep them: only the copy gets one for all.
        scale = self._common_scale([(place.map, place.index)]) if place.is_plain else None
        copied = self._identity(place, Tail(f"{value}.out", scale=scale), exact=False)
        self._step(self.node, "copy", before)
        return copied.map

    # What is known of the integers in a map.

    def _input_grid(self):
        """``(scale, signed)`` of the input if all that read it round it to that; else None, so that calibration
        decides."""
        grids = {(operator.scale, operator.low < 0) if isinstance(operator, Round) else (None, None)
                 for operator in self.readers.get(self.model.input, [])}
        return grids.pop() if len(grids) == 1 and self.model.input not in self.model.outputs else (None, None)

    def _makers(self, name, channels):
        """The layers that write some of ``channels``, an array, of map ``name``."""
        return [layer for layer in self.layers for target in layer.targets if target.map == name
                and ((target.first <= channels) & (channels < target.first + len(layer.weights))).any()]

    def _scales(self, name, channels):
        """The scales of some channels of map ``name``; None among them where calibration decides."""
        given = {self.input_scale} if name == self._name(self.model.input) else set()
        return given | {layer.out_scale for layer in self._makers(name, channels)}

    def _range(self, layer):
        """``(low, high)`` of what a layer writes, infinite where calibration decides."""
        least, most = (bound * (layer.out_scale or np.inf) if bound else 0.0
                       for bound in value_limits(self.value_width, not layer.relu))
        bounds = least if layer.low is None else layer.low, most if layer.high is None else layer.high
        # A bound between two integers may be rounded away from 0.
        return tuple(round(bound / layer.out_scale) * layer.out_scale if layer.out_scale else bound for bound in bounds)

    def _reach(self, name, channels):
        """``(low, high)`` that hold the values in some channels of map ``name`` and 0, infinite where calibration
        decides."""
        ranges = [(0.0, 0.0), *map(self._range, self._makers(name, channels))]
        if name == self._name(self.model.input):
            ranges.append(tuple(bound * self.input_scale for bound in value_limits(self.value_width, self.input_signed))
                          if self.input_scale else (-np.inf, np.inf))
        return min(low for low, _ in ranges), max(high for _, high in ranges)

    def _limits(self, source):
        """The same for the values of a place."""
        low, high = self._reach(source.map, source.index[source.factor != 0])
        if source.is_plain:
            return low, high
        return 0.0 if low == 0 and (source.factor >= 0).all() else -np.inf, np.inf

    def _common_scale(self, parts):
        """The scale that holds all of ``parts``, channels of maps (name, array), exactly; None if there is none, or
        calibration decides some of theirs."""
        scales = set().union(*(self._scales(*part) for part in parts))
        if len(scales) == 1 or None in scales:
            return None if None in scales else scales.pop()
        scale = min(scales)
        low, high = (np.array(bounds) / scale for bounds in zip(*(self._reach(*part) for part in parts), strict=True))
        least, most = value_limits(self.value_width, low.min() < 0)
        fits = least - 0.5 < low.min() and high.max() < most + 0.5
        return scale if fits and all(abs(other / scale - round(other / scale)) < ROUNDING for other in scales) else None

    # Layers.

    def _fuses(self, value):
        """Whether the operator behind a value can be done by the layer that makes the value."""
        return self._tail(value).value != value

    def _tail(self, value, low=-np.inf, high=np.inf):
        """What the layer that makes ``value``, clamped to ``low .. high``, can do besides."""
        following, through = self._only_reader(value), ()
        if isinstance(following, Clamp) and low == -np.inf and high == np.inf:
            (low, high), through, value = _bounds(following), (value,), following.name
        elif isinstance(following, PRelu) and low == -np.inf and high == np.inf:
            return Tail(following.name, slope=following.slope, through=(value,))
        low = 0.0 if value in self.model.nonnegative else low
        tail, following = Tail(value, low, high, through=through), self._only_reader(value)
        if isinstance(following, Round):
            low, high = self._rounding(following, low, high)
            through, value = (*through, value), following.name
            tail = Tail(value, low, high, scale=following.scale, node=following.node, through=through)
        for pool in self.readers.get(value, []):
            mode = self._pool_mode(pool, self.model.shapes[value][1:], NO_PAD) if isinstance(pool, MaxPool) else None
            if mode is None:
                continue
            pooled = replace(tail, value=pool.name, pool=mode[0], pool_ceil=mode[1])
            if self._only_reader(value) is pool:
                return replace(pooled, through=(*through, value))
            if mode[0] == 2 and (mode[1] or not any(size % 2 for size in self.model.shapes[value][1:])):
                return replace(pooled, full=value)
        return tail

    def _rounding(self, operator, low, high):
        """``(low, high)`` of a layer that clamps to ``low .. high`` and then does a Round."""
        if not operator.low <= 0 < operator.high:
            raise ValueError(f"{operator.node} rounds to {operator.low} .. {operator.high}; 0 and integers above it "
                             f"must be among them: quantise again with such bounds, or without a Clip")
        least, most = value_limits(self.value_width, operator.low < 0 and low < 0)
        if operator.high > most or low < 0 and operator.low < least:
            raise ValueError(f"{operator.node} rounds to {operator.low} .. {operator.high}; this configuration holds "
                             f"{least} .. {most} there: quantise activations to at most {self.value_width} bits and, "
                             f"if they have a sign, symmetrically (ActivationSymmetric and QInt8 in ONNX Runtime)")
        return max(low, operator.low * operator.scale), min(high, operator.high * operator.scale)

    def _only_reader(self, value):
        return self.readers[value][0] if self.model.uses[value] == 1 and value in self.readers else None

    def _pool_mode(self, pool, size, pad):
        """``(kernel, ceil mode)`` with which a layer does a max-pool behind it, on ``size`` with ``pad`` added; None if
        it cannot."""
        kernel = pool.kernel[0]
        if pool.kernel not in ((2, 2), (3, 3)) or pool.stride != (2, 2) or pool.pad[:2] != pad[:2]:
            return None
        rows, columns = (length + before + after for length, before, after in zip(size, pad[:2], pad[2:], strict=True))
        wanted = self.model.shapes[pool.name][1:]
        if wanted == (pooled_length(rows, kernel), pooled_length(columns, kernel)):
            return kernel, True
        if min(rows, columns) >= kernel and wanted == ((rows - kernel) // 2 + 1, (columns - kernel) // 2 + 1):
            return kernel, False
        return None

    def _convolve(self, source, weights, bias, tail, *, channels=None, stride=1, pad=NO_PAD, target=None, exact=False):
        """Layers for ``sum of weights[o, i] * source[channels[o, i]] + bias[o]`` and ``tail``; the place of its value.

        ``weights`` [O, I, kh, kw]; ``channels`` [O, I] of the source, all of them in order unless told. ``exact``: the
        results are differences, largest ones or copies of the source, which integers of the same scale hold exactly.
        """
        exact = exact and source.is_plain
        outputs, inputs = weights.shape[:2]
        channels = np.broadcast_to(np.arange(inputs), (outputs, inputs)) if channels is None else channels
        target, low = target or self._home(tail.value), tail.low
        if tail.slope is not None:
            # Both signs, each from a block on.
            gap = ((0, self._whole_blocks(outputs) - outputs), *[(0, 0)] * 3)
            weights = np.concatenate([np.pad(weights, gap), -weights])
            bias = np.concatenate([np.pad(bias, gap[0]), -bias])
            channels, low = np.concatenate([np.pad(channels, gap[:2]), channels]), 0.0
        for first, end, span in self._ranges(source, channels):
            self._append(tail, (span,), self._gather_weights(source, weights, channels, first, end, span),
                         bias[first:end], target, low, stride, pad, first, exact)
        self._place_results(tail, target, source.size, len(weights))
        if tail.slope is not None:
            index = target.first + np.arange(outputs)
            self.placed[tail.value] = Placed(target.map, self.placed[tail.value].size,
                                             np.stack([index, index + self._whole_blocks(outputs)]),
                                             np.stack([np.ones(outputs), -tail.slope]))
        return self.placed[tail.value]

    def _append(self, tail, inputs, weights, bias, target, low, stride=1, pad=NO_PAD, first=0, exact=False):
        """A layer that writes from channel ``first`` of ``target`` on; ``exact`` as of :meth:`_convolve`."""
        number = sum(layer.output.map == target.map for layer in self.layers)
        name = f"{target.map}#{number}" if number else target.map
        scale, same = tail.scale, ()
        if exact and scale is None:
            parts = [(part.map, np.arange(part.first, part.first + part.channels)) for part in inputs]
            scale = self._common_scale(parts)
            if set().union(*(self._scales(*part) for part in parts)) == {None}:
                same = tuple(dict.fromkeys(layer.name for part in parts for layer in self._makers(*part)))
        full = self._home(tail.full) if tail.full else None
        self.layers.append(Layer(
            name, inputs, weights.astype(np.float32), np.asarray(bias, np.float32),
            Target(target.map, target.first + first), stride, tuple(map(int, pad)), low == 0,
            None if tail.high == np.inf else float(tail.high), tail.pool, tail.pool_ceil,
            full and Target(full.map, full.first + first), scale, same, float(low) if -np.inf < low < 0 else None))
        self.nodes[name] = tail.node or self.node

    def _place_results(self, tail, target, in_size, channels):
        """Note where the values of ``tail`` are, which the last layers have made from inputs of ``in_size``."""
        layer = self.layers[-1]
        shapes = layer.written(in_size)
        self.fused.update(tail.through)
        if tail.full:
            self._place(tail.full, self._home(tail.full), (channels, *shapes[layer.full][1:]))
        self._place(tail.value, target, (channels, *shapes[layer.output][1:]))

    def _ranges(self, source, channels):
        """``(first, end, slice)``: ranges of outputs, in whole blocks, and what of the map each reads. Neighbours are
        one layer where that takes no more cycles."""
        ranges = []
        for first in range(0, len(channels), self.block):
            end = min(first + self.block, len(channels))
            rows = channels[first:end]
            used = source.index[:, rows][source.factor[:, rows] != 0]
            span = self._span(source.map, *((used.min(), used.max() + 1) if used.size else (0, 1)))
            while ranges:
                before, _, other = ranges[-1]
                low = min(span.first, other.first)
                both = self._span(source.map, low, max(span.first + span.channels, other.first + other.channels))
                cost = (self._cost(both, end - before)
                        - self._cost(other, first - before) - self._cost(span, end - first))
                if cost > 0:
                    break
                ranges.pop()
                first, span = before, both
            ranges.append((first, end, span))
        return ranges

    def _cost(self, span, outputs):
        """Cycles of a layer, up to a factor: a lane for each output channel, an input channel after the other."""
        return span.channels * ceil_div(outputs, self.lanes)

    def _gather_weights(self, source, weights, channels, first, end, span):
        """``weights[first:end]`` for the channels of the map that ``span`` names."""
        result = np.zeros((end - first, span.channels, *weights.shape[2:]))
        rows = np.arange(end - first)[:, None]
        for index, factor in zip(source.index, source.factor, strict=True):
            picked, place = factor[channels[first:end]], index[channels[first:end]] - span.first
            # Channels without a factor may lie anywhere.
            np.add.at(result, (rows, np.where(picked == 0, 0, place)),
                      picked[:, :, None, None] * weights[first:end])
        return result

    def _per_channel(self, source, factor, bias, tail, **layer):
        """A 1x1 layer without sums over channels."""
        channels = np.arange(len(factor))[:, None]
        return self._convolve(source, np.asarray(factor, float)[:, None, None, None], bias, tail, channels=channels,
                              **layer)

    def _identity(self, source, tail, **layer):
        channels, (low, high) = source.index.shape[1], self._limits(source)
        tail = tail.within(low, high if tail.slope is None else max(high, -low))
        return self._per_channel(source, np.ones(channels), np.zeros(channels), tail, **{"exact": True} | layer)

    def _concat(self, operator):
        first, places = self._home(operator.name).first, []
        name = self._home(operator.name).map
        for part in operator.inputs:
            place = self.placed[part]
            if self.takers.get(part) is not operator or place.map != name or place.index[0, 0] != first:
                place = self._identity(place, Tail(f"{operator.name}.{part}"), target=Target(name, first))
            places.append(place)
            first += self._whole_blocks(self._width(operator, part))
        terms = max(len(place.index) for place in places)

        def joined(arrays, fill):
            return np.concatenate([np.pad(array, ((0, terms - len(array)), (0, 0)), mode=fill) for array in arrays], 1)

        self.placed[operator.name] = Placed(name, places[0].size, joined([place.index for place in places], "edge"),
                                            joined([place.factor for place in places], "constant"))

    def _add(self, operator, sources):
        tail = self._tail(operator.name)
        a, b = (self._aligned(source, f"{operator.name}.{name}")
                for name, source in zip(operator.inputs, sources, strict=True))
        self._sum(a, b, operator.factors, operator.bias, Tail(operator.name) if tail.slope is not None else tail)

    def _aligned(self, source, name):
        """``source``, or the place of a copy, as consecutive channels from a block on."""
        return source if source.is_run and source.index[0, 0] % self.block == 0 else self._identity(source, Tail(name))

    def _sum(self, a, b, factors, bias, tail, exact=False):
        """Layers for ``factors[0][c] * a[c] + factors[1][c] * b[c] + bias[c]`` and ``tail``, a block each."""
        operands = [(place, place.factor[0] * factor) for place, factor in zip((a, b), factors, strict=True)]
        if a.map == b.map and a.index[0, 0] == b.index[0, 0]:
            self._per_channel(replace(a, factor=np.ones_like(a.factor)), operands[0][1] + operands[1][1], bias, tail)
            return self.placed[tail.value]
        # In the order in which they lie in memory: that of their first writers.
        maps = list(self.written)
        operands.sort(key=lambda operand: (maps.index(operand[0].map), operand[0].index[0, 0]))
        target, channels = self._home(tail.value), len(bias)
        for first in range(0, channels, self.block):
            count = min(self.block, channels - first)
            slices, parts = [], []
            for source, factor in operands:
                start = int(source.index[0, 0]) + first
                slices.append(self._span(source.map, start, start + count))
                part = np.zeros((count, slices[-1].channels))
                part[np.arange(count), np.arange(count)] = factor[first:first + count]
                parts.append(part)
            self._append(tail, tuple(slices), np.concatenate(parts, 1)[:, :, None, None], bias[first:first + count],
                         target, tail.low, first=first, exact=exact)
        self._place_results(tail, target, a.size, channels)
        return self.placed[tail.value]

    def _convolution(self, operator, source):
        weights = _dilate(operator.weights, operator.dilation)
        size = [length + before + after for length, before, after in
                zip(source.size, operator.pad[:2], operator.pad[2:], strict=True)]
        stride = self._square_stride(operator, size, weights.shape[2:])
        outputs, inputs = weights.shape[:2]
        channels = (np.arange(outputs) // (outputs // operator.groups) * inputs)[:, None] + np.arange(inputs)
        pad, number = operator.pad, 0
        while step := self._folding_step(operator, weights.shape[2:], stride, size):
            number += 1
            source, weights = self._space_to_depth(operator, source, weights, step, stride, pad, number)
            channels = np.broadcast_to(np.arange(weights.shape[1]), weights.shape[:2])
            stride, pad, size = max(1, stride // step), NO_PAD, source.size
        if stride > MAX_STRIDE:
            raise ValueError(f"{operator.node} has stride {stride}; beyond {MAX_STRIDE} only multiples of 2, 3 or 4 "
                             f"without groups are supported: use smaller strides one after the other")
        if max(weights.shape[2:]) > MAX_KERNEL:
            source, weights, channels = self._shifted(operator, source, weights, channels, stride, pad)
            pad = NO_PAD
        self._convolve(source, weights, operator.bias, self._tail(operator.name), channels=channels, stride=stride,
                       pad=pad)

    def _square_stride(self, operator, size, kernel):
        """The stride both ways; a direction in which there is one window only takes any."""
        free = [length - taps < 1 for length, taps in zip(size, kernel, strict=True)]
        strides = {step for step, any_step in zip(operator.stride, free, strict=True) if not any_step}
        if len(strides) > 1:
            raise ValueError(f"{operator.node} has stride {operator.stride[0]} x {operator.stride[1]}; only the same "
                             f"stride both ways is supported: train with such a stride")
        return strides.pop() if strides else 1

    def _folding_step(self, operator, kernel, stride, size):
        """By how much rows and columns are to be folded into channels, because kernel or stride is too large; 0 if that
        is not needed or not possible."""
        if max(kernel) <= MAX_KERNEL and stride <= MAX_STRIDE or operator.groups > 1:
            return 0
        alone = tuple(kernel) == tuple(size)
        steps = [step for step in (2, 3, 4) if alone or stride % step == 0]
        enough = [step for step in steps
                  if ceil_div(max(kernel), step) <= MAX_KERNEL and stride // step <= MAX_STRIDE]
        return (enough or steps[-1:] or [0])[0]

    def _space_to_depth(self, operator, source, weights, step, stride, pad, number):
        """Fold ``step x step`` pixels into channels: the folded source, and ``weights`` for it."""
        outputs, inputs, *kernel = weights.shape
        windows = [(length + before + after - taps) // stride for length, before, after, taps in
                   zip(source.size, pad[:2], pad[2:], kernel, strict=True)]
        taps = [ceil_div(length, step) * step for length in kernel]
        below = [max(0, count * stride + reach - length - before) for count, reach, length, before in
                 zip(windows, taps, source.size, pad[:2], strict=True)]
        # Channel (y * step + x) * inputs + c of the folded map is pixel (y, x) of each square.
        places = np.eye(step * step).repeat(inputs, 0).reshape(-1, 1, step, step)
        folded = self._convolve(source, places, np.zeros(len(places)),
                                Tail(f"{operator.name}.fold{number}", *self._limits(source)),
                                channels=np.tile(np.arange(inputs), step * step)[:, None], stride=step,
                                pad=(*pad[:2], *below), exact=True)
        padded = np.pad(weights, ((0, 0), (0, 0), *((0, full - own) for full, own in zip(taps, kernel, strict=True))))
        split = padded.reshape(outputs, inputs, taps[0] // step, step, taps[1] // step, step)
        return folded, split.transpose(0, 3, 5, 1, 2, 4).reshape(outputs, -1, taps[0] // step, taps[1] // step)

    def _shifted(self, operator, source, weights, channels, stride, pad):
        """A kernel that is too large, as a small one on moved copies of the map: ``(source, weights, channels)``."""
        starts, sides = zip(*(_groups_of_taps(np.flatnonzero(weights.any((0, 1, 3 - axis))), weights.shape[axis + 2])
                              for axis in (0, 1)), strict=True)
        windows = [(length + before + after - taps) // stride for length, before, after, taps in
                   zip(source.size, pad[:2], pad[2:], weights.shape[2:], strict=True)]
        size = [count * stride + side for count, side in zip(windows, sides, strict=True)]
        count = source.index.shape[1]
        target, width = self._home(f"{operator.name}.moved"), self._whole_blocks(count)
        padded = np.pad(weights, ((0, 0), (0, 0), (0, sides[0]), (0, sides[1])))
        parts, index = [], []
        for y in starts[0]:
            for x in starts[1]:
                first = width * len(parts)
                index.append(first + np.arange(count))
                self._moved_copy(operator, source, (y - pad[0], x - pad[1]), size,
                                 Tail(f"{operator.name}.moved{len(parts)}", *self._limits(source)),
                                 Target(target.map, first))
                parts.append(padded[:, :, y:y + sides[0], x:x + sides[1]])
        moved = Placed(target.map, tuple(size), np.concatenate(index)[None], np.ones((1, len(parts) * count)))
        return moved, np.concatenate(parts, 1), np.concatenate([channels + n * count for n in range(len(parts))], 1)

    def _moved_copy(self, operator, source, offset, size, tail, target):
        """``copy[y, x] = source[y + offset[0], x + offset[1]]`` of ``size``, zeros outside of the source."""
        before = [max(0, -move) for move in offset]
        after = [wanted + max(0, move) - length - more for wanted, move, length, more in
                 zip(size, offset, source.size, before, strict=True)]
        # What is too much behind is left out by taps of 0.
        kernel = [max(0, move) + 1 + max(0, -more) for move, more in zip(offset, after, strict=True)]
        if max(kernel) > MAX_KERNEL:
            raise ValueError(f"{operator.node} has taps {max(kernel) - 1} pixels from each other or from its centre, "
                             f"the limit is {MAX_KERNEL - 1}: use a smaller kernel or dilation")
        count = source.index.shape[1]
        weights = np.zeros((count, 1, *kernel))
        weights[:, :, max(0, offset[0]), max(0, offset[1])] = 1
        self._convolve(source, weights, np.zeros(count), tail, channels=np.arange(count)[:, None],
                       pad=(*before, *(max(0, more) for more in after)), target=target, exact=True)

    def _average_pool(self, operator, source):
        size = [length + before + after for length, before, after in
                zip(source.size, operator.pad[:2], operator.pad[2:], strict=True)]
        if operator.kernel == tuple(size) and not any(operator.pad):
            self._mean(operator, source)
            return
        if max(operator.kernel) > MAX_KERNEL:
            raise ValueError(f"{operator.node} has a window of {operator.kernel[0]} x {operator.kernel[1]}; the limit "
                             f"is {MAX_KERNEL} x {MAX_KERNEL}, but for the mean of a whole map: use smaller pools one "
                             f"after the other")
        stride = self._square_stride(operator, size, operator.kernel)
        if stride > MAX_STRIDE:
            raise ValueError(f"{operator.node} has stride {stride}; the limit is {MAX_STRIDE}: use smaller pools one "
                             f"after the other")
        self._window_mean(source, operator.kernel, 1 / np.prod(operator.kernel), self._tail(operator.name),
                          stride=stride, pad=operator.pad)

    def _window_mean(self, source, kernel, factor, tail, **layer):
        count = source.index.shape[1]
        return self._convolve(source, np.full((count, 1, *kernel), factor), np.zeros(count), tail,
                              channels=np.arange(count)[:, None], **layer)

    def _mean(self, operator, source):
        """The mean of a whole map: means of squares until one kernel spans the rest."""
        low = 0.0 if operator.name in self.model.nonnegative else -np.inf
        area, number = np.prod(source.size), 0
        while max(source.size) > MAX_KERNEL:
            step = min(MAX_STRIDE, ceil_div(max(source.size), MAX_KERNEL))
            kernel = [min(step, length) for length in source.size]
            number += 1
            area /= np.prod(kernel)
            source = self._window_mean(source, kernel, 1 / np.prod(kernel), Tail(f"{operator.name}.mean{number}", low),
                                       stride=step, pad=(0, 0, *(-length % side for length, side in
                                                                 zip(source.size, kernel, strict=True))))
        self._window_mean(source, source.size, 1 / area, self._tail(operator.name))

    def _max_pool(self, operator, source):
        nonnegative = operator.inputs[0] in self.model.nonnegative
        for pad in (NO_PAD, operator.pad) if nonnegative else (NO_PAD,):
            mode = self._pool_mode(operator, source.size, pad)
            if mode:
                self._identity(source, Tail(operator.name, pool=mode[0], pool_ceil=mode[1]), pad=pad)
                return
        if operator.kernel == source.size and not any(operator.pad):
            self._largest(operator, source)
            return
        self._running_max(operator, source)

    def _largest(self, operator, source):
        """The largest value of a whole map: 2x2 pools until one pixel is left."""
        number = 0
        while True:
            last = max(source.size) <= 2
            number += 1
            value = operator.name if last else f"{operator.name}.max{number}"
            source = self._identity(source, Tail(value, pool=2, pool_ceil=True))
            if last:
                return

    def _running_max(self, operator, source):
        """Any other max-pool: ``max(a, b) = a + relu(b - a)`` of a map and itself moved, in growing steps."""
        if any(operator.pad) and operator.inputs[0] not in self.model.nonnegative:
            raise ValueError(f"{operator.node} pads a map that may be negative; only pools of maps without negative "
                             f"values can be padded: put it behind a ReLU")
        if operator.stride[0] != operator.stride[1] or operator.stride[0] > MAX_STRIDE:
            raise ValueError(f"{operator.node} has stride {operator.stride[0]} x {operator.stride[1]}; only the same "
                             f"stride both ways, 1 to {MAX_STRIDE}, is supported: use 2x2 or 3x3 windows with stride 2")
        pad, kernel = operator.pad, operator.kernel
        if min(kernel[0] - pad[0] - pad[2], kernel[1] - pad[1] - pad[3]) < 1:
            source = self._identity(source, Tail(f"{operator.name}.padded"), pad=pad)
            pad = NO_PAD
        # A window that begins `pad` before its first value and ends `pad` behind the last stays in its place.
        taps = [kernel[0] - pad[0] - pad[2], kernel[1] - pad[1] - pad[3]]
        if max(taps) > MAX_KERNEL:
            raise ValueError(f"{operator.node} has a window of {kernel[0]} x {kernel[1]}, the limit without padding is "
                             f"{MAX_KERNEL} x {MAX_KERNEL}; use 2x2 or 3x3 windows with stride 2, one after the other")
        if source.is_plain and len(self._scales(source.map, source.index)) == 1:
            source = self._aligned(source, f"{operator.name}.aligned")
        else:
            source = self._identity(source, Tail(f"{operator.name}.aligned"))
        low, high = self._limits(source)
        moves = [(axis, sign * step) for axis in range(2)
                 for sign, step in _moves(pad[axis], kernel[axis] - 1 - pad[axis])]
        for number, (axis, step) in enumerate(moves, start=1):
            last = number == len(moves) and taps == [1, 1] and operator.stride == (1, 1)
            tail = self._tail(operator.name) if last else Tail(f"{operator.name}.max{number}")
            source = self._max_with_moved(source, axis, step, Tail(f"{operator.name}.more{number}", 0.0, high - low),
                                          tail.within(low, high))
        if taps != [1, 1] or operator.stride != (1, 1):
            # What lies behind the last whole window is left out by a kernel with one weight.
            count = source.index.shape[1]
            weights = np.zeros((count, 1, *taps))
            weights[:, :, 0, 0] = 1
            self._convolve(source, weights, np.zeros(count), self._tail(operator.name).within(low, high),
                           channels=np.arange(count)[:, None], stride=operator.stride[0], exact=True)

    def _max_with_moved(self, source, axis, step, more, tail):
        """``max(x[i], x[i + step])`` along rows or columns, zeros outside, and ``tail``; ``more`` is the tail of what
        the second is above the first."""
        count, reach = source.index.shape[1], abs(step)
        taps = np.zeros(reach + 1)
        taps[0 if step > 0 else -1], taps[-1 if step > 0 else 0] = -1, 1
        kernel = taps.reshape((-1, 1) if axis == 0 else (1, -1))
        pad = [0, 0, 0, 0]
        pad[axis + (2 if step > 0 else 0)] = reach
        more = self._convolve(source, np.broadcast_to(kernel, (count, 1, *kernel.shape)), np.zeros(count),
                              more, channels=np.arange(count)[:, None], pad=pad, exact=True)
        return self._sum(source, more, np.ones((2, count)), np.zeros(count), tail, exact=True)


def _bounds(clamp):
    """``(low, high)`` of a clamp that a layer can do."""
    if not clamp.low <= 0 < clamp.high:
        raise ValueError(f"{clamp.node} clamps to {clamp.low:g} .. {clamp.high:g}; only a lower bound of at most 0, or "
                         f"none, and an upper bound above 0, or none, are supported: train with ReLU or ReLU6")
    return float(clamp.low), float(clamp.high)


def _dilate(weights, dilation):
    """Weights with taps of 0 between the taps."""
    outputs, inputs, *kernel = weights.shape
    result = np.zeros((outputs, inputs, *((taps - 1) * step + 1 for taps, step in zip(kernel, dilation, strict=True))),
                      weights.dtype)
    result[:, :, ::dilation[0], ::dilation[1]] = weights
    return result


def _groups_of_taps(used, taps):
    """``(starts, side)``: kernels of ``side`` taps, one from each start on, that hold all ``used`` taps of ``taps``."""
    if taps <= MAX_KERNEL:
        return [0], taps
    best = None
    for side in range(1, MAX_KERNEL + 1):
        starts = []
        for tap in used if used.size else [0]:
            if not starts or tap >= starts[-1] + side:
                starts.append(int(tap))
        # A copy of the map costs about as much as two taps.
        if best is None or len(starts) * (side + 2) < len(best[0]) * (best[1] + 2):
            best = starts, side
    return best


def _moves(before, after):
    """``(sign, step)`` of moves after which a maximum reaches ``before`` values back and ``after`` ahead.

    A step is at most one longer than what its side has reached: what lies outside of the map then adds nothing.
    """
    moves = []
    for sign, wanted in ((-1, before), (1, after)):
        reach = 0
        while reach < wanted:
            step = min(wanted - reach, reach + 1, MAX_KERNEL - 1)
            moves.append((sign, step))
            reach += step
    return moves
