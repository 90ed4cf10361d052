"""Laws of mixtures of kinds: how often each kind is drawn, and that everything else is as without a mixture."""

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from scipy.stats import binom

from hbtrain.batching import BatchPlan
from hbtrain.batching.permutation import key_of, uniform
from hbtrain.config.batching import KINDS, BatchingConfig
from hbtrain.corpus.conflicts import SourceIndex

LANGUAGES = ("ar", "de", "en", "sw")
ROWS, SIZE, STEPS = 96, 8, 600
SWITCHING = {"lexicons": {"de-en": "unread", "sw-fi": "unread"}}  # a plan holds no texts, and reads no lexicons

WEIGHT = st.one_of(st.just(0.0), st.floats(0.001, 1000))
WEIGHTS = st.dictionaries(st.sampled_from(KINDS), WEIGHT, min_size=1).filter(lambda weights: sum(weights.values()) > 0)
POINTS = st.dictionaries(st.integers(0, STEPS), WEIGHTS, min_size=1, max_size=4)
MIXTURES = st.one_of(WEIGHTS, POINTS)
SEEDS = st.integers(0, 2**16)


def plan(seed=0, **batching):
    source = SourceIndex.complete("talks", ROWS, LANGUAGES)
    return BatchPlan([source], BatchingConfig(global_batch_size=SIZE, switching=SWITCHING, **batching), None, seed)


def kinds(one, steps=STEPS):
    return [one.catalogue.offers[number].kind for number in one.draws(0, steps)]


def share(mixture, kind, step):
    """The probability of a kind at a step, by the definition: of normalised weights, straight lines between points."""
    points = mixture if isinstance(next(iter(mixture.values())), dict) else {0: mixture}
    normalised = {at: weights.get(kind, 0.0) / sum(weights.values()) for at, weights in points.items()}
    if step <= min(normalised):
        return normalised[min(normalised)]
    for left, right in pairwise(sorted(normalised)):
        if step <= right:
            part = (step - left) / (right - left)
            return (1 - part) * normalised[left] + part * normalised[right]
    return normalised[max(normalised)]


@settings(max_examples=40)
@given(MIXTURES, SEEDS)
def test_every_step_has_the_kind_into_whose_part_its_uniform_number_falls(mixture, seed):
    drawn = kinds(plan(seed, mixture=mixture))
    numbers = uniform(key_of(seed, "kind"), np.arange(STEPS, dtype=np.int64))
    for step, (kind, number) in enumerate(zip(drawn, numbers, strict=True)):
        before = sum(share(mixture, other, step) for other in KINDS[: KINDS.index(kind)])
        assert before - 1e-9 <= number < before + share(mixture, kind, step) + 1e-9
        assert share(mixture, kind, step) > 0


