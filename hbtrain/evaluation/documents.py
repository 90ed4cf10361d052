"""Corpora that do not fit into memory: their documents are converted once into memory-mapped columns in the cache.

The conversion takes 8 bytes of memory for each document.
"""

from __future__ import annotations

import hashlib
import json
from array import array
from collections.abc import Container, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple, overload

import numpy as np
import numpy.typing as npt

from hbtrain.corpus.cache import built, content_digest, read_manifest
from hbtrain.corpus.columns import CHUNK, ColumnWriter, TextColumn
from hbtrain.corpus.negatives import digest_number
from hbtrain.errors import DataError, shown
from hbtrain.formats.inputs import REFUSED
from hbtrain.formats.judged import read_documents

FORMAT = 1  # version of the layout of a converted corpus; folders of another version are not used


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
    repeated: int = 0  # how many documents of the files are left out, as they had come before, word for word


def open_documents(files: Sequence[str], cache: Path) -> Documents:
    """The documents of JSON-lines files, plain or gzip, in their order; converted unless the cache has their content.
    One that comes again with the same text is left out.

    Raises:
        DataError: a file is missing, empty or broken; a document has no id or no text; two texts have one id.
        StorageError: the cache cannot be written.
    """
    contents = [content_digest(Path(file), cache) for file in files]
    name = hashlib.sha256("\n".join(contents).encode()).hexdigest()
    folder = built(cache / "documents" / f"{name}-v{FORMAT}", partial(_convert, files))
    manifest = read_manifest(folder)
    rows, repeated = int(str(manifest["rows"])), int(str(manifest.get("repeated", 0)))
    return Documents(StoredIds(folder, rows), StoredTexts(folder / "text.arrow", rows), repeated)


def _convert(files: Sequence[str], folder: Path) -> None:
    digests = _write_columns(files, folder, frozenset())
    repeated = _repeated(files, folder, digests)
    if repeated:
        digests = _write_columns(files, folder, repeated)
    rows = np.argsort(digests, kind="stable")
    np.save(folder / "digests.npy", digests[rows])
    np.save(folder / "rows.npy", rows)
    content = {"rows": len(digests), "repeated": len(repeated)}
    (folder / "manifest.json").write_text(json.dumps(content), encoding="utf-8")


def _write_columns(files: Sequence[str], folder: Path, without: Container[int]) -> npt.NDArray[np.int64]:
    """Write the columns of all documents but those numbers; returns the digests of their ids."""
    writer, digests = ColumnWriter(folder), array("q")
    for number, document in enumerate(read_documents(files, REFUSED)):
        if number not in without:
            writer.append({"id": document.id, "text": document.text})
            digests.append(digest_number(document.id))
    writer.close()
    if not digests:
        raise DataError(f"{files[0]} holds no documents")
    return np.frombuffer(digests, np.int64)


def _repeated(files: Sequence[str], folder: Path, digests: npt.NDArray[np.int64]) -> set[int]:
    """The numbers of documents that came before, by the columns of all documents.

    Raises:
        DataError: a document has the id of an earlier one, and another text.
    """
    texts, order = TextColumn(folder / "text.arrow"), np.argsort(digests, kind="stable")
    same = np.flatnonzero(np.diff(digests[order]) == 0)
    pairs = zip(order[same].tolist(), order[same + 1].tolist(), strict=True)
    found = set()
    for pair in pairs:
        one, other = texts.get(list(pair))
        if one != other:
            (_, first), (_, second) = [x for x in enumerate(read_documents(files, REFUSED)) if x[0] in pair]
            raise DataError(
                f"{second.position}: document {shown(second.id)} came before with another text, at {first.position}; "
                "ids must be unique in a corpus: leave one of the two out"
            )
        found.add(pair[1])
    return found
