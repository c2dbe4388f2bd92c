"""Bitstream files of 7-series devices: .bit (header and configuration packets) and .bin (packets, bytes swapped).

Source: AMD UG470, "Configuration Packets" and "Configuration Registers"; Project X-Ray documentation, "Bitstream
format". A .bit file is a list of fields, then the packets: big-endian words, of which the device takes those after the
sync word. A packet writes words to a register; FDRI takes the frames.
"""
import struct
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from .frames import FRAME_WORDS, Frames, without_ecc

MAGIC = bytes.fromhex("0009 0ff0 0ff0 0ff0 0ff0 00 0001")
SYNC = 0xAA995566
CRC, FAR, FDRI, CMD, LOUT, MFWR, IDCODE = 0, 1, 2, 4, 8, 10, 12
#: Value of CMD that sets the CRC to zero.
RESET_CRC = 7
#: Value of CMD after which the device ignores everything up to the next sync word.
DESYNC = 13
WRITE = 2


class BitError(ValueError):
    """The file is no usable bitstream; the message says where it stops being one."""


@dataclass
class BitFile:
    """A .bit file: what its header says, and the configuration data as big-endian words."""
    design: str
    part: str
    date: str
    time: str
    data: bytes

    @property
    def words(self) -> tuple[int, ...]:
        """The configuration data as numbers."""
        return struct.unpack(f">{len(self.data) // 4}I", self.data)


def read_bit(path: Path) -> BitFile:
    """A .bit file. :class:`BitError` if it is something else, truncated or has bytes after its end."""
    content = Path(path).read_bytes()
    if not content.startswith(MAGIC):
        raise BitError(f"{path} is not a .bit file: it does not begin with the bytes {MAGIC.hex(' ')}")
    position = len(MAGIC)

    def take(count: int) -> bytes:
        nonlocal position
        taken = content[position:position + count]
        if len(taken) < count:
            raise BitError(f"{path} is truncated: {position + count} bytes are announced, it has {len(content)}")
        position += count
        return taken

    texts = []
    for key in b"abcd":
        if take(1)[0] != key:
            raise BitError(f"{path}: header field {chr(key)!r} is missing at byte {position - 1}")
        texts.append(take(int.from_bytes(take(2))).rstrip(b"\0").decode("latin-1"))
    if take(1) != b"e":
        raise BitError(f"{path}: header field 'e', the configuration data, is missing at byte {position - 1}")
    data = take(int.from_bytes(take(4)))
    if position != len(content):
        raise BitError(f"{path}: {len(content) - position} bytes follow the end at byte {position}")
    if len(data) % 4:
        raise BitError(f"{path}: configuration data of {len(data)} bytes, not a multiple of 4")
    return BitFile(*texts, data)


def to_bin(bit: BitFile) -> bytes:
    """Content of the .bin file for Linux' FPGA manager on a Zynq-7000: the data, bytes of each word swapped."""
    words = bit.words
    return struct.pack(f"<{len(words)}I", *words)


def packets(words: tuple[int, ...]) -> Iterator[tuple[int, tuple[int, ...]]]:
    """Register and words of each write, from the first sync word to the end or to DESYNC.

    :class:`BitError` if there is no sync word, a word is no packet header or the last packet is incomplete.
    """
    if SYNC not in words:
        raise BitError("no sync word AA995566: not a bitstream, or one with its bytes swapped")
    position, register = words.index(SYNC) + 1, None
    while position < len(words):
        header = words[position]
        kind, operation = header >> 29, header >> 27 & 3
        if kind == 1:
            register, count = header >> 13 & 0x3FFF, header & 0x7FF
        elif kind == 2 and register is not None:
            count = header & 0x7FFFFFF
        else:
            raise BitError(f"word {position} of the configuration data, {header:08x}, is not the header of a packet")
        position += 1
        if position + count > len(words):
            raise BitError(f"the packet at word {position - 1} has {count} words, but {len(words) - position} follow")
        data = words[position:position + count]
        position += count
        # The type 1 header before one of type 2 has no words: it only names the register.
        if operation == WRITE and data:
            yield register, data
            if (register, data[-1]) == (CMD, DESYNC):
                return


def crc_table(bits: int) -> list[int]:
    """What ``bits`` bits, lowest first, make of a CRC-32C remainder (polynomial 1EDC6F41, bits reversed) of zero."""
    table = []
    for value in range(1 << bits):
        for _ in range(bits):
            value = value >> 1 ^ (0x82F63B78 if value & 1 else 0)
        table.append(value)
    return table


OF_BYTE, OF_REGISTER = crc_table(8), crc_table(5)


def update_crc(crc: int, register: int, data: tuple[int, ...]) -> int:
    """The device's CRC after a write: over the 32 bits of each word and the 5 of its register, lowest first."""
    for word in data:
        crc ^= word
        for _ in range(4):
            crc = crc >> 8 ^ OF_BYTE[crc & 0xFF]
        crc = crc >> 5 ^ OF_REGISTER[(crc ^ register) & 0x1F]
    return crc


@dataclass
class Configuration:
    """What a bitstream writes.

    ``idcodes``: each IDCODE that it checks. ``writes``: frame address and words of each write of frames. ``crcs``: for
    each check of the CRC, the value in the bitstream and the one of what it wrote before.
    """
    idcodes: list[int] = field(default_factory=list)
    writes: list[tuple[int, tuple[int, ...]]] = field(default_factory=list)
    crcs: list[tuple[int, int]] = field(default_factory=list)

    @property
    def num_frames(self) -> int:
        """Frames written, those that pad a row included."""
        return sum(len(words) for _, words in self.writes) // FRAME_WORDS


def read_configuration(words: tuple[int, ...]) -> Configuration:
    """What the words of a bitstream write. :class:`BitError` if they are no packets or use compression."""
    configuration = Configuration()
    crc = address = 0
    for register, data in packets(words):
        if register == MFWR:
            raise BitError("the bitstream is compressed (multi-frame writes), which is not supported: "
                           "write it without compression")
        if register == CRC:
            configuration.crcs += [(value, crc) for value in data]
            crc = 0
            continue
        if register != LOUT:
            crc = update_crc(crc, register, data)
        if register == CMD and data[-1] == RESET_CRC:
            crc = 0
        elif register == IDCODE:
            configuration.idcodes += data
        elif register == FAR:
            address = data[-1]
        elif register == FDRI:
            if len(data) % FRAME_WORDS:
                raise BitError(f"{len(data)} words of frames are written at frame 0x{address:08X}, "
                               f"not a multiple of {FRAME_WORDS}")
            configuration.writes.append((address, data))
    return configuration


def read_frames(configuration: Configuration, rows: list[list[int]]) -> Frames:
    """Frames that a configuration writes, with error correction codes zero.

    ``rows`` are the frame addresses of each row, as :attr:`boards.bitstream.database.Database.rows`. Two frames of
    padding follow each row. :class:`BitError` if a write begins elsewhere than at a frame of the part, or goes on after
    the last.
    """
    order = [address for row in rows for address in (*row, None, None)]
    frames = {}
    for start, words in configuration.writes:
        if start not in order:
            raise BitError(f"frames are written from 0x{start:08X}, where the part has none")
        first = order.index(start)
        count = len(words) // FRAME_WORDS
        if first + count > len(order):
            raise BitError(f"{count} frames are written from 0x{start:08X}, where the part has {len(order) - first}")
        for number, address in enumerate(order[first:first + count]):
            if address is not None:
                frames[address] = without_ecc(list(words[number * FRAME_WORDS:(number + 1) * FRAME_WORDS]))
    return frames
