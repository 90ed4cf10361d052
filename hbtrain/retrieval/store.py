"""Embeddings on disk: fp32 (or fp16) shards of fixed row ranges, memory-mapped, beside a manifest.

A store is a folder with `manifest.json`, and for each shard `shard-00000.npy` [R, D] and `shard-00000.json` with the
digest of its bytes, which is written last: a shard with this file is complete.

A `Mirror` copies a store to remote storage, so that what one machine has encoded no other encodes again. A shard is
copied as soon as it is finished; so an encoding that was interrupted can go on elsewhere.

Shapes: N rows, R rows of a shard or block, D dimensions.
"""

from __future__ import annotations

import json
import os
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np
import numpy.typing as npt

from hbtrain.errors import MAKE_ROOM, ModelError, StorageError, is_full
from hbtrain.retrieval.manifest import MANIFEST, Manifest
from hbtrain.retrieval.scores import Floats
from hbtrain.storage import RemoteError, RemotePath, put, write_text
from hbtrain.storage.files import (
    PARTIAL,
    copy_with_digest,
    file_digest,
    lock_file,
    put_in_place,
    remove_leftovers,
    whole_stream,
)

Int64s = npt.NDArray[np.int64]
Stored = npt.NDArray[Any]

LOCK = ".lock"  # file on which a writer holds a lock
LEFTOVERS = (".part", PARTIAL)  # suffixes of files that a killed writer may leave


class EmbeddingStore:
    """A finished store, open for reading."""

    def __init__(self, folder: Path, expected: Manifest | None = None) -> None:
        """Open the store in `folder`; with `expected`, check that it has this manifest.

        Raises:
            StorageError: the store is missing, unfinished, truncated, or has another manifest.
        """
        self.folder = folder
        self.manifest = Manifest.read(folder)
        if expected is not None:
            self.manifest.check_same(expected, folder)
        missing = [shard for shard in range(len(self.manifest.shards)) if not _digest(folder, shard).is_file()]
        if missing:
            raise StorageError(
                f"the embedding store {folder} is unfinished: {len(missing)} of {len(self.manifest.shards)} shards are "
                "missing; run the same encoding again, it continues where it stopped"
            )
        for shard in range(len(self.manifest.shards)):
            self.shard(shard)

    def __len__(self) -> int:
        return self.manifest.rows

    def shard(self, shard: int) -> Stored:
        """Vectors [R, D] of a shard, memory-mapped, in the type of the store. Writing to them does not change it.

        Only what the caller keeps stays mapped: each mapping holds a file open, and a store may have thousands.
        """
        return _mapped(self.folder, self.manifest, shard)

    def take(self, places: Int64s) -> Floats:
        """Vectors [..., D] in fp32 of the rows `places` [...]."""
        flat = places.reshape(-1)
        vectors = np.empty((len(flat), self.manifest.dimension), np.float32)
        shard_n = flat // self.manifest.rows_per_shard
        for shard in np.unique(shard_n).tolist():
            here = np.flatnonzero(shard_n == shard)
            vectors[here] = self.shard(shard)[flat[here] - shard * self.manifest.rows_per_shard]
        return vectors.reshape(*places.shape, self.manifest.dimension)

    def verify(self) -> None:
        """Read all shards and compare their bytes with their digests.

        Raises:
            StorageError: a shard is damaged.
        """
        for shard in range(len(self.manifest.shards)):
            if not _is_whole(self.folder, self.manifest, shard):
                raise _damaged(self.folder, shard)


