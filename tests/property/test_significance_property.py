"""Laws of the statistics: against scipy, enumeration, and what the definitions promise."""

from itertools import product

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from hbtrain.evaluation import significance
from hbtrain.evaluation.significance import bootstrap_means, draw_counts, holm, interval, permutation_p_values


def boot(values, weights, resamples, seed=0, present=None):
    """[R, K] of one system."""
    present = np.ones(values.shape, bool) if present is None else present
    return bootstrap_means(values[None], weights, present, resamples, seed)[:, 0]


p_values = st.lists(st.floats(0, 1), min_size=1, max_size=20)
small_differences = st.lists(st.integers(-4, 4).map(float), min_size=1, max_size=9)


@given(small_differences)
@settings(max_examples=60, deadline=None)
def test_permutation_equals_enumeration(differences):
    observed = abs(sum(differences))
    flips = [
        abs(sum(s * d for s, d in zip(signs, differences, strict=True)))
        for signs in product((1, -1), repeat=len(differences))
    ]
    want = sum(flip >= observed for flip in flips) / len(flips)
    got = permutation_p_values(np.array(differences)[:, None], resamples=2 ** len(differences))
    assert got == pytest.approx([want])


@pytest.mark.parametrize("units", [8, 12])
def test_permutation_equals_scipys_exact_one(units):
    d = np.random.default_rng(units).normal(0.3, 1, (units, 3))
    want = [
        stats.permutation_test((d[:, k],), np.sum, permutation_type="samples", n_resamples=np.inf).pvalue
        for k in range(3)
    ]
    assert permutation_p_values(d, resamples=2**units) == pytest.approx(want)


def test_random_flips_come_near_scipys():
    d = np.random.default_rng(1).normal(0.12, 1, 200)
    want = stats.permutation_test((d,), np.mean, permutation_type="samples", n_resamples=9999, rng=5).pvalue
    got = permutation_p_values(d[:, None], 9999, seed=3)[0]
    # Both are shares of 9,999 flips: their difference has a standard deviation below 0.007.
    assert got == pytest.approx(want, abs=0.03)


def test_p_values_are_uniform_under_the_null():
    """By definition: over all flips of the same differences, P(p <= level) <= level, and nearly equal."""
    d = np.random.default_rng(2).normal(size=10)
    signs = np.array(list(product((1.0, -1.0), repeat=10)))
    p = permutation_p_values((signs * d).T, resamples=2**10)
    for level in (0.01, 0.05, 0.2, 0.5, 0.9):
        assert level - 2 / 2**10 <= np.mean(p <= level) <= level + 1e-12


def test_random_p_values_are_valid_under_the_null():
    d = np.random.default_rng(3).normal(size=(60, 2000))
    p = permutation_p_values(d, resamples=199, seed=4)
    for level in (0.05, 0.2, 0.5):
        assert np.mean(p <= level) == pytest.approx(level, abs=0.06)
    assert p.min() >= 1 / 200


@given(st.integers(2, 40), st.integers(0, 1000))
@settings(max_examples=30, deadline=None)
def test_permutation_is_symmetric_and_does_not_depend_on_scale_or_company(units, seed):
    d = np.random.default_rng(seed).normal(size=(units, 3))
    p = permutation_p_values(d, 99, seed)
    assert permutation_p_values(-d, 99, seed) == pytest.approx(p)
    assert permutation_p_values(d * 1e-3, 99, seed) == pytest.approx(p)
    assert permutation_p_values(d[:, [1]], 99, seed)[0] == pytest.approx(p[1])
    assert permutation_p_values(np.zeros((units, 1)), 99, seed)[0] == 1


def test_results_do_not_depend_on_the_blocks(monkeypatch):
    generator = np.random.default_rng(0)
    d, values = generator.normal(size=(37, 2)), generator.random((37, 3))
    weights = np.eye(3)
    before = permutation_p_values(d, 500), boot(values, weights, 500)
    monkeypatch.setattr(significance, "BLOCK_BYTES", 8 * 37 * 7)
    after = permutation_p_values(d, 500), boot(values, weights, 500)
    assert before[0].tolist() == after[0].tolist()
    assert np.allclose(before[1], after[1])


