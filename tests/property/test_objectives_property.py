"""Laws of the terms of the loss, on batches with duplicates, hard negatives and translations."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from hbtrain.config.loss import LossConfig
from hbtrain.modeling.loss_inputs import Reference, References
from hbtrain.modeling.objectives import bridge, jensen_shannon, teacher_kl, teacher_margin
from tests.objective_samples import E, Sample, kept_scores, reference, vectors

SEEDS = st.integers(0, 2**31)
FEW = settings(max_examples=25, deadline=None)


def scores(seed, rows=4, columns=7):
    return vectors(seed, rows, columns)


def left_out(seed, rows=4, columns=7):
    """bool [rows, columns]: some, and never those of the diagonal."""
    mask = vectors(seed, rows, columns) > 0.8
    return mask.fill_diagonal_(False)


def value(references=None, **keys):
    """The loss of the sample, and the gradient by its queries."""
    batch = Sample(references=references)
    loss = batch.loss(LossConfig(**keys))
    loss.total.backward()
    return loss, batch.leaves["q"].grad


@FEW
@given(SEEDS, st.floats(0.05, 5.0), st.floats(-50, 50))
def test_divergence_is_zero_for_a_teacher_that_differs_by_a_constant_in_each_row(seed, scale, constant):
    s, mask = scores(seed).requires_grad_(), left_out(seed + 1)
    shifted = s.detach() + constant * torch.arange(4.0)[:, None]
    loss = teacher_kl(s, shifted, mask, scale, scale)
    loss.backward()
    assert loss.item() == pytest.approx(0, abs=1e-3 * scale)
    assert s.grad.abs().max() < 1e-3 * scale
    other = scores(seed + 2)
    plain, moved = (teacher_kl(s, t, mask, scale, scale).item() for t in (other, other + constant))
    assert moved == pytest.approx(plain, rel=1e-3, abs=1e-4)
    assert plain > 0


@FEW
@given(SEEDS, st.floats(-20, 20), st.floats(0.1, 3.0))
def test_margins_do_not_know_a_constant_and_follow_the_scale(seed, constant, factor):
    s, t, mask, own = scores(seed), scores(seed + 1), left_out(seed + 2), torch.arange(4)
    plain = teacher_margin(s, t, mask, own, factor).item()
    moved = teacher_margin(s + constant, t - constant, mask, own, factor).item()
    assert moved == pytest.approx(plain, rel=1e-3)
    assert teacher_margin(factor * t, t, mask, own, factor).item() == pytest.approx(0, abs=1e-5)


@FEW
@given(SEEDS, st.floats(0.1, 200.0))
def test_divergence_of_languages_is_symmetric_bounded_and_zero_for_equal_queries(seed, scale):
    s, other, mask = scores(seed).requires_grad_(), scores(seed + 1), left_out(seed + 2)
    loss = jensen_shannon(s, other, mask, scale)
    loss.backward()
    assert 0 <= loss.item() <= 4 * math.log(2) + 1e-5
    assert jensen_shannon(other, s, mask, scale).item() == pytest.approx(loss.item(), rel=1e-4, abs=1e-6)
    assert jensen_shannon(s, s, mask, scale).item() == pytest.approx(0, abs=1e-5)
    assert s.grad.isfinite().all()
    assert (s.grad[mask] == 0).all()


@FEW
@given(SEEDS, st.floats(0.1, 50.0))
def test_the_bridge_is_zero_for_equal_scores_and_positive_for_others(seed, scale):
    s, other, mask = scores(seed), scores(seed + 1), left_out(seed + 2)
    assert bridge(s, s, mask, scale).item() == pytest.approx(0, abs=1e-5)
    assert bridge(s, other, mask, scale).item() > 0


@FEW
@given(SEEDS, st.floats(-1.0, 1.0), st.floats(0.0, 0.5), st.booleans())
def test_a_larger_margin_drops_no_less(seed, margin, more, relative):
    known = References(guide=reference(seed))
    keys = {"guide": "m", "guide_relative": relative}
    more = min(more, 1.0 - margin)
    dropped, again = (value(known, guide_margin=x, **keys)[0].guided_b2 for x in (margin, margin + more))
    assert (again[:, 0] >= dropped[:, 0]).all()
    assert (again[:, 1] == dropped[:, 1]).all()
    assert (again[:, 0] <= again[:, 1]).all()


@FEW
@given(SEEDS)
def test_a_guide_that_drops_nothing_changes_nothing(seed):
    one_direction = Reference(*(torch.eye(1, E).expand(len(x), E) for x in vars(reference()).values()))
    plain, gradient = value()
    guided, same = value(References(guide=one_direction), guide="m")
    assert guided.guided_b2[:, 0].sum() == 0, "what it scores as high as the positive stays"
    assert torch.equal(guided.total, plain.total)
    assert torch.equal(same, gradient)
    strict = value(References(guide=one_direction), guide="m", guide_margin=0.01)[0]
    assert strict.total.item() == pytest.approx(0, abs=1e-6), "no negative is left"


@FEW
@given(st.floats(0.0, 10.0), st.sampled_from(["all", "in_batch"]))
def test_hardness_weighs_negatives_with_weights_that_are_held_fixed(hardness, which):
    """The gradient is that of InfoNCE in which each negative counts as often as its weight says."""
    keys = {"hardness": hardness, "hardness_of": which if hardness else "all", "temperature": 0.1}
    weighted, gradient = value(**keys)
    batch = Sample()
    whole = batch.whole()
    s = whole.queries @ whole.candidates.T
    same = whole.candidate_ids[: len(s), None] == whole.candidate_ids
    same[:, : len(s)] |= whole.query_ids[:, None] == whole.query_ids
    same[:, -len(whole.owners.translation_K) :] |= (
        whole.query_ids[:, None] == whole.query_ids[whole.owners.translation_K]
    )
    own = torch.eye(*s.shape, dtype=torch.bool)
    of_pair = torch.zeros_like(own)
    of_pair[whole.owners.negative_M, len(s) + torch.arange(len(whole.owners.negative_M))] = True
    weights = (hardness * s.detach()).exp()
    weights[own] = 1.0
    if which == "in_batch":
        weights[of_pair] = 1.0
    weights[same & ~own] = 0.0
    sums = ((s * whole.scale).exp() * weights).sum(1)
    loss = (sums.log() - s.diagonal() * whole.scale).mean()
    loss.backward()
    assert weighted.total.item() == pytest.approx(loss.item(), rel=1e-4)
    torch.testing.assert_close(gradient, batch.leaves["q"].grad, rtol=1e-3, atol=1e-5)
    assert hardness == 0 or loss.item() > 0


@FEW
@given(st.floats(0.02, 1.0))
def test_the_mean_inside_the_logarithm_is_at_most_the_mean_outside(temperature):
    keys = {"temperature": temperature, "positives": "translations"}
    outside, inside = (value(**keys, positives_form=form)[0].total.item() for form in ("out", "in"))
    assert inside <= outside + 1e-4


@FEW
@given(SEEDS)
def test_one_positive_is_infonce_in_either_form(seed):
    batch = Sample()
    kept = batch.ids.candidate_C.clone()
    kept[:] = torch.arange(len(kept))  # no candidate is the passage of another pair
    batch.ids = type(batch.ids)(batch.ids.query_B, kept)
    plain = batch.loss(LossConfig()).total.item()
    for form in ("out", "in"):
        config = LossConfig(positives="translations", positives_form=form)
        assert batch.loss(config).total.item() == pytest.approx(plain, rel=1e-6)


@FEW
@given(st.integers(0, 200), st.floats(0.0, 3.0), st.floats(0.0, 3.0))
def test_weights_lie_on_straight_lines_and_the_loss_is_their_sum(step, first, last):
    terms = {"contrastive": 0.5, "teacher_margin": {10: first, 110: last}, "jensen_shannon": {0: 1.0}}
    config = LossConfig(terms=terms, teacher="scores", hard_negatives=2)
    share = min(max((step - 10) / 100, 0), 1)
    weights = config.weights(step)
    expected = {"contrastive": 0.5, "teacher_margin": (1 - share) * first + share * last, "jensen_shannon": 1.0}
    if first == last == 0:
        del expected["teacher_margin"]
    assert weights == pytest.approx(expected)
    loss = Sample(references=References(teacher=kept_scores())).loss(config, weights=weights)
    assert loss.total.item() == pytest.approx(
        sum(weight * loss.terms[term].item() for term, weight in weights.items()), rel=1e-5
    )
