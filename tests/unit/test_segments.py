"""What a run folder knows of segments, and a run that goes on from another one's checkpoint; nothing is trained."""

import json

import pytest

from hbtrain.config import load_config, override
from hbtrain.errors import ConfigError, StorageError
from hbtrain.runs import run
from hbtrain.runs.run import train
from hbtrain.runs.run_folder import RunFolder
from hbtrain.runs.segments import (
    LINKED_BYTES,
    check_not_beyond,
    finished_segment,
    fork_run,
    last_segment,
    record_scores,
)
from hbtrain.storage.lease import leased
from hbtrain.training.best import BEST, Best, best_in, best_text
from hbtrain.training.checkpoint_files import Manifest, checkpoints_in, folder_name, is_complete, prune, store

SCORES = {"demo/multi/map": 0.5, "demo/mono/map": 0.25}


@pytest.fixture
def config(tmp_path):
    return load_config("quickstart", {"storage": str(tmp_path / "runs"), "training.steps": 12})


def evaluated(folder, scores=SCORES):
    folder.results.mkdir(exist_ok=True)
    file = folder.results / "metrics.json"
    file.write_text(json.dumps(scores))
    return file


def checkpoint(folder, step, tmp_path, size=10, token="aaaa0000", best=None):
    part = tmp_path / f"part-{step}"
    part.mkdir()
    (part / "weights.pt").write_bytes(bytes(size))
    to = folder.checkpoints / folder_name(step, token)
    best_step, value = best or (None, None)
    store(part, to, Manifest(step, 0, 1, value, best_step=best_step))
    return to


def test_a_segment_that_is_done_is_remembered_and_not_done_again(config, monkeypatch):
    monkeypatch.setattr(run, "preflight", lambda *_: pytest.fail("nothing is to be started"))
    folder = RunFolder.open(config)
    folder.update(mlflow_run_id="abc")
    assert finished_segment(config, 4) is None
    assert last_segment(config) is None
    assert record_scores(folder, 4, evaluated(folder), config) == SCORES
    evaluated(folder, {"demo/multi/map": 0.75})
    record_scores(folder, 8, folder.results / "metrics.json", config)
    outcome = train(config, until=4)
    assert (outcome.folder, outcome.run_id, outcome.step, outcome.scores) == (folder, "abc", 4, SCORES)
    assert outcome.after == ()
    assert last_segment(config).step == 8
    assert finished_segment(config, 12) is None, "the last step counts once the run has come to its end"
    folder.update(finished=True)
    assert train(config, until=12).scores == {"demo/multi/map": 0.75}
    assert train(config, until=4).scores == SCORES


def test_a_segment_without_a_wanted_benchmark_does_not_count(config):
    folder = RunFolder.open(config)
    record_scores(folder, 4, evaluated(folder, {"other/multi/map": 1.0}), config)
    assert finished_segment(config, 4) is None
    record_scores(folder, 4, evaluated(folder, {**SCORES, "other/multi/map": 1.0}), config)
    assert finished_segment(config, 4).scores == SCORES


def test_scores_that_were_measured_otherwise_do_not_count(config):
    folder = RunFolder.open(config)
    record_scores(folder, 4, evaluated(folder), config)
    assert finished_segment(override(config, {"evaluation.depth": 7}), 4).scores == SCORES, "no index, no depth"
    for other in ({"evaluation.candidates": "sentence+context"}, {"evaluation.index": "Flat"}):
        assert finished_segment(override(config, other), 4) is None
        assert last_segment(override(config, other)) is None


def test_one_process_at_a_time_is_in_a_run(config):
    folder = RunFolder.open(config)
    busy = pytest.raises(
        StorageError, match="another process is at work in .*quickstart-.*: process .*; wait for its end"
    )
    with leased(folder.path), busy:
        train(config)
    with leased(folder.path):
        pass


def test_a_run_without_benchmarks_has_segments_as_well(config):
    bare = override(config, {"evaluation.benchmarks": []})
    folder = RunFolder.open(bare)
    record_scores(folder, 4, None, bare)
    record_scores(folder, 12, None, bare)
    assert finished_segment(bare, 4).scores == {}
    assert finished_segment(bare, 12) is None
    folder.update(finished=True)
    assert finished_segment(bare, 12).scores == {}


