"""Weight images of both arrays, by the byte."""
from dataclasses import replace

import numpy as np
import pytest

from compiler.phases import phase_weights
from compiler.weights import weight_image
from golden.layer import NEVER
from golden.tiling import Tiling
from hw.configs import CONFIGS
from sim_tests.golden_model.random_layers import random_layer, with_prediction

TINY, TINY_SNAPEA = CONFIGS["tiny"], CONFIGS["tiny_snapea"]
BLOCK_32 = replace(TINY_SNAPEA, name="block_32", lanes=32, block=32, weight_depth=224)


def test_broadcast_image_by_the_byte():
    rng = np.random.default_rng(1)
    layer = random_layer(rng, "a", "input", (17, 4, 4), width=8, kernel=(2, 2), out_channels=18)
    image = weight_image(layer, Tiling(16, 1, 2, 3, 1, 1), TINY)
    at = 0
    for lanes in (range(16), range(16, 18)):
        for lane in range(lanes[0], lanes[0] + 16):
            bias, scale, shift = ((int(values[lane]) for values in (layer.bias, layer.scale, layer.shift))
                                  if lane in lanes else (0, 0, 0))
            assert image[at:at + 8] == bias.to_bytes(8, "little", signed=True)
            assert int.from_bytes(image[at + 8:at + 16], "little") == scale + (shift << 32)
            at += 16
        for channels in (range(16), range(16, 17)):
            for row in range(2):
                for column in range(2):
                    for channel in channels:
                        weights = [int(layer.weights[lane, channel, row, column]) & 255 for lane in lanes]
                        beats = bytes(weights).ljust(-(-len(lanes) // 8) * 8, b"\0")
                        assert image[at:at + len(beats)] == beats
                        at += len(beats)
    assert at == len(image)


def intersect_lane(weights, channels, rows, config):
    """Maps and values of a lane in a round, given its weights [phases, C, kh, kw] of each phase of the round."""
    blocks = -(-len(channels) // config.block)
    bits, values = 0, []
    columns = range(weights.shape[3])
    words = [(row, column, block) for row in rows for column in columns for block in range(blocks)]
    for number, (row, column, block) in enumerate(words):
        for channel in channels[block * config.block:(block + 1) * config.block]:
            for phase, weight in enumerate(weights[:, channel, row, column]):
                if weight:
                    place = (phase * len(words) + number) * config.block
                    bits |= 1 << place + channel - channels[0] - block * config.block
                    values.append(int(weight) & 255)
    maps = bits.to_bytes(-(-len(weights) * len(words) * config.block // 64) * 8, "little")
    return maps + bytes(values).ljust(-(-len(values) // 8) * 8, b"\0")


@pytest.mark.parametrize("config, number, joined, predicts", [
    (TINY_SNAPEA, 1, 0, False), (TINY_SNAPEA, 3, 0, False), (TINY_SNAPEA, 4, 0, True), (BLOCK_32, 2, 0, False),
    (BLOCK_32, 2, 0, True), (CONFIGS["snapea"], 4, 0, False), (TINY_SNAPEA, 4, 2, False), (TINY_SNAPEA, 7, 3, True),
    (TINY_SNAPEA, 4, 3, False), (BLOCK_32, 5, 3, True), (BLOCK_32, 2, 1, False), (CONFIGS["snapea"], 4, 3, False)],
    ids=lambda value: getattr(value, "name", value))
def test_intersect_image_by_the_byte(config, number, joined, predicts):
    rng = np.random.default_rng(1)
    step, lanes = config.block, config.lanes
    layer = random_layer(rng, "a", "input", (2 * step + 1, 5, 5), width=8, kernel=(3, 2), out_channels=lanes + 3)
    layer.weights[2] = 0
    if predicts:
        layer = with_prediction(rng, layer)
    image = weight_image(layer, Tiling(2 * step, 2, 2, 3, 1, 1, number, joined), config)
    weights, at = phase_weights(layer, number, joined), 0
    below = dict.fromkeys(range(2 * lanes), 0) | dict(enumerate(map(int, layer.zero_below)))
    for block in (range(lanes), range(lanes, lanes + 3)):
        beats = int.from_bytes(image[at:at + 8], "little")
        at += 8
        for lane in range(block[0], block[0] + -(-len(block) // step) * step):
            scale, shift = (int(values[lane]) if lane in block else 0 for values in (layer.scale, layer.shift))
            assert image[at:at + 8] == below[lane].to_bytes(8, "little"), "the rest of the bias is in the start values"
            assert int.from_bytes(image[at + 8:at + 16], "little") == scale + (shift << 32)
            at += 16
        end = at + 8 * beats
        shared = number - joined - 1
        rounds = [(phases, channels, rows) for phases in [*([phase] for phase in range(shared)), range(shared, number)]
                  for channels in (range(2 * step), range(2 * step, 2 * step + 1)) for rows in (range(2), range(2, 3))]
        for count, (phases, channels, rows) in enumerate(rounds):
            for lane in block:
                start = 0 if count else int(layer.bias[lane]) - below[lane]
                threshold = (max(int(layer.prediction.thresholds[lane]) - below[lane], NEVER)
                             if predicts and phases[0] == 0 else 0)
                expected = start.to_bytes(4, "little", signed=True) + threshold.to_bytes(4, "little", signed=True)
                expected += intersect_lane(weights[list(phases), lane], channels, rows, config)
                assert image[at:at + len(expected)] == expected, (count, lane)
                at += len(expected)
        assert at == end
    assert at == len(image)
