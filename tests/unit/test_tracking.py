import re
import threading
from contextlib import nullcontext
from types import SimpleNamespace

import pytest

from hbtrain.config import load_config, override, to_flat
from hbtrain.errors import DataError, LeaseLostError, StorageError
from hbtrain.events import Event
from hbtrain.storage import RemoteError
from hbtrain.tracking.tracker import Tracker
from hbtrain.tracking.uris import TrackingError, tracking_uri


@pytest.fixture
def config(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return load_config("quickstart", {"storage": str(tmp_path / "runs"), "tracking.experiment": "tests"})


@pytest.fixture
def tracker(config, tmp_path):
    (tmp_path / "runs").mkdir()
    return Tracker(config, None, "one")


def stored(tracker):
    return tracker._client.get_run(tracker.run_id)


def test_parameters_are_the_flat_configuration(tracker, config):
    parameters = stored(tracker).data.params
    assert parameters.keys() == to_flat(config).keys() - {"tracking.run_name"}, "which MLflow has as the name"
    assert parameters["batching.alpha"] == "0.5"
    assert parameters["data.sources"] == "demo", "a list as the command line takes it"


@pytest.mark.parametrize(
    ("mixture", "told"),
    [
        ({"mono": 1, "cross": 3}, {"mono": "0.25", "cross": "0.75", "multi": "0.0", "switched": "0.0"}),
        ({0: {"mono": 1}, 50: {"cross": 2}}, {"0.mono": "1.0", "50.cross": "2.0"}),
    ],
)
def test_a_constant_mixture_is_told_as_the_share_of_each_kind(config, tmp_path, mixture, told):
    (tmp_path / "runs").mkdir()
    run = stored(Tracker(override(config, {"batching.mixture": mixture}), None, "one"))
    prefix = "batching.mixture."
    assert told == {key.removeprefix(prefix): value for key, value in run.data.params.items() if key.startswith(prefix)}


def test_events_scores_and_artifacts(tracker, tmp_path):
    tracker.event(Event(10, {"train/loss_mono": 1.5}))
    tracker.scores({"demo/cross/recall@10": 0.25}, 10)
    (tmp_path / "table.txt").write_text("x")
    tracker.artifact(tmp_path / "table.txt", "tables")
    tracker.finish()
    run = stored(tracker)
    assert run.data.metrics == {"train/loss_mono": 1.5, "eval/demo/cross/recall_at_10": 0.25}
    assert [a.path for a in tracker._client.list_artifacts(tracker.run_id, "tables")] == ["tables/table.txt"]
    assert run.info.status == "FINISHED"
    assert run.info.run_name == "one"
    assert run.data.tags["version.torch"]
    assert (tmp_path / "runs" / "artifacts").is_dir(), "artifacts lie in the storage, not in the current folder"
    assert not (tmp_path / "mlruns").exists()


@pytest.fixture
def away(tracker, monkeypatch):
    """A function that lets the server go away with an error, or come back."""
    real = {name: getattr(tracker._client, name) for name in ("log_batch", "set_tag", "log_artifact", "set_terminated")}
    monkeypatch.setattr("hbtrain.tracking.outbox.RETRY_EVERY_S", 0.01)
    monkeypatch.setattr("hbtrain.tracking.outbox.CLOSING_RETRY_EVERY_S", 0.01)
    tracker.patience_s = 0.0

    def answer(error):
        def fail(*_, **__):
            raise error

        for name, call in real.items():
            monkeypatch.setattr(tracker._client, name, call if error is None else fail)

    return answer


def test_an_outage_delays_figures_and_loses_none(tracker, away):
    away(OSError("database is locked"))
    tracker.event(Event(10, {"train/loss_mono": 1.5}))
    tracker.event(Event(20, {"train/loss_mono": 1.4}))
    assert "did not get 2 figures, status FINISHED: database is locked" in tracker.finish()
    away(None)
    tracker.event(Event(30, {"train/loss_mono": 1.3}))
    tracker.patience_s = 60.0
    assert re.fullmatch(r"MLflow was away for \d+ s \(database is locked\); all has been .*", tracker.finish())
    history = tracker._client.get_metric_history(tracker.run_id, "train/loss_mono")
    assert [(point.step, point.value) for point in history] == [(10, 1.5), (20, 1.4), (30, 1.3)]


def test_nobody_waits_for_a_server_that_does_not_answer(tracker, monkeypatch):
    answered = threading.Event()
    monkeypatch.setattr(tracker._client, "log_batch", lambda *_: answered.wait(60))
    for step in range(50):
        tracker.event(Event(step, {"train/loss_mono": 1.5}))
    assert sum(len(message.content) for message in tracker._outbox.pending()) == 50
    answered.set()
    assert tracker.finish() == ""


def test_what_is_undelivered_is_delivered_by_the_run_that_goes_on(config, tmp_path, monkeypatch):
    file = tmp_path / "undelivered.jsonl"
    (tmp_path / "runs").mkdir()
    (tmp_path / "table.txt").write_text("x")
    first = Tracker(config, None, "one", outbox=file)
    with monkeypatch.context() as patch:
        patch.setattr("hbtrain.tracking.outbox.RETRY_EVERY_S", 0.01)
        patch.setattr(first._outbox, "_send", refuse)
        first.patience_s = 0.0
        first.event(Event(10, {"train/loss_mono": 1.5}))
        first.artifact(tmp_path / "table.txt", "tables")
        first.tags({"world_size": 2})
        said = first.finish("FAILED")
    assert f"kept in {file}, the same command delivers it" in said
    second = Tracker(config, first.run_id, "one", outbox=file)
    second.event(Event(20, {"train/loss_mono": 1.4}))
    assert second.finish() == ""
    history = second._client.get_metric_history(first.run_id, "train/loss_mono")
    assert [(point.step, point.value) for point in history] == [(10, 1.5), (20, 1.4)]
    assert [a.path for a in second._client.list_artifacts(first.run_id, "tables")] == ["tables/table.txt"]
    assert stored(second).data.tags["world_size"] == "2"
    assert stored(second).info.status == "FINISHED", "the old status is no longer true"
    assert not file.exists()


def test_what_was_kept_outlives_the_process(config, tmp_path, monkeypatch):
    (tmp_path / "runs").mkdir()
    first = Tracker(config, None, "one", outbox=tmp_path / "undelivered.jsonl")
    answered = threading.Event()
    monkeypatch.setattr("hbtrain.tracking.outbox.SAVE_AFTER_S", 0.0)
    with monkeypatch.context() as patch:
        deliver = first._client.log_batch
        patch.setattr(first._client, "log_batch", lambda *message: (answered.wait(60), deliver(*message)))
        first.event(Event(10, {"train/loss_mono": 1.5}))
        first.event(Event(20, {"train/loss_mono": 1.4}))
        assert first.save_undelivered()
        # Nothing more is heard of the first one.
        second = Tracker(config, first.run_id, "one", outbox=tmp_path / "undelivered.jsonl")
        assert second.finish() == ""
        answered.set()
    await_delivery(first)
    history = second._client.get_metric_history(first.run_id, "train/loss_mono")
    assert [(point.step, point.value) for point in history] == [(10, 1.5), (20, 1.4)], "twice does no harm"


@pytest.mark.parametrize(("at", "kept"), [(None, False), ("file.jsonl", True), ("a file/undelivered.jsonl", False)])
def test_what_can_be_kept_nowhere_is_not_kept(config, tmp_path, monkeypatch, at, kept):
    monkeypatch.setattr("hbtrain.tracking.outbox.SAVE_AFTER_S", 0.0)
    (tmp_path / "a file").touch()
    one = Tracker(config, None, "one", outbox=None if at is None else tmp_path / at)
    assert one.save_undelivered(), "there is nothing to keep"
    monkeypatch.setattr(one._outbox, "_send", refuse)
    one.event(Event(10, {"train/loss_mono": 1.5}))
    assert one.save_undelivered() == kept


def test_what_a_finished_run_left_is_delivered_by_another(config, tmp_path, monkeypatch):
    (tmp_path / "runs").mkdir()
    first = Tracker(config, None, "one", outbox=tmp_path / "first.jsonl")
    monkeypatch.setattr(first._outbox, "_send", refuse)
    first.patience_s = 0.0
    first.event(Event(10, {"train/loss_mono": 1.5}))
    first.finish()
    second = Tracker(config, None, "two", outbox=tmp_path / "second.jsonl")
    second.adopt(tmp_path / "first.jsonl")
    await_delivery(second)
    assert not list(tmp_path.glob("*.jsonl")), "a killed run would leave nothing either"
    assert second.finish() == ""
    run = second._client.get_run(first.run_id)
    assert run.data.metrics == {"train/loss_mono": 1.5}
    assert run.info.status == "FINISHED"


def test_letters_for_another_server_stay(config, tracker, tmp_path):
    file = tmp_path / "first.jsonl"
    file.write_text('http://elsewhere\n{"run_id": "x", "kind": "status", "content": ["FINISHED"]}\n')
    tracker.adopt(file)
    assert tracker.finish() == ""
    assert file.exists()


def await_delivery(tracker):
    with tracker._outbox._changed:
        assert tracker._outbox._changed.wait_for(lambda: tracker._outbox._thread is None, 30)


def refuse(_):
    raise OSError("server gone")


def test_what_the_server_refuses_is_said_and_keeps_nothing_back(tracker, tmp_path, monkeypatch):
    from mlflow.exceptions import INVALID_PARAMETER_VALUE, MlflowException

    real = tracker._client.log_batch

    def particular(run_id, metrics):
        if any(metric.key == "train/odd" for metric in metrics):
            raise MlflowException("no such name", INVALID_PARAMETER_VALUE)
        real(run_id, metrics)

    monkeypatch.setattr(tracker._client, "log_batch", particular)
    tracker.artifact(tmp_path / "missing.txt")
    tracker.metrics({f"train/{name}": 1.0 for name in ("a", "b", "odd", "c", "d")}, 1)
    tracker.tags({"world_size": 2})
    said = tracker.finish()
    assert said.startswith("MLflow refused artifact missing.txt, figure train/odd of run")
    assert stored(tracker).data.tags["world_size"] == "2"
    assert stored(tracker).data.metrics.keys() == {"train/a", "train/b", "train/c", "train/d"}, (
        "one takes no other along"
    )


def test_a_run_is_continued(tracker, config):
    tracker.finish("FAILED")
    again = Tracker(config, tracker.run_id, "one")
    assert again.run_id == tracker.run_id
    assert stored(again).info.status == "RUNNING"
    again.event(Event(20, {"train/loss_mono": 1.0}))
    again.finish()
    assert stored(again).info.status == "FINISHED"


def test_a_run_that_is_not_there_any_more_is_refused_with_a_way_out(tracker, config):
    with pytest.raises(
        TrackingError, match=f"MLflow run {'0' * 32}, .* is not in sqlite.*: set tracking.uri .* delete "
    ):
        Tracker(config, "0" * 32, "one")


def test_uri_comes_from_the_key_the_environment_or_the_storage(config, monkeypatch, tmp_path):
    assert tracking_uri(config) == f"sqlite:///{tmp_path}/runs/mlflow.db"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://server")
    assert tracking_uri(config) == "http://server"


def test_no_password_reaches_the_parameters(config, tmp_path):
    from hbtrain.config import override
    from hbtrain.runs.run_folder import RunFolder

    secret = override(config, {"tracking.uri": f"sqlite:///{tmp_path}/db.sqlite?x=http://user:hunter2@host"})
    folder = RunFolder.open(secret)
    assert "hunter2" not in folder.config.read_text()
    parameters = stored(Tracker(override(config, {"data.sources": ["s3://u:hunter2@bucket/a"]}), None, "x")).data.params
    assert "hunter2" not in str(parameters)
    assert "s3://u:***@bucket/a" in parameters["data.sources"]


def test_a_bad_server_is_one_line_without_its_password(config):
    from hbtrain.config import override

    with pytest.raises(TrackingError) as error:
        Tracker(override(config, {"tracking.uri": "nonsense://user:secret@host/db"}), None, "one")
    assert "nonsense://user:***@host/db" in str(error.value)
    assert "secret" not in str(error.value)
    assert "\n" not in str(error.value)


def test_a_database_on_a_full_disk_is_one_line(config, monkeypatch):
    from sqlalchemy.exc import OperationalError

    def full(**_):
        raise OperationalError("CREATE TABLE runs", {}, Exception("database or disk is full"))

    monkeypatch.setattr("mlflow.MlflowClient", full)
    with pytest.raises(TrackingError, match="cannot be used: .*disk is full") as error:
        Tracker(config, None, "one")
    assert "\n" not in str(error.value)


def test_a_run_below_another_and_one_with_parameters_of_its_own(config, tmp_path):
    from hbtrain.config import override

    (tmp_path / "runs").mkdir()
    parent = Tracker(config, None, "sweep", command="tune/sweep.py x", parameters={"space": "x"})
    child = Tracker(override(config, {"tracking.parent_run_id": parent.run_id}), None, "one")
    assert stored(parent).data.params == {"space": "x"}
    assert stored(parent).data.tags["mlflow.source.name"] == "tune/sweep.py x"
    assert "mlflow.parentRunId" not in stored(parent).data.tags
    assert stored(child).data.tags["mlflow.parentRunId"] == parent.run_id
    assert stored(child).data.tags["mlflow.source.name"] == "hbtrain train quickstart"


def test_a_relative_database_is_one_place_from_any_folder(config, monkeypatch, tmp_path):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "sqlite:///a/b.db")
    assert tracking_uri(config) == f"sqlite:///{tmp_path}/a/b.db"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "sqlite:////abs/b.db")
    assert tracking_uri(config) == "sqlite:////abs/b.db"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "sqlite://")
    assert tracking_uri(config) == "sqlite://"


