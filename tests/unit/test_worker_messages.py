from types import SimpleNamespace

import pytest
import ray

from hbtrain.events import Event
from hbtrain.runs import worker_messages as module
from hbtrain.runs.worker_messages import MessageBroker, await_acknowledged


class Handle:
    """A broker called as an actor is; `when_asked` runs before each look at what is acknowledged."""

    def __init__(self, broker, when_asked):
        self.received = SimpleNamespace(remote=broker.received)
        self.acknowledged = SimpleNamespace(remote=lambda: (when_asked(), broker.acknowledged())[1])


@pytest.fixture(autouse=True)
def alone(monkeypatch):
    """No cluster, and no waiting between looks."""
    monkeypatch.setattr(ray, "get", lambda value: value)
    monkeypatch.setattr(module, "POLL_S", 0.0)


def test_events_are_taken_once_in_order():
    broker = MessageBroker()
    events = [Event(step, {}) for step in (10, 20)]
    for event in events:
        broker.put_event(event)
    assert broker.take_events() == events
    assert broker.take_events() == []


def test_a_worker_waits_for_what_it_told_and_for_nothing_later():
    broker = MessageBroker()
    for step in (10, 20):
        broker.put_event(Event(step, {}))
    taken = []

    def driver():
        taken.append(len(broker.take_events()))
        if len(taken) == 2:
            broker.acknowledge(taken[0])
        broker.put_event(Event(20 + 10 * len(taken), {}))  # training goes on meanwhile

    await_acknowledged(Handle(broker, driver))
    assert taken == [2, 1]


def test_a_worker_does_not_wait_for_ever(monkeypatch):
    monkeypatch.setattr(module, "ACKNOWLEDGE_WITHIN_S", 0.05)
    broker = MessageBroker()
    broker.put_event(Event(10, {}))
    await_acknowledged(Handle(broker, lambda: None))
    assert broker.acknowledged() == 0
