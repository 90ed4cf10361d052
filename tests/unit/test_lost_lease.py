"""A driver that is second, or that another one has taken over from, changes nothing of the run and says why."""

import json
import time
from contextlib import contextmanager, nullcontext
from types import SimpleNamespace

import pytest

from hbtrain.config import load_config
from hbtrain.errors import LeaseLostError, StorageError, TrainingError
from hbtrain.events import NullObserver
from hbtrain.runs import ray_train, run
from hbtrain.runs.run_folder import RunFolder
from hbtrain.runs.run_status import HEARTBEAT, StatusWriter
from hbtrain.storage import lease as leases
from hbtrain.storage.lease import leased
from hbtrain.training import checkpoint as checkpoints
from hbtrain.training.checkpoint_files import Manifest, checkpoints_in, folder_name, store
from hbtrain.training.loop import Trainer

LOST = LeaseLostError("process 42 has taken over")
CHECKED = SimpleNamespace(
    during=SimpleNamespace(lines=()), data_sets={}, batch_plan="drawn", corpus=None, benchmarks=()
)


@pytest.fixture(params=["disk", "bucket"])
def config(request, tmp_path, monkeypatch):
    """A recipe whose run passes all checks before it at once."""
    monkeypatch.setattr(leases, "SETTLE_S", 0.0)
    for name in ("check_storage", "estimate"):
        monkeypatch.setattr(run, name, lambda *_: None)
    monkeypatch.setattr(run, "preflight", lambda *_: CHECKED)
    monkeypatch.setattr(run, "_inputs", lambda *_: SimpleNamespace(changed="", digests={}))
    storage = f"{request.getfixturevalue('bucket').uri}/runs" if request.param == "bucket" else tmp_path / "runs"
    return load_config("quickstart", {"storage": str(storage), "tracking.uri": f"sqlite:///{tmp_path}/mlflow.db"})


def elsewhere(folder, heartbeat=None):
    """Another machine's process has the lease."""
    now = time.time()
    leases._write(folder.path, leases.Holder("far", "other", 42, now, now if heartbeat is None else heartbeat, 2))


def test_the_second_driver_ends_in_one_line_and_leaves_all_as_it_is(config, monkeypatch):
    folder = RunFolder.open(config)
    folder.update(mlflow_run_id="abc")
    elsewhere(folder)
    folder.config.write_text("what the first one wrote")
    monkeypatch.setattr(run, "_recorded", lambda *_: pytest.fail("it went on"))
    with pytest.raises(StorageError, match="at work in .*quickstart-.*: process 42 on host far, since 20") as error:
        run.train(config)
    assert error.value.exit_code == 2
    assert folder.config.read_text() == "what the first one wrote"
    elsewhere(folder, heartbeat=0.0)
    monkeypatch.setattr(leases, "WATCHED_S", 0.0)
    monkeypatch.setattr(run, "_tracker", lambda *_: None)
    monkeypatch.setattr(run, "Recorder", lambda *_: SimpleNamespace(running=nullcontext))
    monkeypatch.setattr(run, "_recorded", lambda current, *_: current.update(finished=True))
    run.train(config)
    assert folder.state.finished
    assert leases.read_lease(folder.path) is None


def test_a_run_that_ended_meanwhile_is_not_done_again(config, monkeypatch):
    folder = RunFolder.open(config)
    monkeypatch.setattr(run, "_inputs", lambda *_: folder.update(finished=True))
    monkeypatch.setattr(run, "_recorded", lambda *_: pytest.fail("it is finished"))
    with pytest.raises(StorageError, match=f"run {folder.name} has just ended in another process; the same command"):
        run.train(config)


def test_the_state_is_not_written_by_who_lost_the_run(config):
    path = RunFolder.open(config).path
    with leased(path) as lease:
        folder = RunFolder(path, lease)
        folder.update(mlflow_run_id="mine")
        elsewhere(folder)
        with pytest.raises(LeaseLostError, match="process 42 on host far"):
            folder.update(mlflow_run_id="still mine", finished=True)
    assert json.loads((path / "run.json").read_text()) == {"mlflow_run_id": "mine"}


