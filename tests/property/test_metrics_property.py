import numpy as np
import pytest
import pytrec_eval
from hypothesis import given, settings
from hypothesis import strategies as st

from hbtrain.evaluation.metrics import METRICS, Rankings, rank_distance
from hbtrain.retrieval.ranks import exact_ranks

TREC = {
    "map": "map",
    "mrr": "recip_rank",
    "recall@1": "recall_1",
    "recall@10": "recall_10",
    "recall@100": "recall_100",
    "ndcg@10": "ndcg_cut_10",
}
SCORES = st.one_of(st.integers(-3, 3).map(float), st.floats(-1, 1, width=32).map(lambda x: x + 0.0))


@st.composite
def judged(draw):
    """Scores and relevance of one query's candidates, at least one relevant."""
    scores = draw(st.lists(SCORES, min_size=1, max_size=60))
    relevance = draw(st.lists(st.booleans(), min_size=len(scores), max_size=len(scores)))
    relevance[draw(st.integers(0, len(scores) - 1))] = True
    return scores, relevance


@given(st.lists(judged(), min_size=1, max_size=4))
@settings(deadline=None)
def test_metrics_equal_trec_eval_on_the_full_ranking(queries):
    assert {*TREC, "mrr@10"} == set(METRICS)
    groups, found, run, judgements = [], [], {}, {}
    for number, (scores, relevance) in enumerate(queries):
        p = np.array(scores, np.float32)[:, None]
        ranks = exact_ranks(np.ones((1, 1), np.float32), p, np.zeros(len(p)), [np.flatnonzero(relevance)])
        groups += [number] * len(ranks.in_pool)
        found += ranks.in_pool.tolist()
        # trec_eval has its own rule for ties: give it the order by ours.
        order = sorted(range(len(scores)), key=lambda i: (-p[i, 0], i))
        run[str(number)] = {f"d{i}": float(-place) for place, i in enumerate(order)}
        judgements[str(number)] = {f"d{i}": int(r) for i, r in enumerate(relevance)}
    rankings = Rankings.of(np.array(groups)[::-1], np.array(found)[::-1])
    assert rankings.group.tolist() == list(range(len(queries)))

    evaluator = pytrec_eval.RelevanceEvaluator(judgements, {"map", "recip_rank", "recall.1,10,100", "ndcg_cut.10"})
    expected = evaluator.evaluate(run)
    for name, measure in TREC.items():
        wanted = [expected[str(number)][measure] for number in range(len(queries))]
        assert METRICS[name](rankings) == pytest.approx(wanted, abs=1e-6)
    first = [expected[str(number)]["recip_rank"] for number in range(len(queries))]
    assert METRICS["mrr@10"](rankings) == pytest.approx([x if x > 1 / 10.5 else 0 for x in first], abs=1e-6)


@given(st.dictionaries(st.integers(0, 5), st.sets(st.integers(1, 1000), min_size=1), min_size=1))
def test_rank_distance_is_highest_minus_lowest(ranks):
    group = np.array([g for g, r in ranks.items() for _ in r])
    rankings = Rankings.of(group, np.array([rank for r in ranks.values() for rank in r]))
    wanted = [max(ranks[g]) - min(ranks[g]) if len(ranks[g]) > 1 else np.nan for g in sorted(ranks)]
    np.testing.assert_array_equal(rank_distance(rankings), wanted)
