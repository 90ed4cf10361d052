"""Text columns on disk: one Arrow file a column, read by row.

A source of 300 languages has 600 columns and as many arrays beside them, and a process is often allowed 1,024 open
files. So none is held open to be written, and to be read only as long as there are enough (`has_spare`).
"""

from __future__ import annotations

import io
import mmap
import os
import resource
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from hbtrain.corpus.conflicts import Int64s

BUFFER_BYTES = 1 << 16  # of a column that is written
CHUNK = 4096  # rows of a record batch; a power of two, so that a row's batch is found by a shift


class ColumnWriter:
    """Writes text columns of equal length, an Arrow file each.

    A column is begun when its first value comes; it is null in the rows before.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._files: dict[str, tuple[Any, Any]] = {}
        self._buffers: dict[str, list[str | None]] = {}
        self._rows = 0

    def append(self, values: dict[str, str]) -> None:
        """Add a row; columns that `values` lacks are null in it."""
        at = self._rows % CHUNK
        for name, value in values.items():
            buffer = self._buffers.get(name)
            if buffer is None:
                buffer = self._open(name)
            buffer.extend([None] * (at - len(buffer)))
            buffer.append(value)
        self._rows += 1
        if self._rows % CHUNK == 0:
            self._flush(CHUNK)

    def close(self) -> list[str]:
        """Write what is left and return the names of the columns."""
        if self._rows % CHUNK:
            self._flush(self._rows % CHUNK)
        for sink, writer in self._files.values():
            writer.close()
            sink.close()
        return list(self._files)

    def _open(self, name: str) -> list[str | None]:
        schema = pa.schema([(name, pa.large_string())])
        sink = io.BufferedWriter(_Output(self._folder / f"{name}.arrow"), BUFFER_BYTES)
        writer = pa.ipc.new_file(sink, schema)
        for _ in range(self._rows // CHUNK):
            writer.write_batch(pa.record_batch([pa.nulls(CHUNK, pa.large_string())], schema=schema))
        self._files[name] = (sink, writer)
        self._buffers[name] = []
        return self._buffers[name]

    def _flush(self, rows: int) -> None:
        for name, (_, writer) in self._files.items():
            buffer = self._buffers[name]
            buffer.extend([None] * (rows - len(buffer)))
            writer.write_batch(pa.record_batch([pa.array(buffer, pa.large_string())], names=[name]))
            buffer.clear()


class _Output(io.RawIOBase):
    """A file that is open only while something is written to it."""

    def __init__(self, path: Path) -> None:
        self._path = path
        path.write_bytes(b"")

    def writable(self) -> bool:
        return True

    def write(self, data: Any, /) -> int:
        with self._path.open("ab", buffering=0) as file:
            return file.write(data)


def has_spare(descriptor: int) -> bool:
    """Whether fewer than half of the files are open that this process may open; `descriptor` is that of the latest.

    Numbers of descriptors are given from the lowest that is free.
    """
    return descriptor < resource.getrlimit(resource.RLIMIT_NOFILE)[0] // 2


class TextColumn:
    """A column of texts, read by row number.

    It is read with `pread`, not memory-mapped: else each text would bring sixteen pages into the process's resident
    memory; so they stay in the system's page cache only.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        file = path.open("rb", buffering=0)
        with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as mapping:
            self._rows, self._batches = _positions(mapping)
        self._file = file if has_spare(file.fileno()) else None

    def __len__(self) -> int:
        return self._rows

    def get(self, rows: npt.NDArray[Any] | list[int]) -> list[str | None]:
        """The texts in `rows` (row numbers), None where the column is null."""
        with self._opened() as file:
            return self._read(file, rows if isinstance(rows, list) else rows.tolist())

    @contextmanager
    def _opened(self) -> Iterator[int]:
        """The file's descriptor."""
        if self._file is not None:
            yield self._file.fileno()
            return
        with self._path.open("rb", buffering=0) as file:
            yield file.fileno()

    def _read(self, file: int, rows: list[int]) -> list[str | None]:
        shift, mask, batches = CHUNK.bit_length() - 1, CHUNK - 1, self._batches
        texts: list[str | None] = []
        for row in rows:
            offsets, data, valid = batches[row >> shift]
            place = row & mask
            if valid is not None and not valid[place >> 3] >> (place & 7) & 1:
                texts.append(None)
                continue
            start, end = _SPAN.unpack(os.pread(file, 16, offsets + 8 * place))
            # Where all texts of a batch are empty, Arrow's buffer of texts lies nowhere in the file.
            texts.append(os.pread(file, end - start, data + start).decode() if end > start else "")
        return texts


