"""A sweep on a cluster that vanishes, and on the next one."""

import tempfile
import time
from pathlib import Path

import pytest

from hbtrain.config import load_config
from hbtrain.training.checkpoint_files import checkpoints_in, is_complete
from tests.integration.command import ROOT, Command
from tests.integration.nodes import Node
from tests.integration.test_sweep import mlflow_runs

pytestmark = pytest.mark.ray

SWEEP = [
    "alpha-grid", "--batching.alpha", "0", "1", "--seed", "5", "--resources.workers", "1",
    "--training.steps", "200", "--training.checkpoint_every", "20", "--training.log_every", "10",
    "--batching.global_batch_size", "128", "--encoder.static.dimension", "128",
    "--evaluation.before", "false", "--tracking.log_model", "false",
]  # fmt: skip
QUICK = {"RAY_gcs_rpc_server_reconnect_timeout_s": "12"}
"""A head that is gone is given up after nine seconds. A call to it that has begun lasts up to a minute more."""


@pytest.fixture
def folder():
    """A folder with a short path: Ray's sockets lie in it."""
    with tempfile.TemporaryDirectory(prefix="hb", ignore_cleanup_errors=True) as path:
        yield Path(path)


def sweep(folder, head):
    command = [*SWEEP, "--data.cache", folder / "cache"]
    return Command(folder, *command, program=[ROOT / "tune" / "sweep.py"], RAY_ADDRESS=head.address, **QUICK)


def has_checkpoint(folder, alpha):
    """Whether the trial of `alpha` has one that is whole."""
    return any(
        is_complete(config.parent / "ray" / name)
        for config in folder.glob("runs/alpha-grid-*/quickstart-*/config.yaml")
        if load_config(config).batching.alpha == alpha
        for name in checkpoints_in(config.parent / "ray")
    )


def logged_steps(runs, client, name, since_ms):
    """Steps of a run's loss in the order in which they were told of, from a time on."""
    losses = client.get_metric_history(runs[name].info.run_id, "train/loss")
    losses = [loss for loss in losses if loss.timestamp >= since_ms]
    return [loss.step for loss in sorted(losses, key=lambda loss: (loss.timestamp, loss.step))]


def last_line(output):
    return output.strip().splitlines()[-1]


def test_what_was_trained_outlives_the_cluster(folder):
    first, second = folder / "1", folder / "2"
    first.mkdir()
    second.mkdir()
    with Node.head(first) as head, sweep(folder, head) as command:
        command.wait_for("alpha=0 seed=5  finished")
        command.wait_for("alpha=1 seed=5  started")
        command.wait_until(lambda _: has_checkpoint(folder, alpha=1), what="a checkpoint of the second trial")
        head.kill()
        lost_ms = time.time() * 1000
        assert command.finish() == 1, command.output
    assert last_line(command.output).startswith(f"error: the Ray cluster at {head.address} was lost: ")
    assert "Traceback" not in command.output
    runs, _ = mlflow_runs(folder)
    (sweep_folder,) = (folder / "runs").glob("alpha-grid-*")
    parent = runs[sweep_folder.name]
    assert parent.info.status == "FAILED"

    with Node.head(second) as head:
        with sweep(folder, head) as command:
            assert command.finish() == 0, command.output
        with Command(folder, head.address, program=["-m", "tests.integration.hold_actors"], **QUICK) as evaluating:
            evaluating.wait_for("at work")
            head.kill()
            assert evaluating.finish() == 1, evaluating.output
        assert last_line(evaluating.output).startswith(f"error: the Ray cluster at {head.address} was lost: ")
        assert "Traceback" not in evaluating.output
    assert "2 trials, 1 finished before" in command.output
    assert "alpha=0 seed=5  started" not in command.output
    runs, client = mlflow_runs(folder)
    assert {name: run.info.status for name, run in runs.items()} == {
        sweep_folder.name: "FINISHED",
        "alpha=0 seed=5": "FINISHED",
        "alpha=1 seed=5": "FINISHED",
    }
    assert runs[sweep_folder.name].info.run_id == parent.info.run_id
    steps = logged_steps(runs, client, "alpha=1 seed=5", lost_ms)
    assert steps == list(range(steps[0], 201, 10))
    assert steps[0] > 20, "what lies before the checkpoint is not trained again"
