import pytest

from hbtrain.config import load_config
from hbtrain.errors import StorageError
from hbtrain.runs.run_folder import RunFolder


def config(tmp_path, **overrides):
    return load_config("quickstart", {"storage": str(tmp_path / "runs"), **overrides})


def test_the_same_command_goes_on_until_the_run_is_finished(tmp_path):
    first = RunFolder.open(config(tmp_path))
    first.remember(mlflow_run_id="abc")
    again = RunFolder.open(config(tmp_path))
    assert again.path == first.path
    assert again.recall("mlflow_run_id") == "abc"
    again.remember(finished=True)
    assert again.recall("mlflow_run_id") == "abc"
    second = RunFolder.open(config(tmp_path))
    assert second.name == f"{first.name}-2"
    assert second.recall("mlflow_run_id") is None


def test_what_changes_training_makes_another_run(tmp_path):
    first = RunFolder.open(config(tmp_path))
    assert RunFolder.open(config(tmp_path, **{"batching.alpha": 0.3})).path != first.path
    assert RunFolder.open(config(tmp_path, **{"training.chunks": 2})).path != first.path
    assert RunFolder.open(config(tmp_path, **{"tracking.experiment": "other"})).path == first.path


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("resources.workers", [1, 2]),
        ("resources.cpus_per_worker", 0.5),
        ("training.checkpoint_every", 7),
        ("training.log_every", 7),
        ("training.max_failures", -1),
        ("loss.block_rows", 64),
    ],
)
def test_a_run_goes_on_on_other_machines_and_with_other_habits(tmp_path, key, value):
    first = RunFolder.open(config(tmp_path))
    assert RunFolder.open(config(tmp_path, **{key: value})).path == first.path


def test_rays_own_record_is_forgotten(tmp_path):
    folder = RunFolder.open(config(tmp_path))
    folder.forget_rays_record()  # nothing there yet
    record = folder.checkpoints / "checkpoint_manager_snapshot.json"
    record.parent.mkdir()
    record.write_text("{")
    folder.forget_rays_record()
    assert not record.exists()


def test_the_configuration_is_saved_and_loads_again(tmp_path):
    one = config(tmp_path, **{"batching.alpha": {0: 1.0, 10: 0.0}})
    assert load_config(RunFolder.open(one).config) == one


def test_storage_that_cannot_be_written(tmp_path):
    (tmp_path / "runs").touch()
    with pytest.raises(StorageError, match="storage = .*cannot be written"):
        RunFolder.open(config(tmp_path))


def test_a_damaged_memory_is_as_none(tmp_path):
    folder = RunFolder.open(config(tmp_path))
    (folder.path / "run.json").write_text("{")
    assert folder.recall("mlflow_run_id") is None
    assert not folder.is_finished


def test_finished_runs_of_a_configuration(tmp_path):
    assert RunFolder.finished(config(tmp_path)) == []
    assert not (tmp_path / "runs").exists(), "looking makes no folder"
    runs = []
    for _ in range(2):
        runs.append(RunFolder.open(config(tmp_path)))
        assert RunFolder.finished(config(tmp_path)) == runs[:-1]
        runs[-1].remember(finished=True)
    assert RunFolder.finished(config(tmp_path)) == runs
    assert RunFolder.finished(config(tmp_path, seed=7)) == []
