"""A lock: one holder at a time, also where the folder is cleared away and made again meanwhile."""

import errno
import os
import shutil
import signal
import subprocess
import sys

import filelock
import pytest

from hbtrain.errors import StorageError
from hbtrain.storage.files import LOCK, lock_file, locked

BUSY = "is being written by another process"
HOLDER = """
import sys, time
from pathlib import Path
from hbtrain.storage.files import lock_file
with lock_file(Path(sys.argv[1])):
    print("held", flush=True)
    sys.stdin.read()
"""


def test_one_at_a_time_and_free_again_after_an_error(tmp_path):
    with pytest.raises(ZeroDivisionError), locked(tmp_path):
        with pytest.raises(StorageError, match=f"{tmp_path} {BUSY}"), locked(tmp_path):
            pass
        raise ZeroDivisionError
    with locked(tmp_path):
        pass


@pytest.fixture
def native():
    """The module of filelock that calls flock."""
    return sys.modules[filelock.UnixFileLock.__module__]


@pytest.mark.parametrize("made_again", [False, True])
def test_a_lock_that_its_holder_removed_before_it_is_ours_is_none(tmp_path, monkeypatch, native, made_again):
    folder = tmp_path / "work"
    folder.mkdir()
    flock = native.fcntl.flock

    def finished_meanwhile(*arguments):
        shutil.rmtree(folder)
        if made_again:
            folder.mkdir()
            (folder / "lock").touch()
        flock(*arguments)

    monkeypatch.setattr(native.fcntl, "flock", finished_meanwhile)
    with pytest.raises(StorageError, match=BUSY), locked(folder):
        pass


def test_a_lock_whose_file_was_replaced_is_none(tmp_path, monkeypatch, native):
    """As on NFS, where the file that its holder deleted lives on under another name."""
    flock = native.fcntl.flock

    def replaced_meanwhile(*arguments):
        (tmp_path / LOCK).rename(tmp_path / ".nfs0001")
        (tmp_path / LOCK).touch()
        flock(*arguments)

    monkeypatch.setattr(native.fcntl, "flock", replaced_meanwhile)
    with pytest.raises(StorageError, match=BUSY), locked(tmp_path):
        pass


@pytest.mark.parametrize("end", ["waits", "killed"])
def test_other_processes_are_kept_out_until_the_holder_ends(tmp_path, end):
    file = tmp_path / "a.lock"
    with subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(file)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as holder:
        assert holder.stdout.readline() == "held\n"
        with pytest.raises(StorageError, match=r"^busy$"), lock_file(file, "busy"):
            pass
        if end == "killed":
            holder.send_signal(signal.SIGKILL)
        else:
            holder.stdin.close()
        with lock_file(file):  # waits
            pass


def test_a_lock_goes_with_the_process_that_took_it(tmp_path):
    with locked(tmp_path):
        child = os.fork()
        if not child:
            signal.pause()
    try:
        with locked(tmp_path):  # though the child lives
            pass
    finally:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)


@pytest.mark.parametrize("number", [errno.ENOLCK, errno.ENOSYS, errno.ENOTSUP])
def test_without_locks_an_output_is_refused(tmp_path, monkeypatch, native, number):
    def no_locks(*_):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(native.fcntl, "flock", no_locks)
    with pytest.raises(OSError, match=os.strerror(number)), locked(tmp_path):
        pass
