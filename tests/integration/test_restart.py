"""Deaths of the driver: the same command makes them good, with as many workers as there are then."""

import json
import signal
import time

import pytest

from hbtrain.runs.run_states import fared, mark_lost
from tests.integration.command import Command, mlflow_runs
from tests.integration.test_elastic import check_steps, histories, resumed

pytestmark = pytest.mark.ray

PAIRS, STEPS = 64, 300
RUN = [
    "train", "quickstart", "--training.steps", STEPS, "--training.checkpoint_every", "50", "--training.log_every", "10",
    "--batching.global_batch_size", PAIRS, "--encoder.static.dimension", "128", "--evaluation.before", "false",
    "--training.deepspeed.zero_optimization.stage", "2", "--resources.cpus_per_worker", "0.5",
    "--evaluation.every", "100", "--evaluation.keep_best", "demo/multi/map",
]  # fmt: skip


def terminated(tmp_path, arguments):
    """End the run by SIGTERM; the step of the checkpoint that it kept."""
    with Command(tmp_path, *arguments) as command:
        command.wait_for("step 10/300")
        command.process.send_signal(signal.SIGTERM)
        assert command.finish() == 143, command.output
    text = " ".join(command.output.split())
    assert "SIGTERM: a checkpoint is taken, and then this ends; a second signal ends it at once" in text
    stopped = int(text.rpartition(" kept")[0].rpartition("checkpoint of step ")[2])
    assert f"ended by SIGTERM; the same command goes on; the last good checkpoint is {tmp_path}" in text
    assert f"/step-{stopped:08d}-" in text
    assert not [word for word in ("Traceback", "Stack trace", "***", "@  ") if word in command.output], "by no crash"
    assert stopped > 10
    assert stopped % 10 == 0, "where figures are told anyway"
    (run,) = mlflow_runs(tmp_path)
    assert run.info.status == "KILLED"
    assert "step" in run.data.tags["note.stop"]
    (folder,) = (tmp_path / "runs").glob("quickstart-*")
    seen = fared(folder)
    assert (seen.state, seen.status.step, seen.status.steps) == ("killed", stopped, STEPS)
    assert seen.note.startswith("ended by SIGTERM; ")
    assert f'"checkpoint of step {stopped} kept"' in (folder / "log.jsonl").read_text()
    return stopped


def test_terminated_killed_interrupted_and_finished_by_more_workers(tmp_path):
    arguments = [*RUN, "--data.cache", tmp_path / "cache"]
    stopped = terminated(tmp_path, arguments)
    (folder,) = (tmp_path / "runs").glob("quickstart-*")
    later = (stopped // 50 + 2) * 50
    slowly = ("-m", "tests.integration.slow_tracking")
    with Command(tmp_path, *arguments, program=slowly) as command:
        command.wait_for(f"checkpoint of step {later} kept")
        command.kill_all()
    restarts = resumed(command.output)
    lost = fared(folder, now_s=time.time() + 30)
    assert lost.state == "lost"
    assert mark_lost([lost]) == []
    (run,) = mlflow_runs(tmp_path)
    assert run.info.status == "KILLED", "the driver could not say so"
    used = json.loads((folder / "run.json").read_text())["usage"]
    assert used["pairs"] >= (later - 10) * PAIRS

    with Command(tmp_path, *arguments) as command:
        command.wait_for("goes on from the checkpoint")
        command.process.send_signal(signal.SIGINT)
        assert command.finish() == 130, command.output
        assert "interrupted; the same command goes on, a training from its last checkpoint" in command.output
        assert "Traceback" not in command.output
        restarts += resumed(command.output)
    assert fared(folder).state == "killed"

    with Command(tmp_path, *arguments, "--resources.workers", "3") as command:
        assert command.finish() == 0, command.output
        restarts += resumed(command.output)
    assert [workers for _, workers in restarts] == [2, 2, 3], "of 64 pairs, three workers have not the same number each"
    assert restarts[0][0] == stopped
    assert restarts[1][0] >= later
    assert restarts[2][0] >= restarts[1][0]
    assert len(list((tmp_path / "runs").glob("quickstart-*"))) == 1
    run, losses, curve = histories(tmp_path, "train/loss", "eval/demo/multi/map")
    assert run.info.status == "FINISHED"
    assert (fared(folder).state, fared(folder).status.step) == ("finished", STEPS)
    assert run.data.tags["world_size"] == "3"
    check_steps([step for step, _ in losses], [step for step, _ in restarts], STEPS)
    # The work of all; steps done twice count twice.
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
