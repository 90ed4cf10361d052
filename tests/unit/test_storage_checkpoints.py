"""Checkpoints in a bucket: what is whole, what a rank fetches, what is deleted, and what an outage must not do."""

import shutil

import pytest

from hbtrain.storage import RemoteError, RemotePath, place
from hbtrain.training.checkpoint_files import (
    Manifest,
    checkpoints_in,
    folder_name,
    is_complete,
    local_checkpoint,
    prune,
    store,
)

FILES = {"state/model.pt": 0, "state/rank-0.pt": 0, "state/rank-1.pt": 1}


@pytest.fixture
def runs(bucket):
    return place(bucket.uri) / "run" / "ray"


def save(runs, tmp_path, step, parts=(0, 1), token="aaaaaaaa"):
    to = runs / folder_name(step, token)
    for rank in parts:
        local = tmp_path / "local"
        (local / "state").mkdir(parents=True)
        for name in [name for name, owner in FILES.items() if owner == rank]:
            (local / name).write_bytes(name.encode() * 100 + bytes([step % 256]))
        store(local, to, Manifest(step, rank, 2, best=0.5))
        shutil.rmtree(local)
    return to


def fetched(checkpoint, rank, world_size, stage):
    with local_checkpoint(checkpoint, rank, world_size, stage, "hbtrain-test-") as (folder, wrong):
        names = {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}
    assert not folder.exists()
    return names - {"manifest-00000.json"}, wrong


@pytest.mark.parametrize(
    ("rank", "world_size", "stage", "wanted"),
    [
        (0, 2, 1, {"state/model.pt", "state/rank-0.pt"}),
        (1, 2, 3, set(FILES)),
        (1, 2, 0, {"state/model.pt", "state/rank-0.pt"}),
        (0, 1, 1, set(FILES)),
        (0, 3, 2, set(FILES)),
        (2, 3, 2, set()),
    ],
)
def test_a_rank_fetches_what_it_needs(runs, tmp_path, rank, world_size, stage, wanted):
    assert fetched(save(runs, tmp_path, 7), rank, world_size, stage) == (wanted, "")


def test_whole_and_not(runs, tmp_path, bucket):
    whole = save(runs, tmp_path, 7)
    assert is_complete(whole)
    part = save(runs, tmp_path, 8, parts=[0])
    assert not is_complete(part)
    assert fetched(part, 1, 2, 1)[1] == "the part of rank 1 was not finished"
    bucket.put("run/ray/step-00000007-aaaaaaaa/state/rank-1.pt", b"short")
    assert not is_complete(whole)
    assert fetched(whole, 1, 2, 1)[1] == "state/rank-1.pt has 5 bytes of 1501"
    assert fetched(whole, 0, 2, 1)[1] == ""
    bucket.client.delete_object(Bucket=bucket.name, Key="run/ray/step-00000007-aaaaaaaa/state/rank-1.pt")
    assert fetched(whole, 1, 2, 1)[1] == "state/rank-1.pt is missing"


def test_the_newest_whole_ones_stay(runs, tmp_path, bucket):
    for step in (50, 100, 150, 200):
        save(runs, tmp_path, step)
    save(runs, tmp_path, 250, parts=[0])
    writing = save(runs, tmp_path, 300, parts=[1], token="bbbbbbbb")
    bucket.put("run/ray/universal-cccccccc/state/x", b"x")
    bucket.put("run/ray/other/x", b"x")
    prune(runs, 2, "bbbbbbbb", refused=[folder_name(200, "aaaaaaaa")])
    assert checkpoints_in(runs) == [writing.name, folder_name(150, "aaaaaaaa"), folder_name(100, "aaaaaaaa")]
    assert {key.split("/")[2] for key in bucket.keys("run/")} == {*checkpoints_in(runs), "other"}


def test_storage_that_is_away_damages_and_deletes_nothing(runs, tmp_path, bucket, monkeypatch):
    """Were an outage taken for damage, the newest checkpoints would be passed over, and then deleted."""
    for step in (50, 100):
        save(runs, tmp_path, step)
    before = bucket.keys("run/")
    read = RemotePath.read_bytes

    def away(self):
        if "step-00000100" in self.key:
            with self._errors_of_storage():
                raise OSError("AWS Error NETWORK_CONNECTION during GetObject operation: gone")
        return read(self)

    monkeypatch.setattr(RemotePath, "read_bytes", away)
    newest = runs / folder_name(100, "aaaaaaaa")
    for act in (
        lambda: is_complete(newest),
        lambda: fetched(newest, 0, 2, 1),
        lambda: prune(runs, 1, "bbbbbbbb", refused=[]),
    ):
        with pytest.raises(RemoteError, match="gone"):
            act()
    assert bucket.keys("run/") == before
