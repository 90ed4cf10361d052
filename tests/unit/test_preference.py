"""Measures of language preference, against examples computed by hand and the published program of PEER."""

import ir_measures
import numpy as np
import peer_measure
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from hbtrain.evaluation.preference import best_ranks, equal_expected_rank, first_candidates, preferences


def of_one(ranks, own=0):
    """The preferences of one query: {language: ranks of its relevant candidates}."""
    pairs = [(language, rank) for language, found in ranks.items() for rank in found]
    query = np.zeros(len(pairs), np.int64)
    best = best_ranks(query, np.array([x for x, _ in pairs]), np.array([rank for _, rank in pairs]), 3)
    return {name: values[0] for name, values in preferences(best, np.array([own])).items()}


def test_preferences_of_an_example_by_hand():
    found = of_one({0: [2], 1: [1], 2: [4]})
    assert found["own_first"] == 0
    assert found["own_before"] == 0.5
    # (1 / log2 3 + .5 / log2 2 + .5 / log2 5) / (1 / log2 2 + .5 / log2 3 + .5 / log2 4)
    assert found["lang_ndcg@10"] == pytest.approx(0.859980, abs=1e-6)


def test_of_several_relevant_candidates_in_a_language_the_best_counts():
    assert of_one({0: [9, 2], 1: [1, 8], 2: [4, 5]}) == of_one({0: [2], 1: [1], 2: [4]})


def test_a_query_without_translations_has_no_preference():
    found = of_one({0: [3]})
    assert np.isnan(found["own_first"])
    assert np.isnan(found["own_before"])
    assert found["lang_ndcg@10"] == 0.5
    assert all(np.isnan(value) for value in of_one({1: [1], 2: [2]}).values())


def test_the_first_candidate_is_one_of_four_things():
    found = first_candidates(np.array([True, True, False, False]), np.array([True, False, True, False]))
    assert np.array_equal(np.array(list(found.values())), np.eye(4))


def peer(levels, missing, depth=None):
    """PEER of one ranking: [(language, relevant)] best first, and {language: relevant candidates beyond them}."""
    first = levels[:depth]
    beyond = [missing.get(x, 0) + sum(r for y, r in levels[len(first) :] if y == x) for x in range(3)]
    codes, relevant = np.array([[x for x, _ in first]]), np.array([[r for _, r in first]], bool)
    return equal_expected_rank(codes, relevant, np.array([beyond]))[0]


@pytest.mark.parametrize(
    ("levels", "missing", "relevant_level"),
    [
        ([(0, 1), (1, 1), (1, 1), (0, 1)], {}, 1.0),
        ([(0, 1), (0, 1), (1, 1), (1, 1)], {}, 0.121335),
        ([(0, 1)], {1: 1}, 0.317311),
        ([(0, 1), (0, 1)], {1: 2}, 0.088081),
        ([(0, 1), *[(2, 0)] * 13, (0, 1)], {1: 1}, 0.657708),
        ([(2, 0), (2, 0), (0, 1)], {1: 1}, 1.0),  # all of one rank
        ([(2, 0)] * 3, {0: 1, 1: 1}, 1.0),  # none found
        ([(0, 1), (0, 1)], {}, 1.0),  # one language
    ],
)
def test_peer_of_examples_by_hand(levels, missing, relevant_level):
    assert peer(levels, missing) == pytest.approx((relevant_level + 1) / 2, abs=1e-6)


rankings = st.lists(st.tuples(st.integers(0, 2), st.booleans()), min_size=1, max_size=25)


@settings(max_examples=60)
@given(rankings)
def test_peer_is_that_of_the_published_program(levels):
    run = [ir_measures.ScoredDoc("q", f"d{i:02}", -float(i)) for i in range(len(levels))]
    # With a judgement of 0, without which the program fails on candidates that are not judged.
    judged = {f"d{i:02}": int(relevant) for i, (_, relevant) in enumerate(levels)} | {"none": 0}
    mapping = {f"d{i:02}": str(language) for i, (language, _) in enumerate(levels)} | {"none": "0"}
    measure = peer_measure.PEER(weights={0: 0.5, 1: 0.5}, lang_mapping=mapping) @ 10
    # As its provider makes the evaluator, which ir_measures' present version has no way to ask for.
    of_mapping = {id(mapping): [(10, measure)]}
    evaluator = peer_measure.PEEREvaluator([measure], {"q": judged}, of_mapping, {id(mapping): mapping})
    [found] = evaluator.iter_calc(run)
    assume(not np.isnan(found.value))
    relevant = sum(r for _, r in levels)
    if np.isnan(found.value):
        return
    # The program loses the weight of a level that no judgement has.
    assert peer(levels, {}, 10) == pytest.approx(found.value + (0 if relevant else 0.5), abs=1e-6)


@given(rankings, st.permutations(range(3)))
def test_peer_does_not_depend_on_what_languages_are_called(levels, other):
    assert peer(levels, {}, 10) == pytest.approx(peer([(other[x], r) for x, r in levels], {}, 10), abs=1e-9)
    assert 0 <= peer(levels, {}, 10) <= 1
