"""Deaths of the driver: the same command makes them good, with as many workers as there are then."""

import json
import signal

import pytest

from tests.integration.command import Command
from tests.integration.test_elastic import check_steps, histories, resumed

pytestmark = pytest.mark.ray

PAIRS, STEPS = 64, 300
RUN = [
    "train", "quickstart", "--training.steps", STEPS, "--training.checkpoint_every", "50", "--training.log_every", "10",
    "--batching.global_batch_size", PAIRS, "--encoder.static.dimension", "128", "--evaluation.before", "false",
    "--training.deepspeed.zero_optimization.stage", "2", "--resources.cpus_per_worker", "0.5",
    "--evaluation.every", "100", "--evaluation.keep_best", "demo/multi/map",
]  # fmt: skip


def test_interrupted_killed_and_finished_by_more_workers(tmp_path):
    arguments = [*RUN, "--data.cache", tmp_path / "cache"]
    with Command(tmp_path, *arguments) as command:
        command.wait_for("step 50: checkpoint")
        command.process.send_signal(signal.SIGINT)
        assert command.finish() == 130, command.output
        assert "interrupted; the same command goes on, a training from its last checkpoint" in command.output
        assert "Traceback" not in command.output
    run, _ = histories(tmp_path, "train/loss")
    assert run.info.status == "KILLED"

    slowly = ("-m", "tests.integration.slow_tracking")
    with Command(tmp_path, *arguments, program=slowly) as command:
        command.wait_for("checkpoint of step 150 kept")
        command.kill_all()
    restarts = resumed(command.output)
    (folder,) = (tmp_path / "runs").glob("quickstart-*")
    used = json.loads((folder / "run.json").read_text())["usage"]
    assert used["pairs"] >= 140 * PAIRS

    with Command(tmp_path, *arguments, "--resources.workers", "3") as command:
        assert command.finish() == 0, command.output
        restarts += resumed(command.output)
    assert [workers for _, workers in restarts] == [2, 3], "of 64 pairs, three workers have not the same number each"
    assert restarts[0][0] >= 50
    assert restarts[1][0] >= 150
    assert len(list((tmp_path / "runs").glob("quickstart-*"))) == 1
    run, losses, curve = histories(tmp_path, "train/loss", "eval/demo/multi/map")
    assert run.info.status == "FINISHED"
    assert run.data.tags["world_size"] == "3"
    check_steps([step for step, _ in losses], [step for step, _ in restarts], STEPS)
    # The work of all three; steps done twice count twice.
    metrics = run.data.metrics
    assert STEPS * PAIRS <= metrics["usage/pairs"] < used["pairs"] + STEPS * PAIRS
    assert (metrics["usage/pairs"] - used["pairs"]) % PAIRS == 0
    assert metrics["usage/worker_hours"] > used["worker_s"] / 3600 > 0
    assert run.data.tags["estimate.pairs"] == str(STEPS * PAIRS)
    # Evaluated while it trained, by however many workers; the model is the best of these, and scored as it was then.
    best = json.loads((folder / "model" / "best.json").read_text())
    assert {step for step, _ in curve} == {100, 200, STEPS}
    assert (best["step"], best["value"]) == max(curve, key=lambda point: (point[1], -point[0]))
    assert curve[-1] == (STEPS, best["value"])
