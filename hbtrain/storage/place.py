"""Places: files and folders, on disk or in remote storage, and functions that take both; paths on disk, resolved."""

from __future__ import annotations

import os
import shutil
import stat
import tempfile
from fnmatch import fnmatchcase
from pathlib import Path, PurePosixPath
from typing import TypeVar
from urllib.parse import unquote, urlsplit

from hbtrain.errors import StorageError, shown
from hbtrain.storage.remote import RemotePath

Place = Path | RemotePath  # a file or folder, on this machine's disks or in remote storage
SomePlace = TypeVar("SomePlace", Path, RemotePath, Path | RemotePath)


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
    return RemotePath.parse(text) if is_remote(text) else expand_home(text)


def expand_home(path: str | Path) -> Path:
    """A path on this machine with its `~` resolved; `~name` of an unknown user stays, as in a shell."""
    return Path(os.path.expanduser(path))  # noqa: PTH111  # that of pathlib raises for an unknown user


def resolved(path: str | Path) -> Path:
    """The absolute path without symbolic links; a link that leads to itself stays, and cannot be opened."""
    return Path(os.path.realpath(path))  # that of pathlib raises for such a link


def settle_home() -> Path | None:
    """Give this process, and those that it starts, a home folder where it has none; the folder, if it was needed.

    In containers, users often have a number without an account: `HOME` is not set, or is `/`, where they cannot write.
    Below it hbtrain, Hugging Face, torch, MLflow, matplotlib and Ray keep what they need again. Some of them ask for
    the user's name too.

    Raises:
        StorageError: the folder for temporary files holds a folder of the same name that is another user's.
    """
    user = os.getuid()
    if not any(os.environ.get(name) for name in ("LOGNAME", "USER", "LNAME", "USERNAME")) and not _has_account(user):
        os.environ["USER"] = str(user)
    if _can_be_home(expand_home("~")):
        return None
    try:
        home = own_temporary_folder(f"hbtrain-home-{user}")
    except StorageError as error:
        raise StorageError(f"there is no home folder, and {error}; set HOME to a folder of your own") from error
    os.environ["HOME"] = str(home)
    return home


def own_temporary_folder(name: str) -> Path:
    """The folder `name` in that for temporary files, made if need be, in which no other user can write.

    Raises:
        StorageError: it cannot be made, or another user has made it.
    """
    folder, user = Path(tempfile.gettempdir()) / name, os.getuid()
    try:
        folder.mkdir(mode=0o700, exist_ok=True)
        there = folder.lstat()
    except OSError as error:
        raise StorageError(f"{folder} cannot be made: {error.strerror}") from error
    if there.st_uid != user or not stat.S_ISDIR(there.st_mode):
        raise StorageError(f"{folder} is another user's")
    if there.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
        raise StorageError(f"{folder} can be written by other users; delete it")
    return folder


def _has_account(user: int) -> bool:
    import pwd

    try:
        pwd.getpwuid(user)
    except KeyError:
        return False
    return True


def _can_be_home(home: Path) -> bool:
    """Whether caches are below a folder, or can be made there."""
    cache = home / ".cache"
    if not home.is_absolute() or cache.is_dir():
        return home.is_absolute()
    there = next(folder for folder in cache.parents if folder.exists())
    return os.access(there, os.W_OK | os.X_OK)


def quoted(at: Place) -> str:
    """The path of a file or folder, or its URI as Ray and pyarrow take one: with %20 for a blank, and the like."""
    return str(at) if isinstance(at, Path) else at.uri


def inside(folder: SomePlace, name: str) -> SomePlace:
    """The place `name` below a folder. All names that are read go through here: from manifests, catalogues, listings.

    Links below the folder are followed, as those who own it may have made them.

    Raises:
        ValueError: the name is absolute, leads out of the folder, names the folder itself, or is no name of a file.
    """
    parts = PurePosixPath(name).parts
    if not parts or ".." in parts or name.startswith("/") or "\0" in name:
        raise ValueError(f"the name {shown(name)} leads out of its folder")
    return folder / name


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
