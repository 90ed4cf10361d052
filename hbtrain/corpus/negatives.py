"""Hard negatives of a source on disk: for each language a dense text column, and where each row's part of it starts.

A row's negatives are texts like its passage that do not answer its query, each in some languages. They are kept by
language, in the order of rows and, within a row, of its list; a negative that lacks a language is not in that column.

Files of a language: `negative.LANG.arrow` (texts), `negative_starts.LANG.npy` (int64 [rows + 1]: row r has the places
[starts[r], starts[r + 1])), `negative_ids.LANG.npy` (int64, one a text).

Shapes: B rows asked for, M texts found for them.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from hbtrain.corpus.columns import CHUNK, ColumnWriter, TextColumn
from hbtrain.corpus.conflicts import Int64s

BLOCK = 1 << 20
"""Numbers handled at one time while a source is built."""


def digest_number(text: str) -> int:
    """63 bits of a digest: equal texts give equal numbers; two of 40 million meet with a chance of 1 in 10,000."""
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "big") >> 1


class Negatives:
    """The negatives of a built source, memory-mapped."""

    def __init__(self, folder: Path, languages: Iterable[str]) -> None:
        """`languages`: those that some negative has."""
        self._starts = {x: np.load(folder / f"negative_starts.{x}.npy", mmap_mode="r") for x in languages}
        self._ids = {x: np.load(folder / f"negative_ids.{x}.npy", mmap_mode="r") for x in self._starts}
        self._folder = folder
        self._columns: dict[str, TextColumn] = {}

    def counts(self, rows: Int64s, languages: Sequence[str]) -> Int64s:
        """int64 [B]: negatives of each row in its language."""
        return self._spans(rows, languages)[1]

    def texts(self, rows: Int64s, languages: Sequence[str], limit: int, turn: int) -> list[str]:
        """The chosen texts, [M]; see `Source.negatives`."""
        places, owners = self._chosen(rows, languages, limit, turn)
        found: list[str | None] = [None] * len(places)
        for language, at in _by_language(languages, owners):
            for i, text in zip(at.tolist(), self._column(language).get(places[at]), strict=True):
                found[i] = text
        return [text for text in found if text is not None]

    def ids(self, rows: Int64s, languages: Sequence[str], limit: int, turn: int) -> Int64s:
        """int64 [M]: identities of the chosen texts; see `Source.negative_ids`."""
        places, owners = self._chosen(rows, languages, limit, turn)
        found = np.zeros(len(places), np.int64)
        for language, at in _by_language(languages, owners):
            found[at] = self._ids[language][places[at]]
        return found

    def _spans(self, rows: Int64s, languages: Sequence[str]) -> tuple[Int64s, Int64s]:
        """(first place int64 [B], count int64 [B]) of each row in its language's column."""
        first, count = np.zeros(len(rows), np.int64), np.zeros(len(rows), np.int64)
        for language, at in _by_language(languages, np.arange(len(rows), dtype=np.int64)):
            if language in self._starts:
                starts = self._starts[language]
                first[at] = starts[rows[at]]
                count[at] = starts[rows[at] + 1] - first[at]
        return first, count

    def _chosen(self, rows: Int64s, languages: Sequence[str], limit: int, turn: int) -> tuple[Int64s, Int64s]:
        """(place in the column int64 [M], which of the B rows it is for int64 [M])."""
        first, count = self._spans(rows, languages)
        taken = np.minimum(count, limit)
        owners = np.repeat(np.arange(len(rows), dtype=np.int64), taken)
        nth = np.arange(len(owners), dtype=np.int64) - np.repeat(np.cumsum(taken) - taken, taken)
        return first[owners] + (turn * limit + nth) % count[owners], owners

    def _column(self, language: str) -> TextColumn:
        if language not in self._columns:
            self._columns[language] = TextColumn(self._folder / f"negative.{language}.arrow")
        return self._columns[language]


def _by_language(languages: Sequence[str], owners: Int64s) -> Iterator[tuple[str, Int64s]]:
    """(language, the places in `owners` whose owner asks for it), for every language that is asked for."""
    codes = {language: code for code, language in enumerate(dict.fromkeys(languages))}
    code = np.fromiter(map(codes.__getitem__, languages), np.int64, len(languages))[owners]
    for language, wanted in codes.items():
        at = np.flatnonzero(code == wanted)
        if len(at):
            yield language, at


