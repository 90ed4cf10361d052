"""How the vectors of languages lie to each other: alignment, uniformity, CKA, and whether rankings agree.

Measured on texts that say the same in several languages: the translations of a question, and the relevant candidates
of a question. Unit vectors throughout.

Shapes: n parallel texts, L languages, D dimensions, Q queries, N candidates, S of them that are ranked.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from itertools import combinations_with_replacement
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from hbtrain.evaluation.benchmark import Collection
from hbtrain.evaluation.metrics import Floats, Int64s

if TYPE_CHECKING:
    from hbtrain.modeling.encoder import Side

MOST_TEXTS = 300
"""Parallel texts on which languages are compared; of more, this many spread evenly over them."""
MOST_RANKED = 500
"""Candidates whose order is compared between languages; of more, this many spread evenly over the pool. The rank
correlation of a sample is an estimate of that of the pool."""
PAIR_METRICS = ("passage_alignment", "query_uniformity", "passage_uniformity", "query_cka", "passage_cka")
"""Metrics of two languages; the alignment of queries is known of each query."""
FEWEST_TEXTS = 4  # for which CKA without bias is defined
BLOCK_QUESTIONS = 128  # questions whose scores are held at one time
SHARPNESS = 2.0  # t of the uniformity

Vectors = npt.NDArray[np.float32]


@dataclass(frozen=True)
class LanguagePairs:
    """What the vectors of n parallel texts say of each two languages; all [L, L] and symmetrical."""

    languages: tuple[str, ...]
    texts: Int64s  # parallel texts that both languages have
    alignment: Floats  # mean of |u - v|^2 over them, 0 to 4; 0 on the diagonal
    # log of the mean of exp(-2 |u - v|^2) over texts that are not parallel, -8 to 0
    uniformity: Floats
    # linear CKA without bias (Kornblith et al. 2019, Song et al. 2012); NaN for fewer than four texts
    cka: Floats

    def scores(self, side: Side) -> dict[str, dict[str, float]]:
        """{measure: {"": of all languages, language: ...}}, without what is no number.

        Alignment and CKA are means over the other languages, for all over pairs. The uniformity of a language is that
        of its own texts, that of all is the pool's.
        """
        found = {}
        others = ~np.eye(len(self.languages), dtype=bool)
        for name, values in (("alignment", self.alignment), ("cka", self.cka)):
            apart = np.where(others, values, np.nan)
            found[f"{side}_{name}"] = {"": _mean(apart), **dict(zip(self.languages, map(_mean, apart), strict=True))}
        own = np.diag(self.uniformity).tolist()
        pool = float(np.log(_mean(np.exp(self.uniformity))))
        found[f"{side}_uniformity"] = {"": pool, **dict(zip(self.languages, own, strict=True))}
        return {
            name: {x: value for x, value in own.items() if not np.isnan(value)}
            for name, own in found.items()
            if name in PAIR_METRICS
        }


def _mean(values: Floats) -> float:
    """The mean of what is a number; else NaN."""
    known = values[~np.isnan(values)]
    return float(known.mean()) if len(known) else float("nan")


def parallel_texts(collection: Collection) -> tuple[Int64s, Int64s]:
    """Places of the translations of each question [n, L], and of the candidates that answer it [n, L]; -1 for none.

    A question's candidates in a language are taken where there is one. Questions with the same candidates count once.
    """
    size = len(collection.languages)
    number: dict[str, int] = {}
    row_Q = np.array([number.setdefault(x, len(number)) for x in collection.question_ids], np.int64)
    queries_nL = np.full((len(number), size), -1, np.int64)
    queries_nL[row_Q, collection.query_codes] = np.arange(len(row_Q))
    first_Q = {row: place for place, row in reversed(list(enumerate(row_Q.tolist())))}
    codes_N = collection.candidate_codes
    answers_nL = np.full((len(number), size), -1, np.int64)
    for row, query in first_Q.items():
        places = collection.relevant[query]
        language, start, count = np.unique(codes_N[places], return_index=True, return_counts=True)
        answers_nL[row, language[count == 1]] = places[start[count == 1]]
    return queries_nL, np.unique(answers_nL, axis=0)


def unit(x: Vectors) -> Vectors:
    """Vectors [..., D] of length 1; those of zeros stay."""
    length = np.linalg.norm(x, axis=-1, keepdims=True)
    return np.asarray(x / np.where(length > 0, length, 1), np.float32)


def query_alignment(q_QD: Vectors, queries_nL: Int64s) -> Floats:
    """[Q] mean over the translations of a query of |u - v|^2; NaN where it has none.

    Args:
        q_QD: unit vectors of the queries.
        queries_nL: places of the translations of each question, as `parallel_texts` gives them.
    """
    found_Q = np.full(len(q_QD), np.nan)
    for row_L in queries_nL:
        places = row_L[row_L >= 0]
        if len(places) > 1:
            distances = 2 - 2 * (q_QD[places] @ q_QD[places].T).astype(np.float64)
            np.fill_diagonal(distances, 0.0)
            found_Q[places] = distances.sum(axis=1).clip(min=0) / (len(places) - 1)
    return found_Q


def rank_correlation(q_QD: Vectors, c_SD: Vectors, queries_nL: Int64s) -> Floats:
    """[Q] mean over the translations of a query of Spearman's correlation of the two rankings (arXiv 2509.06195); NaN
    where it has none. -1 to 1; 1 where the language of a query does not matter.

    Args:
        q_QD: vectors of the queries.
        c_SD: vectors of the candidates, which inner products rank; equal scores rank in their order.
        queries_nL: places of the translations of each question.
    """
    size = len(c_SD)
    found_Q = np.full(len(q_QD), np.nan)
    translated_nL = queries_nL[(queries_nL >= 0).sum(axis=1) > 1]
    if size < 2:
        return found_Q
    for first in range(0, len(translated_nL), BLOCK_QUESTIONS):
        block_nL = translated_nL[first : first + BLOCK_QUESTIONS]
        scores_BS = q_QD[block_nL[block_nL >= 0]] @ c_SD.T  # at once, since small products are slow
        start = 0
        for row_L in block_nL:
            places = row_L[row_L >= 0]
            order_LS = np.argsort(-scores_BS[start : start + len(places)], axis=1, kind="stable")
            start += len(places)
            rank_LS = np.empty(order_LS.shape)
            np.put_along_axis(rank_LS, order_LS, np.arange(size)[None] - (size - 1) / 2, axis=1)
            # The products of the ranks of a language with those of the others, added up.
            with_others_L = (rank_LS * (rank_LS.sum(axis=0) - rank_LS)).sum(axis=1)
            found_Q[places] = with_others_L * 12 / (size * (size**2 - 1) * (len(places) - 1))
    return found_Q


def language_pairs(languages: tuple[str, ...], take: Callable[[Int64s], Vectors], texts_nL: Int64s) -> LanguagePairs:
    """Alignment, uniformity and CKA of every two languages, over the texts that both have.

    Args:
        languages: their names, L.
        take: gives the vectors [n, D] of places [n].
        texts_nL: places of the same text in each language; -1 for none.
    """
    size = len(languages)
    texts = np.zeros((size, size), np.int64)
    alignment, uniformity, cka = (np.full((size, size), np.nan) for _ in range(3))
    for x, y in combinations_with_replacement(range(size), 2):
        both_n2 = texts_nL[:, [x, y]][(texts_nL[:, [x, y]] >= 0).all(axis=1)]
        both_n2 = both_n2[evenly(len(both_n2), MOST_TEXTS)]
        n = texts[x, y] = texts[y, x] = len(both_n2)
        if n < 2:
            continue
        own_nD = unit(take(both_n2[:, 0]))
        other_nD = own_nD if x == y else unit(take(both_n2[:, 1]))
        inner_nn = np.clip(own_nD @ other_nD.T, -1, 1)
        alignment[x, y] = alignment[y, x] = 0.0 if x == y else 2 - 2 * np.diag(inner_nn).mean(dtype=np.float64)
        near_nn = np.exp(np.float32(2 * SHARPNESS) * (inner_nn - 1))
        np.fill_diagonal(near_nn, 0.0)
        uniformity[x, y] = uniformity[y, x] = np.log(near_nn.sum(dtype=np.float64) / (n * (n - 1)))
        cka[x, y] = cka[y, x] = _cka(own_nD, other_nD) if n >= FEWEST_TEXTS else np.nan
    return LanguagePairs(languages, texts, alignment, uniformity, cka)


def _cka(x_nD: Vectors, y_nD: Vectors) -> float:
    """Linear CKA of n parallel texts without bias; NaN where all vectors of a side are equal."""
    n = len(x_nD)
    k_nn, m_nn = ((z_nD @ z_nD.T).astype(np.float64) for z_nD in (x_nD, y_nD))
    np.fill_diagonal(k_nn, 0.0)
    np.fill_diagonal(m_nn, 0.0)

    def dependence(a_nn: Floats, b_nn: Floats) -> float:
        """HSIC without bias, times n (n - 3)."""
        a_n, b_n = a_nn.sum(axis=1), b_nn.sum(axis=1)
        between = a_n.sum() * b_n.sum() / ((n - 1) * (n - 2)) - 2 / (n - 2) * (a_n @ b_n)
        return float(np.vdot(a_nn, b_nn) + between)

    own = dependence(k_nn, k_nn) * dependence(m_nn, m_nn)
    return dependence(k_nn, m_nn) / float(np.sqrt(own)) if own > 0 else float("nan")


def evenly(count: int, most: int) -> Int64s:
    """Up to `most` numbers below `count`, spread evenly; all of them, where they are no more."""
    return np.arange(count) if count <= most else np.arange(most) * count // most
