"""Signals that ask a sweep, or the training of one of its trials, to end; without a cluster."""

import os
import signal
import threading
import time
from types import SimpleNamespace

import pytest
import ray
from ray.experimental import internal_kv

from hbtrain.cluster import termination, trial_stop
from hbtrain.cluster.trial_stop import announce, announced, await_trials, trial_at_work
from hbtrain.errors import Terminated
from hbtrain.runs import ray_train
from hbtrain.runs.hang_detection import FINISHED, RankProgress
from hbtrain.runs.worker_messages import MessageBroker
from hbtrain.sweeps.progress import GridProgress


@pytest.fixture
def cluster(monkeypatch):
    """The store of keys of a cluster, and a job of it."""
    keys = {}
    monkeypatch.setattr(internal_kv, "_internal_kv_put", keys.__setitem__)
    monkeypatch.setattr(internal_kv, "_internal_kv_get", keys.get)
    monkeypatch.setattr(internal_kv, "_internal_kv_del", keys.pop)
    monkeypatch.setattr(internal_kv, "_internal_kv_list", lambda start: [key for key in keys if key.startswith(start)])
    monkeypatch.setattr(ray, "is_initialized", lambda: True)
    job = SimpleNamespace(get_job_id=lambda: "01")
    monkeypatch.setattr(ray, "get_runtime_context", lambda: job)
    monkeypatch.setattr(trial_stop, "POLL_S", 0.005)
    monkeypatch.setattr(termination._state, "name", None)
    return keys


def test_trials_hear_of_the_end_of_their_own_sweep_only(cluster, monkeypatch):
    assert announced() is None
    announce("SIGUSR1")
    assert announced() == "SIGUSR1"
    monkeypatch.setattr(ray, "get_runtime_context", lambda: SimpleNamespace(get_job_id=lambda: "02"))
    assert announced() is None


def test_a_sweep_waits_for_trials_that_are_at_work(cluster):
    ended = []

    def trial():
        with trial_at_work():
            while announced() is None:
                time.sleep(0.005)
            time.sleep(0.05)
            ended.append("a checkpoint")

    thread = threading.Thread(target=trial)
    thread.start()
    while not cluster:
        time.sleep(0.005)
    progress = GridProgress(2, 1)
    progress.on_step_begin(1, [])
    termination.ask("SIGTERM")
    with pytest.raises(Terminated, match="ended by SIGTERM; the same command goes on: finished trials are kept"):
        progress.on_step_begin(2, [])
    assert ended
    thread.join()


def test_a_trial_that_hangs_does_not_hold_up_the_end_for_ever(cluster):
    with trial_at_work(), trial_at_work():
        assert await_trials(0.02) == 2
    assert await_trials(0.02) == 0


def test_ray_tune_s_own_handler_is_replaced(cluster):
    with termination.termination_as_exception():
        signal.signal(signal.SIGUSR1, lambda *_: None)
        GridProgress(1, 1).setup(total_num_samples=1)
        with termination.postponed_termination():
            os.kill(os.getpid(), signal.SIGUSR1)
        assert termination.asked_by() == "SIGUSR1"


class Driver:
    """A driver that passes a signal on to workers; `beats` are how often each rank's heartbeat is to be heard."""

    def __init__(self, monkeypatch, phases):
        self.broker, self.interrupted, self.done = MessageBroker(), threading.Event(), threading.Event()
        for rank, phase in enumerate(phases):
            self.broker.register(RankProgress("g", 2, rank, step=70, phases_begun=phase), None)
        methods = ("progress", "request_stop", "put_event")
        self.handle = SimpleNamespace(**{n: SimpleNamespace(remote=getattr(self.broker, n)) for n in methods})
        monkeypatch.setattr(ray, "get", lambda value: value)
        monkeypatch.setattr(ray_train, "POLL_S", 0.005)
        monkeypatch.setattr(ray_train, "NO_WORKER_S", 0.05)
        monkeypatch.setattr(ray_train.os, "kill", lambda pid, number: self.interrupted.set())

    def pass_on(self, is_trial=False, within_s=0.3):
        thread = threading.Thread(target=ray_train.pass_on_termination, args=(self.handle, is_trial, self.done))
        thread.start()
        self.interrupted.wait(within_s)
        self.done.set()
        thread.join()
        return self.interrupted.is_set()


def test_workers_are_asked_and_it_is_told_once(cluster, monkeypatch):
    driver = Driver(monkeypatch, [FINISHED, FINISHED])
    assert not driver.pass_on()
    assert not driver.broker.report_progress(RankProgress("other", 2, 0)), "nobody has asked"
    termination.ask("SIGTERM")
    driver.done.clear()
    assert not driver.pass_on(), "workers that have ended may be storing their checkpoint"
    assert driver.broker.report_progress(RankProgress("other", 2, 0)), "the answer to a heartbeat"
    (event,) = driver.broker.take_events()
    assert (event.step, event.kind, event.rank) == (70, "stop", None)
    assert event.note == "SIGTERM: a checkpoint is taken, and then this ends; a second signal ends it at once"


@pytest.mark.parametrize(
    ("phases", "is_trial", "interrupted"), [([], False, True), ([], True, False), ([5, 5], False, True)]
)
def test_where_no_worker_answers_the_wait_is_ended(cluster, monkeypatch, phases, is_trial, interrupted):
    announce("SIGTERM")
    if not is_trial:
        termination.ask("SIGTERM")
    assert Driver(monkeypatch, phases).pass_on(is_trial) is interrupted


def test_a_driver_does_not_listen_to_sweeps(cluster, monkeypatch):
    announce("SIGTERM")
    driver = Driver(monkeypatch, [5, 5])
    assert not driver.pass_on(within_s=0.1)
    assert driver.broker.take_events() == []
