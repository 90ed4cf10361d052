"""Vectors in fewer bits, as indices in production hold them: what is stored of a candidate, and how it then scores.

`int8`: each component of a candidate is one of 256 steps between the least and the greatest value that its dimension
has over all candidates: the codes of `quantize_embeddings` of sentence-transformers. The score is that of the query as
it is and of the middles of the candidate's steps.

`binary`: each component is a bit, of queries and candidates alike: whether it is above 0. The score is the number of
dimensions less twice the Hamming distance, which is the inner product of vectors of 1 and -1: a whole number, and so
exact on any device. With `rescore`, the first so many places of a ranking are put in the order of the inner products of
the query as it is with the candidates' 1 and -1; all others stay behind them as they were.

Ranks over these scores are exact, and the same from any number of shards, as are the ranges.

Shapes: Q queries, N candidates, D dimensions, K places of a list, P (query, relevant candidate) pairs.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np

from hbtrain.errors import ConfigError
from hbtrain.retrieval.ranks import Quality, Search
from hbtrain.retrieval.scores import Floats, check_finite
from hbtrain.retrieval.top import Int64s, Top

Kind = Literal["int8", "binary"]
RECALL_PLACES = 10  # first places of full vectors' rankings that are looked for in those of quantized ones
RECALL_QUERIES = 200  # the most queries, drawn at random, for which that is measured
CODED_ROWS = 16_384  # vectors that are coded at one time
RESCORED_FLOATS = 16_777_216  # numbers of vectors that are scored anew at one time: 64 MiB


@dataclass(frozen=True)
class Quantization:
    """How candidates are stored, and how many places of a ranking are scored anew."""

    kind: Kind
    rescore: int = 0  # places of each ranking that queries as they are put in order; only for binary

    def __post_init__(self) -> None:
        if self.rescore < 0 or (self.rescore and self.kind != "binary"):
            raise ConfigError(
                f"--rescore {self.rescore}: must be 0 or more, and is for --quantize binary; int8 vectors are scored "
                "by the query as it is"
            )

    def __str__(self) -> str:
        return f"{self.kind}, {self.rescore} rescored" if self.rescore else self.kind

    def check_depth(self, depth: int, option: str) -> None:
        """Raise ConfigError where lists are longer than what is scored anew: they would hold scores of two kinds."""
        if 0 < self.rescore < depth:
            raise ConfigError(
                f"--rescore {self.rescore}: must be {depth} or more, the length of the lists ({option}), or left out"
            )

    def vector_bytes(self, dimension: int) -> int:
        """What a candidate takes in memory."""
        return dimension if self.kind == "int8" else -(-dimension // 8)


def quantization_of(kind: Kind | None, rescore: int) -> Quantization | None:
    """From the flags of a command. Raises ConfigError where they do not go together."""
    if kind is not None:
        return Quantization(kind, rescore)
    if rescore:
        raise ConfigError(f"--rescore {rescore}: is for --quantize binary; add it, or leave --rescore out")
    return None


def exactly(how: Quantization | None) -> str:
    """How a search is called that is exact, over quantized vectors or full ones."""
    return "exact" if how is None else f"exact {how}"


@dataclass(frozen=True)
class Quantizer:
    """Gives the vectors whose scores are those of quantized ones."""

    how: Quantization
    ranges: Floats | None = None  # [2, D] least and greatest value of each dimension; None: not needed

    @classmethod
    def of(cls, how: Quantization, blocks: Iterable[Floats]) -> Quantizer:
        """A quantizer for all candidates, whose vectors [R, D] come block by block; for `binary` none is read."""
        if how.kind == "binary":
            return cls(how)
        ranges = [np.stack([block_RD.min(axis=0), block_RD.max(axis=0)]) for block_RD in blocks]
        low, high = np.min([x[0] for x in ranges], axis=0), np.max([x[1] for x in ranges], axis=0)
        return cls(how, np.stack([low, high]).astype(np.float32))

    def queries(self, q_QD: Floats) -> Floats:
        """[Q, D]. Raises ModelError if a query holds NaN or infinity."""
        check_finite("query", q_QD)
        return q_QD if self.how.kind == "int8" else _signs(q_QD)

    def passages(self, p_ND: Floats) -> Floats:
        """[N, D], what the codes of candidates stand for."""
        from sentence_transformers.util.quantization import quantize_embeddings

        if self.ranges is None:
            return _signs(p_ND)
        low_D, high_D = self.ranges
        step_D = (high_D - low_D) / np.float32(255)
        found = np.empty(p_ND.shape, np.float32)
        for start in range(0, len(p_ND), CODED_ROWS):
            rows = slice(start, start + CODED_ROWS)
            codes = quantize_embeddings(np.asarray(p_ND[rows], np.float32), "uint8", ranges=self.ranges)
            found[rows] = low_D + (codes + np.float32(0.5)) * step_D
        return found


def _signs(x_ND: Floats) -> Floats:
    """[N, D]: 1 where a component is above 0, else -1."""
    return np.where(x_ND > 0, np.float32(1), np.float32(-1))


def drawn_queries(queries: int, seed: int = 0, most: int = RECALL_QUERIES) -> Int64s:
    """Numbers of the queries for which recall is measured."""
    return np.random.default_rng(seed).choice(queries, min(most, queries), replace=False)


def quality_of(found: Top, full: Top, drawn: Int64s, dimension: int) -> Quality:
    """What the lists `found` of all queries hold of the lists `full` of the drawn ones, by full vectors."""
    width = min(RECALL_PLACES, full.places.shape[1])
    mine, theirs = found.places[drawn, :width], full.places[:, :width]
    shared = (mine[:, :, None] == theirs[:, None, :]).any(axis=1)
    return Quality(float(shared.mean()) if shared.size else 1.0, len(drawn), dimension)


def about_quantized(how: Quantization, found: dict[str, Quality]) -> dict[str, Any]:
    """What `about.json` says of it; `found`: {name of a collection: its quality}."""
    if not found:  # there were no queries
        return {"to": how.kind, "rescored": how.rescore}
    dimension = next(iter(found.values())).dimension
    return {
        "to": how.kind,
        "rescored": how.rescore,
        "bytes_per_vector": how.vector_bytes(dimension),
        "full_bytes_per_vector": 4 * dimension,
        f"recall@{RECALL_PLACES}": float(np.mean([quality.recall for quality in found.values()])),
        "recall_of_collections": {name: quality.recall for name, quality in found.items()},
        "recall_queries": {name: quality.queries for name, quality in found.items()},
    }


def quality_in_words(about: dict[str, Any]) -> str:
    """What `about_quantized` tells, in a sentence."""
    small, large = about["bytes_per_vector"], about["full_bytes_per_vector"]
    queries = sum(about["recall_queries"].values())
    return (
        f"{about['to']} vectors take {small:,} bytes each, in single precision {large:,} ({large / small:.0f} times as "
        f"many); the rankings' first {RECALL_PLACES} hold {about[f'recall@{RECALL_PLACES}']:.1%} of those by full "
        f"vectors ({queries:,} {'query' if queries == 1 else 'queries'})"
    )


Passages = Callable[[Int64s], Floats]
"""Gives the quantizer's vectors [..., D] of candidates at places [...] of the pool."""


