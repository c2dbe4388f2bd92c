"""``zeroskip``: the command line for users of the accelerator; ``python -m boards.cli`` is the same.

Every subcommand is a function with its options and its help; this file only lists them.
"""
from importlib import import_module

import typer
from typer.core import TyperGroup

#: Name of each command -> what it does, and the function that does it. A command is imported when it is asked for:
#: PyTorch, Matplotlib and others that only some of them use take seconds.
COMMANDS = {
    "compile": ("Compile an ONNX network into a network image for the drivers.", "compiler.cli", "compile_onnx"),
    "report": ("Write a page about what the cycles of a run went to.", "boards.report.command", "report"),
    "explore": ("Sweep the configurations that fit a board.", "boards.explore", "explore"),
    "predict": ("Find outputs that may be predicted to be 0.", "boards.predict", "command"),
    "compare": ("Set the cycles of a network beside other accelerators.", "boards.compare_accelerators", "compare"),
}


class Commands(TyperGroup):
    """The commands of ``COMMANDS``."""

    def __init__(self, **options):
        super().__init__(**options)
        self.commands = dict.fromkeys(COMMANDS)

    def get_command(self, ctx, name):
        """The command ``name``; None if there is none."""
        if name not in COMMANDS:
            return None
        _, module, function = COMMANDS[name]
        single = typer.Typer(add_completion=False, pretty_exceptions_enable=False, rich_markup_mode=None)
        single.command(name)(getattr(import_module(module), function))
        return typer.main.get_command(single)

    def format_commands(self, ctx, formatter):
        """What the commands do, without importing them."""
        with formatter.section("Commands"):
            formatter.write_dl([(name, does) for name, (does, _, _) in COMMANDS.items()])


app = typer.Typer(cls=Commands, add_completion=False, no_args_is_help=True, pretty_exceptions_enable=False,
                  rich_markup_mode=None)


@app.callback()
def main() -> None:
    """Trained networks on the zeroskip accelerator: compile them, and look at what runs of them cost.

    `make sim` in a checkout runs a network in the RTL; `zeroskip COMMAND --help` explains each command.
    """


if __name__ == "__main__":
    app()
