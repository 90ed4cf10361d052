"""What a run keeps in a bucket: its memory, its letters to MLflow, its inputs; and what is said where that fails."""

import json
import shutil
from pathlib import Path

import pytest

from hbtrain.config import absolute_paths, load_config
from hbtrain.corpus import ParallelCorpus
from hbtrain.errors import ConfigError, StorageError
from hbtrain.evaluation.benchmarks import load_benchmarks
from hbtrain.modeling.backbone import find_backbone
from hbtrain.runs.ray_train import with_last_checkpoint
from hbtrain.runs.run_folder import RunFolder
from hbtrain.runs.segments import measured_by
from hbtrain.storage import RemotePath, place, push, remote
from hbtrain.sweeps import sweep as sweeping
from hbtrain.sweeps import tuning
from hbtrain.sweeps.space_file import load_space, with_flags
from hbtrain.tracking.tracker import Tracker
from hbtrain.tracking.uris import TrackingError, tracking_uri
from hbtrain.training.checkpoint_files import Manifest, folder_name, store
from tests import s3
from tests.unit.comparison_samples import rows_of, write_results, write_run
from tests.unit.tiny_models import save_bert


@pytest.fixture
def config(bucket, cache):
    return load_config("quickstart", {"storage": f"{bucket.uri}/runs", "tracking.uri": "sqlite:///mlflow.db"})


def test_the_memory_of_a_run_is_in_the_bucket(config, bucket):
    first = RunFolder.open(config)
    assert json.loads(json.dumps(str(first.path))).startswith(f"{bucket.uri}/runs/quickstart-")
    first.update(mlflow_run_id="abc")
    first.update(usage={"pairs": 1})
    again = RunFolder.open(config)
    assert (again.path, again.state.mlflow_run_id, again.state.continues) == (first.path, "abc", None)
    assert json.loads(bucket.get(f"runs/{first.name}/run.json")) == {"mlflow_run_id": "abc", "usage": {"pairs": 1}}
    assert bucket.keys() == [f"runs/{first.name}/config.yaml", f"runs/{first.name}/run.json"]
    again.update(finished=True)
    assert RunFolder.open(config).name == f"{first.name}-2"
    assert RunFolder.finished(config) == [first]
    record = f"runs/{first.name}/ray/checkpoint_manager_snapshot.json"
    bucket.put(record, b"{")
    first.delete_ray_checkpoint_list()
    first.delete_ray_checkpoint_list()
    assert record not in bucket.keys("runs/")


def test_a_memory_that_cannot_be_read_is_not_an_empty_one(config, monkeypatch):
    folder = RunFolder.open(config)
    folder.update(finished=True)
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    remote._filesystem.cache_clear()
    try:
        with pytest.raises(StorageError, match=r"cannot read s3://.*/run.json: .*NETWORK_CONNECTION"):
            assert folder.state
    finally:
        remote._filesystem.cache_clear()


@pytest.mark.parametrize(
    ("storage", "words"),
    [
        ("gs://b/x", "remote storage is s3://bucket/path"),
        ("s3://AKIAXYZ:topsecretcanary@b/x", "leave them out"),
        ("s3://b/x?secret_key=topsecretcanary", "option 'secret_key'"),
    ],
)
def test_storage_that_is_none(storage, words):
    with pytest.raises(ConfigError, match=words) as caught:
        load_config("quickstart", {"storage": storage})
    assert "topsecretcanary" not in str(caught.value)


def test_a_cache_is_no_bucket():
    with pytest.raises(ConfigError, match=r"data.cache.*folder of the machine"):
        load_config("quickstart", {"data.cache": "s3://b/x"})


