"""Folders and files taken to remote storage and fetched from it. All raise OSError where that fails.

While a folder is being pushed, the object `.unfinished` stands in it: what a process that was killed left behind is
never taken for a whole folder.
"""

from __future__ import annotations

import errno
import fcntl
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
from pathlib import Path, PurePosixPath

from hbtrain.errors import DataError, StorageError
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


def check_writable(folder: RemotePath, key: str) -> None:
    """Write, read, list and delete a probe in `folder`.

    Args:
        folder: where.
        key: what the configuration calls it, for the message.

    Raises:
        StorageError: one of them is refused, or the storage does not answer.
    """
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
    try:
        size, version = _version(source)
        name = source.name or source.bucket
        return cached_copy(str(source), name, size, version, lambda to: fetch(source, to), cache, tell)
    except (FileNotFoundError, RemoteError) as error:
        raise DataError(f"cannot fetch {source}: {error.strerror}") from error


def cached_copy(
    uri: str,
    name: str,
    size: int,
    version: str,
    get: Callable[[Path], None],
    cache: str | None = None,
    tell: Callable[[str], None] | None = None,
) -> Path:
    """The copy of `uri` in the cache, called `name`, as it is there or as `get(path)` fetches it.

    Args:
        uri: what.
        name: of the copy.
        size: bytes to fetch, for `tell`.
        version: what changes with the content; another one is another copy.
        get: writes a file or a folder to a path; its FileNotFoundError and RemoteError pass as they are.
        cache: as for `local_copy`, as is `tell`.
        tell: called with a line before something is fetched.

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
        with (root / f"{digest}.lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            if not copy.exists():
                if tell is not None:
                    tell(f"fetching {uri} ({size / 2**20:,.1f} MiB)")
                _fetch_whole(get, copy)
    except (FileNotFoundError, RemoteError):
        raise
    except OSError as error:
        raise StorageError(f"cannot keep a copy of {uri} in {root}: {error.strerror}; set HBTRAIN_CACHE") from error
    return copy


def _version(source: RemotePath) -> tuple[int, str]:
    """Bytes, and what changes with the content."""
    if source.is_file():
        return source.size(), source.version()
    files = source.files()
    return sum(size for size, _ in files.values()), json.dumps(sorted(files.items()))


def _fetch_whole(get: Callable[[Path], None], copy: Path) -> None:
    """Fetch beside the place of the copy, and move it there when it is whole."""
    temporary = Path(tempfile.mkdtemp(prefix=".fetching-", dir=copy.parents[1]))
    try:
        get(temporary / copy.name)
        temporary.rename(copy.parent)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
