"""trec_eval's measures, the metrics from exact ranks and a brute force agree."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hbtrain.errors import DataError
from hbtrain.evaluation.metrics import METRICS, Rankings, graded_ndcg
from hbtrain.evaluation.trec_evaluation import TREC_MEASURES, cutoff_scores


@st.composite
def judged_lists(draw):
    """Lists over a pool of up to 150, some relevant candidates not found."""
    size = draw(st.integers(1, 150))
    order = draw(st.permutations(range(size)))
    gains = draw(st.dictionaries(st.integers(0, size - 1), st.integers(1, 3), min_size=1, max_size=12))
    return order[: draw(st.integers(0, size))], gains


def by_brute_force(order, gains):
    hits = [i for i, document in enumerate(order, 1) if document in gains]
    dcg = sum(gains[document] / math.log2(1 + i) for i, document in enumerate(order[:10], 1) if document in gains)
    best = sorted(gains.values(), reverse=True)[:10]
    return {
        "AP": sum((n + 1) / i for n, i in enumerate(hits)) / len(gains),
        "RR": 1 / hits[0] if hits else 0.0,
        "nDCG@10": dcg / sum(gain / math.log2(1 + i) for i, gain in enumerate(best, 1)),
        **{f"R@{k}": sum(i <= k for i in hits) / len(gains) for k in (1, 10, 100)},
    }


@given(st.lists(judged_lists(), min_size=1, max_size=4))
@settings(deadline=None)
def test_lists_score_as_by_brute_force(lists):
    judged = {f"q{i}": {str(d): gain for d, gain in gains.items()} for i, (_, gains) in enumerate(lists)}
    found = {f"q{i}": [str(d) for d in order] for i, (order, _) in enumerate(lists)} | {"unjudged": ["1"]}
    scores = cutoff_scores(judged, found, list(TREC_MEASURES.values()))
    for i, (order, gains) in enumerate(lists):
        for measure, value in by_brute_force(order, gains).items():
            assert scores[measure][f"q{i}"] == pytest.approx(value, abs=1e-6), measure
    assert all(list(own) == list(judged) for own in scores.values())


@given(st.lists(judged_lists(), min_size=1, max_size=4))
@settings(deadline=None)
def test_metrics_of_exact_ranks_are_trec_evals_of_the_whole_ranking(lists):
    judged, found, group, rank, gain = {}, {}, [], [], []
    for i, (order, gains) in enumerate(lists):
        whole = [*order, *sorted({*gains} - {*order})]
        judged[str(i)] = {str(d): g for d, g in gains.items()}
        found[str(i)] = [str(d) for d in whole]
        group += [i] * len(gains)
        rank += [whole.index(d) + 1 for d in gains]
        gain += gains.values()
    scores = cutoff_scores(judged, found, list(TREC_MEASURES.values()))
    rankings = Rankings.of(np.array(group), np.array(rank))
    for name, measure in TREC_MEASURES.items():
        own = METRICS[name](rankings)
        if name == "ndcg@10":
            own = graded_ndcg(np.array(group), np.array(rank), np.array(gain, float), 10)
        assert own == pytest.approx(list(scores[measure].values()), abs=1e-6), name


def test_gains_that_trec_eval_cannot_hold_are_refused():
    with pytest.raises(DataError, match="query q must be whole numbers"):
        cutoff_scores({"q": {"a": 0.5}}, {"q": ["a"]}, ["nDCG@10"])
