"""The program `hbtrain`: its commands, each in a file of its own, and their exit codes.

Commands import heavy libraries when they are called, so that the help appears at once.
"""

from __future__ import annotations

import sys

from cyclopts import App, Parameter
from rich.console import Console

import hbtrain
from hbtrain.cli.audit import audit
from hbtrain.cli.compare import compare
from hbtrain.cli.evaluate import evaluate
from hbtrain.cli.evaluate_run import evaluate_run
from hbtrain.cli.mine import mine
from hbtrain.cli.prepare import prepare
from hbtrain.cli.search import search
from hbtrain.cli.submit import submit
from hbtrain.cli.sweep import sweep
from hbtrain.cli.train import train
from hbtrain.cli.translate import translate
from hbtrain.cli.verify import verify
from hbtrain.errors import HbtrainError
from hbtrain.reporting.table import facts
from hbtrain.storage import settle_home


def recipes() -> None:
    """List the recipes that ship with hbtrain."""
    from hbtrain.config import recipe_names, recipe_summary

    Console().print(facts((f"[bold]{name}[/bold]", recipe_summary(name)) for name in recipe_names()))


def keys() -> None:
    """List every key of the configuration with its default."""
    from hbtrain.config import Config, to_flat
    from hbtrain.config.keys import all_keys

    defaults = to_flat(Config())
    for key in all_keys():
        Console().print(f"{key} = {defaults.get(key)}", highlight=False, markup=False, soft_wrap=True)


app = App(
    name="hbtrain",
    help="Train multilingual retrievers on hybrid batches, and evaluate them in three settings.",
    version=hbtrain.__version__,
    help_format="plaintext",
    default_parameter=Parameter(negative=()),  # no --no-paper, no --empty-languages
    suppress_keyboard_interrupt=False,  # `main` prints a message
)
for command in (
    train, audit, verify, evaluate, evaluate_run, compare, search, sweep, mine, prepare, translate, recipes, keys,
):  # fmt: skip
    app.command(command)
app.command(submit, help_flags=(), version_flags=())  # these, too, are read by `submit` itself


def main(program: App = app) -> None:
    """Entry point: an error that the user can fix is printed as one line, without a traceback."""
    try:
        if home := settle_home():
            note = (
                f"note: there is no home folder to write to; caches are kept in {home}; set HOME to keep them elsewhere"
            )
            Console(stderr=True).print(note, style="yellow", highlight=False, markup=False, soft_wrap=True)
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
