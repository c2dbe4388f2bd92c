"""FASM: every form of a line, and a sentence with file and line for what is no FASM."""
import pytest
from hypothesis import given
from hypothesis import strategies as st

from boards.bitstream.fasm import FasmError, SetFeature, addresses, parse, read_fasm


@pytest.mark.parametrize("text, name, mask", [
    ("T_X0Y0.A.B", "A.B", 1),
    ("  T_X0Y0.A.B\t# a comment", "A.B", 1),
    ("T_X0Y0.A.B = 1", "A.B", 1),
    ("T_X0Y0.A.B = 0", "A.B", 0),
    ("T_X0Y0.INIT[17]", "INIT", 1 << 17),
    ("T_X0Y0.INIT[17] = 1'b1", "INIT", 1 << 17),
    ("T_X0Y0.INIT[17] = 1'b0", "INIT", 0),
    ("T_X0Y0.INIT[7:0] = 8'b1010_0001", "INIT", 0xA1),
    ("T_X0Y0.INIT[11:4] = 8'hA1", "INIT", 0xA10),
    ("T_X0Y0.INIT[11:4] = 8 'h a1", "INIT", 0xA10),
    ("T_X0Y0.INIT[5:0]=6'o17", "INIT", 0o17),
    ("T_X0Y0.INIT[5:0] = 'd33", "INIT", 33),
    ("T_X0Y0.INIT[5:0] = 33", "INIT", 33),
    ('T_X0Y0.A { .file = "a}b\\"#c", line = "3" } # x', "A", 1),
    ('T_X0Y0.INIT[1:0] = 2\'b10 { a = "" }', "INIT", 2),
])
def test_line_enables(text, name, mask):
    assert list(parse([text], "f")) == [SetFeature("T_X0Y0", name, mask, "f", 1)]


@pytest.mark.parametrize("text", ["", "   ", "# T_X0Y0.A", '{ .top = "T_X0Y0.A" }', '{ a = "b", c = "d" } # e'])
def test_line_without_feature(text):
    assert list(parse([text], "f")) == []


@pytest.mark.parametrize("text, message", [
    ("T_X0Y0", "'T_X0Y0' names a tile but no feature"),
    ("T_X0Y0.A B", "not a FASM line: 'T_X0Y0.A B'"),
    ("T_X0Y0..A", "not a FASM line"),
    ("T_X0Y0.A = ", "not a FASM line"),
    ("T_X0Y0.A[1", "not a FASM line"),
    ("T_X0Y0.A { x }} ", "not a FASM line"),
    ("T_X0Y0.A[0:3] = 4'b1", "the range [0:3] runs upwards"),
    ("T_X0Y0.A = 2", "a value of 2 bits for the 1 of T_X0Y0.A"),
    ("T_X0Y0.A[3:0] = 5'b00001", "a value of 5 bits for the 4 of T_X0Y0.A"),
    ("T_X0Y0.A[7:0] = 2'b111", "the value has 3 bits, not the 2 written before it"),
    ("T_X0Y0.A[7:0] = 8'b2", "'2' is not a number of base 2"),
    ("T_X0Y0.A[7:0] = 8'df", "'f' is not a number of base 10"),
])
def test_bad_line_is_named(text, message):
    with pytest.raises(FasmError) as error:
        list(parse(["T_X0Y0.A", "", text], "my.fasm"))
    assert str(error.value).startswith("my.fasm, line 3: ") and message in str(error.value)


def test_binary_file(tmp_path):
    (tmp_path / "x").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(FasmError, match="not a text file"):
        read_fasm(tmp_path / "x")


@given(st.integers(0, 300), st.integers(1, 300), st.data())
def test_range_value_and_base(low, width, data):
    value = data.draw(st.integers(0, (1 << width) - 1))
    base, digits = data.draw(st.sampled_from([("h", f"{value:x}"), ("b", f"{value:b}"), ("o", f"{value:o}"),
                                              ("d", f"{value}")]))
    [feature] = parse([f"T.A[{low + width - 1}:{low}] = {width}'{base}{digits}"], "f")
    assert feature.mask == value << low
    assert list(addresses(feature.mask)) == [low + n for n in range(width) if value >> n & 1]
