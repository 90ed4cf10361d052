"""A sweep with the training taken out: its folder, its MLflow run, what it does again and what it does not."""

import json
from types import SimpleNamespace

import pytest

from hbtrain.cli.sweep import sweep
from hbtrain.config import load_config, override
from hbtrain.errors import ConfigError, DataError, HbtrainError, StorageError, TrainingError
from hbtrain.runs import run
from hbtrain.runs.run_folder import RunFolder
from hbtrain.runs.segments import measured_by
from hbtrain.storage.lease import leased
from hbtrain.sweeps import sweep as sweeping
from hbtrain.sweeps import tuning
from hbtrain.sweeps.space_file import load_space, with_flags


@pytest.fixture
def trained(monkeypatch):
    """Labels that were trained, a list for each call; a label in `failing` fails instead."""
    calls = SimpleNamespace(labels=[], failing={}, benchmarks=["demo"])

    def train(trials, folder):
        calls.labels.append([trial.label for trial in trials])
        for trial in trials:
            if trial.label not in calls.failing:
                finish(trial.config, calls.benchmarks)
        return {trial.label: calls.failing[trial.label] for trial in trials if trial.label in calls.failing}

    monkeypatch.setattr(tuning, "train_side_by_side", train)
    return calls


def finish(config, benchmarks=("demo",), score=0.5):
    folder = RunFolder.open(config)
    folder.results.mkdir()
    scores = {f"{name}/{key}": score for name in benchmarks for key in ("mono/map", "cross/map", "multi/map")}
    (folder.results / "metrics.json").write_text(json.dumps(scores))
    folder.update(finished=True, measured=measured_by(config))


@pytest.fixture
def space(tmp_path, monkeypatch, cache):
    monkeypatch.chdir(tmp_path)
    return with_flags(load_space("alpha-grid"), {"batching.alpha": [0, 1], "seed": 0, "resources.workers": 1})


def parent_runs(tmp_path):
    from mlflow import MlflowClient

    client = MlflowClient(f"sqlite:///{tmp_path / 'runs' / 'mlflow.db'}")
    return client.search_runs([client.get_experiment_by_name("alpha-grid").experiment_id])


def test_failed_trials_are_tried_again_in_the_same_mlflow_run(space, trained, tmp_path, capsys):
    trained.failing["alpha=1 seed=0"] = "no more memory"
    with pytest.raises(TrainingError, match=r"1 of 2 trials failed \(alpha=1 seed=0: no more memory\)") as error:
        sweeping.run_sweep(space)
    assert error.value.exit_code == 1
    (parent,) = parent_runs(tmp_path)
    assert parent.info.status == "FAILED"
    assert "- alpha=1 seed=0: no more memory" in parent.data.tags["mlflow.note.content"]
    assert parent.data.tags["space.batching.alpha"] == "0 1"

    trained.failing.clear()
    sweeping.run_sweep(space)
    assert trained.labels == [["alpha=0 seed=0", "alpha=1 seed=0"], ["alpha=1 seed=0"]]
    (again,) = parent_runs(tmp_path)
    assert (again.info.run_id, again.info.status) == (parent.info.run_id, "FINISHED")
    assert "memory" not in again.data.tags["mlflow.note.content"]
    sweeping.run_sweep(space)
    assert len(trained.labels) == 2, "all is done"
    assert "2 trials, 2 finished before" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("program", "arguments", "source"),
    [
        ("/x/tune/sweep.py", ["alpha-grid"], "tune/sweep.py alpha-grid"),
        ("/x/bin/hbtrain", ["sweep", "alpha-grid", "--seed", "0"], "hbtrain sweep alpha-grid --seed 0"),
    ],
)
def test_the_mlflow_run_shows_what_was_called(program, arguments, source, space, trained, monkeypatch, tmp_path):
    monkeypatch.setattr("sys.argv", [program, *arguments])
    sweep("alpha-grid", "--batching.alpha", "0", "--seed", "0", "--resources.workers", "1")
    (parent,) = parent_runs(tmp_path)
    assert parent.data.tags["mlflow.source.name"] == source


def test_the_model_of_the_best_point_is_registered(space, monkeypatch, tmp_path):
    from hbtrain.modeling.encoder import Encoder
    from hbtrain.tracking.tracker import Tracker
    from tests.unit.tiny_models import TEXTS, encoder_config

    def train(trials, folder):
        for trial in trials:
            assert trial.config.tracking.register is None, "one model of the sweep, not one of each trial"
            tracker, alpha = Tracker(trial.config, None, trial.label), trial.config.batching.alpha
            finish(trial.config, score=0.5 + alpha / 10)
            of_trial = RunFolder.finished(trial.config)[0]
            of_trial.update(mlflow_run_id=tracker.run_id)
            Encoder.build(encoder_config("static"), lambda: TEXTS, 0).save(of_trial.model)
            assert tracker.finish() == ""
        return {}

    monkeypatch.setattr(tuning, "train_side_by_side", train)
    for _ in range(2):
        sweeping.run_sweep(with_flags(space, {"tracking.register": "grid"}))
    from mlflow import MlflowClient

    client = MlflowClient(f"sqlite:///{tmp_path / 'runs' / 'mlflow.db'}")
    (version,) = client.search_model_versions("name = 'grid'")
    assert client.get_run(version.run_id).data.params["batching.alpha"] == "1.0"


