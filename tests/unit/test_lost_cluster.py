"""A cluster that goes away while something waits for it ends that, in one line."""

import os
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from types import SimpleNamespace

import grpc
import pytest
import ray

from hbtrain.cluster import lost_cluster
from hbtrain.cluster.lost_cluster import RECONNECT_TIMEOUT, longer_reconnect_timeout, loss_as_error
from hbtrain.errors import TrainingError


@pytest.fixture
def head(monkeypatch):
    """What answers as a head does, until it is stopped."""
    server = grpc.server(ThreadPoolExecutor(1))
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    context = SimpleNamespace(gcs_address=f"127.0.0.1:{port}")
    monkeypatch.setattr(ray, "get_runtime_context", lambda: context)
    monkeypatch.setattr(lost_cluster, "CHECK_EVERY_S", 0.05)
    yield server
    server.stop(None)


def wait_without_end():
    while True:
        time.sleep(60)


def test_a_head_that_stops_answering_ends_the_wait(head):
    before = signal.getsignal(signal.SIGRTMIN)
    with pytest.raises(TrainingError) as error, loss_as_error("there:6379", 0.3):
        head.stop(None)
        wait_without_end()
    assert str(error.value).startswith("the Ray cluster at there:6379 was lost: its head at 127.0.0.1:")
    assert "the same command goes on" in str(error.value)
    assert error.value.exit_code == 1
    assert signal.getsignal(signal.SIGRTMIN) == before


def test_an_interrupt_that_is_lost_is_repeated(head, monkeypatch):
    monkeypatch.setattr(lost_cluster, "INTERRUPT_EVERY_S", 0.1)
    with pytest.raises(TrainingError), loss_as_error("there:6379", 0.1):
        head.stop(None)
        with suppress(KeyboardInterrupt):
            wait_without_end()
        wait_without_end()


STUCK = """
import signal, time
from types import SimpleNamespace
import ray
from hbtrain.cluster import lost_cluster
ray.get_runtime_context = lambda: SimpleNamespace(gcs_address="127.0.0.1:1")
lost_cluster.CHECK_EVERY_S, lost_cluster.INTERRUPT_EVERY_S, lost_cluster.STUCK_S = 0.05, 0.1, 0.5
signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGRTMIN})  # as in a call that does not look at signals
with lost_cluster.loss_as_error("there:6379", 0.1):
    time.sleep(10_000)
"""


def test_a_call_that_never_ends_does_not_keep_the_process():
    done = subprocess.run([sys.executable, "-c", STUCK], capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 1
    assert done.stderr.startswith("error: the Ray cluster at there:6379 was lost: its head at 127.0.0.1:1 has not")
    assert done.stderr.count("\n") == 1


def test_one_that_answers_does_not(head):
    with loss_as_error("there:6379", 0.2):
        time.sleep(1)


def test_a_short_silence_is_forgiven(head, monkeypatch):
    answers = iter([True, False, False, True] * 100)

    def check(address, name):
        if not next(answers):
            raise lost_cluster.ConfigError("silence")

    monkeypatch.setattr(lost_cluster, "check_answers", check)
    with loss_as_error("there:6379", 5):
        time.sleep(0.6)


def test_what_ray_says_is_put_into_words(head):
    words = "the Ray cluster of this machine was lost: System error: it is away; when"
    with pytest.raises(TrainingError, match=words), loss_as_error("local", 60):
        raise ray.exceptions.RaySystemError("it is away. It may come back.\nand more")


def test_what_is_no_loss_passes(head):
    with pytest.raises(KeyboardInterrupt), loss_as_error("local", 60):
        raise KeyboardInterrupt
    with pytest.raises(ZeroDivisionError), loss_as_error("local", 60):
        raise ZeroDivisionError


def test_this_process_outlives_the_nodes(monkeypatch):
    monkeypatch.delenv(RECONNECT_TIMEOUT, raising=False)
    with longer_reconnect_timeout("there:6379") as patience_s:
        assert patience_s == 45
        assert float(os.environ[RECONNECT_TIMEOUT]) == 360
    assert RECONNECT_TIMEOUT not in os.environ
    monkeypatch.setenv(RECONNECT_TIMEOUT, "600")
    with longer_reconnect_timeout("there:6379") as patience_s:
        assert patience_s == 450
        assert float(os.environ[RECONNECT_TIMEOUT]) == 900
    assert os.environ[RECONNECT_TIMEOUT] == "600"
    with longer_reconnect_timeout("local"):
        assert os.environ[RECONNECT_TIMEOUT] == "600"
