"""Parts of a search: the ledger, what the sampler proposes and is told, what becomes of trials, the outcome's file."""

import json
from types import SimpleNamespace

import pytest

from hbtrain.config import override
from hbtrain.runs.run_folder import RunFolder
from hbtrain.runs.segments import finished_segment, measured_by, record_scores
from hbtrain.storage import files
from hbtrain.sweeps import search_records, searches
from hbtrain.sweeps.population import first_values
from hbtrain.sweeps.search_records import Ledger, known_points, save_outcome
from hbtrain.sweeps.space import base_config, trial_of
from hbtrain.sweeps.space_file import load_space, with_flags
from hbtrain.sweeps.suggestions import Suggestions


@pytest.fixture
def space():
    return with_flags(load_space("alpha-asha"), {"training.steps": 12, "search.trials": 4})


@pytest.fixture
def base(space, tmp_path):
    return override(base_config(space), {"storage": str(tmp_path)})


def test_the_ledger_survives_a_line_that_was_cut_off(tmp_path):
    ledger = Ledger(tmp_path / "points.jsonl")
    assert ledger.points() == []
    ledger.add({"batching.alpha": 0.5})
    with (tmp_path / "points.jsonl").open("a") as out:
        out.write('{"batching.al')
    ledger.add({"batching.alpha": 0.25})
    ledger.add({"batching.alpha": 0.5})
    assert ledger.points() == [{"batching.alpha": 0.5}, {"batching.alpha": 0.25}]


@pytest.mark.parametrize("where", ["disk", "bucket"])
def test_a_thousand_points_cost_a_thousand_writes(tmp_path, monkeypatch, where):
    """Counted: the file is read once, and each point is written and parsed a fixed number of times."""
    count, parsed, written = 1000, [], []
    file, loads = tmp_path / "points.jsonl", json.loads
    monkeypatch.setattr(search_records.json, "loads", lambda text: parsed.append(text) or loads(text))
    if where == "disk":
        append = search_records.append_line
        monkeypatch.setattr(search_records, "append_line", lambda *args: written.append(args[1]) or append(*args))
        monkeypatch.setattr(files.os, "fsync", lambda _: None)
    else:
        file = Bucketed()
        monkeypatch.setattr(search_records, "write_text", lambda at, text: written.append(text) or at.write(text))
    ledger = Ledger(file)
    for number in range(count):
        ledger.add({"batching.alpha": number / count})
    for number in range(0, count, 7):  # a search that goes on proposes what is there already
        ledger.add({"batching.alpha": number / count})
    assert len(written) == count
    assert len(parsed) <= 2 * count
    assert getattr(file, "reads", 1) == 1
    assert [point["batching.alpha"] for point in Ledger(file).points()] == [number / count for number in range(count)]


class Bucketed:
    """A file where nothing can be appended, which counts how often it is read."""

    reads, text = 0, None

    def read_text(self, encoding):
        self.reads += 1
        if self.text is None:
            raise FileNotFoundError
        return self.text

    def write(self, text):
        self.text = text


def test_points_outside_a_narrower_space_are_passed_over(space, tmp_path):
    ledger = Ledger(tmp_path / "points.jsonl")
    for point in ({"batching.alpha": 0.1}, {"batching.alpha": 0.6}, {"loss.temperature": 1.0}):
        ledger.add(point)
    assert known_points(space, ledger) == [{"batching.alpha": 0.1}, {"batching.alpha": 0.6}]
    narrow = with_flags(space, {"batching.alpha": {"uniform": [0.5, 1]}})
    assert known_points(narrow, ledger) == [{"batching.alpha": 0.6}]


def test_choices_of_any_kind_are_recalled_as_they_were_drawn(space, tmp_path):
    ledger = Ledger(tmp_path / "points.jsonl")
    schedule = {0: 1.0, 4: 0.5}
    chosen = with_flags(space, {"batching.alpha": {"choice": [schedule, 0.5, None]}})
    for value in (schedule, 0.5, {0: 0.25}, None):
        ledger.add({"batching.alpha": value})
    assert [point["batching.alpha"] for point in known_points(chosen, ledger)] == [schedule, 0.5, None]


def proposals(space, base, ledger, count):
    suggestions = Suggestions(space, base, ledger)
    return suggestions, [suggestions.suggest(f"t{number}") for number in range(count)]


def test_known_points_come_first_and_new_ones_differ_from_them(space, base, tmp_path):
    ledger = Ledger(tmp_path / "points.jsonl")
    _, first = proposals(space, base, ledger, 3)
    values = [one["values"] for one in first]
    assert ledger.points() == values
    _, again = proposals(space, base, ledger, 5)
    assert [one["values"] for one in again[:3]] == values
    assert len({one["values"]["batching.alpha"] for one in again}) == 5
    assert again[0]["keys"] == values[0]
    assert again[0]["label"] == f"alpha={values[0]['batching.alpha']:g}"
    _, fresh = proposals(space, base, Ledger(tmp_path / "other.jsonl"), 3)
    assert fresh == first, "seeded"


def test_choices_of_any_kind_and_paths(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "words.txt").write_text("x")
    space = with_flags(
        load_space("alpha-asha"),
        {"batching.alpha": [0.5, {"0": 1.0, "9": 0.0}], "training.steps": 12},
    )
    base = override(base_config(space), {"storage": str(tmp_path), "encoder.static.vocabulary": "words.txt"})
    _, found = proposals(space, base, Ledger(tmp_path / "points.jsonl"), 8)
    shown = [json.dumps(one["values"]["batching.alpha"]) for one in found]
    assert set(shown) == {"0.5", '{"0": 1.0, "9": 0.0}'}


