"""Exact ranks when the candidates are divided into shards: what each shard counts, and how the counts are added.

The rank of a candidate is 1 + the candidates that score higher + those of equal score that stand earlier in the pool:
a count over candidates, to which every shard adds its part. A shard needs the scores of all relevant candidates, and
nothing else from the other shards:

1. `relevant_scores` in each shard, then `joined_scores` over the shards;
2. `count_in_shard` in each shard with these scores;
3. `sum_counts` over the shards.

The outcome is the same to the last bit for any shards, blocks and threads (see `scores`).

Shapes: Q queries, N candidates of the shard, D dimensions, P (query, relevant candidate) pairs, K places of a list,
T and C a tile's queries and candidates, R rows of any matrix, B candidates of a block.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from hbtrain.errors import ModelError
from hbtrain.retrieval.counting import Counter, Pairs
from hbtrain.retrieval.scores import (
    TILE_CANDIDATES,
    TILE_QUERIES,
    Floats,
    forget_pages,
    rows_at,
    rows_of,
    scoring_threads,
    tile_of,
    tile_scores,
)
from hbtrain.retrieval.top import Int64s, Top, merge_top


@dataclass(frozen=True)
class Blocks:
    """How many vectors are in memory at one time; results do not depend on it.

    Memory: (`queries` + `candidates`) x D x 4 bytes, and for each thread 512 x `candidates` x 4 bytes of scores.
    """

    queries: int = 4096  # rounded up to a multiple of TILE_QUERIES
    candidates: int = 4096  # rounded up to a multiple of TILE_CANDIDATES
    threads: int | None = None  # that compute scores; None: as many as torch uses

    def __post_init__(self) -> None:
        if min(self.queries, self.candidates, self.threads or 1) < 1:
            raise ValueError(f"{self}: all must be positive")


class ShardCounts(NamedTuple):
    """What a shard counted for the P pairs of Q queries."""

    in_language: Int64s  # [P] candidates in the relevant candidate's language that rank ahead of it
    in_pool: Int64s  # [P] candidates in any language that rank ahead of it
    equal_in_language: Int64s
    """[P] candidates in the relevant candidate's language with the same score, itself included."""
    equal_in_pool: Int64s  # [P] the same in any language
    top: dict[int, Top]
    """{language code: the best candidates [Q, K] in that language}; empty where no lists were wanted."""


def relevant_scores(q_QD: Floats, p_ND: Floats, pairs: Pairs, first: int = 0, threads: int | None = None) -> Floats:
    """[P] scores of the pairs whose candidates are in the shard, NaN for the others.

    Args:
        q_QD: queries.
        p_ND: the shard's candidates.
        pairs: of these queries and of candidates in any shard.
        first: place of the shard's first candidate in the pool.
        threads: that compute scores; None: as many as torch uses.

    Raises:
        ModelError: a score is NaN or infinite.
    """
    import torch

    scores_P = np.full(len(pairs.query), np.nan, np.float32)
    asked = AskedPairs(pairs, first, len(p_ND))

    def work(start: int) -> None:
        asking, wanted, pair, row, column = asked.of_queries(start, TILE_QUERIES)
        q_RD = rows_at(q_QD, asking)
        q_TD = tile_of(q_RD, TILE_QUERIES)
        scores_TC = torch.empty(TILE_QUERIES, TILE_CANDIDATES)
        for c in range(0, len(wanted), TILE_CANDIDATES):
            p_RD = rows_at(p_ND, wanted[c : c + TILE_CANDIDATES])
            tile_scores(q_TD, tile_of(p_RD, TILE_CANDIDATES), scores_TC)
            here = (column >= c) & (column < c + TILE_CANDIDATES)
            scores_P[pair[here]] = scores_TC.numpy()[row[here], column[here] - c]
        check_scores(scores_P[pair])

    with scoring_threads(threads) as pool:
        list(pool.map(work, range(0, asked.queries, TILE_QUERIES)))
    return scores_P