def rescored_top(top: Top, q_QD: Floats, passages: Passages, depth: int) -> Top:
    """The lists with their first `depth` places ordered by inner products with the queries as they are.

    Of equal ones the first in the pool comes first. The scores of these places are the inner products.
    """
    scores, places = top.scores.copy(), top.places.copy()
    width = min(depth, places.shape[1])
    rows = max(1, RESCORED_FLOATS // max(1, width * q_QD.shape[1]))
    for start in range(0, len(q_QD), rows):
        at = slice(start, start + rows)
        places_RK = places[at, :width]
        scores_RK = np.einsum("rkd,rd->rk", passages(places_RK), q_QD[at])
        order = np.lexsort((places_RK, -scores_RK), axis=1)
        places[at, :width] = np.take_along_axis(places_RK, order, axis=1)
        scores[at, :width] = np.take_along_axis(scores_RK, order, axis=1)
    return Top(scores, places)


def rescored(found: Search, q_QD: Floats, passages: Passages, depth: int) -> Search:
    """What was found in lists of at least `depth` places, each ranking's first places scored anew: `rescored_top`.

    Candidates that score the same are counted among those scored anew, and among the others.
    """
    ranks, pool = found.ranks, found.pool
    by_language = {code: rescored_top(top, q_QD, passages, depth) for code, top in found.by_language.items()}
    of_pool = rescored_top(pool, q_QD, passages, depth)
    in_language, equal_in_language = ranks.in_language.copy(), ranks.equal_in_language.copy()
    in_pool, equal_in_pool = ranks.in_pool.copy(), ranks.equal_in_pool.copy()
    every = np.arange(len(ranks.query))
    lists = [
        (every[ranks.language == code], in_language, equal_in_language, found.by_language[code], after)
        for code, after in by_language.items()
    ]
    for pairs, rank_P, equal_P, before, after in [*lists, (every, in_pool, equal_in_pool, pool, of_pool)]:
        width = min(depth, after.places.shape[1])
        step = max(1, RESCORED_FLOATS // max(1, width))
        for start in range(0, len(pairs), step):
            at = pairs[start : start + step]
            query, inside = ranks.query[at], rank_P[at] <= width
            place_p = np.argmax(after.places[query, :width] == ranks.candidate[at, None], axis=1)
            score_p = np.where(inside, after.scores[query, place_p], ranks.score[at])
            same_p = np.where(inside[:, None], after.scores[query, :width], before.scores[query, :width])
            equal_p = np.count_nonzero(same_p == score_p[:, None], axis=1)
            rank_P[at] = np.where(inside, place_p + 1, rank_P[at])
            equal_P[at] = np.where(inside, equal_p, equal_P[at] - equal_p)
    ranks = replace(
        ranks,
        in_language=in_language,
        in_pool=in_pool,
        equal_in_language=equal_in_language,
        equal_in_pool=equal_in_pool,
    )
    return found._replace(ranks=ranks, by_language=by_language, of_pool=of_pool)