@given(p_values)
@settings(deadline=None)
def test_holm_is_between_the_raw_values_and_bonferroni(values):
    p, adjusted = np.array(values), holm(values)
    assert np.all(adjusted >= p)
    assert np.all(adjusted <= np.minimum(1, p * len(p)) + 1e-12)
    order = np.argsort(p, kind="stable")
    assert np.all(np.diff(adjusted[order]) >= 0), "a smaller p-value never becomes the larger one"
    assert adjusted.min() == pytest.approx(min(1.0, p.min() * len(p)))


@given(p_values, st.floats(0.001, 0.5))
@settings(deadline=None)
def test_holm_rejects_what_the_step_down_procedure_rejects(values, level):
    rejected = set()
    for rank, place in enumerate(np.argsort(values, kind="stable")):
        if values[place] > level / (len(values) - rank):
            break
        rejected.add(place)
    adjusted = holm(values)
    clear = {i for i in range(len(values)) if abs(adjusted[i] - level) > 1e-9}
    assert {i for i in clear if adjusted[i] < level} == rejected & clear


@given(p_values, st.randoms())
@settings(deadline=None)
def test_holm_does_not_depend_on_order(values, random):
    order = list(range(len(values)))
    random.shuffle(order)
    assert holm(np.array(values)[order]) == pytest.approx(holm(values)[order])


@given(st.lists(st.floats(0, 1), min_size=1, max_size=40), st.integers(0, 100))
@settings(max_examples=50, deadline=None)
def test_the_interval_contains_the_mean(values, seed):
    resampled = boot(np.array(values)[:, None], np.ones((1, 1)), 400, seed)
    low, high = interval(resampled)
    assert low[0] - 1e-12 <= np.mean(values) <= high[0] + 1e-12


def test_the_interval_covers_as_often_as_it_says():
    generator = np.random.default_rng(7)
    values = generator.random((150, 400))  # 400 samples of 150 questions
    low, high = interval(boot(values, np.eye(400), 800, seed=1))
    assert np.mean((low <= 0.5) & (high >= 0.5)) == pytest.approx(0.95, abs=0.04)


def test_the_interval_is_scipys():
    values = np.random.default_rng(8).beta(0.4, 0.6, 300)
    want = stats.bootstrap((values,), np.mean, n_resamples=4000, method="percentile", rng=1).confidence_interval
    low, high = interval(boot(values[:, None], np.ones((1, 1)), 4000, seed=2))
    assert [low[0], high[0]] == pytest.approx([want.low, want.high], abs=0.005)


def test_cells_with_missing_questions_are_means_over_those_they_have():
    generator = np.random.default_rng(9)
    values, present = generator.random((25, 4)), generator.random((25, 4)) < 0.5
    weights = np.array([[0.25, 1.0], [0.25, 0.0], [0.25, 0.0], [0.25, 0.0]])
    got = boot(np.where(present, values, np.nan), weights, 50, 3, present)
    counts = np.concatenate(list(draw_counts(25, 50, 3)))
    for resample, scores in zip(counts, got, strict=True):
        rows = np.repeat(np.arange(25), resample.astype(int))
        means = [values[rows, c][present[rows, c]].mean() if present[rows, c].any() else np.nan for c in range(4)]
        assert scores == pytest.approx([np.nanmean(means), means[0]], nan_ok=True)


def test_a_complete_table_may_take_the_short_way():
    values = np.random.default_rng(10).random((30, 5))
    weights = np.full((5, 1), 0.2)
    whole = boot(values, weights, 40, 2, np.ones((30, 5), bool))
    means = np.concatenate([(counts @ values / 30).mean(axis=1) for counts in draw_counts(30, 40, 2)])
    assert whole[:, 0] == pytest.approx(means)


def test_systems_share_their_resamples():
    generator = np.random.default_rng(11)
    values, present, weights = generator.random((2, 20, 3)), generator.random((20, 3)) < 0.7, np.eye(3)
    for known in (present, np.ones_like(present)):
        both = bootstrap_means(values, weights, known, 30, 5)
        assert np.allclose(both[:, 1], boot(values[1], weights, 30, 5, known), equal_nan=True)
