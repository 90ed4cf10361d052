"""Vectors of texts on this machine's disk, by the texts' digests: what has been embedded once is never embedded again.

A folder has two files that only grow: `vectors.bin`, float32 [n, E], and `digests.bin`, int64 [n], the digest of each
vector's text. Vectors are synced to disk before their digests are appended, and what stands behind the last whole pair
does not count; so a writer that is killed loses what it was writing, and nothing else.

Shapes: n texts in the store, m texts that are asked for, E dimensions.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from hbtrain.corpus.conflicts import Int64s
from hbtrain.corpus.negatives import digest_number
from hbtrain.errors import MAKE_ROOM, StorageError, is_full
from hbtrain.storage.files import lock_file

Floats = npt.NDArray[np.float32]

DIGESTS, VECTORS, LOCK = "digests.bin", "vectors.bin", "lock"


def digests_of(texts: Sequence[str]) -> Int64s:
    """int64 [m]: the digests of texts; different texts have different ones (see `digest_number`)."""
    return np.fromiter(map(digest_number, texts), np.int64, len(texts))


class _Run(NamedTuple):
    """A part of the index."""

    digests: Int64s  # ascending
    rows: Int64s  # of their vectors


class TextVectors:
    """A store, open for reading and writing. Several processes may write it: one text is never stored twice."""

    def __init__(self, folder: Path, dimension: int) -> None:
        """Open the store in `folder`, or begin one, of vectors of `dimension` dimensions.

        Raises:
            StorageError: the folder cannot be read or made.
        """
        self._folder, self._dimension = folder, dimension
        self._rows = 0
        self._runs: list[_Run] = []
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise self._unusable(error) from error
        self.refresh()

    def __len__(self) -> int:
        return self._rows

    def has(self, digests: Int64s) -> npt.NDArray[np.bool_]:
        """bool [m]: whether the store has these texts."""
        return self._find(digests) >= 0

    def take(self, digests: Int64s) -> Floats:
        """float32 [m, E]: the vectors of texts.

        Raises:
            StorageError: the store lacks one.
        """
        rows = self._find(digests)
        if len(rows) and rows.min() < 0:
            raise StorageError(
                f"{self._folder} lacks the vectors of {int((rows < 0).sum())} texts that it should have; delete the "
                "folder, so that they are computed again"
            )
        if not len(rows):
            return np.zeros((0, self._dimension), np.float32)
        return np.asarray(self._vectors[rows])

    def add(self, digests: Int64s, vectors: Floats) -> None:
        """Store the vectors [m, E] of texts; of those that are there already nothing changes.

        Raises:
            StorageError: the disk is full, or cannot be written.
        """
        try:
            with lock_file(self._folder / LOCK):
                self._take_in()  # another process may have written since
                _, first = np.unique(digests, return_index=True)
                new = first[~self.has(digests[first])]
                if len(new):
                    self._append(VECTORS, 4 * self._dimension, vectors[new].astype("<f4"))
                    self._append(DIGESTS, 8, digests[new].astype("<i8"))
                    self._take_in()
        except OSError as error:
            raise self._unusable(error) from error

    def refresh(self) -> None:
        """Take in what other processes have added. Raises StorageError."""
        try:
            self._take_in()
        except OSError as error:
            raise self._unusable(error) from error

    def _append(self, name: str, row_bytes: int, values: npt.NDArray[np.generic]) -> None:
        """Write behind the whole rows of a file; what a killed writer left there is overwritten."""
        descriptor = os.open(self._folder / name, os.O_RDWR | os.O_CREAT, 0o666)
        with os.fdopen(descriptor, "r+b") as file:
            file.truncate(self._rows * row_bytes)
            file.seek(self._rows * row_bytes)
            file.write(values.tobytes())
            file.flush()
            os.fsync(file.fileno())

    def _take_in(self) -> None:
        """Take in what has been added since the last time."""
        files = ((DIGESTS, 8), (VECTORS, 4 * self._dimension))
        sizes = [path.stat().st_size if (path := self._folder / name).exists() else 0 for name, _ in files]
        rows = min(size // row_bytes for size, (_, row_bytes) in zip(sizes, files, strict=True))
        if rows <= self._rows:
            return
        added = np.fromfile(self._folder / DIGESTS, "<i8", rows - self._rows, offset=8 * self._rows)
        self._index(_Run(added, np.arange(self._rows, rows)))
        shape = rows, self._dimension
        self._vectors: Floats = np.memmap(self._folder / VECTORS, np.dtype("<f4"), mode="r", shape=shape)
        self._rows = rows

    def _index(self, run: _Run) -> None:
        """Add to the index, whose parts at least halve from one to the next, so that they are few and cheap to keep."""
        while self._runs and len(self._runs[-1].rows) < 2 * len(run.rows):
            before = self._runs.pop()
            run = _Run(*(np.concatenate(both) for both in zip(before, run, strict=True)))
        order = np.argsort(run.digests, kind="stable")
        self._runs.append(_Run(run.digests[order], run.rows[order]))

    def _find(self, digests: Int64s) -> Int64s:
        """int64 [m]: the rows of the texts' vectors; -1 for those that are not there."""
        found = np.full(len(digests), -1, np.int64)
        for run in self._runs:
            at = np.minimum(np.searchsorted(run.digests, digests), len(run.digests) - 1)
            there = run.digests[at] == digests
            found[there] = run.rows[at[there]]
        return found

    def _unusable(self, error: OSError) -> StorageError:
        remedy = MAKE_ROOM if is_full(error) else "set data.cache to another folder"
        return StorageError(f"cannot read or write {self._folder}: {error.strerror or error}; {remedy}")
