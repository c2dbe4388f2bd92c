"""Network images: what the compiler writes, what the readers of both drivers take and refuse."""
import ctypes
import dataclasses
import functools
import itertools
import random
import struct
import zlib

import numpy as np
import pytest
from typer.testing import CliRunner
from zeroskip import ImageError, read_image
from zeroskip.image import parse_image

from boards import image as command
from compiler.emit import compile_network
from compiler.image import capability, image_bytes, write_image
from golden.network import QuantisedNetwork, run_network
from hw.configs import CONFIGS
from hw.descriptor import DESCRIPTOR_BYTES, FIELD_BY_NAME, MAGIC, unpack
from hw.registers import LOG_BYTES
from sim_tests.golden_model.random_layers import random_layer, random_map, with_prediction, with_scales

from .c_programs import FIRMWARE, need, run

CONFIG, INTERSECT = CONFIGS["tiny"], CONFIGS["tiny_snapea"]
#: ZS_ERROR_IMAGE_TRUNCATED, _HEADER, _DESCRIPTOR and _WEIGHTS of firmware/include/zeroskip.h.
TRUNCATED, HEADER_FIELD, DESCRIPTOR, WEIGHTS = 7, 12, 15, 16
#: Bytes of header and of the entries of the tables, as docs/network-image.md says.
HEADER, SEGMENT, MAP = 96, 16, 96


def network(*, channels=3, signed=False, predicts=False):
    """Two layers with every kind of map: both outputs of a pool, a layer without ReLU; 20 channels: none is dense.

    With ``predicts`` the first layer has a prediction."""
    rng = np.random.default_rng(11)
    shape = (channels, 9, 7)
    first = random_layer(rng, "first", "input", shape, width=8, kernel=(3, 3), out_channels=18, pad=(1, 1, 1, 1),
                         pool=2, keep_full=True, signed_in=signed)
    last = random_layer(rng, "last", "first", first.pooled_shape, width=8, kernel=(1, 1), out_channels=5, relu=False)
    first = with_prediction(rng, first) if predicts else first
    scales = {"input": 0.5, "first": 0.25, "first.full": 0.25, "last": 3.0}
    return with_scales(QuantisedNetwork("chain", 8, shape, signed, (first, last), ("last", "first.full")), scales)


@pytest.fixture(scope="module")
def program():
    return compile_network(network(), CONFIG)


@pytest.fixture(scope="module")
def data(program):
    return image_bytes(program)


@functools.cache
def intersect_image(phases=5, joined=0, predicts=True):
    """An image of the intersect array: a layer, unless told with a prediction, of several phases, chunks and kernel
    blocks; without a prediction its input is signed, so that any phases may be joined."""
    chain = network(channels=20, signed=not predicts, predicts=predicts)
    tiling = compile_network(chain, INTERSECT).choices["first"].tiling
    assert INTERSECT.lanes < 18
    tiling = dataclasses.replace(tiling, chunk_channels=16, chunk_rows=3, phases=phases, joined=joined)
    return image_bytes(compile_network(chain, INTERSECT, tilings={"first": tiling}))


@pytest.fixture(scope="module")
def intersect_data():
    return intersect_image()


@pytest.fixture(scope="module")
def joined_data():
    """The last three phases of the first layer share a round."""
    return intersect_image(joined=2)


@pytest.fixture(scope="module")
def c_error(tmp_path_factory):
    """What the C driver says about an image: 0 or the number of its error."""
    need("gcc", "gcc libc6-dev")
    path = tmp_path_factory.mktemp("driver") / "zeroskip.so"
    run("gcc", "-std=c11", "-O2", "-shared", "-fPIC", f"-I{FIRMWARE / 'include'}", FIRMWARE / "src/zeroskip.c",
        "-o", path)
    check = ctypes.CDLL(str(path)).zs_image_check
    # More than a struct zs_image takes.
    view = ctypes.create_string_buffer(4096)
    return lambda data: check(view, data, ctypes.c_size_t(len(data)))


def accepted(data):
    """Whether the Python driver takes an image."""
    try:
        parse_image(data)
    except ImageError:
        return False
    return True


def sealed(data):
    """``data`` with right CRCs."""
    data = bytearray(data)
    struct.pack_into("<I", data, 16, zlib.crc32(data[HEADER:]))
    struct.pack_into("<I", data, 92, zlib.crc32(data[:92]))
    return bytes(data)


def changed(data, kind, at, value):
    """``data`` with a field at byte ``at`` replaced, and right CRCs."""
    data = bytearray(data)
    struct.pack_into(f"<{kind}", data, at, value)
    return sealed(data)


@pytest.mark.parametrize("config", [CONFIG, INTERSECT], ids=lambda config: config.name)
@pytest.mark.parametrize("options", [{}, {"channels": 20}, {"signed": True}], ids=str)
def test_the_reader_finds_what_the_compiler_placed(tmp_path, options, config):
    program = compile_network(network(**options), config, base_address=0x2000_0000)
    write_image(program, tmp_path / "deep" / "net.zsn")
    image = read_image(tmp_path / "deep" / "net.zsn")
    assert (image.name, image.capability, image.configuration) == ("chain", capability(config), config.configuration_id)
    assert (image.link_base, image.region_bytes) == (program.base, program.memory_bytes)
    assert image.descriptor_offset == program.descriptor_address - program.base
    assert (image.layer_count, image.log_offset) == (2, program.log_address - program.base)
    assert [(program.base + offset, content) for offset, content in image.segments] == program.segments
    assert list(image.maps) == list(program.maps) and image.input.name == "input"
    for name, plan in program.maps.items():
        found = image.maps[name]
        assert (program.base + found.offset, found.size, found.shape) == (plan.address, plan.size, (
            plan.channels, plan.height, plan.width)), name
        assert (found.signed, found.dense, found.dense_shift) == (plan.signed, plan.dense, plan.dense_shift or 0), name
        assert (found.row_bytes, found.segment_bytes) == (plan.row_bytes, plan.segment_bytes), name
        assert found.scale == program.network.scales[name][0] and (found.value_width, found.block) == (8, 16), name
        assert found.slot_bytes == config.slot_bytes, name
    assert {name: (found.layer, found.output) for name, found in image.maps.items()} == {
        "input": (None, False), "first.full": (0, True), "first": (0, False), "last": (1, True)}


