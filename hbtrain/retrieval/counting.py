"""Counting the candidates that rank ahead of the relevant ones, and collecting the best, tile by tile.

The order of the candidates is not needed, only how many score higher than a relevant one, and how many the same. For a
query with many relevant candidates, the scores of a block are sorted while they lie in the CPU's cache, and the
relevant candidates' scores are looked up among them; for one or two it is faster to compare them with every score.

Shapes: P (query, relevant candidate) pairs, Q queries, T rows of a tile, R queries in it (the other rows are filled
up), B candidates of a block, M of them in one language, S the most relevant candidates of a query of the tile,
D dimensions, H and K entries of a list.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from threading import local
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import numpy.typing as npt

from hbtrain.retrieval.scores import TILE_CANDIDATES, TILE_QUERIES, Floats, tile_of, tile_scores
from hbtrain.retrieval.top import Top, absorb

if TYPE_CHECKING:
    from torch import Tensor


Int64s = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Pairs:
    """The relevant candidates of Q queries, as pairs; all arrays int64 [P]."""

    queries: int
    """Q. Some queries may be in no pair."""
    query: Int64s  # numbers of the queries, ascending
    candidate: Int64s  # places of the candidates in the whole pool, each once for a query
    language: Int64s  # language codes of the candidates

    @classmethod
    def of(cls, relevant: Sequence[Int64s], languages: Int64s) -> Pairs:
        """Make the pairs from the places of each query's relevant candidates and the language codes of the pool."""
        query = np.repeat(np.arange(len(relevant)), [len(r) for r in relevant])
        candidate = np.concatenate([np.zeros(0, np.int64), *relevant]).astype(np.int64)
        return cls(len(relevant), query, candidate, languages[candidate])

    def span(self, start: int, stop: int) -> slice:
        """The pairs of the queries [start, stop)."""
        low, high = np.searchsorted(self.query, (start, stop)).tolist()
        return slice(low, high)


COMPARED = 2  # where no query of a tile has more relevant candidates, they are compared with every score


@dataclass(frozen=True)
class Segment:
    """Candidates of one language: places [start, stop) of the pool."""

    language: int
    start: int
    stop: int

    def within(self, start: int, stop: int) -> slice:
        """The part of the segment within the places [start, stop), counted from `start`; may be empty."""
        low = max(self.start, start)
        return slice(low - start, max(low, min(self.stop, stop)) - start)


class Targets(NamedTuple):
    """The p relevant candidates of a tile's queries, and how many candidates were found ahead of each."""

    pair: Int64s  # [p] their numbers among all pairs
    row: Int64s  # [p] the query's row in the tile
    nth: Int64s  # [p] 0 for a query's first relevant candidate, 1 for the next; the column in the arrays below
    score: Floats  # [R, S] scores; a query with fewer than S relevant candidates leaves the last columns unused
    place: Int64s  # [R, S] places in the pool
    language: Int64s  # [R, S] language codes
    in_language: Int64s  # [R, S] candidates of that language ahead
    in_pool: Int64s  # [R, S] candidates of all languages ahead
    equal_in_language: Int64s  # [R, S] candidates of that language with the same score, itself included
    equal_in_pool: Int64s  # [R, S] the same in all languages


class Counter:
    """Counts and lists of the best for a shard of the candidates; several threads may score different queries at once.

    Args:
        pairs: of the queries and their relevant candidates, which may be in any shard.
        scores_P: scores of the pairs.
        languages: language codes [N] of the shard's candidates, grouped.
        first: place of the shard's first candidate in the pool.
        columns: the most candidates of a block, a multiple of TILE_CANDIDATES.
        depth: length of the lists of the best; 0: no lists.

    Raises:
        ValueError: the candidates are not grouped by language.
    """

    def __init__(
        self, pairs: Pairs, scores_P: Floats, languages: npt.ArrayLike, first: int, columns: int, depth: int
    ) -> None:
        self._pairs = pairs
        self._scores_P = scores_P
        self._segments = segments_of(languages, first)
        self._columns = columns
        self._depth = depth
        self._own = local()
        self.in_language = np.zeros(len(pairs.query), np.int64)
        """[P] candidates in the relevant candidate's language that rank ahead of it."""
        self.in_pool = np.zeros(len(pairs.query), np.int64)
        """[P] candidates in any language that rank ahead of it."""
        self.equal_in_language = np.zeros(len(pairs.query), np.int64)
        """[P] candidates in the relevant candidate's language with the same score, itself included."""
        self.equal_in_pool = np.zeros(len(pairs.query), np.int64)
        """[P] the same in any language."""
        self.top: dict[int, Top] = {}
        """{language code: the best candidates [Q, K] in that language}."""
        for segment in self._segments if depth else []:
            shape = pairs.queries, min(depth, segment.stop - segment.start)
            self.top[segment.language] = Top(np.empty(shape, np.float32), np.empty(shape, np.int64))

    def score(self, start: int, q_RD: Floats, first: int, p_BD: Floats) -> None:
        """Score a tile of queries, the first of which is number `start`, against a block of candidates, the first of
        which is at place `first` in the pool. A query's blocks must come in the order of the pool."""
        scores_TB = self._scratch()
        q_TD = tile_of(q_RD, TILE_QUERIES)
        for c in range(0, len(p_BD), TILE_CANDIDATES):
            p_TD = tile_of(p_BD[c : c + TILE_CANDIDATES], TILE_CANDIDATES)
            tile_scores(q_TD, p_TD, scores_TB[:, c : c + TILE_CANDIDATES])
        targets = targets_of(self._pairs, self._scores_P, start, len(q_RD))
        for segment in self._segments:
            here = segment.within(first, first + len(p_BD))
            if here.start < here.stop:
                scores_RM = scores_TB[: len(q_RD), here]
                if len(targets.pair):
                    _count(targets, scores_RM.numpy(), first + here.start, segment.language)
                if self._depth:
                    self._update_best(start, scores_RM, first + here.start, segment)
        for name in ("in_language", "in_pool", "equal_in_language", "equal_in_pool"):
            getattr(self, name)[targets.pair] += getattr(targets, name)[targets.row, targets.nth]

    def _scratch(self) -> Tensor:
        """[T, B] for the scores, one for each thread; new memory for every tile would cost a tenth of the time."""
        import torch

        if not hasattr(self._own, "scores_TB"):
            self._own.scores_TB = torch.empty(TILE_QUERIES, self._columns)
        scores_TB: Tensor = self._own.scores_TB
        return scores_TB

    def _update_best(self, start: int, scores_RM: Tensor, first: int, segment: Segment) -> None:
        """Merge a language's next candidates in the pool, from place `first`, into the lists of the queries."""
        import torch

        top = self.top[segment.language]
        rows = slice(start, start + len(scores_RM))
        held = min(first - segment.start, self._depth)
        scores_RH = torch.from_numpy(top.scores[rows, :held])
        places_RH = torch.from_numpy(top.places[rows, :held])
        scores_RK, places_RK = absorb(scores_RH, places_RH, scores_RM, first, self._depth)
        top.scores[rows, : scores_RK.shape[1]] = scores_RK.numpy()
        top.places[rows, : places_RK.shape[1]] = places_RK.numpy()


