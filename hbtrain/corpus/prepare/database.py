"""DuckDB over the files of a preparation: sorts and joins more numbers than fit in memory.

Stages pass numbers on as Parquet files of int64 columns. DuckDB reads and joins them within `MEMORY`, spills what does
not fit to a folder beside those of the stages, and streams results in blocks. So the memory of a preparation does not
grow with the number of rows, except for the few bytes for each query or passage that `Components` needs.
"""

from __future__ import annotations

import errno
import os
import re
import shutil
from array import array
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from itertools import pairwise
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from hbtrain.corpus.conflicts import Int64s

MEMORY = "400MiB"  # duckDB's limit; with Python, Arrow and one block, a preparation stays well below 1 GiB
THREADS = 2  # each thread needs memory of its own
BLOCK = 1 << 16  # rows that are in memory at one time


class Session:
    """Queries over Parquet files, one at a time, whose results are int64 numbers."""

    def __init__(self, connection: Any) -> None:
        self._connection = connection

    def table(self, name: str, query: str) -> None:
        """Store the result of a query as a table of this session."""
        self._connection.execute(f"CREATE TEMP TABLE {name} AS {query}")

    def rows(self, query: str) -> list[tuple[int, ...]]:
        """The whole result of a query that has few rows."""
        return list(self._connection.execute(query).fetchall())

    def blocks(self, query: str) -> Iterator[list[Int64s]]:
        """The columns of the result (int64 [rows] each), up to `BLOCK` rows at one time."""
        for batch in self._connection.sql(query).to_arrow_reader(BLOCK):
            yield _numbers(batch)


class Database:
    """DuckDB for one preparation, a context manager; its spill folder is deleted at the end."""

    def __init__(self, folder: Path) -> None:
        import duckdb

        self._spill = folder / "spill"
        shutil.rmtree(self._spill, ignore_errors=True)
        settings: dict[str, str | bool | int | float | list[str]] = {
            "memory_limit": MEMORY,
            "threads": THREADS,
            "temp_directory": str(self._spill),
            "preserve_insertion_order": False,  # where order matters, queries say so
            "autoinstall_known_extensions": False,
            "autoload_known_extensions": False,
        }
        self._connection = duckdb.connect(":memory:", config=settings)

    def __enter__(self) -> Database:
        return self

    def __exit__(self, *_: object) -> None:
        self._connection.close()
        shutil.rmtree(self._spill, ignore_errors=True)

    @contextmanager
    def session(self) -> Iterator[Session]:
        """A session with tables of its own.

        Raises:
            OSError: DuckDB cannot read a file, or cannot write to its spill folder.
        """
        import duckdb

        connection = self._connection.cursor()
        try:
            yield Session(connection)
        except (duckdb.IOException, duckdb.OutOfMemoryException) as error:
            raise OSError(errno.EIO, str(error).partition("\n")[0]) from error
        finally:
            connection.close()


def parquet(paths: Path | Sequence[Path]) -> str:
    """The rows of Parquet files, as an SQL table."""
    names = [str(path).replace("'", "''") for path in ([paths] if isinstance(paths, Path) else paths)]
    literal = [re.sub(r"([*?\[])", r"[\1]", name) for name in names]  # else they would be patterns of names
    return "read_parquet(['" + "', '".join(literal) + "'], hive_partitioning = false)"


class NumberWriter:
    """Appends rows of int64 numbers to a Parquet file."""

    def __init__(self, path: Path, columns: Sequence[str]) -> None:
        self._schema = pa.schema([(name, pa.int64()) for name in columns])
        self._writer = pq.ParquetWriter(
            path, self._schema, compression="zstd", compression_level=1, use_dictionary=False
        )
        self._buffer = array("q")

    def append(self, numbers: Iterable[int]) -> None:
        self._buffer.extend(numbers)
        if len(self._buffer) >= BLOCK * len(self._schema):
            self._flush()

    def extend(self, *columns: Int64s) -> None:
        """Add rows, given as columns (int64 [n] each)."""
        self._flush()
        if len(columns[0]):
            self._writer.write_batch(pa.record_batch(list(columns), schema=self._schema))

    def close(self) -> None:
        self._flush()
        self._writer.close()

    def __enter__(self) -> NumberWriter:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _flush(self) -> None:
        if self._buffer:
            rows = np.frombuffer(self._buffer, np.int64).reshape(-1, len(self._schema))
            self._writer.write_batch(pa.record_batch([column.copy() for column in rows.T], schema=self._schema))
            del rows
            self._buffer = array("q")


