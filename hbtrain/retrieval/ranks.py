"""Exact ranks of the relevant candidates, by counting instead of sorting.

One pass over the scores gives each relevant candidate's rank in its own language's pool and in the pool of all
languages, hence every monolingual, cross-lingual and multilingual setting at once, with no limit on the depth, and the
best candidates of every pool besides. `counting` says how, `shard_counts` how the
work is spread over workers.

Shapes: Q queries, N candidates, D dimensions, P (query, relevant candidate) pairs, L languages.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields, replace
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from hbtrain.modeling.devices import Device
from hbtrain.modeling.encoder import Similarity
from hbtrain.retrieval.counting import Pairs
from hbtrain.retrieval.device_counts import count_on_all
from hbtrain.retrieval.scores import Floats, check_finite
from hbtrain.retrieval.shard_counts import Blocks, ShardCounts, count_in_shard, relevant_scores
from hbtrain.retrieval.top import Int64s, Top, merge_top

TIE_RULE = "candidates of equal score rank in the order of the pool"


@dataclass(frozen=True)
class Ranks:
    """One row per (query, relevant candidate), in the order of the queries and of their lists; all [P]."""

    query: Int64s
    candidate: Int64s
    language: Int64s  # code of the candidate's language
    in_language: Int64s  # rank among the candidates of that language, from 1
    in_pool: Int64s  # rank among all candidates, from 1
    score: Floats  # its inner product with the query
    equal_in_language: Int64s  # candidates of that language with the same score, this one included
    equal_in_pool: Int64s  # candidates of any language with the same score, this one included

    def of_pairs(self, low: int, high: int, first_query: int) -> Ranks:
        """The rows [low, high), with the numbers of queries counted from `first_query`."""
        here = Ranks(*(getattr(self, column.name)[low:high] for column in fields(self)))
        return replace(here, query=here.query - first_query)


class Vectors(NamedTuple):
    """The vectors by which a collection was ranked, as the encoder gave them."""

    queries: Floats  # [Q, D]
    passages: Callable[[Int64s], Floats]  # gives the vectors [..., D] of candidates at places [...] of the pool
    similarity: Similarity


class Quality(NamedTuple):
    """How near rankings of quantized vectors are to those of full ones."""

    recall: float  # mean share of the first ten candidates of a query by full vectors that are among its first ten
    queries: int  # on how many it was measured
    dimension: int  # D


class Search(NamedTuple):
    """Ranks of all relevant candidates, and what ranks first."""

    ranks: Ranks
    by_language: dict[int, Top]
    """{language code: the best candidates [Q, K] in that language}, in the order of the pool."""
    depth: int  # k, or all candidates where there are fewer
    device: str = "cpu"  # where it was computed: `gpu`, `cpu`, or both
    vectors: Vectors | None = None  # None: they were not kept
    of_pool: Top | None = None  # the best of all languages where they are not the best of the languages' best
    quality: Quality | None = None  # of quantized vectors

    @property
    def pool(self) -> Top:
        """The best [Q, K] candidates of all languages."""
        return self.of_pool or merge_top(list(self.by_language.values()), self.depth)

    def cut(self, depth: int) -> Search:
        """The same with lists of `depth` places at most."""

        def shorter(top: Top) -> Top:
            return Top(top.scores[:, :depth], top.places[:, :depth])

        by_language = {code: shorter(top) for code, top in self.by_language.items()}
        of_pool = None if self.of_pool is None else shorter(self.of_pool)
        return self._replace(by_language=by_language, of_pool=of_pool, depth=depth)


def exact_ranks(
    q_QD: Floats,
    p_ND: Floats,
    languages: npt.ArrayLike,
    relevant: Sequence[Int64s],
    block_rows: int = 4096,
    block_columns: int = 4096,
) -> Ranks:
    """Ranks of every query's relevant candidates by inner product in fp32, on the CPU.

    Args:
        q_QD: embeddings of the queries.
        p_ND: embeddings of the candidates, grouped by language; both may be memory-mapped.
        languages: language codes [N] of the candidates, int; equal ones stand together.
        relevant: for each query the indices of its relevant candidates; a query may have none.
        block_rows: queries in memory at one time, rounded up to a multiple of 512.
        block_columns: candidates in memory at one time, rounded up to a multiple of 512. `Blocks` says how much memory
            that is; the ranks do not depend on it.

    Raises:
        ModelError: an embedding holds NaN or infinity.
        ValueError: shapes disagree, languages are not grouped, or an index is no candidate.
    """
    return exact_search(q_QD, p_ND, languages, relevant, 0, Blocks(block_rows, block_columns)).ranks


def exact_search(
    q_QD: Floats,
    p_ND: Floats,
    languages: npt.ArrayLike,
    relevant: Sequence[Int64s],
    depth: int,
    blocks: Blocks | None = None,
    gpus: Sequence[Device] = (),
) -> Search:
    """Exact ranks, as `exact_ranks` says, and from the same pass the `depth` best candidates of every pool.

    With `gpus` they are computed there, each of them taking a part of the candidates, by the rule of `device_counts`.
    """
    blocks = blocks or Blocks()
    codes = np.asarray(languages, np.int64)
    _check_shapes(q_QD, p_ND, codes, len(relevant))
    _check_indices(relevant, len(p_ND))
    check_finite("query", q_QD)
    check_finite("passage", p_ND)
    pairs = Pairs.of(relevant, codes)
    if gpus and len(q_QD):
        scores_P, counted = count_on_all(gpus, q_QD, p_ND, codes, pairs, depth)
    else:
        scores_P = relevant_scores(q_QD, p_ND, pairs, threads=blocks.threads)
        counted = count_in_shard(q_QD, p_ND, codes, pairs, scores_P, depth=depth, blocks=blocks)
    return Search(ranks_of(pairs, scores_P, counted), counted.top, depth, "gpu" if gpus else "cpu")


def ranks_of(pairs: Pairs, scores_P: Floats, counted: ShardCounts) -> Ranks:
    """Ranks, which are 1 + the candidates that stand ahead, from the counts over all shards."""
    return Ranks(
        query=pairs.query,
        candidate=pairs.candidate,
        language=pairs.language,
        in_language=1 + counted.in_language,
        in_pool=1 + counted.in_pool,
        score=scores_P,
        equal_in_language=counted.equal_in_language,
        equal_in_pool=counted.equal_in_pool,
    )


def _check_shapes(q_QD: Floats, p_ND: Floats, codes: Int64s, lists: int) -> None:
    if q_QD.ndim != 2 or p_ND.ndim != 2 or q_QD.shape[1] != p_ND.shape[1]:
        raise ValueError(f"queries {q_QD.shape} and candidates {p_ND.shape} must be [Q, D] and [N, D]")
    if lists != len(q_QD):
        raise ValueError(f"{lists} lists of relevant candidates for {len(q_QD)} queries")
    if codes.shape != (len(p_ND),):
        raise ValueError(f"language codes {codes.shape} for {len(p_ND)} candidates")


def _check_indices(relevant: Sequence[Int64s], candidates: int) -> None:
    query = np.repeat(np.arange(len(relevant)), [len(r) for r in relevant])
    candidate = np.concatenate([np.zeros(0, np.int64), *relevant])
    if len(candidate) and (candidate.min() < 0 or candidate.max() >= candidates):
        raise ValueError(f"a relevant index lies outside the {candidates} candidates")
    if len(np.unique(query * candidates + candidate)) < len(query):
        raise ValueError("a relevant candidate is listed twice for one query")
