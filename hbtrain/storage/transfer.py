"""Copies files and folders to remote storage and from it, and keeps copies in the cache. Failures raise OSError.

While a folder is being pushed, it holds the object `.unfinished`, so that what a killed process has left is not taken
for a whole folder. A folder that replaces another is first pushed beside it, to `.<name>.<token>`; then `.unfinished`
names that one, in which the content is whole, until all of it has been copied to its place. So there is a whole folder
at any time, and those who read with this module find it.
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
import re
import shutil
import tempfile
import time
import uuid
from collections.abc import Callable, Collection, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from pathlib import Path

from hbtrain.errors import DataError, StorageError
from hbtrain.storage.files import BLOCK_BYTES, lock_file, remove_leftovers, whole
from hbtrain.storage.place import Place, expand_home, folders_in, inside, settle_home
from hbtrain.storage.remote import RemoteError, RemotePath, unthrottled

UNFINISHED = ".unfinished"
PARALLEL_TRANSFERS = 8  # how many files of a folder are copied at the same time
FETCH_ATTEMPTS = 3  # how often a folder is fetched anew because it was replaced meanwhile


def is_whole(folder: Place) -> bool:
    """Whether the content of a folder can be had; False if a first push into it has not been finished.

    True also for folders on disk, and if there is none.
    """
    return isinstance(folder, Path) or _whole_folder(folder) is not None


def _whole_folder(folder: RemotePath) -> RemotePath | None:
    """The folder that holds the whole content of `folder`: itself, or the one that is replacing it; None: neither."""
    try:
        beside = (folder / UNFINISHED).read_text()
    except FileNotFoundError:
        return folder
    return folder.parent / beside if beside.startswith(f".{folder.name}.") and "/" not in beside else None


def push(folder: Path, to: RemotePath, replace: bool = False) -> None:
    """Copy all files of a folder, hidden ones as well, to a folder in remote storage.

    Args:
        folder: on this machine.
        to: the folder in remote storage.
        replace: what it holds is replaced as a whole. One process at a time may do so.
    """
    names = [path.relative_to(folder).as_posix() for path in sorted(folder.rglob("*")) if path.is_file()]
    if replace and is_whole(to) and to.children():
        beside = to.parent / f".{to.name}.{uuid.uuid4().hex[:12]}"
        push(folder, beside)
        _move_in(beside, to)
        return
    (to / UNFINISHED).write_text("")
    for name in to.files().keys() - {*names, UNFINISHED} if replace else ():
        (to / name).unlink(missing_ok=True)
    _in_parallel(lambda name: put(folder / name, to / name), names)
    (to / UNFINISHED).unlink()


def _move_in(beside: RemotePath, to: RemotePath) -> None:
    """Replace a folder by one beside it, whose name is `.<name>.<token>`; others of such names are deleted as well."""
    names = [name for name in beside.files() if name != UNFINISHED]
    (to / UNFINISHED).write_text(beside.name)
    for name in to.files().keys() - {*names, UNFINISHED}:
        (to / name).unlink(missing_ok=True)
    _in_parallel(lambda name: (beside / name).copy(to / name), names)
    (to / UNFINISHED).unlink()
    for name in folders_in(to.parent, "*"):
        if _replaced_by(name) == to.name:
            (to.parent / name).remove_tree()


def _replaced_by(name: str) -> str | None:
    """The name of the folder that is replaced by one of this name; None: none is."""
    found = re.fullmatch(r"\.(.+)\.[0-9a-f]{12}", name)
    return found[1] if found else None


def clear_leftovers(folder: Place) -> None:
    """Bring to an end, or undo, what killed processes have begun in a folder, and delete what they left half written.

    No other process may be writing there.

    Raises:
        StorageError: the folder cannot be read or written.
    """
    try:
        if isinstance(folder, Path):
            remove_leftovers(folder)
            return
        names = {name: _replaced_by(name) for name in folders_in(folder, ".*")}
        for to in {folder / replaced for replaced in names.values() if replaced is not None}:
            whole_one = _whole_folder(to)
            if whole_one is not None and whole_one != to:
                _move_in(whole_one, to)
        for name in (name for name, replaced in names.items() if replaced is not None):
            (folder / name).remove_tree()
    except OSError as error:
        raise StorageError(f"cannot clear {folder} of what was left there: {error.strerror or error}") from error


def _in_parallel(act: Callable[[str], object], names: Iterable[str]) -> None:
    with ThreadPoolExecutor(PARALLEL_TRANSFERS) as pool:
        for _ in pool.map(act, names):
            pass


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


def fetch(source: RemotePath, to: Path, without: Collection[str] = (), as_one: bool = True) -> None:
    """Copy a file, or a folder with everything in it, to this machine.

    Args:
        source: the file or folder.
        to: path of the copy.
        without: names of subfolders, at any depth, that are left out.
        as_one: the files of a folder belong together, as those of a model do: if some have changed meanwhile, all are
            fetched anew.

    Raises:
        FileNotFoundError: there is no such file or folder, or a push into it, or into a folder in it, was not finished.
        OSError: the folder is being replaced again and again.
    """
    if source.is_file():
        _get(source, to)
        return
    for _ in range(FETCH_ATTEMPTS):
        holder, files = _listing(source, without)
        try:
            _in_parallel(partial(_get_named, holder, to), files)
        except FileNotFoundError:
            if not as_one or _listing(source, without) == (holder, files):
                raise
        else:
            if not as_one or _listing(source, without) == (holder, files):
                return
        shutil.rmtree(to, ignore_errors=True)
    raise OSError(errno.EBUSY, "it is being replaced; try again when that is done", str(source))


def _listing(source: RemotePath, without: Collection[str]) -> tuple[RemotePath, dict[str, tuple[int, int]]]:
    """Where the whole content of a folder is, and its files (see `RemotePath.files`). Raises as `fetch` does."""
    found = source.files()
    if UNFINISHED in found:
        holder = _whole_folder(source)
        found = {} if holder is None else holder.files()
    else:
        holder = source
    files = {name: about for name, about in found.items() if not _is_left_out(name.split("/")[:-1], without)}
    cut = next((name for name in files if name.rsplit("/", 1)[-1] == UNFINISHED), None)
    if holder is None or cut is not None:
        at = source if holder is None or cut is None else (holder / cut).parent
        raise FileNotFoundError(errno.ENOENT, "what wrote it was cut off; run that again", str(at))
    if not files:
        raise FileNotFoundError(errno.ENOENT, "there is no such object or folder", str(source))
    try:
        for name in files:
            inside(holder, name)
    except ValueError as error:
        raise OSError(errno.EINVAL, str(error), str(source)) from error
    return holder, files


def _is_left_out(folders: list[str], without: Collection[str]) -> bool:
    """Whether a file in folders of these names, one in the other, is left out, or is only there to replace another."""
    return any(name in without or _replaced_by(name) is not None for name in folders)


def _get_named(source: RemotePath, to: Path, name: str) -> None:
    _get(source / name, to / name)


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
    _, files = _listing(source, ())
    return sum(size for size, _ in files.values()), json.dumps(sorted(files.items()))
