"""What 512 ranks and weeks of training cost: requests to storage, messages, and bytes in them."""

import pickle
from collections import Counter

import pyarrow.fs
import pytest

from hbtrain.events import Event
from hbtrain.runs.hang_detection import HangDetector, RankProgress
from hbtrain.runs.run_folder import RunFolder
from hbtrain.runs.usage import REMOTE_SAVE_EVERY_S, Usage
from hbtrain.runs.worker_messages import MessageBroker
from hbtrain.storage import place, remote
from hbtrain.training import checkpoint_files
from hbtrain.training.checkpoint_files import Manifest, checkpoints_in, folder_name, is_complete, prune, store


class Counting:
    """A bucket on this machine's disk that counts requests."""

    def __init__(self, root):
        self.files = pyarrow.fs.SubTreeFileSystem(str(root), pyarrow.fs.LocalFileSystem())
        self.requests = Counter()

    def __getattr__(self, name):
        def call(path, *arguments, **named):
            self.requests[name] += 1
            if name == "open_output_stream":
                self.files.create_dir(path.rpartition("/")[0])
            return getattr(self.files, name)(path, *arguments, **named)

        return call

    def counted(self, act):
        """What the requests of `act` are."""
        self.requests.clear()
        act()
        return dict(self.requests)


@pytest.fixture
def counting(tmp_path, monkeypatch):
    files = Counting(tmp_path)
    monkeypatch.setattr(remote, "_filesystem", lambda *_: files)
    return files


@pytest.fixture
def part(tmp_path):
    folder = tmp_path / "part"
    folder.mkdir()
    (folder / "optimizer.pt").write_bytes(b"x")
    return folder


def save(runs, part, step, ranks, world_size):
    to = runs / folder_name(step, "aaaaaaaa")
    for rank in ranks:
        (part / f"rank-{rank}.pt").write_bytes(b"y")
        store(part, to, Manifest(step, rank, world_size))
        (part / f"rank-{rank}.pt").unlink()
    return to


LOOK = {"open_input_stream": 1, "get_file_info": 1}


@pytest.mark.parametrize("world_size", [8, 512])
def test_a_look_at_a_checkpoint_costs_the_same_for_any_number_of_ranks(counting, part, world_size):
    """Before all parts are there, and after: the manifests are read once, several at a time."""
    runs = place("s3://bucket/run/ray")
    to = save(runs, part, 10, [0, *range(2, world_size)], world_size)
    assert counting.counted(lambda: is_complete(to)) == LOOK
    assert not is_complete(to)
    save(runs, part, 10, [1], world_size)
    first = counting.counted(lambda: is_complete(to))
    assert first == {"open_input_stream": 1 + world_size, "get_file_info": 1}
    assert counting.counted(lambda: is_complete(to)) == LOOK
    assert is_complete(to)


def test_deleting_old_checkpoints_of_512_ranks_asks_each_once_more(counting, part):
    runs = place("s3://bucket/run/ray")
    for step in (10, 20, 30):
        is_complete(save(runs, part, step, range(512), 512))
    found = counting.counted(lambda: prune(runs, 2, "aaaaaaaa", refused=[]))
    assert found.pop("delete_dir") == 1
    # The list of checkpoints and of conversions, and a look at each checkpoint.
    assert found == {"open_input_stream": 3, "get_file_info": 2 + 3}
    assert [checkpoint_files.step_of(name) for name in checkpoints_in(runs)] == [30, 20]


def test_a_damaged_manifest_is_read_again(counting, part, tmp_path):
    to = save(place("s3://bucket/run/ray"), part, 10, range(2), 2)
    assert is_complete(to)
    manifest = tmp_path / "bucket" / to.key / Manifest.name(1)
    manifest.write_text(manifest.read_text()[:-10])
    assert not is_complete(to)


def test_messages_of_512_ranks():
    """A heartbeat a second and rank; the driver's look is one message of some 100 bytes a rank."""
    broker, detector = MessageBroker(), HangDetector(60.0)
    ranks = [RankProgress("group", 512, rank, f"10.0.{rank // 8}.1", 1000 + rank, 5, "loss", 40) for rank in range(512)]
    for progress in ranks:
        broker.register(progress, None)
    for second in range(10):
        for progress in ranks:
            broker.report_progress(progress)
        assert detector.observe(broker.progress(), 100.0 + second) is None
    assert len(broker.progress()) == 512
    assert len(pickle.dumps(broker.progress())) < 512 * 150
    assert broker.take_events() == [], "only rank 0 sends events"


def test_events_of_a_minute_cost_a_read_and_a_write_of_the_runs_state(counting):
    """That the outbox needs no request where MLflow answers is in `test_outbox.py`."""
    now_s = 0.0
    folder = RunFolder(place("s3://bucket/runs/run"))
    usage = Usage(folder, 0, lambda: now_s)
    usage.save()

    def events_of_a_minute() -> None:
        nonlocal now_s
        for step in range(60):
            now_s += REMOTE_SAVE_EVERY_S / 60
            usage.add_time(8)
            usage.add_event(Event(step, {}, pairs=64, tokens=900))

    for minute in range(1, 4):
        assert counting.counted(events_of_a_minute) == {"open_input_stream": 1, "open_output_stream": 1}
        assert folder.state.usage.worker_s == pytest.approx(8 * 60 * minute)
