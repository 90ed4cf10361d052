"""What the cosine between gradients is computed from, and where it is refused; tests/distributed has its figures."""

import math

import pytest
import torch
from torch import nn

from hbtrain.batching import BatchPlan
from hbtrain.config import load_config, override
from hbtrain.config.load import training_values
from hbtrain.corpus import ParallelCorpus
from hbtrain.errors import ConfigError, HbtrainError
from hbtrain.modeling.gather import SingleProcess
from hbtrain.runs.preflight import preflight
from hbtrain.training.gradient_cosine import cosine, cosine_plans
from hbtrain.training.gradients import without_dropout

ONE_KIND = {"mono": {"batching.mode": "monolingual"}, "cross": {"batching.mode": "cross-lingual"}}


@pytest.fixture
def config(tmp_path):
    changes = {"data.cache": str(tmp_path / "cache"), "training.gradient_cosine_every": 5, "evaluation.benchmarks": []}
    return load_config("quickstart", changes | {"batching.global_batch_size": 16, "resources.workers": 1})


@pytest.mark.parametrize(
    "batching",
    [
        {"batching.alpha": 0.25},
        {"batching.mode": "english"},
        {"batching.mixture": {"multi": 1}},
        {"batching.mixture": {0: {"mono": 1}, 9: {"mono": 1, "cross": 2, "multi": 1}}},
    ],
)
def test_both_batches_are_those_of_runs_with_one_kind(config, batching):
    corpus = ParallelCorpus.from_config(config)
    run = override(config, batching)
    own = BatchPlan.over(corpus, run)
    before = own.fingerprint(0, 20)
    for kind, plan in zip(("mono", "cross"), cosine_plans(run, corpus, own), strict=True):
        assert plan.fingerprint(0, 40) == BatchPlan.over(corpus, override(config, ONE_KIND[kind])).fingerprint(0, 40)
    assert own.fingerprint(0, 20) == before


def test_a_source_of_one_language_beside_a_parallel_one_is_no_reason_to_refuse(config, write_source, rows):
    english = write_source(rows(32, ("en",)))
    run = override(config, {"data.sources": ["demo", str(english)], "batching.mode": "monolingual"})
    preflight(override(run, {"data.languages": ["de", "en"]}))


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"training.deepspeed": {"zero_optimization": {"stage": 3}}}, "whole gradients on every rank, which ZeRO-3"),
        ({"batching.mode": "monolingual", "data.languages": ["de"]}, "data do not give both .*two languages or more"),
        ({"batching.mode": "english", "data.languages": ["en"]}, "data do not give both .*training languages are en"),
    ],
)
def test_what_cannot_be_compared_is_refused_beforehand(config, changes, words):
    with pytest.raises(HbtrainError, match=words) as refused:
        preflight(override(config, changes))
    assert str(refused.value).startswith("training.gradient_cosine_every")
    preflight(override(config, changes | {"training.gradient_cosine_every": None}))


@pytest.mark.parametrize("every", [0, -3, 601, "often"])
def test_a_number_of_steps_that_cannot_be_is_refused(every):
    with pytest.raises(ConfigError, match=r"training\.gradient_cosine_every"):
        load_config("quickstart", {"training.steps": 600, "training.gradient_cosine_every": every})


def test_a_run_goes_on_with_or_without_it(config):
    assert training_values(config) == training_values(override(config, {"training.gradient_cosine_every": None}))


def test_cosine_of_gradients_in_parts(monkeypatch):
    monkeypatch.setattr("hbtrain.training.gradient_cosine.PIECE", 7)
    torch.manual_seed(0)
    one, other = ([torch.randn(5, 4), torch.randn(3)] for _ in range(2))
    flat = [torch.cat([g.flatten() for g in parts]) for parts in (one, other)]
    want = torch.cosine_similarity(*flat, dim=0).item()
    assert cosine(one, other, SingleProcess()) == pytest.approx(want, abs=1e-6)
    assert cosine(one, [-3 * g for g in one], SingleProcess()) == pytest.approx(-1)
    assert math.isnan(cosine(one, [torch.zeros_like(g) for g in one], SingleProcess()))


def test_dropout_is_off_for_a_while_and_nothing_else_is():
    module = nn.Sequential(nn.Dropout(0.5), nn.TransformerEncoderLayer(8, 2, dropout=0.25, batch_first=True)).train()
    x = torch.ones(1, 3, 8)
    with without_dropout(module):
        assert torch.equal(module(x), module(x))
        assert all(part.training for part in module.modules())
    assert module[0].p == 0.5
    assert module[1].self_attn.dropout == 0.25
    assert not torch.equal(module(x), module(x))
