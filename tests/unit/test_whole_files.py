"""Safe writes, cut at every system call: by an error, or by the end of the process."""

import errno
import glob
import hashlib
import io
import os
from functools import partial
from pathlib import Path

import pytest

from hbtrain.storage import files, write_text
from hbtrain.storage.files import (
    copy_with_digest,
    file_digest,
    plain_path,
    put_in_place,
    remove_leftovers,
    whole,
    whole_stream,
)

OLD, NEW = "old", "new" * 1000
CALLS = ("open", "fsync", "replace", "rename", "unlink", "rmdir")


class Killed(BaseException):
    """The process ends: of what follows, nothing is done."""


class Calls:
    """Records the calls of `os` that change or secure what is on the disk, and cuts at the one of a number."""

    def __init__(self, monkeypatch, cut=None, dies=False):
        self.names, self.cut, self.dies = [], cut, dies
        for name in CALLS:
            monkeypatch.setattr(os, name, partial(self.call, name, getattr(os, name)))

    def call(self, name, real, *arguments, **options):
        self.names.append(name)
        if self.dies and self.cut is not None and len(self.names) > self.cut:
            raise Killed
        if len(self.names) - 1 == self.cut:
            raise OSError(errno.EIO, os.strerror(errno.EIO), str(arguments[0]))
        return real(*arguments, **options)


def write_file(path):
    write_text(path, NEW)


def write_folder(path):
    with whole(path, replaces_folder=True) as folder:
        (folder / "sub").mkdir(parents=True)
        (folder / "a").write_text(NEW)
        (folder / "sub" / "b").write_text(NEW)


def content(path):
    if path.is_dir():
        return {str(file.relative_to(path)): file.read_text() for file in sorted(path.rglob("*")) if file.is_file()}
    return path.read_text() if path.exists() else None


def make_old(path, kind):
    if kind == "file":
        path.write_text(OLD)
    elif kind == "folder":
        path.mkdir()
        (path / "a").write_text(OLD)


SUBJECTS = [
    (write_file, "none"), (write_file, "file"), (write_folder, "none"), (write_folder, "folder"),
]  # fmt: skip


@pytest.mark.parametrize("exchanges", [True, False], ids=["exchange", "two moves"])
@pytest.mark.parametrize("dies", [False, True], ids=["error", "killed"])
@pytest.mark.parametrize(("write", "kind"), SUBJECTS)
def test_a_write_that_is_cut_leaves_the_old_or_the_new(tmp_path, monkeypatch, write, kind, dies, exchanges):
    if not exchanges:
        monkeypatch.setattr(files.ctypes, "CDLL", lambda *_, **__: None)
    make_old(tmp_path / "uncut", kind)
    with pytest.MonkeyPatch.context() as patch:
        names = Calls(patch).names
        write(tmp_path / "uncut")
    new = content(tmp_path / "uncut")
    assert len(names) >= 4, "the file and its folder are opened and brought to the disk, and there is a move"
    for cut, name in enumerate(names):
        path = tmp_path / f"cut-{cut}" / "it"
        path.parent.mkdir()
        make_old(path, kind)
        old = content(path)
        error = None
        with pytest.MonkeyPatch.context() as patch:
            Calls(patch, cut, dies)
            try:
                write(path)
            except (OSError, Killed) as raised:
                error = raised
        found = content(path)
        if found is None and old is not None:
            # Where two folders cannot change places at once, the old one is beside, and is put back.
            assert dies
            assert not exchanges
            remove_leftovers(path.parent)
            found = content(path)
        assert found in (old, new)
        if not dies:
            clears = name in {"unlink", "rmdir"} or (name == "open" and found == new and error is None)
            assert (error is None) == clears, "that clearing away failed is no error, all else is"
            assert clears or str(error) == f"[Errno 5] Input/output error: '{path}'"
            assert clears or [file.name for file in path.parent.iterdir()] == ["it"] * path.exists()
        remove_leftovers(path.parent)
        assert [file.name for file in path.parent.iterdir()] == ["it"] * path.exists()