@settings(max_examples=60)
@given(MIXTURES)
def test_the_largest_uniform_number_gives_a_kind_that_has_a_share(mixture):
    """However the sum of the shares is rounded."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("hbtrain.batching.plan.uniform", lambda key, steps: np.full(len(steps), np.nextafter(1.0, 0.0)))
        drawn = kinds(plan(mixture=mixture))
    for step, kind in enumerate(drawn):
        assert share(mixture, kind, step) > 0
        assert not any(share(mixture, other, step) > 1e-12 for other in KINDS[KINDS.index(kind) + 1 :])


@settings(max_examples=25)
@given(WEIGHTS, SEEDS)
def test_over_many_steps_kinds_are_as_frequent_as_their_weights_say(weights, seed):
    steps = 20_000
    drawn = kinds(plan(seed, mixture=weights), steps)
    for kind in KINDS:
        p = weights.get(kind, 0.0) / sum(weights.values())
        low, high = binom.ppf([1e-7, 1 - 1e-7], steps, p)
        assert low <= drawn.count(kind) <= high


@settings(max_examples=25)
@given(st.floats(0, 1), SEEDS)
def test_alpha_is_the_mixture_of_two_kinds(alpha, seed):
    two = plan(seed, mixture={"cross": 1 - alpha, "mono": alpha})
    assert two.fingerprint(0, 60) == plan(seed, alpha=alpha).fingerprint(0, 60)


@settings(max_examples=25)
@given(st.dictionaries(st.integers(0, 60), st.floats(0, 1), min_size=1, max_size=4), SEEDS)
def test_a_schedule_of_alpha_is_the_schedule_of_the_mixture_of_two_kinds(alphas, seed):
    two = plan(seed, mixture={step: {"mono": alpha, "cross": 1 - alpha} for step, alpha in alphas.items()})
    assert two.fingerprint(0, 60) == plan(seed, alpha=alphas).fingerprint(0, 60)


@pytest.mark.parametrize("kind, mode", [("mono", "monolingual"), ("cross", "cross-lingual"), ("multi", "multilingual")])
def test_a_mixture_of_one_kind_is_its_mode(kind, mode):
    assert plan(5, mixture={kind: 3}).fingerprint(0, 40) == plan(5, mode=mode).fingerprint(0, 40)


@settings(max_examples=25)
@given(WEIGHTS, st.floats(1e-3, 1e3), SEEDS)
def test_only_the_proportions_of_weights_count(weights, factor, seed):
    scaled = {kind: weight * factor for kind, weight in weights.items()}
    assert kinds(plan(seed, mixture=weights)) == kinds(plan(seed, mixture=scaled))


@settings(max_examples=25)
@given(MIXTURES, SEEDS)
def test_every_kind_is_pure(mixture, seed):
    one = plan(seed, mixture=mixture)
    for step in range(0, 90, 3):
        batch = one.batch(step)
        queries, passages = np.array(batch.query_languages), np.array(batch.passage_languages)
        same = queries == passages
        if batch.kind == "cross":
            assert not same.any()
        else:
            assert same.all()
            assert batch.kind == "multi" or len(set(queries)) == 1
            assert batch.kind != "switched" or queries[0] in ("de", "sw")


@settings(max_examples=15)
@given(MIXTURES, SEEDS)
def test_no_row_is_repeated_in_an_epoch(mixture, seed):
    one = plan(seed, mixture=mixture)
    dealt = {}
    for step, number in enumerate(one.draws(0, 250).tolist()):
        dealt.setdefault(number, []).append(one.batch(step).rows)
    for batches in dealt.values():
        for first in range(0, len(batches), ROWS // SIZE):
            rows = np.concatenate(batches[first : first + ROWS // SIZE])
            assert len(set(rows.tolist())) == len(rows)


@settings(max_examples=15)
@given(MIXTURES, SEEDS, st.lists(st.integers(0, 40_000), min_size=2, max_size=6))
def test_a_batch_is_the_same_whichever_were_asked_for_before(mixture, seed, steps):
    """As after a resume, also in steps beyond the first table of draws."""
    one, other = plan(seed, mixture=mixture), plan(seed, mixture=mixture)
    there = [one.fingerprint(step, step + 1) for step in steps]
    back = [other.fingerprint(step, step + 1) for step in reversed(steps)]
    assert there == back[::-1]


@settings(max_examples=25)
@given(MIXTURES, SEEDS, st.integers(0, STEPS), st.integers(1, SIZE))
def test_any_number_of_workers_has_the_same_global_batch(mixture, seed, step, workers):
    whole = plan(seed, mixture=mixture).batch(step)
    parts = [plan(seed, mixture=mixture).batch(step).shard(rank, workers) for rank in range(workers)]
    assert {part.kind for part in parts} == {whole.kind}
    for name in ("rows", "query_codes", "passage_codes"):
        assert np.array_equal(np.concatenate([getattr(part, name) for part in parts]), getattr(whole, name))


@settings(max_examples=25)
@given(WEIGHTS, WEIGHTS, SEEDS)
def test_neighbouring_mixtures_differ_in_no_more_steps_than_their_parts_do(one, other, seed):
    first, second = plan(seed, mixture=one), plan(seed, mixture=other)
    ends = np.cumsum([[share(weights, kind, 0) for kind in KINDS] for weights in (one, other)], axis=1)
    moved = np.abs(ends[0] - ends[1])[:-1].sum()
    assume(moved < 0.9)
    unequal = sum(a != b for a, b in zip(kinds(first), kinds(second), strict=True))
    assert unequal <= binom.ppf(1 - 1e-7, STEPS, moved) + 1
    for step in range(STEPS):
        a, b = (p.catalogue.offers[p.draws(step, step + 1)[0]] for p in (first, second))
        if a.kind == b.kind:
            assert a.label == b.label
