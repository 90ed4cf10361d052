"""Laws of merging: any division of the pool gives what a sort of the whole gives."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from hbtrain.retrieval.top import NONE, Top, merge_top

SCORES = st.lists(st.sampled_from([-1.0, -0.0, 0.0, 0.25, 0.5, 1.0]), min_size=1, max_size=40)


@given(SCORES, st.integers(1, 50), st.data())
def test_any_parts_in_any_order_give_the_best_of_all(scores, k, data):
    n = len(scores)
    owner = data.draw(st.lists(st.integers(0, 3), min_size=n, max_size=n))
    parts = []
    for part in range(4):
        places = [i for i in range(n) if owner[i] == part]
        best = data.draw(st.permutations(places))  # an index gives equal ones in any order, and merging puts it right
        best = sorted(best, key=lambda i: -scores[i])[: max(k, 1)] if len(places) <= k else best
        padding = data.draw(st.integers(0, 2))
        row = [scores[i] for i in best] + [-np.inf] * padding
        parts.append(Top(np.array([row], np.float32), np.array([[*best, *[NONE] * padding]], np.int64)))
    found = merge_top(data.draw(st.permutations(parts)), k)
    expected = sorted(range(n), key=lambda i: (-scores[i], i))[:k]
    assert [place for place in found.places[0].tolist() if place != NONE] == expected
    assert found.scores[0][: len(expected)].tolist() == [scores[i] for i in expected]
    assert np.isneginf(found.scores[0][len(expected) :]).all()


@given(st.lists(SCORES, min_size=1, max_size=5), st.integers(1, 6))
def test_merging_in_steps_is_merging_at_once(rows, k):
    start = 0
    parts = []
    for row in rows:
        parts.append(Top(np.array([row], np.float32), np.arange(start, start + len(row))[None]))
        start += len(row)
    stepwise = parts[0]
    for part in parts[1:]:
        stepwise = merge_top([merge_top([stepwise], k), merge_top([part], k)], k)
    at_once = merge_top(parts, k)
    np.testing.assert_array_equal(merge_top([stepwise], k).places, at_once.places)
    np.testing.assert_array_equal(merge_top([stepwise], k).scores, at_once.scores)