def test_bytes_are_on_the_disk_before_the_name_and_the_name_before_the_end(tmp_path, monkeypatch):
    seen = []

    def fsync(descriptor, real=os.fsync):
        seen.append(("fsync", Path(f"/proc/self/fd/{descriptor}").readlink()))
        real(descriptor)

    def replace(source, target, real=os.replace):
        seen.append(("replace", Path(target)))
        real(source, target)

    monkeypatch.setattr(os, "fsync", fsync)
    monkeypatch.setattr(os, "replace", replace)
    write_text(tmp_path / "file", NEW)
    (first, made), (second, target), (third, folder) = seen
    assert (first, second, third) == ("fsync", "replace", "fsync")
    assert (made.parent, target, folder) == (tmp_path, tmp_path / "file", tmp_path)
    seen.clear()
    write_folder(tmp_path / "folder")
    *synced, (move, _), (last, folder) = seen
    assert {what for what, _ in synced} == {"fsync"}
    assert [path.name for _, path in synced[:1]] == ["b"], "a file before its folder"
    assert {path.name for _, path in synced[:-1]} == {"a", "b", "sub"}
    assert synced[-1][1].suffix == files.PARTIAL
    assert (move, last, folder) == ("replace", "fsync", tmp_path)


def test_writers_of_one_file_do_not_meet(tmp_path):
    with whole_stream(tmp_path / "file") as first:
        first.write(b"first")
        with whole_stream(tmp_path / "file") as second:
            second.write(b"second")
        assert (tmp_path / "file").read_bytes() == b"second"
    assert (tmp_path / "file").read_bytes() == b"first"
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_a_folder_that_is_not_to_be_replaced_stays(tmp_path):
    (tmp_path / "folder").mkdir()
    for number in (1, 2):  # an empty one may be replaced
        try:
            with whole(tmp_path / "folder") as folder:
                folder.mkdir()
                (folder / str(number)).touch()
        except OSError as error:
            assert number == 2
            assert error.errno in {errno.ENOTEMPTY, errno.EEXIST}
            assert error.filename == str(tmp_path / "folder")
        else:
            assert number == 1
    assert [path.name for path in tmp_path.rglob("*")] == ["folder", "1"]


def test_an_error_of_the_block_names_what_the_file_becomes(tmp_path):
    with pytest.raises(FileNotFoundError) as error, whole(tmp_path / "model") as folder:
        (folder / "weights").write_text("there is no folder yet")
    assert error.value.filename == str(tmp_path / "model" / "weights")


def test_a_file_system_that_cannot_bring_a_folder_to_the_disk_is_none_the_worse(tmp_path, monkeypatch):
    fsync = os.fsync

    def of_files_only(descriptor):
        if Path(f"/proc/self/fd/{descriptor}").is_dir():
            raise OSError(errno.EINVAL, os.strerror(errno.EINVAL))
        fsync(descriptor)

    monkeypatch.setattr(os, "fsync", of_files_only)
    write_text(tmp_path / "file", NEW)
    assert content(tmp_path / "file") == NEW


def test_the_working_folder_has_a_name(tmp_path, monkeypatch):
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    (tmp_path / "made").mkdir()
    (tmp_path / "made" / "a").touch()
    put_in_place(tmp_path / "made", tmp_path / "here" / "there")
    with whole(Path("there"), replaces_folder=True) as folder:
        folder.mkdir()
    assert list((tmp_path / "here" / "there").iterdir()) == []


def test_digests(tmp_path):
    (tmp_path / "file").write_bytes(b"x" * 100)
    assert file_digest(tmp_path / "file") == hashlib.sha256(b"x" * 100).hexdigest()
    blake = partial(hashlib.blake2b, digest_size=16)
    assert file_digest(tmp_path / "file", blake) == blake(b"x" * 100).hexdigest()
    copy = io.BytesIO()
    assert copy_with_digest(io.BytesIO(b"y" * 70), copy, blake) == (70, blake(b"y" * 70).hexdigest())
    assert copy_with_digest(io.BytesIO(b"y" * 70), io.BytesIO())[1] == hashlib.sha256(b"y" * 70).hexdigest()
    assert copy.getvalue() == b"y" * 70


@pytest.mark.parametrize("name", ["plain", "old [v1]", "all*", "which?"])
def test_a_folder_of_any_name_has_a_path_for_glob(tmp_path, name):
    folder = tmp_path / name
    folder.mkdir()
    with plain_path(folder) as path:
        assert (path == folder) == (name == "plain")
        (path / "written.pt").write_text("state")
        assert [Path(found).read_text() for found in glob.glob(f"{path}/*.pt")] == ["state"]  # noqa: PTH207 - as such libraries do
    assert (folder / "written.pt").exists(), "only the link is gone"
    assert not path.is_symlink()
