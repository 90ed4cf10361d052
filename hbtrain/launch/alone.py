"""One process at a time in a folder of runs."""

from __future__ import annotations

import fcntl
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from hbtrain.errors import StorageError
from hbtrain.storage import Place

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
