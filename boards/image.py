"""Network images of trained networks: what a driver loads, and what golden expects it to answer.

    python -m boards.image --net digits --config tiny -o build/digits-tiny.zsn --check build/digits-tiny

Format: docs/network-image.md. The same arguments give the same bytes.
"""
from pathlib import Path
from typing import Annotated

import numpy as np
import typer

from compiler.emit import Program
from compiler.image import write_image
from compiler.pipeline import compile_float
from hw.configs import CONFIGS, get_config

from .sim.main import BAD_INPUT, Net, choose_job


def compile_job(job, config) -> Program:
    """The program of a job of ``boards.sim.jobs`` on ``config``."""
    return compile_float(job.network, job.calibration, config)


def write_check(program: Program, x: np.ndarray, folder: Path) -> list[str]:
    """Write each map for the real input ``x[C, H, W]`` by golden to ``folder/<map>.bin``; returns the names.

    A file holds the integers [C, H, W] without gaps, of ``value_width`` bits each, little endian, signed where the map
    is signed (numpy: u1, i1, <u2, <i2).
    """
    folder.mkdir(parents=True, exist_ok=True)
    maps = program.expected(program.network.quantise_input(x))
    for name, values in maps.items():
        values.astype(program.maps[name].value_type(program.config)).tofile(folder / f"{name}.bin")
    return list(maps)


app = typer.Typer(add_completion=False, pretty_exceptions_enable=False, rich_markup_mode=None)


@app.command()
def main(
    output: Annotated[Path, typer.Option("--output", "-o", help="File to write; .zsn is the usual ending.",
                                         metavar="FILE")],
    net: Annotated[Net, typer.Option(help="hed: VGG-16 with the edge detector's outputs. digits: a recogniser of "
                                          "handwritten digits.")] = Net.digits,
    config: Annotated[str, typer.Option(help=f"The accelerator that will run it: {', '.join(CONFIGS)}.",
                                        metavar="NAME")] = "default",
    image: Annotated[str | None, typer.Option(help="hed: the photograph of --check, as `make sim` takes it; it is not "
                                                   "used for calibration.", metavar="FILE|NAME")] = None,
    size: Annotated[str | None, typer.Option(help="hed: 96 for a square, 320x240 for width x height; 224 unless told.",
                                             metavar="SIZE")] = None,
    check: Annotated[Path | None, typer.Option(help="Write an input and every map that golden makes of it to this "
                                                    "folder: one file of integers for each map.",
                                               metavar="FOLDER")] = None,
) -> None:
    """Write the network image of a trained network, for a driver to run on a board.

    Exit status: 0 written, 2 input not usable.
    """
    try:
        job = choose_job(net, image, size, None)
        program = compile_job(job, get_config(config))
        write_image(program, output)
        typer.echo(f"wrote {output}: {output.stat().st_size:,} bytes; {program.layer_count} layers, "
                   f"{program.memory_bytes:,} bytes of DRAM")
        if check is not None:
            names = write_check(program, job.inputs[0], check)
            typer.echo(f"wrote {check}: {', '.join(names)}")
    except (ValueError, OSError) as error:
        typer.echo(f"error: {error}", err=True)
        raise typer.Exit(BAD_INPUT) from None


if __name__ == "__main__":
    app()
