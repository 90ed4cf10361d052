"""The faults that are cheap to bring about; `run.py` tries them all."""

import json
import os
import re
import signal

import pytest

from hbtrain.runs.run_status import RunStatus
from tests.faults import numbers, outages
from tests.faults.hurt import HurtRun, Seen
from tests.faults.row import line_with, survived
from tests.integration.command import mlflow_runs

pytestmark = pytest.mark.ray


def failed(row):
    return [check for check, good in row.checks.items() if not good]


def test_a_stopped_worker_is_named_and_a_killed_rank_0_replaced(tmp_path):
    with HurtRun(tmp_path, "--training.step_timeout_s", "15") as run:
        run.wait_for("checkpoint of step 50 kept")
        stopped = run.pid(1)
        os.kill(stopped, signal.SIGSTOP)
        run.wait_for("goes on from the checkpoint")
        run.wait_for("checkpoint of step 150 kept")
        os.kill(run.pid(0), signal.SIGKILL)
        seen = Seen.of(run)
    said = line_with(" hangs since ", seen.output)
    place = (
        r"rank 1 on node [0-9.]+ \(pid (\d+)\) hangs since [0-9:]{8}: no progress for \d+ s, last heard of in phase "
    )
    assert int(re.search(place, said)[1]) == stopped, seen.output
    assert seen.output.count(" hangs since ") == 1, "its victims are not accused"
    assert all(survived(seen).values()), seen.output
    assert len(seen.resumed) == 2
    assert seen.resumed[0] >= 50
    assert seen.resumed[1] >= 150
    (folder,) = tmp_path.glob("runs/quickstart-*")
    assert seen.output.count("(restart 1 of 3 without progress)") == 2, "the second came after a newer checkpoint"
    assert "rank 0 on node" in line_with("(restart 1 of 3", seen.output)
    status = RunStatus.read(folder)
    assert (status.state, status.restarts, status.hangs, status.step) == ("finished", 2, 1, 300)
    (run,) = mlflow_runs(tmp_path)
    assert "hangs since" in run.data.tags["note.hang"]
    assert run.data.tags["count.restarts"] == "2"
    assert json.loads((folder / "results" / "metrics.json").read_text())["demo/multi/map"] > 0.2


def test_a_loss_of_nan_stops_with_step_rows_and_checkpoint(tmp_path):
    row = numbers.loss_of_nan(tmp_path)
    assert not failed(row), row.seen.output


def test_an_mlflow_server_that_is_killed_costs_nothing(tmp_path):
    row = outages.server_comes_back(tmp_path)
    assert not failed(row), row.seen.output
