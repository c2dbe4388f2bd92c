"""``zeroskip``: the command line for users of the accelerator; ``python -m boards.cli`` is the same.

Every subcommand is a function with its options and its help; this file only lists them.
"""
import typer

from boards.compare_accelerators import compare
from boards.explore import explore
from boards.report.command import report
from compiler.cli import compile_onnx

app = typer.Typer(add_completion=False, no_args_is_help=True, pretty_exceptions_enable=False, rich_markup_mode=None)


@app.callback()
def main() -> None:
    """Trained networks on the zeroskip accelerator: compile them, and look at what runs of them cost.

    `make sim` in a checkout runs a network in the RTL; `zeroskip COMMAND --help` explains each command.
    """


app.command("compile")(compile_onnx)
app.command()(report)
app.command()(explore)
app.command()(compare)

if __name__ == "__main__":
    app()
