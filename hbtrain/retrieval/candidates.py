"""Candidates for negatives, found by the queries of a block of rows: held against the positives, merged, ranked.

Shapes: n candidates, B queries, L languages.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from hbtrain.corpus.conflicts import Int64s
from hbtrain.retrieval.scores import Floats

Bools = npt.NDArray[np.bool_]
Doubles = npt.NDArray[np.float64]


class Candidates(NamedTuple):
    """n texts of the pool, each for a row; all arrays [n]."""

    row: Int64s
    text: Int64s
    score: Floats
    too_close: Bools
    """Whether the score is too near the positive's."""

    @classmethod
    def none(cls) -> Candidates:
        """n = 0."""
        return cls(np.zeros(0, np.int64), np.zeros(0, np.int64), np.zeros(0, np.float32), np.zeros(0, bool))

    @classmethod
    def joined(cls, parts: Sequence[Candidates]) -> Candidates:
        """Those of all parts, at least one."""
        return cls(
            np.concatenate([part.row for part in parts]),
            np.concatenate([part.text for part in parts]),
            np.concatenate([part.score for part in parts]),
            np.concatenate([part.too_close for part in parts]),
        )

    def at(self, places: Int64s | Bools) -> Candidates:
        """Those at `places`, in that order."""
        return Candidates(self.row[places], self.text[places], self.score[places], self.too_close[places])

    def merged(self, identity: Int64s) -> Candidates:
        """One for each row and passage: its best text (of equal ones the first in the pool); too close if any is.

        Args:
            identity: int64 [n], which passage each text is.
        """
        if not len(self.row):
            return self
        order = np.lexsort((self.text, -self.score, identity, self.row))
        found = self.at(order)
        changes = (np.diff(found.row, prepend=-1) != 0) | (np.diff(identity[order], prepend=-1) != 0)
        first = np.flatnonzero(changes)
        return found.at(first)._replace(too_close=np.logical_or.reduceat(found.too_close, first))

    def ranked(self) -> Candidates:
        """Row by row, best first, ties in the order of the pool."""
        return self.at(np.lexsort((self.text, -self.score, self.row)))

    def ranks(self) -> Int64s:
        """int64 [n] from 0: the place of each among those of its row, where rows ascend."""
        return np.arange(len(self.row)) - np.searchsorted(self.row, self.row)


def highest_allowed(positives_BL: Doubles, margin: float, relative: bool) -> Doubles:
    """[B, L] the highest score that a candidate in each language may have.

    Args:
        positives_BL: scores of the queries' positives, NaN where there is none in a language (but one at least).
        margin: what is taken off.
        relative: as a share of the score's size.
    """
    best_B1 = np.nanmax(positives_BL, axis=1, keepdims=True)
    held_BL = np.where(np.isnan(positives_BL), best_B1, positives_BL)
    return np.asarray(held_BL - margin * (np.abs(held_BL) if relative else 1.0))
