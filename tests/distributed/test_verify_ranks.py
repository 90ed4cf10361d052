"""Every layout's gradient is right, and the check finds each of the known mistakes."""

import itertools
from dataclasses import replace

import pytest
import torch
from torch.nn.functional import cross_entropy

from hbtrain.config import from_tree, to_tree
from hbtrain.modeling import loss as loss_module
from hbtrain.modeling.gather import ProcessGroup
from hbtrain.modeling.loss import BatchLoss
from hbtrain.training import feed as feed_module
from hbtrain.training import gradients as gradients_module
from hbtrain.training import loop as loop_module
from hbtrain.training.engine import Engine
from hbtrain.training.verify import compare, plain_gradient, trained_gradient
from tests.distributed.ranks import run_ranks
from tests.distributed.verify_matrix import (
    HALF,
    LAYOUTS,
    agreements,
    build_frozen,
    build_initial,
    config,
    on_rank,
    worker,
    write_source,
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("verify")
    write_source(folder)
    build_initial(folder, config(folder, 1, *LAYOUTS[0]))
    return folder


@pytest.mark.parametrize(("workers", "layouts"), [(1, HALF), (2, LAYOUTS), (3, HALF)])
def test_every_layout_has_the_gradient_of_one_process(folder, workers, layouts):
    found = agreements(folder, workers, layouts)
    wrong = [(layout, a) for layout, a in zip(layouts, found, strict=True) if not a.holds]
    assert not wrong


def test_half_of_the_layouts_has_any_three_options_together():
    for options in itertools.combinations(range(4), 3):
        together = [{tuple(layout[option] for option in options) for layout in layouts} for layouts in (HALF, LAYOUTS)]
        assert together[0] == together[1]


def test_learned_temperature_dimensions_and_a_budget_of_tokens(folder):
    overrides = {
        "loss.learn_temperature": True,
        "loss.matryoshka_dimensions": [4, 8],
        "training.chunk_tokens": 100,
        "training.chunks": 1,
    }
    layouts = [(stage, 1, "fp32", False) for stage in (0, 2, 3)]
    assert all(a.holds for a in agreements(folder, 2, layouts, **overrides))


OBJECTIVES = {
    "several positives, hardness and queries in two languages": {
        "loss.terms": {"contrastive": 0.6, "jensen_shannon": 1.0, "reversed": 0.4, "bridge": 0.2},
        "loss.translations": 1,
        "loss.positives": "translations",
        "loss.hardness": 3.0,
        "loss.hardness_of": "in_batch",
        "loss.learn_temperature": True,
    },
    "guide and teacher": {
        "loss.guide": "frozen",
        "loss.guide_margin": 0.05,
        "loss.guide_language": "en",
        "loss.teacher": "frozen",
        "loss.terms": {"teacher_kl": {0: 0.0, 2: 1.0}, "teacher_margin": 0.5, "teacher_cosine": 0.3},
        "loss.matryoshka_dimensions": [8],
    },
    "scores of rows": {
        "loss.guide": "scores",
        "loss.guide_margin": 0.1,
        "loss.teacher": "scores",
        "loss.terms": {"teacher_kl": 1.0, "teacher_margin": 1.0},
        "loss.teacher_temperature": 0.5,
        "loss.positives": "translations",
        "loss.positives_form": "in",
        "loss.translations": 2,
    },
}


@pytest.mark.parametrize(
    ("workers", "layouts"), [(2, [(1, 4, "fp32", False), (3, 1, "fp32", False)]), (3, [(0, 1, "fp32", True)])]
)
def test_every_objective_has_the_gradient_of_one_process(folder, workers, layouts):
    build_frozen(folder, config(folder, 1, *LAYOUTS[0]))
    for name, overrides in OBJECTIVES.items():
        own = {key: str(folder / x) if x == "frozen" else x for key, x in overrides.items()}
        found = agreements(folder, workers, layouts, step=1, **own)
        assert all(a.holds for a in found), (name, found)


def gradients_by_passes(trees, folder):
    """Gradients of step 0 with texts cut as on a GPU, and how this rank would cut them if it were alone."""
    feed_module.PASS_TOKENS = 60
    loop_module.Feed = lambda *given: feed_module.Feed(*given[:-1], torch.device("cuda"))
    cuts = []
    agreed = feed_module.Feed.agreed
    feed_module.Feed.agreed = lambda feed, work, cut: cuts.append((work.cut, cut)) or agreed(feed, work, cut)
    return on_rank(trees, folder), cuts


@pytest.mark.parametrize("workers", [2, 3])
def test_batches_by_tokens_have_the_gradient_of_one_process_though_ranks_need_different_numbers(folder, workers):
    settings = [config(folder, workers, stage, 1, "fp32", False) for stage in (0, 3)]
    ranks = run_ranks(gradients_by_passes, workers, [to_tree(one) for one in settings], str(folder))
    plain = plain_gradient(settings[0], folder / "initial", 0, torch.device("cpu"))
    for got in ranks[0][0]:
        assert compare({name: torch.from_numpy(g) for name, g in got.items()}, plain, "fp32").holds
    own, agreed = zip(*(cuts[0] for _, cuts in ranks), strict=True)
    assert len(set(own)) > 1, "nothing would be shown by ranks that need the same number"
    assert len(set(agreed)) == 1
    assert min(agreed[0].batches) > 1


def without_gathering(own, sizes, group, settings, *given):
    scores = own.q_bD @ own.p_bD.T / settings.temperature
    return BatchLoss(cross_entropy(scores, torch.arange(len(scores))), {})


def with_gradient_in_the_own_slot_only(own, sizes, group, settings, *given):
    """The usual recipe: gather without gradient, put the own rows back in their slot, mean over own rows."""
    start = sum(sizes.pairs[: group.rank])
    with torch.no_grad():
        p_BD = loss_module.gather_rows(own.p_bD, sizes.pairs, group).clone()
    p_BD = torch.cat([p_BD[:start], own.p_bD, p_BD[start + len(own.p_bD) :]])
    target = torch.arange(len(own.q_bD)) + start
    return BatchLoss(cross_entropy(own.q_bD @ p_BD.T / settings.temperature, target), {})


def with_a_factor_too_many(own, sizes, group, *given):
    loss = loss_module.batch_loss(own, sizes, group, *given)
    return replace(loss, total=loss.total * group.world_size)


def with_one_side_only(own, sizes, group, settings, *given):
    return loss_module.batch_loss(own, sizes, group, settings.model_copy(update={"symmetric": False}), *given)


LOSSES = [without_gathering, with_gradient_in_the_own_slot_only, with_a_factor_too_many, with_one_side_only]


def backward_without_boundary(self, loss, last=True):
    self.deepspeed.backward(loss)


def gradient_with(tree, folder, mistaken_loss, naive):
    """The gradient of step 0 by a training that makes a mistake."""
    if mistaken_loss is not None:
        gradients_module.batch_loss = mistaken_loss
    if naive:
        Engine.backward = backward_without_boundary
    gradient = trained_gradient(from_tree(tree), worker(folder), 0)
    return {k: v.numpy() for k, v in gradient.items()} if ProcessGroup().rank == 0 else None


def agreement_with(folder, settings, mistaken_loss=None, naive=False):
    got = run_ranks(gradient_with, 2, to_tree(settings), str(folder), mistaken_loss, naive)[0]
    plain = plain_gradient(settings, folder / "initial", 0, torch.device("cpu"))
    return compare({k: torch.from_numpy(v) for k, v in got.items()}, plain, settings.encoder.precision)


@pytest.mark.parametrize("mistaken_loss", LOSSES)
def test_a_wrong_loss_is_found(folder, mistaken_loss):
    # Asymmetric and without hard negatives, so that the mistake is the only difference.
    one_sided = mistaken_loss is with_one_side_only
    overrides = {"loss.symmetric": one_sided, "loss.hard_negatives": 0}
    settings = config(folder, 2, 0, 1, "fp32", False, **overrides)
    agreement = agreement_with(folder, settings, mistaken_loss)
    assert not agreement.holds
    if mistaken_loss is with_a_factor_too_many:
        assert agreement.norm_ratio == pytest.approx(2, rel=1e-5)
        assert agreement.cosine == pytest.approx(1, abs=1e-5)
    # Coarse tolerance of bf16 must not hide it either.
    coarse = max(abs(agreement.norm_ratio - 1), abs(agreement.cosine - 1))
    assert coarse > 0.02


@pytest.mark.parametrize("stage", [1, 2])
def test_naive_accumulation_is_found(folder, stage):
    settings = config(folder, 2, stage, 4, "fp32", False)
    assert agreement_with(folder, settings).holds
    assert not agreement_with(folder, settings, naive=True).holds
