"""Bitstreams into the FPGA, through the FPGA manager of the Linux kernel.

The manager takes 32-bit words in the byte order of the processor and no header. A ``.bit`` file has a header and its
words the other way round, a ``.bin`` file of Vivado only the latter.
"""
from __future__ import annotations

import struct
from pathlib import Path

from .errors import BoardError

#: Every .bit file starts with this.
BIT_HEADER = bytes.fromhex("0009 0ff0 0ff0 0ff0 0ff0 00 0001")
#: The word that starts a configuration, as in a .bit file and as the manager wants it.
SYNC, SWAPPED_SYNC = bytes.fromhex("aa995566"), bytes.fromhex("665599aa")
#: How far from the start it may be.
SYNC_WITHIN = 4096


def load_bitstream(path, *, manager: str = "fpga0", root="/") -> None:
    """Configure the FPGA with the ``.bit`` or ``.bin`` file ``path``. Needs root.

    :class:`BoardError` if the file is no bitstream, there is no FPGA manager, or it refuses the bitstream.
    """
    root, name = Path(root), Path(path).stem + ".bin"
    folder = root / "sys/class/fpga_manager" / manager
    try:
        data = Path(path).read_bytes()
    except OSError as error:
        raise BoardError(f"the bitstream {path} cannot be read: {error.strerror}") from None
    try:
        data = to_bin(data)
    except BoardError as error:
        raise BoardError(f"{path} {error}") from None
    if not (folder / "firmware").exists():
        raise BoardError(f"{folder}/firmware does not exist: the kernel has no FPGA manager that loads files (kernels "
                         "of Xilinx have)")
    try:
        (root / "lib/firmware").mkdir(parents=True, exist_ok=True)
        (root / "lib/firmware" / name).write_bytes(data)
        # 0: all of the FPGA, not a part of it.
        (folder / "flags").write_text("0")
        (folder / "firmware").write_text(name)
        state = (folder / "state").read_text().strip()
    except OSError as error:
        hint = "; run as root" if isinstance(error, PermissionError) else "; dmesg tells more"
        raise BoardError(f"the FPGA manager did not take {path}: {error.strerror}{hint}") from None
    if state != "operating":
        raise BoardError(f"the FPGA is in state {state!r} after loading {path}; dmesg tells more")


def to_bin(data: bytes) -> bytes:
    """The bytes for the FPGA manager of a ``.bit`` or ``.bin`` file; :class:`BoardError` if it is neither."""
    if data.startswith(BIT_HEADER):
        data = _without_header(data)
    if len(data) % 4:
        raise BoardError(f"is no bitstream: it has {len(data)} bytes, which are not whole words")
    start = data[:SYNC_WITHIN]
    if SWAPPED_SYNC in start:
        return data
    if SYNC not in start:
        raise BoardError("is no bitstream: it has no sync word")
    words = len(data) // 4
    return struct.pack(f"<{words}I", *struct.unpack(f">{words}I", data))


def _without_header(data):
    """What follows the fields of a .bit file: a to d are texts with a 16-bit length, e the data with a 32-bit one."""
    place = len(BIT_HEADER)
    while data[place:place + 1] in (b"a", b"b", b"c", b"d"):
        place += 3 + int.from_bytes(data[place + 1:place + 3], "big")
    length = int.from_bytes(data[place + 1:place + 5], "big")
    place += 5
    if data[place - 5:place - 4] != b"e" or len(data) != place + length:
        raise BoardError("is a damaged .bit file: copy or build it again")
    return data[place:]
