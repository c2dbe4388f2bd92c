"""Random integer networks whose layers read slices and blocks of several maps, and write maps side by side."""
from dataclasses import replace

from compiler.emit import compile_network
from compiler.phases import needs_whole, phase_counts
from golden.cycles import even_work
from golden.layer import Slice, Target
from golden.network import QuantisedNetwork
from golden.postprocess import value_limits
from golden.tiling import ceil_div

from .random_layers import random_layer, with_prediction


def blocks_of(network, name, block):
    """Slices of a block each of map ``name``."""
    channels = network.maps[name][0]
    return [Slice(name, first, min(block, channels - first)) for first in range(0, channels, block)]


def random_inputs(rng, network, names, signs, block):
    """Of the maps ``names``: blocks of one that follow each other, as one slice or a slice each; or a block each of two
    of one kind (or of one), in any order."""
    kinds = {name: (network.maps[name][1:], signs[name]) for name in names}
    name = str(rng.choice(list(kinds)[-2:]))
    blocks = blocks_of(network, name, block)
    if rng.random() < .5:
        others = [other for other in kinds if kinds[other] == kinds[name] and other != name]
        others = blocks_of(network, str(rng.choice(others)) if others else name, block)
        parts = [blocks[rng.integers(len(blocks))], others[rng.integers(len(others))]]
        return tuple(parts[::rng.choice([-1, 1])])
    first, end = sorted(rng.choice(len(blocks) + 1, 2, replace=False))
    if rng.integers(2):
        return tuple(blocks[first:end])
    return (Slice(name, blocks[first].first, sum(part.channels for part in blocks[first:end])),)


def random_clamp(rng, width, signed):
    """A clamp whose limits are those of the map, or nearer to 0; also a ReLU into a signed map."""
    low, high = value_limits(width, signed)
    return int(rng.choice([low, low, low // 3, 0])), int(rng.choice([high, high, high // 3]))


def random_target(rng, network, name, size, block):
    """A map of its own called ``name``, or the next block of a map of ``size`` that a layer has begun."""
    begun = [other for other in network.maps if other != network.input_name and network.maps[other][1:] == size]
    if not begun or rng.random() < .5:
        return Target(name)
    other = str(rng.choice(begun))
    return Target(other, ceil_div(network.maps[other][0], block) * block)


def random_network(rng, config, *, depth=3):
    """``depth`` random layers that fit ``config``, some with a prediction if it has the intersect array; the first one
    reads the whole input."""
    width, block = config.value_width, config.block
    shape = (int(rng.integers(1, rng.choice([4, 40]))), int(rng.integers(1, 24)), int(rng.integers(1, 24)))
    signs = {"input": bool(rng.integers(2))}
    network = QuantisedNetwork("random", width, shape, signs["input"], (), ())
    # An input that later layers read in parts or with other maps is not dense.
    first_name = int(rng.integers(2))
    while len(network.layers) < depth:
        name = f"layer{len(network.layers)}"
        names = list(network.maps)[first_name:]
        inputs = random_inputs(rng, network, names, signs, block) if network.layers else (Slice("input", 0, shape[0]),)
        in_shape = (sum(part.channels for part in inputs), *network.maps[inputs[0].map][1:])
        if rng.random() < .6:
            # The size stays: only such maps can be added, or written by several layers.
            taps = int(rng.choice([1, 3]))
            options = dict(kernel=(taps, taps), pad=(taps // 2,) * 4)
        else:
            kernel = tuple(int(n) for n in rng.integers(1, rng.choice([2, 4, 8]), 2))
            pool = int(rng.choice([0, 0, 2, 3]))
            options = dict(kernel=kernel, stride=int(rng.choice([1, 1, 2, 3, 4])), pool=pool, keep_full=pool == 2,
                           pad=tuple(int(n) for n in rng.integers(0, max(kernel), 4)))
        options |= dict(width=width, out_channels=int(rng.integers(1, 2 * config.lanes + 3)))
        layer = random_layer(rng, name, inputs, in_shape, signed_in=signs[inputs[0].map], **options)
        if min(layer.full_shape) < 1:
            continue    # the map is too small for this kernel: draw again
        output = random_target(rng, network, name, (layer.pooled_shape or layer.full_shape)[1:], block)
        # Of the kind of what it reads, as a rule: only maps of one kind are read together.
        signed = signs.get(output.map, signs[inputs[0].map] ^ (rng.random() < .2))
        layer = random_layer(rng, name, inputs, in_shape, signed_in=signs[inputs[0].map], output=output,
                             limits=random_clamp(rng, width, signed), **options)
        longer = QuantisedNetwork("random", width, shape, signs["input"], (*network.layers, layer), (output.map,))
        try:
            compile_network(longer, config)
        except ValueError as error:
            if "no tile of a" not in str(error):
                raise
            continue    # this one does not fit the buffers: draw again
        network = longer
        signs |= {target.map: signed for target in layer.targets}
    if config.intersect:
        network = replace(network, layers=tuple(
            with_prediction(rng, layer) if layer.low == 0 and rng.random() < .4 else layer for layer in network.layers))
    return network


def random_phases(rng, network, config):
    """For the layers of ``network`` on the intersect array any phases that the compiler may choose."""
    found = {}
    for layer in network.layers if config.intersect else ():
        phases, joined = rng.choice(phase_counts(layer, config, 3))
        work = even_work(layer.geometry(), config, phases=phases, joined=joined, density_in=.5)
        found[layer.name] = replace(work, whole=needs_whole(layer, phases, joined))
    return found
