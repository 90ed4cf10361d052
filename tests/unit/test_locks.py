"""A folder's lock: one holder at a time, also where the folder is cleared away and made again meanwhile."""

import shutil

import pytest

from hbtrain.errors import StorageError
from hbtrain.storage import atomic
from hbtrain.storage.atomic import locked

BUSY = "is being written by another process"


def test_one_at_a_time_and_free_again_after_an_error(tmp_path):
    with pytest.raises(ZeroDivisionError), locked(tmp_path):
        with pytest.raises(StorageError, match=f"{tmp_path} {BUSY}"), locked(tmp_path):
            pass
        raise ZeroDivisionError
    with locked(tmp_path):
        pass


@pytest.mark.parametrize("made_again", [False, True])
def test_a_lock_that_its_holder_removed_before_it_is_ours_is_none(tmp_path, monkeypatch, made_again):
    folder = tmp_path / "work"
    folder.mkdir()
    flock = atomic.fcntl.flock

    def finished_meanwhile(*arguments):
        shutil.rmtree(folder)
        if made_again:
            folder.mkdir()
            (folder / "lock").touch()
        flock(*arguments)

    monkeypatch.setattr(atomic.fcntl, "flock", finished_meanwhile)
    with pytest.raises(StorageError, match=BUSY), locked(folder):
        pass
