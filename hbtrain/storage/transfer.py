"""Copies files and folders to remote storage and from it, and keeps copies in the cache. Failures raise OSError.

While a folder is being pushed, it holds the object `.unfinished`, so that what a killed process has left is not taken
for a whole folder.
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
import shutil
import tempfile
import time
import uuid
from collections.abc import Callable, Collection, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

from hbtrain.errors import DataError, StorageError
from hbtrain.storage.files import BLOCK_BYTES, lock_file, whole
from hbtrain.storage.place import Place, expand_home, inside, settle_home
from hbtrain.storage.remote import RemoteError, RemotePath, unthrottled

UNFINISHED = ".unfinished"
PARALLEL_TRANSFERS = 8  # how many files of a folder are copied at the same time


def is_whole(folder: Place) -> bool:
    """False if a push into the folder has not been finished; True also for folders on disk, and if there is none."""
    return isinstance(folder, Path) or not (folder / UNFINISHED).exists()


def push(folder: Path, to: RemotePath, replace: bool = False) -> None:
    """Copy all files of a folder, hidden ones as well, to a folder in remote storage.

    Args:
        folder: on this machine.
        to: the folder in remote storage.
        replace: delete all other files that it holds.
    """
    names = [path.relative_to(folder).as_posix() for path in sorted(folder.rglob("*")) if path.is_file()]
    (to / UNFINISHED).write_text("")
    if replace:
        for name in to.files().keys() - {*names, UNFINISHED}:
            (to / name).unlink(missing_ok=True)
    with ThreadPoolExecutor(PARALLEL_TRANSFERS) as pool:
        for _ in pool.map(lambda name: put(folder / name, to / name), names):
            pass
    (to / UNFINISHED).unlink()


def with_retries(act: Callable[[], None], for_s: float, every_s: float = 5.0) -> None:
    """Call `act`, again every `every_s` seconds where it fails with a RemoteError that may pass, for up to `for_s`."""
    deadline = time.monotonic() + for_s
    while True:
        try:
            return act()
        except RemoteError as error:
            if not error.may_pass or time.monotonic() + every_s > deadline:
                raise
            time.sleep(every_s)


def put(file: Path, to: Place) -> None:
    def copy() -> None:
        with file.open("rb") as read, to.open("wb") as write:
            shutil.copyfileobj(read, write, BLOCK_BYTES)

    unthrottled(copy)


def fetch(source: RemotePath, to: Path, without: Collection[str] = ()) -> None:
    """Copy a file, or a folder with everything in it, to this machine.

    Args:
        source: the file or folder.
        to: path of the copy.
        without: names of subfolders, at any depth, that are left out.

    Raises:
        FileNotFoundError: there is no such file or folder, or a push into it was not finished.
    """
    if source.is_file():
        _get(source, to)
        return
    names = [name for name in source.files() if not set(name.split("/")[:-1]) & set(without)]
    if not names:
        raise FileNotFoundError(errno.ENOENT, "there is no such object or folder", str(source))
    if UNFINISHED in names:
        raise FileNotFoundError(errno.ENOENT, "what wrote it was cut off; run that again", str(source))
    try:
        copies = [inside(to, name) for name in names]
    except ValueError as error:
        raise OSError(errno.EINVAL, str(error), str(source)) from error
    with ThreadPoolExecutor(PARALLEL_TRANSFERS) as pool:
        for _ in pool.map(lambda name, copy: _get(source / name, copy), names, copies):
            pass


def _get(source: RemotePath, to: Path) -> None:
    def copy() -> None:
        with source.open() as read, to.open("wb") as write:
            shutil.copyfileobj(read, write, BLOCK_BYTES)

    to.parent.mkdir(parents=True, exist_ok=True)
    unthrottled(copy)


@contextmanager
def as_local(source: Place) -> Iterator[Path]:
    """The path of a file or folder on this machine: its own, or that of a copy that is deleted when the block ends."""
    if isinstance(source, Path):
        yield source
        return
    with tempfile.TemporaryDirectory(prefix="hbtrain-") as temporary:
        to = Path(temporary) / source.name
        fetch(source, to)
        yield to


@contextmanager
def pushed(to: Place, replace: bool = False) -> Iterator[Path]:
    """A folder on this machine to write into: `to` itself, or an empty one that is pushed to it when the block ends.

    If the block fails, nothing is pushed. `replace` is that of `push`.
    """
    if isinstance(to, Path):
        yield to
        return
    with tempfile.TemporaryDirectory(prefix="hbtrain-") as temporary:
        folder = Path(temporary) / to.name
        folder.mkdir()
        yield folder
        push(folder, to, replace)


def check_writable(folder: Place, key: str) -> None:
    """Check that files can be written into a folder; one on this machine need not be there, and is not made.

    In remote storage, objects are written, read, listed and deleted.

    Args:
        folder: where results will be.
        key: the option or the configuration key that names it, for messages.

    Raises:
        StorageError: one of these is refused, or the storage does not answer.
    """
    if isinstance(folder, Path):
        try:
            try_to_write(folder)
        except OSError as error:
            raise StorageError(f"{key} = '{folder}' cannot be written: {error.strerror}") from error
        return
    probe = folder / f".probe-{uuid.uuid4().hex[:12]}"
    for verb, act in (
        ("written", lambda: probe.write_text("hbtrain")),
        ("read", probe.read_text),
        ("listed", folder.children),
        ("cleaned up (objects cannot be deleted)", probe.unlink),
    ):
        try:
            act()
        except OSError as error:
            raise StorageError(
                f"{key} = '{folder}' cannot be {verb}: {error.strerror}; see to the bucket, the endpoint and the keys "
                "(AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or the machine's role)"
            ) from error


PROBE_BYTES = 4096
"""What is written to try whether a disk has room: some disks that are full still take the names of new files."""


def try_to_write(folder: Path) -> None:
    """Write a file without a name into a folder, or into the nearest above it that is there. Raises OSError."""
    there = folder.absolute()
    while True:
        try:
            there.stat()
            break
        except FileNotFoundError:
            if there.is_symlink():
                raise
            there = there.parent
    with tempfile.TemporaryFile(dir=there) as probe:
        probe.write(bytes(PROBE_BYTES))
        probe.flush()


FETCHED = "fetched"  # name of the cache's folder for copies of remote files


def cache_root(folder: str | None) -> Path:
    """The cache's folder: `folder`, or `$HBTRAIN_CACHE`, or `~/.cache/hbtrain`; for the home see `settle_home`."""
    settle_home()
    return expand_home(folder or os.environ.get("HBTRAIN_CACHE") or "~/.cache/hbtrain")


