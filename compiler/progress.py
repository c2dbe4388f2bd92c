"""A line with a bar for each stage of long work."""
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn


class Stages:
    """Bars on ``console``, while ``with stages.progress`` is open."""

    def __init__(self, console: Console):
        self.progress = Progress(TextColumn("{task.description:<34}"), BarColumn(), TimeElapsedColumn(),
                                 TextColumn("{task.fields[note]}"), console=console)

    @contextmanager
    def stage(self, text: str, total: float | None = None):
        """Shows a stage while the block runs; calls of what it yields, ``update(completed, note)``, move the bar."""
        task = self.progress.add_task(text, total=total, note="")

        def update(completed: float, note: str = ""):
            self.progress.update(task, completed=completed, note=note)

        yield update
        self.progress.update(task, total=1, completed=1)
        self.progress.stop_task(task)
