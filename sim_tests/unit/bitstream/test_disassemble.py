"""Disassembling: what goes in comes out, and no single bit can change without :func:`compare` saying so."""
import pytest
from hypothesis import given
from hypothesis import strategies as st

from boards.bitstream.assemble import assemble, place
from boards.bitstream.disassemble import compare, disassemble, enabled, to_fasm, without
from boards.bitstream.fasm import SetFeature, parse
from boards.bitstream.frames import ECC_MASK, FramesError, read_frames, write_frm


def design(database, wanted):
    """Of ``wanted`` (tile, feature, mask), those that contradict none before them."""
    state = {}
    chosen = []
    for tile, name, mask in wanted:
        entries = database.features(database.tiles[tile])[name]
        mask &= sum(1 << address for address in entries)
        changes = [(bit, value) for address in entries if mask >> address & 1
                   for value, group in ((1, entries[address].ones), (0, entries[address].zeros))
                   for bit in place(database.tiles[tile], entries[address], group)]
        if all(state.get(bit, value) == value for bit, value in changes):
            state.update(changes)
            chosen.append(SetFeature(tile, name, mask, "design", len(chosen) + 1))
    return chosen


@st.composite
def wanted(draw, database):
    # STEPDOWN adds features of its own and has its own test.
    names = sorted((tile.name, name) for tile in database.tiles.values() for name in database.features(tile)
                   if "STEPDOWN" not in name)
    return [(*draw(st.sampled_from(names)), draw(st.integers(0, (1 << 256) - 1) | st.just(1)))
            for _ in range(draw(st.integers(0, 25)))]


@given(st.data())
def test_round_trip(database, data):
    features = design(database, data.draw(wanted(database)))
    frames = assemble(database, features)
    found = disassemble(database, frames)
    assert found.unexplained == []
    assert without(enabled(database, features), found.features) == {}
    assert assemble(database, parse(to_fasm(found.features), "f")) == frames
    assert compare(database, features, frames).equal


@given(st.data())
def test_a_changed_bit_is_a_difference(database, data):
    features = design(database, data.draw(wanted(database)))
    frames = assemble(database, features)
    address = data.draw(st.sampled_from([address for row in database.rows for address in row]))
    word, bit = data.draw(st.tuples(st.integers(0, 100), st.integers(0, 31)))
    frames.setdefault(address, [0] * 101)[word] ^= 1 << bit
    assert not compare(database, features, frames).equal


def compared(database, design_lines, frame_lines):
    result = compare(database, parse(design_lines, "f"), assemble(database, parse(frame_lines, "f")))
    return list(to_fasm(result.missing)), list(to_fasm(result.extra)), result.unexplained


def test_missing_and_extra_features(database):
    assert compared(database, ["INT_L_X0Y0.A.X", "CLB_X0Y0.SLICE.INIT[3:0] = 4'b1011"],
                    ["INT_L_X0Y1.A.Y", "CLB_X0Y0.SLICE.INIT[3:0] = 4'b1110"]) == (
        ["CLB_X0Y0.SLICE.INIT", "INT_L_X0Y0.A.X"], ["CLB_X0Y0.SLICE.INIT[2:0] = 3'h4", "INT_L_X0Y1.A.Y"], [])


def test_implied_feature_is_no_difference(database):
    assert compared(database, ["INT_L_X0Y0.WHOLE"], ["INT_L_X0Y0.WHOLE"]) == ([], [], [])
    assert compared(database, ["INT_L_X0Y0.PART"], ["INT_L_X0Y0.WHOLE"]) == ([], ["INT_L_X0Y0.WHOLE"], [])


def test_unexplained_bits(database):
    frames = assemble(database, parse(["INT_L_X0Y0.B.Z"], "f"))
    frames[2][0] |= 1 << 20                                  # no feature
    frames[1] = [0] * 101
    frames[1][3] |= 1 << 1                                   # half of INT_L_X0Y1.A.X
    frames[0x12345] = [0] * 100 + [1 << 31]                  # no tile
    found = disassemble(database, frames)
    assert found.unexplained == [(1, 3, 1 << 1), (2, 0, 1 << 20), (0x12345, 100, 1 << 31)]
    assert found.features == {("INT_L_X0Y0", "B.Z"): 1}


def test_bit_that_must_be_clear(database):
    frames = assemble(database, parse(["INT_L_X0Y0.B.Z"], "f"))
    frames[0] = [1 << 7] + [0] * 100
    assert disassemble(database, frames).features == {}


def bitread(frames):
    """The text of ``bitread -o``."""
    text = ""
    for address, words in sorted(frames.items()):
        text += f".frame 0x{address:08x}\n"
        text += "".join(f"{word:08x}" + ("\n" if n % 6 == 5 else " ") for n, word in enumerate(words)) + "\n\n"
    return text


def test_files_of_frames(database, tmp_path):
    frames = assemble(database, parse(["INT_L_X0Y0.A.X", "IOB33_SING_X1Y49.IOB_Y1.IN"], "f"))
    with_ecc = {address: [*words[:50], words[50] | ECC_MASK, *words[51:]] for address, words in frames.items()}
    write_frm(with_ecc, tmp_path / "frm")
    (tmp_path / "bits").write_text(bitread(with_ecc))
    assert frames == read_frames(tmp_path / "frm") == read_frames(tmp_path / "bits")


@pytest.mark.parametrize("text, message", [
    ("hello\n", "line 1: neither a .frm file nor the output of bitread -o"),
    ("0x00000000 " + "0x0," * 100 + "zz\n", "line 1: neither"),
    ("0x00000000 " + "0x0," * 99 + "0x0\n", "line 1: frame 0x00000000 has 100 words"),
    ("0x00000000 " + "0x0," * 100 + "0x123456789\n", "line 1: frame 0x00000000 has 101 words, not 101 of 32 bits"),
    ("0x00000000 " + "0x0," * 100 + "0x0\n\n.frame 0x00000010\n0 0\n", "line 3: frame 0x00000010 has 2 words"),
    (2 * ("0x00000000 " + "0x0," * 100 + "0x0\n"), "line 2: frame 0x00000000 is there a second time"),
    ("", "holds no frames"),
])
def test_bad_file_of_frames(tmp_path, text, message):
    (tmp_path / "f").write_text(text)
    with pytest.raises(FramesError, match=message):
        read_frames(tmp_path / "f")
