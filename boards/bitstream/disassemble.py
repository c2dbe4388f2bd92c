"""From configuration frames back to features, and whether they are those of a design."""
from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from .assemble import assemble, complete, lookup, place
from .database import Database, Feature, Tile
from .fasm import SetFeature, addresses
from .frames import Frames

#: Tile and feature name -> mask of the addresses that are enabled.
Enabled = dict[tuple[str, str], int]
#: Frame address, word, mask with one bit.
Position = tuple[int, int, int]


@dataclass
class Disassembly:
    """What frames configure: every feature whose bits they hold, and the set bits that belong to none of them.

    A feature without a bit that is 1 is left out, for it cannot be told from an unused tile. A feature whose bits all
    belong to larger ones as well is included.
    """
    features: Enabled
    unexplained: list[Position]


def holds(frames: Frames, tile: Tile, entry: Feature) -> bool:
    """Whether the bits of a tile's feature are as enabling it makes them."""
    for group, wanted in (entry.ones, True), (entry.zeros, False):
        for address, word, mask in place(tile, entry, group):
            if (address in frames and frames[address][word] & mask != 0) != wanted:
                return False
    return True


def disassemble(database: Database, frames: Frames) -> Disassembly:
    """All features of the part that the frames enable, error correction codes set to zero beforehand."""
    tiles_at = defaultdict(list)
    for tile in database.tiles.values():
        for number, segment in enumerate(tile.segments):
            for word in range(segment.offset, segment.offset + segment.words):
                tiles_at[segment.address >> 7, word].append((tile, number))
    features: Enabled = defaultdict(int)
    unexplained = []
    known: dict[tuple[str, str, int], bool] = {}
    for frame_address, words in sorted(frames.items()):
        for word, value in enumerate(words):
            for bit in addresses(value):
                explained = False
                for tile, number in tiles_at[frame_address >> 7, word]:
                    segment = tile.segments[number]
                    key = number, frame_address - segment.address, word - segment.offset, 1 << bit
                    for name, address, entry in database.features(tile).setters.get(key, ()):
                        feature = tile.name, name, address
                        if feature not in known:
                            known[feature] = holds(frames, tile, entry)
                        if known[feature]:
                            features[tile.name, name] |= 1 << address
                            explained = True
                if not explained:
                    unexplained.append((frame_address, word, 1 << bit))
    return Disassembly(dict(features), unexplained)


def to_fasm(features: Enabled) -> Iterator[str]:
    """FASM lines of features, sorted; addresses other than 0 as one range with a hexadecimal value."""
    for (tile, name), mask in sorted(features.items()):
        width = mask.bit_length()
        yield f"{tile}.{name}" if mask == 1 else f"{tile}.{name}[{width - 1}:0] = {width}'h{mask:x}"


@dataclass
class Comparison:
    """How frames differ from a design: nowhere, if all three are empty.

    ``missing``: features of the design that the frames do not hold. ``extra``: features that the frames hold but the
    design's own frames do not. ``unexplained``: set bits that belong to no feature.
    """
    missing: Enabled
    extra: Enabled
    unexplained: list[Position]

    @property
    def equal(self) -> bool:
        """Whether the frames are those of the design."""
        return not (self.missing or self.extra or self.unexplained)


def enabled(database: Database, features: Iterable[SetFeature]) -> Enabled:
    """What :func:`disassemble` can find of features: those with a bit that is 1."""
    found: Enabled = defaultdict(int)
    for feature in features:
        for address, entry in lookup(database, feature):
            if entry.ones:
                found[feature.tile, feature.name] |= 1 << address
    return dict(found)


def without(features: Enabled, others: Enabled) -> Enabled:
    """The features that are not among the others."""
    rest = {key: mask & ~others.get(key, 0) for key, mask in features.items()}
    return {key: mask for key, mask in rest.items() if mask}


def compare(database: Database, features: Iterable[SetFeature], frames: Frames) -> Comparison:
    """How frames, without error correction codes, differ from what the features of a design make.

    :class:`boards.bitstream.assemble.AssembleError` if the features cannot be assembled.
    """
    features = list(features)
    expected = assemble(database, features)
    design = enabled(database, complete(database, features))
    found = disassemble(database, frames)
    # A feature can follow from others without being asked for, such as one whose bits are a part of theirs.
    extra: Enabled = defaultdict(int)
    for (name, feature), mask in without(found.features, design).items():
        tile = database.tiles[name]
        for address in addresses(mask):
            if not holds(expected, tile, database.features(tile)[feature][address]):
                extra[name, feature] |= 1 << address
    return Comparison(without(design, found.features), dict(extra), found.unexplained)
