"""What a run says of itself, and how others judge it by that."""

import json
import os
import platform
import time

import psutil
import pytest

from hbtrain.config import load_config
from hbtrain.errors import StorageError, Terminated, TrainingError
from hbtrain.events import Event, NullObserver
from hbtrain.runs import run_status
from hbtrain.runs.recorder import Recorder
from hbtrain.runs.run_folder import RunFolder
from hbtrain.runs.run_log import LOG
from hbtrain.runs.run_states import Fared, fared, mark_lost, runs_in
from hbtrain.runs.run_status import HEARTBEAT, RunStatus, StatusWriter
from hbtrain.storage import place
from hbtrain.storage.lease import this_machine
from hbtrain.tracking.tracker import Tracker

NOW = 1_700_000_000.0
HERE = {"machine": this_machine(), "pid": os.getpid(), "process_started_s": psutil.Process().create_time()}
DEAD = {**HERE, "process_started_s": 1.0}  # the pid is that of another process by now
CONTAINER = {**DEAD, "host": platform.node(), "machine": "another"}  # of the same host name, with processes of its own
ELSEWHERE = {"host": "another-machine", "pid": 1, "process_started_s": 1.0}


def begin(folder, finished=False, **fields):
    """A folder as a run has one, with a heartbeat of `fields` if there are any."""
    folder.mkdir(parents=True)
    (folder / "config.yaml").write_text("")
    (folder / "run.json").write_text(json.dumps({"finished": finished}))
    if fields:
        (folder / HEARTBEAT).write_text(RunStatus(time_s=NOW, **fields).model_dump_json())
    return folder


@pytest.mark.parametrize(
    ("fields", "silent_s", "state"),
    [
        (HERE, 5, "running"),
        (HERE, 89, "running"),
        (HERE, 91, "silent"),
        (HERE, 601, "lost"),
        (DEAD, 19, "running"),
        (DEAD, 21, "lost"),
        (CONTAINER, 300, "silent"),
        (ELSEWHERE, 300, "silent"),
        (ELSEWHERE, 601, "lost"),
        (ELSEWHERE | {"every_s": 60.0}, 239, "running"),
        (ELSEWHERE | {"every_s": 60.0}, 241, "silent"),
        (HERE | {"state": "failed", "reason": "nan"}, 9999, "failed"),
        (HERE | {"state": "killed"}, 9999, "killed"),
        (HERE | {"state": "stopped"}, 9999, "stopped"),
    ],
)
def test_the_state_follows_from_the_age_of_the_heartbeat_and_the_driver_s_process(tmp_path, fields, silent_s, state):
    found = fared(begin(tmp_path / "run", **fields), now_s=NOW + silent_s)
    assert found.state == state
    assert found.is_well == (state in ("running", "stopped"))
    assert found.silent_s == silent_s


def test_runs_without_a_heartbeat_and_damaged_ones(tmp_path):
    assert fared(begin(tmp_path / "old")).state == "unknown"
    assert fared(begin(tmp_path / "done", finished=True)).state == "finished"
    assert fared(begin(tmp_path / "later", finished=True, **ELSEWHERE), now_s=NOW + 9999).state == "finished"
    torn = begin(tmp_path / "torn", **HERE)
    (torn / HEARTBEAT).write_text('{"state": "run')
    assert fared(torn).state == "damaged"
    assert not fared(torn).is_well
    (torn / HEARTBEAT).unlink()
    (torn / "run.json").write_text("[]")
    assert "run.json is damaged" in fared(torn).note


def sweep_and_runs(root):
    begin(root / "quickstart-1", **HERE)
    (root / "artifacts").mkdir()
    begin(root / "grid-2", **HERE)
    (root / "grid-2" / "space.yaml").write_text("")
    begin(root / "grid-2" / "quickstart-3", **HERE)
    (root / "grid-2" / "tune").mkdir()


def listed(where):
    return [(run.path.name, run.is_sweep) for run in runs_in(where, NOW)]


def test_a_storage_a_sweep_and_a_run_are_found(tmp_path):
    sweep_and_runs(tmp_path / "runs")
    all_of_it = [("grid-2", True), ("quickstart-3", False), ("quickstart-1", False)]
    assert listed(tmp_path / "runs") == all_of_it
    assert listed(tmp_path / "runs" / "grid-2")[:2] == all_of_it[:2]
    assert listed(tmp_path / "runs" / "quickstart-1") == all_of_it[2:]
    for nothing in (tmp_path / "none", tmp_path / "runs" / "artifacts"):
        with pytest.raises(StorageError, match="holds no run"):
            runs_in(nothing)


def test_in_a_bucket_as_in_a_folder(tmp_path, bucket):
    sweep_and_runs(tmp_path / "runs")
    for file in (path for path in (tmp_path / "runs").rglob("*") if path.is_file()):
        bucket.put(file.relative_to(tmp_path).as_posix(), file.read_bytes())
    assert listed(place(f"{bucket.uri}/runs")) == listed(tmp_path / "runs")
    assert listed(place(f"{bucket.uri}/runs/quickstart-1")) == [("quickstart-1", False)]
    with pytest.raises(StorageError, match="holds no run"):
        runs_in(place(f"{bucket.uri}/elsewhere"))


