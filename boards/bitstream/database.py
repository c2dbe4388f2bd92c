"""Project X-Ray's database of one part: its tiles, and which configuration bits a feature of a tile is.

Source: Project X-Ray documentation, "Database" (tilegrid, segbits, ppips and part files). A family is a folder, for
example ``prjxray/database/zynq7``. Bit ``frame_bit`` of a segbits file is bit ``bit`` (32 to a word, counted from the
tile's first word) of the tile's ``frame``-th frame.
"""
import csv
import json
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import NamedTuple

#: Number of a configuration bus in a frame address.
BUSES = {"CLB_IO_CLK": 0, "BLOCK_RAM": 1, "CFG_CLB": 2}


class DatabaseError(ValueError):
    """The database is not usable or has no such part; the message says which file and what to do."""


class Segment(NamedTuple):
    """The words of a tile on one configuration bus."""
    bus: str
    address: int        #: of the tile's first frame
    frames: int
    offset: int         #: the tile's first word in each of its frames
    words: int
    kind: str           #: tile type whose segbits describe it
    skipped: int        #: words of that type which lie before the tile's first: not 0 for half tiles (*_SING)


class Tile(NamedTuple):
    """A tile of the device; ``segments`` is empty where nothing but pseudo pips can be configured."""
    name: str
    kind: str
    segments: tuple[Segment, ...]
    sites: tuple[str, ...]
    layout: tuple       #: tiles with equal layouts have the same features


class Bit(NamedTuple):
    """Bits ``mask`` of one word, relative to the tile's first frame and word."""
    frame: int
    word: int
    mask: int


@dataclass(frozen=True, slots=True)
class Feature:
    """What enabling a feature does: bits that become 1 and bits that must stay 0, all in segment ``segment``."""
    segment: int
    ones: tuple[Bit, ...]
    zeros: tuple[Bit, ...]


class FeatureTable(dict[str, dict[int, Feature]]):
    """Features of a tile type: name -> address -> bits. One without [address] in the database has address 0."""

    @cached_property
    def setters(self) -> dict[tuple[int, int, int, int], list[tuple[str, int, Feature]]]:
        """Segment, frame, word and mask of each bit -> the features that set it, with name and address."""
        index = {}
        for name, entries in self.items():
            for address, entry in entries.items():
                for bit in entry.ones:
                    index.setdefault((entry.segment, *bit), []).append((name, address, entry))
        return index


class Pin(NamedTuple):
    """A package pin."""
    bank: str
    tile: str


def read_mapping(path: Path) -> dict[str, dict[str, str]]:
    """Entries of ``mapping/parts.yaml`` or ``devices.yaml``: one level of names, each with ``key: value`` lines."""
    entries: dict[str, dict[str, str]] = {}
    entry: dict[str, str] = {}
    for line in path.read_text().splitlines():
        key, colon, value = (word.strip(" \"'") for word in line.partition(":"))
        if not colon or line.lstrip().startswith("#"):
            continue
        if line[0] != " ":
            entry = entries.setdefault(key, {})
        else:
            entry[key] = value
    return entries


def split_address(name: str) -> tuple[str, int]:
    """``A.INIT[07]`` -> ``("A.INIT", 7)``; address 0 where there is none."""
    base, bracket, rest = name.partition("[")
    return base, int(rest.rstrip("]")) if bracket else 0