class StoreWriter:
    """Writes a store, or the shards that it lacks. A context manager: one process writes a store at a time.

    Attributes:
        missing: numbers of the shards that are not finished, ascending.
    """

    def __init__(self, folder: Path, manifest: Manifest) -> None:
        """Begin a store or continue one. Finished shards whose digest is right stay; the others are written anew.

        Raises:
            StorageError: the folder holds something else, cannot be written, or another process writes it.
        """
        self.folder = folder
        self.manifest = manifest
        self._open: dict[int, tuple[np.memmap[Any, Any], int]] = {}
        busy = f"the embedding store {folder} is being written by another process; wait for it"
        try:
            folder.mkdir(parents=True, exist_ok=True)
            with ExitStack() as stack:
                stack.enter_context(lock_file(folder / LOCK, busy))
                if (folder / MANIFEST).exists():
                    Manifest.read(folder).check_same(manifest, folder)
                else:
                    _check_empty(folder)
                    write_text(folder / MANIFEST, manifest.to_json())
                for leftover in folder.glob("*.part"):
                    leftover.unlink()
                remove_leftovers(folder)
                self._lock = stack.pop_all()
        except OSError as error:
            raise _unwritable(folder, error) from error
        self.missing = [s for s in range(len(manifest.shards)) if not _is_whole(folder, manifest, s)]

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._open.clear()
        self._lock.close()

    def write(self, start: int, vectors_RD: npt.ArrayLike) -> None:
        """Write the vectors of row `start` and the following rows, all of one shard. Its last rows finish the shard.

        Raises:
            ModelError: a vector holds NaN or infinity, or has another dimension.
            StorageError: the disk is full.
        """
        vectors = np.asarray(vectors_RD)
        self._check(start, vectors)
        shard = start // self.manifest.rows_per_shard
        rows = self.manifest.shards[shard]
        if start + len(vectors) > rows.stop:
            raise ValueError(f"rows {start} to {start + len(vectors)} reach beyond shard {shard}")
        try:
            if shard not in self._open:
                self._open[shard] = (self._create(shard, len(rows)), len(rows))
            mapped, left = self._open[shard]
            mapped[start - rows.start : start - rows.start + len(vectors)] = vectors
            left -= len(vectors)
            self._open[shard] = (mapped, left)
            if not left:
                mapped.flush()
                del self._open[shard], mapped
                self._finish(shard)
        except OSError as error:
            raise _unwritable(self.folder, error) from error

    def _check(self, start: int, vectors: Stored) -> None:
        if vectors.ndim != 2 or vectors.shape[1] != self.manifest.dimension:
            raise ModelError(
                f"the model gave embeddings of shape {vectors.shape}, and the store {self.folder} has dimension "
                f"{self.manifest.dimension}; give another folder, or delete that one to encode anew"
            )
        broken = np.flatnonzero(~np.isfinite(vectors).all(axis=1))
        if len(broken):
            raise ModelError(
                f"the embedding of {self.manifest.side} {start + broken[0]} holds NaN or infinity ({len(broken)} of "
                f"{len(vectors)} in its block do): training has diverged or the precision is too low; use an earlier "
                "checkpoint or fp32"
            )

    def _create(self, shard: int, rows: int) -> np.memmap[Any, Any]:
        """Allocate the file of a shard in full: a full disk is an error here, not a crash while it is written."""
        path = _part(self.folder, shard)
        shape = (rows, self.manifest.dimension)
        mapped = np.lib.format.open_memmap(path, mode="w+", dtype=self.manifest.dtype, shape=shape)
        with path.open("rb+") as file:
            os.posix_fallocate(file.fileno(), 0, path.stat().st_size)
        return mapped

    def _finish(self, shard: int) -> None:
        path = _part(self.folder, shard)
        digest = file_digest(path)
        put_in_place(path, _data(self.folder, shard))
        write_text(_digest(self.folder, shard), json.dumps({"sha256": digest}) + "\n")


def data_name(shard: int) -> str:
    """File name of a shard's vectors."""
    return f"shard-{shard:05d}.npy"


def digest_name(shard: int) -> str:
    """File name of a shard's digest, which is written last."""
    return f"shard-{shard:05d}.json"


def _data(folder: Path, shard: int) -> Path:
    return folder / data_name(shard)


def _digest(folder: Path, shard: int) -> Path:
    return folder / digest_name(shard)


def _part(folder: Path, shard: int) -> Path:
    return folder / f"shard-{shard:05d}.npy.part"


def _mapped(folder: Path, manifest: Manifest, shard: int) -> Stored:
    try:
        # Copy on write, because torch warns of arrays that cannot be written.
        mapped: Stored = np.load(_data(folder, shard), mmap_mode="c", allow_pickle=False)
    except (EOFError, FileNotFoundError, ValueError) as error:
        raise _damaged(folder, shard) from error
    except OSError as error:
        raise _unreadable(folder, error) from error
    if mapped.shape != (len(manifest.shards[shard]), manifest.dimension) or mapped.dtype != manifest.dtype:
        raise _damaged(folder, shard)
    return mapped


