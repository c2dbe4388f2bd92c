"""A program as one file that a driver runs: the network image.

Source: docs/network-image.md (normative). The reader that checks an image is that of the drivers: firmware/python.
"""
import struct
import zlib
from pathlib import Path

from golden.formats import MapPlan
from golden.tiling import ceil_div
from hw.config import AcceleratorConfig
from hw.descriptor import MAGIC as DESCRIPTOR_MAGIC
from hw.registers import register

from .emit import Program

#: "ZSNI"; minor and major version of the format.
MAGIC = 0x494E535A
VERSION = 0, 1
#: Header without its CRC, an entry of the segment table, an entry of the map table.
HEADER = struct.Struct("<IHHIIIIIIIIIIIIII28s")
SEGMENT_ENTRY = struct.Struct("<IIII")
MAP_ENTRY = struct.Struct("<48sIIHHHBBIIdH14x")
HEADER_BYTES = HEADER.size + 4
#: Segments start in the file at multiples of this.
SEGMENT_ALIGNMENT = 8
SIGNED, DENSE, OUTPUT = 1, 2, 4
#: Field ``layer`` of the map that no layer writes.
NO_LAYER = 0xFFFF


def capability(config: AcceleratorConfig) -> int:
    """Value of the register ``capability`` of an accelerator of ``config``."""
    fields = {field.name: field for field in register("capability").fields}
    values = {name: getattr(config, name) for name in ("groups", "lanes", "value_width", "block")}
    return sum(value << fields[name].low for name, value in (values | {"array": int(config.intersect)}).items())


def image_bytes(program: Program) -> bytes:
    """The network image of ``program``; ``ValueError`` for a name that is too long or a map without a scale."""
    network, config = program.network, program.config
    tables = HEADER_BYTES + SEGMENT_ENTRY.size * len(program.segments) + MAP_ENTRY.size * len(program.maps)
    entries, contents = [], []
    place = ceil_div(tables, SEGMENT_ALIGNMENT) * SEGMENT_ALIGNMENT
    # In ascending order, as the format wants it; the descriptors are the first in the region.
    for address, data in sorted(program.segments):
        entries.append(SEGMENT_ENTRY.pack(address - program.base, len(data), place, 0))
        contents.append(data.ljust(ceil_div(len(data), SEGMENT_ALIGNMENT) * SEGMENT_ALIGNMENT, b"\0"))
        place += len(contents[-1])
    writers = {target.map: index for index, layer in enumerate(network.layers) for target in layer.targets}
    for name, plan in program.maps.items():
        entries.append(_map_entry(name, plan, program.base, name in network.outputs, _map_scale(network, name),
                                  writers.get(name, NO_LAYER)))
    payload = b"".join(entries).ljust(ceil_div(tables, SEGMENT_ALIGNMENT) * SEGMENT_ALIGNMENT - HEADER_BYTES, b"\0")
    payload += b"".join(contents)
    header = HEADER.pack(
        MAGIC, *VERSION, HEADER_BYTES, HEADER_BYTES + len(payload), zlib.crc32(payload), capability(config),
        config.configuration_id, DESCRIPTOR_MAGIC, program.base, program.memory_bytes,
        program.descriptor_address - program.base, program.layer_count, program.log_address - program.base,
        len(program.segments), len(program.maps), list(program.maps).index(network.input_name),
        _text(network.name, 28, "network"))
    return header + struct.pack("<I", zlib.crc32(header)) + payload


def write_image(program: Program, path: Path | str) -> None:
    """Write the network image of ``program`` to ``path``; folders are made. Errors as of :func:`image_bytes`."""
    data = image_bytes(program)
    try:
        Path(path).parent.mkdir(parents=True, exist_ok=True)
        Path(path).write_bytes(data)
    except OSError as error:
        # A full disk does not name the file.
        raise OSError(error.errno, error.strerror, str(path)) from None


def _map_scale(network, name):
    """The scale of all channels of a map; 0 if they have different ones, which an input or output must not."""
    if name not in network.scales:
        raise ValueError(f"network {network.name} has no scale for map {name}, which an image needs")
    scales = set(network.scales[name][network.scales[name] != 0].tolist())
    if len(scales) == 1:
        return scales.pop()
    if name in (network.input_name, *network.outputs):
        raise ValueError(f"map {name} of network {network.name} has {len(scales)} scales; an input or output must have "
                         f"one in an image")
    return 0.0


def _text(name, size, what):
    """``name`` in UTF-8, padded with zeros to ``size`` bytes, at least one."""
    data = name.encode()
    if len(data) >= size:
        raise ValueError(f"the name of {what} {name!r} has {len(data)} bytes; an image holds {size - 1}")
    return data.ljust(size, b"\0")


def _map_entry(name: str, plan: MapPlan, base, output, scale, layer):
    flags = SIGNED * plan.signed | DENSE * plan.dense | OUTPUT * output
    return MAP_ENTRY.pack(_text(name, 48, "map"), plan.address - base, plan.size, plan.channels, plan.height,
                          plan.width, flags, plan.dense_shift or 0, plan.row_bytes, plan.segment_bytes, scale, layer)
