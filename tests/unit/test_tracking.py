import pytest

from hbtrain.config import load_config, to_flat
from hbtrain.tracking import Tracker, TrackingError, tracking_uri
from hbtrain.training.worker import Event


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
    assert parameters.keys() == to_flat(config).keys()
    assert parameters["batching.alpha"] == "0.5"
    assert parameters["data.sources"] == "demo", "a list as the command line takes it"


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


def test_an_outage_delays_figures_and_loses_none(tracker, monkeypatch):
    def locked(*_, **__):
        raise OSError("database is locked")

    real = tracker._client.log_batch
    monkeypatch.setattr(tracker._client, "log_batch", locked)
    tracker.event(Event(10, {"train/loss_mono": 1.5}))
    tracker.event(Event(20, {"train/loss_mono": 1.4}))
    assert "did not get 2 figures: database is locked" in tracker.finish()
    monkeypatch.setattr(tracker._client, "log_batch", real)
    tracker.event(Event(30, {"train/loss_mono": 1.3}))
    assert tracker.finish() == ""
    history = tracker._client.get_metric_history(tracker.run_id, "train/loss_mono")
    assert [(point.step, point.value) for point in history] == [(10, 1.5), (20, 1.4), (30, 1.3)]


def test_what_the_server_refuses_is_said_at_the_end(tracker, tmp_path, monkeypatch):
    def gone(*_, **__):
        raise OSError("server gone")

    monkeypatch.setattr(tracker._client, "log_artifact", gone)
    monkeypatch.setattr(tracker._client, "set_tag", gone)
    (tmp_path / "table.txt").write_text("x")
    tracker.artifact(tmp_path / "table.txt")
    tracker.tags({"world_size": 2})
    assert (
        tracker.finish() == f"MLflow run {tracker.run_id} did not get artifact table.txt, tag world_size: server gone"
    )


def test_a_run_is_continued(tracker, config):
    tracker.finish("FAILED")
    again = Tracker(config, tracker.run_id, "one")
    assert again.run_id == tracker.run_id
    assert stored(again).info.status == "RUNNING"
    again.event(Event(20, {"train/loss_mono": 1.0}))
    again.finish()
    assert stored(again).info.status == "FINISHED"


def test_uri_comes_from_the_key_the_environment_or_the_storage(config, monkeypatch, tmp_path):
    assert tracking_uri(config) == f"sqlite:///{tmp_path}/runs/mlflow.db"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://server")
    assert tracking_uri(config) == "http://server"


def test_no_password_reaches_the_parameters(config, tmp_path):
    from hbtrain.config import override
    from hbtrain.launch.run_folder import RunFolder

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
