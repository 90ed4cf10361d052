"""Outputs that appear as a whole: whose error it was, and nothing half-made is left."""

import gzip
import random
import resource
import signal

import pytest

from hbtrain.errors import StorageError
from hbtrain.storage.files import atomic_output

WHAT = "--output there"
MANY = bytes(range(256)) * 400


@pytest.mark.parametrize("name", ["rows.jsonl", "rows.jsonl.gz"])
def test_it_appears_when_all_is_written(tmp_path, name):
    path = tmp_path / name
    with atomic_output(path, WHAT) as stream:
        stream.write(MANY)
        assert not path.exists()
    assert (gzip.decompress if name.endswith("gz") else bytes)(path.read_bytes()) == MANY
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("name", ["rows.jsonl", "rows.jsonl.gz"])
@pytest.mark.parametrize("error", [FileNotFoundError(2, "No such file", "source.jsonl"), KeyboardInterrupt()])
def test_an_error_of_the_block_passes_as_it_is(tmp_path, name, error):
    (tmp_path / name).write_bytes(b"old")
    with pytest.raises(type(error)) as caught, atomic_output(tmp_path / name, WHAT) as stream:
        stream.write(MANY)
        raise error
    assert caught.value is error
    assert [path.read_bytes() for path in tmp_path.iterdir()] == [b"old"]


@pytest.mark.parametrize("name", ["rows.jsonl", "rows.jsonl.gz"])
@pytest.mark.parametrize("size", [100_000, 600])  # while the block writes, and at the end
def test_a_full_disk_is_an_error_of_the_output(tmp_path, name, size):
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    before = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (500, hard))
        message = "^--output there cannot be written: File too large$"
        with pytest.raises(StorageError, match=message), atomic_output(tmp_path / name, WHAT) as stream:
            stream.write(random.Random(0).randbytes(size))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        signal.signal(signal.SIGXFSZ, before)
    assert not list(tmp_path.iterdir())


def test_a_folder_that_is_not_there_or_a_name_that_is_taken_is_one_line(tmp_path):
    for path in (tmp_path / "none" / "rows.jsonl", tmp_path / "folder"):
        (tmp_path / "folder").mkdir(exist_ok=True)
        with pytest.raises(StorageError, match="^--output there cannot be written: "), atomic_output(path, WHAT):
            pass
    assert [path.name for path in tmp_path.iterdir()] == ["folder"]
