"""The cache of memory-mapped sources: built once for a file's content, whoever asks and under whatever name."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path

from hbtrain.errors import DataError, StorageError


def content_digest(path: Path, root: Path) -> str:
    """Hex digest of a file's bytes; remembered by path, size and time of change, so that it is read once.

    Raises:
        DataError: the file is missing, unreadable or empty.
    """
    try:
        stat = path.stat()
        if not path.is_file():
            raise DataError(f"source {path} is not a file; give a parallel JSON-lines file (plain or .gz)")
        if stat.st_size == 0:
            raise DataError(f"source {path} is empty")
        seen = f"{path.resolve()}\0{stat.st_size}\0{stat.st_mtime_ns}"
        memo = root / "digests" / hashlib.sha256(seen.encode()).hexdigest()
        if memo.is_file() and len(digest := memo.read_text()) == 64:
            return digest
        with path.open("rb") as stream:
            digest = hashlib.file_digest(stream, "sha256").hexdigest()
    except OSError as error:
        raise DataError(f"cannot read source {path}: {error.strerror}") from error
    _write_atomically(memo, digest)
    return digest


def built(folder: Path, build: Callable[[Path], None]) -> Path:
    """`folder`, built by `build(temporary folder)` if it is not there; never seen half-made, safe against races."""
    if (folder / "manifest.json").is_file():
        return folder
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        temporary = Path(tempfile.mkdtemp(prefix=f".{folder.name}.", dir=folder.parent))
    except OSError as error:
        raise _unwritable(folder.parent, error) from error
    try:
        build(temporary)
        temporary.rename(folder)
    except OSError as error:
        if not (folder / "manifest.json").is_file():  # else another process was faster, with the same content
            raise _unwritable(folder, error) from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    return folder


def read_manifest(folder: Path) -> dict[str, object]:
    """The manifest of a built source.

    Raises:
        StorageError: it is damaged.
    """
    try:
        manifest = json.loads((folder / "manifest.json").read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise StorageError(f"the corpus cache {folder} is damaged; delete that folder and run again") from error
    return dict(manifest)


def write_whole(path: Path, text: str) -> None:
    """Write a file that is there as a whole or not at all."""
    temporary = path.with_name(f".{path.name}")
    with temporary.open("w", encoding="utf-8") as stream:
        stream.write(text)
        stream.flush()
        os.fsync(stream.fileno())
    temporary.replace(path)


def _write_atomically(path: Path, text: str) -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile("w", dir=path.parent, delete=False) as stream:
            stream.write(text)
        Path(stream.name).replace(path)
    except OSError as error:
        raise _unwritable(path.parent, error) from error


def _unwritable(folder: Path, error: OSError) -> StorageError:
    return StorageError(f"cannot write the corpus cache {folder}: {error.strerror}; set data.cache to another folder")
