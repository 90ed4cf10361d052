"""Checkpoints on disk: what counts as whole, and what is deleted."""

import hashlib
import json
import shutil

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from hbtrain.training.checkpoint_files import (
    Manifest,
    checkpoints_in,
    damage,
    folder_name,
    is_complete,
    prune,
    step_of,
    store,
)


def save(storage, step, world_size=2, token="aaaaaaaa", parts=None):
    """A checkpoint of small files; `parts` are the ranks that came to finish theirs."""
    to = storage / folder_name(step, token)
    for rank in range(world_size) if parts is None else parts:
        local = storage.parent / "local"
        (local / "state").mkdir(parents=True)
        (local / "state" / f"rank-{rank}.pt").write_bytes(bytes([rank, step % 256]) * 500)
        store(local, to, Manifest(step, rank, world_size, best=0.5, waited=1))
        shutil.rmtree(local)
    return to


def damages(folder, readers):
    return [damage(folder, rank, readers) for rank in range(readers)]


def test_a_part_arrives_with_sizes_and_digests(tmp_path):
    folder = save(tmp_path / "runs", 7)
    content = bytes([1, 7]) * 500
    manifest = json.loads((folder / "manifest-00001.json").read_text())
    want = hashlib.blake2b(content, digest_size=16).hexdigest()
    assert manifest["files"] == {"state/rank-1.pt": [1000, want]}
    assert (folder / "state" / "rank-1.pt").read_bytes() == content
    again = Manifest.read(folder, 1)
    assert (again.step, again.rank, again.world_size, again.best, again.waited) == (7, 1, 2, 0.5, 1)
    assert step_of(folder.name) == 7


@pytest.mark.parametrize("readers", [1, 2, 3])
def test_a_whole_checkpoint(tmp_path, readers):
    folder = save(tmp_path / "runs", 7)
    assert is_complete(folder)
    assert damages(folder, readers) == [""] * readers


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    harm=st.sampled_from(["truncate", "delete", "flip", "no manifest", "half a manifest", "other step", "append"]),
    rank=st.integers(0, 2),
    readers=st.integers(1, 5),
)
def test_every_harm_is_found_by_some_reader(tmp_path, harm, rank, readers):
    shutil.rmtree(tmp_path / "runs", ignore_errors=True)
    folder = save(tmp_path / "runs", 7, world_size=3)
    file, manifest = folder / "state" / f"rank-{rank}.pt", folder / f"manifest-{rank:05d}.json"
    if harm == "truncate":
        file.write_bytes(file.read_bytes()[:300])
    elif harm == "delete":
        file.unlink()
    elif harm == "flip":
        file.write_bytes(file.read_bytes()[:-1] + b"x")
    elif harm == "append":
        file.write_bytes(file.read_bytes() + b"x")
    elif harm == "no manifest":
        manifest.unlink()
    elif harm == "half a manifest":
        manifest.write_text(manifest.read_text()[:40])
    else:
        manifest.write_text(manifest.read_text().replace('"step": 7', '"step": 8'))
    assert any(damages(folder, readers)), harm
    if harm in {"truncate", "delete", "append", "no manifest", "half a manifest"}:
        assert not is_complete(folder)


def test_the_reason_names_the_file(tmp_path):
    folder = save(tmp_path / "runs", 7)
    (folder / "state" / "rank-1.pt").write_bytes(b"short")
    assert damage(folder, 1, 2) == "state/rank-1.pt has 5 bytes of 1000"
    assert damage(folder, 0, 2) == ""
    (folder / "manifest-00000.json").unlink()
    assert damage(folder, 0, 2) == damage(folder, 1, 2) == "the part of rank 0 was not finished"


def test_the_manifest_comes_last(tmp_path, monkeypatch):
    """A kill at any file before it leaves a checkpoint that is not whole."""
    local = tmp_path / "local"
    local.mkdir()
    for name in "abc":
        (local / name).write_bytes(b"x" * 100)
    to = tmp_path / "runs" / folder_name(3, "aaaaaaaa")
    import hbtrain.training.checkpoint_files as module

    copy, copied = module._copy, []

    def killed(source, target):
        if len(copied) == 2:
            target.with_name(f".{target.name}").write_bytes(b"x" * 50)
            raise KeyboardInterrupt
        copied.append(source)
        return copy(source, target)

    monkeypatch.setattr(module, "_copy", killed)
    with pytest.raises(KeyboardInterrupt):
        store(local, to, Manifest(3, 0, 1))
    assert not is_complete(to)
    assert damage(to, 0, 1) == "the part of rank 0 was not finished"


def test_the_newest_whole_ones_stay(tmp_path):
    runs = tmp_path / "runs"
    for step in (50, 100, 150, 200):
        save(runs, step)
    broken = save(runs, 250, parts=[0])
    writing = save(runs, 300, token="bbbbbbbb", parts=[1])
    (runs / "universal-cccccccc" / "state").mkdir(parents=True)
    (runs / "other").mkdir()
    prune(runs, 2, "bbbbbbbb", refused=[folder_name(200, "aaaaaaaa")])
    assert checkpoints_in(runs) == [writing.name, folder_name(150, "aaaaaaaa"), folder_name(100, "aaaaaaaa")]
    assert not broken.exists()
    assert not (runs / "universal-cccccccc").exists()
    assert (runs / "other").exists()


def test_what_is_no_checkpoint_is_not_listed(tmp_path):
    save(tmp_path, 100)
    (tmp_path / "step-note.txt").touch()
    (tmp_path / "step-00000100").mkdir()
    (tmp_path / "checkpoint_manager_snapshot.json").touch()
    assert checkpoints_in(tmp_path) == [folder_name(100, "aaaaaaaa")]
    assert checkpoints_in(tmp_path / "nowhere") == []