@pytest.mark.parametrize("until", [0, 13, -1])
def test_a_step_that_training_does_not_have(config, until):
    with pytest.raises(ConfigError, match=rf"until = {until}: .* 1 to training.steps = 12 steps"):
        train(config, until=until)


def test_there_is_no_way_back(config, tmp_path):
    folder = RunFolder.open(config)
    check_not_beyond(folder, 4)
    checkpoint(folder, 8, tmp_path)
    check_not_beyond(folder, 8)
    with pytest.raises(ConfigError, match="until = 4, but the run in .* has come to step 8; stop later"):
        train(config, until=4)


def test_the_checkpoint_of_a_stop_outlives_newer_ones(config, tmp_path):
    folder = RunFolder.open(config)
    for step in (2, 4, 6, 8):
        checkpoint(folder, step, tmp_path)
    prune(folder.checkpoints, 1, "aaaa0000", (), protected_step=4)
    assert [name[:13] for name in checkpoints_in(folder.checkpoints)] == ["step-00000008", "step-00000004"]
    prune(folder.checkpoints, 1, "aaaa0000", ())
    assert [name[:13] for name in checkpoints_in(folder.checkpoints)] == ["step-00000008"]


def with_alpha(config, alpha):
    from hbtrain.config import override

    return override(config, {"batching.alpha": alpha})


def test_a_run_forks_from_a_checkpoint(config, tmp_path):
    origin = RunFolder.open(config)
    origin.update(mlflow_run_id="origin-run")
    origin.initial_model.mkdir()
    (origin.initial_model / "README.md").write_text("card")
    checkpoint(origin, 4, tmp_path, size=LINKED_BYTES)
    newest = checkpoint(origin, 8, tmp_path)
    fork = with_alpha(config, {0: 0.5, 3: 0.5, 4: 0.7})
    assert fork_run(fork, config, 4)
    folder = RunFolder.current(fork)
    (name,) = checkpoints_in(folder.checkpoints)
    assert name.startswith("step-00000004")
    assert is_complete(folder.checkpoints / name)
    assert folder.state.continues == "origin-run"
    assert folder.state.stopped_at == 4
    copied = folder.checkpoints / name / "weights.pt"
    assert copied.stat().st_ino == (origin.checkpoints / name / "weights.pt").stat().st_ino, "linked, as it is large"
    (folder.initial_model / "README.md").write_text("changed")
    assert (origin.initial_model / "README.md").read_text() == "card", "small files are its own"
    prune(origin.checkpoints, 1, "aaaa0000", ())
    assert is_complete(folder.checkpoints / name), "the origin's may go"
    assert newest.exists()


def test_a_fork_is_done_once_and_only_where_it_can_be(config, tmp_path):
    origin = RunFolder.open(config)
    origin.initial_model.mkdir()
    fork = with_alpha(config, {0: 0.5, 3: 0.5, 4: 0.7})
    assert not fork_run(fork, config, 4), "the origin has no checkpoint"
    assert not RunFolder.current(fork).path.exists()
    checkpoint(origin, 4, tmp_path)
    folder = RunFolder.open(fork)
    checkpoint(folder, 6, tmp_path)
    assert fork_run(fork, config, 4), "it has come further"
    assert len(checkpoints_in(folder.checkpoints)) == 1
    folder.update(finished=True)
    assert fork_run(fork, config, 4)
    assert not RunFolder.current(fork).path.exists()


@pytest.mark.parametrize(("held", "copied"), [((2, 0.5), True), ((6, 0.75), False), (None, False)])
def test_a_fork_takes_the_best_encoder_along(config, tmp_path, held, copied):
    """Unless the origin has found a better one since, which is not of the steps that both have in common."""
    origin = RunFolder.open(config)
    origin.initial_model.mkdir()
    origin.model.mkdir()
    (origin.model / "model.safetensors").write_bytes(b"weights")
    if held is not None:
        (origin.model / BEST).write_text(best_text(Best(*held), "demo/multi/map"))
    checkpoint(origin, 4, tmp_path, best=(2, 0.5))
    fork = with_alpha(config, {0: 0.5, 3: 0.5, 4: 0.7})
    assert fork_run(fork, config, 4)
    model = RunFolder.current(fork).model
    assert model.exists() == copied
    assert best_in(model) == (Best(2, 0.5) if copied else None)
