"""The command line: its commands, each with a file of its own, and how they end.

Commands import what is heavy when they are called, so that the help is there at once.
"""

from __future__ import annotations

import sys

from cyclopts import App, Parameter
from rich.console import Console

import hbtrain
from hbtrain.commands.audit import audit
from hbtrain.commands.compare import compare
from hbtrain.commands.evaluate import evaluate
from hbtrain.commands.evaluate_run import evaluate_run
from hbtrain.commands.lists import keys, recipes
from hbtrain.commands.mine import mine
from hbtrain.commands.prepare import prepare
from hbtrain.commands.search import search
from hbtrain.commands.submit import submit
from hbtrain.commands.sweep import sweep
from hbtrain.commands.train import train
from hbtrain.commands.translate import translate
from hbtrain.commands.verify import verify
from hbtrain.errors import HbtrainError

app = App(
    name="hbtrain",
    help="Train multilingual retrievers on hybrid batches, and evaluate them in three settings.",
    version=hbtrain.__version__,
    help_format="plaintext",
    default_parameter=Parameter(negative=()),  # no --no-paper, no --empty-languages
    suppress_keyboard_interrupt=False,  # `main` has something to say
)
for command in (
    train, audit, verify, evaluate, evaluate_run, compare, search, sweep, mine, prepare, translate, recipes, keys,
):  # fmt: skip
    app.command(command)
app.command(submit, help_flags=(), version_flags=())  # these, too, are read by `submit` itself


def main(program: App = app) -> None:
    """Entry point: an error that the user can mend is one line, never a traceback."""
    try:
        program(sys.argv[1:])
    except HbtrainError as error:
        Console(stderr=True).print(f"error: {error}", style="red", highlight=False, markup=False, soft_wrap=True)
        sys.exit(error.exit_code)
    except KeyboardInterrupt:
        message = "interrupted; the same command goes on, a training from its last checkpoint"
        Console(stderr=True).print(message, style="yellow", soft_wrap=True)
        sys.exit(130)


if __name__ == "__main__":
    main()
