"""Places: files and folders, on disk or in remote storage, and functions that take both."""

from __future__ import annotations

import shutil
from fnmatch import fnmatchcase
from pathlib import Path
from urllib.parse import unquote, urlsplit

from hbtrain.errors import StorageError
from hbtrain.storage.remote import RemotePath

Place = Path | RemotePath
"""A file or folder, on this machine's disks or in remote storage."""


def is_remote(text: str) -> bool:
    """Whether a path is a URI of remote storage; a `file://` URI is a path on this machine."""
    return "://" in text and not text.startswith("file://")


def place(text: str) -> Place:
    """The place that a path or a URI names. The storage is not accessed.

    Raises:
        StorageError: the URI is neither one of remote storage nor of a file on this machine.
    """
    if text.startswith("file://"):
        parts = urlsplit(text)
        if parts.netloc not in ("", "localhost") or not parts.path or set("?#") & set(text):
            raise StorageError(
                f"{text!r}: a file:// URI is file:///path, with %3F for a question mark, %23 for # and %25 for %; or "
                "give the path itself"
            )
        return Path(unquote(parts.path))
    return RemotePath.parse(text) if is_remote(text) else Path(text).expanduser()


def quoted(at: Place) -> str:
    """The path of a file or folder, or its URI as Ray and pyarrow take one: with %20 for a blank, and the like."""
    return str(at) if isinstance(at, Path) else at.uri


def folders_in(folder: Place, pattern: str) -> list[str]:
    """The names of folders in a folder that match a pattern, in no order; none where there is no such folder."""
    if isinstance(folder, Path):
        return [path.name for path in folder.glob(pattern) if path.is_dir()]
    return [name for name, is_folder in folder.children().items() if is_folder and fnmatchcase(name, pattern)]


def files_in(folder: Place, pattern: str) -> list[str]:
    """The names of files in a folder that match a pattern, in no order; none where there is no such folder."""
    if isinstance(folder, Path):
        return [path.name for path in folder.glob(pattern) if path.is_file()]
    return [name for name, is_folder in folder.children().items() if not is_folder and fnmatchcase(name, pattern)]


def remove_tree(folder: Place) -> None:
    """Delete a folder with everything in it, as far as that is possible; errors are ignored."""
    if isinstance(folder, Path):
        shutil.rmtree(folder, ignore_errors=True)
        return
    try:
        folder.remove_tree()
    except OSError:
        return
