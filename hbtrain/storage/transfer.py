"""Folders and files taken to remote storage and fetched from it. All raise OSError where that fails.

While a folder is being pushed, the object `.unfinished` stands in it: what a process that was killed left behind is
never taken for a whole folder.
"""

from __future__ import annotations

import errno
import shutil
import tempfile
import time
from collections.abc import Callable, Collection, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path, PurePosixPath

from hbtrain.storage.place import Place
from hbtrain.storage.remote import RemoteError, RemotePath

UNFINISHED = ".unfinished"
BLOCK_BYTES = 16 * 2**20
AT_ONCE = 8
"""Files that are on their way at one time."""


def is_whole(folder: Place) -> bool:
    """Whether nobody's push into the folder was cut off; of a folder on disk, and of one that is not there, True."""
    return isinstance(folder, Path) or not (folder / UNFINISHED).exists()


def push(folder: Path, to: RemotePath, replace: bool = False) -> None:
    """Take all files of a folder to remote storage, under the same names; hidden ones as well.

    Args:
        folder: on this machine.
        to: the folder there, made if it is not there.
        replace: delete what else is there.
    """
    names = [path.relative_to(folder).as_posix() for path in sorted(folder.rglob("*")) if path.is_file()]
    (to / UNFINISHED).write_text("")
    if replace:
        for name in to.files().keys() - {*names, UNFINISHED}:
            (to / name).unlink(missing_ok=True)
    with ThreadPoolExecutor(AT_ONCE) as pool:
        for _ in pool.map(lambda name: put(folder / name, to / name), names):
            pass
    (to / UNFINISHED).unlink()


def patiently(act: Callable[[], None], for_s: float, every_s: float = 5.0) -> None:
    """Do it; where remote storage is away, again and again for a while, and then raise what it said."""
    deadline = time.monotonic() + for_s
    while True:
        try:
            return act()
        except RemoteError as error:
            if not error.may_pass or time.monotonic() + every_s > deadline:
                raise
            time.sleep(every_s)


def put(file: Path, to: Place) -> None:
    """Take one file there."""
    with file.open("rb") as read, to.open("wb") as write:
        shutil.copyfileobj(read, write, BLOCK_BYTES)


def fetch(source: RemotePath, to: Path, without: Collection[str] = ()) -> None:
    """A copy of a file, or of a folder with all in it, on this machine.

    Args:
        source: what.
        to: the place of the copy.
        without: names of folders in it, at any depth, that are left out.

    Raises:
        FileNotFoundError: there is nothing, or a push was cut off.
    """
    if source.is_file():
        _get(source, to)
        return
    names = [name for name in source.files() if not set(name.split("/")[:-1]) & set(without)]
    if not names:
        raise FileNotFoundError(errno.ENOENT, "there is no such object or folder", str(source))
    if UNFINISHED in names:
        raise FileNotFoundError(errno.ENOENT, "what wrote it was cut off; run that again", str(source))
    for name in names:
        if ".." in PurePosixPath(name).parts or name.startswith("/"):
            raise OSError(errno.EINVAL, f"the name {name!r} leads out of the folder", str(source))
    with ThreadPoolExecutor(AT_ONCE) as pool:
        for _ in pool.map(lambda name: _get(source / name, to / name), names):
            pass


def _get(source: RemotePath, to: Path) -> None:
    to.parent.mkdir(parents=True, exist_ok=True)
    with source.open() as read, to.open("wb") as write:
        shutil.copyfileobj(read, write, BLOCK_BYTES)


@contextmanager
def as_local(source: Place) -> Iterator[Path]:
    """A file or folder on this machine while the body runs: itself, or a copy that is then deleted."""
    if isinstance(source, Path):
        yield source
        return
    with tempfile.TemporaryDirectory(prefix="hbtrain-") as temporary:
        to = Path(temporary) / source.name
        fetch(source, to)
        yield to


@contextmanager
def pushed(to: Place, replace: bool = False) -> Iterator[Path]:
    """A folder to write into: `to` itself, as it is; or an empty one that is pushed there when the body ends.

    Nothing is pushed where the body fails. `replace`: as for `push`.
    """
    if isinstance(to, Path):
        yield to
        return
    with tempfile.TemporaryDirectory(prefix="hbtrain-") as temporary:
        folder = Path(temporary) / to.name
        folder.mkdir()
        yield folder
        push(folder, to, replace)