def _is_whole(folder: Path, manifest: Manifest, shard: int) -> bool:
    """Whether the shard is there and has the digest that its writer wrote down."""
    try:
        written = _read_digest(_digest(folder, shard).read_text())
        _mapped(folder, manifest, shard)
        return file_digest(_data(folder, shard)) == written
    except (FileNotFoundError, _DamagedShardError, ValueError):
        return False
    except OSError as error:
        raise _unreadable(folder, error) from error


def _read_digest(text: str) -> str | None:
    """The digest in the text of a shard's digest file; None if the text is damaged."""
    try:
        return str(json.loads(text)["sha256"])
    except (ValueError, KeyError, TypeError):
        return None


def _check_empty(folder: Path) -> None:
    others = [path.name for path in folder.iterdir() if path.name != LOCK and path.suffix not in LEFTOVERS]
    if others:
        raise StorageError(f"{folder} holds {min(others)!r} and is no embedding store; give an empty or a new folder")


class _DamagedShardError(StorageError):
    """A shard without all its bytes, or with others than were written."""


def _damaged(folder: Path, shard: int) -> _DamagedShardError:
    return _DamagedShardError(
        f"{_data(folder, shard)} is truncated or damaged; delete it and run the same encoding again, "
        "which keeps the other shards"
    )


def _unreadable(folder: Path, error: OSError) -> StorageError:
    return StorageError(f"cannot read the embedding store {folder}: {error.strerror or error}")


def _unwritable(folder: Path, error: OSError) -> StorageError:
    room = f"; {MAKE_ROOM}" if is_full(error) else "; give another folder"
    return StorageError(f"cannot write the embedding store {folder}: {error.strerror or error}{room}")


class Mirror:
    """Copies the finished shards of a store between this machine and remote storage."""

    def __init__(self, local: Path, remote: RemotePath, manifest: Manifest) -> None:
        """See which shards are in remote storage.

        Args:
            local: the store's folder on this machine.
            remote: its folder in remote storage.
            manifest: of the store.

        Raises:
            StorageError: the storage does not answer.
        """
        self._local, self._remote, self._manifest = local, remote, manifest
        try:
            names = set(remote.children())
        except RemoteError as error:
            raise _unusable(remote, error) from error
        shards = range(len(manifest.shards))
        self._pushed = {shard for shard in shards if {data_name(shard), digest_name(shard)} <= names}

    def fetch(self) -> None:
        """Copy the finished shards that this machine lacks; one that is damaged is left out, and so is encoded again.

        One process at a time: others that fetch or write the same store are waited for.

        Raises:
            StorageError: the storage does not answer, or this machine's disk cannot be written.
        """
        if not self._wanted():
            return
        try:
            self._local.mkdir(parents=True, exist_ok=True)
            with lock_file(self._local / LOCK):
                if not (self._local / MANIFEST).exists():
                    write_text(self._local / MANIFEST, self._manifest.to_json())
                for shard in self._wanted():
                    self._fetch(shard)
        except OSError as error:
            raise _unusable(self._remote, error) from error

    def push(self) -> None:
        """Copy the finished shards that remote storage lacks.

        Raises:
            StorageError: the storage does not answer, or refuses.
        """
        for shard in range(len(self._manifest.shards)):
            if shard in self._pushed or not (self._local / digest_name(shard)).is_file():
                continue
            try:
                if not self._pushed:
                    (self._remote / MANIFEST).write_text(self._manifest.to_json())
                for name in (data_name(shard), digest_name(shard)):
                    put(self._local / name, self._remote / name)
            except OSError as error:
                raise _unusable(self._remote, error) from error
            self._pushed.add(shard)

    def _wanted(self) -> list[int]:
        return [shard for shard in sorted(self._pushed) if not (self._local / digest_name(shard)).is_file()]

    def _fetch(self, shard: int) -> None:
        mark = (self._remote / digest_name(shard)).read_text()
        data = self._local / data_name(shard)
        try:
            with (self._remote / data_name(shard)).open() as read, whole_stream(data) as write:
                if copy_with_digest(read, write)[1] != _read_digest(mark):
                    raise _damaged(self._local, shard)
        except _DamagedShardError:
            self._pushed.discard(shard)
        else:
            write_text(self._local / digest_name(shard), mark)


def _unusable(there: RemotePath, error: OSError) -> StorageError:
    return StorageError(f"embeddings in {there} cannot be written or fetched: {error.strerror} ({error.filename})")