def test_a_training_that_ended_as_the_run_was_lost_says_so(config, monkeypatch):
    ended = []

    @contextmanager
    def ending(tell):
        try:
            yield
        except BaseException as error:
            ended.append(type(error))
            raise

    def fail(*_):
        elsewhere(folder)
        raise TrainingError("training failed: rank 0 was killed")

    monkeypatch.setattr(run, "_run", fail)
    monkeypatch.setattr(run, "data_inputs", lambda *_: [])
    path = RunFolder.open(config).path
    with leased(path) as lease:
        folder = RunFolder(path, lease)
        inputs = SimpleNamespace(changed="", digests={})
        with pytest.raises(LeaseLostError, match="process 42 .* has taken over; this one has stopped"):
            run._recorded(
                folder,
                config,
                CHECKED,
                inputs,
                None,
                SimpleNamespace(ending=ending, inputs=lambda _: None),
                NullObserver(),
                None,
            )
    assert ended == [LeaseLostError]


def test_the_heartbeat_file_is_left_to_the_driver_that_took_over(tmp_path):
    writer = StatusWriter(tmp_path)
    with pytest.raises(LeaseLostError), writer.beating():
        (tmp_path / HEARTBEAT).write_text("of the other driver")
        raise LOST
    assert (tmp_path / HEARTBEAT).read_text() == "of the other driver"


def checks(*outcomes):
    """A check of the lease that has these outcomes, one after the other."""
    left = list(outcomes)

    def check():
        if (error := left.pop(0)) is not None:
            raise error

    return check


@pytest.mark.parametrize(
    ("check", "kept"),
    [(checks(None, None), [4]), (checks(LOST), [2]), (checks(None, LOST), [2, 4])],
    ids=["held", "lost before the part is stored", "lost before old ones are deleted"],
)
def test_checkpoints_are_neither_written_nor_deleted_by_who_lost_the_run(tmp_path, check, kept):
    storage, part = tmp_path / "ray", tmp_path / "part"
    part.mkdir()
    (part / "weights").write_bytes(b"1")
    store(part, storage / folder_name(2, "aaaaaaaa"), Manifest(2, 0, 1))
    saver = checkpoints.Checkpoints.__new__(checkpoints.Checkpoints)
    saver._worker = SimpleNamespace(
        check_lease=check, flush_events=lambda: None, emit=lambda _: None, checkpoints=storage, protected_step=None
    )
    saver._keep, saver._token, saver._refused = 1, "bbbbbbbb", {}
    try:
        saver._store(part, storage / folder_name(4, "bbbbbbbb"), Manifest(4, 0, 1))
        assert kept == [4]
    except LeaseLostError:
        assert kept != [4]
    assert sorted(int(name.split("-")[1]) for name in checkpoints_in(storage)) == kept


def test_an_encoder_is_not_exported_by_who_lost_the_run():
    group = SimpleNamespace(rank=0)
    worker = SimpleNamespace(group=group, on_phase=lambda _: None, check_lease=checks(LOST), final_model=None)
    with pytest.raises(LeaseLostError):
        Trainer._export(SimpleNamespace(worker=worker), 4)


def test_the_driver_that_lost_the_run_ends_its_training(monkeypatch):
    happened = []
    monkeypatch.setattr("ray.get", lambda found: found)
    monkeypatch.setattr("ray.kill", lambda actor: happened.append(f"killed {actor}"))
    monkeypatch.setattr(ray_train, "POLL_S", 0.01)

    def lost(*_):
        raise LOST

    def remote(act):
        return SimpleNamespace(remote=act)

    broker = SimpleNamespace(
        active_workers=remote(lambda: 1),
        take_events=remote(list),
        fail=remote(happened.append),
        actor=remote(lambda rank: f"rank {rank}"),
    )
    usage = SimpleNamespace(start_clock=lambda: None, add_time=lost, save=lost, metrics=dict)
    tracker = SimpleNamespace(metrics=lambda *_: None, save_undelivered=lambda: True)
    delivery = ray_train.EventDelivery(tracker, NullObserver(), usage, 10)
    with pytest.raises(LeaseLostError, match="process 42"), delivery.running(broker):
        while len(happened) < 2:
            time.sleep(0.01)
    assert happened[:2] == ["process 42 has taken over", "killed rank 0"]
