"""Files of bytes that appear as a whole or not at all."""

from __future__ import annotations

import fcntl
import gzip
import io
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, BinaryIO, cast

from hbtrain.errors import StorageError
from hbtrain.storage import Place


@contextmanager
def atomic_output(path: Path, what: str) -> Iterator[BinaryIO]:
    """A stream to `path`, compressed if it ends in .gz; the file appears when the block ends well, and only then.

    Args:
        path: of the file; a temporary one is beside it meanwhile.
        what: it is, as in `--output mined.jsonl`.

    Raises:
        StorageError: it cannot be written. Errors of the block itself pass as they are.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
        with _opened(temporary, what) as plain, gzip_by_name(plain, path) as stream:
            yield stream
        try:
            temporary.replace(path)
        except OSError as error:
            raise unwritable(what, error) from error
    finally:
        with suppress(OSError):
            temporary.unlink()


@contextmanager
def gzip_by_name(plain: BinaryIO, path: Path) -> Iterator[BinaryIO]:
    """The stream itself, or, if the name of `path` ends in .gz, one that compresses into it."""
    if path.suffix == ".gz":
        # No name and no time in the header: the same content gives the same bytes.
        with gzip.GzipFile("", "wb", compresslevel=6, fileobj=plain, mtime=0) as zipped:
            yield cast(BinaryIO, zipped)
    else:
        yield plain


def unwritable(what: str, error: OSError) -> StorageError:
    """What to say where an output cannot be written."""
    return StorageError(f"{what} cannot be written: {error.strerror or error}")


def _opened(path: Path, what: str) -> BinaryIO:
    try:
        return io.BufferedWriter(_Output(path, what))
    except OSError as error:
        raise unwritable(what, error) from error


class _Output(io.FileIO):
    """A file that says what it is where a write fails, so that no error of reading is taken for one of writing."""

    def __init__(self, path: Path, what: str) -> None:
        self._what = what
        super().__init__(path, "wb")

    def write(self, data: Any, /) -> int:
        try:
            return super().write(data)
        except OSError as error:
            raise unwritable(self._what, error) from error


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Hold the lock of a folder, the file `lock` in it; who holds it may remove the folder.

    Raises:
        StorageError: another process holds it.
        OSError: the file cannot be opened.
    """
    path = folder / "lock"
    with path.open("w") as stream:
        try:
            fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
            held = os.fstat(stream.fileno()).st_ino == path.stat().st_ino
        except (BlockingIOError, FileNotFoundError):
            held = False
        if not held:  # by another, or finished by another between our opening it and locking it
            raise StorageError(f"{folder} is being written by another process; wait for it, or give another --output")
        yield


LOCK = "lock"


@contextmanager
def alone_in(folder: Place) -> Iterator[None]:
    """Keep other processes, also those of other nodes, out of `folder` until the block or this process ends.

    Buckets and file systems without locks keep nobody out.

    Raises:
        StorageError: another process is at work there.
    """
    if not isinstance(folder, Path):
        yield
        return
    with (folder / LOCK).open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise StorageError(
                f"another process is at work in {folder}: wait for its end, or stop it; then the same command goes on"
            ) from None
        except OSError:
            pass  # no locks here
        yield
