"""Embeddings on disk: fp32 (or fp16) shards of fixed row ranges, memory-mapped, beside a manifest.

A store is a folder with `manifest.json`, and for each shard `shard-00000.npy` [R, D] and `shard-00000.json` with the
digest of its bytes, which is written last: a shard that has it is whole.

Shapes: N rows, R rows of a shard or block, D dimensions.

An embedding store in remote storage as well: what one machine has encoded, no other one encodes again.

A shard is pushed as soon as it is finished here, its digest last; so an encoding that was cut off goes on elsewhere.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np
import numpy.typing as npt

from hbtrain.errors import MAKE_ROOM, ModelError, StorageError, is_full
from hbtrain.retrieval.manifest import MANIFEST, Manifest
from hbtrain.retrieval.scores import Floats
from hbtrain.storage import RemoteError, RemotePath, put, write_text

Int64s = npt.NDArray[np.int64]
Stored = npt.NDArray[Any]


class EmbeddingStore:
    """A finished store, open for reading."""

    def __init__(self, folder: Path, expected: Manifest | None = None) -> None:
        """Args: `expected`, what it must hold.

        Raises:
            StorageError: it is missing, unfinished, truncated, or holds something else.
        """
        self.folder = folder
        self.manifest = Manifest.read(folder)
        if expected is not None:
            self.manifest.check_same(expected, folder)
        missing = [shard for shard in range(len(self.manifest.shards)) if not _marks(folder, shard).is_file()]
        if missing:
            raise StorageError(
                f"the embedding store {folder} is unfinished: {len(missing)} of {len(self.manifest.shards)} shards are "
                "missing; run the same encoding again, it continues where it stopped"
            )
        self._shards = [_mapped(folder, self.manifest, shard) for shard in range(len(self.manifest.shards))]

    def __len__(self) -> int:
        return self.manifest.rows

    def shard(self, shard: int) -> Stored:
        """[R, D] of a shard, memory-mapped, in the type of the store. What is written into it stays in memory."""
        return self._shards[shard]

    def take(self, places: Int64s) -> Floats:
        """Rows [..., D] in fp32 of any places [...]."""
        flat = places.reshape(-1)
        vectors = np.empty((len(flat), self.manifest.dimension), np.float32)
        shard_n = flat // self.manifest.rows_per_shard
        for shard in np.unique(shard_n).tolist():
            here = np.flatnonzero(shard_n == shard)
            vectors[here] = self._shards[shard][flat[here] - shard * self.manifest.rows_per_shard]
        return vectors.reshape(*places.shape, self.manifest.dimension)

    def verify(self) -> None:
        """Read all shards and compare their digests.

        Raises:
            StorageError: one is damaged.
        """
        for shard in range(len(self._shards)):
            if not _is_whole(self.folder, self.manifest, shard):
                raise _damaged(self.folder, shard)


class StoreWriter:
    """Writes a store, or what it still lacks. Use as a context: one process writes a store at a time.

    Attributes:
        missing: the shards that are not there yet, ascending.
    """

    def __init__(self, folder: Path, manifest: Manifest) -> None:
        """Begin or continue; finished shards are kept if their digest is right, all else is written anew.

        Raises:
            StorageError: the folder holds something else, cannot be written, or is being written.
        """
        self.folder = folder
        self.manifest = manifest
        self._open: dict[int, tuple[np.memmap[Any, Any], int]] = {}
        try:
            folder.mkdir(parents=True, exist_ok=True)
            self._lock = (folder / ".lock").open("w")
            self._take_lock()
            if (folder / MANIFEST).exists():
                Manifest.read(folder).check_same(manifest, folder)
            else:
                _refuse_strangers(folder)
                _replace(folder / MANIFEST, manifest.to_json())
            for leftover in folder.glob("*.part"):
                leftover.unlink()
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
        """Put the vectors of rows `start` and following of one shard; its last rows make it appear.

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

    def _take_lock(self) -> None:
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise StorageError(
                f"the embedding store {self.folder} is being written by another process; wait for it"
            ) from error

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
        """The file of a shard at its full size: a full disk is an error here, and no bus error in its mapping."""
        path = _part(self.folder, shard)
        shape = (rows, self.manifest.dimension)
        mapped = np.lib.format.open_memmap(path, mode="w+", dtype=self.manifest.dtype, shape=shape)
        with path.open("rb+") as file:
            os.posix_fallocate(file.fileno(), 0, path.stat().st_size)
        return mapped

    def _finish(self, shard: int) -> None:
        path = _part(self.folder, shard)
        with path.open("rb") as file:
            os.fsync(file.fileno())
            digest = hashlib.file_digest(file, "sha256").hexdigest()
        path.replace(_data(self.folder, shard))
        _replace(_marks(self.folder, shard), json.dumps({"sha256": digest}) + "\n")


def data_name(shard: int) -> str:
    """File of a shard's rows."""
    return f"shard-{shard:05d}.npy"


def mark_name(shard: int) -> str:
    """File of their digest; a shard that has it is whole."""
    return f"shard-{shard:05d}.json"


