"""Network images: what the compiler writes, what the driver's reader takes and refuses."""
import dataclasses
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
from hw.descriptor import DESCRIPTOR_BYTES, FIELD_BY_NAME, MAGIC
from hw.registers import LOG_BYTES
from sim_tests.golden_model.random_layers import random_layer, random_map

CONFIG = CONFIGS["tiny"]
#: Bytes of header and of the entries of the tables, as docs/network-image.md says.
HEADER, SEGMENT, MAP = 96, 16, 96


def network(*, dense=True, signed=False):
    """Two layers with every kind of map: both outputs of a pool, a layer without ReLU."""
    rng = np.random.default_rng(11)
    shape = (3 if dense else 20, 9, 7)
    first = random_layer(rng, "first", "input", shape, width=8, kernel=(3, 3), out_channels=18, pad=(1, 1, 1, 1),
                         pool=2, keep_full=True, signed_in=signed)
    last = random_layer(rng, "last", "first", first.maps["first"], width=8, kernel=(1, 1), out_channels=5, relu=False)
    scales = {"input": 0.5, "first": 0.25, "first.full": 0.25, "last": 3.0}
    return QuantisedNetwork("chain", 8, shape, signed, (first, last), ("last", "first.full"), scales)


@pytest.fixture(scope="module")
def program():
    return compile_network(network(), CONFIG)


@pytest.fixture(scope="module")
def data(program):
    return image_bytes(program)


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


@pytest.mark.parametrize("options", [{}, {"dense": False}, {"signed": True}], ids=str)
def test_the_reader_finds_what_the_compiler_placed(tmp_path, options):
    program = compile_network(network(**options), CONFIG, base_address=0x2000_0000)
    write_image(program, tmp_path / "deep" / "net.zsn")
    image = read_image(tmp_path / "deep" / "net.zsn")
    assert (image.name, image.capability, image.configuration) == ("chain", capability(CONFIG), CONFIG.configuration_id)
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
        assert found.scale == program.network.scales[name] and (found.value_width, found.block) == (8, 16), name
        assert found.slot_bytes == CONFIG.slot_bytes, name
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


def test_the_same_program_gives_the_same_bytes(data):
    assert image_bytes(compile_network(network(), CONFIG)) == data


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
        image_bytes(renamed(scales={"input": 1.0}))


def test_configuration_id_depends_on_every_parameter_but_the_name():
    names = [field.name for field in dataclasses.fields(CONFIG)]
    other = {"value_width": 16, "groups": 3, "lanes": 32, "block": 32, "drain": 8, "weight_depth": 161,
             "tile_slots": 33, "sum_windows": 33, "pool_columns": 9, "max_burst": 8}
    assert dataclasses.replace(CONFIG, name="other").configuration_id == CONFIG.configuration_id
    seen = {CONFIG.configuration_id}
    for name in names[1:]:
        # 32 channels of a block need as many lanes.
        changes = {name: other[name]} | ({"lanes": 32} if name == "block" else {})
        seen.add(dataclasses.replace(CONFIG, **changes).configuration_id)
    assert len(seen) == len(names)
    assert 0 <= min(seen) and max(seen) < 1 << 32


# ---- damage ----------------------------------------------------------------------------------------------------

