"""What a shard of the candidates adds to exact ranks and to lists of the best, for a shard of the queries.

The rank of a candidate is 1 + the candidates that score higher + those of equal score that stand earlier in the pool:
a count over candidates, to which every shard of them adds its part. So a shard needs to know the scores of the relevant
candidates, wherever these stand, and nothing else of the other shards:

1. `relevant_scores` of each shard, `joined_scores` of what they give;
2. `partial_counts` of each shard with those;
3. `merge` over the shards of candidates, `join` over the shards of queries.

The outcome is the same to the last bit for any shards, blocks and threads (see `scores`).

Shapes: Q queries, N candidates of the shard, D dimensions, P (query, relevant candidate) pairs, T rows of a query tile
(or those filled), C columns of a candidate tile (or those filled), B of a block of them, n pairs of a chunk.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from threading import local
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import numpy.typing as npt

from hbtrain.errors import ModelError
from hbtrain.retrieval.scores import (
    TILE_CANDIDATES,
    TILE_QUERIES,
    Floats,
    forget_pages,
    rows_of,
    scoring_threads,
    tile_of,
    tile_scores,
)
from hbtrain.retrieval.top import Int64s, Top, absorb, merge_top

if TYPE_CHECKING:
    from torch import Tensor


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


@dataclass(frozen=True)
class Blocks:
    """What is in memory at one time; results do not depend on it."""

    queries: int = 4096
    candidates: int = 4096
    """Both are rounded up to whole tiles; together (`queries` + `candidates`) x D x 4 bytes, and for each thread the
    scores of 512 queries with `candidates`."""
    threads: int | None = None
    """None: as many as torch uses."""

    def __post_init__(self) -> None:
        if min(self.queries, self.candidates, self.threads or 1) < 1:
            raise ValueError(f"{self}: all must be positive")


class Partial(NamedTuple):
    """What some candidates add, for Q queries with P pairs."""

    in_language: Int64s
    """[P] candidates of the relevant one's language that stand ahead of it."""
    in_pool: Int64s
    """[P] candidates that stand ahead of it."""
    top: dict[int, Top]
    """By language code the best candidates [Q, K] of each language; empty unless asked for."""


def relevant_scores(q_QD: Floats, p_ND: Floats, pairs: Pairs, first: int = 0, threads: int | None = None) -> Floats:
    """[P] scores of the pairs whose candidates are in the shard, NaN for the others.

    Args:
        q_QD: queries.
        p_ND: the shard's candidates.
        pairs: of these queries with any candidates.
        first: place of the shard's first candidate in the pool.
        threads: None: as many as torch uses.

    Raises:
        ModelError: a score is NaN or infinite.
    """
    import torch

    scores_P = np.full(len(pairs.query), np.nan, np.float32)
    place_P = pairs.candidate - first
    inside = np.flatnonzero((place_P >= 0) & (place_P < len(p_ND)))
    # Queries of the same candidates side by side, such as a question's translations: fewer candidates to a tile.
    asking, lowest = np.unique(pairs.query[inside], return_index=True)
    asking = asking[np.argsort(place_P[inside][lowest], kind="stable")]
    row_Q = np.full(pairs.queries, len(asking))
    row_Q[asking] = np.arange(len(asking))
    by_row = inside[np.argsort(row_Q[pairs.query[inside]], kind="stable")]
    rows = row_Q[pairs.query[by_row]]

    def work(start: int) -> None:
        low, high = np.searchsorted(rows, (start, start + TILE_QUERIES))
        pair, row = by_row[low:high], rows[low:high] - start
        wanted, column = np.unique(place_P[pair], return_inverse=True)
        q_RD = np.asarray(q_QD[asking[start : start + TILE_QUERIES]], np.float32)
        q_TD = tile_of(q_RD, TILE_QUERIES)
        scores_TC = torch.empty(TILE_QUERIES, TILE_CANDIDATES)
        for c in range(0, len(wanted), TILE_CANDIDATES):
            p_RD = np.asarray(p_ND[wanted[c : c + TILE_CANDIDATES]], np.float32)
            tile_scores(q_TD, tile_of(p_RD, TILE_CANDIDATES), scores_TC)
            here = (column >= c) & (column < c + TILE_CANDIDATES)
            scores_P[pair[here]] = scores_TC.numpy()[row[here], column[here] - c]
        if not np.isfinite(scores_P[pair]).all():
            raise ModelError("a score is NaN or infinite: an embedding holds NaN or infinity, or is too long for fp32")

    with scoring_threads(threads) as pool:
        list(pool.map(work, range(0, len(asking), TILE_QUERIES)))
    forget_pages(p_ND)
    return scores_P


def joined_scores(parts: Sequence[Floats]) -> Floats:
    """[P] the scores of all pairs, from those that the shards of the candidates gave.

    Raises:
        ValueError: a relevant candidate is in no shard.
    """
    scores_P = parts[0].copy()
    for part in parts[1:]:
        np.copyto(scores_P, part, where=~np.isnan(part))
    if np.isnan(scores_P).any():
        raise ValueError(f"{np.isnan(scores_P).sum()} relevant candidates are in no shard")
    return scores_P