def _data(folder: Path, shard: int) -> Path:
    return folder / data_name(shard)


def _marks(folder: Path, shard: int) -> Path:
    return folder / mark_name(shard)


def _part(folder: Path, shard: int) -> Path:
    return folder / f"shard-{shard:05d}.npy.part"


def _mapped(folder: Path, manifest: Manifest, shard: int) -> Stored:
    try:
        # Copied where written to: torch warns of arrays that cannot be written.
        mapped: Stored = np.load(_data(folder, shard), mmap_mode="c", allow_pickle=False)
    except (EOFError, OSError, ValueError) as error:
        raise _damaged(folder, shard) from error
    if mapped.shape != (len(manifest.shards[shard]), manifest.dimension) or mapped.dtype != manifest.dtype:
        raise _damaged(folder, shard)
    return mapped


def _is_whole(folder: Path, manifest: Manifest, shard: int) -> bool:
    """Whether the shard is there with the digest that its writer found."""
    try:
        digest = json.loads(_marks(folder, shard).read_text())["sha256"]
        _mapped(folder, manifest, shard)
        with _data(folder, shard).open("rb") as file:
            return bool(hashlib.file_digest(file, "sha256").hexdigest() == digest)
    except (OSError, StorageError, ValueError, KeyError, TypeError):
        return False


def _refuse_strangers(folder: Path) -> None:
    others = [path.name for path in folder.iterdir() if path.name != ".lock" and not path.name.endswith(".part")]
    if others:
        raise StorageError(f"{folder} holds {min(others)!r} and is no embedding store; give an empty or a new folder")


def _replace(path: Path, text: str) -> None:
    """Write a small file whole or not at all."""
    part = path.with_name(f"{path.name}.part")
    with part.open("w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    part.replace(path)


def _damaged(folder: Path, shard: int) -> StorageError:
    return StorageError(
        f"{_data(folder, shard)} is truncated or damaged; delete it and run the same encoding again, "
        "which keeps the other shards"
    )


def _unwritable(folder: Path, error: OSError) -> StorageError:
    room = f"; {MAKE_ROOM}" if is_full(error) else "; give another folder"
    return StorageError(f"cannot write the embedding store {folder}: {error.strerror or error}{room}")


BLOCK_BYTES = 16 * 2**20


class Mirror:
    """The two places of one store."""

    def __init__(self, here: Path, there: RemotePath, manifest: Manifest) -> None:
        """Args: `here`, the store's folder on this machine; `there`, its folder in remote storage.

        Raises:
            StorageError: the storage does not answer.
        """
        self._here, self._there, self._manifest = here, there, manifest
        try:
            names = set(there.children())
        except RemoteError as error:
            raise _unusable(there, error) from error
        shards = range(len(manifest.shards))
        self._pushed = {shard for shard in shards if {data_name(shard), mark_name(shard)} <= names}

    def fetch(self) -> None:
        """Bring the finished shards that are lacking here; a damaged one is left, and so is encoded again.

        Raises:
            StorageError: the storage does not answer, or this machine's disk cannot be written.
        """
        wanted = [shard for shard in sorted(self._pushed) if not (self._here / mark_name(shard)).is_file()]
        if not wanted:
            return
        try:
            self._here.mkdir(parents=True, exist_ok=True)
            if not (self._here / MANIFEST).exists():
                write_text(self._here / MANIFEST, self._manifest.to_json())
            for shard in wanted:
                self._fetch(shard)
        except OSError as error:
            raise _unusable(self._there, error) from error

    def push(self) -> None:
        """Take the finished shards that are lacking there.

        Raises:
            StorageError: the storage does not answer, or refuses.
        """
        for shard in range(len(self._manifest.shards)):
            if shard in self._pushed or not (self._here / mark_name(shard)).is_file():
                continue
            try:
                if not self._pushed:
                    (self._there / MANIFEST).write_text(self._manifest.to_json())
                for name in (data_name(shard), mark_name(shard)):
                    put(self._here / name, self._there / name)
            except OSError as error:
                raise _unusable(self._there, error) from error
            self._pushed.add(shard)

    def _fetch(self, shard: int) -> None:
        mark = (self._there / mark_name(shard)).read_text()
        part = self._here / f"{data_name(shard)}.part"
        digest = hashlib.sha256()
        with (self._there / data_name(shard)).open() as read, part.open("wb") as write:
            while block := read.read(BLOCK_BYTES):
                digest.update(block)
                write.write(block)
        try:
            whole = json.loads(mark)["sha256"] == digest.hexdigest()
        except (ValueError, KeyError, TypeError):
            whole = False
        if not whole:
            part.unlink()
            self._pushed.discard(shard)
            return
        part.replace(self._here / data_name(shard))
        write_text(self._here / mark_name(shard), mark)


def _unusable(there: RemotePath, error: OSError) -> StorageError:
    return StorageError(f"embeddings in {there} cannot be kept or fetched: {error.strerror} ({error.filename})")