def test_uris_are_paths_that_are_absolute(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    changes = {"storage": "s3://b/x/", "data.sources": ["s3://b/a.jsonl"], "evaluation.benchmarks": ["squad=s3://b/q"]}
    config = absolute_paths(load_config("quickstart", changes))
    assert (config.storage, config.data.sources) == ("s3://b/x", ("s3://b/a.jsonl",))
    assert config.evaluation.benchmarks == ("squad=s3://b/q",)


@pytest.mark.parametrize("way", ["no bucket", "no rights", "no key"])
def test_rights_are_looked_at_before_anything_starts(hbtrain, bucket, monkeypatch, way, tmp_path):
    """One line, exit code 2, and no trace; moto lets everyone in, so refusals of rights are a stand-in's."""
    storage = f"{bucket.uri}/runs" if way != "no bucket" else "s3://no-such-bucket/runs"
    said = {"no rights": "AWS Error ACCESS_DENIED during CreateMultipartUpload operation: Access Denied"}
    said["no key"] = "AWS Error SIGNATURE_DOES_NOT_MATCH during PutObject operation: The request signature is wrong."
    if way in said:

        def refused(self, content):
            with self._errors_of_storage():
                raise OSError(said[way])

        monkeypatch.setattr(RemotePath, "write_bytes", refused)
    arguments = ["--storage", storage, "--tracking.uri", "sqlite:///mlflow.db", "--data.cache", "cache"]
    code, _, err = hbtrain("train", "quickstart", *arguments)
    assert code == 2
    assert err.startswith(f"error: storage = '{storage}' cannot be written: ")
    assert {"no bucket": "NO_SUCH_BUCKET", "no rights": "Access Denied (ACCESS_DENIED)", "no key": "is wrong ("}[
        way
    ] in err
    assert err.count("\n") == 1
    assert s3.SECRET not in err
    assert not (tmp_path / "mlflow.db").exists()
    assert bucket.keys() == []


def test_tracking_needs_a_place_of_its_own(hbtrain, bucket):
    code, _, err = hbtrain("train", "quickstart", "--storage", f"{bucket.uri}/runs")
    assert (code, err.count("\n")) == (2, 1)
    assert "cannot hold MLflow's SQLite file: set tracking.uri or $MLFLOW_TRACKING_URI" in err
    with pytest.raises(TrackingError):
        tracking_uri(load_config("quickstart", {"storage": "s3://b/x"}))


def test_sources_and_benchmarks_in_a_bucket(bucket, cache, rows, write_source):
    text = write_source(rows(20)).read_bytes()
    bucket.put("a/facts.jsonl", text)
    bucket.put("b/facts.jsonl", text)
    uris = [f"{bucket.uri}/a/facts.jsonl", f"{bucket.uri}/b/facts.jsonl"]
    corpus = ParallelCorpus.open(uris)
    assert list(corpus.sources) == ["a/facts", "b/facts"]
    assert corpus.sources["a/facts"].index.rows == 20
    (benchmark,) = load_benchmarks([f"parallel={uris[0]}"])
    (here,) = load_benchmarks([f"parallel={write_source(rows(20), 'facts.jsonl')}"])
    assert (benchmark.name, benchmark.languages) == (here.name, here.languages)


@pytest.mark.parametrize("key", ["--data.sources", "--data.validation", "--evaluation.benchmarks"])
def test_a_source_that_is_not_there(hbtrain, bucket, key):
    uri = f"{bucket.uri}/none.jsonl"
    value = f"parallel={uri}" if "benchmarks" in key else uri
    code, _, err = hbtrain("train", "quickstart", key, value, "--data.cache", "cache")
    assert (code, err.count("\n")) == (2, 1)
    assert err.startswith(f"error: cannot fetch {uri}: there is no such object")


def test_a_model_in_a_bucket(bucket, cache, tmp_path):
    save_bert(tmp_path / "model")
    push(tmp_path / "model", place(bucket.uri) / "models" / "mine")
    backbone = find_backbone(f"{bucket.uri}/models/mine")
    assert not backbone.is_sentence_transformer
    assert backbone.name.startswith(str(cache))
    assert sorted(p.name for p in Path(backbone.name).iterdir()) == sorted(
        p.name for p in (tmp_path / "model").iterdir()
    )


def test_letters_to_mlflow_wait_in_the_bucket(config, bucket, monkeypatch, tmp_path):
    """A server that is away at the end of a run gets the figures, and artifacts, from the next machine."""
    monkeypatch.chdir(tmp_path)
    folder = RunFolder.open(config)
    bucket.put(f"runs/{folder.name}/results/metrics.json", b"{}")
    tracker = Tracker(config, None, "one", outbox=folder.undelivered)
    tracker.patience_s = 0.0
    monkeypatch.setattr("hbtrain.tracking.outbox.CLOSING_RETRY_EVERY_S", 0.01)
    with monkeypatch.context() as patch:
        for name in ("log_batch", "log_artifacts", "set_terminated"):
            patch.setattr(tracker._client, name, away)
        tracker.metrics({"x": 1.0}, 3)
        tracker.artifact(folder.results, "results")
        said = tracker.finish()
    assert f"kept in {folder.undelivered}" in said
    waiting = [bucket.get(key) for key in bucket.keys(f"runs/{folder.name}/mlflow-undelivered")]
    assert b'"artifact"' in b"".join(waiting)
    folder.update(finished=True)
    after = RunFolder.open(config)
    assert after.undelivered_of_others() == [folder.undelivered]
    second = Tracker(config, None, "two", outbox=after.undelivered)
    for file in after.undelivered_of_others():
        second.adopt(file)
    assert second.finish() == ""
    run = second._client.get_run(tracker.run_id)
    assert (run.data.metrics, run.info.status) == ({"x": 1.0}, "FINISHED")
    assert f"runs/artifacts/{tracker.run_id}/artifacts/results/metrics.json" in bucket.keys("runs/artifacts")
    assert not [key for key in bucket.keys("runs/") if "undelivered" in key]


def away(*_, **__):
    raise OSError("away")


def test_the_last_good_checkpoint_is_named_by_uri(bucket, tmp_path):
    runs = place(bucket.uri) / "ray"
    assert with_last_checkpoint("stopped", runs) == "stopped; there is no checkpoint before it"
    (tmp_path / "part").mkdir()
    (tmp_path / "part" / "a.pt").write_bytes(b"x" * 10)
    for step in (10, 20):
        store(tmp_path / "part", runs / folder_name(step, "aaaaaaaa"), Manifest(step, 0, 1))
    bucket.put("ray/step-00000020-aaaaaaaa/a.pt", b"short")
    name = "step-00000010-aaaaaaaa"
    assert with_last_checkpoint("stopped", runs) == f"stopped; the last good checkpoint is {bucket.uri}/ray/{name}"


def test_runs_in_a_bucket_are_compared(hbtrain, bucket, tmp_path):
    for alpha in (0, 1):
        push(write_run(tmp_path / f"run-{alpha}", alpha, 0), place(bucket.uri) / f"run-{alpha}")
        bucket.put(f"run-{alpha}/model/model.safetensors", b"not fetched")
        shutil.rmtree(tmp_path / f"run-{alpha}")
    code, out, err = hbtrain(
        "compare", f"{bucket.uri}/run-0", f"{bucket.uri}/run-1", "--output", f"{bucket.uri}/report"
    )
    assert code == 0, err
    assert f"report  {bucket.uri}/report/report.html" in out
    assert len(json.loads(bucket.get("report/comparison.json"))["systems"]) == 2
    assert b"<html" in bucket.get("report/report.html")
    code, _, err = hbtrain("compare", f"{bucket.uri}/run-0", f"{bucket.uri}/run-7")
    assert (code, err.count("\n")) == (2, 1)
    assert f"run '{bucket.uri}/run-7' cannot be fetched: there is no such object or folder" in err


def test_a_sweep_in_a_bucket(bucket, cache, tmp_path, monkeypatch):
    """With the training taken out: its memory, summary and report are there, and are there again."""
    trained = []

    def train(trials, folder):
        assert str(folder).startswith(f"{bucket.uri}/runs/alpha-grid-")
        for trial in trials:
            trained.append(trial.label)
            run = RunFolder.open(trial.config)
            write_results(tmp_path / trial.label, rows_of(0.1, name="demo"))
            push(tmp_path / trial.label, run.results)
            run.update(finished=True, measured=measured_by(trial.config))
        return {}

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(tuning, "train_side_by_side", train)
    flags = {"batching.alpha": [0, 1], "seed": 0, "resources.workers": 1, "storage": f"{bucket.uri}/runs"}
    space = with_flags(load_space("alpha-grid"), {**flags, "tracking.uri": "sqlite:///mlflow.db"})
    sweeping.run_sweep(space)
    sweeping.run_sweep(space)
    assert trained == ["alpha=0 seed=0", "alpha=1 seed=0"]
    kept = {key.split("/", 2)[2] for key in bucket.keys("runs/alpha-grid-")}
    assert {"space.yaml", "run.json", "summary.md", "summary.csv", "report/report.html"} <= kept
    assert any(key.endswith("/summary.md") for key in bucket.keys("runs/artifacts/"))


def test_options_of_the_uri_lead_mlflow_as_well(bucket, tmp_path, monkeypatch):
    """Without AWS_ENDPOINT_URL in the environment: MLflow's own client takes the artifacts to the same place."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("AWS_ENDPOINT_URL")
    monkeypatch.setenv("MLFLOW_S3_ENDPOINT_URL", "")
    monkeypatch.delenv("MLFLOW_S3_ENDPOINT_URL")
    host = bucket.endpoint.removeprefix("http://")
    storage = f"{bucket.uri}/runs?endpoint_override={host}&scheme=http"
    config = load_config("quickstart", {"storage": storage, "tracking.uri": "sqlite:///mlflow.db"})
    folder = RunFolder.open(config)
    tracker = Tracker(config, None, "one", outbox=folder.undelivered)
    tracker.artifact(folder.config)
    assert tracker.finish() == ""
    kept = bucket.get(f"runs/artifacts/{tracker.run_id}/artifacts/config.yaml")
    assert kept == bucket.get(f"runs/{folder.name}/config.yaml")


def test_a_file_uri_is_a_folder(tmp_path):
    assert load_config("quickstart", {"storage": f"file://{tmp_path}/runs"}).storage == f"{tmp_path}/runs"
