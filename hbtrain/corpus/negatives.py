"""Hard negatives of a source: numbers of passages, so that no text is stored again.

A row's negatives are texts like its passage that do not answer its query. A negative counts for the languages that its
passage has.

Files: `negatives.npy` (passage numbers, row after row), `negative_starts.npy` (int [rows + 1]: row r has the places
[starts[r], starts[r + 1]); absent where each row has equally many), `passage_identity.npy` (absent where every number
is its own identity) and `passage_identity.<language>.npy` (the same of its text in a language, where that counts).

Shapes: B rows asked for, N negatives of theirs, M of these chosen.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from hbtrain.corpus.columns import TextTable, load_array
from hbtrain.corpus.conflicts import Int64s


def digest_number(text: str) -> int:
    """63 bits of a digest: equal texts give equal numbers; two of 40 million meet with a chance of 1 in 10,000."""
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "big") >> 1


class Negatives:
    """The negatives of a source, memory-mapped."""

    def __init__(self, folder: Path, per_row: int | None, table: Callable[[str], TextTable | None]) -> None:
        """`per_row`: negatives of every row, if that is one number; `table`: the passages of a language, if any."""
        self._numbers = load_array(folder, "negatives")
        self._starts = load_array(folder, "negative_starts")
        self._identity = load_array(folder, "passage_identity")
        self._identity_of_text: dict[str, Any] = {}
        self._folder = folder
        self._per_row = per_row
        self._table = table

    def counts(self, rows: Int64s, languages: Sequence[str]) -> Int64s:
        """int64 [B]: negatives of each row in its language."""
        _, owners = self._available(rows, languages)
        return np.bincount(owners, minlength=len(rows))

    def texts(self, rows: Int64s, languages: Sequence[str], limit: int, turn: int) -> list[str]:
        """The chosen texts, [M]; see `Source.negatives`."""
        numbers, owners = self._chosen(rows, languages, limit, turn)
        found: list[str | None] = [None] * len(numbers)
        for language, at in _by_language(languages, owners):
            table = self._table(language)
            if table is not None:
                for place, text in zip(at.tolist(), table.get(numbers[at]), strict=True):
                    found[place] = text
        return [text for text in found if text is not None]

    def ids(self, rows: Int64s, languages: Sequence[str], limit: int, turn: int) -> Int64s:
        """int64 [M]: identities of the chosen texts; see `Source.negative_ids`."""
        numbers, owners = self._chosen(rows, languages, limit, turn)
        found = numbers if self._identity is None else np.asarray(self._identity[numbers], np.int64)
        for language, at in _by_language(languages, owners):
            of_text = self._text_identity(language)
            if of_text is not None:
                found[at] = of_text[numbers[at]]
        return found

    def of_rows(self, rows: Int64s) -> tuple[Int64s, Int64s]:
        """(passage number int64 [N], which of the B rows it is for int64 [N]), row after row, in all languages."""
        if self._numbers is None:
            return np.zeros(0, np.int64), np.zeros(0, np.int64)
        if self._starts is None:
            count = np.full(len(rows), self._per_row or 0, np.int64)
            first = rows * (self._per_row or 0)
        else:
            first = self._starts[rows].astype(np.int64)
            count = self._starts[rows + 1].astype(np.int64) - first
        owners = np.repeat(np.arange(len(rows), dtype=np.int64), count)
        nth = np.arange(len(owners), dtype=np.int64) - np.repeat(np.cumsum(count) - count, count)
        return np.asarray(self._numbers[first[owners] + nth], np.int64), owners

    def _available(self, rows: Int64s, languages: Sequence[str]) -> tuple[Int64s, Int64s]:
        """`of_rows`, but for those whose passage lacks the row's language."""
        numbers, owners = self.of_rows(rows)
        there = np.zeros(len(numbers), bool)
        for language, at in _by_language(languages, owners):
            table = self._table(language)
            if table is not None:
                there[at] = table.has(numbers[at])
        return numbers[there], owners[there]

    def _chosen(self, rows: Int64s, languages: Sequence[str], limit: int, turn: int) -> tuple[Int64s, Int64s]:
        numbers, owners = self._available(rows, languages)
        count = np.bincount(owners, minlength=len(rows))
        first = np.cumsum(count) - count
        taken = np.minimum(count, limit)
        chosen = np.repeat(np.arange(len(rows), dtype=np.int64), taken)
        nth = np.arange(len(chosen), dtype=np.int64) - np.repeat(np.cumsum(taken) - taken, taken)
        return numbers[first[chosen] + (turn * limit + nth) % count[chosen]], chosen

    def _text_identity(self, language: str) -> Any:
        """The identities of passages by their texts in a language; None where there are none."""
        if language not in self._identity_of_text:
            self._identity_of_text[language] = load_array(self._folder, f"passage_identity.{language}")
        return self._identity_of_text[language]


def _by_language(languages: Sequence[str], owners: Int64s) -> Iterator[tuple[str, Int64s]]:
    """(language, the places in `owners` whose owner asks for it), for every language that is asked for."""
    codes = {language: code for code, language in enumerate(dict.fromkeys(languages))}
    code = np.fromiter(map(codes.__getitem__, languages), np.int64, len(languages))[owners]
    for language, wanted in codes.items():
        at = np.flatnonzero(code == wanted)
        if len(at):
            yield language, at
