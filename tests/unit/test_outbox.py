"""Messages to a server that may be away: none is lost, each is written once, and memory does not grow meanwhile."""

import threading
import time
import tracemalloc

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hbtrain.storage import place
from hbtrain.tracking import outbox as module
from hbtrain.tracking import spool as spool_module
from hbtrain.tracking.outbox import Outbox
from hbtrain.tracking.spool import Message, Spool
from tests.prepared_samples import scratch


class Server:
    """Takes messages, unless it is away."""

    def __init__(self):
        self.away = True
        self.got = []

    def send(self, message):
        if self.away:
            raise ConnectionError("away")
        self.got += message.content

    def outbox(self, file):
        return Outbox(self.send, (OSError,), lambda _: False, file, "http://server")


@pytest.fixture
def server(monkeypatch):
    for name in ("RETRY_EVERY_S", "CLOSING_RETRY_EVERY_S", "SAVE_AFTER_S", "SETTLE_S"):
        monkeypatch.setattr(module, name, 0.001)
    return Server()


def figures(start, stop):
    return [Message("run", "figures", [["loss", 0.5, 1_700_000_000_000 + i, i]]) for i in range(start, stop)]


def settled(outbox):
    """Wait until the outbox has written what it has."""
    for _ in range(1000):
        if outbox.settle():
            return
        time.sleep(0.005)
    raise AssertionError("never settled")


def test_something_unexpected_is_raised_where_the_end_is_waited_for_and_loses_nothing(server, tmp_path):
    file = tmp_path / "spool.jsonl"

    def bug(_):
        raise TypeError("a bug")

    server.send = bug
    outbox = server.outbox(file)
    outbox.put(figures(0, 3))
    for _ in range(2):
        with pytest.raises(TypeError, match="a bug"):
            outbox.close(60.0)
    outbox.put(figures(3, 5))
    settled(outbox)
    after = Server()
    after.away = False
    second = after.outbox(file)
    second.adopt(file)
    second.close(60.0)
    assert [step for *_, step in after.got] == list(range(5))
    assert not file.exists()


def test_what_another_process_has_delivered_is_not_waited_for(server, tmp_path):
    """One that was cut off from the server, and taken for dead, finds its file gone when it gets through."""
    file, began, answered = tmp_path / "spool.jsonl", threading.Event(), threading.Event()

    def slow(message):
        began.set()
        answered.wait(60)
        server.got += message.content

    first = Outbox(slow, (OSError,), lambda _: False, file, "http://server")
    first.put(figures(0, 1))
    assert began.wait(60)
    first.put(figures(1, 2))
    settled(first)
    after = Server()
    after.away = False
    second = after.outbox(file)
    second.adopt(file)
    second.close(60.0)
    assert [step for *_, step in after.got] == [0, 1]
    assert not file.exists()
    first.put(figures(2, 3))
    settled(first)
    answered.set()
    first.close(60.0)
    assert [step for *_, step in server.got] == [0, 2]
    assert not file.exists()


def test_an_outage_only_appends(server, tmp_path):
    """What is written is what was put, once: as much for a hundred looks as for one."""
    file = tmp_path / "spool.jsonl"
    outbox = server.outbox(file)
    before = b""
    for number in range(100):
        outbox.put(figures(number, number + 1))
        settled(outbox)
        for _ in range(5):
            assert outbox.settle()
        content = file.read_bytes()
        assert content.startswith(before)
        assert len(content) > len(before)
        before = content
    inode = file.stat().st_ino
    outbox.put(figures(100, 101))
    settled(outbox)
    assert file.stat().st_ino == inode, "not written anew"
    one_line = len(before.splitlines()[-1]) + 1
    assert len(before) <= len("http://server\n") + 100 * one_line
    server.away = False
    outbox.close(60.0)
    assert [step for *_, step in server.got] == list(range(101))
    assert not file.exists()


def test_memory_does_not_grow_with_an_outage(server, tmp_path, monkeypatch):
    """60,000 figures take some 15 MB as objects; the server that gets them only counts."""
    monkeypatch.setattr(module, "MESSAGES_IN_MEMORY", 5)
    monkeypatch.setattr(spool_module, "BLOCK_BYTES", 1 << 16)
    outbox = server.outbox(tmp_path / "spool.jsonl")
    total = 60_000
    seen = []

    def count(message):
        if server.away:
            raise ConnectionError("away")
        seen.append((message.content[0][3], message.content[-1][3]))

    outbox._send = count
    tracemalloc.start()
    try:
        for start in range(0, total, 500):
            content = [["loss", 0.5, 1_700_000_000_000 + i, i] for i in range(start, start + 500)]
            outbox.put([Message("run", "figures", content)])
        assert sum(len(message.content) for message in outbox.pending()) == total
        server.away = False
        outbox.close(600.0)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert [start for start, _ in seen] == [0, *(stop + 1 for _, stop in seen[:-1])]
    assert seen[-1][1] == total - 1
    assert peak < 6 * 2**20