def partial_counts(
    q_QD: Floats,
    p_ND: Floats,
    languages: Int64s,
    pairs: Pairs,
    scores_P: Floats,
    first: int = 0,
    depth: int = 0,
    blocks: Blocks | None = None,
) -> Partial:
    """What the candidates of a shard add to the ranks of all pairs, and the best of them.

    Args:
        q_QD: queries; like the candidates anything of numpy's form, memory-mapped for one.
        p_ND: the shard's candidates, finite (see `scores.check_finite`).
        languages: their language codes [N], equal ones together.
        pairs: of these queries with candidates of any shard.
        scores_P: scores of the pairs, of all shards.
        first: place of the shard's first candidate in the pool.
        depth: how many of the best candidates of each language to list; 0: none.
        blocks: what is in memory at one time.
    """
    blocks = blocks or Blocks()
    rows = _whole_tiles(blocks.queries, TILE_QUERIES)
    columns = _whole_tiles(min(blocks.candidates, len(p_ND)), TILE_CANDIDATES)
    work = _Work(pairs, scores_P, _segments(languages, first), columns, depth)
    with scoring_threads(blocks.threads) as pool:
        for q_start in range(0, len(q_QD), rows):
            q_RD = rows_of(q_QD, q_start, q_start + rows)
            for p_start in range(0, len(p_ND), columns):
                p_BD = rows_of(p_ND, p_start, p_start + columns)
                jobs = [
                    pool.submit(work.score, q_start + r, q_RD[r : r + TILE_QUERIES], first + p_start, p_BD)
                    for r in range(0, len(q_RD), TILE_QUERIES)
                ]
                for job in jobs:
                    job.result()
                forget_pages(p_ND)
    return Partial(work.in_language, work.in_pool, work.top)


def merge(parts: Sequence[Partial], depth: int = 0) -> Partial:
    """The sum over shards of the candidates, which are given in the order of the pool."""
    tops: dict[int, list[Top]] = {}
    for part in parts:
        for code, top in part.top.items():
            tops.setdefault(code, []).append(top)
    return Partial(
        np.sum([part.in_language for part in parts], axis=0),
        np.sum([part.in_pool for part in parts], axis=0),
        {code: merge_top(of_code, depth) for code, of_code in tops.items()},
    )


def join(parts: Sequence[Partial]) -> Partial:
    """The shards of the queries together, which are given in the order of the queries."""
    return Partial(
        np.concatenate([part.in_language for part in parts]),
        np.concatenate([part.in_pool for part in parts]),
        {
            code: Top(
                np.concatenate([part.top[code].scores for part in parts]),
                np.concatenate([part.top[code].places for part in parts]),
            )
            for code in parts[0].top
        },
    )


@dataclass(frozen=True)
class _Segment:
    """Candidates of one language: places [start, stop) of the pool."""

    language: int
    start: int
    stop: int

    def within(self, start: int, stop: int) -> slice:
        """Its part of the places [start, stop), counted from `start`; empty if it has none."""
        low = max(self.start, start)
        return slice(low - start, max(low, min(self.stop, stop)) - start)


class _Chunk(NamedTuple):
    """n pairs of a query tile, at most one a query, and the candidates found ahead of theirs so far."""

    pair_n: Int64s
    row_n: Int64s | None
    """Rows of the tile; None: all, in order."""
    candidate_n: Int64s
    lowest: int
    highest: int
    target_n: Floats
    language_n: Int64s
    languages: frozenset[int]
    in_language_n: Int64s
    in_pool_n: Int64s


