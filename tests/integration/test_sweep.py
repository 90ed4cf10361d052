"""A small sweep, whole; and once more, when there is nothing left to do."""

import csv
import json

import pytest

from hbtrain.config import load_config
from tests.integration.command import ROOT, Command

pytestmark = pytest.mark.ray

SMALL = [
    "alpha-grid", "--batching.alpha", "0", "1", "--seed", "5", "--training.steps", "10", "--resources.workers", "1",
]  # fmt: skip


def sweep(folder):
    with Command(folder, *SMALL, "--data.cache", folder / "cache", program=[ROOT / "tune" / "sweep.py"]) as command:
        assert command.finish() == 0, command.output
        return command.output


def mlflow_runs(folder):
    """{name: run} of the sweep's experiment, and a client."""
    from mlflow import MlflowClient

    client = MlflowClient(f"sqlite:///{folder / 'runs' / 'mlflow.db'}")
    runs = client.search_runs([client.get_experiment_by_name("alpha-grid").experiment_id])
    assert len({run.info.run_name for run in runs}) == len(runs)
    return {run.info.run_name: run for run in runs}, client


def test_a_sweep_and_the_same_again(tmp_path):
    output = sweep(tmp_path)
    assert "2 trials, 0 finished before" in output
    assert "alpha=0 seed=5  finished" in output
    assert "alpha=1 seed=5  finished" in output
    assert "Traceback" not in output

    (folder,) = (tmp_path / "runs").glob("alpha-grid-*")
    trials = sorted(folder.glob("quickstart-*"))
    assert len(trials) == 2
    runs, client = mlflow_runs(tmp_path)
    parent = runs.pop(folder.name)
    assert runs.keys() == {"alpha=0 seed=5", "alpha=1 seed=5"}
    for run in (parent, *runs.values()):
        assert run.info.status == "FINISHED"
    for alpha in ("0", "1"):
        child = runs[f"alpha={alpha} seed=5"]
        assert child.data.tags["mlflow.parentRunId"] == parent.info.run_id
        assert child.data.params["batching.alpha"] == f"{alpha}.0"
        assert child.data.params["seed"] == "5"
    with (folder / "summary.csv").open() as stream:
        rows = {row["batching.alpha"]: row for row in csv.DictReader(stream)}
    for alpha in ("0", "1"):
        scored = runs[f"alpha={alpha} seed=5"].data.metrics["eval/demo/multi/map"]
        assert float(rows[alpha]["multi/map mean"]) == pytest.approx(scored, abs=1e-6)
        assert f"{scored:.3f}" in parent.data.tags["mlflow.note.content"]
    artifacts = {artifact.path for artifact in client.list_artifacts(parent.info.run_id)}
    made = {"alpha-curve-demo.png", "best.yaml", "pareto-front-demo.png", "summary.csv", "summary.md"}
    assert artifacts == made | {"report", "space.yaml"}
    used = [run.data.metrics["usage/pairs"] for run in runs.values()]
    assert parent.data.metrics["usage/pairs"] == sum(used) > 0
    assert load_config(folder / "best.yaml").batching.alpha in (0, 1)
    report = {artifact.path for artifact in client.list_artifacts(parent.info.run_id, "report")}
    assert {"report/report.html", "report/comparison.csv", "report/settings-demo.png"} <= report

    models = {trial: (trial / "model" / "model.safetensors").stat().st_mtime_ns for trial in trials}
    output = sweep(tmp_path)
    assert "2 trials, 2 finished before" in output
    assert "started" not in output
    again, _ = mlflow_runs(tmp_path)
    assert {name: run.info.run_id for name, run in again.items()} == {
        name: run.info.run_id for name, run in {**runs, folder.name: parent}.items()
    }
    assert again[folder.name].info.status == "FINISHED"
    assert {trial: (trial / "model" / "model.safetensors").stat().st_mtime_ns for trial in trials} == models
    assert sorted(folder.glob("quickstart-*")) == trials
    assert all(json.loads((trial / "run.json").read_text())["finished"] for trial in trials)