class TextTable:
    """The texts of one side of a source in one language, by the number of the query or passage."""

    def __init__(self, folder: Path, side: str, language: str) -> None:
        """Open the column `<side>.<language>.arrow`; `place.<side>.<language>.npy` says in which of its rows the text
        of each number is (-1: nowhere). Without that file, it is the row of that number.
        """
        self._column = TextColumn(folder / f"{side}.{language}.arrow")
        self._places = LanguageArray.load(folder, f"place.{side}.{language}")

    def get(self, numbers: Int64s | list[int]) -> list[str | None]:
        """The text of each number, None where it has none in this language."""
        if self._places is None:
            return self._column.get(numbers)
        rows = self._places[numbers]
        if len(rows) and rows.min() < 0:
            found = iter(self._column.get(rows[rows >= 0]))
            return [next(found) if row >= 0 else None for row in rows.tolist()]
        return self._column.get(rows)

    def has(self, numbers: Int64s) -> npt.NDArray[np.bool_]:
        """bool [n]: whether each number has a text in this language."""
        return np.ones(len(numbers), bool) if self._places is None else np.asarray(self._places[numbers] >= 0)

    def every_text(self) -> Iterator[str]:
        for start in range(0, len(self._column), CHUNK):
            for text in self._column.get(list(range(start, min(start + CHUNK, len(self._column))))):
                if text is not None:
                    yield text


class LanguageArray:
    """An array of one language, memory-mapped: always, or from look-up to look-up (a mapping holds its file open)."""

    def __init__(self, path: Path) -> None:
        self._path = path
        with path.open("rb") as file:
            spare = has_spare(file.fileno())
        self._array = np.load(path, mmap_mode="r") if spare else None

    @classmethod
    def load(cls, folder: Path, name: str) -> LanguageArray | None:
        """The array `<name>.npy` of a source's folder; None if there is no such file."""
        path = folder / f"{name}.npy"
        return cls(path) if path.exists() else None

    def __getitem__(self, at: Int64s | list[int]) -> npt.NDArray[Any]:
        array = np.load(self._path, mmap_mode="r") if self._array is None else self._array
        return np.asarray(array[at])


def load_array(folder: Path, name: str) -> Any:
    """The array `<name>.npy` of a source's folder, memory-mapped; None if there is no such file."""
    path = folder / f"{name}.npy"
    return np.load(path, mmap_mode="r") if path.exists() else None


_SPAN = struct.Struct("<qq")


def _positions(mapping: mmap.mmap) -> tuple[int, list[tuple[int, int, bytes | None]]]:
    """The number of rows of an Arrow file, and for each record batch the bytes of the file at which its offsets and its
    texts begin, with the bitmap of the rows that are not null (None: all are).
    """
    whole = pa.py_buffer(mapping)
    chunks = pa.ipc.open_file(whole).read_all().column(0).chunks
    batches = []
    for chunk in chunks:
        valid, offsets, data = chunk.buffers()
        batches.append(
            (
                offsets.address - whole.address,
                0 if data is None else data.address - whole.address,
                valid.to_pybytes() if chunk.null_count else None,
            )
        )
    return sum(map(len, chunks)), batches
