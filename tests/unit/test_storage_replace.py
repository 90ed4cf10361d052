"""A folder in a bucket that is replaced: whole at any moment, and nothing of it is left over."""

from contextlib import contextmanager

import pytest

from hbtrain.storage import (
    RemotePath,
    as_local,
    clear_leftovers,
    fetch,
    is_whole,
    local_copy,
    place,
    push,
    remote,
    transfer,
)

OLD = {"modules.json": b"old", "weights/a": b"old a", "gone": b"old"}
NEW = {"modules.json": b"new", "weights/a": b"new a", "weights/b": b"new b"}


class Killed(BaseException):
    """The process ends: of what follows, nothing is done."""


@contextmanager
def killed_after(monkeypatch, requests):
    """The process ends after so many requests that change the bucket; gives the list of those made."""
    made = []

    def counted(act):
        def request(*arguments, **options):
            if len(made) >= requests:
                raise Killed
            made.append(act.__name__)
            return act(*arguments, **options)

        return request

    with monkeypatch.context() as patch:
        for name in ("write_text", "unlink", "copy", "remove_tree"):
            patch.setattr(RemotePath, name, counted(getattr(RemotePath, name)))
        patch.setattr(transfer, "put", counted(transfer.put))
        patch.setattr(transfer, "PARALLEL_TRANSFERS", 1)
        yield made


@pytest.fixture
def versions(tmp_path):
    """Folders with the old content and the new one."""
    for number, tree in enumerate((OLD, NEW)):
        for name, content in tree.items():
            file = tmp_path / str(number) / name
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_bytes(content)
    return tmp_path / "0", tmp_path / "1"


def tree_of(folder):
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def held(bucket, prefix):
    return {key.removeprefix(prefix): bucket.get(key) for key in bucket.keys(prefix)}


def fetched(source):
    with as_local(source) as folder:
        return tree_of(folder)


def test_a_replacement_that_is_cut_at_any_request_is_the_old_or_the_new(bucket, versions, monkeypatch, tmp_path):
    with killed_after(monkeypatch, 1000) as made:
        push(versions[0], place(bucket.uri) / "uncut" / "model", replace=True)
        first = len(made)
        push(versions[1], place(bucket.uri) / "uncut" / "model", replace=True)
    assert held(bucket, "uncut/model/") == NEW
    found = []
    for cut in range(len(made) - first):
        run = place(bucket.uri) / f"run-{cut}"
        push(versions[0], run / "model", replace=True)
        with pytest.raises(Killed), killed_after(monkeypatch, cut):
            push(versions[1], run / "model", replace=True)
        assert is_whole(run / "model")
        now = fetched(run / "model")
        assert now in (OLD, NEW)
        assert tree_of(local_copy(run / "model", str(tmp_path / "cache"))) == now
        found.append(now)
        if cut % 2:  # the same command goes on, or another model is exported at once
            clear_leftovers(run)
            assert held(bucket, f"run-{cut}/model/") == now
        else:
            push(versions[0], run / "model", replace=True)
            assert held(bucket, f"run-{cut}/model/") == OLD
        assert all(key.startswith(f"run-{cut}/model/") for key in bucket.keys(f"run-{cut}"))
    assert found == sorted(found, key=[OLD, NEW].index), "first the old one, then the new one"
    assert NEW in found


def test_a_first_push_that_is_cut_is_no_folder(bucket, versions, monkeypatch, tmp_path):
    run = place(bucket.uri) / "run"
    with pytest.raises(Killed), killed_after(monkeypatch, 2):
        push(versions[0], run / "model", replace=True)
    assert not is_whole(run / "model")
    with pytest.raises(FileNotFoundError, match=r"what wrote it was cut off; run that again: '.*/run/model'"):
        fetch(run / "model", tmp_path / "a")
    with pytest.raises(FileNotFoundError, match=r"what wrote it was cut off; run that again: '.*/run/model'"):
        fetch(run, tmp_path / "b")
    bucket.put("run/config.yaml", b"")
    fetch(run, tmp_path / "c", without=["model"])
    assert tree_of(tmp_path / "c") == {"config.yaml": b""}
    push(versions[1], run / "model", replace=True)
    assert fetched(run / "model") == NEW


def test_a_folder_that_is_replaced_while_it_is_fetched_is_fetched_anew(bucket, versions, monkeypatch, tmp_path):
    model = place(bucket.uri) / "run" / "model"
    push(versions[0], model)
    real, left = transfer._get, [1]

    def slow(source, to):
        real(source, to)
        if left:
            left.pop()
            push(versions[1], model, replace=True)

    monkeypatch.setattr(transfer, "PARALLEL_TRANSFERS", 1)
    monkeypatch.setattr(transfer, "_get", slow)
    fetch(model, tmp_path / "copy")
    assert tree_of(tmp_path / "copy") == NEW
    push(versions[0], model, replace=True)

    def without_end(source, to):
        real(source, to)
        bucket.put(source.key, to.read_bytes() * 2)

    monkeypatch.setattr(transfer, "_get", without_end)
    with pytest.raises(OSError, match="is being replaced; try again"):
        fetch(model, tmp_path / "other")


def test_a_file_that_is_gone_since_it_was_listed_is_no_reason_to_give_up(bucket, versions, monkeypatch, tmp_path):
    model = place(bucket.uri) / "run" / "model"
    push(versions[0], model)
    real, left = transfer._listing, [1]

    def listing(source, without):
        found = real(source, without)
        if left:
            left.pop()
            push(versions[1], model, replace=True)
        return found

    monkeypatch.setattr(transfer, "_listing", listing)
    fetch(model, tmp_path / "copy")
    assert tree_of(tmp_path / "copy") == NEW


def test_what_replaces_a_folder_is_no_part_of_a_run_that_is_fetched(bucket, versions, tmp_path):
    run = place(bucket.uri) / "run"
    bucket.put("run/results/metrics.json", b"{}")
    bucket.put("run/.model.0123456789ab/weights", b"1234")
    fetch(run, tmp_path / "run")
    assert tree_of(tmp_path / "run") == {"results/metrics.json": b"{}"}


def test_objects_that_one_request_cannot_copy_go_through_this_machine(bucket, monkeypatch):
    bucket.put("a", b"12345")
    for limit in (4, 5):
        monkeypatch.setattr(remote, "COPY_BYTES", limit)
        (place(bucket.uri) / "a").copy(place(bucket.uri) / f"b c {limit}")
    assert [bucket.get(f"b c {limit}") for limit in (4, 5)] == [b"12345"] * 2
