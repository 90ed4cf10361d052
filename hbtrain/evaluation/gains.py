"""nDCG where some candidates are more relevant than others. Shapes: P relevant candidates in all, G rankings."""

from __future__ import annotations

import numpy as np

from hbtrain.evaluation.collection import Floats, Int64s


def graded_ndcg(group: Int64s, rank: Int64s, gain: Floats, k: int) -> Floats:
    """[G] gain / log2(1 + rank) summed over the first k, over that of the best possible ranking; as in trec_eval.

    Args:
        group: int64 [P], the number of each relevant candidate's ranking; results are in ascending order of these.
        rank: int64 [P] from 1.
        gain: float64 [P], above 0.
        k: the cut-off.
    """
    groups, number = np.unique(group, return_inverse=True)
    best_first = np.lexsort((-gain, number))
    starts = np.searchsorted(number[best_first], np.arange(len(groups)))
    ideal_rank = np.empty_like(rank)
    ideal_rank[best_first] = np.arange(len(gain)) - starts[number[best_first]] + 1

    def discounted(ranks: Int64s) -> Floats:
        weights = np.where(ranks <= k, gain / np.log2(1.0 + ranks), 0.0)
        return np.bincount(number, weights, len(groups)).astype(np.float64)

    return np.asarray(discounted(rank) / discounted(ideal_rank), np.float64)
