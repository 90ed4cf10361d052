"""Evaluation during training: what is chosen and refused, shares of encoding, the best encoder, time and words."""

import io
import json
import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from hbtrain.cli.display import RunDisplay
from hbtrain.config import load_config, override, training_values
from hbtrain.errors import ConfigError
from hbtrain.evaluation import during_training
from hbtrain.evaluation.benchmark import Benchmark, Collection
from hbtrain.evaluation.benchmarks import load_benchmark, parse_benchmark
from hbtrain.evaluation.during_training import score_names, select
from hbtrain.evaluation.evaluate import evaluate
from hbtrain.evaluation.geometry import PAIR_METRICS
from hbtrain.events import Event
from hbtrain.modeling.encoder import Encoder
from hbtrain.modeling.gather import SingleProcess
from hbtrain.modeling.loss import BatchLoss
from hbtrain.storage import write_text
from hbtrain.training.best import BEST, Best, Patience, best_in, best_text
from hbtrain.training.feed import Work
from hbtrain.training.meter import Meter
from hbtrain.training.stopwatch import Stopwatch
from tests.unit.evaluation_samples import HashEncoder, random_benchmark
from tests.unit.tiny_models import encoder_config

DEMO = load_benchmark(parse_benchmark("demo"))


def config(**changes):
    return load_config("quickstart", {"evaluation.every": 100, **{f"evaluation.{k}": v for k, v in changes.items()}})


def named(name, questions=12):
    return replace(random_benchmark(questions=questions), name=name)


def graded(name):
    """Queries in one language, of which one has two relevant documents."""
    languages, relevant = ["sw"] * 2, [np.array([0, 3]), np.array([1])]
    parts = ["a", "b", "c", "d"]
    gains = [np.array([1.0, 2.0]), np.array([1.0])]
    return Benchmark.of(
        name, "passage", Collection(name, ["1", "2"], languages, ["x", "y"], parts, parts, {"sw": 4}, relevant, gains)
    )


def single(name):
    """One query with one relevant document, in one language."""
    collection = Collection(name, ["1"], ["sw"], ["x"], ["a", "b"], ["a", "b"], {"sw": 2}, [np.array([1])])
    return Benchmark.of(name, "passage", collection)


@pytest.mark.parametrize(
    "benchmark",
    [
        DEMO,
        named("sample"),
        graded("graded"),
        single("single"),
        replace(named("pairs"), settings=("cross",)),
        load_benchmark(parse_benchmark("demo"), ["de"]),
    ],
    ids=lambda benchmark: benchmark.name,
)
def test_the_names_of_scores_are_those_of_an_evaluation(benchmark):
    macro = evaluate(HashEncoder(), benchmark).macro
    assert sorted(score_names(benchmark)) == sorted(key for key in macro if key.split("/")[2] not in PAIR_METRICS)


def test_small_benchmarks_are_evaluated_and_others_told(monkeypatch):
    small, large = named("small", 3), named("large", 40)
    sizes = {
        b.name: math.prod(len(x) for x in (c.question_ids, c.candidate_ids))
        for b in (small, large)
        for c in b.collections()
    }
    monkeypatch.setattr(during_training, "SMALL", sizes["small"])
    chosen = select(config(), [large, small])
    assert chosen.names == ("small",)
    texts = sum(len(c.question_ids) + len(c.candidate_ids) for c in small.collections())
    assert chosen.lines[0] == f"evaluates small every 100 steps of training: at most {texts} texts each time"
    assert chosen.lines[1].startswith(f"leaves large out during training: {sizes['large']:,} scores")
    assert select(config(during=["small", "large"]), [large, small]).names == ("large", "small")
    assert len(select(config(during="large"), [large, small]).lines) == 1, "what was not asked for is not told"
    assert select(load_config("quickstart"), [small]).names == ()


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"during": ["dmeo"]}, ["evaluation.during = 'dmeo'", "did you mean demo?", "there are demo, large"]),
        (
            {"keep_best": "demo/multi/mpa"},
            ["'demo/multi/mpa' is not computed", "did you mean demo/multi/map?", "demo/cross/mrr@10"],
        ),
        ({"keep_best": "demo/mono/rank_distance"}, ["is not computed", "did you mean demo/multi/rank_distance?"]),
        ({"keep_best": "large/multi/map"}, ["large is not evaluated during training, only demo", "evaluation.during"]),
    ],
)
def test_choices_that_cannot_be(monkeypatch, changes, words):
    large = named("large", 40)
    monkeypatch.setattr(during_training, "SMALL", 660 * 660)
    monkeypatch.setattr(during_training, "_size", lambda b: {"demo": 660 * 660, "large": 660 * 661}[b.name])
    with pytest.raises(ConfigError) as error:
        select(config(**changes), [DEMO, large])
    for word in words:
        assert word in str(error.value)


