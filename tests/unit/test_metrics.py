import numpy as np
import pytest

from hbtrain.evaluation.metrics import METRICS, Rankings, ndcg, rank_distance, recall


def test_values_worked_out_by_hand():
    # Ranking 2 has relevant candidates at 1, 4 and 20; ranking 5 has one at 2.
    rankings = Rankings.of(np.array([2, 5, 2, 2]), np.array([20, 2, 1, 4]))
    assert rankings.group.tolist() == [2, 5]
    assert rankings.relevant.tolist() == [3, 1]
    values = {name: metric(rankings) for name, metric in METRICS.items()}
    assert values["map"] == pytest.approx([(1 / 1 + 2 / 4 + 3 / 20) / 3, 1 / 2])
    assert values["mrr"] == pytest.approx([1, 1 / 2])
    assert values["recall@1"] == pytest.approx([1 / 3, 0])
    assert values["recall@10"] == pytest.approx([2 / 3, 1])
    ideal = 1 + 1 / np.log2(3) + 1 / np.log2(4)
    assert values["ndcg@10"] == pytest.approx([(1 + 1 / np.log2(5)) / ideal, 1 / np.log2(3)])
    assert rank_distance(rankings).tolist() == pytest.approx([19, np.nan], nan_ok=True)


def test_the_ideal_gain_stops_at_the_cut_off():
    rankings = Rankings.of(np.zeros(12, np.int64), np.arange(1, 13))
    assert ndcg(rankings, 10) == pytest.approx([1.0])
    assert recall(rankings, 10) == pytest.approx([10 / 12])
