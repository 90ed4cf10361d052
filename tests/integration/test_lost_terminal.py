"""A run whose terminal goes away, or cannot take more, loses nothing of what it makes."""

import json
import subprocess
import sys

import pytest
from safetensors.numpy import load_file

from tests.faults.outcome import weights_without_ray
from tests.integration.command import PATIENCE_S, mlflow_runs, workers_are_forks

pytestmark = pytest.mark.ray

STEPS, BATCH = 40, 64
RUN = [
    "-m", "hbtrain.cli.main", "train", "quickstart", "--training.steps", STEPS, "--training.log_every", 5,
    "--training.checkpoint_every", 10, "--batching.global_batch_size", BATCH, "--resources.workers", 1,
    "--encoder.static.dimension", 32, "--evaluation.before", "false",
]  # fmt: skip


def test_figures_and_checkpoints_do_not_wait_for_a_reader(tmp_path):
    command = [sys.executable, *map(str, RUN), "--data.cache", str(tmp_path / "cache")]
    with workers_are_forks():
        run = subprocess.Popen(command, cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    shown = [run.stdout.readline()]
    while "training 40 steps" not in shown[-1]:
        shown.append(run.stdout.readline())
        assert shown[-1], run.communicate()
    run.stdout.close()
    errors = run.stderr.read()
    assert run.wait(PATIENCE_S) == 0, errors
    assert "Traceback" not in errors
    (tracked,) = mlflow_runs(tmp_path)
    assert tracked.info.status == "FINISHED"
    assert tracked.data.metrics["usage/pairs"] == STEPS * BATCH
    assert "eval/demo/multi/map" in tracked.data.metrics
    from mlflow import MlflowClient

    client = MlflowClient(f"sqlite:///{tmp_path / 'runs' / 'mlflow.db'}")
    logged = client.get_metric_history(tracked.info.run_id, "train/learning_rate")
    assert [figure.step for figure in logged] == list(range(5, STEPS + 1, 5))
    (folder,) = (tmp_path / "runs").glob("quickstart-*")
    assert json.loads((folder / "run.json").read_text())["finished"] is True
    weights, unhurt = load_file(folder / "model" / "model.safetensors"), weights_without_ray(folder, 1, tmp_path)
    assert weights.keys() == unhurt.keys()
    assert all((weights[name] == unhurt[name]).all() for name in weights), "those of a run that nothing happened to"