def test_a_wider_range_goes_on_and_another_setting_is_another_sweep(space, trained, tmp_path):
    sweeping.run_sweep(space)
    sweeping.run_sweep(with_flags(space, {"batching.alpha": [0, 0.5, 1]}))
    assert trained.labels[1:] == [["alpha=0.5 seed=0"]]
    assert len(parent_runs(tmp_path)) == 1
    sweeping.run_sweep(with_flags(space, {"training.steps": 7}))
    assert trained.labels[2:] == [["alpha=0 seed=0", "alpha=1 seed=0"]]
    assert len(parent_runs(tmp_path)) == 2


def test_a_run_that_lacks_a_benchmark_does_not_count(tmp_path):
    config = load_config("quickstart", {"storage": str(tmp_path)})
    trial = SimpleNamespace(config=config)
    finish(config, benchmarks=["other"])
    assert sweeping._finished(trial) is None
    finish(config, benchmarks=["demo", "other"])
    assert sweeping._finished(trial).scores == {"demo/mono/map": 0.5, "demo/cross/map": 0.5, "demo/multi/map": 0.5}


def test_trials_are_children_with_names_of_their_own(space, monkeypatch, tmp_path):
    seen = []

    def train(trials, folder):
        seen.extend(trials)
        for trial in trials:
            finish(trial.config)
        return {}

    monkeypatch.setattr(tuning, "train_side_by_side", train)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "sqlite:///runs/mlflow.db")
    sweeping.run_sweep(space)
    (parent,) = parent_runs(tmp_path)
    assert [trial.config.tracking.run_name for trial in seen] == ["alpha=0 seed=0", "alpha=1 seed=0"]
    for trial in seen:
        assert trial.config.tracking.parent_run_id == parent.info.run_id
        assert trial.config.tracking.uri == f"sqlite:///{tmp_path}/runs/mlflow.db", "trials are driven elsewhere"
        assert trial.config.storage == str(tmp_path / "runs" / parent.info.run_name)


def test_bad_input_leaves_nothing_behind(space, trained, tmp_path):
    for flags, message in (
        ({"evaluation.benchmarks": []}, "evaluation.benchmarks is empty"),
        ({"resources.workers": 4096}, "resources.workers = 4096"),
        ({"evaluation.index": "Flat", "evaluation.depth": 9}, r"evaluation\.depth = 9: .* nDCG@10; give 10 or more"),
    ):
        with pytest.raises(ConfigError, match=message):
            sweeping.run_sweep(with_flags(space, flags))
    assert not (tmp_path / "runs").exists()
    assert trained.labels == []


