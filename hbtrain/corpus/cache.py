"""The cache of memory-mapped sources: a folder for each content of a file, whatever the file is called."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable
from pathlib import Path

from hbtrain.errors import DataError, StorageError
from hbtrain.storage import resolved, write_text
from hbtrain.storage.files import file_digest, whole


def content_digest(path: Path, root: Path) -> str:
    """Hex SHA-256 of the bytes of a source's file; see `stored_digest`.

    Raises:
        DataError: the file is missing, unreadable or empty.
        StorageError: the cache cannot be written.
    """
    if path.exists() and not path.is_file():
        raise DataError(f"source {path} is not a file; give a parallel JSON-lines file (plain or .gz)")
    if path.is_file() and path.stat().st_size == 0:
        raise DataError(f"source {path} is empty")
    try:
        return stored_digest(path, root)
    except OSError as error:
        raise DataError(f"cannot read source {path}: {error.strerror}") from error


def stored_digest(path: Path, root: Path) -> str:
    """Hex SHA-256 of a file's bytes. It is stored in the cache `root` by path, size and times of change, so that an
    unchanged file is read once. The time of the last change of content can be set by users, that of the file's entry
    cannot: both count.

    Raises:
        OSError: the file cannot be read.
        StorageError: the cache cannot be written.
    """
    stat = path.stat()
    seen = f"{resolved(path)}\0{stat.st_size}\0{stat.st_mtime_ns}\0{stat.st_ctime_ns}"
    memo = root / "digests" / hashlib.sha256(os.fsencode(seen)).hexdigest()
    if memo.is_file() and len(digest := memo.read_text(encoding="utf-8")) == 64:
        return digest
    digest = file_digest(path)
    try:
        memo.parent.mkdir(parents=True, exist_ok=True)
        write_text(memo, digest)
    except OSError as error:
        raise _unwritable(memo.parent, error) from error
    return digest


def built(folder: Path, build: Callable[[Path], None]) -> Path:
    """Return `folder`; if it is not there, first have `build` fill a temporary folder that then takes its place.

    Nobody ever sees it half-made, and several processes may do this at the same time.

    Raises:
        StorageError: the cache cannot be written.
    """
    if (folder / "manifest.json").is_file():
        return folder
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with whole(folder) as unfinished:
            unfinished.mkdir()
            build(unfinished)
    except OSError as error:
        if not (folder / "manifest.json").is_file():  # else another process was faster, with the same content
            raise _unwritable(folder, error) from error
    return folder


def read_manifest(folder: Path) -> dict[str, object]:
    """The manifest of a source in the cache.

    Raises:
        StorageError: it is damaged.
    """
    try:
        manifest = json.loads((folder / "manifest.json").read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise StorageError(f"the corpus cache {folder} is damaged; delete that folder and run again") from error
    return dict(manifest)


def _unwritable(folder: Path, error: OSError) -> StorageError:
    return StorageError(f"cannot write the corpus cache {folder}: {error.strerror}; set data.cache to another folder")
