from types import SimpleNamespace

import pytest
import ray

from hbtrain.events import Event
from hbtrain.runs import worker_messages as module
from hbtrain.runs.worker_messages import Mailbox, await_settled


class Handle:
    """A mailbox called as an actor is; `when_asked` runs before each look at what is settled."""

    def __init__(self, mailbox, when_asked):
        self.left = SimpleNamespace(remote=mailbox.left)
        self.settled = SimpleNamespace(remote=lambda: (when_asked(), mailbox.settled())[1])


@pytest.fixture(autouse=True)
def alone(monkeypatch):
    """No cluster, and no waiting between looks."""
    monkeypatch.setattr(ray, "get", lambda value: value)
    monkeypatch.setattr(module, "LOOK_S", 0.0)


def test_events_are_taken_once_in_order():
    mailbox = Mailbox()
    events = [Event(step, {}) for step in (10, 20)]
    for event in events:
        mailbox.put(event)
    assert mailbox.take() == events
    assert mailbox.take() == []


def test_a_worker_waits_for_what_it_told_and_for_nothing_later():
    mailbox = Mailbox()
    for step in (10, 20):
        mailbox.put(Event(step, {}))
    taken = []

    def driver():
        taken.append(len(mailbox.take()))
        if len(taken) == 2:
            mailbox.settle(taken[0])
        mailbox.put(Event(20 + 10 * len(taken), {}))  # training goes on meanwhile

    await_settled(Handle(mailbox, driver))
    assert taken == [2, 1]


def test_a_worker_does_not_wait_for_ever(monkeypatch):
    monkeypatch.setattr(module, "PATIENCE_S", 0.05)
    mailbox = Mailbox()
    mailbox.put(Event(10, {}))
    await_settled(Handle(mailbox, lambda: None))
    assert mailbox.settled() == 0
