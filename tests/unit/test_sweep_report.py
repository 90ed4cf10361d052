"""A sweep's report judges its points against the best sampling of a single kind."""

from types import SimpleNamespace

import pytest

from hbtrain.config import absolute_paths
from hbtrain.runs.run_folder import RunFolder
from hbtrain.sweeps.findings import Summary
from hbtrain.sweeps.marks import is_single_kind, judge
from hbtrain.sweeps.points import Finished
from hbtrain.sweeps.space import trials_of
from hbtrain.sweeps.space_file import load_space, with_flags
from tests.unit.comparison_samples import macro_means, rows_of, write_results


def trained(tmp_path, space, qualities, flags):
    """Finished trials with made-up results: {the value of the first key: quality}."""
    done = []
    for trial in trials_of(with_flags(load_space(space), {"storage": str(tmp_path), **flags})):
        folder = RunFolder.open(absolute_paths(trial.config))
        rows = rows_of(qualities[next(iter(trial.values.values()))], seed=trial.config.seed)
        write_results(folder.results, rows)
        folder.update(finished=True)
        done.append(Finished(trial, macro_means(rows), folder.path))
    return done


@pytest.mark.parametrize(
    ("qualities", "baseline"), [({0: 0.1, 0.5: 0.3, 1: 0.2}, "α = 1"), ({0: 0.2, 0.5: 0.0, 1: 0.1}, "α = 0")]
)
def test_ratios_are_judged_against_the_better_end(tmp_path, cache, qualities, baseline):
    flags = {"batching.alpha": [0, 0.5, 1], "seed": [0, 1]}
    judged = judge(trained(tmp_path, "alpha-grid", qualities, flags))
    assert baseline in judged.comparison.baseline
    assert len(judged.comparison.systems) == 3


def test_marks_stand_at_the_points_that_differ(tmp_path, cache):
    done = trained(tmp_path, "alpha-grid", {0: 0.2, 0.5: 0.6, 1: 0.0}, {"batching.alpha": [0, 0.5, 1], "seed": [0, 1]})
    judged = judge(done)
    key = f"{next(iter(done[0].scores)).partition('/')[0]}/multi/map"
    assert judged.marks[("alpha=0.5", key)] == "▲"
    assert judged.marks[("alpha=1", key)] == "▼"
    assert not any(label == "alpha=0" for label, _ in judged.marks), "the one that others are judged against"
    text = Summary(done, judged=judged).markdown()
    row = next(line for line in text.splitlines() if line.startswith("| 0.5 |"))
    assert "▲" in row
    assert "▲ better, ▼ worse than X-Y only (α = 0)" in text


def test_one_point_is_not_judged(tmp_path, cache):
    assert judge(trained(tmp_path, "alpha-grid", {0.5: 0.1}, {"batching.alpha": 0.5, "seed": [0, 1]})) is None
    assert judge([]) is None


def test_samplings_are_judged_against_the_best_that_is_not_hybrid(tmp_path, cache):
    modes = ["monolingual", "hybrid", "multilingual"]
    done = trained(
        tmp_path, "samplings", dict(zip(modes, (0.0, 0.3, 0.2), strict=True)), {"batching.mode": modes, "seed": 0}
    )
    assert [is_single_kind(one.trial.config) for one in done] == [True, False, True]
    assert "ultilingual" in judge(done).comparison.baseline


def test_weights_that_are_keys_of_their_own_are_judged_together(tmp_path, cache):
    path = tmp_path / "weights.yaml"
    path.write_text("""
recipe: quickstart
overrides: {batching.mixture.mono: 1}
space: {batching.mixture.multi: {grid: [0, 1, 3]}, seed: {grid: [0, 1]}}
""")
    judged = judge(trained(tmp_path, str(path), {0: 0.2, 1: 0.6, 3: 0.0}, {}))
    assert judged.comparison.baseline == "X-X only (α = 1)"
    assert {(label, mark) for (label, key), mark in judged.marks.items() if key.endswith("multi/map")} == {
        ("multi=1", "▲"), ("multi=3", "▼"),
    }  # fmt: skip


def test_a_search_without_a_single_kind_is_compared_and_not_marked(tmp_path, cache):
    done = trained(tmp_path, "alpha-grid", {0.25: 0.0, 0.5: 0.9}, {"batching.alpha": [0.25, 0.5], "seed": 0})
    judged = judge(done)
    assert len(judged.comparison.systems) == 2
    assert (judged.marks, judged.legend) == ({}, "")
    assert "▲" not in Summary(done, judged=judged).markdown()


@pytest.mark.parametrize(
    ("space", "key", "low", "high"),
    [("backbones", "backbone", "transformer", "static"), ("ratio-batch", "batching.global_batch_size", 32, 128)],
)
def test_each_backbone_and_batch_size_is_judged_against_its_own_sampling(space, key, low, high, tmp_path, cache):
    """Hybrid batches help the one that is worse throughout; against the other's best they would not show."""
    flags = {key: [low, high], "batching.alpha": [0.5, 1], "seed": 0}
    done = []
    for trial in trials_of(with_flags(load_space(space), {"storage": str(tmp_path), **flags})):
        folder = RunFolder.open(absolute_paths(trial.config))
        rows = rows_of(0.6 * (trial.values[key] == high) + 0.3 * (trial.values["batching.alpha"] == 0.5), seed=0)
        write_results(folder.results, rows)
        folder.update(finished=True)
        done.append(Finished(trial, macro_means(rows), folder.path))
    judged = judge(done)
    marked = {label for (label, _), mark in judged.marks.items() if mark == "▲"}
    assert marked == {f"{key.rpartition('.')[2]}={value} alpha=0.5" for value in (low, high)}
    assert "the best sampling of a single kind beside it" in judged.legend


def test_learning_curves_are_read_where_the_trials_are_tracked(tmp_path, cache, monkeypatch):
    uri = f"sqlite:///{tmp_path}/of-the-sweep.db"
    done = trained(tmp_path, "alpha-grid", {0: 0.2, 1: 0.0}, {"batching.alpha": [0, 1], "seed": 0, "tracking.uri": uri})
    for number, one in enumerate(done):
        RunFolder(one.folder).update(mlflow_run_id=f"id-{number}")
    curves = {"id-0": {5: 0.5, 10: 0.6}, "id-1": {5: 0.3, 10: 0.4}}
    asked = []

    def server(given):
        asked.append(given)
        return SimpleNamespace(history=lambda run_id, metric: curves[run_id])

    monkeypatch.setattr("hbtrain.tracking.past_runs.TrackedRuns", server)
    text = Summary(done, judged=judge(done)).markdown()
    assert set(asked) == {uri}
    assert "Steps to 95% of the best" in text
    assert next(line for line in text.splitlines() if line.startswith("| X-X only (α = 1) |")).count("> 10") == 3
