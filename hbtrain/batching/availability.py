"""Which pairs of languages a source offers: counts for drawing sources, and pairs for drawing languages."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property

import numpy as np
import numpy.typing as npt

from hbtrain.batching.stream import Stream
from hbtrain.corpus.conflicts import Int64s, cluster_order
from hbtrain.corpus.index import SourceIndex

Bools = npt.NDArray[np.bool_]


class PairTable:
    """For each availability pattern, the ordered (query, passage) languages that its rows offer."""

    def __init__(self, allowed: Bools) -> None:
        """`allowed`: bool [P, L, L], pattern p offers a query in language x with a passage in language y."""
        self.pairs_per_pattern: Int64s = allowed.sum((1, 2))
        self._first = np.concatenate([[0], np.cumsum(self.pairs_per_pattern)[:-1]])
        _, self._query, self._passage = np.nonzero(allowed)

    def draw(self, patterns: Int64s, uniforms: npt.NDArray[np.float64]) -> tuple[Int64s, Int64s]:
        """Language codes (int64 [B], int64 [B]) of one pair for each row, uniform over those that the row offers."""
        chosen = self._first[patterns] + (uniforms * self.pairs_per_pattern[patterns]).astype(np.int64)
        return self._query[chosen], self._passage[chosen]


class Availability:
    """A source seen through the training languages.

    Attributes:
        source: the index.
        languages: the training languages; codes are places in this tuple.
    """

    def __init__(self, source: SourceIndex, languages: Sequence[str]) -> None:
        self.source = source
        self.languages = tuple(languages)
        self._query = self._columns(source.query_patterns)
        self._passage = self._columns(source.passage_patterns)

    @cached_property
    def cross(self) -> PairTable:
        """Pairs (x, y), x != y."""
        both = self._query[:, :, None] & self._passage[:, None, :]
        return PairTable(both & ~np.eye(len(self.languages), dtype=bool))

    @cached_property
    def same(self) -> PairTable:
        """Pairs (x, x)."""
        both = self._query[:, :, None] & self._passage[:, None, :]
        return PairTable(both & np.eye(len(self.languages), dtype=bool))

    def mono_patterns(self, language: int) -> Bools:
        """bool [P]: patterns whose rows have query and passage in `language`."""
        return self.pair_patterns(language, language)

    def pair_patterns(self, query_language: int, passage_language: int) -> Bools:
        """bool [P]: patterns whose rows have the query in one and the passage in the other language."""
        return np.asarray(self._query[:, query_language] & self._passage[:, passage_language])

    def count(self, patterns: Bools) -> int:
        """Rows of these patterns."""
        return int(self.source.pattern_counts[patterns].sum())

    def stream(self, key: str, patterns: Bools) -> Stream:
        """The stream of the rows of these patterns."""
        source = self.source
        if patterns[source.pattern_counts > 0].all():
            return Stream(key, source.rows, source.order, source.size_classes)
        everything = np.arange(source.rows, dtype=np.int64) if source.order is None else np.asarray(source.order)
        chosen = patterns[source.patterns_of(everything)]
        rows = everything[chosen]
        # Clusters of the source stand together along its order; the stream keeps what is left of each.
        order, classes = cluster_order(rows, self._cluster_of_place[chosen], source.passage_ids_of(rows))
        return Stream(key, len(order), order, classes)

    @property
    def _cluster_of_place(self) -> Int64s:
        parts, first = [], 0
        for one in self.source.size_classes:
            parts.append(np.repeat(np.arange(first, first + one.clusters, dtype=np.int64), one.size))
            first += one.clusters
        return np.concatenate(parts)

    def _columns(self, patterns: Bools) -> Bools:
        """bool [P, training languages] from bool [P, the source's languages]."""
        place = {language: i for i, language in enumerate(self.source.languages)}
        out = np.zeros((len(patterns), len(self.languages)), bool)
        for code, language in enumerate(self.languages):
            if language in place:
                out[:, code] = patterns[:, place[language]]
        return out
