"""What several commands share: the recipe they take, where results are written, consent to a model's own code, what
is said aside."""

from __future__ import annotations

import math
import shlex
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from hbtrain.errors import ConfigError, StorageError, without_passwords
from hbtrain.reporting.console import TextConsole
from hbtrain.storage import Place, RemoteError, check_writable, place, pushed, put, try_to_write
from hbtrain.storage.files import unwritable

Recipe = Annotated[str, Parameter(help="A shipped recipe's name or a YAML file.")]
Override = Annotated[str, Parameter(allow_leading_hyphen=True, help="Any key of the configuration as a flag.")]


def output_place(text: str, is_file: bool = False, option: str = "--output") -> Place:
    """The folder or file that an option names; tries first, before any work, that it can be written.

    Args:
        text: a path or a URI.
        is_file: whether it is to be a file.
        option: the option, for messages.

    Raises:
        StorageError: the text is neither a path nor a known URI, or names what cannot be written.
    """
    to = place(text)
    if is_file and to.is_dir():
        raise StorageError(f"{option} {to} is a folder; give a file's name, such as {to / 'result'}")
    folder = to.parent if is_file else to
    if isinstance(folder, Path):
        try:
            try_to_write(folder)
        except OSError as error:
            raise unwritable(f"{option} {to}", error) from error
    else:
        check_writable(folder, option)
    return to


def local_output(text: str, option: str = "--output") -> Path:
    """The folder or file that an option names, for what cannot be written to remote storage.

    Raises:
        ConfigError: it is an s3:// URI.
        StorageError: the text is neither a path nor a known URI.
    """
    to = place(text)
    if not isinstance(to, Path):
        raise ConfigError(f"{option} {text}: must be on a file system that every node sees; copy it there afterwards")
    return to


@contextmanager
def written(to: Place) -> Iterator[Path]:
    """A local folder to write into, whose content is in `to` at the end.

    Raises:
        StorageError: remote storage cannot be written.
    """
    try:
        with pushed(to) as folder:
            yield folder
    except RemoteError as error:
        raise StorageError(f"cannot write results to {to}: {error.strerror}") from error


@contextmanager
def written_file(to: Place) -> Iterator[Path]:
    """A local file to write, whose content is in `to` at the end; its folder is made.

    Raises:
        StorageError: remote storage, or the folder, cannot be written.
    """
    if isinstance(to, Path):
        try:
            to.parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise unwritable(str(to), error) from error
        yield to
        return
    with tempfile.TemporaryDirectory(prefix="hbtrain-") as temporary:
        file = Path(temporary) / to.name
        yield file
        try:
            put(file, to)
        except RemoteError as error:
            raise StorageError(f"cannot write {to}: {error.strerror}") from error


def check_cluster(actors: int, address: str | None, wait_s: float) -> None:
    """Raise ConfigError if the options of the actors' cluster are given without actors, or cannot be."""
    if (address is not None or wait_s) and not actors:
        raise ConfigError("--address and --wait-s are of the actors' cluster; add --actors")
    if not 0 <= wait_s <= math.inf:  # refuses nan
        raise ConfigError(f"--wait-s {wait_s:g}: must be 0 or more")


def trusts(model: str, named: str | None) -> bool:
    """Whether Python code of `model` may run: only if `--trust-remote-code` names the same model (`named`)."""
    if named not in (None, model):
        raise ConfigError(f"--trust-remote-code {named}: must be the model, {model}, or be left out")
    return named is not None


def said_aside(text: str) -> None:
    """Print a line about what goes on to standard error, apart from results."""
    TextConsole(stderr=True).print(text, style="dim", soft_wrap=True)


def command_line() -> str:
    """The command line of this process, which MLflow shows as the source of a run; without passwords."""
    program = "tune/sweep.py" if Path(sys.argv[0]).name == "sweep.py" else "hbtrain"
    return shlex.join([program, *map(without_passwords, sys.argv[1:])])


def quiet() -> None:
    """Turn off the progress bars of model loading."""
    from transformers.utils import logging

    logging.disable_progress_bar()