class _Work:
    """The counts and lists of a shard; tiles of different queries may be worked on at one time."""

    def __init__(self, pairs: Pairs, scores_P: Floats, segments: list[_Segment], columns: int, depth: int) -> None:
        """Args: `columns`, the most candidates of a block, in whole tiles."""
        self._pairs = pairs
        self._scores_P = scores_P
        self._segments = segments
        self._depth = depth
        self._columns = columns
        self._own = local()
        self.in_language = np.zeros(len(pairs.query), np.int64)
        self.in_pool = np.zeros(len(pairs.query), np.int64)
        self.top: dict[int, Top] = {}
        for segment in segments if depth else []:
            width, queries = min(depth, segment.stop - segment.start), pairs.queries
            self.top[segment.language] = Top(
                np.empty((queries, width), np.float32), np.empty((queries, width), np.int64)
            )

    def score(self, start: int, q_RD: Floats, first: int, p_BD: Floats) -> None:
        """The queries from `start`, at most a tile, against the candidates from `first`; blocks come in their order."""
        chunks = self._chunks(start, len(q_RD))
        q_TD = tile_of(q_RD, TILE_QUERIES)
        scores_TB = self._scratch()
        for c in range(0, len(p_BD), TILE_CANDIDATES):
            p_CD = p_BD[c : c + TILE_CANDIDATES]
            tile_scores(q_TD, tile_of(p_CD, TILE_CANDIDATES), scores_TB[:, c : c + TILE_CANDIDATES])
            scores_TC = scores_TB[: len(q_RD), c : c + len(p_CD)].numpy()
            for chunk in chunks:
                self._count(chunk, scores_TC, first + c)
        for chunk in chunks:
            self.in_language[chunk.pair_n] += chunk.in_language_n
            self.in_pool[chunk.pair_n] += chunk.in_pool_n
        for segment in self._segments if self._depth else []:
            here = segment.within(first, first + len(p_BD))
            if here.start < here.stop:
                self._keep_best(start, scores_TB[: len(q_RD), here], first + here.start, segment)

    def _scratch(self) -> Tensor:
        """[T, B] the thread's own; new memory for every tile would cost a tenth of the time."""
        import torch

        if not hasattr(self._own, "scores_TB"):
            self._own.scores_TB = torch.empty(TILE_QUERIES, self._columns)
        scores_TB: Tensor = self._own.scores_TB
        return scores_TB

    def _chunks(self, start: int, rows: int) -> list[_Chunk]:
        """The pairs of a query tile, such that where all queries have equally many, each chunk has all the rows."""
        span = self._pairs.span(start, start + rows)
        row = self._pairs.query[span] - start
        nth = np.arange(len(row)) - np.searchsorted(row, row)
        order = np.lexsort((row, nth))
        chunks = []
        for low in range(0, len(order), rows):
            chosen = order[low : low + rows]
            pair = span.start + chosen
            candidate, language = self._pairs.candidate[pair], self._pairs.language[pair]
            chunks.append(
                _Chunk(
                    pair_n=pair,
                    row_n=None if np.array_equal(row[chosen], np.arange(rows)) else row[chosen],
                    candidate_n=candidate,
                    lowest=int(candidate.min()),
                    highest=int(candidate.max()),
                    target_n=self._scores_P[pair],
                    language_n=language,
                    languages=frozenset(language.tolist()),
                    in_language_n=np.zeros(len(pair), np.int64),
                    in_pool_n=np.zeros(len(pair), np.int64),
                )
            )
        return chunks

    def _count(self, chunk: _Chunk, scores_TC: Floats, first: int) -> None:
        """Add what is ahead of the chunk's candidates among those from `first`."""
        scores_nC = scores_TC if chunk.row_n is None else scores_TC[chunk.row_n]
        target_n1 = chunk.target_n[:, None]
        stop = first + scores_nC.shape[1]
        if chunk.lowest >= stop:
            ahead_nC = scores_nC >= target_n1
        else:
            ahead_nC = scores_nC > target_n1
            if chunk.highest >= first:
                earlier_nC = np.arange(first, stop) < chunk.candidate_n[:, None]
                ahead_nC |= (scores_nC == target_n1) & earlier_nC
        chunk.in_pool_n[:] += _true_per_row(ahead_nC)
        for segment in self._segments:
            if segment.language in chunk.languages and segment.start < stop and segment.stop > first:
                own_n = chunk.language_n == segment.language
                chunk.in_language_n[own_n] += _true_per_row(ahead_nC[:, segment.within(first, stop)])[own_n]

    def _keep_best(self, start: int, scores_RM: Tensor, first: int, segment: _Segment) -> None:
        """Those of one language that stand next in the pool, from `first`, into the lists of the queries."""
        import torch

        top = self.top[segment.language]
        rows = slice(start, start + len(scores_RM))
        held = min(first - segment.start, self._depth)
        scores_RH = torch.from_numpy(top.scores[rows, :held])
        places_RH = torch.from_numpy(top.places[rows, :held])
        scores_RK, places_RK = absorb(scores_RH, places_RH, scores_RM, first, self._depth)
        top.scores[rows, : scores_RK.shape[1]] = scores_RK.numpy()
        top.places[rows, : places_RK.shape[1]] = places_RK.numpy()


def _true_per_row(mask: npt.NDArray[np.bool_]) -> Int64s:
    # Counting bits is three times as fast as summing booleans.
    counts: Int64s = np.bitwise_count(np.packbits(mask, axis=1)).sum(axis=1, dtype=np.int64)
    return counts


def _segments(languages: npt.ArrayLike, first: int) -> list[_Segment]:
    """The languages of a shard in the order of the pool.

    Raises:
        ValueError: a language comes back after another.
    """
    codes = np.asarray(languages, np.int64)
    starts = np.flatnonzero(np.diff(codes, prepend=codes[:1] - 1))
    if len(np.unique(codes[starts])) != len(starts):
        raise ValueError("candidates must be grouped by language: a language code comes back after another")
    bounds = [*starts.tolist(), len(codes)]
    return [_Segment(int(codes[start]), first + start, first + stop) for start, stop in pairwise(bounds)]


def _whole_tiles(size: int, tile: int) -> int:
    return -(-size // tile) * tile
