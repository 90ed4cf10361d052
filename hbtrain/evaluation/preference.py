"""Measures of language preference in a pool of all languages: which language's candidates rank first.

They say nothing of quality, and are read beside mAP. Shapes: Q queries, K first places, L languages, P relevant
candidates in all.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from scipy.special import chdtrc

from hbtrain.evaluation.metrics import FIRST_PLACES, Floats, Int64s, graded_ndcg
from hbtrain.reporting.metric_names import LANGUAGE_AWARE, OWN_BEFORE, OWN_FIRST

TRANSLATION_GAIN = 0.5
"""What a translation counts in the language-aware nDCG, where the candidate in the query's own language counts 1."""

FIRST = {
    (True, True): "first_relevant_own",
    (True, False): "first_relevant_other",
    (False, True): "first_irrelevant_own",
    (False, False): "first_irrelevant_other",
}
"""{(the first candidate is relevant, it is in the query's language): share of queries of which both hold}."""

BLOCK_QUERIES = 8192  # queries whose first places are counted at one time


def best_ranks(query_P: Int64s, language_P: Int64s, rank_P: Int64s | Floats, languages: int) -> Floats:
    """[G, L] rank of the best relevant candidate in each language, infinite where there is none.

    Args:
        query_P: number of the query of each relevant candidate; the G different ones come in ascending order.
        language_P: code of its language.
        rank_P: its rank in the pool of all languages, from 1.
        languages: L.
    """
    groups, number = np.unique(query_P, return_inverse=True)
    best_GL = np.full((len(groups), languages), np.inf)
    np.minimum.at(best_GL.reshape(-1), number * languages + language_P, rank_P)
    return best_GL


def preferences(best_GL: Floats, own_G: Int64s) -> dict[str, Floats]:
    """{measure: [G]} of queries that have a relevant candidate in their own language; NaN for others.

    - `own_first`: 1 where the relevant candidate in the query's language ranks before its translations, else 0. Its
      mean is 1 / L without preference. NaN where there are no translations.
    - `own_before`: share of the translations that rank behind it; its mean is 1 / 2 without preference.
    - `lang_ndcg@10`: nDCG in which it gains 1 and each translation half of that.

    The names stand for the language preference rate and the language-aware nDCG of arXiv 2605.07249, whose formulas
    could not be read: the definitions are these.

    Args:
        best_GL: ranks of the best relevant candidate in each language, as `best_ranks` gives them.
        own_G: code of each query's language.
    """
    rows = np.arange(len(best_GL))
    own_best_G = best_GL[rows, own_G]
    others_GL = best_GL.copy()
    others_GL[rows, own_G] = np.inf
    others_G = np.isfinite(others_GL).sum(axis=1)
    asked_G = np.isfinite(own_best_G)
    compared_G = asked_G & (others_G > 0)
    behind_G = (np.isfinite(others_GL) & (others_GL > own_best_G[:, None])).sum(axis=1)
    group, language = np.nonzero(np.isfinite(best_GL))
    gain = np.where(language == own_G[group], 1.0, TRANSLATION_GAIN)
    ndcg_G = graded_ndcg(group, best_GL[group, language], gain, FIRST_PLACES)
    return {
        OWN_FIRST: np.where(compared_G, (behind_G == others_G).astype(np.float64), np.nan),
        OWN_BEFORE: np.where(compared_G, behind_G / np.maximum(others_G, 1), np.nan),
        LANGUAGE_AWARE: np.where(asked_G, ndcg_G, np.nan),
    }


def first_candidates(relevant_Q: npt.NDArray[np.bool_], own_Q: npt.NDArray[np.bool_]) -> dict[str, Floats]:
    """{measure: [Q]}: 1 for what the first candidate is, 0 for the three things that it is not.

    Args:
        relevant_Q: whether the first candidate is relevant.
        own_Q: whether it is in the query's language.
    """
    return {
        name: ((relevant_Q == relevant) & (own_Q == own)).astype(np.float64) for (relevant, own), name in FIRST.items()
    }


def equal_expected_rank(language_QK: Int64s, relevant_QK: npt.NDArray[np.bool_], missing_QL: Int64s) -> Floats:
    """[Q] PEER: the probability that candidates of all languages rank alike, given the first K (Yang et al., SIGIR
    2024).

    The mean over two levels, relevant and not relevant, of the p-value of a Kruskal-Wallis test of the ranks by
    language. Relevant candidates beyond the first K share one rank, that of the published program: (2n + U + 1) / 2 of
    n relevant candidates of which U are missing. A level whose candidates are all of one language, or of which none
    was found, has probability 1; and so has one whose ranks are all equal, of which the program makes no number.

    Where each language has one relevant candidate, the relevant level says nothing: its statistic is the same
    whatever the order.

    Args:
        language_QK: codes of the languages of the first candidates, best first; L where a list is shorter.
        relevant_QK: which of them are relevant.
        missing_QL: relevant candidates of each language that are not among them.
    """
    found = [np.zeros(0)]
    for first in range(0, len(language_QK), BLOCK_QUERIES):
        rows = slice(first, first + BLOCK_QUERIES)
        language, relevant, missing = language_QK[rows], relevant_QK[rows], missing_QL[rows]
        of_relevant = _probability(language, relevant, missing)
        found.append((of_relevant + _probability(language, ~relevant, np.zeros_like(missing))) / 2)
    return np.concatenate(found)


def _probability(language_QK: Int64s, level_QK: npt.NDArray[np.bool_], missing_QL: Int64s) -> Floats:
    """[Q] p-values of one level, `level_QK` of the found candidates."""
    queries, languages = missing_QL.shape
    rank_K = np.arange(1, language_QK.shape[1] + 1)
    cell_QK = np.arange(queries)[:, None] * (languages + 1) + language_QK
    weight_QK = (level_QK & (language_QK < languages)).astype(np.float64)

    def summed(values_QK: Floats) -> Floats:
        """[Q, L]: the values added up by language."""
        sums: Floats = np.bincount(cell_QK.ravel(), values_QK.ravel(), queries * (languages + 1)).astype(np.float64)
        return sums.reshape(queries, languages + 1)[:, :languages]

    found_QL = summed(weight_QK)
    count_QL = found_QL + missing_QL
    count_Q, missing_Q = count_QL.sum(axis=1), missing_QL.sum(axis=1)
    common_Q = (2 * count_Q + missing_Q + 1) / 2  # the rank of all that are missing
    sum_QL = summed(weight_QK * rank_K) + missing_QL * common_Q[:, None]
    squares_Q = (weight_QK * rank_K**2).sum(axis=1) + missing_Q * common_Q**2
    mean_Q = sum_QL.sum(axis=1) / np.maximum(count_Q, 1)
    between_Q = (sum_QL**2 / np.maximum(count_QL, 1)).sum(axis=1) - count_Q * mean_Q**2
    within_Q = squares_Q - count_Q * mean_Q**2
    groups_Q = (count_QL > 0).sum(axis=1)
    tested_Q = (groups_Q > 1) & (found_QL.sum(axis=1) > 0) & (within_Q > 1e-9 * np.maximum(squares_Q, 1))
    statistic_Q = (count_Q - 1) * between_Q / np.where(tested_Q, within_Q, 1.0)
    return np.where(tested_Q, chdtrc(np.maximum(groups_Q - 1, 1), np.maximum(statistic_Q, 0)), 1.0)
