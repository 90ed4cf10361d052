"""Files and folders written whole or not at all, locks between processes, and digests of files.

A file is first written beside its final path, as `.<name>.<token>.partial`. When it is whole and synced to disk, it is
renamed, and the rename is synced as well. So any reader, also after a kill or a power cut, finds either the old content
or the new one, never a mixture. A folder is made in the same way, and exchanged with the one that it replaces.
"""

from __future__ import annotations

import ctypes
import errno
import glob
import gzip
import hashlib
import io
import os
import secrets
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Any, BinaryIO, cast

from hbtrain.errors import StorageError
from hbtrain.storage.place import Place
from hbtrain.storage.remote import RemotePath

PARTIAL = ".partial"
REPLACED = ".replaced"  # end of the name of a folder that was moved aside, where two folders cannot be exchanged
BLOCK_BYTES = 16 * 2**20

RENAME_EXCHANGE = 2
AT_FDCWD = -100


@contextmanager
def whole(path: Path, replaces_folder: bool = False) -> Iterator[Path]:
    """A temporary path at which the block makes a file or folder; when the block ends well, it becomes `path`.

    A file may replace a file, and a folder an empty folder.

    Args:
        path: of the file or folder; its own folder must exist.
        replaces_folder: a folder may also replace one that is not empty.

    Raises:
        OSError: it cannot be written; `filename`, if there is one, is `path` or a file below it. What was at `path`
            before is still there, and nothing else is left behind. Errors of the block pass unchanged.
    """
    partial = _partial(path)
    try:
        yield partial
        put_in_place(partial, path, replaces_folder)
    except OSError as error:
        if isinstance(error.filename, str | Path) and str(error.filename).startswith(str(partial)):
            error.filename = str(path) + str(error.filename)[len(str(partial)) :]
        raise
    finally:
        _remove(partial)


@contextmanager
def whole_stream(path: Path) -> Iterator[BinaryIO]:
    """A stream of bytes to a temporary file, which becomes `path` when the block ends well; see `whole`."""
    with whole(path) as partial, io.BufferedWriter(_Output(partial, path)) as stream:
        yield stream


@contextmanager
def atomic_output(path: Path, what: str) -> Iterator[BinaryIO]:
    """A stream to `path`, compressed if its name ends in .gz; the file appears when the block ends well.

    Args:
        path: of the file.
        what: what messages call it, such as `--output mined.jsonl`.

    Raises:
        StorageError: it cannot be written. Errors of the block itself pass unchanged.
    """
    try:
        with whole_stream(path) as plain, gzip_by_name(plain, path) as stream:
            yield stream
    except OSError as error:
        if error.filename != str(path):
            raise
        raise unwritable(what, error) from error


def write_text(file: Place, text: str) -> None:
    """Write or replace a file of UTF-8 text in one move (see `whole`). Raises OSError."""
    if isinstance(file, RemotePath):
        file.write_text(text)
        return
    with whole_stream(file) as stream:
        stream.write(text.encode("utf-8"))


def append_line(file: Path, line: str) -> None:
    """Append a line to a text file, which is made if need be, and sync it; a line that was cut off before is ended.

    After a kill or a power cut all earlier lines are there, and of this one nothing, a part, or all. Raises OSError.
    """
    is_new = not file.exists()
    with file.open("ab+") as stream:
        if stream.tell():
            stream.seek(-1, os.SEEK_END)
            if stream.read() != b"\n":
                line = f"\n{line}"
        stream.write(f"{line}\n".encode())
        stream.flush()
        os.fsync(stream.fileno())
    if is_new:
        _sync_folder(file.absolute().parent)


def put_in_place(made: Path, path: Path, replaces_folder: bool = False) -> None:
    """Sync a finished file or folder to disk, rename it in one move, and sync the rename.

    Args:
        made: the file or folder, on the same file system as `path`.
        path: its new path.
        replaces_folder: a folder may replace one that is not empty, which may then be found at `made`.

    Raises:
        OSError: it cannot be done; `filename` is `path`, where the old file or folder still is.
    """
    try:
        _sync_all(made)
        if replaces_folder and path.is_dir():
            _exchange(made, path)
        else:
            made.replace(path)
        _sync_folder(path.absolute().parent)
    except OSError as error:
        raise OSError(error.errno, error.strerror, str(path)) from error


def make_folder(folder: Path) -> None:
    """Make a folder, and those above it, where they are missing, and sync their names to disk. Raises OSError."""
    missing = [one for one in (folder.absolute(), *folder.absolute().parents) if not one.exists()]
    folder.mkdir(parents=True, exist_ok=True)
    for one in missing:
        _sync_folder(one.parent)


def remove_leftovers(folder: Path, name: str | None = None) -> None:
    """Delete what killed processes have left half written in a folder, and put back what they had moved aside.

    No other process may be writing there.

    Args:
        folder: the folder.
        name: of the file or folder that they were writing; None: of any.

    Raises:
        OSError: a folder that was moved aside cannot be put back.
    """
    for path in [*folder.glob(f".*{REPLACED}"), *folder.glob(f".*{PARTIAL}")]:
        final = folder / path.stem.rpartition(".")[0][1:]
        if name not in (None, final.name):
            continue
        if path.suffix == REPLACED and not final.exists():
            path.replace(final)
            _sync_folder(folder)
        else:
            _remove(path)


def unwritable(what: str, error: OSError) -> StorageError:
    """The error for an output that cannot be written."""
    return StorageError(f"{what} cannot be written: {error.strerror or error}")


