"""Deaths: a worker's is survived, a driver's is made good by the same command."""

import json
import signal

import pytest

from tests.integration.command import Command

pytestmark = pytest.mark.ray

PAIRS = 64
SLOW = [
    "--training.steps", "300", "--training.checkpoint_every", "50", "--training.log_every", "10",
    "--batching.global_batch_size", PAIRS, "--encoder.static.dimension", "128", "--evaluation.before", "false",
]  # fmt: skip


def mlflow_runs(folder):
    from mlflow import MlflowClient

    client = MlflowClient(f"sqlite:///{folder / 'runs' / 'mlflow.db'}")
    return client.search_runs([client.get_experiment_by_name("hbtrain").experiment_id])


def test_a_killed_worker_is_replaced_and_goes_on(tmp_path):
    with Command(tmp_path, "train", "quickstart", *SLOW, "--data.cache", tmp_path / "cache") as command:
        command.wait_for("checkpoint of step 100 kept")
        workers = command.train_workers()
        assert len(workers) == 2
        workers[-1].kill()
        assert command.finish() == 0, command.output
        output = command.output
    assert "goes on from the checkpoint of step" in output
    assert "step 300/300" in output
    (run,) = mlflow_runs(tmp_path)
    assert run.info.status == "FINISHED"
    (folder,) = (tmp_path / "runs").glob("quickstart-*")
    assert json.loads((folder / "results" / "metrics.json").read_text())["demo/multi/map"] > 0.2


def test_a_killed_driver_is_continued_by_the_same_command(tmp_path):
    arguments = ["train", "quickstart", *SLOW, "--resources.workers", "1", "--data.cache", tmp_path / "cache"]
    with Command(tmp_path, *arguments) as command:
        command.wait_for("checkpoint of step 100 kept")
        command.kill_all()
    (folder,) = (tmp_path / "runs").glob("quickstart-*")
    used = json.loads((folder / "run.json").read_text())["usage"]
    assert used["pairs"] >= 90 * PAIRS
    with Command(tmp_path, *arguments) as command:
        assert command.finish() == 0, command.output
        assert "goes on from the checkpoint of step" in command.output
    (run,) = mlflow_runs(tmp_path)
    assert run.info.status == "FINISHED"
    assert len(list((tmp_path / "runs").glob("quickstart-*"))) == 1
    # The first attempt's work, and the second's from its checkpoint on; steps done twice count twice.
    metrics = run.data.metrics
    assert 300 * PAIRS <= metrics["usage/pairs"] < used["pairs"] + 300 * PAIRS
    assert (metrics["usage/pairs"] - used["pairs"]) % PAIRS == 0
    assert metrics["usage/worker_hours"] > used["worker_s"] / 3600 > 0
    assert run.data.tags["estimate.pairs"] == str(300 * PAIRS)


def test_ctrl_c_is_one_line(tmp_path):
    with Command(tmp_path, "train", "quickstart", *SLOW, "--data.cache", tmp_path / "cache") as command:
        command.wait_for("step 50: checkpoint")
        command.process.send_signal(signal.SIGINT)
        assert command.finish() == 130, command.output
        assert "interrupted; the same command goes on, a training from its last checkpoint" in command.output
        assert "Traceback" not in command.output
    (run,) = mlflow_runs(tmp_path)
    assert run.info.status == "KILLED"


def test_three_workers_with_uneven_shards(tmp_path):
    arguments = ["--resources.workers", "3", "--resources.cpus_per_worker", "0.5", "--training.steps", "12"]
    arguments += ["--batching.global_batch_size", "100", "--training.deepspeed.zero_optimization.stage", "2"]
    arguments += ["--evaluation.benchmarks", "[]", "--tracking.log_model", "false"]
    with Command(tmp_path, "train", "quickstart", *arguments, "--data.cache", tmp_path / "cache") as command:
        assert command.finish() == 0, command.output
        assert "on 3 workers" in command.output
