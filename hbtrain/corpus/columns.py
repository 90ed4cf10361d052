"""Text columns on disk: one Arrow file a column, read by row."""

from __future__ import annotations

import mmap
import os
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from hbtrain.corpus.conflicts import Int64s

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
        sink = pa.OSFile(str(self._folder / f"{name}.arrow"), "wb")
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


class TextColumn:
    """A column of texts, read by row number.

    It is read with `pread`, not memory-mapped: else each text would bring sixteen pages into the process's resident
    memory; so they stay in the system's page cache only.
    """

    def __init__(self, path: Path) -> None:
        self._file = path.open("rb", buffering=0)
        with mmap.mmap(self._file.fileno(), 0, access=mmap.ACCESS_READ) as mapping:
            self._rows, self._batches = _positions(mapping)

    def __len__(self) -> int:
        return self._rows

    def get(self, rows: npt.NDArray[Any] | list[int]) -> list[str | None]:
        """The texts in `rows` (row numbers), None where the column is null."""
        shift, mask, batches, file = CHUNK.bit_length() - 1, CHUNK - 1, self._batches, self._file.fileno()
        texts: list[str | None] = []
        for row in rows if isinstance(rows, list) else rows.tolist():
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
        self._places: npt.NDArray[Any] | None = load_array(folder, f"place.{side}.{language}")

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