def test_the_bytes_lie_where_the_format_says(program, data):
    assert data[:4] == b"ZSNI"
    minor, major, header_bytes, size, payload_crc = struct.unpack_from("<HHIII", data, 4)
    assert (minor, major, header_bytes, size) == (0, 1, HEADER, len(data))
    assert payload_crc == zlib.crc32(data[HEADER:]) and struct.unpack_from("<I", data, 92)[0] == zlib.crc32(data[:92])
    assert struct.unpack_from("<6I", data, 20) == (
        2 | 16 << 5 | 8 << 14 | 16 << 19, CONFIG.configuration_id, MAGIC, program.base, program.memory_bytes, 0)
    layers, log, segments, maps, input_map = struct.unpack_from("<5I", data, 44)
    assert (layers, log, segments, maps, input_map) == (2, 2 * DESCRIPTOR_BYTES, 3, 4, 0)
    assert data[64:92] == b"chain".ljust(28, b"\0")
    offset, size, place, zero = struct.unpack_from("<4I", data, HEADER)
    assert (offset, size, zero) == (0, 2 * DESCRIPTOR_BYTES, 0) and place % 8 == 0
    assert data[place:place + size] == program.segments[0][1]
    entry = HEADER + 3 * SEGMENT + 3 * MAP
    assert data[entry:entry + 48] == b"last".ljust(48, b"\0")
    plan = program.maps["last"]
    assert struct.unpack_from("<IIHHHBBIIdH", data, entry + 48) == (
        plan.address - program.base, plan.size, 5, 5, 4, 0b101, 0, plan.row_bytes, plan.segment_bytes, 3.0, 1)


@pytest.mark.parametrize("name, changes", [
    ("tiny", {}), ("small", {}), ("tiny", {"value_width": 16}), ("nullhop", {}), ("tiny_snapea", {}),
    ("tiny_snapea", {"lanes": 32, "block": 32, "weight_depth": 224}), ("snapea", {})], ids=str)
@pytest.mark.parametrize("channels", [3, 40])
def test_both_drivers_take_every_kind_of_accelerator(c_error, name, changes, channels):
    config = dataclasses.replace(CONFIGS[name], **changes)
    rng = np.random.default_rng(3)
    width = config.value_width
    layer = random_layer(rng, "a", "input", (channels, 5, 6), width=width, kernel=(3, 2), out_channels=70)
    layers = (layer, random_layer(rng, "b", "a", (70, 3, 5), width=width, kernel=(1, 1), out_channels=3))
    data = image_bytes(compile_network(
        with_scales(QuantisedNetwork("two", width, (channels, 5, 6), False, layers, ("b",)), 1.0), config))
    image = parse_image(data)
    assert c_error(data) == 0 and image.capability == capability(config) == (
        config.groups | config.lanes << 5 | width << 14 | config.block << 19 | config.intersect << 28)
    assert image.input.dense == (channels == 3) and image.maps["a"].slot_bytes == config.slot_bytes
    for other in {"array": (2, 15), "width": (0, 4), "block": (0, 8, 48), "lanes": (0, config.lanes + 8)}.items():
        for value in other[1]:
            assert c_error(with_capability(data, **{other[0]: value})) == HEADER_FIELD
    if config.intersect:
        assert c_error(with_capability(data, width=16)) == HEADER_FIELD
    if config.block == 64:
        assert c_error(with_capability(data, array=0)) == HEADER_FIELD


def with_capability(data, **changes):
    """``data`` with other fields of its capability; the Python driver says that they are not possible."""
    word, = struct.unpack_from("<I", data, 20)
    for name, value in changes.items():
        low, bits = {"lanes": (5, 9), "width": (14, 5), "block": (19, 7), "array": (28, 4)}[name]
        word = word & ~((1 << bits) - 1 << low) | value << low
    broken = changed(data, "I", 20, word)
    with pytest.raises(ImageError, match="values of .* bits in blocks of .* are not possible in array"):
        parse_image(broken)
    return broken


def test_the_same_program_gives_the_same_bytes(data):
    assert image_bytes(compile_network(network(), CONFIG)) == data


def test_segments_are_written_in_ascending_order(program, data):
    descriptors, *weights = program.segments
    assert len(weights) == 2
    assert image_bytes(dataclasses.replace(program, segments=[descriptors, *reversed(weights)])) == data


@pytest.mark.parametrize("address", [0, 0x3FFF_F000])
def test_relocation_gives_the_descriptors_of_a_program_compiled_for_the_address(data, address):
    there = compile_network(network(), CONFIG, base_address=address)
    assert parse_image(data).relocated(address) == there.segments[0][1]