def local_copy(source: Place, cache: str | None = None, notify: Callable[[str], None] | None = None) -> Path:
    """The path of a file or folder on this machine: its own, or that of its copy in the cache, which has the same name.

    A copy is fetched again when the content has changed, as told by an object's ETag, or by the names, sizes and times
    of a folder's files. One process fetches, while others on the machine wait for it.

    Args:
        source: the file or folder.
        cache: folder of the cache; None: see `cache_root`.
        notify: called with a line of text before something is fetched.

    Raises:
        DataError: there is no such file or folder, or the storage refuses it.
        StorageError: the cache cannot be written.
    """
    if isinstance(source, Path):
        return source
    try:
        size, version = _version(source)
        name = source.name or source.bucket
        return cached_copy(str(source), name, size, version, lambda to: fetch(source, to), cache, notify)
    except (FileNotFoundError, RemoteError) as error:
        raise DataError(f"cannot fetch {source}: {error.strerror}") from error


def cached_copy(
    uri: str,
    name: str,
    size: int,
    version: str,
    get: Callable[[Path], None],
    cache: str | None = None,
    notify: Callable[[str], None] | None = None,
) -> Path:
    """The path of the copy of `uri` in the cache; if there is none, `get` fetches it.

    Args:
        uri: of the file or folder.
        name: of the copy.
        size: bytes to fetch, for `notify`.
        version: a text that changes with the content; each version has its own copy.
        get: writes the file or folder to a path; its FileNotFoundError and RemoteError pass unchanged.
        cache: folder of the cache; None: see `cache_root`.
        notify: called with a line of text before something is fetched.

    Raises:
        StorageError: the cache cannot be written.
    """
    root = cache_root(cache) / FETCHED
    digest = hashlib.sha256(f"{uri}\0{version}".encode()).hexdigest()[:24]
    copy = root / digest / name
    try:
        if copy.exists():
            return copy
        root.mkdir(parents=True, exist_ok=True)
        with lock_file(root / f"{digest}.lock"):
            if not copy.exists():
                if notify is not None:
                    notify(f"fetching {uri} ({size / 2**20:,.1f} MiB)")
                with whole(copy.parent) as folder:
                    get(folder / copy.name)
    except (FileNotFoundError, RemoteError):
        raise
    except OSError as error:
        raise StorageError(f"cannot keep a copy of {uri} in {root}: {error.strerror}; set HBTRAIN_CACHE") from error
    return copy


def _version(source: RemotePath) -> tuple[int, str]:
    """(bytes, a text that changes with the content) of a file or folder."""
    if source.is_file():
        return source.size(), source.version()
    files = source.files()
    return sum(size for size, _ in files.values()), json.dumps(sorted(files.items()))
