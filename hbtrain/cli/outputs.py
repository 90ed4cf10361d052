"""What several commands share: the recipe they take, where results are written, consent to a model's own code."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from hbtrain.errors import ConfigError, StorageError
from hbtrain.storage import Place, RemoteError, RemotePath, check_writable, place, pushed, put

Recipe = Annotated[str, Parameter(help="A shipped recipe's name or a YAML file.")]
Override = Annotated[str, Parameter(allow_leading_hyphen=True, help="Any key of the configuration as a flag.")]


def output_place(text: str, is_file: bool = False) -> Place:
    """The folder or file that `--output` names; for remote storage, checks first that it can be written.

    Raises:
        StorageError: the text is neither a path nor a known URI, or remote storage cannot be written.
    """
    to = place(text)
    if isinstance(to, RemotePath):
        check_writable(to.parent if is_file else to, "--output")
    return to


def local_output(text: str) -> Path:
    """The folder or file that `--output` names, for commands that cannot write to remote storage.

    Raises:
        ConfigError: the output is an s3:// URI.
        StorageError: the text is neither a path nor a known URI.
    """
    to = place(text)
    if not isinstance(to, Path):
        raise ConfigError(f"--output {text}: must be on a file system that every node sees; copy it there afterwards")
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
    """A local file to write, whose content is in `to` at the end.

    Raises:
        StorageError: remote storage cannot be written.
    """
    if isinstance(to, Path):
        yield to
        return
    with tempfile.TemporaryDirectory(prefix="hbtrain-") as temporary:
        file = Path(temporary) / to.name
        yield file
        try:
            put(file, to)
        except RemoteError as error:
            raise StorageError(f"cannot write {to}: {error.strerror}") from error


def trusts(model: str, named: str | None) -> bool:
    """Whether Python code of `model` may run: only if `--trust-remote-code` names the same model (`named`)."""
    if named not in (None, model):
        raise ConfigError(f"--trust-remote-code {named}: must be the model, {model}, or be left out")
    return named is not None


def quiet() -> None:
    """Turn off the progress bars of model loading."""
    from transformers.utils import logging

    logging.disable_progress_bar()
