"""What a trial's driver trains and tells, with training and Ray Tune taken out."""

import json
from types import SimpleNamespace

import pytest

from hbtrain.config import load_config, to_tree
from hbtrain.errors import DataError
from hbtrain.sweeps.drivers import drive_member, drive_search

OBJECTIVES = {"multi/map": "demo/multi/map"}


@pytest.fixture
def trained(monkeypatch, tmp_path):
    """What was trained, (alpha, steps); what was told; steps at which training fails; the base's tree."""
    seen = SimpleNamespace(runs=[], told=[], failing=(), pointers=[], taken=[])
    seen.base = to_tree(load_config("quickstart", {"storage": str(tmp_path), "training.steps": 12}))

    def train(config, until):
        seen.runs.append((config.batching.alpha, until))
        if until in seen.failing:
            raise DataError("no such source")
        return SimpleNamespace(scores={"demo/multi/map": until / 100, "demo/mono/map": 1.0})

    def report(told, checkpoint=None):
        seen.told.append(told)
        if checkpoint is not None:
            with checkpoint.as_directory() as folder:
                seen.pointers.append(json.loads((tmp_path / folder / "pointer.json").read_text()))

    monkeypatch.setattr("hbtrain.runs.run.train", train)
    monkeypatch.setattr("hbtrain.runs.segments.fork_run", lambda *_, **how: seen.taken.append(how))
    monkeypatch.setattr("ray.tune.report", report)
    monkeypatch.setattr("ray.tune.get_checkpoint", lambda: None)
    return seen


def search(trained, **changed):
    plan = {"base": trained.base, "rungs": [(4, 1.0), (12, 3.0)], "objectives": OBJECTIVES}
    return drive_search({"keys": {"batching.alpha": 0.25}, "label": "alpha=0.25", **changed}, plan)


def test_a_trial_reports_at_each_rung(trained):
    assert search(trained) is None
    assert trained.runs == [(0.25, 4), (0.25, 12)]
    assert trained.told == [
        {"step": 4, "resource": 1.0, "multi/map": 0.04},
        {"step": 12, "resource": 3.0, "multi/map": 0.12},
    ]


def test_a_trial_that_fails_says_why(trained):
    trained.failing = (12,)
    assert search(trained) == {"failure": "no such source"}
    assert len(trained.told) == 1
    assert search(trained, failure="alpha = 2 is not allowed") == {"failure": "alpha = 2 is not allowed"}
    assert len(trained.runs) == 2, "nothing is trained with values that no configuration has"
    failure = search(trained, keys={"batching.alpha": 2})["failure"]
    assert "less than or equal to 1" in failure


def test_an_objective_that_was_not_evaluated(trained, monkeypatch):
    scores = {"other/multi/map": 1.0}
    monkeypatch.setattr("hbtrain.runs.run.train", lambda config, until: SimpleNamespace(scores=scores))
    assert "the objective demo/multi/map was not evaluated; there are other/multi/map" in search(trained)["failure"]


def member(trained, schedule):
    plan = {"base": trained.base, "ends": (4, 8, 12), "objectives": OBJECTIVES, "worst": float("-inf")}
    return drive_member({"schedule": schedule}, plan)


def test_a_member_reports_at_each_interval_but_the_last(trained):
    assert member(trained, [[0, 0.25]]) == {"step": 12, "failure": "", "multi/map": 0.12}
    assert trained.runs == [(0.25, 4), (0.25, 8), (0.25, 12)]
    assert [(told["interval"], told["step"], told["multi/map"]) for told in trained.told] == [
        (1, 4, 0.04),
        (2, 8, 0.08),
    ]
    assert trained.pointers == [{"interval": 1, "step": 4}, {"interval": 2, "step": 8}]
    assert trained.taken == []


def test_a_member_that_took_over_goes_on_from_there(trained, monkeypatch, tmp_path):
    from ray.tune import Checkpoint

    (tmp_path / "pointer.json").write_text('{"interval": 1, "step": 4}')
    monkeypatch.setattr("ray.tune.get_checkpoint", lambda: Checkpoint.from_directory(tmp_path))
    member(trained, [[0, 0.25], [4, 0.5]])
    assert trained.runs == [({0: 0.25, 3: 0.25, 4: 0.5}, 8), ({0: 0.25, 3: 0.25, 4: 0.5}, 12)]
    assert {how["step"] for how in trained.taken} == {4}
    assert {how["origin"].batching.alpha for how in trained.taken} == {0.25}


def test_a_member_whose_segment_fails_counts_as_the_worst_and_tries_again(trained):
    trained.failing = (4,)
    assert member(trained, [[0, 0.25]])["failure"] == ""
    first, second = trained.told
    assert (first["multi/map"], first["failure"]) == (float("-inf"), "no such source")
    assert (second["multi/map"], second["failure"]) == (0.08, "")
    trained.failing = (12,)
    assert member(trained, [[0, 0.25]])["failure"] == "no such source"
