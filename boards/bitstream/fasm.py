"""FPGA assembly (FASM): a line for each feature that a design enables.

Source: FASM specification, "File syntax description" and "Meaning of a FASM line".
"""
import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

ANNOTATIONS = r'\{(?:[^"{}]|"(?:[^"\\]|\\.)*")*\}'
LINE = re.compile(rf"""\s*
    (?: ([A-Za-z_]\w*) ((?:\.\w+)*)                             # tile, feature
        (?: \[ (\d+) (?: : (\d+) )? \] )? \s*                   # high : low
        (?: = \s* (?: (\d*) \s* ' \s* ([hbod]) \s* ([\da-fA-F_]+) | ([\d_]+) ) )?
    )? \s* (?: {ANNOTATIONS} )? \s* (?: \#.* )? $""", re.VERBOSE)
BASES = {"b": 2, "o": 8, "d": 10, "h": 16}


class FasmError(ValueError):
    """A line is not FASM; the message names file, line and what is wrong."""


class SetFeature(NamedTuple):
    """What a line enables: the addresses of feature ``name`` of ``tile`` whose bits are set in ``mask``.

    A feature without an address has address 0, so ``mask`` is 1. ``mask`` is 0 where a line sets zeros only, which
    changes nothing.
    """
    tile: str
    name: str
    mask: int
    file: str
    line: int

    @property
    def where(self) -> str:
        """File and line, for messages."""
        return f"{self.file}, line {self.line}"


def addresses(mask: int) -> Iterator[int]:
    """The addresses whose bits are set in a mask, from the lowest."""
    while mask:
        lowest = mask & -mask
        yield lowest.bit_length() - 1
        mask ^= lowest


def parse_line(text: str, file: str, line: int) -> SetFeature | None:
    """What a line enables, None for a line without a feature. :class:`FasmError` if it is not FASM."""
    match = LINE.match(text)
    if not match:
        raise FasmError(f"{file}, line {line}: not a FASM line: {text.strip()[:80]!r}")
    tile, name, high, low, width, base, based, decimal = match.groups()
    if tile is None:
        return None
    if not name:
        raise FasmError(f"{file}, line {line}: {tile!r} names a tile but no feature")
    high = int(high or 0)
    low = high if low is None else int(low)
    if high < low:
        raise FasmError(f"{file}, line {line}: the range [{high}:{low}] runs upwards")
    try:
        value = int(based, BASES[base]) if based else int(decimal or 1)
    except ValueError:
        raise FasmError(f"{file}, line {line}: {based or decimal!r} is not a number of base "
                        f"{BASES.get(base, 10)}") from None
    width = int(width or value.bit_length())
    if value.bit_length() > width:
        raise FasmError(f"{file}, line {line}: the value has {value.bit_length()} bits, not the {width} written "
                        "before it")
    if width > high - low + 1:
        raise FasmError(f"{file}, line {line}: a value of {width} bits for the {high - low + 1} of {tile}{name}")
    return SetFeature(tile, name[1:], value << low, file, line)


def parse(lines: Iterable[str], file: str) -> Iterator[SetFeature]:
    """What each of the lines enables; ``file`` is their name in messages. :class:`FasmError` at a line that is none."""
    for number, text in enumerate(lines, 1):
        feature = parse_line(text, file, number)
        if feature:
            yield feature


def read_fasm(path: Path) -> list[SetFeature]:
    """What the lines of a file enable. :class:`FasmError` at a line that is not FASM."""
    try:
        with open(path) as file:
            return list(parse(file, str(path)))
    except UnicodeDecodeError:
        raise FasmError(f"{path}: not a text file, so not FASM") from None
