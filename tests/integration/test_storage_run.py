"""Whole runs whose storage is a bucket: killed and gone on with from it alone, and refused in one line. Data sets by
name come from a stand-in of the hub, to each machine anew."""

import json
import tempfile
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests import s3
from tests.hub_server import serve
from tests.integration.command import Command
from tests.unit.data_set_samples import benchmark, pairs

pytestmark = pytest.mark.ray

SLOW = [
    "--training.steps", "120", "--training.checkpoint_every", "20", "--training.log_every", "10",
    "--batching.global_batch_size", "128", "--encoder.static.dimension", "128", "--evaluation.before", "false",
]  # fmt: skip


@pytest.fixture
def hub():
    """A stand-in of the hub of data sets, for the processes that a machine's variables lead to it."""
    with serve() as served:
        yield served


@pytest.fixture
def arguments(bucket, hub, tmp_path):
    """A run in the bucket with a source from it, too, and a source and a benchmark by name; what it keeps on this
    machine is in `machine`."""
    from hbtrain.corpus import source_path

    bucket.put("data/facts.jsonl", source_path("demo").read_bytes())
    bucket.put("data/held/facts.jsonl", source_path("demo-heldout").read_bytes())
    return [
        "train", "quickstart", *SLOW, "--storage", f"{bucket.uri}/runs", "--data.sources",
        f"{bucket.uri}/data/facts.jsonl", "hub:pairs?languages=de,en", "--data.catalogue", benchmark(tmp_path, hub),
        pairs(tmp_path, hub, count=200), "--evaluation.benchmarks",
        f"parallel={bucket.uri}/data/held/facts.jsonl", "capitals",
        "--tracking.uri", f"sqlite:///{tmp_path / 'mlflow.db'}", "--resources.workers", "1",
    ]  # fmt: skip


def turn_a_bit(bucket, key):
    content = bytearray(bucket.get(key))
    content[len(content) // 2] ^= 1
    bucket.put(key, bytes(content))


@contextmanager
def machine(bucket, hub):
    """A folder for the caches and temporary files of processes, Ray's logs too, and the variables that lead there."""
    # Short, for sockets are in it.
    with tempfile.TemporaryDirectory(prefix="m-", ignore_cleanup_errors=True) as folder:
        own = hub.environment(f"{folder}/hf") | {"HBTRAIN_CACHE": f"{folder}/cache", "TMPDIR": folder}
        yield Path(folder), bucket.environment | own


def test_a_killed_run_is_continued_from_the_bucket_alone(tmp_path, bucket, hub, arguments):
    with machine(bucket, hub) as (_, variables), Command(tmp_path, *arguments, **variables) as command:
        command.wait_for("checkpoint of step 60 kept")
        assert f"fetching {bucket.uri}/data/facts.jsonl (" in command.output
        assert "fetching pairs: 1 file" in command.output
        command.kill_all()
    (run,) = {key.split("/")[1] for key in bucket.keys("runs/quickstart-")}
    newest = max(key for key in bucket.keys(f"runs/{run}/ray/step-") if key.endswith("optim_states.pt"))
    turn_a_bit(bucket, newest)
    with machine(bucket, hub) as (folder, variables), Command(tmp_path, *arguments, **variables) as command:
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
    assert memory["data_sets"].keys() == {"sources/pairs", "benchmarks/capitals"}
    scores = json.loads(bucket.get(f"runs/{run}/results/metrics.json"))
    assert scores["facts/multi/map"] > 0.2
    assert scores["capitals/multi/map"] > 0
    about = json.loads(bucket.get(f"runs/{run}/results/about.json"))["benchmarks"]["capitals"]["data"]
    assert about["sources"] == {"owner/capitals": hub.repositories["owner/capitals"].commit}
    assert f"{scores['facts/multi/map']:.4f}" in bucket.get(f"runs/{run}/model/README.md").decode(), "the model card"
    check_mlflow(tmp_path, bucket, memory, scores)
    check_secrets(tmp_path, bucket)
    with machine(bucket, hub) as (_, variables):
        check_evaluate(tmp_path, bucket, f"{bucket.uri}/runs/{run}/model", variables)


def check_mlflow(folder, bucket, memory, scores):
    """There is one run, which is over, with its artifacts in the bucket, and it says where its data come from."""
    from mlflow import MlflowClient

    run_id = memory["mlflow_run_id"]
    client = MlflowClient(f"sqlite:///{folder / 'mlflow.db'}")
    (run,) = client.search_runs([client.get_experiment_by_name("hbtrain").experiment_id])
    assert (run.info.run_id, run.info.status) == (run_id, "FINISHED")
    assert run.info.artifact_uri == f"{bucket.uri}/runs/artifacts/{run_id}/artifacts"
    assert run.data.tags["data_set.sources/pairs"].endswith(memory["data_sets"]["sources/pairs"]["digest"])
    assert run.data.tags["results.precision"] == "float32"
    kept = f"runs/artifacts/{run_id}/artifacts"
    assert json.loads(bucket.get(f"{kept}/results/metrics.json")) == scores
    assert f"{kept}/model/README.md" in bucket.keys(kept), "the model's card"
    (model,) = client.search_logged_models([run.info.experiment_id], filter_string=f"source_run_id = '{run_id}'")
    stored = model.artifact_location.removeprefix(f"{bucket.uri}/")
    assert {f"{stored}/model.safetensors", f"{stored}/MLmodel"} <= set(bucket.keys(stored))


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