def test_a_database_that_another_run_writes_to_is_asked_again(config, tmp_path, monkeypatch):
    from mlflow import MlflowClient
    from sqlalchemy.exc import OperationalError

    (tmp_path / "runs").mkdir()
    monkeypatch.setattr("hbtrain.tracking.tracker.time.sleep", lambda _: None)
    real, calls = MlflowClient.create_run, []

    def locked_twice(*arguments, **named):
        calls.append(1)
        if len(calls) < 3:
            raise OperationalError("INSERT", {}, Exception("database is locked"))
        return real(*arguments, **named)

    monkeypatch.setattr(MlflowClient, "create_run", locked_twice)
    tracker = Tracker(config, None, "one")
    assert len(calls) == 3
    assert stored(tracker).info.run_name == "one"


def test_a_tag_is_deleted_once_and_again(tracker):
    tracker.tags({"stopped_at_step": 4, "other": "stays"})
    tracker.untag("stopped_at_step")
    tracker.untag("stopped_at_step")
    assert tracker.finish() == ""
    tags = stored(tracker).data.tags
    assert "stopped_at_step" not in tags
    assert tags["other"] == "stays"


def test_a_run_that_stopped_on_its_way_does_not_count_as_finished(tracker):
    from hbtrain.tracking.past_runs import TrackedRuns

    tracker.tags({"stopped_at_step": 4})
    tracker.finish()
    found = TrackedRuns(tracker.uri).find(tracker.run_id)
    assert (found.status, found.is_finished) == ("stopped at step 4", False)
    tracker.untag("stopped_at_step")
    tracker.finish()
    assert TrackedRuns(tracker.uri).find(tracker.run_id).is_finished


def test_a_run_that_another_process_drives_is_not_ended():
    run = SimpleNamespace(finish=pytest.fail)
    with pytest.raises(LeaseLostError), Tracker.ending(run, pytest.fail):
        raise LeaseLostError("process 42 has taken over")


@pytest.mark.parametrize(
    ("raised", "told", "status"),
    [
        (None, None, "FINISHED"),
        (KeyboardInterrupt(), KeyboardInterrupt, "KILLED"),
        (DataError("no rows"), DataError, "FAILED"),
        (RemoteError(5, "no answer", "s3://b/x"), StorageError, "FAILED"),
    ],
)
def test_a_run_ends_as_its_work_does(raised, told, status):
    ended, notes = [], []
    run = SimpleNamespace(finish=lambda how: ended.append(how) or "MLflow was away")
    with pytest.raises(told) if told else nullcontext(), Tracker.ending(run, notes.append):
        if raised is not None:
            raise raised
    assert ended == [status]
    assert notes == ["MLflow was away"]