def test_a_heartbeat_is_written_again_and_again_and_tells_how_it_ended(tmp_path, monkeypatch):
    monkeypatch.setattr(run_status, "EVERY_S", 0.01)
    writer = StatusWriter(tmp_path, steps=10)
    with writer.beating():
        first = RunStatus.read(tmp_path)
        writer.set(step=3)
        while (seen := RunStatus.read(tmp_path)).step != 3:
            time.sleep(0.005)
    assert (first.state, first.pid, first.steps) == ("running", os.getpid(), 10)
    assert seen.time_s > first.time_s
    assert RunStatus.read(tmp_path).state == "finished"


@pytest.mark.parametrize(
    ("error", "state", "reason"),
    [
        (TrainingError("the loss is nan"), "failed", "the loss is nan"),
        (Terminated("ended by SIGTERM"), "killed", "ended by SIGTERM"),
        (KeyboardInterrupt(), "killed", "interrupted by Ctrl-C"),
        (ZeroDivisionError("by zero"), "failed", "ZeroDivisionError('by zero')"),
    ],
)
def test_how_it_ended_by_an_error(tmp_path, error, state, reason):
    with pytest.raises(type(error)), StatusWriter(tmp_path).beating():
        raise error
    status = RunStatus.read(tmp_path)
    assert (status.state, status.reason) == (state, reason)


def test_a_storage_that_fails_ends_nothing(tmp_path):
    with StatusWriter(tmp_path / "missing").beating():
        pass
    assert not (tmp_path / "missing").exists()


class Letters:
    """In place of a tracker: keeps the tags."""

    run_id, uri = "abc", "postgresql://me:secret@host/mlflow"

    def __init__(self):
        self.told = {}

    def tags(self, tags):
        self.told |= tags


def test_a_recorder_counts_tags_and_logs_what_it_passes_on(tmp_path):
    config = load_config("quickstart", {"storage": str(tmp_path)})
    now, seen, letters = [0.0], [], Letters()

    class Observer(NullObserver):
        def event(self, event):
            seen.append(event)

    for _ in range(2):
        recorder = Recorder(RunFolder(tmp_path), letters, Observer(), config, lambda: now[0])
        with recorder.running():
            recorder.phase("waiting up to 60 s for 2 workers")
            recorder.event(Event(100, {}, "goes on from the checkpoint of step 100", kind="resume"))
            now[0] += 50
            figures = {"train/loss": 0.5, "train/pairs_per_s": 640.0, "train/workers": 2.0, "train/skipped_steps": 7.0}
            recorder.event(Event(200, figures))
            recorder.event(Event(200, {}, "rank 1 hangs since 10:00", kind="hang", rank=1, time_s=0.0))
            recorder.event(Event(200, {}, "rank 1 died", kind="restart", rank=1))
            recorder.event(Event(210, {}, "stopped early: no better", kind="early stop"))
            recorder.event(Event(210, {}, "checkpoint of step 210 kept", kind="checkpoint"))
    assert len(seen) == 12
    status = RunStatus.read(tmp_path)
    assert (status.restarts, status.hangs, status.waits, status.skipped_steps) == (2, 2, 2, 7), "over both attempts"
    assert (status.step, status.loss, status.pairs_per_s, status.workers) == (210, 0.5, 640.0, 2)
    assert status.steps_per_s == pytest.approx(2.0)
    assert (status.mlflow_run_id, status.tracking_uri) == ("abc", "postgresql://me:***@host/mlflow")
    assert letters.told["note.hang"] == "1970-01-01T00:00:00.000Z step 200: rank 1 hangs since 10:00"
    assert letters.told["note.early_stop"].endswith("step 210: stopped early: no better")
    assert (letters.told["count.restarts"], letters.told["count.hangs"]) == (2, 2)
    assert "note.checkpoint" not in letters.told
    logged = [json.loads(line) for line in (tmp_path / LOG).read_text().splitlines()]
    assert len(logged) == 16
    assert logged[-1]["phase"] == "finished"


@pytest.fixture
def tracked(tmp_path, monkeypatch):
    """A function that makes the MLflow run of a run in `tmp_path`, and its status."""
    monkeypatch.chdir(tmp_path)
    config = load_config("quickstart", {"storage": str(tmp_path / "runs")})
    (tmp_path / "runs").mkdir()

    def make():
        tracker = Tracker(config, None, "one")
        return tracker, RunStatus(mlflow_run_id=tracker.run_id, tracking_uri=tracker.uri, time_s=NOW)

    return make


def test_mlflow_learns_of_a_lost_run_and_of_no_other(tracked, tmp_path):
    runs = [tracked() for _ in range(3)]
    runs[2][0].finish("FAILED")
    states = ["lost", "silent", "lost"]
    found = [Fared(tmp_path, state, status) for state, (_, status) in zip(states, runs, strict=True)]
    assert mark_lost(found) == []
    ended = [tracker._client.get_run(tracker.run_id) for tracker, _ in runs]
    assert [run.info.status for run in ended] == ["KILLED", "RUNNING", "FAILED"]
    assert ended[0].data.tags["driver_lost"] == "no heartbeat since 2023-11-14T22:13:20.000Z"
    assert "driver_lost" not in ended[2].data.tags


def test_an_mlflow_that_is_away_is_said_and_not_fatal(tmp_path):
    status = RunStatus(mlflow_run_id="abc", tracking_uri=f"sqlite:///{tmp_path}/none.db")
    (problem, *_) = mark_lost([Fared(tmp_path / "run", "lost", status)])
    assert problem.startswith("MLflow was not told that run is lost: there is no MLflow database")
