"""(query, relevant candidate) pairs. Shapes: P pairs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Int64s = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Pairs:
    """The relevant candidates of Q queries, as pairs; all arrays int64 [P]."""

    queries: int
    """Q; some may have no pair."""
    query: Int64s
    """Ascending."""
    candidate: Int64s
    """Places in the whole pool; distinct for a query."""
    language: Int64s
    """Codes of the candidates' languages."""

    @classmethod
    def of(cls, relevant: Sequence[Int64s], languages: Int64s) -> Pairs:
        """From each query's relevant candidates and the language codes of the whole pool."""
        query = np.repeat(np.arange(len(relevant)), [len(r) for r in relevant])
        candidate = np.concatenate([np.zeros(0, np.int64), *relevant]).astype(np.int64)
        return cls(len(relevant), query, candidate, languages[candidate])

    def span(self, start: int, stop: int) -> slice:
        """The pairs of the queries [start, stop)."""
        low, high = np.searchsorted(self.query, (start, stop)).tolist()
        return slice(low, high)

    def of_queries(self, start: int, stop: int) -> Pairs:
        """Those of a shard of the queries, which are counted from 0 again."""
        span = self.span(start, stop)
        return Pairs(stop - start, self.query[span] - start, self.candidate[span], self.language[span])
