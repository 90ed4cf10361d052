import json

import pytest

from hbtrain.config import load_config
from hbtrain.errors import StorageError
from hbtrain.runs.run_folder import RunFolder, RunState


def config(tmp_path, **overrides):
    return load_config("quickstart", {"storage": str(tmp_path / "runs"), **overrides})


def test_the_same_command_goes_on_until_the_run_is_finished(tmp_path):
    first = RunFolder.open(config(tmp_path))
    first.update(mlflow_run_id="abc")
    again = RunFolder.open(config(tmp_path))
    assert again.path == first.path
    assert again.state.mlflow_run_id == "abc"
    again.update(finished=True)
    assert again.state.mlflow_run_id == "abc"
    second = RunFolder.open(config(tmp_path))
    assert second.name == f"{first.name}-2"
    assert second.state.mlflow_run_id is None


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
    folder.delete_ray_checkpoint_list()  # nothing there yet
    record = folder.checkpoints / "checkpoint_manager_snapshot.json"
    record.parent.mkdir()
    record.write_text("{")
    folder.delete_ray_checkpoint_list()
    assert not record.exists()


def test_the_configuration_is_saved_and_loads_again(tmp_path):
    one = config(tmp_path, **{"batching.alpha": {0: 1.0, 10: 0.0}})
    assert load_config(RunFolder.open(one).config) == one


def test_storage_that_cannot_be_written(tmp_path):
    (tmp_path / "runs").touch()
    with pytest.raises(StorageError, match="storage = .*cannot be written"):
        RunFolder.open(config(tmp_path))


# A run begun by an earlier version goes on: names and values in the file stay what they are.
OLD = (
    '{"mlflow_run_id": "0b9c", "usage": {"worker_s": 12.5, "gpu_s": 0.0, "pairs": 640, "tokens": 9000.0}, '
    '"stopped_at_step": 4, "measured": {"candidates": "sentence", "index": null}, "continues_run": "77aa"%s}'
)


def test_a_run_begun_before_goes_on(tmp_path):
    folder = RunFolder.open(config(tmp_path))
    (folder.path / "run.json").write_text(OLD % ', "of_a_later_version": [1]')
    state = folder.state
    assert (state.mlflow_run_id, state.stopped_at, state.continues) == ("0b9c", 4, "77aa")
    assert (state.usage.worker_s, state.usage.pairs, state.usage.tokens) == (12.5, 640, 9000)
    assert state.measured == {"candidates": "sentence", "index": None}
    assert not folder.is_finished
    folder.update(finished=True, stopped_at=8)
    assert json.loads((folder.path / "run.json").read_text()) == {
        **json.loads(OLD % ', "of_a_later_version": [1]'),
        "stopped_at_step": 8,
        "finished": True,
    }


def test_only_what_is_known_is_in_the_file(tmp_path):
    folder = RunFolder.open(config(tmp_path))
    assert folder.state == RunState()
    folder.update(continues=None)
    folder.update(finished=False)
    assert json.loads((folder.path / "run.json").read_text()) == {"continues_run": None, "finished": False}
    with pytest.raises(TypeError, match="no stopped_at_step"):
        folder.update(stopped_at_step=4)


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        ("", "Invalid JSON: EOF"),
        ((OLD % "")[:40], "Invalid JSON: EOF"),
        ("[]", "should be an object"),
        (b"\xff{}", "UTF-8"),
        ('{"stopped_at_step": "four"}', "stopped_at_step: .*integer"),
        ('{"finished": [true]}', "finished: .*boolean"),
    ],
)
def test_a_damaged_state_is_one_line_and_nothing_is_lost(tmp_path, content, reason):
    folder = RunFolder.open(config(tmp_path))
    file = folder.path / "run.json"
    damaged = content if isinstance(content, bytes) else content.encode()
    file.write_bytes(damaged)
    reads = (
        lambda: folder.state,
        lambda: folder.update(finished=True),
        lambda: RunFolder.current(config(tmp_path)),
        lambda: RunFolder.open(config(tmp_path)),
        lambda: RunFolder.finished(config(tmp_path)),
    )
    for read in reads:
        with pytest.raises(StorageError, match=rf"^{file} is damaged \(.*{reason}.*\), .* put a copy .*") as error:
            read()
        assert "\n" not in str(error.value)
        assert error.value.exit_code == 2
    assert file.read_bytes() == damaged


def test_a_state_that_cannot_be_read_is_not_none(tmp_path):
    folder = RunFolder.open(config(tmp_path))
    (folder.path / "run.json").mkdir()
    with pytest.raises(StorageError, match=r"cannot read .*run\.json: Is a directory"):
        assert folder.is_finished


def test_a_neighbour_with_a_damaged_state_keeps_its_letters(tmp_path):
    whole, damaged = (RunFolder(tmp_path / name) for name in ("whole", "damaged"))
    for folder in (whole, damaged):
        folder.path.mkdir()
        folder.undelivered.write_text("letters")
        folder.update(finished=True)
    (damaged.path / "run.json").write_text("{")
    assert RunFolder(tmp_path / "mine").undelivered_of_others() == [whole.undelivered]


def test_finished_runs_of_a_configuration(tmp_path):
    assert RunFolder.finished(config(tmp_path)) == []
    assert not (tmp_path / "runs").exists(), "looking makes no folder"
    runs = []
    for _ in range(2):
        runs.append(RunFolder.open(config(tmp_path)))
        assert RunFolder.finished(config(tmp_path)) == runs[:-1]
        runs[-1].update(finished=True)
    assert RunFolder.finished(config(tmp_path)) == runs
    assert RunFolder.finished(config(tmp_path, seed=7)) == []