def test_in_a_bucket_each_message_is_written_once_and_all_are_deleted(server, bucket):
    """A process that was killed while it deleted leaves objects that count as deleted."""
    bucket.put("run/spool-1.jsonl", b'http://server\n{"run_id": "run", "kind": "tag", "content": ["old", "x"]}\n')
    file = place(f"{bucket.uri}/run/spool.jsonl")
    first = server.outbox(file)
    for number in range(3):
        first.put(figures(number, number + 1))
        settled(first)
        first.settle()
    sizes = [bucket.get(key).count(b"figures") for key in bucket.keys("run/")]
    assert sizes == [1, 1, 1]
    after = Server()
    after.away = False
    second = after.outbox(file)
    second.adopt(file)
    second.close(60.0)
    assert [step for *_, step in after.got] == [0, 1, 2]
    assert bucket.keys("run/") == []


def test_a_server_that_answers_costs_no_write(server, tmp_path, monkeypatch):
    monkeypatch.setattr(module, "SETTLE_S", 30.0)
    monkeypatch.setattr(Spool, "add", lambda *_, **__: pytest.fail("written"))
    server.away = False
    outbox = server.outbox(tmp_path / "spool.jsonl")
    for number in range(20):
        outbox.put(figures(number, number + 1))
        assert outbox.settle()
    assert len(server.got) == 20


def test_an_old_status_is_left_out_and_a_new_one_is_not(server, tmp_path):
    file = tmp_path / "spool.jsonl"
    spool = Spool(file, "http://server")
    spool.add([*figures(0, 1), Message("run", "status", ["FAILED", 1]), Message("other", "status", ["KILLED", 2])])
    outbox = server.outbox(file)
    outbox.adopt(file, without=("run", "status"))
    outbox.put([Message("run", "status", ["FINISHED", 3])])
    settled(outbox)
    server.away = False
    outbox.close(60.0)
    assert [one for one in server.got if isinstance(one, str)] == ["KILLED", "FINISHED"]


@given(st.lists(st.one_of(st.integers(1, 4), st.sampled_from(["read", "restart", "torn", "clear"])), max_size=20))
def test_a_spool_gives_what_was_added_in_order(actions):
    """Also to the next process, which begins at the start, and whatever was cut off at the end."""
    with scratch() as folder:
        file = place(f"{folder}/spool.jsonl")
        spool = Spool(file, "http://server")
        added, read = [], 0
        for action in actions:
            if isinstance(action, int):
                spool.add(figures(len(added), len(added) + action))
                added += range(len(added), len(added) + action)
            elif action == "read":
                read += len(spool.read()) if not spool.is_read else 0
            elif action == "clear":
                spool.clear()
                added, read = [], 0
            else:
                if action == "torn" and added:
                    with file.open("a") as stream:
                        stream.write('{"run_id": "run", "kind')
                spool, read = Spool(file, "http://server"), 0
                spool.resume()
            assert [message.content[0][3] for message in spool.unread()] == added[read:]
            assert spool.is_read == (read == len(added))


def test_a_full_disk_keeps_what_was_written_and_says_so(server, tmp_path, monkeypatch):
    file = tmp_path / "spool.jsonl"
    outbox = server.outbox(file)
    outbox.put(figures(0, 2))
    settled(outbox)
    before = file.read_bytes()

    def full(_):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr("os.fsync", full)
        outbox.put(figures(2, 4))
        time.sleep(0.01)
        assert not outbox.settle()
        assert file.read_bytes() == before
    settled(outbox)
    assert [step for message in outbox.pending() for *_, step in message.content] == [0, 1, 2, 3]
    server.away = False
    outbox.close(60.0)
    assert [step for *_, step in server.got] == [0, 1, 2, 3]


def test_what_was_left_and_could_not_be_read_at_first_is_not_overwritten(server, tmp_path, monkeypatch):
    file = tmp_path / "spool.jsonl"
    Spool(file, "http://server").add(figures(0, 10))
    outbox = server.outbox(file)
    with monkeypatch.context() as broken:
        broken.setattr(Spool, "resume", lambda _: (_ for _ in ()).throw(OSError("storage does not answer")))
        outbox.adopt(file)
        outbox.put(figures(10, 12))
        assert not outbox.save()
    assert len(file.read_text().splitlines()) == 11
    settled(outbox)
    assert len(file.read_text().splitlines()) > 11
    server.away = False
    outbox.close(60.0)
    assert {step for _, _, _, step in server.got} == set(range(12))
    assert not file.exists()