def test_the_sampler_is_told_which_scores_are_of_a_whole_training(space, base, tmp_path):
    from optuna.trial import TrialState

    suggestions, _ = proposals(space, base, Ledger(tmp_path / "points.jsonl"), 4)
    rung = {"step": 4, "multi/map": 0.25, "training_iteration": 1}
    suggestions.on_trial_result("t0", dict(rung))
    suggestions.on_trial_complete("t0", {"step": 12, "multi/map": 0.5, "training_iteration": 2})
    suggestions.on_trial_complete("t1", {**rung, "multi/map": 0.125, "done": True})
    suggestions.on_trial_result("t2", {"failure": "no disk"})
    suggestions.on_trial_complete("t2", {"failure": "no disk"})
    suggestions.on_trial_complete("t3", None, error=True)
    told = suggestions._ot_study.trials
    states = [TrialState.COMPLETE, TrialState.PRUNED, TrialState.FAIL, TrialState.FAIL]
    assert [trial.state for trial in told] == states
    assert told[0].value == 0.5
    assert told[1].intermediate_values == {1: 0.125}


def result(parameters, error=None, **metrics):
    return SimpleNamespace(config=parameters, error=error, metrics=metrics, path="/tune/x")


def test_what_became_of_trials_is_read_from_their_folders(space, base, tmp_path):
    ledger = Ledger(tmp_path / "points.jsonl")
    scores = {"demo/multi/map": 0.5, "demo/multi/map/de": 0.4}
    for alpha, steps in ((0.1, 12), (0.2, 4), (0.3, 0), (0.4, 4)):
        values = {"batching.alpha": alpha}
        ledger.add(values)
        folder = RunFolder.open(trial_of(space, base, values).config)
        folder.results.mkdir()
        (folder.results / "metrics.json").write_text(json.dumps(scores))
        if steps:
            record_scores(folder, steps, folder.results / "metrics.json", base)
        folder.update(finished=steps == 12)
    results = [
        result({"label": "alpha=0.1"}, step=12),
        result({"label": "alpha=0.2"}, step=4),
        result({"label": "alpha=0.3"}, error=RuntimeError("x\nkilled")),
        result({"label": "alpha=0.4"}, failure="no disk"),
    ]
    outcome = searches._trials(space, base, ledger, results)
    assert [(one.trial.values, one.scores) for one in outcome.finished] == [({"batching.alpha": 0.1}, scores)]
    assert [(one.trial.label, one.step) for one in outcome.stopped] == [("alpha=0.2", 4)]
    assert outcome.failures == {"alpha=0.3": "killed (traceback in /tune/x)", "alpha=0.4": "no disk"}
    save_outcome(outcome, tmp_path / "outcome.json")
    kept = json.loads((tmp_path / "outcome.json").read_text())
    assert kept["finished"] == [
        {
            "values": {"batching.alpha": 0.1},
            "scores": {"demo/multi/map": 0.5},
            "run": outcome.finished[0].folder.name,
        }
    ]
    assert kept["failed"] == outcome.failures


def test_members_have_their_schedules(base):
    space = with_flags(load_space("alpha-pbt"), {"training.steps": 12})
    changed = ((0, 0.25), (3, 0.5))
    folder = RunFolder.open(searches.member_config(base, changed))
    folder.results.mkdir()
    (folder.results / "metrics.json").write_text('{"demo/multi/map": 0.5}')
    folder.update(finished=True, measured=measured_by(base))
    same = result({"schedule": [[0, 0.25], [3, 0.5]]})
    outcome = searches._members(base, [same, same, result({"schedule": [[0, 0.1]]}, failure="no disk")])
    member, another = outcome.members
    assert member == another, "and one run of the two"
    assert (member[0], member[1].folder) == (changed, folder.path)
    (finished,) = outcome.finished
    assert finished.trial.config.batching.alpha == {0: 0.25, 2: 0.25, 3: 0.5}
    assert finished.values == {"batching.alpha": {0: 0.25, 2: 0.25, 3: 0.5}}
    assert outcome.failures == {"alpha=0.1": "no disk"}
    assert len(first_values(space.draws["batching.alpha"], space.search)) == 4


def test_a_precision_that_is_asked_for_is_a_condition_of_scores(base):
    plain, *asked = (measured_by(override(base, {"evaluation.precision": x})) for x in (None, "fp32", "bf16"))
    assert "precision" not in plain
    assert asked[0] != asked[1]


def test_scores_of_a_segment_count_only_as_they_were_measured(base, tmp_path):
    """Another measurement of a later segment of the same run does not change how an earlier one was measured."""
    other = override(base, {"evaluation.candidates": "sentence+context"})
    folder, file = RunFolder.open(base), tmp_path / "metrics.json"
    assert folder.path == RunFolder.current(other).path
    for step, config, score in ((4, base, 0.1), (8, other, 0.9)):
        file.write_text(json.dumps({"demo/multi/map": score}))
        record_scores(folder, step, file, config)
    assert finished_segment(other, 4) is None
    assert finished_segment(base, 4).scores == {"demo/multi/map": 0.1}
    assert finished_segment(other, 8).scores == {"demo/multi/map": 0.9}
    assert finished_segment(base, 8) is None


def test_segments_of_an_earlier_version_keep_their_measurement(base, tmp_path):
    folder, file = RunFolder.open(base), tmp_path / "metrics.json"
    file.write_text('{"demo/multi/map": 0.1}')
    record_scores(folder, 4, file, base)
    folder.update(measured_steps=None)
    assert finished_segment(base, 4).scores == {"demo/multi/map": 0.1}
    record_scores(folder, 8, file, override(base, {"evaluation.candidates": "sentence+context"}))
    assert finished_segment(base, 4).scores == {"demo/multi/map": 0.1}
