"""How the vectors of languages lie to each other: alignment, uniformity, CKA, and whether rankings agree.

Measured on texts that say the same in several languages: the translations of a question, and the relevant candidates
of a question. Unit vectors throughout.

Shapes: n parallel texts, L languages, D dimensions, Q queries, N candidates, S of them that are ranked.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from hbtrain.evaluation.benchmark import Collection
from hbtrain.evaluation.metrics import Floats, Int64s

if TYPE_CHECKING:
    from hbtrain.modeling.encoder import Side

MOST_TEXTS = 1000
"""Parallel texts on which languages are compared; of more, this many spread evenly over them."""
MOST_RANKED = 1000
"""Candidates whose order is compared between languages; of more, this many spread evenly over the pool. The rank
correlation of a sample is an estimate of that of the pool."""
PAIR_METRICS = ("passage_alignment", "query_uniformity", "passage_uniformity", "query_cka", "passage_cka")
"""Metrics of two languages; the alignment of queries is known of each query."""
FEWEST_TEXTS = 4  # for which CKA without bias is defined
SHARPNESS = 2.0  # t of the uniformity
BLOCK_ROWS = 256  # texts of every language whose similarities are held at one time

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
    if size < 2:
        return found_Q
    for row_L in queries_nL:
        places = row_L[row_L >= 0]
        if len(places) < 2:
            continue
        order_LS = np.argsort(-(q_QD[places] @ c_SD.T), axis=1, kind="stable")
        rank_LS = np.empty(order_LS.shape)
        np.put_along_axis(rank_LS, order_LS, np.arange(size)[None] - (size - 1) / 2, axis=1)
        agreement_LL = rank_LS @ rank_LS.T * (12 / (size * (size**2 - 1)))
        found_Q[places] = (agreement_LL.sum(axis=1) - np.diag(agreement_LL)) / (len(places) - 1)
    return found_Q


def language_pairs(languages: tuple[str, ...], take: Callable[[Int64s], Vectors], texts_nL: Int64s) -> LanguagePairs:
    """Alignment, uniformity and CKA of every two languages, over texts that all of the languages have.

    Languages that have none of those texts that the others share would leave nothing to compare: the texts are those
    that the most languages have, and the others get NaN.

    Args:
        languages: their names, L.
        take: gives the vectors [..., D] of places [...].
        texts_nL: places of the same text in each language; -1 for none.
    """
    size = len(languages)
    there_L, chosen_nL = _shared(texts_nL)
    chosen_nL = chosen_nL[evenly(len(chosen_nL), MOST_TEXTS)]
    n = len(chosen_nL)
    shape = (size, size)
    texts, alignment = np.zeros(shape, np.int64), np.full(shape, np.nan)
    uniformity, cka = np.full(shape, np.nan), np.full(shape, np.nan)
    some = np.ix_(there_L, there_L)
    if n > 1 and len(there_L) > 1:
        vectors_LnD = unit(take(chosen_nL[:, there_L].T))
        texts[some] = n
        close_LL = np.einsum("xnd,ynd->xy", vectors_LnD, vectors_LnD, dtype=np.float64, optimize=True) / n
        alignment[some] = np.where(np.eye(len(there_L), dtype=bool), 0.0, np.clip(2 - 2 * close_LL, 0, 4))
        potential_LL, dependence_LL = _over_pairs_of_texts(vectors_LnD)
        uniformity[some] = np.log(potential_LL / (n * (n - 1)))
        if n >= FEWEST_TEXTS:
            own_L = np.diag(dependence_LL)
            with np.errstate(invalid="ignore", divide="ignore"):  # all vectors equal: not a number
                cka[some] = dependence_LL / np.sqrt(np.where(own_L > 0, own_L, np.nan)[:, None] * own_L)
    return LanguagePairs(languages, texts, alignment, uniformity, cka)


def _shared(texts_nL: Int64s) -> tuple[Int64s, Int64s]:
    """The languages that are compared, and the texts [n', L] that all of these have."""
    has_nL = texts_nL >= 0
    if not has_nL.any():
        return np.zeros(0, np.int64), texts_nL[:0]
    # Of the languages that a text is in, the set that most texts have at least.
    patterns_mL = np.unique(has_nL, axis=0)
    covered_m = [(has_nL | ~pattern).all(axis=1).sum() * pattern.sum() for pattern in patterns_mL]
    pattern_L = patterns_mL[int(np.argmax(covered_m))]
    return np.flatnonzero(pattern_L), texts_nL[(has_nL | ~pattern_L).all(axis=1)]


def _over_pairs_of_texts(x_LnD: Vectors) -> tuple[Floats, Floats]:
    """Two sums [L, L] over pairs of different texts i, j, for each two languages x, y.

    - exp(-t |x_i - y_j|^2), the potential of which uniformity is the logarithm;
    - HSIC without bias of the inner products within x and within y.
    """
    size, n, _ = x_LnD.shape
    potential_LL, product_LL, sums_Ln = np.zeros((size, size)), np.zeros((size, size)), np.zeros((size, n))
    for rows in _slices(n):
        inner_LRn = x_LnD[:, rows] @ x_LnD.transpose(0, 2, 1)
        same = (slice(None), np.arange(inner_LRn.shape[1]), np.arange(rows.start, rows.stop))
        inner_LRn[same] = 0.0
        sums_Ln[:, rows] = inner_LRn.sum(axis=2, dtype=np.float64)
        flat = inner_LRn.reshape(size, -1).astype(np.float64)
        product_LL += flat @ flat.T
        for x in range(size):
            for y in range(x, size):
                near = np.exp(2 * SHARPNESS * (x_LnD[x, rows] @ x_LnD[y].T - 1))
                near[same[1:]] = 0.0
                potential_LL[x, y] += near.sum(dtype=np.float64)
    potential_LL = np.triu(potential_LL) + np.triu(potential_LL, 1).T
    if n < FEWEST_TEXTS:
        return potential_LL, np.full((size, size), np.nan)
    total_L = sums_Ln.sum(axis=1)
    hsic_LL = product_LL + np.outer(total_L, total_L) / ((n - 1) * (n - 2)) - 2 / (n - 2) * (sums_Ln @ sums_Ln.T)
    return potential_LL, hsic_LL / (n * (n - 3))


def _slices(n: int) -> Iterator[slice]:
    for start in range(0, n, BLOCK_ROWS):
        yield slice(start, min(start + BLOCK_ROWS, n))


def evenly(count: int, most: int) -> Int64s:
    """Up to `most` numbers below `count`, spread evenly; all of them, where they are no more."""
    return np.arange(count) if count <= most else np.arange(most) * count // most
