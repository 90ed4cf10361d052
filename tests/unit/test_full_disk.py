"""A disk that is full, as a limit on the size of files imposes it: `write` fails with EFBIG."""

import errno
import resource
import signal
from contextlib import contextmanager

import pytest
import torch
from safetensors.torch import save_file

from hbtrain.errors import StorageError, is_full, is_write_error
from hbtrain.modeling.saving import replace_folder

LIMIT = 4096


@contextmanager
def no_room():
    """Files of this process may not grow beyond LIMIT bytes; nor may pytest's own output, which is silent meanwhile."""
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (LIMIT, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        signal.signal(signal.SIGXFSZ, handler)


def model(weights):
    def write(folder):
        (folder / "modules.json").write_text("[]")
        weights(folder / "model.safetensors")

    return write


def by_python(path):
    path.write_bytes(b"x" * 2 * LIMIT)


def by_safetensors(path):
    save_file({"weights": torch.zeros(LIMIT)}, path)


@pytest.mark.parametrize("weights", [by_python, by_safetensors])
def test_a_model_that_does_not_fit_is_one_line_and_leaves_the_old_one(tmp_path, weights):
    replace_folder(tmp_path / "model", model(lambda path: path.write_bytes(b"old")))
    message = r"cannot write a model to .*model: .*; make room there"
    with pytest.raises(StorageError, match=message) as error, no_room():
        replace_folder(tmp_path / "model", model(weights))
    assert "\n" not in str(error.value)
    assert (tmp_path / "model" / "model.safetensors").read_bytes() == b"old"
    assert [path.name for path in tmp_path.iterdir()] == ["model"], "nothing half made stays"


def test_a_full_disk_is_told_from_other_errors():
    assert is_full(OSError(errno.ENOSPC, "No space left on device"))
    assert is_full(Exception("Error while serializing: I/O error: No space left on device (os error 28)"))
    assert not is_full(PermissionError(errno.EACCES, "Permission denied"))
    assert not is_full(ValueError("a value"))


def test_other_errors_while_writing_a_model_are_not_taken_for_it(tmp_path):
    def broken(_):
        raise ValueError("a bug")

    with pytest.raises(ValueError, match="a bug"):
        replace_folder(tmp_path / "model", model(broken))


@pytest.mark.parametrize("zipped", [True, False])
def test_torch_that_cannot_save_is_a_write_error(tmp_path, zipped):
    with pytest.raises(RuntimeError) as error, no_room():
        torch.save({"weights": torch.zeros(LIMIT)}, tmp_path / "file.pt", _use_new_zipfile_serialization=zipped)
    assert is_write_error(error.value)


@pytest.mark.parametrize(
    "error",
    [
        RuntimeError("[../third_party/gloo/gloo/transport/tcp/pair.cc:537] Read error: Connection reset by peer"),
        ConnectionResetError(errno.ECONNRESET, "Connection reset by peer"),
        TimeoutError(errno.ETIMEDOUT, "Connection timed out"),
    ],
)
def test_a_broken_connection_is_no_write_error(error):
    assert not is_write_error(error)
