"""Maps: what is encoded is decoded, by the byte as golden/README.md says, and malformed maps are refused."""
import dataclasses
import time

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from golden.formats import decode, decode_map, encode, encode_map, plan_map, slot_beats
from hw.configs import CONFIGS

from .random_layers import DENSITIES, random_map

TINY, DEFAULT, NULLHOP = (CONFIGS[name] for name in ("tiny", "default", "nullhop"))


@settings(max_examples=120, deadline=None)
@given(config=st.sampled_from([TINY, DEFAULT, NULLHOP]), shape=st.tuples(*map(st.integers, (1, 1, 1), (70, 6, 13))),
       density=st.sampled_from(DENSITIES), signed=st.booleans(), dense=st.booleans(), seed=st.integers(0, 1000))
def test_decode_inverts_encode(config, shape, density, signed, dense, seed):
    plan = plan_map(shape, config, signed=signed, dense=dense and shape[0] <= config.block)
    rng = np.random.default_rng(seed)
    values = random_map(rng, shape, width=config.value_width, signed=signed, density=density).transpose(1, 2, 0)
    image = encode(values, config, plan)
    assert len(image) == plan.size
    assert (decode(image, config, plan) == values).all()


def test_bytes_of_a_slot():
    plan = plan_map((17, 1, 5), TINY)
    values = np.zeros((1, 5, 17), int)
    values[0, 0, 0], values[0, 0, 15], values[0, 3, 1], values[0, 4, 16] = 7, 255, 9, 1
    image = encode_map(values, TINY, plan)
    assert (plan.segment_bytes, plan.row_bytes, plan.size) == (256, 512, 512)
    assert image[:16] == bytes([1, 0x80, 0, 0, 0, 0, 2, 0, 7, 255, 9, 0, 0, 0, 0, 0])
    assert image[128:256] == bytes(128)
    assert image[256 + 128:256 + 128 + 16] == bytes([1, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0])
    assert slot_beats(values, TINY, plan).tolist() == [[[2, 1], [1, 2]]]


def test_bytes_of_a_dense_map():
    plan = plan_map((3, 1, 5), NULLHOP, signed=True, dense=True)
    values = np.arange(15).reshape(1, 5, 3) - 7
    image = np.frombuffer(encode(values, NULLHOP, plan), "<i2")
    assert (plan.dense_shift, plan.segment_bytes) == (2, 32)
    assert image.tolist() == [-7, -6, -5, 0, -4, -3, -2, 0, -1, 0, 1, 0, 2, 3, 4, 0, 5, 6, 7, 0] + [0] * 12
    assert plan_map((1, 1, 1), TINY, dense=True).segment_bytes == 8


def test_any_strides_are_followed():
    plan = plan_map((20, 4, 9), TINY)
    wide = dataclasses.replace(plan, row_bytes=4096, segment_bytes=512, size=4 * 4096)
    values = random_map(np.random.default_rng(1), (4, 9, 20), width=8, signed=False, density=0.5)
    image = encode_map(values, TINY, wide)
    assert (decode_map(image, TINY, wide) == values).all()
    assert image[4096:4096 + 256] == encode_map(values, TINY, plan)[plan.row_bytes:plan.row_bytes + 256]


@pytest.mark.parametrize("config", [TINY, NULLHOP], ids=lambda config: config.name)
def test_garbage_behind_the_values_is_not_read(config):
    plan = plan_map((config.block, 1, 4), config)
    values = np.zeros((1, 4, config.block), int)
    values[0, 0, 0] = 5
    image = bytearray(encode_map(values, config, plan))
    end = (config.map_beats + 1) * 8
    image[end:] = b"\xff" * (len(image) - end)
    assert (decode_map(bytes(image), config, plan) == values).all()


@pytest.mark.parametrize(("at", "value", "message"), [
    (2, 0x10, "channels"), (7, 0x01, "width"), (8, 0, "stores a zero"), (9, 1, "filled up")])
def test_malformed_maps_are_refused(at, value, message):
    plan = plan_map((3, 1, 3), TINY)
    values = np.zeros((1, 3, 3), int)
    values[0, 0, 0] = 5
    image = bytearray(encode_map(values, TINY, plan))
    image[at] = value
    if at < 8:
        image[9] = 1
    with pytest.raises(ValueError, match=message):
        decode_map(bytes(image), TINY, plan)


def test_values_beyond_the_width_are_refused():
    plan = plan_map((1, 1, 1), TINY)
    for value in (-1, 256):
        with pytest.raises(ValueError, match="0 to 255"):
            encode_map(np.full((1, 1, 1), value), TINY, plan)
    with pytest.raises(ValueError, match="1 x 1 x 1"):
        encode_map(np.zeros((1, 2, 1), int), TINY, plan)
    with pytest.raises(ValueError, match="at most 16 channels"):
        plan_map((17, 1, 1), TINY, dense=True)


def test_a_large_map_takes_less_than_two_seconds():
    rng = np.random.default_rng(0)
    values = rng.integers(0, 256, (224, 224, 64), np.uint8) * (rng.random((224, 224, 64), np.float32) < 0.5)
    plan = plan_map((64, 224, 224), DEFAULT)
    start = time.process_time()
    assert (decode_map(encode_map(values, DEFAULT, plan), DEFAULT, plan) == values).all()
    assert time.process_time() - start < 2
