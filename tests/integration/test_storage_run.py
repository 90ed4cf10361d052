"""Whole runs whose storage is a bucket: killed and gone on with from it alone, and refused in one line."""

import json
import tempfile
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests import s3
from tests.integration.command import Command

pytestmark = pytest.mark.ray

SLOW = [
    "--training.steps", "120", "--training.checkpoint_every", "20", "--training.log_every", "10",
    "--batching.global_batch_size", "128", "--encoder.static.dimension", "512", "--evaluation.before", "false",
]  # fmt: skip


@pytest.fixture
def arguments(bucket, tmp_path):
    """A run in the bucket with a source from it, too; what it keeps on this machine is in `machine`."""
    from hbtrain.corpus import source_path

    bucket.put("data/facts.jsonl", source_path("demo").read_bytes())
    bucket.put("data/held/facts.jsonl", source_path("demo-heldout").read_bytes())
    return [
        "train", "quickstart", *SLOW, "--storage", f"{bucket.uri}/runs", "--data.sources",
        f"{bucket.uri}/data/facts.jsonl", "--evaluation.benchmarks", f"parallel={bucket.uri}/data/held/facts.jsonl",
        "--tracking.uri", f"sqlite:///{tmp_path / 'mlflow.db'}", "--resources.workers", "1",
    ]  # fmt: skip


def turn_a_bit(bucket, key):
    content = bytearray(bucket.get(key))
    content[len(content) // 2] ^= 1
    bucket.put(key, bytes(content))


@contextmanager
def machine(bucket):
    """A folder for the cache and temporary files of processes, Ray's logs too, and the variables that lead there."""
    # Short, for sockets are in it.
    with tempfile.TemporaryDirectory(prefix="m-", ignore_cleanup_errors=True) as folder:
        yield Path(folder), bucket.environment | {"HBTRAIN_CACHE": f"{folder}/cache", "TMPDIR": folder}


def test_a_killed_run_is_continued_from_the_bucket_alone(tmp_path, bucket, arguments):
    with machine(bucket) as (_, variables), Command(tmp_path, *arguments, **variables) as command:
        command.wait_for("checkpoint of step 60 kept")
        assert f"fetching {bucket.uri}/data/facts.jsonl (" in command.output
        command.kill_all()
    (run,) = {key.split("/")[1] for key in bucket.keys("runs/quickstart-")}
    newest = max(key for key in bucket.keys(f"runs/{run}/ray/step-") if key.endswith("optim_states.pt"))
    turn_a_bit(bucket, newest)
    with machine(bucket) as (folder, variables), Command(tmp_path, *arguments, **variables) as command:
        assert command.finish() == 0, command.output
        text = " ".join(command.output.split())
        check_secrets(folder, bucket)
    assert "is damaged (state/" in text
    assert "holds other bytes than were written): goes on from the checkpoint of step" in text
    assert int(text.split("goes on from the checkpoint of step ")[1].split()[0]) > 0
    assert "checkpoint of step 120 kept" in text
    assert f"model {bucket.uri}/runs/{run}/model" in text
    memory = json.loads(bucket.get(f"runs/{run}/run.json"))
    assert memory["finished"] is True
    scores = json.loads(bucket.get(f"runs/{run}/results/metrics.json"))
    assert scores["facts/multi/map"] > 0.2
    assert f"{scores['facts/multi/map']:.4f}" in bucket.get(f"runs/{run}/model/README.md").decode(), "the model card"
    check_mlflow(tmp_path, bucket, memory["mlflow_run_id"], scores)
    check_secrets(tmp_path, bucket)
    with machine(bucket) as (_, variables):
        check_evaluate(tmp_path, bucket, f"{bucket.uri}/runs/{run}/model", variables)


def check_mlflow(folder, bucket, run_id, scores):
    """There is one run, which is over, with its artifacts in the bucket."""
    from mlflow import MlflowClient

    client = MlflowClient(f"sqlite:///{folder / 'mlflow.db'}")
    (run,) = client.search_runs([client.get_experiment_by_name("hbtrain").experiment_id])
    assert (run.info.run_id, run.info.status) == (run_id, "FINISHED")
    assert run.info.artifact_uri == f"{bucket.uri}/runs/artifacts/{run_id}/artifacts"
    kept = f"runs/artifacts/{run_id}/artifacts"
    assert json.loads(bucket.get(f"{kept}/results/metrics.json")) == scores
    assert f"{kept}/model/model.safetensors" in bucket.keys(kept)


def check_secrets(folder, bucket):
    """The key is in no file of the run, and in none that it left on this machine."""
    secret = s3.SECRET.encode()
    for key in bucket.keys():  # noqa: SIM118 - a method of Bucket
        assert secret not in bucket.get(key), key
    for path in folder.rglob("*"):
        if path.is_file():
            assert secret not in path.read_bytes(), path


def check_evaluate(folder, bucket, model, variables):
    """The model is used from the bucket, as the end of a run says; an evaluation is written there."""
    with Command(
        folder, "evaluate", model, "--benchmark", "demo", "--output", f"{bucket.uri}/scores", **variables
    ) as c:
        assert c.finish() == 0, c.output
    assert json.loads(bucket.get("scores/metrics.json"))["demo/multi/map"] > 0.2
    assert bucket.get("scores/runs/demo/mono/de.trec.gz")
