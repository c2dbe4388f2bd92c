"""The commands: what they write, what they say, and their exit status."""
import struct

import pytest
from typer.testing import CliRunner

from boards.bitstream.__main__ import app
from boards.bitstream.assemble import assemble
from boards.bitstream.fasm import parse
from boards.bitstream.frames import read_frames

DESIGN = "INT_L_X0Y0.A.X\nCLB_X0Y1.SLICE.INIT[15:0] = 16'h8001\nBRAM_X2Y0.RAMB_Y0.INIT_00[255:0] = 256'h8000000000000\n"


def run(*arguments):
    """Exit status and everything printed, lines joined."""
    result = CliRunner().invoke(app, [str(argument) for argument in arguments])
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    return result.exit_code, " ".join(result.output.split())


@pytest.fixture
def options(family):
    return "--database", family, "--part", "tinyclg1-2"


@pytest.fixture
def fasm(tmp_path):
    path = tmp_path / "design.fasm"
    path.write_text(DESIGN)
    return path


@pytest.fixture
def bit(database, writer, tmp_path):
    """Function that writes a .bit of FASM lines."""
    def make(lines, idcode=0x03727093, error=0, rows=3):
        frames = assemble(database, parse(lines.splitlines(), "f"))
        words = []
        for row in database.rows[:rows]:
            for address in row:
                words += frames.get(address, [0] * 101)
            words += [0] * 202
        path = tmp_path / "design.bit"
        path.write_bytes(writer.content(idcode, words, error).file())
        return path
    return make


def test_assemble_and_disassemble(fasm, options, database, tmp_path):
    assert run("assemble", fasm, "-o", tmp_path / "x.frm", *options) == (
        0, f"{tmp_path / 'x.frm'}: 4 frames, 5 bits set")
    assert read_frames(tmp_path / "x.frm") == assemble(database, parse(DESIGN.splitlines(), "f"))
    assert run("disassemble", tmp_path / "x.frm", "-o", tmp_path / "y.fasm", *options) == (
        0, f"{tmp_path / 'y.fasm'}: 3 features")
    assert (tmp_path / "y.fasm").read_text() == (
        "BRAM_X2Y0.RAMB_Y0.INIT_00[51:0] = 52'h8000000000000\nCLB_X0Y1.SLICE.INIT[15:0] = 16'h8001\nINT_L_X0Y0.A.X\n")


def test_disassemble_a_bit(bit, options, tmp_path):
    assert run("disassemble", bit(DESIGN), "-o", tmp_path / "y.fasm", *options)[0] == 0
    assert "INT_L_X0Y0.A.X\n" in (tmp_path / "y.fasm").read_text()


def test_disassemble_names_unexplained_bits(options, tmp_path):
    (tmp_path / "x.frm").write_text("0x00000002 " + "0x0," * 7 + "0x80," + "0x0," * 92 + "0x0\n")
    status, output = run("disassemble", tmp_path / "x.frm", "-o", tmp_path / "y.fasm", *options)
    assert status == 1 and "belong to no feature: 1 bit 7 of word 7 in frame 0x00000002" in output


def test_check_of_the_design(bit, fasm, options):
    path = bit(DESIGN)
    assert run("check", path, *options, "--design", fasm) == (
        0, f"{path}: top;Generator=hand, for tinyclg1-1, 2024/02/29 12:34:56 IDCODE 03727093, 20 frames with padding, "
           f"1 CRC checks exactly the features of {fasm}")


@pytest.mark.parametrize("changes, message", [
    ({"error": 1}, "wrong: 1 CRC "),
    ({"idcode": 0x03722093}, "IDCODE 03722093, but tinyclg1-2 has 03727093"),
    ({"rows": 2}, "4 of the 14 frames of tinyclg1-2 are not written"),
])
def test_check_of_a_wrong_bit(bit, options, changes, message):
    status, output = run("check", bit(DESIGN, **changes), *options)
    assert status == 1 and message in output


def test_check_ignores_the_silicon_revision(bit, options):
    assert run("check", bit(DESIGN, idcode=0x13727093), *options)[0] == 0


def test_check_of_another_design(bit, fasm, options):
    status, output = run("check", bit(DESIGN.replace("Y0.A.X", "Y1.A.Y")), *options, "--design", fasm)
    assert status == 1
    assert "features of the design that are missing: 1 INT_L_X0Y0.A.X" in output
    assert "features that the design does not have: 1 INT_L_X0Y1.A.Y" in output


@pytest.mark.parametrize("error, status", [(0, 0), (1 << 31, 1)])
def test_check_of_the_file_alone(bit, error, status):
    assert run("check", bit(DESIGN, error=error))[0] == status


def test_bin(bit, tmp_path):
    assert run("bin", bit(DESIGN), "-o", tmp_path / "x.bin")[0] == 0
    content = (tmp_path / "x.bin").read_bytes()
    assert content[16:20] == bytes.fromhex("665599aa")
    assert struct.unpack("<I", content[24:28])[0] == 0x30008001


def test_bin_of_a_damaged_bit(bit, tmp_path):
    status, output = run("bin", bit(DESIGN, error=4), "-o", tmp_path / "x.bin")
    assert status == 1 and "wrong: 1 CRC" in output and not (tmp_path / "x.bin").exists()


def test_unusable_input(fasm, family, options, tmp_path):
    frm = tmp_path / "x.frm"
    fasm.write_text("INT_L_X0Y0.A.X\nINT_L_X0Y0.A.Q\n")
    for arguments, message in (
            (("assemble", fasm, "-o", frm, *options), "design.fasm, line 2: tile INT_L_X0Y0 of type INT_L has"),
            (("assemble", tmp_path / "none", "-o", frm, *options), "No such file"),
            (("assemble", fasm, "-o", frm, "--database", tmp_path, "--part", "x"), "is not the folder of a family"),
            (("assemble", fasm, "-o", frm, "--database", family, "--part", "x"), "has no part 'x'"),
            (("disassemble", fasm, "-o", frm, *options), "neither a .frm file nor"),
            (("check", fasm), "is not a .bit file"),
            (("check", fasm, "--part", "x"), "--database and --part go together"),
            (("bin", fasm, "-o", frm), "is not a .bit file")):
        status, output = run(*arguments)
        assert status == 2 and message in output, arguments
    assert not frm.exists()