def count(path: Path) -> int:
    return int(pq.read_metadata(path).num_rows)


def blocks(path: Path, *columns: str) -> Iterator[list[Int64s]]:
    """Columns of a Parquet file (all, if none is named) in the order of its rows, up to `BLOCK` rows at one time."""
    with pq.ParquetFile(path) as file:
        for batch in file.iter_batches(BLOCK, columns=list(columns) or None):
            yield _numbers(batch)


def numbers_below(length: int) -> Iterator[Int64s]:
    """The numbers from 0 to `length` - 1, up to `BLOCK` at one time."""
    for start in range(0, length, BLOCK):
        yield np.arange(start, min(start + BLOCK, length), dtype=np.int64)


def by_code(blocks: Iterable[list[Int64s]]) -> Iterator[tuple[int, list[Int64s]]]:
    """Split blocks so that the first column, by which rows must be sorted, has one value in each: (value, columns)."""
    for columns in blocks:
        cuts = [0, *(np.flatnonzero(np.diff(columns[0])) + 1).tolist(), len(columns[0])]
        for start, stop in pairwise(cuts):
            if stop > start:
                yield int(columns[0][start]), [column[start:stop] for column in columns]


class ArrayWriter:
    """Writes numbers one after the other to a `.npy` file of one dimension, which is open only while it is written to.

    Attributes:
        length: numbers written.
        counts_up: whether the i-th number was i, for all of them.
    """

    def __init__(self, path: Path, bound: int | None) -> None:
        """`bound`: all numbers are below it; they take four bytes each if it is below 2**31, else eight. None: they are
        float64."""
        self.length = 0
        self.counts_up = True
        self._path = path
        self._dtype = np.dtype("<f8" if bound is None else "<i4" if bound < 2**31 else "<i8")
        with path.open("wb") as stream:
            self._write_header(stream)

    def extend(self, numbers: npt.NDArray[Any]) -> None:
        if self.counts_up:
            expected = np.arange(self.length, self.length + len(numbers), dtype=np.int64)
            self.counts_up = np.array_equal(numbers, expected)
        self.length += len(numbers)
        with self._path.open("ab") as stream:
            stream.write(numbers.astype(self._dtype).tobytes())

    def fill(self, number: int, stop: int) -> None:
        """Add the same number until the array has `stop` entries."""
        while self.length < stop:
            self.extend(np.full(min(BLOCK, stop - self.length), number, np.int64))

    def close(self, wanted: bool = True) -> None:
        """Finish the file; delete it if it is not `wanted` after all."""
        if not wanted:
            self._path.unlink()
            return
        with self._path.open("rb+") as stream:
            self._write_header(stream)  # as long as before: numpy leaves room for the digits of the length

    def _write_header(self, stream: BinaryIO) -> None:
        header = {"descr": self._dtype.str, "fortran_order": False, "shape": (self.length,)}
        np.lib.format.write_array_header_1_0(stream, header)


def linked_file(path: Path, target: Path) -> None:
    """Make `target` a hard link to a file, or a copy where the file system has no hard links."""
    try:
        os.link(path, target)
    except OSError:
        shutil.copyfile(path, target)


def _numbers(batch: pa.RecordBatch) -> list[Int64s]:
    return [column.to_numpy(zero_copy_only=False).astype(np.int64, copy=False) for column in batch.columns]
