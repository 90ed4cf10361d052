"""Where a command puts its results: a folder, or remote storage by URI."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from hbtrain.errors import ConfigError, StorageError
from hbtrain.storage import Place, RemoteError, RemotePath, check_writable, place, pushed, put


def output_place(text: str, is_file: bool = False) -> Place:
    """The place that `--output` means, a folder or a file; remote storage is tried out before the work is done.

    Raises:
        StorageError: it is no place, or cannot be written.
    """
    to = place(text)
    if isinstance(to, RemotePath):
        check_writable(to.parent if is_file else to, "--output")
    return to


def local_output(text: str) -> Path:
    """The folder or file that `--output` means where it cannot be in remote storage.

    Raises:
        ConfigError: the output is an s3:// URI.
        StorageError: the output is neither a path nor a URI that storage knows.
    """
    to = place(text)
    if not isinstance(to, Path):
        raise ConfigError(f"--output {text}: must be on a file system that every node sees; copy it there afterwards")
    return to


@contextmanager
def written(to: Place) -> Iterator[Path]:
    """A folder to write into; what is in it is in `to` at the end.

    Raises:
        StorageError: remote storage does not take it.
    """
    try:
        with pushed(to) as folder:
            yield folder
    except RemoteError as error:
        raise StorageError(f"cannot write results to {to}: {error.strerror}") from error


@contextmanager
def written_file(to: Place) -> Iterator[Path]:
    """A file to write; what is in it is in `to` at the end.

    Raises:
        StorageError: remote storage does not take it.
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
    """Whether code that `model` brings along may run: if it is named a second time."""
    if named not in (None, model):
        raise ConfigError(f"--trust-remote-code {named}: must be the model, {model}, or be left out")
    return named is not None


def quiet() -> None:
    """Keep the progress bars of model loading out of the output."""
    from transformers.utils import logging

    logging.disable_progress_bar()