def test_every_truncation_and_every_flipped_bit_is_refused(data):
    chance = random.Random(1)
    for size in [*range(HEADER + 4), *(chance.randrange(len(data)) for _ in range(50)), len(data) - 1]:
        with pytest.raises(ImageError):
            parse_image(data[:size])
    with pytest.raises(ImageError, match="bytes in place of"):
        parse_image(data + b"\0")
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
    "small region": ("I", 36, 4096, "which is outside of the region"),
    "descriptor offset": ("I", 40, 8, "segment 0 does not hold the 2 descriptors"),
    "no layers": ("I", 44, 0, "0 layers"),
    "layers": ("I", 44, 1, "segment 0 does not hold the 1 descriptors"),
    "log": ("I", 48, 4, "log at 0x4"),
    "log over descriptors": ("I", 48, 0, "share the bytes"),
    "log beyond": ("I", 48, 0xFFFF_FF80, "log at 0xffffff80"),
    "no segments": ("I", 52, 0, "not possible"),
    "segments": ("I", 52, 1 << 30, "not possible"),
    "maps": ("I", 56, 0xFFFF_FFFF, "not possible"),
    "one map": ("I", 56, 1, "not possible"),
    "input": ("I", 60, 4, "the input is map 4"),
    "input is an output": ("I", 60, 3, "written by a layer"),
    "name": ("28s", 64, b"n" * 28, "name of the network does not end"),
    "name text": ("28s", 64, b"\xff", "not UTF-8"),
    "segment offset": ("I", HEADER + SEGMENT, 4, "segment 1 of .* is not possible"),
    "segment beyond": ("I", HEADER + SEGMENT, 0xFFFF_FFF8, "segment 1 does not fit"),
    "segment over segment": ("I", HEADER + SEGMENT, 0, "share the bytes"),
    "segment size": ("I", HEADER + SEGMENT + 4, 0, "segment 1 of 0 bytes"),
    "segment size beyond": ("I", HEADER + SEGMENT + 4, 0xFFFF_FFFF, "segment 1 does not fit"),
    "segment in the header": ("I", HEADER + SEGMENT + 8, 8, "does not lie in the file"),
    "segment beyond the file": ("I", HEADER + SEGMENT + 8, 1 << 20, "does not lie in the file"),
    "segment zero": ("I", HEADER + SEGMENT + 12, 1, "segment 1 .* is not possible"),
    "map name": ("48s", FIRST_MAP, b"m" * 48, "name of a map does not end"),
    "map names": ("48s", FIRST_MAP, b"last", "same name"),
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
    "map zeros": ("B", FIRST_MAP + 95, 1, "bytes that must be 0"),
    "value width": ("I", 20, 2 | 16 << 5 | 7 << 14 | 16 << 19, "values of 7 bits"),
    "block": ("I", 20, 2 | 16 << 5 | 8 << 14 | 24 << 19, "blocks of 24"),
}


@pytest.mark.parametrize("name", DAMAGE)
def test_a_field_that_does_not_fit_is_refused(data, name):
    kind, at, value, sentence = DAMAGE[name]
    with pytest.raises(ImageError, match=sentence):
        parse_image(changed(data, kind, at, value))


@pytest.mark.parametrize("field, value, sentence", [
    ("magic", 1, "descriptor 1 does not begin with"), ("in_address", 0x0FFF_F000, "descriptor 1 has the address"),
    ("weight_address", 0xFFFF_F000, "descriptor 1 has the address 0xfffff000")])
def test_a_descriptor_that_does_not_fit_is_refused(data, field, value, sentence):
    place = struct.unpack_from("<I", data, HEADER + 8)[0]
    with pytest.raises(ImageError, match=sentence):
        parse_image(changed(data, "I", place + DESCRIPTOR_BYTES + 4 * FIELD_BY_NAME[field].word, value))


def test_what_is_accepted_stays_in_the_region(data):
    """Random fields with right CRCs: refused, or within bounds; never another exception."""
    chance = random.Random(2)
    accepted = 0
    for number in range(3000):
        broken = bytearray(data)
        for _ in range(chance.randint(1, 3)):
            at = 4 * chance.randrange(struct.unpack_from("<I", data, HEADER + 8)[0] // 4 + 96)
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
    assert 100 < accepted < 2900, "both happen"


def test_files_are_named_in_errors(tmp_path, data):
    with pytest.raises(ImageError, match="absent.zsn cannot be read: No such file"):
        read_image(tmp_path / "absent.zsn")
    (tmp_path / "short.zsn").write_bytes(data[:50])
    with pytest.raises(ImageError, match="short.zsn: 50 bytes are too short"):
        read_image(tmp_path / "short.zsn")


# ---- the command -----------------------------------------------------------------------------------------------

def test_the_command_writes_an_image_and_golden_maps(tmp_path):
    arguments = ["--net", "digits", "--config", "tiny", "--check", str(tmp_path / "check"), "-o"]
    paths = tmp_path / "a.zsn", tmp_path / "b.zsn"
    for path in paths:
        result = CliRunner().invoke(command.app, [*arguments, str(path)])
        assert result.exit_code == 0, result.output
    assert paths[0].read_bytes() == paths[1].read_bytes()
    image = read_image(paths[0])
    maps = {}
    for name, plan in image.maps.items():
        maps[name] = np.fromfile(tmp_path / "check" / f"{name}.bin", "i1" if plan.signed else "u1").reshape(plan.shape)
    program = command.compile_job(command.choose_job(command.Net.digits, None, None, None), CONFIG)
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
