"""From FASM to configuration frames."""
from collections import defaultdict
from collections.abc import Iterable, Iterator

from .database import Bit, Database, Feature, Tile
from .fasm import SetFeature, addresses, read_fasm
from .frames import FRAME_WORDS, Frames

#: Problems named in one message; the rest is counted.
SHOWN = 10


class AssembleError(ValueError):
    """The features have no frames; the message names the lines and what is wrong with them."""


def lookup(database: Database, feature: SetFeature) -> Iterator[tuple[int, Feature]]:
    """The bits of each address that ``feature`` enables; nothing for a pseudo pip and for zeros.

    :class:`AssembleError` if the part has no such tile, or the tile no such feature or address.
    """
    tile = database.tiles.get(feature.tile)
    if tile is None:
        raise AssembleError(f"{feature.where}: {database.part} has no tile {feature.tile}")
    entries = database.features(tile).get(feature.name, {})
    if not entries and feature.name in database.pseudo_pips(tile):
        return
    for address in addresses(feature.mask):
        if address not in entries:
            what = f"{feature.name}[{address}]" if entries else feature.name
            raise AssembleError(f"{feature.where}: tile {tile.name} of type {tile.kind} has no feature {what}")
        yield address, entries[address]


def place(tile: Tile, feature: Feature, bits: Iterable[Bit]) -> Iterator[tuple[int, int, int]]:
    """Frame address, word and mask of ``bits`` of ``feature`` in a tile."""
    segment = tile.segments[feature.segment]
    for bit in bits:
        yield segment.address + bit.frame, segment.offset + bit.word, bit.mask


def stepdown(database: Database, features: list[SetFeature]) -> Iterator[SetFeature]:
    """STEPDOWN for the unused pads of each bank that has it on a used one: all pads of a bank share the supply."""
    banks = defaultdict(set)
    for pin in database.pins:
        banks[pin.tile].add(pin.bank)
    found: dict[str, SetFeature] = {}
    used = set()
    for feature in features:
        if feature.mask and feature.tile in banks:
            site, _, rest = feature.name.partition(".")
            used.add((feature.tile, site))
            if rest.endswith("STEPDOWN"):
                found |= dict.fromkeys(banks[feature.tile], feature)
    for name, of_tile in banks.items():
        for bank in of_tile & found.keys():
            for site in database.tiles[name].sites:
                pad = f"IOB_Y{int(site.rpartition('Y')[2]) % 2}"
                if (name, pad) not in used:
                    yield found[bank]._replace(tile=name, name=f"{pad}.{found[bank].name.partition('.')[2]}")


def complete(database: Database, features: Iterable[SetFeature]) -> list[SetFeature]:
    """The features and those that they or the part require: what a bitstream of a design holds.

    Added are ``required_features.fasm`` of the part, where the database has that file (three always-on properties of
    the configuration logic, for xc7z010clg400-1 and xc7z020clg400-1), and STEPDOWN of unused pads (:func:`stepdown`).
    Otherwise an unused pad keeps all bits zero: not driven, with a pull-down. So does PUDC_B, which Vivado makes an
    input with a pull-up: the device reads that pin before configuration only.
    """
    features = list(features)
    if database.required_fasm:
        features += read_fasm(database.required_fasm)
    return features + list(stepdown(database, features))


def conflicts(database: Database, features: list[SetFeature], bits: set[tuple[int, int, int]]) -> list[str]:
    """A sentence for each two features of which one sets and one clears the same of ``bits``.

    ``bits`` are frame address, word and mask of one bit each.
    """
    owners: dict[tuple[int, int, int], dict[str, str]] = {bit: {} for bit in bits}
    for feature in features:
        for address, entry in lookup(database, feature):
            tile = database.tiles[feature.tile]
            for change, group in ("set", entry.ones), ("clear", entry.zeros):
                for bit in owners.keys() & place(tile, entry, group):
                    suffix = f"[{address}]" if address else ""
                    owners[bit].setdefault(change, f"{feature.where}: {feature.tile}.{feature.name}{suffix}")
    pairs = {(owner["set"], owner["clear"]): bit for bit, owner in sorted(owners.items(), reverse=True)}
    return [f"{sets} sets bit {mask.bit_length() - 1} of word {word} in frame 0x{address:08X}, which must be 0 for "
            f"{clears}" for (sets, clears), (address, word, mask) in pairs.items()]


def report(problems: list[str]):
    """Raises :class:`AssembleError` with the first problems and the number of the others, if there are any."""
    if problems:
        more = [f"and {len(problems) - SHOWN} more"] if len(problems) > SHOWN else []
        raise AssembleError("\n".join(problems[:SHOWN] + more))


def assemble(database: Database, features: Iterable[SetFeature]) -> Frames:
    """Frames of a design: those in which a feature of :func:`complete` sets a bit, without error correction codes.

    :class:`AssembleError` names the lines with a tile or feature that the part does not have, or both features where
    one sets a bit and the other needs it clear.
    """
    features = complete(database, features)
    ones: Frames = defaultdict(lambda: [0] * FRAME_WORDS)
    zeros: Frames = defaultdict(lambda: [0] * FRAME_WORDS)
    problems = []
    for feature in features:
        try:
            for _, entry in lookup(database, feature):
                tile = database.tiles[feature.tile]
                for frames, group in (ones, entry.ones), (zeros, entry.zeros):
                    for address, word, mask in place(tile, entry, group):
                        frames[address][word] |= mask
        except AssembleError as error:
            problems.append(str(error))
    report(problems)
    both = {(address, word, 1 << bit) for address in ones.keys() & zeros.keys()
            for word, (one, zero) in enumerate(zip(ones[address], zeros[address], strict=True))
            for bit in addresses(one & zero)}
    if both:
        report(conflicts(database, features, both))
    return dict(ones)