class AskedPairs:
    """The pairs whose candidates are in a shard, some queries at a time."""

    def __init__(self, pairs: Pairs, first: int, candidates: int) -> None:
        """Args:
        pairs: of all queries and of candidates in any shard.
        first: place of the shard's first candidate in the pool.
        candidates: of the shard.
        """
        self._place_P = pairs.candidate - first
        inside = np.flatnonzero((self._place_P >= 0) & (self._place_P < candidates))
        # Queries of the same candidates side by side, such as a question's translations: fewer candidates to a tile.
        asking, lowest = np.unique(pairs.query[inside], return_index=True)
        self._asking = asking[np.argsort(self._place_P[inside][lowest], kind="stable")]
        self.queries = len(asking)  # that ask for a candidate of the shard
        row_Q = np.full(pairs.queries, len(asking))
        row_Q[self._asking] = np.arange(len(asking))
        self._pair = inside[np.argsort(row_Q[pairs.query[inside]], kind="stable")]
        self._row = row_Q[pairs.query[self._pair]]

    def of_queries(self, start: int, count: int) -> tuple[Int64s, Int64s, Int64s, Int64s, Int64s]:
        """Of `count` queries from the `start`-th that asks: the numbers of the queries, the places in the shard of the
        candidates that they ask for, each once; and of all their pairs the pair's number and where in these two the
        query and the candidate stand."""
        low, high = np.searchsorted(self._row, (start, start + count))
        pair = self._pair[low:high]
        wanted, column = np.unique(self._place_P[pair], return_inverse=True)
        return self._asking[start : start + count], wanted, pair, self._row[low:high] - start, column


def check_scores(scores: Floats) -> None:
    """Raise ModelError if a score is NaN or infinite."""
    if not np.isfinite(scores).all():
        raise ModelError("a score is NaN or infinite: an embedding holds NaN or infinity, or is too long for fp32")


def joined_scores(parts: Sequence[Floats]) -> Floats:
    """[P] the scores of all pairs, from `relevant_scores` of every shard.

    Raises:
        ValueError: a relevant candidate is in no shard.
    """
    scores_P = parts[0].copy()
    for part in parts[1:]:
        np.copyto(scores_P, part, where=~np.isnan(part))
    if np.isnan(scores_P).any():
        raise ValueError(f"{np.isnan(scores_P).sum()} relevant candidates are in no shard")
    return scores_P


def count_in_shard(
    q_QD: Floats,
    p_ND: Floats,
    languages: Int64s,
    pairs: Pairs,
    scores_P: Floats,
    first: int = 0,
    depth: int = 0,
    blocks: Blocks | None = None,
) -> ShardCounts:
    """Count how many of a shard's candidates rank ahead of each pair's, and find the best of the shard.

    Args:
        q_QD: queries; they and the candidates may be memory-mapped.
        p_ND: the shard's candidates, finite (see `scores.check_finite`).
        languages: language codes [N] of the candidates, grouped.
        pairs: of these queries and of candidates in any shard.
        scores_P: scores of the pairs (`joined_scores`).
        first: place of the shard's first candidate in the pool.
        depth: length of the list of the best candidates in each language; 0: no lists.
        blocks: how many vectors are in memory at one time.
    """
    blocks = blocks or Blocks()
    rows = whole_tiles(blocks.queries, TILE_QUERIES)
    columns = whole_tiles(min(blocks.candidates, len(p_ND)), TILE_CANDIDATES)
    counter = Counter(pairs, scores_P, languages, first, columns, depth)
    with scoring_threads(blocks.threads) as pool:
        for q_start in range(0, len(q_QD), rows):
            q_RD = rows_of(q_QD, q_start, q_start + rows)
            for p_start in range(0, len(p_ND), columns):
                p_BD = rows_of(p_ND, p_start, p_start + columns)
                jobs = [
                    pool.submit(counter.score, q_start + r, q_RD[r : r + TILE_QUERIES], first + p_start, p_BD)
                    for r in range(0, len(q_RD), TILE_QUERIES)
                ]
                for job in jobs:
                    job.result()
                forget_pages(p_ND)
            forget_pages(q_QD)
    return ShardCounts(
        counter.in_language, counter.in_pool, counter.equal_in_language, counter.equal_in_pool, counter.top
    )


def sum_counts(parts: Sequence[ShardCounts], depth: int = 0) -> ShardCounts:
    """The counts of all shards added up, and their lists merged to `depth` candidates."""
    tops: dict[int, list[Top]] = {}
    for part in parts:
        for code, top in part.top.items():
            tops.setdefault(code, []).append(top)
    return ShardCounts(
        np.sum([part.in_language for part in parts], axis=0),
        np.sum([part.in_pool for part in parts], axis=0),
        np.sum([part.equal_in_language for part in parts], axis=0),
        np.sum([part.equal_in_pool for part in parts], axis=0),
        {code: merge_top(of_code, depth) for code, of_code in tops.items()},
    )


def whole_tiles(size: int, tile: int) -> int:
    """`size`, rounded up to a multiple of `tile`."""
    return -(-size // tile) * tile
