"""Exact ranks of the relevant candidates, by counting instead of sorting.

The rank of a candidate is 1 + the candidates that score higher + those of equal score that stand earlier in the pool.
One pass over the score matrix gives each relevant candidate's rank in its own language's pool and in the pool of all
languages, hence every monolingual, cross-lingual and multilingual setting at once, with no limit on the depth.

Shapes: Q queries, N candidates, D dimensions, P (query, relevant candidate) pairs, B rows of a block.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from hbtrain.errors import ModelError
from hbtrain.retrieval.scores import score_blocks

Int64s = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float32]

TIE_RULE = "candidates of equal score rank in the order of the pool"


@dataclass(frozen=True)
class Ranks:
    """One row per (query, relevant candidate), in the order of the queries and of their lists; all int64 [P]."""

    query: Int64s
    candidate: Int64s
    language: Int64s
    """Code of the candidate's language."""
    in_language: Int64s
    """Rank among the candidates of that language, from 1."""
    in_pool: Int64s
    """Rank among all candidates, from 1."""


@dataclass(frozen=True)
class _Slot:
    """Pairs whose candidates lie in one language's columns [start, stop), at most one pair per query."""

    start: int
    stop: int
    pair: Int64s
    query: Int64s
    """Ascending."""
    candidate: Int64s


def exact_ranks(
    q_QD: Floats,
    p_ND: Floats,
    languages: npt.ArrayLike,
    relevant: Sequence[Int64s],
    block_rows: int = 128,
) -> Ranks:
    """Ranks of every query's relevant candidates by inner product in fp32, on the CPU.

    Args:
        q_QD: embeddings of the queries.
        p_ND: embeddings of the candidates, grouped by language.
        languages: language codes [N] of the candidates, int; equal ones stand together.
        relevant: for each query the indices of its relevant candidates; none in some language is fine, as is none.
        block_rows: queries scored at one time, rounded up to a multiple of 128; memory grows with
            `block_rows` x N x 5 bytes, the result does not depend on it.

    Raises:
        ModelError: an embedding holds NaN or infinity.
        ValueError: shapes disagree, languages are not grouped, or an index is no candidate.
    """
    codes = np.asarray(languages, np.int64)
    query = np.repeat(np.arange(len(relevant)), [len(r) for r in relevant])
    candidate = np.concatenate([np.zeros(0, np.int64), *relevant])
    _check_shapes(q_QD, p_ND, codes, len(relevant))
    _check_pairs(query, candidate, len(p_ND))
    _check_finite("query", q_QD)
    _check_finite("passage", p_ND)
    if block_rows < 1:
        raise ValueError(f"block_rows must be positive, not {block_rows}")
    slots = _slots(query, candidate, codes)
    in_language = np.zeros(len(query), np.int64)
    in_pool = np.zeros(len(query), np.int64)
    for first, scores_BN in score_blocks(q_QD, p_ND, block_rows):
        for slot in slots:
            low, high = np.searchsorted(slot.query, (first, first + len(scores_BN)))
            if low < high:
                pair = slot.pair[low:high]
                rows = slot.query[low:high] - first
                in_language[pair], in_pool[pair] = _count(scores_BN, rows, slot.candidate[low:high], slot)
    return Ranks(query, candidate, codes[candidate], in_language, in_pool)


def _check_shapes(q_QD: Floats, p_ND: Floats, codes: Int64s, lists: int) -> None:
    if q_QD.ndim != 2 or p_ND.ndim != 2 or q_QD.shape[1] != p_ND.shape[1]:
        raise ValueError(f"queries {q_QD.shape} and candidates {p_ND.shape} must be [Q, D] and [N, D]")
    if lists != len(q_QD):
        raise ValueError(f"{lists} lists of relevant candidates for {len(q_QD)} queries")
    if codes.shape != (len(p_ND),):
        raise ValueError(f"language codes {codes.shape} for {len(p_ND)} candidates")


def _check_pairs(query: Int64s, candidate: Int64s, candidates: int) -> None:
    if len(candidate) and (candidate.min() < 0 or candidate.max() >= candidates):
        raise ValueError(f"a relevant index lies outside the {candidates} candidates")
    if len(np.unique(query * candidates + candidate)) < len(query):
        raise ValueError("a relevant candidate is listed twice for one query")


def _check_finite(what: str, embeddings: Floats) -> None:
    broken = np.flatnonzero(~np.isfinite(embeddings).all(axis=1))
    if len(broken):
        raise ModelError(
            f"the embedding of {what} {broken[0]} holds NaN or infinity ({len(broken)} of {len(embeddings)} do): "
            "training has diverged or the precision is too low; use an earlier checkpoint or fp32"
        )


def _slots(query: Int64s, candidate: Int64s, codes: Int64s) -> list[_Slot]:
    """The pairs by language, a language's further relevant candidates of a query in slots of their own."""
    starts = np.flatnonzero(np.diff(codes, prepend=codes[:1] - 1))
    if len(np.unique(codes)) != len(starts):
        raise ValueError("candidates must be grouped by language: a language code comes back after another")
    bounds = np.append(starts, len(codes))
    segment = np.searchsorted(starts, candidate, side="right") - 1
    order = np.lexsort((query, segment))
    same = (np.diff(segment[order], prepend=-1) == 0) & (np.diff(query[order], prepend=-1) == 0)
    group_start = np.maximum.accumulate(np.where(same, 0, np.arange(len(order))))
    nth = np.arange(len(order)) - group_start
    slots = []
    for s, n in sorted(set(zip(segment[order].tolist(), nth.tolist(), strict=True))):
        pair = order[(segment[order] == s) & (nth == n)]
        slots.append(_Slot(int(bounds[s]), int(bounds[s + 1]), pair, query[pair], candidate[pair]))
    return slots


def _count(scores_BN: Floats, rows: Int64s, candidate: Int64s, slot: _Slot) -> tuple[Int64s, Int64s]:
    """Ranks in the slot's language and in the pool, of one candidate per row of `rows`."""
    scores = scores_BN if len(rows) == len(scores_BN) else scores_BN[rows]
    column = candidate[:, None]
    target = np.take_along_axis(scores, column, axis=1)
    # What stands ahead: higher scores, and equal ones in every column before the candidate's own.
    ahead = np.empty(scores.shape, bool)
    own = slice(slot.start, slot.stop)
    np.greater_equal(scores[:, : slot.start], target, out=ahead[:, : slot.start])
    np.greater(scores[:, slot.start :], target, out=ahead[:, slot.start :])
    earlier = np.arange(slot.start, slot.stop) < column
    ahead[:, own] |= (scores[:, own] == target) & earlier
    return 1 + _true_per_row(ahead[:, own]), 1 + _true_per_row(ahead)


def _true_per_row(mask: npt.NDArray[np.bool_]) -> Int64s:
    # A loop over rows, as numpy counts booleans some four times faster than it sums them along an axis. Counting in
    # torch is no faster on two cores, and its threads wait for each other many thousand times where cores are busy.
    return np.fromiter(map(np.count_nonzero, mask), np.int64, len(mask))
