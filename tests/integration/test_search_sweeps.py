"""Searches on real Ray clusters: a population whose schedule trains from scratch, and a search that is killed."""

import json
import signal

import numpy as np
import pytest
from safetensors.numpy import load_file

from tests.integration.command import ROOT, Command

pytestmark = pytest.mark.ray

SMALL = [
    "--resources.workers", "1", "--encoder.static.dimension", "16", "--encoder.static.vocabulary_size", "500",
    "--training.checkpoint_every", "3",
]  # fmt: skip
SWEEP = [ROOT / "tune" / "sweep.py"]


def finish(command):
    assert command.finish() == 0, command.output
    assert "Traceback" not in command.output
    assert "worker processes have been started" not in command.output
    return command.output


def mlflow_runs(folder, experiment):
    """{name: run} of an experiment."""
    from mlflow import MlflowClient

    client = MlflowClient(f"sqlite:///{folder / 'runs' / 'mlflow.db'}")
    runs = client.search_runs([client.get_experiment_by_name(experiment).experiment_id])
    assert len({run.info.run_name for run in runs}) == len(runs)
    return {run.info.run_name: run for run in runs}


def test_a_population_learns_a_schedule_that_trains_from_scratch_to_the_same_weights(tmp_path):
    common = [*SMALL, "--training.steps", "8", "--data.cache", tmp_path / "cache"]
    # Two alphas far from each other: whoever takes over goes on with other kinds of batches.
    search = ["--search.population", "2", "--search.intervals", "2", "--batching.alpha", "0.1", "0.9"]
    with Command(tmp_path, "alpha-pbt", *common, *search, program=SWEEP) as command:
        output = finish(command)
    (folder,) = (tmp_path / "runs").glob("alpha-pbt-*")
    outcome = json.loads((folder / "outcome.json").read_text())
    members = {len(member["schedule"]): member for member in outcome["members"]}
    assert members.keys() == {1, 2}, "one kept its alpha, the other one took it over and changed it"
    assert members[2]["schedule"].keys() == {"0", "4"}
    assert members[2]["schedule"]["0"] == members[1]["schedule"]["0"]
    assert "is given up; in its place another one goes on as alpha=" in output

    runs = mlflow_runs(tmp_path, "alpha-pbt")
    parent = runs.pop(folder.name)
    assert len(runs) == 3, "two that began, and one that went on from another's checkpoint"
    assert {run.info.status for run in (parent, *runs.values())} == {"FINISHED"}
    assert {run.data.tags["mlflow.parentRunId"] for run in runs.values()} == {parent.info.run_id}
    by_id = {json.loads((path / "run.json").read_text())["mlflow_run_id"]: path for path in folder.glob("quickstart-*")}
    (taker,) = (run for run in runs.values() if "continues_run" in run.data.tags)
    assert by_id[taker.data.tags["continues_run"]].name == members[1]["run"]
    assert by_id[taker.info.run_id].name == members[2]["run"]
    (given_up,) = (run for run in runs.values() if "stopped_at_step" in run.data.tags)
    assert given_up.data.tags["stopped_at_step"] == "4"

    alpha, changed = members[2]["schedule"].values()
    points = json.dumps({"0": alpha, "3": alpha, "4": changed})
    scratch = ["train", "quickstart", "--batching.alpha", points, "--evaluation.before", "false", *common]
    with Command(tmp_path, *scratch, "--storage", tmp_path / "scratch") as command:
        finish(command)
    (run,) = (tmp_path / "scratch").glob("quickstart-*")
    whole, member = (load_file(path / "model" / "model.safetensors") for path in (run, folder / members[2]["run"]))
    assert whole.keys() == member.keys()
    for name, weights in whole.items():
        assert np.abs(weights - member[name]).max() < 1e-6
    donor = load_file(folder / members[1]["run"] / "model" / "model.safetensors")
    assert max(np.abs(whole[name] - donor[name]).max() for name in whole) > 1e-4, "another alpha, other weights"
    scores = [json.loads((path / "results" / "metrics.json").read_text()) for path in (run, folder / members[2]["run"])]
    assert scores[0] == pytest.approx(scores[1], abs=1e-6)


def test_a_search_that_is_killed_and_then_ended_by_sigterm_goes_on(tmp_path):
    arguments = [
        "alpha-asha", *SMALL, "--training.steps", "6", "--search.trials", "2", "--search.rungs", "2",
        "--search.reduction", "3", "--data.cache", tmp_path / "cache", "--resources.cpus_per_worker", "2",
    ]  # fmt: skip
    with Command(tmp_path, *arguments, program=SWEEP) as command:
        command.wait_for("started")
        command.kill_all()
    with Command(tmp_path, *arguments, program=SWEEP) as command:
        command.wait_until(lambda output: output.count("started") >= 2, what="a second trial")
        command.wait_for("finished after")
        command.process.send_signal(signal.SIGTERM)
        assert command.finish() == 143, command.output
        assert "ended by SIGTERM; the same command goes on: finished trials are kept" in command.output
        assert "Traceback" not in command.output
    (folder,) = (tmp_path / "runs").glob("alpha-asha-*")
    begun = [json.loads(line) for line in (folder / "points.jsonl").read_text().splitlines()]
    done = {file: file.stat().st_mtime_ns for file in folder.glob("quickstart-*/results-steps/*.json")}
    trained = {file: file.stat().st_mtime_ns for file in folder.glob("quickstart-*/model/model.safetensors")}
    finished = [file.parents[1] for file in done if int(file.stem) == 6]
    assert finished
    parent_id = json.loads((folder / "run.json").read_text())["mlflow_run_id"]

    with Command(tmp_path, *arguments, program=SWEEP) as command:
        output = finish(command)
    assert "summary" in output
    assert {file: file.stat().st_mtime_ns for file in done} == done, "nothing is evaluated again"
    for run in finished:
        weights = run / "model" / "model.safetensors"
        assert weights.stat().st_mtime_ns == trained[weights], "nothing is trained again"
    outcome = json.loads((folder / "outcome.json").read_text())
    ended = [*outcome["finished"], *outcome["stopped"]]
    assert len(ended) == 2
    assert all(point in [one["values"] for one in ended] for point in begun), "the same points"
    assert {run.name for run in finished} <= {one["run"] for one in outcome["finished"]}
    assert sorted(path.name for path in folder.glob("quickstart-*")) == sorted(one["run"] for one in ended)
    runs = mlflow_runs(tmp_path, "alpha-asha")
    parent = runs.pop(folder.name)
    assert (parent.info.run_id, parent.info.status) == (parent_id, "FINISHED")
    assert len(runs) == 2
    for one in outcome["stopped"]:
        assert runs[f"alpha={one['values']['batching.alpha']:g}"].data.tags["stopped_at_step"] == str(one["step"])
