"""Which pairs of languages the rows of a source offer: how many rows, to draw sources by, and the draw of languages."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property

import numpy as np
import numpy.typing as npt

from hbtrain.batching.stream import Stream
from hbtrain.corpus.conflicts import Int64s, SourceIndex, cluster_order

Bools = npt.NDArray[np.bool_]
Floats = npt.NDArray[np.float64]
Pairs = tuple[Int64s, Int64s, Int64s]  # numbers of patterns, ascending, with codes of a query's and passage's language
CELLS = 1 << 22  # cells (pattern, language, language) that are looked at at one time


class PairTable:
    """For each of P availability patterns, the ordered pairs (query language, passage language) that its rows offer."""

    def __init__(self, pairs: Pairs, patterns: int, languages: int, weights: Floats | None = None) -> None:
        """A table of `pairs`, of P = `patterns` patterns and L = `languages` languages.

        `weights` (float64 [L, L], above 0) says how probable each pair is among those of a row; None: all alike.
        """
        self._pattern, self._query, self._passage = pairs
        self.pairs_per_pattern: Int64s = np.bincount(self._pattern, minlength=patterns)
        self._first = np.concatenate([[0], np.cumsum(self.pairs_per_pattern)[:-1]])
        self._languages = languages
        self._weights = None if weights is None else weights[self._query, self._passage]
        # Of shares within a pattern: next to a large sum of weights, differences between small ones would be lost.
        self._shares = None if self._weights is None else self._weights / self.weight_per_pattern[self._pattern]
        self._cumulative = None if self._shares is None else np.cumsum(self._shares)

    @property
    def weight_per_pattern(self) -> Floats:
        """float64 [P]: the sum of the weights of a pattern's pairs; their number if all weigh the same."""
        if self._weights is None:
            return self.pairs_per_pattern.astype(np.float64)
        return np.bincount(self._pattern, self._weights, len(self.pairs_per_pattern)).astype(np.float64)

    def draw(self, patterns: Int64s, uniforms: Floats) -> tuple[Int64s, Int64s]:
        """Draw a pair of languages for each row, in proportion to the weights of those that the row offers.

        Rows are given by their patterns (int64 [B]), draws by `uniforms` (float64 [B] in [0, 1)). Returns the codes of
        the query's and of the passage's language (int64 [B] each).
        """
        first, count = self._first[patterns], self.pairs_per_pattern[patterns]
        if self._cumulative is None or self._shares is None:
            chosen = first + (uniforms * count).astype(np.int64)
        else:
            last = first + count - 1
            before = self._cumulative[first] - self._shares[first]
            chosen = np.searchsorted(self._cumulative, before + uniforms * (self._cumulative[last] - before), "right")
            chosen = np.clip(chosen, first, last)  # rounding may carry a sum of weights past a pattern's end
        return self._query[chosen], self._passage[chosen]

    def shares(self, rows_per_pattern: Int64s) -> Floats:
        """float64 [L, L], which sums to 1: how often `draw` gives each pair; rows per pattern: int64 [P]."""
        weights = np.ones(len(self._query)) if self._weights is None else self._weights
        offering = np.where(self.pairs_per_pattern > 0, rows_per_pattern, 0)
        per_pair = weights / self.weight_per_pattern[self._pattern] * offering[self._pattern] / offering.sum()
        shares = np.zeros((self._languages, self._languages))
        np.add.at(shares, (self._query, self._passage), per_pair)
        return shares


class Availability:
    """A source seen through the training languages.

    Attributes:
        source: its index.
        languages: the training languages; a language's code is its index in this tuple.
    """

    def __init__(self, source: SourceIndex, languages: Sequence[str]) -> None:
        self.source = source
        self.languages = tuple(languages)
        self._query = self._columns(source.query_patterns)
        self._passage = self._columns(source.passage_patterns)

    def pairs(self, same: bool) -> Pairs:
        """The pairs of languages that the rows of each pattern offer, in order.

        With `same`, pairs of one language with itself, else pairs of two languages. Memory is that of the pairs.
        """
        if same:
            pattern, language = np.nonzero(self._query & self._passage)
            return pattern, language, language
        apart = ~np.eye(len(self.languages), dtype=bool)
        parts, size = [], max(1, CELLS // apart.size)
        for start in range(0, len(self._query), size):
            query, passage = self._query[start : start + size], self._passage[start : start + size]
            pattern, x, y = np.nonzero(query[:, :, None] & passage[:, None, :] & apart)
            parts.append((pattern + start, x, y))
        pattern, x, y = (np.concatenate(part) for part in zip(*parts, strict=True))
        return pattern, x, y

    def pairs_per_pattern(self, same: bool) -> Int64s:
        """int64 [P]: how many of `pairs` each pattern has."""
        both = (self._query & self._passage).sum(axis=1)
        return both if same else np.asarray(self._query.sum(axis=1) * self._passage.sum(axis=1) - both)

    @cached_property
    def rows_per_pair(self) -> Int64s:
        """int64 [L, L]: how many rows have the query in the one language and the passage in the other."""
        counts = self.source.pattern_counts.astype(np.float64)  # exact below 2**53 rows, and multiplied faster
        return np.asarray((self._query.T * counts) @ self._passage.astype(np.float64)).astype(np.int64)

    def pair_patterns(self, query_language: int, passage_language: int) -> Bools:
        """bool [P]: the patterns whose rows have the query in the one language and the passage in the other."""
        return np.asarray(self._query[:, query_language] & self._passage[:, passage_language])

    def count(self, patterns: Bools) -> int:
        return int(self.source.pattern_counts[patterns].sum())

    def text_rows(self) -> tuple[Int64s, Int64s]:
        """For each language, how many rows have the query in it, and how many the passage (int64 [L] each)."""
        counts = self.source.pattern_counts
        return counts @ self._query, counts @ self._passage

    def stream(self, key: str, patterns: Bools) -> Stream:
        """The stream of the rows that have one of these patterns (bool [P])."""
        source = self.source
        if patterns[source.pattern_counts > 0].all():
            return Stream(key, source.rows, source.order, source.size_classes)
        everything = np.arange(source.rows, dtype=np.int64) if source.order is None else np.asarray(source.order)
        chosen = patterns[source.patterns_of(everything)]
        rows = everything[chosen]
        # A cluster of the source is a run of its order; the chosen rows of it are a cluster of the stream.
        order, classes = cluster_order(rows, self._clusters_along_order[chosen], source.passage_ids_of(rows))
        return Stream(key, len(order), order, classes)

    @property
    def _clusters_along_order(self) -> Int64s:
        """int64 [rows]: the cluster of each row, in the order of the source."""
        parts, first = [], 0
        for one in self.source.size_classes:
            parts.append(np.repeat(np.arange(first, first + one.clusters, dtype=np.int64), one.size))
            first += one.clusters
        return np.concatenate(parts)

    def _columns(self, patterns: Bools) -> Bools:
        """bool [P, training languages] from bool [P, the source's languages]."""
        column = {language: i for i, language in enumerate(self.source.languages)}
        out = np.zeros((len(patterns), len(self.languages)), bool)
        for code, language in enumerate(self.languages):
            if language in column:
                out[:, code] = patterns[:, column[language]]
        return out
