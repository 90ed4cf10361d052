"""Corpora that do not fit into memory: their documents are converted once into memory-mapped columns in the cache.

The conversion takes 8 bytes of memory for each document.
"""

from __future__ import annotations

import hashlib
import json
from array import array
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple, overload

import numpy as np
import numpy.typing as npt

from hbtrain.corpus.cache import built, content_digest, read_manifest
from hbtrain.corpus.columns import CHUNK, ColumnWriter, TextColumn
from hbtrain.corpus.negatives import digest_number
from hbtrain.errors import DataError
from hbtrain.formats.inputs import REFUSED
from hbtrain.formats.judged import read_documents

FORMAT = 1
"""Version of the layout of a converted corpus; folders of another version are not used."""


class StoredTexts(Sequence[str]):
    """A column of texts on disk, read by row. It is pickled as its path, for other processes."""

    def __init__(self, path: Path, rows: int) -> None:
        self._path = path
        self._rows = rows
        self._column = TextColumn(path)

    def __len__(self) -> int:
        return self._rows

    @overload
    def __getitem__(self, place: int) -> str: ...
    @overload
    def __getitem__(self, place: slice) -> list[str]: ...
    def __getitem__(self, place: int | slice) -> str | list[str]:
        rows = range(self._rows)[place]
        texts = [text or "" for text in self._column.get([rows] if isinstance(rows, int) else list(rows))]
        return texts[0] if isinstance(rows, int) else texts

    def __iter__(self) -> Iterator[str]:
        for start in range(0, self._rows, CHUNK):
            yield from self[start : start + CHUNK]

    def __reduce__(self) -> tuple[Any, ...]:
        return StoredTexts, (self._path, self._rows)


class StoredIds(StoredTexts):
    """The ids of N documents on disk, which are also found by id."""

    def __init__(self, folder: Path, rows: int) -> None:
        super().__init__(folder / "id.arrow", rows)
        # digests of the ids, ascending, and the rows of the documents in the same order
        self._digests = np.load(folder / "digests.npy", mmap_mode="r")
        self._digest_rows = np.load(folder / "rows.npy", mmap_mode="r")

    def find(self, ids: Sequence[str]) -> npt.NDArray[np.int64]:
        """The row of each document, by id; -1 where there is no such document."""
        digests = np.array([digest_number(x) for x in ids], np.int64)
        at = np.minimum(np.searchsorted(self._digests, digests), len(self._digests) - 1)
        rows = np.where(self._digests[at] == digests, self._digest_rows[at], -1).astype(np.int64)
        hits = np.flatnonzero(rows >= 0)
        there = zip(hits.tolist(), self._column.get(rows[hits]), strict=True)
        rows[[number for number, identifier in there if identifier != ids[number]]] = -1
        return rows

    def __reduce__(self) -> tuple[Any, ...]:
        return StoredIds, (self._path.parent, self._rows)


class Documents(NamedTuple):
    """N documents on disk."""

    ids: StoredIds
    texts: StoredTexts


def open_documents(files: Sequence[str], cache: Path) -> Documents:
    """The documents of JSON-lines files, plain or gzip, in their order; converted unless the cache has their content.

    Raises:
        DataError: a file is missing, empty or broken; a document has no id or no text; an id occurs twice.
        StorageError: the cache cannot be written.
    """
    contents = [content_digest(Path(file), cache) for file in files]
    name = hashlib.sha256("\n".join(contents).encode()).hexdigest()
    folder = built(cache / "documents" / f"{name}-v{FORMAT}", partial(_convert, files))
    rows = int(str(read_manifest(folder)["rows"]))
    return Documents(StoredIds(folder, rows), StoredTexts(folder / "text.arrow", rows))


def _convert(files: Sequence[str], folder: Path) -> None:
    writer, numbers = ColumnWriter(folder), array("q")
    for document in read_documents(files, REFUSED):
        writer.append({"id": document.id, "text": document.text})
        numbers.append(digest_number(document.id))
    writer.close()
    if not numbers:
        raise DataError(f"{files[0]} holds no documents")
    digests = np.frombuffer(numbers, np.int64)
    rows = np.argsort(digests, kind="stable")
    twice = np.flatnonzero(np.diff(digests[rows]) == 0)
    if len(twice):
        repeated = TextColumn(folder / "id.arrow").get([int(rows[twice[0]])])[0]
        raise DataError(
            f"{Path(files[0]).parent}: {len(twice)} documents have an id that another has, such as {repeated}; ids "
            "must be unique in a corpus"
        )
    np.save(folder / "digests.npy", digests[rows])
    np.save(folder / "rows.npy", rows)
    (folder / "manifest.json").write_text(json.dumps({"rows": len(numbers)}), encoding="utf-8")
