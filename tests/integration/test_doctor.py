"""`hbtrain doctor` over a real cluster of two nodes."""

import json
import tempfile
from pathlib import Path

import pytest

from tests.integration.command import Command
from tests.integration.nodes import Node
from tests.ports import free_port

pytestmark = pytest.mark.ray


@pytest.fixture
def folder():
    """A folder with a short path: Ray's sockets lie in it."""
    with tempfile.TemporaryDirectory(prefix="hb", ignore_cleanup_errors=True) as path:
        yield Path(path)


def test_two_nodes_are_compared_and_gather_from_each_other(folder):
    storage, nowhere = folder / "runs", f"http://127.0.0.1:{free_port()}"
    long = folder / "a-folder-of-temporary-files-that-leaves-no-room-for-sockets"
    long.mkdir()
    cache = {"HBTRAIN_CACHE": str(folder / "cache")}
    arguments = ["doctor", "--json", "--storage", storage, "--tracking-uri", nowhere]
    with (
        Node.head(folder, **cache) as head,
        head.join(folder, "second", TMPDIR=str(long), **cache),
        Command(folder, *arguments, "--address", head.address, **cache) as command,
    ):
        assert command.finish() == 1, command.output
    document = json.loads(command.output.splitlines()[-1])
    found = {(finding["check"], finding["status"]): finding for finding in document["findings"]}
    assert len(document["facts"]["nodes"]) == 2
    wrong = {key for key in found if key[1] != "ok"}
    assert wrong == {("MLflow", "failure"), ("temporary", "warning")}
    assert len(found["temporary", "warning"]["nodes"]) == 1
    assert found["Python", "ok"]["found"].endswith("the same everywhere")
    assert found["packages", "ok"]["found"].endswith("the same everywhere")
    for use in ("cache", "storage"):
        assert f"{folder}/" in found[use, "ok"]["found"]
        assert "read and written on every node" in found[use, "ok"]["found"]
    assert found["all-gather", "ok"]["found"].endswith("GB/s by gloo between 2 processes on CPUs")
    assert {rank["node"] for rank in document["facts"]["ranks"]} == set(document["facts"]["nodes"])
    assert "asks for a token" in found["Ray", "ok"]["found"]
    assert ("clocks", "ok") in found
    assert not storage.exists(), "what it writes to look whether it can be read is gone"