class NegativesWriter:
    """Streams the negatives of one row after the other to disk; memory does not grow with their number."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._parts: dict[str, _Part] = {}

    def append(self, row: int, negatives: Iterable[dict[str, str]]) -> None:
        """Add the negatives of `row`; rows ascend, those without any may be left out."""
        for negative in negatives:
            for language, text in negative.items():
                if language not in self._parts:
                    self._parts[language] = _Part(self._folder, language)
                self._parts[language].append(row, text)

    def close(self, passage_columns: Iterable[Path], passage_id_of: Callable[[Int64s], Int64s], rows: int) -> list[str]:
        """Finish the files, once the source's passages are written.

        A text that is a passage of the source, in whatever language, gets that passage's id (of the first row, where
        the text stands under several ids); another gets a number below zero made of its digest.

        Args:
            passage_columns: text columns of all passages, `rows` long.
            passage_id_of: int64 [n] row numbers to passage ids, at or above zero.
            rows: of the source.

        Returns:
            the languages that some negative has, sorted.
        """
        for part in self._parts.values():
            part.close()
        if self._parts:
            digests = _distinct(part.digests for part in self._parts.values())
            ids = -1 - digests
            first_row = _first_rows(digests, map(TextColumn, passage_columns), rows)
            known = first_row < rows
            ids[known] = passage_id_of(first_row[known])
            for part in self._parts.values():
                part.save(digests, ids, rows)
        return sorted(self._parts)


class _Part:
    """One language: its texts, and as raw numbers the row and the digest of each."""

    def __init__(self, folder: Path, language: str) -> None:
        self._folder = folder
        self._language = language
        self._name = f"negative.{language}"
        self._writer = ColumnWriter(folder)
        self._raw = {what: (folder / f"{self._name}.{what}").open("wb") for what in ("rows", "digests")}

    def append(self, row: int, text: str) -> None:
        self._writer.append({self._name: text})
        self._raw["rows"].write(row.to_bytes(8, "little"))
        self._raw["digests"].write(digest_number(text).to_bytes(8, "little"))

    def close(self) -> None:
        self._writer.close()
        for stream in self._raw.values():
            stream.close()

    @property
    def digests(self) -> Any:
        """int64, one a text, memory-mapped."""
        return self._numbers("digests")

    def save(self, digests: Int64s, ids: Int64s, rows: int) -> None:
        """Write starts and ids; `ids` are those of the sorted `digests`."""
        own, owners = self.digests, self._numbers("rows")
        saved = self._array("negative_ids", len(own))
        for at in range(0, len(own), BLOCK):
            saved[at : at + BLOCK] = ids[np.searchsorted(digests, own[at : at + BLOCK])]
        starts = self._array("negative_starts", rows + 1)
        for at in range(0, rows + 1, BLOCK):
            starts[at : at + BLOCK] = np.searchsorted(owners, np.arange(at, min(at + BLOCK, rows + 1)))
        for stream in self._raw.values():
            Path(stream.name).unlink()

    def _numbers(self, what: str) -> Any:
        return np.memmap(self._raw[what].name, "<i8", "r")

    def _array(self, name: str, length: int) -> Any:
        path = self._folder / f"{name}.{self._language}.npy"
        return np.lib.format.open_memmap(path, "w+", np.int64, (length,))


def _distinct(parts: Iterable[Int64s]) -> Int64s:
    """The numbers of all parts, sorted, each once."""
    found = np.zeros(0, np.int64)
    for part in parts:
        for at in range(0, len(part), 8 * BLOCK):
            found = np.union1d(found, part[at : at + 8 * BLOCK])
    return found


def _first_rows(digests: Int64s, passages: Iterable[TextColumn], rows: int) -> Int64s:
    """int64, one for each of the sorted `digests`: the first row with a passage of it; `rows` where there is none."""
    first_row = np.full(len(digests), rows, np.int64)
    for column in passages:
        for start in range(0, rows, CHUNK):
            texts = column.get(list(range(start, min(start + CHUNK, rows))))
            # An absent text gets -1, which is nobody's digest.
            wanted = np.array([-1 if text is None else digest_number(text) for text in texts], np.int64)
            place = np.minimum(np.searchsorted(digests, wanted), len(digests) - 1)
            found = np.flatnonzero(digests[place] == wanted)
            np.minimum.at(first_row, place[found], start + found)
    return first_row