def targets_of(pairs: Pairs, scores_P: Floats, start: int, rows: int) -> Targets:
    """The relevant candidates of `rows` queries from number `start`, of which nothing has been counted yet."""
    span = pairs.span(start, start + rows)
    row = pairs.query[span] - start
    nth = np.arange(len(row)) - np.searchsorted(row, row)
    shape = rows, int(nth.max(initial=-1)) + 1
    targets = Targets(
        pair=np.arange(span.start, span.stop),
        row=row,
        nth=nth,
        score=np.zeros(shape, np.float32),
        place=np.full(shape, -1),
        language=np.zeros(shape, np.int64),
        in_language=np.zeros(shape, np.int64),
        in_pool=np.zeros(shape, np.int64),
        equal_in_language=np.zeros(shape, np.int64),
        equal_in_pool=np.zeros(shape, np.int64),
    )
    targets.score[row, nth] = scores_P[span]
    targets.place[row, nth] = pairs.candidate[span]
    targets.language[row, nth] = pairs.language[span]
    return targets


def _count(targets: Targets, scores_RM: Floats, first: int, language: int) -> None:
    """Count the candidates of one language, from place `first` in the pool, that rank ahead of the targets, and those
    that score the same."""
    stop = first + scores_RM.shape[1]
    higher_RS, equal_RS = higher_and_equal(scores_RM, targets.score)
    place_RS = targets.place
    ahead_RS = higher_RS + np.where(place_RS >= stop, equal_RS, 0)
    inside_RS = (place_RS >= first) & (place_RS < stop)
    for row, s in np.argwhere(inside_RS & (equal_RS > 1)).tolist():  # seldom: others than the candidate itself
        earlier = scores_RM[row, : place_RS[row, s] - first]
        ahead_RS[row, s] += np.count_nonzero(earlier == targets.score[row, s])
    own_RS = targets.language == language
    targets.in_pool[:] += ahead_RS
    targets.in_language[:] += np.where(own_RS, ahead_RS, 0)
    targets.equal_in_pool[:] += equal_RS
    targets.equal_in_language[:] += np.where(own_RS, equal_RS, 0)


def higher_and_equal(scores_RM: Floats, target_RS: Floats) -> tuple[Int64s, Int64s]:
    """[R, S] how many scores of a row are higher than each of its targets, and how many are equal."""
    import torch

    if target_RS.shape[1] <= COMPARED:
        higher = [_true_per_row(scores_RM > target_R1) for target_R1 in target_RS.T[:, :, None]]
        equal = [_true_per_row(scores_RM == target_R1) for target_R1 in target_RS.T[:, :, None]]
        return np.stack(higher, axis=1), np.stack(equal, axis=1)
    sorted_RM = torch.from_numpy(np.sort(scores_RM, axis=1))
    targets = torch.from_numpy(target_RS)
    not_higher_RS = torch.searchsorted(sorted_RM, targets, right=True).numpy()
    lower_RS = torch.searchsorted(sorted_RM, targets).numpy()
    return scores_RM.shape[1] - not_higher_RS, not_higher_RS - lower_RS


def _true_per_row(mask: npt.NDArray[np.bool_]) -> Int64s:
    # Counting bits is three times as fast as summing booleans.
    counts: Int64s = np.bitwise_count(np.packbits(mask, axis=1)).sum(axis=1, dtype=np.int64)
    return counts


def segments_of(languages: npt.ArrayLike, first: int) -> list[Segment]:
    """The segments of a shard, one for each language."""
    codes = np.asarray(languages, np.int64)
    starts = np.flatnonzero(np.diff(codes, prepend=codes[:1] - 1))
    if len(np.unique(codes[starts])) != len(starts):
        raise ValueError("candidates must be grouped by language: a language code comes back after another")
    bounds = [*starts.tolist(), len(codes)]
    return [Segment(int(codes[start]), first + start, first + stop) for start, stop in pairwise(bounds)]