def read_segbits(path: Path, number: int, segment: Segment) -> FeatureTable:
    """Features of a segbits file whose bits all lie in the segment; ``number`` becomes ``Feature.segment``.

    A half tile has the features of its half: the others have bits outside of it.
    """
    table = FeatureTable()
    first, end = segment.skipped * 32, (segment.skipped + segment.words) * 32
    try:
        lines = path.read_text().splitlines()
    except FileNotFoundError:
        return table
    for line_number, line in enumerate(lines, 1):
        words = line.split()
        try:
            bits: dict[bool, list[Bit]] = {True: [], False: []}
            inside = True
            for word in words[1:]:
                frame, bit = map(int, word.removeprefix("!").split("_"))
                inside &= frame < segment.frames and first <= bit < end
                bits[word[0] != "!"].append(Bit(frame, (bit - first) // 32, 1 << bit % 32))
            if len(words) == 1:
                raise ValueError
            if words and inside:
                name, address = split_address(words[0].partition(".")[2])
                table.setdefault(name, {})[address] = Feature(number, tuple(bits[True]), tuple(bits[False]))
        except ValueError:
            raise DatabaseError(f"{path}, line {line_number}: not a feature with bits: {line!r}") from None
    return table


class Database:
    """The database of ``part`` (``xc7z020clg400-1``) in the folder of its family.

    Parameters
    ----------
    family : Path
        Folder with ``mapping``, ``segbits_*.db``, ``ppips_*.db`` and a folder for each part.
    part : str
        Device, package and speed grade.

    :class:`DatabaseError` if the folder is no family, has no such part, or a file is missing or unreadable. Segbits
    and ppips of a tile type are read when the first tile of that type is asked for.
    """

    def __init__(self, family: Path, part: str):
        self.family, self.part = Path(family), part
        try:
            parts = read_mapping(self.family / "mapping" / "parts.yaml")
            devices = read_mapping(self.family / "mapping" / "devices.yaml")
        except OSError:
            raise DatabaseError(f"{family} is not the folder of a family: it has no mapping/parts.yaml and "
                                "devices.yaml. Give the folder zynq7 of prjxray-database") from None
        if part not in parts:
            raise DatabaseError(f"{family} has no part {part!r}, but {', '.join(sorted(parts)) or 'none at all'}")
        try:
            self.fabric = devices[parts[part]["device"]]["fabric"]
        except KeyError as error:
            raise DatabaseError(f"{self.family / 'mapping'}: no entry {error} on the way from {part} to its "
                                "fabric") from None
        self._tables: dict[tuple, FeatureTable] = {}
        self._pseudo_pips: dict[str, frozenset[str]] = {}

    def _load(self, *path: str):
        file = self.family.joinpath(*path)
        try:
            return json.loads(file.read_text())
        except (OSError, json.JSONDecodeError) as error:
            raise DatabaseError(f"{file} cannot be read: {error}. Install prjxray-database again") from None

    @cached_property
    def tiles(self) -> dict[str, Tile]:
        """All tiles by name."""
        tiles = {}
        for name, entry in self._load(self.fabric, "tilegrid.json").items():
            segments = []
            for bus, bits in entry["bits"].items():
                alias = bits.get("alias", {"type": entry["type"], "start_offset": 0})
                segments.append(Segment(bus, int(bits["baseaddr"], 16), bits["frames"], bits["offset"], bits["words"],
                                        alias["type"], alias["start_offset"]))
            layout = entry["type"], *((segment.kind, segment.skipped) for segment in segments)
            tiles[name] = Tile(name, entry["type"], tuple(segments), tuple(entry["sites"]), layout)
        return tiles

    @cached_property
    def _part(self) -> dict:
        return self._load(self.part, "part.json")

    @property
    def idcode(self) -> int:
        """IDCODE of the device, 32 bits."""
        return self._part["idcode"]

    @cached_property
    def rows(self) -> list[list[int]]:
        """Frame addresses of each row of each bus, in the order in which a bitstream writes them."""
        rows = {}
        for half, region in self._part["global_clock_regions"].items():
            for row, entry in region["rows"].items():
                for bus, columns in entry["configuration_buses"].items():
                    start = BUSES[bus] << 23 | (half == "bottom") << 22 | int(row) << 17
                    rows[start] = [start | column << 7 | minor
                                   for column, count in sorted((int(number), column["frame_count"]) for number, column
                                                               in columns["configuration_columns"].items())
                                   for minor in range(count)]
        return [rows[start] for start in sorted(rows)]

    @cached_property
    def pins(self) -> list[Pin]:
        """Pins of the package."""
        with open(self.family / self.part / "package_pins.csv", newline="") as file:
            return [Pin(pin["bank"], pin["tile"]) for pin in csv.DictReader(file)]

    @property
    def required_fasm(self) -> Path | None:
        """File of the features that every bitstream of the part needs; None if the database names none."""
        path = self.family / self.part / "required_features.fasm"
        return path if path.exists() else None

    def features(self, tile: Tile) -> FeatureTable:
        """Features of a tile; tiles of one layout share the table."""
        table = self._tables.get(tile.layout)
        if table is None:
            table = self._tables[tile.layout] = FeatureTable()
            for number, segment in enumerate(tile.segments):
                suffix = "" if segment.bus == "CLB_IO_CLK" else f".{segment.bus.lower()}"
                path = self.family / f"segbits_{segment.kind.lower()}{suffix}.db"
                table |= read_segbits(path, number, segment)
        return table

    def pseudo_pips(self, tile: Tile) -> frozenset[str]:
        """Names of the tile's pips that are connections without a configuration bit."""
        pips = self._pseudo_pips.get(tile.kind)
        if pips is None:
            path = self.family / f"ppips_{tile.kind.lower()}.db"
            lines = path.read_text().splitlines() if path.exists() else []
            pips = frozenset(line.split()[0].partition(".")[2] for line in lines if line.strip())
            self._pseudo_pips[tile.kind] = pips
        return pips
