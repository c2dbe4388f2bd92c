"""The command ``zeroskip report``."""
from functools import partial
from pathlib import Path
from typing import Annotated, NoReturn

import typer
from rich.console import Console
from rich.progress import track

from .page import write_page
from .record import load_run

#: Exit status: the reports are not usable.
UNUSABLE = 2


def report(
    run: Annotated[Path, typer.Argument(help="The report.json of a run, or a folder: all report.json in it are taken "
                                             "together, one image or more each.", metavar="RUN")],
    output: Annotated[Path | None, typer.Option("--output", "-o", help="The page; report.html beside RUN, or in it, "
                                                "unless told.", metavar="FILE")] = None,
) -> None:
    """Write what a run cost and why as one HTML page, and its figures as PNG files beside it.

    `make sim` writes the run's counters to build/sim/NETWORK/report.json. The page shows, for each layer: cycles split
    into work and what the lanes waited for, a dense array to compare with, density, a roofline, memory traffic, and
    with several images how they differ. Every figure has its numbers in a table. The page needs no network and no
    script: it can be mailed.

    For the spread over images, make a report for each, all of one size:

    \b
      for photo in chelsea coffee rocket; do
        python -m boards.sim.main --net hed --image $photo --size 96 --output build/photos/$photo
      done
      zeroskip report build/photos

    Exit status: 0 written, 2 no usable report there.
    """
    try:
        loaded = load_run(run)
    except (ValueError, OSError) as error:
        _refuse(error)
    console = Console()
    try:
        files = write_page(loaded, output or (run if run.is_dir() else run.parent) / "report.html",
                           partial(track, description="figures", console=console) if console.is_terminal else iter)
    except OSError as error:
        _refuse(error)
    for file in files:
        typer.echo(f"wrote {file}")


def _refuse(error) -> NoReturn:
    typer.echo(f"error: {error}", err=True)
    raise typer.Exit(UNUSABLE) from None
