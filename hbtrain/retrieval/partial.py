"""What a shard of the candidates adds to exact ranks and to lists of the best, for a shard of the queries.

The rank of a candidate is 1 + the candidates that score higher + those of equal score that stand earlier in the pool:
a count over candidates, to which every shard of them adds its part. So a shard needs to know the scores of the relevant
candidates, wherever these stand, and nothing else of the other shards:

1. `relevant_scores` of each shard, `joined_scores` of what they give;
2. `partial_counts` of each shard with those;
3. `merge` over the shards of candidates, `join` over the shards of queries.

The outcome is the same to the last bit for any shards, blocks and threads (see `scores`).

Shapes: Q queries, N candidates of the shard, D dimensions, P (query, relevant candidate) pairs, T rows of a query tile
(or those filled), C columns of a candidate tile, M of a piece of it that lies in one language, n pairs of a chunk.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
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
    candidates: int = 16_384
    """Both are rounded up to whole tiles; together (`queries` + `candidates`) x D x 4 bytes."""
    threads: int | None = None
    """Each takes a tile of 0.6 MiB; None: as many as torch uses."""

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


def relevant_scores(
    q_QD: Floats, p_ND: Floats, pairs: Pairs, first: int = 0, threads: int | None = None
) -> Floats:
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
    scores_P = np.full(len(pairs.query), np.nan, np.float32)

    def work(start: int) -> None:
        span = pairs.span(start, start + TILE_QUERIES)
        place = pairs.candidate[span] - first
        inside = np.flatnonzero((place >= 0) & (place < len(p_ND)))
        wanted, column = np.unique(place[inside], return_inverse=True)
        row = pairs.query[span][inside] - start
        found = np.empty(len(inside), np.float32)
        q_TD = tile_of(rows_of(q_QD, start, start + TILE_QUERIES), TILE_QUERIES)
        scores_TC = _tile()
        for low in range(0, len(wanted), TILE_CANDIDATES):
            p_RD = np.asarray(p_ND[wanted[low : low + TILE_CANDIDATES]], np.float32)
            tile_scores(q_TD, tile_of(p_RD, TILE_CANDIDATES), scores_TC)
            here = (column >= low) & (column < low + TILE_CANDIDATES)
            found[here] = scores_TC.numpy()[row[here], column[here] - low]
        if not np.isfinite(found).all():
            raise ModelError("a score is NaN or infinite: an embedding holds NaN or infinity, or is too long for fp32")
        scores_P[span.start + inside] = found

    with scoring_threads(threads) as pool:
        list(pool.map(work, range(0, len(q_QD), TILE_QUERIES)))
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
    work = _Work(pairs, scores_P, _segments(languages, first), len(q_QD), depth)
    rows = _whole_tiles(blocks.queries, TILE_QUERIES)
    columns = _whole_tiles(blocks.candidates, TILE_CANDIDATES)
    with scoring_threads(blocks.threads) as pool:
        for q_start in range(0, len(q_QD), rows):
            q_RD = rows_of(q_QD, q_start, q_start + rows)
            for p_start in range(0, len(p_ND), columns):
                p_RD = rows_of(p_ND, p_start, p_start + columns)
                tiles = [
                    _Tile(first + p_start + c, p_RD[c : c + TILE_CANDIDATES]) for c in range(0, len(p_RD), TILE_CANDIDATES)
                ]
                jobs = [
                    pool.submit(work.score, q_start + r, q_RD[r : r + TILE_QUERIES], tiles)
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

    def cut(self, start: int, stop: int) -> _Segment:
        return replace(self, start=max(self.start, start), stop=min(self.stop, stop))


class _Tile(NamedTuple):
    first: int
    p_RD: Floats
    """At most TILE_CANDIDATES."""


class _Chunk(NamedTuple):
    """n pairs of a query tile, at most one a query."""

    pair: Int64s
    row_n: Int64s | None
    """Rows of the tile; None: all, in order."""
    candidate_n1: Int64s
    lowest: int
    highest: int
    target_n1: Floats
    language_n: Int64s


class _Work:
    """The counts and lists of a shard; tiles of different queries may be worked on at one time."""

    def __init__(
        self, pairs: Pairs, scores_P: Floats, segments: list[_Segment], queries: int, depth: int
    ) -> None:
        self._pairs = pairs
        self._scores_P = scores_P
        self._segments = segments
        self._depth = depth
        self.in_language = np.zeros(len(pairs.query), np.int64)
        self.in_pool = np.zeros(len(pairs.query), np.int64)
        self.top: dict[int, Top] = {}
        for segment in segments if depth else []:
            width = min(depth, segment.stop - segment.start)
            self.top[segment.language] = Top(np.empty((queries, width), np.float32), np.empty((queries, width), np.int64))

    def score(self, start: int, q_TD: Floats, tiles: Sequence[_Tile]) -> None:
        """The queries from `start` against tiles of candidates, which come in the order of the pool."""
        chunks = self._chunks(start, len(q_TD))
        tile_TD = tile_of(q_TD, TILE_QUERIES)
        scores_TC = _tile()
        for tile in tiles:
            tile_scores(tile_TD, tile_of(tile.p_RD, TILE_CANDIDATES), scores_TC)
            stop = tile.first + len(tile.p_RD)
            for segment in self._segments:
                if segment.start < stop and segment.stop > tile.first:
                    piece = segment.cut(tile.first, stop)
                    scores_TM = scores_TC[: len(q_TD), piece.start - tile.first : piece.stop - tile.first]
                    for chunk in chunks:
                        self._count(scores_TM.numpy(), chunk, piece)
                    if self._depth:
                        self._keep_best(start, scores_TM, piece, piece.start - segment.start)

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
            candidate = self._pairs.candidate[pair]
            whole = np.array_equal(row[chosen], np.arange(rows))
            chunks.append(
                _Chunk(
                    pair,
                    None if whole else row[chosen],
                    candidate[:, None],
                    int(candidate.min()),
                    int(candidate.max()),
                    self._scores_P[pair, None],
                    self._pairs.language[pair],
                )
            )
        return chunks

    def _count(self, scores_TM: Floats, chunk: _Chunk, piece: _Segment) -> None:
        scores_nM = scores_TM if chunk.row_n is None else scores_TM[chunk.row_n]
        if chunk.lowest >= piece.stop:
            ahead_nM = scores_nM >= chunk.target_n1
        else:
            ahead_nM = scores_nM > chunk.target_n1
            if chunk.highest >= piece.start:
                earlier_nM = np.arange(piece.start, piece.stop) < chunk.candidate_n1
                ahead_nM |= (scores_nM == chunk.target_n1) & earlier_nM
        # Counting bits is three times as fast as summing booleans.
        ahead_n = np.bitwise_count(np.packbits(ahead_nM, axis=1)).sum(axis=1, dtype=np.int64)
        self.in_pool[chunk.pair] += ahead_n
        own = chunk.language_n == piece.language
        self.in_language[chunk.pair[own]] += ahead_n[own]

    def _keep_best(self, start: int, scores_TM: Tensor, piece: _Segment, seen: int) -> None:
        import torch

        top = self.top[piece.language]
        rows = slice(start, start + len(scores_TM))
        held = min(seen, self._depth)
        scores_TH = torch.from_numpy(top.scores[rows, :held])
        places_TH = torch.from_numpy(top.places[rows, :held])
        scores_TK, places_TK = absorb(scores_TH, places_TH, scores_TM, piece.start, self._depth)
        top.scores[rows, : scores_TK.shape[1]] = scores_TK.numpy()
        top.places[rows, : places_TK.shape[1]] = places_TK.numpy()


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
    return [
        _Segment(int(codes[start]), first + start, first + stop)
        for start, stop in zip(bounds, bounds[1:], strict=False)
    ]


def _whole_tiles(size: int, tile: int) -> int:
    return -(-size // tile) * tile


def _tile() -> Tensor:
    import torch

    return torch.empty(TILE_QUERIES, TILE_CANDIDATES)
