"""The program `hbtrain`: its commands, each in a file of its own, and their exit codes.

Commands import heavy libraries when they are called, so that the help appears at once.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence

from cyclopts import App, Parameter
from rich.text import Text

import hbtrain
from hbtrain.cli.audit import audit
from hbtrain.cli.compare import compare
from hbtrain.cli.data import data
from hbtrain.cli.doctor import doctor
from hbtrain.cli.evaluate import evaluate
from hbtrain.cli.evaluate_run import evaluate_run
from hbtrain.cli.export import export
from hbtrain.cli.merge import merge
from hbtrain.cli.mine import mine
from hbtrain.cli.prepare import prepare
from hbtrain.cli.push import push
from hbtrain.cli.search import search
from hbtrain.cli.status import status
from hbtrain.cli.submit import submit
from hbtrain.cli.sweep import sweeps
from hbtrain.cli.train import train
from hbtrain.cli.translate import translate
from hbtrain.cli.verify import verify
from hbtrain.cluster.termination import termination_as_exception
from hbtrain.errors import ConfigError, HbtrainError, Terminated, shown
from hbtrain.reporting.console import TextConsole, replace_unencodable
from hbtrain.reporting.table import facts
from hbtrain.storage import settle_home


def recipes() -> None:
    """List the recipes that ship with hbtrain."""
    from hbtrain.config import recipe_names, recipe_summary

    TextConsole().print(facts((Text(name, "bold"), recipe_summary(name)) for name in recipe_names()))


def keys() -> None:
    """List every key of the configuration with its default."""
    from hbtrain.config import Config, to_flat
    from hbtrain.config.keys import all_keys

    defaults = to_flat(Config())
    for key in all_keys():
        TextConsole().print(f"{key} = {defaults.get(key)}", soft_wrap=True)


app = App(
    name="hbtrain",
    help="Train multilingual retrievers on hybrid batches, and evaluate them in three settings.",
    version=hbtrain.__version__,
    help_format="plaintext",
    default_parameter=Parameter(negative=()),  # no --no-paper, no --empty-languages
    suppress_keyboard_interrupt=False,  # `main` prints a message
)
for command in (
    train, audit, verify, evaluate, evaluate_run, compare, search, sweeps, merge, push, export, data, mine, prepare,
    translate, doctor, status, recipes, keys,
):  # fmt: skip
    app.command(command)
app.command(submit, help_flags=(), version_flags=())  # these, too, are read by `submit` itself


def main(program: App = app) -> None:
    """Entry point: an error that the user can fix is printed as one line, without a traceback."""
    replace_unencodable()
    try:
        if home := settle_home():
            note = (
                f"note: there is no home folder to write to; caches are kept in {home}; set HOME to keep them elsewhere"
            )
            TextConsole(stderr=True).print(note, style="yellow", soft_wrap=True)
        _check_arguments(sys.argv[1:])
        with termination_as_exception():
            program(sys.argv[1:])
    except HbtrainError as error:
        TextConsole(stderr=True).print(f"error: {error}", style="red", soft_wrap=True)
        sys.exit(error.exit_code)
    except Terminated as error:
        TextConsole(stderr=True).print(str(error), style="yellow", soft_wrap=True)
        sys.exit(error.exit_code)
    except KeyboardInterrupt:
        message = "interrupted; the same command goes on, a training from its last checkpoint"
        TextConsole(stderr=True).print(message, style="yellow", soft_wrap=True)
        sys.exit(130)


def _check_arguments(arguments: Sequence[str]) -> None:
    """Raise ConfigError for an argument that is not UTF-8: it could be neither tokenized, nor written to a file."""
    for argument in arguments:
        if any("\ud800" <= character <= "\udfff" for character in argument):  # how Python gives such bytes
            raise ConfigError(
                f"argument {shown(argument)} is not UTF-8 text; write it in UTF-8, or rename what it names"
            )


if __name__ == "__main__":
    main()
