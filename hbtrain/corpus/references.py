"""Hard negatives of a prepared source: numbers of passages, so that no text is stored again.

Files: `negatives.npy` (passage numbers, row after row), `negative_starts.npy` (int [rows + 1]: row r has the places
[starts[r], starts[r + 1]); absent where each row has equally many), `passage_identity.npy` (absent where every number
is its own identity).

Shapes: B rows asked for, N negatives of theirs, M of these chosen.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from hbtrain.corpus.build import load_array
from hbtrain.corpus.conflicts import Int64s
from hbtrain.corpus.texts import TextTable


class NegativeReferences:
    """Offers what `Negatives` does; a negative counts for a language that its passage has."""

    def __init__(self, folder: Path, per_row: int | None, table: Callable[[str], TextTable | None]) -> None:
        """`per_row`: negatives of every row, if that is one number; `table`: the passages of a language, if any."""
        self._numbers = load_array(folder, "negatives")
        self._starts = load_array(folder, "negative_starts")
        self._identity = load_array(folder, "passage_identity")
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
        asked = np.asarray(languages)[owners]
        for language in dict.fromkeys(asked.tolist()):
            at = np.flatnonzero(asked == language)
            table = self._table(language)
            if table is not None:
                for place, text in zip(at.tolist(), table.get(numbers[at]), strict=True):
                    found[place] = text
        return [text for text in found if text is not None]

    def ids(self, rows: Int64s, languages: Sequence[str], limit: int, turn: int) -> Int64s:
        """int64 [M]: identities of the chosen passages."""
        numbers, _ = self._chosen(rows, languages, limit, turn)
        return numbers if self._identity is None else np.asarray(self._identity[numbers], np.int64)

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
        asked = np.asarray(languages)[owners]
        for language in dict.fromkeys(languages):
            at = asked == language
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
