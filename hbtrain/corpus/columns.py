"""Text columns on disk: one Arrow file a column, memory-mapped, read by row without copying the rest."""

from __future__ import annotations

import mmap
from pathlib import Path
from typing import Any

import numpy.typing as npt
import pyarrow as pa

CHUNK = 4096
"""Rows a record batch; a power of two, so that a row's batch is found by a shift."""


FORGET_EVERY = 256
"""Texts read from a column before its pages are given back; each may hold 64 KiB."""


class ColumnWriter:
    """Writes any number of text columns of equal length; a column may appear late, its earlier rows are null."""

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
    """A memory-mapped column. What was read does not stay in the process's resident memory."""

    def __init__(self, path: Path) -> None:
        with path.open("rb") as stream:
            self._mapping = mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ)
        self._chunks = pa.ipc.open_file(pa.py_buffer(self._mapping)).read_all().column(0).chunks
        self._read = 0

    def __len__(self) -> int:
        return sum(map(len, self._chunks))

    def get(self, rows: npt.NDArray[Any] | list[int]) -> list[str | None]:
        """The texts of `rows` (row numbers), None where the column has none."""
        shift, mask, chunks = CHUNK.bit_length() - 1, CHUNK - 1, self._chunks
        numbers = rows if isinstance(rows, list) else rows.tolist()
        # Access by scalar: Arrow's own take copies or searches all chunks, some twenty times slower for a batch.
        texts = [chunks[row >> shift][row & mask].as_py() for row in numbers]
        self._read += len(texts)
        if self._read >= FORGET_EVERY:
            # Each text drags the pages around it into resident memory, in the end the whole file. They stay in the
            # system's page cache, so that reading them again costs little.
            self._mapping.madvise(mmap.MADV_DONTNEED)
            self._read = 0
        return texts