def test_a_program_that_an_image_cannot_hold_is_refused(program):
    def renamed(**changes):
        return dataclasses.replace(program, network=dataclasses.replace(program.network, **changes))

    with pytest.raises(ValueError, match="name of network 'n+' has 28 bytes; an image holds 27"):
        image_bytes(renamed(name="n" * 28))
    assert parse_image(image_bytes(renamed(name="n" * 27))).name == "n" * 27
    with pytest.raises(ValueError, match="has no scale for map first"):
        image_bytes(renamed(scales={"input": np.ones(3)}))
    mixed = program.network.scales | {"first": np.arange(18) // 9 * 0.5}
    assert parse_image(image_bytes(renamed(scales=mixed))).maps["first"].scale == 0.5, "channels without a writer are 0"
    mixed["first"] = mixed["first"] + 1
    assert parse_image(image_bytes(renamed(scales=mixed))).maps["first"].scale == 0
    with pytest.raises(ValueError, match="map first.full of network chain has 2 scales"):
        image_bytes(renamed(scales=mixed | {"first.full": mixed["first"]}))


def test_configuration_id_depends_on_every_parameter_but_the_name():
    names = [field.name for field in dataclasses.fields(CONFIG)]
    other = {"value_width": 16, "groups": 3, "lanes": 32, "block": 32, "drain": 8, "weight_depth": 161,
             "tile_slots": 33, "sum_windows": 33, "pool_columns": 9, "max_burst": 8}
    intersect = {"clusters": 4, "pes": 2}
    assert dataclasses.replace(CONFIG, name="other").configuration_id == CONFIG.configuration_id
    seen = {CONFIG.configuration_id}
    for name in names[1:]:
        # 32 channels of a block need as many lanes; the intersect array alone has clusters and PEs.
        changes = {name: (other | intersect).get(name)} | ({"lanes": 32} if name == "block" else {})
        changes = changes | {"array": "intersect"} if name in ("array", *intersect) else changes
        seen.add(dataclasses.replace(CONFIG, **changes).configuration_id)
    assert len(seen) == len(names)
    assert 0 <= min(seen) and max(seen) < 1 << 32


# ---- damage ----------------------------------------------------------------------------------------------------

def test_every_truncation_and_every_flipped_bit_is_refused(data):
    chance = random.Random(1)
    for size in [*range(HEADER + 4), *(chance.randrange(len(data)) for _ in range(50)), len(data) - 1]:
        with pytest.raises(ImageError):
            parse_image(data[:size])
    with pytest.raises(ImageError, match=f"{len(data) - 1} bytes in place of {len(data)}"):
        parse_image(data[:-1])
    assert parse_image(data + b"\1") == parse_image(data), "what follows an image is not its own"
    for _ in range(300):
        at, bit = chance.randrange(len(data)), chance.randrange(8)
        broken = bytearray(data)
        broken[at] ^= 1 << bit
        with pytest.raises(ImageError):
            parse_image(bytes(broken))
            pytest.fail(f"bit {bit} of byte {at} does not count (seed 1)")


FIRST_MAP = HEADER + 3 * SEGMENT
#: Field, new value, what the reader says.
DAMAGE = {
    "magic": ("I", 0, 1, "not a network image"),
    "major": ("H", 6, 2, "format version 2.0; this package reads version 1"),
    "descriptor version": ("I", 28, 5, "descriptors have version 0x5"),
    "link base": ("I", 32, 0x1000_0800, "not possible"),
    "region": ("I", 36, 0xFFFF_F000, "not possible"),
    "small region": ("I", 36, 4096, "map input of .* does not fit the region of 4096"),
    "descriptor offset": ("I", 40, 8, "segment 0 does not hold the 2 descriptors"),
    "no layers": ("I", 44, 0, "0 layers"),
    "layers": ("I", 44, 1, "segment 0 does not hold the 1 descriptors"),
    "log": ("I", 48, 4, "log at 0x4"),
    "log over descriptors": ("I", 48, 0, "segment 0 .* shares bytes with the log"),
    "log beyond": ("I", 48, 0xFFFF_FF80, "log at 0xffffff80"),
    "no segments": ("I", 52, 0, "not possible"),
    "segments": ("I", 52, 1 << 30, "not possible"),
    "maps": ("I", 56, 0xFFFF_FFFF, "not possible"),
    "one map": ("I", 56, 1, "not possible"),
    "input": ("I", 60, 4, "the input is map 4"),
    "input is an output": ("I", 60, 3, "map input is without a layer"),
    "name": ("28s", 64, b"n" * 28, "name of the network does not end"),
    "name text": ("28s", 64, b"\xff", "not UTF-8"),
    "segment offset": ("I", HEADER + SEGMENT, 4, "segment 1 of .* is not possible"),
    "segment beyond": ("I", HEADER + SEGMENT, 0xFFFF_FFF8, "segment 1 does not fit"),
    "segment over segment": ("I", HEADER + SEGMENT, 0, "segment 1 at 0x0 begins before the end"),
    "segments not in order": ("I", HEADER + SEGMENT, 0x3000, "segment 2 .* begins before the end"),
    "segment size": ("I", HEADER + SEGMENT + 4, 0, "segment 1 of 0 bytes"),
    "segment size beyond": ("I", HEADER + SEGMENT + 4, 0xFFFF_FFFF, "segment 1 does not fit"),
    "segment in the header": ("I", HEADER + SEGMENT + 8, 8, "does not lie in the file"),
    "segment beyond the file": ("I", HEADER + SEGMENT + 8, 1 << 20, "does not lie in the file"),
    "segment zero": ("I", HEADER + SEGMENT + 12, 1, "segment 1 .* is not possible"),
    "map name": ("48s", FIRST_MAP, b"m" * 48, "name of a map does not end"),
    "map name padding": ("48s", FIRST_MAP, b"in\0put", "name of a map does not end"),
    "map offset": ("I", FIRST_MAP + 48, 8, "map input of .* does not fit"),
    "map beyond": ("I", FIRST_MAP + 48, 0xFFFF_F000, "map input of .* does not fit"),
    "map size": ("I", FIRST_MAP + 52, 0xFFFF_FFFF, "map input of .* does not fit"),
    "map small": ("I", FIRST_MAP + 52, 100, "map input does not fit its 100 bytes"),
    "channels": ("H", FIRST_MAP + 56, 0, "impossible shape"),
    "dense channels": ("H", FIRST_MAP + 56, 5, "5 channels stores 2\\*\\*2"),
    "height": ("H", FIRST_MAP + 58, 0xFFFF, "does not fit its"),
    "width": ("H", FIRST_MAP + 60, 0xFFFF, "do not hold map input"),
    "flags": ("B", FIRST_MAP + 62, 8, "flags 0x8"),
    "dense shift": ("B", FIRST_MAP + 63, 5, "stores 2\\*\\*5"),
    "row": ("I", FIRST_MAP + 64, 0, "rows of 0 bytes"),
    "odd row": ("I", FIRST_MAP + 64, 39, "rows of 39 bytes"),
    "segment": ("I", FIRST_MAP + 68, 8, "segments of 8 bytes"),
    "scale": ("d", FIRST_MAP + 72, float("nan"), "scale nan"),
    "no scale": ("d", FIRST_MAP + 72, 0.0, "scale 0.0"),
    "layer": ("H", FIRST_MAP + MAP + 80, 2, "written by layer 2 of 2"),
    "output without a layer": ("H", FIRST_MAP + MAP + 80, 0xFFFF, "map first.full is without a layer"),
    "input with a layer": ("H", FIRST_MAP + 80, 0, "map input is not without a layer"),
    "input over the descriptors": ("I", FIRST_MAP + 48, 0, "input map input shares bytes with .* at 0x0"),
    "infinite scale": ("d", FIRST_MAP + 72, float("inf"), "scale inf"),
    "negative scale": ("d", FIRST_MAP + 72, -1.0, "scale -1.0"),
    "map zeros": ("B", FIRST_MAP + 95, 1, "bytes that must be 0"),
    "value width": ("I", 20, 2 | 16 << 5 | 7 << 14 | 16 << 19, "values of 7 bits"),
    "block": ("I", 20, 2 | 16 << 5 | 8 << 14 | 24 << 19, "blocks of 24"),
    "lanes": ("I", 20, 2 | 24 << 5 | 8 << 14 | 16 << 19, "24 lanes"),
    "no lanes": ("I", 20, 2 | 0 << 5 | 8 << 14 | 16 << 19, "0 lanes"),
    "no file": ("I", 12, 95, "in place of 95"),
}


@pytest.mark.parametrize("name", DAMAGE)
def test_a_field_that_does_not_fit_is_refused_by_both_drivers(data, c_error, name):
    kind, at, value, sentence = DAMAGE[name]
    broken = changed(data, kind, at, value)
    with pytest.raises(ImageError, match=sentence):
        parse_image(broken)
    assert c_error(broken)


@pytest.mark.parametrize(("index", "good"), [(0, False), (1, False), (2, True), (3, False)])
def test_only_a_map_inside_of_the_network_may_have_no_scale(data, c_error, index, good):
    """Maps: the input, an output, one that is neither, an output."""
    changed_data = changed(data, "d", FIRST_MAP + index * MAP + 72, 0.0)
    assert accepted(changed_data) == (c_error(changed_data) == 0) == good


@pytest.mark.parametrize("move", [-1, 0, 1])
def test_blocks_before_and_behind_the_first_stay_in_the_region(data, c_error, move):
    """The second of layer 1's two blocks at either end of the region, and a slot beyond."""
    at = descriptor_at(data, 1, "in_address")
    address, row, segment = struct.unpack_from("<III", data, at)
    base, size = struct.unpack_from("<II", data, 32)
    height, width = 5, 4
    last = base + size - (height - 1) * row - (-(-width // 4) - 1) * segment - CONFIG.slot_bytes
    for place, inside in ((base, move >= 0), (last, move <= 0)):
        distance = place + move * CONFIG.slot_bytes - address
        moved = changed(data, "I", descriptor_at(data, 1, "in_block_bytes"), distance % 2**32)
        assert accepted(moved) == (c_error(moved) == 0) == inside, f"{distance}"


def test_a_segment_of_a_dense_map_takes_a_beat_at_least(c_error):
    """4 pixels of one channel are 4 bytes, and stored in 8."""
    data = image_bytes(compile_network(network(channels=1), CONFIG))
    size, = struct.unpack_from("<I", data, FIRST_MAP + 52)
    assert size == 9 * 2 * 8 and accepted(data) and c_error(data) == 0
    broken = changed(data, "I", FIRST_MAP + 52, size - 4)
    assert not accepted(broken) and c_error(broken)


@pytest.mark.parametrize("shift, good", [(5, True), (6, False)])
def test_a_dense_map_stores_32_channels_of_a_pixel_at_most(c_error, shift, good):
    """Also with blocks of 64 channels."""
    data = bytearray(image_bytes(compile_network(network(), CONFIGS["snapea"])))
    height, segments, cell = 9, 2, 4 << shift
    struct.pack_into("<I", data, FIRST_MAP + 52, height * segments * cell)
    struct.pack_into("<BII", data, FIRST_MAP + 63, shift, segments * cell, cell)
    assert accepted(sealed(data)) == (c_error(sealed(data)) == 0) == good


def descriptor_at(data, layer, field):
    """The byte of a field of a descriptor in the file."""
    return struct.unpack_from("<I", data, HEADER + 8)[0] + layer * DESCRIPTOR_BYTES + 4 * FIELD_BY_NAME[field].word


@pytest.mark.parametrize("layer, field, value, sentence", [
    (1, "magic", 1, "descriptor 1 has 0x1 in magic"), (0, "pool", 1, "descriptor 0 has 0x1 in pool"),
    (0, "pool", 4, "descriptor 0 has 0x4 in pool"), (1, "out_width", 0, "descriptor 1 has 0x0 in out_width"),
    (1, "in_address", 0x0FFF_F000, "descriptor 1 has .* bytes from 0xffff000 on in in_address, which are outside"),
    (1, "in_row_bytes", 0xFFFF_FFFF, "descriptor 1 .* in in_address, which are outside"),
    (1, "in_block_bytes", 0x7FFF_FF80, "descriptor 1 has .* bytes from 0x9.* on in in_block_bytes, which are outside"),
    (1, "in_block_bytes", 0x8000_0000, "descriptor 1 has .* bytes from 0x9.* on in in_block_bytes, which are outside"),
    (1, "weight_address", 0xFFFF_F000, "descriptor 1 .* in weight_address, which are outside"),
    (0, "pool_address", 0x1000_0000, "descriptor 0 writes to the descriptors"),
    (1, "full_address", 0x1000_0000, "descriptor 1 writes to the descriptors")])
def test_a_descriptor_that_does_not_fit_is_refused_by_both_drivers(data, c_error, layer, field, value, sentence):
    broken = changed(data, "I", descriptor_at(data, layer, field), value)
    with pytest.raises(ImageError, match=sentence):
        parse_image(broken)
    assert c_error(broken)


@pytest.mark.parametrize("layer, field, condition", [(0, "full_address", "write_full"), (0, "pool_address", "pool"),
                                                     (1, "pool_address", "pool")])
def test_addresses_that_are_not_used_may_be_anything(data, c_error, layer, field, condition):
    """They are not relocated either. Layer 0 writes both maps, layer 1 does not pool."""
    data = changed(data, "I", descriptor_at(data, layer, field), 0xFFFF_FFFF)
    assert accepted(data) == (c_error(data) == 0) == (layer == 1)
    data = changed(data, "I", descriptor_at(data, layer, condition), 0)
    assert c_error(data) == 0
    word = layer * DESCRIPTOR_BYTES + 4 * FIELD_BY_NAME[field].word
    assert parse_image(data).relocated(0x2000_0000)[word:word + 4] == b"\xff\xff\xff\xff"


def weights_at(data, layer):
    """The byte of the weight image of a layer in the file: that of its segment."""
    return struct.unpack_from("<I", data, HEADER + (layer + 1) * SEGMENT + 8)[0]


def second_block(data):
    """The byte of the second kernel block's header in the weights of layer 0."""
    at = weights_at(data, 0)
    return at + 8 + INTERSECT.lanes * 16 + 8 * struct.unpack_from("<I", data, at)[0]


#: What is changed: type, byte, new value or change of the old one.
WEIGHT_DAMAGE = {
    "a beat more": lambda data: ("I", weights_at(data, 0), 1),
    "a beat less": lambda data: ("I", weights_at(data, 1), -1),
    "a beat more in the second kernel block": lambda data: ("I", second_block(data), 1),
    "a beat less in the second kernel block": lambda data: ("I", second_block(data), -1),
    "high bits of a header": lambda data: ("Q", weights_at(data, 0), 1 << 32),
    "highest bit of a header": lambda data: ("Q", weights_at(data, 0), 1 << 63),
    "all beats of a header": lambda data: ("I", weights_at(data, 0), lambda beats: 2 ** 32 - 1),
    "no beats": lambda data: ("I", weights_at(data, 0), lambda beats: 0),
    "all bits of a map": lambda data: ("Q", weights_at(data, 1) + 16 + INTERSECT.lanes * 16, lambda bits: 2 ** 64 - 1),
    "no bits in a map": lambda data: ("Q", second_block(data) + 16 + INTERSECT.lanes * 16, lambda bits: 0),
    "a phase more": lambda data: ("I", descriptor_at(data, 0, "phases"), 1),
    "a phase less": lambda data: ("I", descriptor_at(data, 0, "phases"), -1),
    "a joined phase more": lambda data: ("I", descriptor_at(data, 0, "joined"), 1),
    "two joined phases or none": lambda data: ("I", descriptor_at(data, 0, "joined"), lambda joined: 2 - joined),
    "an output channel more": lambda data: ("I", descriptor_at(data, 0, "out_channels"), 1),
    "an output channel less": lambda data: ("I", descriptor_at(data, 1, "out_channels"), -1),
    "no second kernel block": lambda data: ("I", second_block(data), lambda beats: 0),
    "more input channels": lambda data: ("I", descriptor_at(data, 1, "in_channels"), 16),
    "smaller chunks": lambda data: ("I", descriptor_at(data, 0, "chunk_rows"), -1),
    "one chunk": lambda data: ("I", descriptor_at(data, 0, "chunk_channels"), 16),
    "a kernel row less": lambda data: ("I", descriptor_at(data, 0, "kernel_rows"), -1),
    "no kernel rows": lambda data: ("I", descriptor_at(data, 0, "kernel_rows"), lambda rows: 0),
    "other weights": lambda data: ("I", descriptor_at(data, 1, "weight_address"), lambda address: struct.unpack_from(
        "<I", data, descriptor_at(data, 0, "weight_address"))[0]),
    "a beat further": lambda data: ("I", descriptor_at(data, 0, "weight_address"), 8),
    "the last beat of the segment": lambda data: ("I", descriptor_at(data, 1, "weight_address"), struct.unpack_from(
        "<I", data, HEADER + 2 * SEGMENT + 4)[0] - 8),
    "a segment without the last beat": lambda data: ("I", HEADER + 2 * SEGMENT + 4, -8),
}


def with_change(data, kind, at, change):
    """``data`` with the field at byte ``at`` changed by a number or a function, modulo its size."""
    old, = struct.unpack_from(f"<{kind}", data, at)
    new = change(old) if callable(change) else old + change
    return changed(data, kind, at, new % (1 << 8 * struct.calcsize(kind)))


@pytest.mark.parametrize("joined", [0, 2])
@pytest.mark.parametrize("name", WEIGHT_DAMAGE)
def test_weights_that_are_not_what_the_intersect_array_reads_are_refused(c_error, name, joined):
    whole = intersect_image(joined=joined)
    broken = with_change(whole, *WEIGHT_DAMAGE[name](whole))
    with pytest.raises(ImageError, match=r"the weights of descriptor [01] from channel (0|16) on do not have the \d+ "
                                         "beats"):
        parse_image(broken)
    assert c_error(broken) == WEIGHTS


@pytest.mark.parametrize("phases, joined", [(phases, joined) for phases in range(1, 8)
                                            for joined in range(min(phases, 4))])
def test_rounds_of_joined_phases_are_walked_to_their_end(c_error, phases, joined):
    whole = intersect_image(phases, joined, predicts=False)
    assert c_error(whole) == 0
    image = parse_image(whole)
    for layer in range(image.layer_count):
        read_weights(image, layer)
    # The last beats of the first layer are those of the joined phases.
    broken = with_change(whole, "I", HEADER + SEGMENT + 4, -8)
    assert c_error(broken) == WEIGHTS and not accepted(broken)
    for other in range(min(phases, 4)):
        wrong = changed(whole, "I", descriptor_at(whole, 0, "joined"), other)
        assert (c_error(wrong), accepted(wrong)) == ((0, True) if other == joined else (WEIGHTS, False)), other


@pytest.mark.parametrize("changes, sentence", [
    ({"joined": 4}, "descriptor 0 has 0x4 in joined"), ({"joined": 0xFFFF_FFFF}, "has 0xffffffff in joined"),
    ({"phases": 7, "joined": 4}, "has 0x4 in joined"), ({"phases": 2}, "has 0x2 in joined of 2 phases"),
    ({"phases": 1}, "has 0x2 in joined of 1 phases"), ({"phases": 3, "joined": 3}, "has 0x3 in joined of 3 phases")])
def test_more_phases_joined_than_there_may_be_are_refused(joined_data, c_error, changes, sentence):
    for field, value in changes.items():
        joined_data = changed(joined_data, "I", descriptor_at(joined_data, 0, field), value)
    with pytest.raises(ImageError, match=sentence):
        parse_image(joined_data)
    assert c_error(joined_data) == DESCRIPTOR


@pytest.mark.parametrize("field", ["phases", "joined"])
def test_fields_of_the_intersect_array_may_be_any_in_the_broadcast_array(data, c_error, field):
    other = changed(data, "I", descriptor_at(data, 0, field), 9)
    assert accepted(other) and c_error(other) == 0


@pytest.mark.parametrize("field, value, sentence", [
    ("chunk_channels", 0, "descriptor 0 has 0x0 in chunk_channels"), ("chunk_rows", 0, "has 0x0 in chunk_rows"),
    ("chunk_channels", 0x10000, "has 0x10000 in chunk_channels"), ("chunk_rows", 8, "has 0x8 in chunk_rows"),
    ("phases", 0, "has 0x0 in phases"), ("phases", 8, "has 0x8 in phases"),
    ("phases", 0xFFFF_FFFF, "has 0xffffffff in phases"),
    ("weight_address", 0x1000_0000, "weights at 0x10000000, which no segment loads"),
    ("weight_address", 0x0FFF_FFF8, "weights at 0xffffff8, which no segment loads"),
    ("weight_address", 0xFFFF_FFF8, "weights at 0xfffffff8, which no segment loads"),
    ("weight_address", "log", "which no segment loads"), ("weight_address", "map", "which no segment loads"),
    ("full_address", "weights", "descriptor 0 writes to segment 2"),
    ("pool_address", "weights", "descriptor 0 writes to segment 2"),
    ("pool_address", 0x1000_0000, "descriptor 0 writes to the descriptors")])
def test_a_descriptor_that_misleads_the_intersect_array_is_refused(intersect_data, c_error, field, value, sentence):
    offsets = {"log": 48, "map": HEADER + 3 * SEGMENT + MAP + 48, "weights": HEADER + 2 * SEGMENT}
    if value in offsets:
        value = 0x1000_0000 + struct.unpack_from("<I", intersect_data, offsets[value])[0]
    broken = changed(intersect_data, "I", descriptor_at(intersect_data, 0, field), value)
    with pytest.raises(ImageError, match=sentence):
        parse_image(broken)
    assert c_error(broken) == DESCRIPTOR


def test_values_and_places_of_weights_may_be_any(intersect_data, c_error):
    """The number of bits in a map counts, not which they are; so do neither start values, scales nor values."""
    first = weights_at(intersect_data, 0)
    maps = first + 16 + INTERSECT.lanes * 16
    bits, = struct.unpack_from("<H", intersect_data, maps)
    assert bits not in (0, 0xFFFF)
    for kind, at, value in (("H", maps, bits >> 1 | bits << 15 & 0xFFFF), ("Q", first + 8, 2 ** 64 - 1),
                            ("Q", maps - 8, 2 ** 64 - 1), ("Q", second_block(intersect_data) - 8, 0)):
        other = changed(intersect_data, kind, at, value)
        assert accepted(other) and c_error(other) == 0


def test_of_maps_with_one_name_the_first_is_found(data, c_error):
    data = changed(data, "48s", FIRST_MAP + MAP, b"last")
    image = parse_image(data)
    assert c_error(data) == 0 and list(image.maps) == ["input", "last", "first"] and image.maps["last"].layer == 0


def test_both_drivers_agree_on_names(data, c_error):
    """UTF-8 by Python's decoder: all pairs of bytes at the limits of its forms, with up to two bytes behind them."""
    limits = bytes.fromhex("00 41 7f 80 8f 90 9f a0 bf c0 c1 c2 df e0 e1 ec ed ee ef f0 f1 f3 f4 f5 f7 f8 ff")
    texts = [bytes(pair) + tail for pair in itertools.product(limits, repeat=2)
             for tail in (b"", b"\x80", b"\xbf\x80", b"\0\x80")]
    seen = set()
    for number, text in enumerate(texts):
        at, size = [(64, 28), (FIRST_MAP + MAP, 48)][number % 2]
        for name in (text, b"n" * (size - len(text) - 1) + text, b"n" * (size - len(text)) + text):
            broken = changed(data, f"{size}s", at, name)
            seen.add(accepted(broken))
            assert accepted(broken) == (c_error(broken) == 0), f"{name} at byte {at}"
    assert seen == {False, True}


def mutated(data, chance):
    """A damaged image: cut, with wrong CRCs, or with words of header, tables and segments that are not its own."""
    kind = chance.randrange(12)
    if kind == 0:
        return data[:chance.choice([chance.randrange(HEADER + 8), chance.randrange(len(data))])]
    broken = bytearray(data)
    if kind == 1:
        broken[chance.randrange(len(data))] ^= 1 << chance.randrange(8)
        return bytes(broken) + bytes(chance.randrange(2))
    segments, maps = (size * struct.unpack_from("<I", data, at)[0] for size, at in ((SEGMENT, 52), (MAP, 56)))
    descriptors, = struct.unpack_from("<I", data, HEADER + 8)
    weights = [(weights_at(data, layer), struct.unpack_from("<I", data, HEADER + (layer + 1) * SEGMENT + 4)[0])
               for layer in range(2)]
    parts = [(0, HEADER), (HEADER, segments), (HEADER + segments, maps), *2 * [(descriptors, 2 * DESCRIPTOR_BYTES)],
             chance.choice(weights), (chance.choice(weights)[0], 8)]
    for _ in range(chance.randint(1, 3)):
        start, size = chance.choice(parts)
        at = start + 4 * chance.randrange(size // 4)
        old, = struct.unpack_from("<I", broken, at)
        other, = struct.unpack_from("<I", broken, start + 4 * chance.randrange(size // 4))
        near = 1 << chance.randrange(16)
        value = chance.choice([0, 1, 2, 3, 7, 8, 4096, 0xFFFF, 0x1000_0000, 0xFFFF_F000, 0xFFFF_FFFF, other, 2 * old,
                               chance.getrandbits(32), old ^ 1 << chance.randrange(32), old + near, old - near])
        struct.pack_into("<I", broken, at, value % (1 << 32))
    return sealed(broken)


def test_both_drivers_agree_on_damaged_images(data, intersect_data, joined_data, c_error):
    seed = 4
    chance = random.Random(seed)
    images = [data, image_bytes(compile_network(network(channels=20), CONFIG)),
              image_bytes(compile_network(network(signed=True), CONFIGS["small"])), intersect_data, joined_data,
              image_bytes(compile_network(network(), CONFIGS["snapea"]))]
    errors = dict.fromkeys(range(WEIGHTS + 1), 0)
    for number in range(10000):
        broken = mutated(chance.choice(images), chance)
        error = c_error(broken)
        errors[error] += 1
        assert accepted(broken) == (error == 0), f"seed {seed}, number {number}: C says {error}"
    assert min(errors[number] for number in (0, *range(TRUNCATED, WEIGHTS + 1))) > 10, errors
    assert sum(errors[number] for number in range(1, TRUNCATED)) == 0, errors


def test_both_drivers_agree_on_the_last_address_that_fits(c_error):
    """For random shapes of random layers, each address as far back as the C driver takes it, and one beat more."""
    seed = 5
    chance = random.Random(seed)
    images = [image_bytes(compile_network(network(channels=channels), config)) for channels in (3, 40)
              for config in (CONFIGS["tiny"], CONFIGS["small"], INTERSECT)]
    found = dict.fromkeys(("in_address", "weight_address", "full_address", "pool_address"), 0)
    for number in range(400):
        data, layer = chance.choice(images), chance.randrange(2)
        for field, values in (("out_channels", range(1, 60)), ("kernel_rows", range(8)), ("in_width", range(1, 12)),
                              ("pool", (0, 2, 3)), ("out_height", (1, 2, 3, 8, 9)), ("out_width", (1, 2, 3, 8, 9)),
                              ("dense_shift", range(6)), ("in_channels", range(1, 40)),
                              ("in_block_bytes", (-4096 % 2**32, -128 % 2**32, 0, 128, 4096))):
            if chance.random() < 0.4:
                data = changed(data, "I", descriptor_at(data, layer, field), chance.choice(values))
        for field in found:
            at = descriptor_at(data, layer, field)
            good, = struct.unpack_from("<I", data, at)
            bad = sum(struct.unpack_from("<II", data, 32))
            if c_error(data) or c_error(changed(data, "I", at, bad)) == 0:
                continue    # the shape does not fit at all, or the address is not used
            while bad - good > 8:
                middle = (good + bad) // 16 * 8
                good, bad = (good, middle) if c_error(changed(data, "I", at, middle)) else (middle, bad)
            label = f"seed {seed}, number {number}: {field} {good:#x} of layer {layer}"
            assert accepted(changed(data, "I", at, good)) and not accepted(changed(data, "I", at, bad)), label
            found[field] += 1
    assert min(found.values()) > 10, found


def read_weights(image, layer):
    """Read the weights of a layer in a loaded region by golden/README.md, "Intersect array", beat by beat as
    IntersectWeightLoader does: as many as the headers tell, which are used up exactly."""
    fields = unpack(image.segments[0][1][layer * DESCRIPTOR_BYTES:(layer + 1) * DESCRIPTOR_BYTES])
    loaded = {offset + at: content[at:at + 8] for offset, content in image.segments[1:]
              for at in range(0, len(content) - 7, 8)}
    lanes, block = (image.capability >> low & mask for low, mask in ((5, 511), (19, 127)))
    at = fields["weight_address"] - image.link_base
    for first in range(0, fields["out_channels"], lanes):
        count = min(lanes, fields["out_channels"] - first)
        beats = int.from_bytes(loaded[at], "little")
        at += 8 + -(-count // block) * block * 16
        rounds = iter([loaded[at + 8 * n] for n in range(beats)])
        at += 8 * beats
        for phase in range(fields["phases"] - fields["joined"]):
            shared = fields["joined"] + 1 if phase + fields["joined"] + 1 == fields["phases"] else 1
            for channel in range(0, fields["in_channels"], fields["chunk_channels"]):
                channels = min(fields["chunk_channels"], fields["in_channels"] - channel)
                for row in range(0, fields["kernel_rows"], fields["chunk_rows"]):
                    taps = min(fields["chunk_rows"], fields["kernel_rows"] - row) * fields["kernel_columns"]
                    for _ in range(count):
                        read_lane(rounds, shared * taps * -(-channels // block) * block)
        assert next(rounds, None) is None, "beats are left"


def read_lane(beats, bits):
    """Start, maps of so many ``bits``, values."""
    next(beats)
    maps = int.from_bytes(b"".join(next(beats) for _ in range(-(-bits // 64))), "little")
    for _ in range(-(-bin(maps & (1 << bits) - 1).count("1") // 8)):
        next(beats)


@pytest.mark.parametrize("kind", ["data", "intersect_data", "joined_data"])
def test_what_is_accepted_stays_in_the_region(request, kind):
    """Random words with right CRCs: refused, or within bounds; never another exception."""
    data = request.getfixturevalue(kind)
    chance = random.Random(2)
    accepted = 0
    for number in range(3000):
        broken = bytearray(data)
        for _ in range(chance.randint(1, 3)):
            at = 4 * chance.randrange(chance.choice([struct.unpack_from("<I", data, HEADER + 8)[0] // 4 + 96,
                                                     len(data) // 4]))
            value = chance.choice([0, 1, 8, 4096, 0x1000_0000, 0xFFFF_FFFF, chance.getrandbits(32),
                                   struct.unpack_from("<I", broken, at)[0] ^ 1 << chance.randrange(32)])
            struct.pack_into("<I", broken, at, value)
        try:
            image = parse_image(sealed(broken))
        except ImageError:
            continue
        accepted += 1
        label = f"seed 2, number {number}"
        region = image.region_bytes
        assert all(offset + len(content) <= region for offset, content in image.segments), label
        assert image.log_offset + image.layer_count * LOG_BYTES <= region, label
        assert all(plan.offset + plan.size <= region for plan in image.maps.values()), label
        image.relocated(0)
        for layer in range(image.layer_count if kind != "data" else 0):
            read_weights(image, layer)
    assert 100 < accepted < 2900, "both happen"


def test_files_are_named_in_errors(tmp_path, data):
    with pytest.raises(ImageError, match="absent.zsn cannot be read: No such file"):
        read_image(tmp_path / "absent.zsn")
    (tmp_path / "short.zsn").write_bytes(data[:50])
    with pytest.raises(ImageError, match="short.zsn: 50 bytes are too short"):
        read_image(tmp_path / "short.zsn")


# ---- the command -----------------------------------------------------------------------------------------------

@pytest.mark.parametrize("config", [CONFIG, INTERSECT], ids=lambda config: config.name)
def test_the_command_writes_an_image_and_golden_maps(tmp_path, config):
    arguments = ["--net", "digits", "--config", config.name, "--check", str(tmp_path / "check"), "-o"]
    paths = tmp_path / "a.zsn", tmp_path / "b.zsn"
    for path in paths:
        result = CliRunner().invoke(command.app, [*arguments, str(path)])
        assert result.exit_code == 0, result.output
    assert paths[0].read_bytes() == paths[1].read_bytes()
    image = read_image(paths[0])
    maps = {}
    for name, plan in image.maps.items():
        maps[name] = np.fromfile(tmp_path / "check" / f"{name}.bin", "i1" if plan.signed else "u1").reshape(plan.shape)
    program = command.compile_job(command.choose_job(command.Net.digits, None, None, None), config)
    expected, _ = run_network(program.network, maps["input"])
    assert image_bytes(program) == paths[0].read_bytes() and set(maps) == set(expected)
    for name, values in expected.items():
        assert (maps[name] == values).all(), name


@pytest.mark.parametrize("arguments, sentence", [
    (["--config", "huge"], "no configuration 'huge'"), (["--size", "96"], "belong to --net hed"),
    (["--net", "hed", "--size", "3"], "must be 16 to 1024")])
def test_the_command_refuses_what_it_cannot_use(tmp_path, arguments, sentence):
    result = CliRunner().invoke(command.app, [*arguments, "-o", str(tmp_path / "x.zsn")])
    assert result.exit_code == 2 and "error: " in result.output and sentence in result.output
    assert not list(tmp_path.iterdir())


def test_random_maps_survive_the_files(tmp_path, program):
    x = random_map(np.random.default_rng(4), (3, 9, 7), width=8, signed=False, density=0.5)
    names = command.write_check(program, program.network.dequantise("input", x), tmp_path)
    assert names == ["input", "first.full", "first", "last"]
    expected, _ = run_network(program.network, x)
    for name, kind in (("input", "u1"), ("first.full", "u1"), ("first", "u1"), ("last", "i1")):
        assert (np.fromfile(tmp_path / f"{name}.bin", kind) == expected[name].reshape(-1)).all(), name
