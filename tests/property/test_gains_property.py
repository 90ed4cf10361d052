import numpy as np
import pytest
import pytrec_eval
from hypothesis import given, settings
from hypothesis import strategies as st

from hbtrain.evaluation.metrics import Rankings, graded_ndcg, ndcg

RANKED = st.dictionaries(st.integers(1, 30), st.integers(1, 4), min_size=1, max_size=15)
"""{rank: grade} of the relevant candidates of a ranking."""


@given(st.dictionaries(st.integers(0, 9), RANKED, min_size=1, max_size=4), st.randoms(use_true_random=False))
@settings(deadline=None)
def test_graded_ndcg_is_that_of_trec_eval_in_any_order(rankings, random):
    entries = [(group, rank, grade) for group, found in rankings.items() for rank, grade in found.items()]
    random.shuffle(entries)
    group, rank, gain = (np.array(column) for column in zip(*entries, strict=True))
    run = {str(g): {str(place): -float(place) for place in range(1, 41)} for g in rankings}
    judged = {str(g): {str(place): grade for place, grade in found.items()} for g, found in rankings.items()}
    wanted = pytrec_eval.RelevanceEvaluator(judged, {"ndcg_cut.10"}).evaluate(run)
    expected = [wanted[str(g)]["ndcg_cut_10"] for g in sorted(rankings)]
    assert graded_ndcg(group, rank, gain.astype(float), 10) == pytest.approx(expected, abs=1e-6)
    assert graded_ndcg(group, rank, np.ones(len(rank)), 10) == pytest.approx(ndcg(Rankings.of(group, rank), 10))
