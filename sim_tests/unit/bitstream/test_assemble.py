"""Assembling: exact bits, features that are added, and a sentence for what cannot be assembled."""
import pytest
from hypothesis import given
from hypothesis import strategies as st

from boards.bitstream.assemble import AssembleError, assemble
from boards.bitstream.database import Database
from boards.bitstream.fasm import parse
from boards.bitstream.frames import FRAME_WORDS, write_frm


def bits(database, *lines):
    """Frame, word and bit number of every bit that the lines set."""
    return {(address, word, bit) for address, words in assemble(database, parse(lines, "f")).items()
            for word in range(FRAME_WORDS) for bit in range(32) if words[word] >> bit & 1}


@pytest.mark.parametrize("line, expected", [
    ("INT_L_X0Y0.A.X", {(0, 0, 3), (1, 1, 1)}),
    ("INT_L_X0Y1.A.X", {(0, 2, 3), (1, 3, 1)}),
    ("INT_L_X0Y1.A.Y", {(0, 2, 3), (2, 2, 5)}),
    ("CLB_X0Y0.SLICE.INIT[7]", {(3, 1, 9)}),
    ("CLB_X0Y0.SLICE.INIT", {(0, 1, 8)}),
    ("CLB_X0Y1.SLICE.INIT[15:0] = 16'h8001", {(0, 3, 8), (3, 3, 11)}),
    ("BRAM_X2Y0.WIDTH.W2", {(0x400000, 14, 31), (0x400001, 5, 0)}),
    ("BRAM_X2Y0.RAMB_Y0.INIT_00[255:0] = 256'h" + "8" + 62 * "0" + "4", {(0xC00000, 5, 10), (0xC00003, 14, 27)}),
    ("IOB33_SING_X1Y0.IOB_Y0.IN", {(0x80, 0, 6)}),
    ("IOB33_SING_X1Y49.IOB_Y1.IN", {(0x80, 99, 2)}),
    ("IOB33_X1Y1.IOB_Y0.PULLDOWN", set()),
    ("INT_L_X0Y0.WIRE.OTHER", set()),
    ("IOB33_SING_X1Y0.WIRE.SING", set()),
    ("INT_L_X0Y0.A.X = 0", set()),
    ("CLB_X0Y0.SLICE.INIT[63:0] = 64'h0", set()),
])
def test_bits_of_a_line(database, line, expected):
    assert bits(database, line) == expected


@given(st.integers(0, (1 << 256) - 1))
def test_block_ram_content(database, value):
    line = f"BRAM_X2Y0.RAMB_Y0.INIT_00[255:0] = 256'h{value:x}"
    expected = {(0xC00000 + n // 64, 5 + n % 64 * 5 // 32, n % 64 * 5 % 32) for n in range(256) if value >> n & 1}
    assert bits(database, line) == expected


@pytest.mark.parametrize("line, message", [
    ("INT_L_X9Y9.A.X", "tinyclg1-2 has no tile INT_L_X9Y9"),
    ("INT_L_X9Y9.A.X = 0", "tinyclg1-2 has no tile INT_L_X9Y9"),
    ("INT_L_X0Y0.A.W", "tile INT_L_X0Y0 of type INT_L has no feature A.W"),
    ("CLB_X0Y0.SLICE.INIT[16]", r"tile CLB_X0Y0 of type CLB has no feature SLICE.INIT\[16\]"),
    ("CLB_X0Y0.SLICE.INIT[31:0] = 32'h10001", r"tile CLB_X0Y0 of type CLB has no feature SLICE.INIT\[16\]"),
    ("CLB_X0Y0.WIRE.OTHER", "tile CLB_X0Y0 of type CLB has no feature WIRE.OTHER"),
    ("IOB33_SING_X1Y0.IOB_Y1.IN", "tile IOB33_SING_X1Y0 of type IOB33_SING has no feature IOB_Y1.IN"),
    ("VOID_X3Y0.A", "tile VOID_X3Y0 of type VOID has no feature A"),
])
def test_unknown_is_named_with_its_line(database, line, message):
    with pytest.raises(AssembleError, match=f"^my.fasm, line 2: {message}$"):
        assemble(database, parse(["INT_L_X0Y0.A.X", line], "my.fasm"))


def test_many_problems_are_counted(database):
    with pytest.raises(AssembleError) as error:
        assemble(database, parse([f"INT_L_X0Y0.NO{n}" for n in range(25)], "f"))
    lines = str(error.value).splitlines()
    assert len(lines) == 11 and lines[0].endswith("NO0") and lines[9].endswith("NO9") and lines[10] == "and 15 more"


@pytest.mark.parametrize("first, second", [("A.X", "A.Y"), ("A.Y", "A.X")])
def test_conflict_names_both_features(database, first, second):
    with pytest.raises(AssembleError) as error:
        assemble(database, parse([f"INT_L_X0Y0.{first}", f"INT_L_X0Y1.{first}", f"INT_L_X0Y0.{second}"], "f"))
    lines = {first: 1, second: 3}
    assert str(error.value) == (f"f, line {lines['A.X']}: INT_L_X0Y0.A.X sets bit 1 of word 1 in frame 0x00000001, "
                                f"which must be 0 for f, line {lines['A.Y']}: INT_L_X0Y0.A.Y")


def test_features_that_share_a_bit_do_not_conflict(database):
    assert bits(database, "INT_L_X0Y0.PART", "INT_L_X0Y0.WHOLE", "INT_L_X0Y0.PART") == {(0, 0, 10), (2, 1, 31)}


def test_required_features_are_added(family):
    assert bits(Database(family, "tinyclg1-1")) == {(0x400000, 50, 13)}


def test_stepdown_reaches_unused_pads_of_the_bank(database):
    lines = ["IOB33_X1Y1.IOB_Y1.LVCMOS18.STEPDOWN", "IOB33_X1Y3.IOB_Y0.IN", "IOB33_X1Y3.IOB_Y1.IN = 0",
             "IOB33_X1Y51.IOB_Y0.IN", "IOB33_X1Y51.IOB_Y1.LVCMOS18.STEPDOWN = 0"]
    made = bits(database, *lines) - bits(database, *lines[1:])
    # Tile X1Y3 has one used pad; bank 35, tile X1Y51, has a pad in use but no STEPDOWN.
    assert made == {(0x80, 2, 31), (0x80, 5, 31), (0x80, 6, 31), (0x80, 1, 31), (0x80, 99, 31)}


def test_frm_file(database, tmp_path):
    write_frm(assemble(database, parse(["INT_L_X0Y0.A.X"], "f")), tmp_path / "x.frm")
    zeros = ",0x00000000" * 99
    assert (tmp_path / "x.frm").read_text() == (
        f"0x00000000 0x00000008,0x00000000{zeros}\n0x00000001 0x00000000,0x00000002{zeros}\n")
