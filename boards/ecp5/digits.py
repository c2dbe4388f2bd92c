"""Handwritten digits on a board without processor, over its serial line.

    PYTHONPATH=firmware/python .venv/bin/python -m boards.ecp5.digits --port /dev/ttyUSB0

The three convolutions of the network run on the board; its weights end there, for the memory in block RAM does not hold
the 300 kB of the fully connected layers. Those run on the PC, in floating point. Every map of the board is compared
with golden. Exit status: 0 all equal, 1 some values differ or the accelerator stopped, 2 input or board not usable.
"""
import sys
from pathlib import Path
from typing import Annotated

import numpy as np
import typer

from boards.image import compile_job
from boards.sim.jobs import DigitsJob
from compiler.emit import Program
from compiler.graph import Network
from compiler.image import write_image
from hw.configs import CONFIGS, get_config

try:
    from zeroskip import Accelerator, BoardError, ZeroskipError
except ModuleNotFoundError:
    print("error: the driver is not on Python's path: set PYTHONPATH=firmware/python", file=sys.stderr)
    sys.exit(2)

FAILED, BAD_INPUT = 1, 2
#: Layers that run on the board.
CONVOLUTIONS = 3


def split(job: DigitsJob) -> tuple[DigitsJob, Network]:
    """``job`` with the convolutions alone, and the network of the layers behind them."""
    network = job.network
    first, rest = network.layers[:CONVOLUTIONS], network.layers[CONVOLUTIONS:]
    job.network = Network("digits_conv", network.input_shape, first)
    return job, Network("digits_rest", network.maps[first[-1].name], rest, input_name=first[-1].name)


def recognise(accelerator: Accelerator, program: Program, rest: Network, picture: np.ndarray) -> tuple[int, int]:
    """The class of a picture (float32 [1, 28, 28]), and how many values of the board differ from golden."""
    x = program.network.quantise_input(picture)
    expected = program.expected(x)
    maps = accelerator.run(x, maps=expected)
    wrong = sum(int((maps[name] != expected[name]).sum()) for name in expected)
    last = rest.input_name
    scores = rest.run_float(program.network.dequantise(last, maps[last]))[rest.outputs[0]]
    return int(scores.argmax()), wrong


def run(accelerator: Accelerator, job: DigitsJob, config, folder: Path) -> int:
    """Load the convolutions of ``job``, run its digits, say what they are; how many values differ from golden."""
    job, rest = split(job)
    program = compile_job(job, config)
    path = folder / f"digits_conv-{config.name}.zsn"
    folder.mkdir(parents=True, exist_ok=True)
    write_image(program, path)
    typer.echo(f"loading {path}: {program.memory_bytes:,} bytes of memory")
    accelerator.load(path)
    wrong = 0
    for number, (picture, truth) in enumerate(zip(job.inputs, job.classes, strict=False), start=1):
        digit, differ = recognise(accelerator, program, rest, picture)
        typer.echo(f"digit {number}: a {truth}, read as {digit}; {accelerator.cycles():,} cycles, {differ} mismatches")
        wrong += differ
    return wrong


app = typer.Typer(add_completion=False, pretty_exceptions_enable=False, rich_markup_mode=None)


@app.command()
def main(
    port: Annotated[str, typer.Option(help="Serial port of the board.", metavar="PORT")],
    config: Annotated[str, typer.Option(help=f"The configuration of the bitstream: {', '.join(CONFIGS)}.",
                                        metavar="NAME")] = "tiny",
    count: Annotated[int, typer.Option(help="Digits to run, 1 to 100.")] = 10,
) -> None:
    """Recognise handwritten digits on the board at PORT."""
    try:
        job, chosen = DigitsJob(count), get_config(config)
        with Accelerator.from_serial(port) as accelerator:
            wrong = run(accelerator, job, chosen, Path("build") / "boards")
    except (ValueError, OSError, BoardError) as error:
        typer.echo(f"error: {error}", err=True)
        raise typer.Exit(BAD_INPUT) from None
    except ZeroskipError as error:
        typer.echo(f"error: {error}", err=True)
        raise typer.Exit(FAILED) from None
    typer.echo("every map equals golden" if not wrong else f"{wrong} values differ from golden")
    if wrong:
        raise typer.Exit(FAILED)


if __name__ == "__main__":
    app()
