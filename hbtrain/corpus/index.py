"""What the batch plan knows of a source: how many rows, in which languages, which of them conflict. No text."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt

from hbtrain.corpus.conflicts import Int64s, SizeClass

Bools = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class SourceIndex:
    """The rows of a source without their texts.

    Rows fall into few availability patterns: which languages the query has, which the passage has. The arrays may be
    memory-mapped; what is None costs nothing, however many rows there are.
    """

    name: str
    rows: int
    languages: tuple[str, ...]
    query_patterns: Bools
    """bool [P, L]: pattern p has the query in language l."""
    passage_patterns: Bools
    """bool [P, L]: pattern p has the passage in language l."""
    pattern_counts: Int64s
    """int64 [P]: rows of each pattern."""
    pattern_of_row: npt.NDArray[np.unsignedinteger] | None = None
    """[rows]; None: every row has pattern 0."""
    query_ids: Int64s | None = None
    """int64 [rows]; None: all differ."""
    passage_ids: Int64s | None = None
    """int64 [rows]; None: all differ."""
    order: Int64s | None = None
    """int64 [rows], as `conflicts.cluster_order` lays it out; None: the order of the rows."""
    classes: tuple[SizeClass, ...] | None = None
    """Cluster sizes along `order`; None: no two rows conflict."""
    sentences: bool = False
    """Parallel sentences: query and passage of a row are the same text, so its only pairs are cross-lingual."""

    @classmethod
    def complete(cls, name: str, rows: int, languages: tuple[str, ...]) -> SourceIndex:
        """An index of rows that have every language on both sides and never conflict."""
        full = np.ones((1, len(languages)), bool)
        return cls(name, rows, languages, full, full, np.array([rows], np.int64))

    @cached_property
    def size_classes(self) -> tuple[SizeClass, ...]:
        """Cluster sizes along the order of the rows."""
        return (SizeClass(1, self.rows, 0),) if self.classes is None else self.classes

    def query_ids_of(self, rows: Int64s) -> Int64s:
        """int64 [B]: equal numbers mark the same query (in whatever language)."""
        return rows if self.query_ids is None else np.asarray(self.query_ids[rows], np.int64)

    def passage_ids_of(self, rows: Int64s) -> Int64s:
        """int64 [B]: equal numbers mark the same passage (in whatever language)."""
        return rows if self.passage_ids is None else np.asarray(self.passage_ids[rows], np.int64)

    def patterns_of(self, rows: Int64s) -> Int64s:
        """int64 [B]: the availability pattern of each row."""
        if self.pattern_of_row is None:
            return np.zeros(len(rows), np.int64)
        return self.pattern_of_row[rows].astype(np.int64)
