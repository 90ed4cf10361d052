"""A folder for one process at a time, by a lock on a file in it that ends with the process."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from hbtrain.errors import StorageError


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