@contextmanager
def gzip_by_name(plain: BinaryIO, path: Path) -> Iterator[BinaryIO]:
    """The stream itself, or, if the name of `path` ends in .gz, one that compresses into it."""
    if path.suffix == ".gz":
        # No name and no time in the header: the same content gives the same bytes.
        with gzip.GzipFile("", "wb", compresslevel=6, fileobj=plain, mtime=0) as zipped:
            yield cast(BinaryIO, zipped)
    else:
        yield plain


def _partial(path: Path) -> Path:
    """A temporary path beside `path`, with a random token, so that no other process or thread takes the same."""
    whole_path = path.absolute()  # `.` has no name
    return whole_path.parent / f".{whole_path.name}.{secrets.token_hex(6)}{PARTIAL}"


class _Output(io.FileIO):
    """A file whose errors of writing carry its final path, by which they are told from errors of reading."""

    def __init__(self, partial: Path, path: Path) -> None:
        self._path = path
        super().__init__(partial, "wb")

    def write(self, data: Any, /) -> int:
        try:
            return super().write(data)
        except OSError as error:
            error.filename = str(self._path)
            raise


def _sync_all(path: Path) -> None:
    """Sync a file, or all files and folders in a folder, to disk."""
    if not path.is_dir():
        _sync(path)
        return
    for folder, _, names in os.walk(path, topdown=False):
        for file in (Path(folder) / name for name in names):
            if file.is_file() and not file.is_symlink():
                _sync(file)
        _sync_folder(Path(folder))


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _sync_folder(folder: Path) -> None:
    """Sync a folder's entries to disk, on file systems that can sync folders."""
    try:
        _sync(folder)
    except OSError as error:
        if error.errno not in {errno.EACCES, errno.EBADF, errno.EINVAL, errno.ENOTSUP}:
            raise


def _exchange(made: Path, path: Path) -> None:
    """Exchange two folders; where the file system cannot do that in one move, `path` is missing for a moment."""
    try:
        renameat2 = ctypes.CDLL(None, use_errno=True).renameat2
    except AttributeError:  # a C library without it
        supported = False
    else:
        names = os.fsencode(made), os.fsencode(path)
        supported = renameat2(AT_FDCWD, names[0], AT_FDCWD, names[1], RENAME_EXCHANGE) == 0
    if supported:
        return
    old = _partial(path).with_suffix(REPLACED)  # `remove_leftovers` puts it back, should this process end here
    path.replace(old)
    try:
        made.replace(path)
    except BaseException:
        old.replace(path)
        raise
    try:
        _sync_folder(path.absolute().parent)  # before the old one goes, which the disk may still have at `path`
    finally:
        _remove(old)


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        with suppress(OSError):
            path.unlink()


LOCK = "lock"  # name of the file in a folder that is its lock

NO_LOCKS = frozenset({errno.ENOLCK, errno.ENOSYS, errno.ENOTSUP, errno.EINVAL})
"""Error numbers of file systems that have no locks."""


@contextmanager
def lock_file(file: Path, busy: str | None = None) -> Iterator[None]:
    """Hold a file's lock until the block ends; it holds on all nodes that share the file system.

    The file is made if it is not there, and stays. The lock is released when its process ends, however it does. The
    process that holds the lock may delete the file together with its folder.

    Args:
        file: its content does not matter.
        busy: message of the error if another process holds the lock; None: wait for it.

    Raises:
        StorageError: another process holds the lock, or has just deleted the file; the message is `busy`.
        OSError: the file cannot be opened, or the file system has no locks.
    """
    from filelock import FileLock, Timeout

    def check_same(descriptor: int) -> None:
        # On NFS, a file can still be locked after the process that held its lock has deleted it.
        if os.fstat(descriptor).st_ino != file.stat().st_ino:
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), str(file))

    # A soft lock would outlive a process that is killed.
    lock = FileLock(file, blocking=busy is None, thread_local=False, fallback_to_soft=False, on_acquired=check_same)
    try:
        held = lock.acquire()
    except (Timeout, FileNotFoundError) as error:
        if busy is None:
            raise
        raise StorageError(busy) from error
    with held:
        yield


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Hold the lock of a folder in which an output is made; the block may delete the folder.

    Raises:
        StorageError: another process holds it.
        OSError: see `lock_file`.
    """
    busy = f"{folder} is being written by another process; wait for it, or give another --output"
    with lock_file(folder / LOCK, busy):
        yield


@contextmanager
def plain_path(folder: Path) -> Iterator[Path]:
    """A path of a folder in which a library that looks for files with `glob` finds them: its own, or, if there are
    brackets, stars or question marks in it, that of a link which is deleted when the block ends.
    """
    if glob.escape(str(folder)) == str(folder):
        yield folder
        return
    with tempfile.TemporaryDirectory(prefix="hbtrain-") as temporary:
        link = Path(temporary) / "folder"
        link.symlink_to(folder.absolute(), target_is_directory=True)
        yield link


Algorithm = str | Callable[[], Any]
"""A hash function, by its name in hashlib or as a function that makes its hash object."""


def file_digest(path: Path, algorithm: Algorithm = "sha256") -> str:
    """Hex digest of a file's bytes. Raises OSError."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, cast(Any, algorithm)).hexdigest()


def copy_with_digest(read: IO[bytes], write: IO[bytes], algorithm: Algorithm = "sha256") -> tuple[int, str]:
    """Copy one stream to another; returns the number of bytes and their hex digest."""
    digest = hashlib.new(algorithm) if isinstance(algorithm, str) else algorithm()
    size = 0
    while block := read.read(BLOCK_BYTES):
        digest.update(block)
        write.write(block)
        size += len(block)
    return size, digest.hexdigest()
