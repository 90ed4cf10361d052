"""Copies on this machine of what is in remote storage: fetched once, shared by all processes."""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path

from hbtrain.errors import DataError, StorageError
from hbtrain.storage.place import Place
from hbtrain.storage.remote import RemoteError, RemotePath
from hbtrain.storage.transfer import fetch

FETCHED = "fetched"
"""Folder of the cache."""


def cache_root(folder: str | None) -> Path:
    """The cache's folder: `folder`, or `$HBTRAIN_CACHE`, or `~/.cache/hbtrain`."""
    return Path(folder or os.environ.get("HBTRAIN_CACHE") or "~/.cache/hbtrain").expanduser()


def local_copy(source: Place, cache: str | None = None, tell: Callable[[str], None] | None = None) -> Path:
    """A file or folder on this machine: itself, or its copy in the cache. The copy keeps the name.

    A copy is known by URI and content (an object's ETag; a folder's names, sizes and times), so what was replaced in
    storage is fetched again, and nothing else is. One process fetches, others on the machine wait for it.

    Args:
        source: what.
        cache: folder of the cache; None is hbtrain's.
        tell: called with a line before something is fetched.

    Raises:
        DataError: there is no such file or folder, or the storage refuses it.
        StorageError: the cache cannot be written.
    """
    if isinstance(source, Path):
        return source
    root = cache_root(cache) / FETCHED
    try:
        size, version = _version(source)
        digest = hashlib.sha256(f"{source}\0{version}".encode()).hexdigest()[:24]
        copy = root / digest / (source.name or source.bucket)
        if copy.exists():
            return copy
        root.mkdir(parents=True, exist_ok=True)
        with (root / f"{digest}.lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            if not copy.exists():
                if tell is not None:
                    tell(f"fetching {source} ({size / 2**20:,.1f} MiB)")
                _fetch_whole(source, copy)
    except (FileNotFoundError, RemoteError) as error:
        raise DataError(f"cannot fetch {source}: {error.strerror}") from error
    except OSError as error:
        raise StorageError(f"cannot keep a copy of {source} in {root}: {error.strerror}; set HBTRAIN_CACHE") from error
    return copy


def _version(source: RemotePath) -> tuple[int, str]:
    """Bytes, and what changes with the content."""
    if source.is_file():
        return source.size(), source.version()
    files = source.files()
    return sum(size for size, _ in files.values()), json.dumps(sorted(files.items()))


def _fetch_whole(source: RemotePath, copy: Path) -> None:
    """Fetch beside the place of the copy, and move it there when it is whole."""
    temporary = Path(tempfile.mkdtemp(prefix=".fetching-", dir=copy.parents[1]))
    try:
        fetch(source, temporary / copy.name)
        temporary.rename(copy.parent)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