def test_no_place_to_write_and_no_tracking_server(space, trained, tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(StorageError, match=r"storage = '.*file/runs' cannot be written: Not a directory"):
        sweeping.run_sweep(with_flags(space, {"storage": "file/runs"}))
    with pytest.raises(HbtrainError, match=r"storage = 's3://bucket/runs'.*tracking"):
        sweeping.run_sweep(with_flags(space, {"storage": "s3://bucket/runs"}))
    with pytest.raises(HbtrainError, match=r"http://127.0.0.1:1\b"):
        sweeping.run_sweep(with_flags(space, {"tracking.uri": "http://127.0.0.1:1"}))
    assert trained.labels == []


def test_scores_measured_otherwise_make_another_sweep(space, trained, tmp_path):
    sweeping.run_sweep(space)
    sweeping.run_sweep(with_flags(space, {"evaluation.index": "Flat"}))
    assert len(trained.labels) == 2
    assert len(parent_runs(tmp_path)) == 2


def test_a_trial_that_ends_without_scores_has_failed(space, trained, monkeypatch):
    monkeypatch.setattr(tuning, "train_side_by_side", lambda trials, folder: {})
    with pytest.raises(TrainingError, match="2 of 2 trials failed .*it ended without scores on all benchmarks"):
        sweeping.run_sweep(space)


def test_passwords_stay_out_of_what_a_sweep_keeps(space, trained, tmp_path):
    hidden = {"tracking.uri": f"sqlite:///{tmp_path}/runs/mlflow.db?password=hunter2"}
    sweeping.run_sweep(with_flags(space, hidden))
    kept = [path for path in tmp_path.rglob("*") if path.is_file() and b"hunter2" in path.read_bytes()]
    assert [path.name for path in kept if path.suffix in (".yaml", ".json", ".md", ".csv", ".html")] == []
    (space_file,) = (tmp_path / "runs").glob("alpha-grid-*/space.yaml")
    assert "password=***" in space_file.read_text()


def test_two_processes_are_not_in_one_sweep(space, trained, tmp_path):
    sweeping.run_sweep(space)
    (folder,) = (tmp_path / "runs").glob("alpha-grid-*")
    with leased(folder), pytest.raises(StorageError, match="another process is at work in .*alpha-grid-"):
        sweeping.run_sweep(space)


def test_a_sweep_looks_for_what_trials_could_not_deliver_as_often_whatever_their_number(
    space, trained, tmp_path, monkeypatch
):
    looked = []
    real = RunFolder.undelivered_in
    monkeypatch.setattr(RunFolder, "undelivered_in", staticmethod(lambda root: looked.append(root) or real(root)))
    for alphas in ([0], [0, 0.25, 0.5, 0.75, 1]):
        looked.clear()
        sweeping.run_sweep(with_flags(space, {"batching.alpha": alphas}))
        (folder,) = (tmp_path / "runs").glob("alpha-grid-*")
        assert looked == [folder, folder], "at the beginning and at the end, and no trial does"
    (parent,) = parent_runs(tmp_path)
    trial = next(folder.glob("*/run.json")).parent
    message = {"run_id": parent.info.run_id, "kind": "tag", "content": ["late", "letter"]}
    (trial / "mlflow-undelivered.jsonl").write_text(f"sqlite:///{tmp_path}/runs/mlflow.db\n{json.dumps(message)}\n")
    sweeping.run_sweep(space)
    assert parent_runs(tmp_path)[0].data.tags["late"] == "letter"
    assert not list(folder.rglob("mlflow-undelivered.jsonl"))


def test_a_trial_leaves_what_others_could_not_deliver_to_its_sweep(tmp_path, monkeypatch):
    adopted = []
    tracker = SimpleNamespace(run_id="abc", adopt=adopted.append)
    monkeypatch.setattr(run, "Tracker", lambda *_, **__: tracker)
    config = load_config("quickstart", {"storage": str(tmp_path)})
    other = RunFolder(tmp_path / "other")
    other.path.mkdir()
    other.update(finished=True)
    other.undelivered.touch()
    folder = RunFolder.open(config)
    run._tracker(override(config, {"tracking.parent_run_id": "0" * 32}), folder, None)
    assert adopted == []
    run._tracker(config, folder, None)
    assert adopted == [other.undelivered]


def test_as_many_trials_run_at_once_as_the_cluster_has_room_for():
    def concurrent_trials(cpus, gpus=0, **overrides):
        config = load_config("quickstart", {f"resources.{key}": value for key, value in overrides.items()})
        return tuning.concurrent_trials(config, {"hardware.cluster_cpus": cpus, "hardware.cluster_gpus": gpus})

    assert concurrent_trials(8, workers=2) == 4
    assert concurrent_trials(7, workers=2, cpus_per_worker=1.5) == 2
    assert concurrent_trials(2, workers=(1, 4)) == 1
    assert concurrent_trials(64, gpus=8, workers=2, use_gpu=True) == 4


def test_what_ray_tune_says_of_trials():
    def result(label, error=None, **metrics):
        return SimpleNamespace(
            config={"trial": {"number": 0, "label": label}}, error=error, metrics=metrics, path="/tune/x"
        )

    crash = RuntimeError("first line\nActorDiedError: out of memory")
    results = [result("a", failure=""), result("b", error=crash), result("c", failure="cannot read source")]
    assert tuning.failures_of(results) == {
        "b": "ActorDiedError: out of memory (traceback in /tune/x)",
        "c": "cannot read source",
    }


@pytest.mark.parametrize("metrics", [None, {"step": 4}])
def test_a_tune_that_was_stopped_is_an_interruption(metrics, monkeypatch, tmp_path):
    done, cut_off = SimpleNamespace(error=None, metrics={"done": True}), SimpleNamespace(error=None, metrics=metrics)
    for results in ([done, cut_off], [done]):
        monkeypatch.setattr("ray.tune.Tuner", lambda *_, found=results, **how: SimpleNamespace(fit=lambda: found))
        with pytest.raises(KeyboardInterrupt):
            tuning.fit(None, {}, tmp_path, None, trials=2)


def test_a_sweep_goes_on_with_the_same_content_only(space, trained, tmp_path, capsys):
    from tests.unit.test_run_inputs import rows

    (tmp_path / "asked.jsonl").write_text(rows("lake"))
    own = with_flags(space, {"evaluation.benchmarks": [f"parallel={tmp_path}/asked.jsonl"], "batching.alpha": [0, 1]})
    trained.benchmarks = ["asked"]
    sweeping.run_sweep(own)
    folder = sweeping.sweep_folder(own, sweeping.absolute_paths(sweeping.base_config(own)))
    trials = [RunFolder(path.parent) for path in folder.glob("*/run.json")]
    trials[0].update(inputs={"evaluation.benchmarks": "as it was"})
    (tmp_path / "asked.jsonl").write_text(rows("tree"))
    with pytest.raises(DataError, match=rf"asked\.jsonl: the content has changed since sweep {folder.name} began"):
        sweeping.run_sweep(own)
    assert len(trained.labels) == 1, "finished trials do not count for other content"
    capsys.readouterr()
    sweeping.run_sweep(own, accept_changed_inputs=True)
    assert "goes on with other content: evaluation.benchmarks = parallel=" in capsys.readouterr().out
    assert [trial.state.inputs for trial in trials] == [None, None], "each takes what is there when it goes on"
