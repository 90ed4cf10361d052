"""kill -9 of everything while a checkpoint is being written: the same command goes on from the one before."""

import time
from itertools import takewhile

import pytest

from hbtrain.training.checkpoint_files import checkpoints_in, is_complete, step_of
from tests.integration.command import Command, mlflow_runs

pytestmark = pytest.mark.ray

# Large checkpoints, so that there is time to come between.
WIDE = [
    "--training.steps", "80", "--training.checkpoint_every", "20", "--batching.global_batch_size", "64",
    "--encoder.static.dimension", "2048", "--resources.cpus_per_worker", "0.5", "--evaluation.benchmarks", "[]",
    "--tracking.log_model", "false",
]  # fmt: skip


def unfinished(storage):
    """Those after the newest whole one; an old one that is just being deleted is not whole either."""
    return list(takewhile(lambda name: not is_complete(storage / name), checkpoints_in(storage)))


def killed_while_writing(command, folder):
    """Kill the command while a checkpoint after the first is unfinished; the names of those that it left behind."""
    command.wait_for("step 20 kept")
    (storage,) = (folder / "runs").glob("quickstart-*/ray")
    while not unfinished(storage):
        assert command.process.poll() is None, command.output
        time.sleep(0.002)
    command.kill_all()
    return storage, unfinished(storage)


def test_a_kill_while_a_checkpoint_is_written(tmp_path):
    arguments = ["train", "quickstart", *WIDE, "--data.cache", tmp_path / "cache"]
    with Command(tmp_path, *arguments) as command:
        storage, left = killed_while_writing(command, tmp_path)
    assert left, "the kill came too late"
    whole = max(step_of(name) for name in checkpoints_in(storage) if name not in left)
    with Command(tmp_path, *arguments) as command:
        assert command.finish() == 0, command.output
        text = " ".join(command.output.split())
    assert f"checkpoint of step {step_of(left[0])} is damaged (" in text
    assert f"): goes on from the checkpoint of step {whole} on 2 workers" in text
    assert "checkpoint of step 80 kept" in text
    assert unfinished(storage) == []
    assert len(checkpoints_in(storage)) == 2
    (run,) = mlflow_runs(tmp_path)
    assert run.info.status == "FINISHED"
