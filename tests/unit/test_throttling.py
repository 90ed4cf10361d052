"""S3-compatible storage that asks for fewer requests: it is waited for, longer each time, and not for ever."""

from collections import Counter
from types import SimpleNamespace

import pytest

from hbtrain.storage import RemoteError, fetch, is_whole, place, pushed, remote
from tests.unit.test_storage_remote import tree_of, write_tree


class Overloaded:
    """pyarrow's file system of a bucket that refuses the first requests of every kind and path."""

    def __init__(self, files, error, times):
        self._files, self._error, self._times = files, error, times
        self.refused = Counter()

    def __getattr__(self, name):
        def call(first, *arguments, **named):
            key = name, str(getattr(first, "base_dir", first))
            if self.refused[key] < self._times:
                self.refused[key] += 1
                raise OSError(self._error)
            return getattr(self._files, name)(first, *arguments, **named)

        return call


@pytest.fixture
def overloaded(bucket, monkeypatch):
    """A function that has each request to the bucket refused so often; it returns the stand-in, and all waits."""
    waits = []
    monkeypatch.setattr(remote, "time", SimpleNamespace(sleep=waits.append))

    def refuse(error, times):
        files = Overloaded(remote._filesystem(bucket.name, ""), error, times)
        monkeypatch.setattr(remote, "_filesystem", lambda *_: files)
        return files, waits

    return refuse


SLOW_DOWN = "When writing: AWS Error SLOW_DOWN during PutObject operation: Please reduce your request rate."
NO_BODY = "When getting: AWS Error UNKNOWN (HTTP status 503) during HeadObject operation: No response body."


@pytest.mark.parametrize("error", [SLOW_DOWN, NO_BODY])
def test_an_export_to_storage_that_asks_for_fewer_requests_waits_and_ends(bucket, tmp_path, overloaded, error):
    files, waits = overloaded(error, 2)
    to = place(bucket.uri) / "model"
    to_be_replaced = to / "old"
    to_be_replaced.write_text("x")
    with pushed(to, replace=True) as folder:
        write_tree(folder, {"a": b"1", "b/c": b"2"})
    assert is_whole(to)
    fetch(to, tmp_path / "back")
    assert tree_of(tmp_path / "back") == {"a": b"1", "b/c": b"2"}
    assert set(files.refused.values()) == {2}
    assert len(waits) == sum(files.refused.values())
    assert all(0.5 <= wait_s <= 2.0 for wait_s in waits)


def test_waits_grow_and_end(bucket, overloaded):
    files, waits = overloaded(SLOW_DOWN, 1000)
    with pytest.raises(RemoteError, match=r"reduce your request rate \(SLOW_DOWN\)"):
        (place(bucket.uri) / "a").write_text("x")
    assert len(waits) == len(remote.WAITS_S) == sum(files.refused.values()) - 1
    assert all(most / 2 <= wait_s <= most for wait_s, most in zip(waits, remote.WAITS_S, strict=True))
    waits.clear()
    overloaded("When writing: AWS Error ACCESS_DENIED during PutObject operation: no", 1000)
    with pytest.raises(RemoteError, match="ACCESS_DENIED"):
        (place(bucket.uri) / "a").write_text("x")
    assert waits == []


def test_a_small_object_is_written_by_one_request(bucket):
    (place(bucket.uri) / "a").write_text("x")
    tag = bucket.client.head_object(Bucket=bucket.name, Key="a")["ETag"]
    assert "-" not in tag, "an upload in parts takes three, and has a dash in its tag"
