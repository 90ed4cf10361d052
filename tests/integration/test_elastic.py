"""Workers and nodes that come and go: the run goes on with what there is, in batches of the same size."""

import itertools
import re
import tempfile
import time
from pathlib import Path

import pytest

from tests.integration.command import Command, mlflow_runs
from tests.integration.nodes import Node

pytestmark = pytest.mark.ray

SEEN_S = 25
"""Ray looks for new nodes every 20 s."""
LOG_EVERY, CHECKPOINT_EVERY, STEPS = 10, 50, 400
SLOW = [
    "--training.steps", STEPS, "--training.checkpoint_every", CHECKPOINT_EVERY, "--training.log_every", LOG_EVERY,
    "--batching.global_batch_size", "64", "--encoder.static.dimension", "128", "--evaluation.before", "false",
    "--evaluation.benchmarks", "[]",
]  # fmt: skip


@pytest.fixture
def folder():
    """A folder with a short path: Ray's sockets lie in it."""
    with tempfile.TemporaryDirectory(prefix="hb", ignore_cleanup_errors=True) as path:
        yield Path(path)


def histories(folder, *metrics):
    """The run, and [(step, value)] of metrics in the order in which they were logged."""
    from mlflow import MlflowClient

    client = MlflowClient(f"sqlite:///{folder / 'runs' / 'mlflow.db'}")
    (run,) = mlflow_runs(folder)
    found = []
    for metric in metrics:
        points = client.get_metric_history(run.info.run_id, metric)
        found.append([(point.step, point.value) for point in sorted(points, key=lambda p: (p.timestamp, p.step))])
    return run, *found


def resumed(output):
    """[(step, workers)] of the times the run went on."""
    found = re.findall(r"goes on from the checkpoint of step (\d+) on (\d+) worker", output)
    return [(int(step), int(workers)) for step, workers in found]


def test_nodes_come_and_go(folder):
    quick = {"RAY_TRAIN_WORKER_GROUP_START_TIMEOUT_S": "15"}
    arguments = ["train", "quickstart", *SLOW, "--data.cache", folder / "cache"]
    arguments += ["--resources.workers", "[1, 2]", "--training.max_failures", "5", "--resources.address"]
    with (
        Node.head(folder) as head,
        Command(folder, *arguments, head.address, **quick) as command,
    ):
        command.wait_for("checkpoint of step 50 kept")
        assert f"training {STEPS} steps on 1 to 2 workers" in command.output
        (worker,) = command.train_workers(head.process.pid)
        worker.suspend()  # time stands still for the training until the new node is seen
        with head.join(folder, "second") as second:
            time.sleep(SEEN_S)
            worker.kill()  # a new group of workers takes what there is now
            command.wait_for("on 2 workers")
            after = command.output.count("kept")
            command.wait_until(lambda output: output.count("kept") > after)
            second.kill()
            command.wait_until(lambda output: resumed(output)[-1][1] == 1)
            assert command.finish() == 0, command.output
        output = command.output
    run, losses, workers = histories(folder, "train/loss", "train/workers")
    assert run.info.status == "FINISHED"
    assert run.data.tags["world_size"] == "1-2"
    assert {value for _, value in workers} == {1, 2}
    assert workers[-1] == (STEPS, 1)
    check_steps([step for step, _ in losses], [step for step, _ in resumed(output)], STEPS)


def check_steps(steps, restarts, last):
    """Every step is logged, in order, but for what is repeated from the checkpoints that the run went on from."""
    assert sorted(set(steps)) == list(range(LOG_EVERY, last + 1, LOG_EVERY))
    jumps = [(a, b) for a, b in itertools.pairwise(steps) if b != a + LOG_EVERY]
    assert len(jumps) <= len(restarts)
    for before, after in jumps:
        assert after - LOG_EVERY in restarts
        assert after <= before + LOG_EVERY, "no step is left out"
        assert before - (after - LOG_EVERY) <= 2 * CHECKPOINT_EVERY, "only those after the last checkpoint"
