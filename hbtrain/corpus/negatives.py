"""Hard negatives of a source: texts like a row's passage that do not answer its query.

They are stored as numbers of passages, so that no text is stored twice; a row has a negative in the languages of that
passage.

Files:
    `negatives.npy`: passage numbers, row after row.
    `negative_starts.npy`: int [rows + 1]; row r has the entries [starts[r], starts[r + 1]) of `negatives.npy`. Absent
        where all rows have equally many.
    `passage_identity.npy`: for each passage number, the number by which equal passages are recognised. Absent where
        every passage is its own.
    `passage_identity.<language>.npy`: the same for its text in one language, where texts decide what is equal.
    `negative_scores.npy`: float64, for each entry of `negatives.npy` the score that the source gives it, not a number
        where it gives none. Absent where it gives none at all.

Shapes: B rows asked for, N negatives of theirs, M of these chosen.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Sequence
from functools import cache
from pathlib import Path

import numpy as np
import numpy.typing as npt

from hbtrain.corpus.columns import LanguageArray, TextTable, load_array
from hbtrain.corpus.conflicts import Int64s


def digest_number(text: str) -> int:
    """63 bits of a text's digest. Among 40 million different texts, the chance that any two share a number is 1 in
    10,000.
    """
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "big") >> 1


class Negatives:
    """The negatives of a source, memory-mapped."""

    def __init__(self, folder: Path, per_row: int | None, table: Callable[[str], TextTable | None]) -> None:
        """Open the files of a source; `table` gives the passages in a language.

        `per_row` is how many negatives every row has; None if not all have equally many.
        """
        self._numbers = load_array(folder, "negatives")
        self._starts = load_array(folder, "negative_starts")
        self._scores = load_array(folder, "negative_scores")
        self._identity = load_array(folder, "passage_identity")
        self._text_identity = cache(lambda language: LanguageArray.load(folder, f"passage_identity.{language}"))
        self._per_row = per_row
        self._table = table

    @property
    def has_any(self) -> bool:
        return self._numbers is not None

    def counts(self, rows: Int64s, languages: Sequence[str]) -> Int64s:
        """int64 [B]: how many negatives each row has in its language."""
        _, owners = self._available(rows, languages)
        return np.bincount(owners, minlength=len(rows))

    def texts(self, rows: Int64s, languages: Sequence[str], limit: int, turn: int) -> list[str]:
        """The chosen texts, [M]; see `Source.negatives`."""
        numbers, owners = self.chosen(rows, languages, limit, turn)
        found: list[str | None] = [None] * len(numbers)
        for language, at in _by_language(languages, owners):
            table = self._table(language)
            if table is not None:
                for place, text in zip(at.tolist(), table.get(numbers[at]), strict=True):
                    found[place] = text
        return [text for text in found if text is not None]

    def ids(self, rows: Int64s, languages: Sequence[str], limit: int, turn: int) -> Int64s:
        """int64 [M]: identities of the chosen texts; see `Source.negative_ids`."""
        numbers, owners = self.chosen(rows, languages, limit, turn)
        found = numbers if self._identity is None else np.asarray(self._identity[numbers], np.int64)
        for language, at in _by_language(languages, owners):
            of_text = self._text_identity(language)
            if of_text is not None:
                found[at] = of_text[numbers[at]]
        return found

    def scores(self, rows: Int64s, languages: Sequence[str], limit: int, turn: int) -> npt.NDArray[np.float64]:
        """float64 [M]: the scores of the chosen texts; see `Source.negative_scores`."""
        entries, _ = self._chosen_entries(rows, languages, limit, turn)
        return np.full(len(entries), np.nan) if self._scores is None else np.asarray(self._scores[entries])

    def of_rows(self, rows: Int64s) -> tuple[Int64s, Int64s]:
        """The passage numbers of the rows' negatives, in whatever languages, row after row (int64 [N]); and for each,
        the index of its row in `rows` (int64 [N]).
        """
        entries, owners = self._entries(rows)
        return self._numbers_of(entries), owners

    def scores_of_rows(self, rows: Int64s) -> npt.NDArray[np.float64]:
        """float64 [N]: the scores of the negatives that `of_rows` gives."""
        entries, _ = self._entries(rows)
        return np.full(len(entries), np.nan) if self._scores is None else np.asarray(self._scores[entries])

    def chosen(self, rows: Int64s, languages: Sequence[str], limit: int, turn: int) -> tuple[Int64s, Int64s]:
        """The passage numbers of the chosen texts (int64 [M]); and for each, the index of its row in `rows`."""
        entries, owners = self._chosen_entries(rows, languages, limit, turn)
        return self._numbers_of(entries), owners

    def _entries(self, rows: Int64s) -> tuple[Int64s, Int64s]:
        """The entries of `negatives.npy` that are the rows', row after row; and for each, the index of its row."""
        if self._numbers is None:
            return np.zeros(0, np.int64), np.zeros(0, np.int64)
        if self._starts is None:
            count = np.full(len(rows), self._per_row or 0, np.int64)
            first = rows * (self._per_row or 0)
        else:
            first = self._starts[rows].astype(np.int64)
            count = self._starts[rows + 1].astype(np.int64) - first
        owners, nth = _counted_out(count)
        return first[owners] + nth, owners

    def _numbers_of(self, entries: Int64s) -> Int64s:
        return entries if self._numbers is None else np.asarray(self._numbers[entries], np.int64)

    def _available(self, rows: Int64s, languages: Sequence[str]) -> tuple[Int64s, Int64s]:
        """As `_entries`, without those whose passage lacks the row's language."""
        entries, owners = self._entries(rows)
        numbers = self._numbers_of(entries)
        there = np.zeros(len(entries), bool)
        for language, at in _by_language(languages, owners):
            table = self._table(language)
            if table is not None:
                there[at] = table.has(numbers[at])
        return entries[there], owners[there]

    def _chosen_entries(self, rows: Int64s, languages: Sequence[str], limit: int, turn: int) -> tuple[Int64s, Int64s]:
        entries, owners = self._available(rows, languages)
        count = np.bincount(owners, minlength=len(rows))
        first = np.cumsum(count) - count
        chosen, nth = _counted_out(np.minimum(count, limit))
        return entries[first[chosen] + (turn * limit + nth) % count[chosen]], chosen


def _counted_out(count: Int64s) -> tuple[Int64s, Int64s]:
    """Each i as often as `count[i]` says, and how often it stood there before: [2, 0, 1] gives [0, 0, 2], [0, 1, 0]."""
    owners = np.repeat(np.arange(len(count), dtype=np.int64), count)
    return owners, np.arange(len(owners), dtype=np.int64) - np.repeat(np.cumsum(count) - count, count)


def _by_language(languages: Sequence[str], owners: Int64s) -> Iterator[tuple[str, Int64s]]:
    """(language, int64 indices into `owners` of those whose row has it), for each of the rows' languages."""
    codes = {language: code for code, language in enumerate(dict.fromkeys(languages))}
    code = np.fromiter(map(codes.__getitem__, languages), np.int64, len(languages))[owners]
    for language, wanted in codes.items():
        at = np.flatnonzero(code == wanted)
        if len(at):
            yield language, at
