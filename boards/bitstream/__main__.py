"""Bitstreams of the Zynq-7000 without vendor tools: ``python -m boards.bitstream --help``.

Exit status: 0 done, 1 the bitstream is not what it should be, 2 the input is not usable.
"""
from collections.abc import Iterable
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import typer

from .assemble import SHOWN, assemble
from .bit import MAGIC, Configuration, read_bit, read_configuration, to_bin
from .bit import read_frames as frames_of_bit
from .database import Database
from .disassemble import Comparison, compare, disassemble, to_fasm
from .fasm import read_fasm
from .frames import Frames, read_frames, write_frm

FAILED, BAD_INPUT = 1, 2
#: An IDCODE is 4 bits of silicon revision, which bitstreams do not name, then device and manufacturer.
IDCODE_MASK = 0x0FFF_FFFF

app = typer.Typer(help="Bitstreams of the Zynq-7000: FASM to frames and back, checks, .bin for Linux.",
                  no_args_is_help=True, add_completion=False)
DATABASE = typer.Option(help="Folder of the family in Project X-Ray's database (Debian: prjxray-database), .../zynq7.")
PART = typer.Option(help="Device, package and speed grade, for example xc7z020clg400-1.")


@contextmanager
def exit_status():
    """Turns errors of unusable input into a sentence and exit status 2."""
    try:
        yield
    except (ValueError, OSError) as error:
        typer.echo(error, err=True)
        raise typer.Exit(BAD_INPUT) from None


def complain(what: str, lines: Iterable[str]):
    """Prints ``what``, how many lines there are and the first of them, unless there are none."""
    lines = list(lines)
    if lines:
        typer.echo("\n  ".join([f"{what}: {len(lines)}", *lines[:SHOWN]]), err=True)


def complain_unexplained(positions: list[tuple[int, int, int]]):
    """Prints the set bits (frame address, word, mask) that belong to no feature."""
    complain("set bits that belong to no feature", (f"bit {mask.bit_length() - 1} of word {word} in frame "
                                                    f"0x{address:08X}" for address, word, mask in positions))


def load_frames(path: Path, database: Database) -> Frames:
    """Frames of a .bit, a .frm or the output of ``bitread -o``."""
    with open(path, "rb") as file:
        is_bit = file.read(len(MAGIC)) == MAGIC
    return frames_of_bit(read_configuration(read_bit(path).words), database.rows) if is_bit else read_frames(path)


@app.command("assemble")
def assemble_command(fasm: Path, output: Annotated[Path, typer.Option("--output", "-o", help="The .frm to write.")],
                     database: Annotated[Path, DATABASE], part: Annotated[str, PART]):
    """Write the frames of the design FASM as a .frm file, of which xc7frames2bit makes a .bit."""
    with exit_status():
        frames = assemble(Database(database, part), read_fasm(fasm))
        write_frm(frames, output)
    bits = sum(word.bit_count() for words in frames.values() for word in words)
    typer.echo(f"{output}: {len(frames)} frames, {bits} bits set")


@app.command("disassemble")
def disassemble_command(file: Annotated[Path, typer.Argument(help="A .bit, a .frm or what bitread -o writes.")],
                        output: Annotated[Path, typer.Option("--output", "-o", help="The FASM to write.")],
                        database: Annotated[Path, DATABASE], part: Annotated[str, PART]):
    """Write the features that FILE enables as FASM. Status 1: it has set bits that belong to no feature."""
    with exit_status():
        loaded = Database(database, part)
        found = disassemble(loaded, load_frames(file, loaded))
        output.write_text("".join(f"{line}\n" for line in to_fasm(found.features)))
    typer.echo(f"{output}: {len(found.features)} features")
    complain_unexplained(found.unexplained)
    if found.unexplained:
        raise typer.Exit(FAILED)


def wrong_crcs(found: Configuration) -> list[str]:
    """A sentence for each CRC of a bitstream that is not that of its data."""
    return [f"CRC {written:08x}, but {crc:08x} is that of the data" for written, crc in found.crcs if written != crc]


def complain_differences(result: Comparison):
    """Prints how frames differ from a design."""
    complain("features of the design that are missing", to_fasm(result.missing))
    complain("features that the design does not have", to_fasm(result.extra))
    complain_unexplained(result.unexplained)


@app.command()
def check(bit: Annotated[Path, typer.Argument(help="A .bit file.")],
          database: Annotated[Path | None, DATABASE] = None, part: Annotated[str | None, PART] = None,
          design: Annotated[Path | None, typer.Option(help="FASM whose features BIT must hold, all and no others.")]
          = None):
    """Print what BIT is, check its CRCs and, given database and part, its IDCODE, its frames and the design in it.

    Status 1: a CRC or the IDCODE is wrong, frames are missing, or BIT does not hold exactly the design.
    """
    with exit_status():
        if (database is None) != (part is None) or design and not part:
            raise ValueError("--database and --part go together, and --design needs both")
        loaded = Database(database, part) if part else None
        content = read_bit(bit)
        found = read_configuration(content.words)
        idcodes = ", ".join(f"{idcode:08x}" for idcode in found.idcodes) or "none"
        typer.echo(f"{bit}: {content.design}, for {content.part}, {content.date} {content.time}\n"
                   f"IDCODE {idcodes}, {found.num_frames} frames with padding, {len(found.crcs)} CRC checks")
        problems = wrong_crcs(found)
        result = None
        if loaded and {idcode & IDCODE_MASK for idcode in found.idcodes} != {loaded.idcode & IDCODE_MASK}:
            problems.append(f"IDCODE {idcodes}, but {part} has {loaded.idcode:08x}")
        elif loaded:
            frames = frames_of_bit(found, loaded.rows)
            missing = sum(map(len, loaded.rows)) - len(frames)
            if missing:
                problems.append(f"{missing} of the {missing + len(frames)} frames of {part} are not written")
            if design:
                result = compare(loaded, read_fasm(design), frames)
    complain("wrong", problems)
    if result:
        complain_differences(result)
    if problems or result and not result.equal:
        raise typer.Exit(FAILED)
    if result:
        typer.echo(f"exactly the features of {design}")


@app.command("bin")
def bin_command(bit: Annotated[Path, typer.Argument(help="A .bit file.")],
                output: Annotated[Path, typer.Option("--output", "-o", help="The .bin to write.")]):
    """Write BIT as the .bin that Linux' FPGA manager loads on a Zynq-7000. Status 1: a CRC of BIT is wrong."""
    with exit_status():
        content = read_bit(bit)
        problems = wrong_crcs(read_configuration(content.words))
        if not problems:
            output.write_bytes(to_bin(content))
    if problems:
        complain("wrong", problems)
        raise typer.Exit(FAILED)
    typer.echo(f"{output}: {len(content.data)} bytes")


if __name__ == "__main__":
    app()
