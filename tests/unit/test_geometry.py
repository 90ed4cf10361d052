"""How languages lie to each other, against examples by hand, laws and plain computations."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import spearmanr

from hbtrain.evaluation import geometry
from hbtrain.evaluation.geometry import language_pairs, parallel_texts, query_alignment, rank_correlation, unit
from tests.unit.evaluation_samples import only, random_benchmark


def pairs_of(*vectors):
    """The pairs of languages whose parallel vectors [n, D] are given."""
    n = len(vectors[0])
    texts = np.arange(n * len(vectors)).reshape(len(vectors), n).T
    names = tuple("abcdefg"[: len(vectors)])
    return language_pairs(names, np.concatenate(vectors).astype(np.float32).__getitem__, texts)


def noise(seed, n=40, d=6):
    return unit(np.random.default_rng(seed).normal(size=(n, d)).astype(np.float32))


def test_alignment_and_uniformity_of_an_example_by_hand():
    found = pairs_of(np.eye(2), np.array([[0.8, 0.6], [0.6, 0.8]]))
    assert found.alignment[0, 1] == pytest.approx(0.4, abs=1e-6)
    assert found.uniformity[0, 0] == pytest.approx(-4, abs=1e-6)
    assert found.uniformity[1, 1] == pytest.approx(-0.16, abs=1e-6)
    assert np.isnan(found.cka).all()
    assert (found.texts == 2).all()


def plain_hsic(k, m):
    n = len(k)
    k, m = k - np.diag(np.diag(k)), m - np.diag(np.diag(m))
    one = np.ones(n)
    return (
        np.trace(k @ m) + one @ k @ one * (one @ m @ one) / ((n - 1) * (n - 2)) - 2 / (n - 2) * one @ k @ m @ one
    ) / (n * (n - 3))


def test_cka_and_uniformity_are_those_of_the_plain_formulas():
    x, y = noise(1), unit(noise(1) + noise(2))
    wanted = plain_hsic(x @ x.T, y @ y.T) / np.sqrt(plain_hsic(x @ x.T, x @ x.T) * plain_hsic(y @ y.T, y @ y.T))
    assert 0.2 < wanted < 0.9
    found = pairs_of(x, y)
    assert found.cka[0, 1] == found.cka[1, 0] == pytest.approx(wanted, abs=1e-5)
    assert found.cka[0, 0] == pytest.approx(1)
    far = ((x[:, None] - y) ** 2).sum(axis=2)
    apart = ~np.eye(40, dtype=bool)
    assert found.uniformity[0, 1] == pytest.approx(np.log(np.exp(-2 * far[apart]).mean()), abs=1e-5)


def test_cka_is_blind_to_a_rotation_and_finds_nothing_in_shuffled_texts():
    x = noise(3, 300, 20)
    turn = np.linalg.qr(np.random.default_rng(4).normal(size=(20, 20)))[0].astype(np.float32)
    assert pairs_of(x, x @ turn).cka[0, 1] == pytest.approx(1, abs=1e-4)
    assert abs(pairs_of(x, x[np.random.default_rng(5).permutation(300)]).cka[0, 1]) < 0.1


def test_one_rotation_of_all_vectors_changes_nothing():
    x, y = noise(6), noise(7)
    turn = np.linalg.qr(np.random.default_rng(8).normal(size=(6, 6)))[0].astype(np.float32)
    one, other = pairs_of(x, y), pairs_of(x @ turn, y @ turn)
    for name in ("alignment", "uniformity", "cka"):
        assert getattr(other, name) == pytest.approx(getattr(one, name), abs=1e-4)


def test_two_languages_are_compared_on_the_texts_that_both_have():
    x = np.concatenate([noise(9), noise(10), noise(11, 2)])
    texts = np.full((40, 4), -1)
    texts[:, 0], texts[:, 1] = np.arange(40), np.arange(40, 80)
    texts[:2, 2] = [80, 81]
    found = language_pairs(("a", "b", "c", "d"), x.__getitem__, texts)
    assert found.texts.tolist() == [[40, 40, 2, 0], [40, 40, 2, 0], [2, 2, 2, 0], [0, 0, 0, 0]]
    assert found.alignment[0, 2] == pytest.approx(((x[:2] - x[80:]) ** 2).sum() / 2, abs=1e-5)
    assert np.isnan(found.cka[2]).all()  # of two texts
    assert np.isnan(found.alignment[3]).all()
    scores = found.scores("passage")
    assert scores["passage_cka"].keys() == {"", "a", "b"}
    assert scores["passage_cka"][""] == found.cka[0, 1]
    assert scores["passage_uniformity"]["c"] == found.uniformity[2, 2]
    assert scores["passage_alignment"]["c"] == pytest.approx(found.alignment[2, :2].mean())


def test_vectors_that_are_all_equal_have_no_cka():
    assert np.isnan(pairs_of(np.ones((5, 2)), noise(1, 5, 2)).cka[0]).all()


def test_of_many_texts_some_are_compared(monkeypatch):
    monkeypatch.setattr(geometry, "MOST_TEXTS", 10)
    x, y = noise(14), noise(15)
    assert pairs_of(x, y).alignment[0, 1] == pytest.approx(((x[::4] - y[::4]) ** 2).sum(axis=1).mean(), abs=1e-5)


@settings(max_examples=20)
@given(st.integers(0, 10_000), st.integers(2, 4), st.integers(2, 30))
def test_rank_correlation_is_the_mean_of_spearmans(seed, languages, candidates):
    rng = np.random.default_rng(seed)
    q, p = rng.normal(size=(languages, 5)).astype(np.float32), rng.normal(size=(candidates, 5)).astype(np.float32)
    found = rank_correlation(q, p, np.arange(languages)[None])
    for a in range(languages):
        others = [spearmanr(q[a] @ p.T, q[b] @ p.T).statistic for b in range(languages) if b != a]
        assert found[a] == pytest.approx(np.mean(others), abs=1e-9)


def test_rank_correlation_of_an_example_by_hand_and_of_a_query_without_translations():
    p = np.eye(4, dtype=np.float32)
    rank = np.array([[1, 2, 3, 4], [1, 3, 2, 4], [4, 3, 2, 1], [1, 2, 3, 4]])
    found = rank_correlation(-rank.astype(np.float32), p, np.array([[0, 1, 2], [3, -1, -1]]))
    assert found[:3] == pytest.approx([-0.1, 0.0, -0.9])
    assert np.isnan(found[3])


def test_alignment_of_a_query_is_its_mean_distance_to_its_translations():
    q = np.concatenate([noise(12, 3), noise(13, 3)])
    found = query_alignment(q, np.array([[0, 3, 4], [1, -1, -1], [2, 5, -1]]))
    assert found[0] == pytest.approx((((q[0] - q[3]) ** 2).sum() + ((q[0] - q[4]) ** 2).sum()) / 2, abs=1e-5)
    assert found[5] == pytest.approx(((q[2] - q[5]) ** 2).sum(), abs=1e-5)
    assert np.isnan(found[1])


def test_parallel_texts_are_the_translations_and_the_candidates_of_each_question():
    collection = only(random_benchmark())
    queries, answers = parallel_texts(collection)
    for row in queries:
        there = row[row >= 0].tolist()
        assert len({collection.question_ids[i] for i in there}) == 1
        assert [collection.query_codes[i] for i in there] == np.flatnonzero(row >= 0).tolist()
    assert sorted(queries[queries >= 0]) == list(range(len(collection.question_ids)))
    sets = {tuple(places) for places in map(np.ndarray.tolist, collection.relevant)}
    for row in answers:
        assert any(set(row[row >= 0].tolist()) <= set(places) for places in sets)
    assert (collection.candidate_codes[answers[answers >= 0]] == np.nonzero(answers >= 0)[1]).all()