def test_where_nothing_is_small_or_there_is_nothing(monkeypatch):
    with pytest.raises(ConfigError, match="evaluation.benchmarks is empty"):
        select(config(), [])
    monkeypatch.setattr(during_training, "SMALL", 5)
    with pytest.raises(ConfigError, match=r"sample has [\d,]+\); name those to evaluate"):
        select(config(), [named("sample")])


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"evaluation.every": 401}, "evaluation.every 401 is beyond training.steps 400"),
        ({"evaluation.keep_best": "demo/multi/map"}, "evaluation.keep_best needs evaluation.every"),
        ({"evaluation.during": "demo"}, "evaluation.during needs evaluation.every"),
        ({"evaluation.every": 10, "evaluation.index": "Flat"}, "leave out one of them"),
    ],
)
def test_settings_that_do_not_go_together(changes, words):
    with pytest.raises(ConfigError, match=words) as error:
        load_config("quickstart", changes)
    assert not str(error.value).startswith("evaluation: evaluation.")


def test_patience_may_follow_the_score():
    assert config(keep_best="demo/multi/map").training.patience is None
    changes = {"training.patience": 2, "training.validate_every": None, "data.validation": None}
    assert override(config(keep_best="demo/multi/map"), changes).training.patience == 2


def test_only_what_chooses_the_model_makes_another_run():
    plain, evaluated, chosen = (
        training_values(c) for c in (load_config("quickstart"), config(), config(keep_best="a"))
    )
    assert plain == evaluated
    assert {k: chosen[k] for k in chosen.keys() - plain.keys()} == {
        "evaluation.keep_best": "a",
        "evaluation.every": 100,
    }


@pytest.mark.parametrize("backbone", ["static", "transformer"])
@pytest.mark.parametrize("ranks", [2, 3, 7])
def test_shares_add_up_to_the_whole(backbone, ranks):
    texts = [f"{'word ' * (i % 9)} {i}" for i in range(60)]
    encoder = Encoder.build(encoder_config(backbone), lambda: texts, 0)
    calls = [[] for _ in range(ranks)]
    parts = [
        encoder.encode(texts, "query", batch_size=9, progress=calls[i].append, share=(i, ranks)) for i in range(ranks)
    ]
    whole = encoder.encode(texts, "query", batch_size=9)
    assert np.sum(parts, axis=0, dtype=np.float32).tobytes() == whole.tobytes()
    assert all(call == calls[0] for call in calls), "as many signs of life on every rank"
    assert all(np.any(part, axis=1).sum() < len(texts) for part in parts)
    assert encoder.notes == [], "vectors of other ranks are no sign of a collapse"


@given(st.lists(st.one_of(st.just(math.nan), st.integers(0, 4).map(float)), max_size=12), st.booleans())
def test_the_first_of_the_best_is_the_best(values, lower):
    patience = Patience(3, "demo/multi/rank_distance" if lower else "demo/multi/recall@10")
    for step, value in enumerate(values):
        patience.improved(value, step)
    real = [value for value in values if not math.isnan(value)]
    if not real:
        assert patience.best is None
        return
    best = (min if lower else max)(real)
    assert patience.best == Best(values.index(best), best)
    assert patience.waited == len(values) - 1 - values.index(best)
    assert patience.exhausted == (patience.waited >= 3)


def test_which_encoder_a_folder_holds(tmp_path):
    assert best_in(tmp_path / "none") is None
    write_text(tmp_path / BEST, best_text(Best(40, 0.1 + 0.2), "demo/multi/map"))
    assert best_in(tmp_path) == Best(40, 0.1 + 0.2)
    assert json.loads((tmp_path / BEST).read_text())["metric"] == "demo/multi/map"
    for damaged in ("", "{}", "[]", '{"step": null, "value": 1}'):
        write_text(tmp_path / BEST, damaged)
        assert best_in(tmp_path) is None


def test_time_of_evaluations_is_not_of_training(monkeypatch):
    now = [0.0]
    monkeypatch.setattr("hbtrain.training.stopwatch.time.perf_counter", lambda: now[0])
    watch = Stopwatch(torch.device("cpu"))
    meter = Meter(SingleProcess(), watch, torch.device("cpu"))
    batch = type("Batch", (), {"kind": "mono", "__len__": lambda self: 50})()
    meter.add(Work(batch, None, [], [], None, 100, 100), BatchLoss(torch.tensor(1.0), {}))
    now[0] += 2
    with watch.phase("evaluation", whole=True), watch.phase("encode"):
        now[0] += 98
    figures = meter.read()
    assert figures["train/pairs_per_s"] == 25
    assert figures["system/time_share_encode"] == 0


def test_scores_have_a_line(monkeypatch):
    monkeypatch.setattr("hbtrain.cli.display.time.monotonic", lambda: 0.0)
    out = io.StringIO()
    scores = {"mono/map": 0.5, "mono/mrr": 0.75, "multi/map": 0.25, "multi/rank_distance": 1234.56}
    metrics = {f"eval/{name}/{key}": score for name in ("demo", "a/b") for key, score in scores.items()}
    with RunDisplay(Console(file=out, width=300), steps=40) as display:
        display.event(Event(20, metrics | {"system/evaluation_s": 2.0}, "the best encoder so far by demo/multi/map"))
    lines = [line[line.index("step") :] for line in out.getvalue().splitlines()]
    assert lines == [
        "step 20: demo  mAP monolingual 0.500  mAP multilingual 0.250  rank distance 1,234.6",
        "step 20: a/b  mAP monolingual 0.500  mAP multilingual 0.250  rank distance 1,234.6",
        "step 20: the best encoder so far by demo/multi/map",
    ]
