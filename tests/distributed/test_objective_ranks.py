"""Every term of the loss, value and gradient, on 1, 2 and 3 ranks against a plain process that has whole matrices."""

import pytest
import torch

from hbtrain.config.loss import LossConfig
from hbtrain.modeling.gather import ProcessGroup
from hbtrain.modeling.loss_inputs import References
from hbtrain.training.plain_loss import plain_terms
from tests.distributed.ranks import run_ranks
from tests.objective_samples import D, Sample, kept_scores, reference

GUIDES = {"model": reference(), "scores": kept_scores()}
TEACHERS = GUIDES | {"vectors": reference(29, D)}
MODEL, MANY = {"guide": "model", "teacher": "model"}, {"hard_negatives": 2}


def only(**terms):
    return {"contrastive": 0.0, **terms}


CASES = {
    "guide": {"guide": "model", "guide_margin": 0.1, "symmetric": True},
    "guide, relative, below": {"guide": "model", "guide_margin": -0.2, "guide_relative": True},
    "guide of scores": {"guide": "scores", "guide_margin": 0.3, "symmetric": True, **MANY},
    "teacher's scores of candidates": {"teacher": "model", "terms": only(teacher_kl=1.0), "teacher_temperature": 0.2},
    "teacher's scores of rows": {"teacher": "scores", "terms": only(teacher_kl=1.0), **MANY},
    "margins of candidates": {"teacher": "model", "terms": only(teacher_margin=1.0), "teacher_scale": 0.5},
    "margins of rows": {"teacher": "scores", "terms": only(teacher_margin=1.0), "teacher_scale": 0.1, **MANY},
    "vectors": {"teacher": "vectors", "terms": only(teacher_mse=1.0)},
    "angles of vectors": {"teacher": "vectors", "terms": only(teacher_cosine=1.0)},
    "several positives, out": {"positives": "translations", "symmetric": True},
    "several positives, in": {"positives": "translations", "positives_form": "in"},
    "hardness": {"hardness": 4.0, "symmetric": True},
    "hardness in batch": {"hardness": 4.0, "hardness_of": "in_batch", "symmetric": True},
    "hardness of hard negatives": {"hardness": 4.0, "hardness_of": "hard_negatives", "symmetric": True, **MANY},
    "divergence of languages": {"terms": only(jensen_shannon=1.0)},
    "divergence, several positives": {"terms": {"jensen_shannon": 1.0}, "positives": "translations"},
    "reversed": {"terms": only(reversed=1.0)},
    "bridge": {"terms": only(bridge=1.0)},
    "all of it": {
        "terms": {"teacher_kl": 0.5, "teacher_margin": 2.0, "jensen_shannon": 0.3, "reversed": 0.4, "bridge": 0.2},
        "matryoshka_dimensions": (2, 4),
        "positives": "translations",
        "positives_form": "in",
        "hardness": 1.0,
        "symmetric": True,
        **MODEL,
    },
}


def sample(config, with_queries=True):
    known = References(*(None if x is None else TEACHERS[x] for x in (config.guide, config.teacher)))
    return Sample(with_queries, known)


def configurations():
    """{name: configuration} of all cases, for two sizes of blocks."""
    return {
        f"{name}, blocks of {rows}": LossConfig(block_rows=rows, **settings)
        for name, settings in CASES.items()
        for rows in (2, 1000)
    }


def on_rank():
    """{case: (terms, gradients by leaf, what the guide dropped)} of this rank."""
    answers, group = {}, ProcessGroup()
    for name, config in configurations().items():
        batch = sample(config)
        loss = batch.loss(config, group)
        loss.total.backward()
        terms = loss.terms or {"contrastive": loss.total}
        guided = None if loss.guided_b2 is None else loss.guided_b2.numpy()
        gradients = {leaf: x.grad.numpy() for leaf, x in batch.leaves.items() if x.grad is not None}
        answers[name] = {term: x.item() for term, x in terms.items()}, gradients, guided
    return answers


@pytest.mark.parametrize("world_size", [1, 2, 3])
def test_terms_gradients_and_what_a_guide_drops_are_those_of_one_process(world_size):
    ranks = run_ranks(on_rank, world_size)
    for name, config in configurations().items():
        if config.guide is not None:
            guided = sample(config).loss(config.model_copy(update={"block_rows": 3})).guided_b2
            assert torch.equal(torch.cat([torch.from_numpy(rank[name][2]) for rank in ranks]), guided), name
            assert 0 < guided[:, 0].sum() < guided[:, 1].sum()
        plain = sample(config)
        terms, weights = plain_terms(plain.whole(), config), config.weights(0)
        sum(weights[term] * value for term, value in terms.items()).backward()
        for term, value in terms.items():
            got = sum(rank[name][0][term] for rank in ranks) / world_size
            assert got == pytest.approx(value.item(), rel=1e-5, abs=1e-6), (name, term)
        for leaf, x in plain.leaves.items():
            # Data parallelism divides the sum over ranks by W; rows of other ranks have no gradient here.
            parts = [torch.from_numpy(rank[name][1][leaf]) for rank in ranks if leaf in rank[name][1]]
            got = sum(parts) / world_size if parts else torch.zeros_like(x)
            want = torch.zeros_like(x) if x.grad is None else x.grad
            torch.testing.assert_close(got, want, rtol=1e-4, atol=1e-6, msg=lambda m, n=(name, leaf): f"{n}: {m}")


def without_translated_queries():
    """Terms and the largest gradient, where no pair has a query in another language."""
    config = LossConfig(terms=only(jensen_shannon=1.0, reversed=1.0, bridge=1.0))
    batch = sample(config, with_queries=False)
    loss = batch.loss(config, ProcessGroup())
    loss.total.backward()
    return [x.item() for x in loss.terms.values()], batch.leaves["q"].grad.abs().max().item()


def test_terms_of_translated_queries_are_zero_where_no_pair_has_one():
    for terms, gradient in run_ranks(without_translated_queries, 2):
        assert terms == [0.0] * 3
        assert gradient == 0.0
