"""What watches a run decides nothing about it."""

import errno
import io
import logging

import pytest

from hbtrain.cli.display import RunConsole, RunDisplay
from hbtrain.events import Event, SafeObserver
from hbtrain.runs.ray_train import EventDelivery

EVENT = Event(3, {"train/loss_mono": 1.5}, pairs=10, tokens=100)


class Failing:
    def __init__(self):
        self.told = []

    def phase(self, text):
        self.told.append(text)
        raise OSError(errno.ENOSPC, "No space left on device")

    def event(self, event):
        self.told.append(event)
        raise ZeroDivisionError


def test_an_observer_that_fails_is_told_on_and_warned_of_once(caplog):
    observer = Failing()
    safe = SafeObserver(observer)
    with caplog.at_level(logging.WARNING):
        safe.phase("one")
        safe.event(EVENT)
        safe.phase("two")
    assert observer.told == ["one", EVENT, "two"]
    (record,) = caplog.records
    assert "No space left on device" in record.getMessage()


@pytest.mark.parametrize("error", [BrokenPipeError(), OSError(errno.ENOSPC, "No space left on device")])
def test_a_console_that_is_lost_falls_silent(monkeypatch, error):
    class Lost(io.StringIO):
        attempts = 0

        def write(self, text):
            Lost.attempts += 1
            raise error

    monkeypatch.setattr("os.dup2", lambda source, target: None)
    monkeypatch.setattr("sys.stdout", open("/dev/null", "w"))  # noqa: PTH123, SIM115
    console = RunConsole(file=Lost())
    with RunDisplay(console, 10) as display:
        display.phase("one")
        tried = Lost.attempts
        display.phase("two")
        display.event(EVENT)
    assert 0 < tried == Lost.attempts


class Server:
    """What stands for the actor between workers and driver, for MLflow, for the usage and for who watches."""

    def __init__(self, batches, fails_at=None):
        self.batches, self.fails_at = list(batches), fails_at
        self.order = []

    def __getattr__(self, name):
        return Remote(getattr(self, f"remote_{name}"))

    def remote_active_workers(self):
        return 1

    def remote_take_events(self):
        return self.batches.pop(0) if self.batches else []

    def remote_acknowledge(self, count):
        self.order.append(("acknowledged", count))


class Remote:
    def __init__(self, call):
        self.remote = call


class Tracker:
    def __init__(self, order, fails_at):
        self._order, self._fails_at = order, fails_at

    def event(self, event):
        if event.step == self._fails_at:
            raise ValueError("what nobody expected")
        self._order.append(("tracked", event.step))

    def metrics(self, metrics, step):
        pass

    def save_undelivered(self):
        return True


class Usage:
    def __getattr__(self, name):
        return lambda *arguments: {}


class Shown:
    def __init__(self, order):
        self._order = order

    def phase(self, text):
        pass

    def event(self, event):
        self._order.append(("shown", event.step))


@pytest.fixture
def delivered(monkeypatch):
    """Runs `EventDelivery` over batches of events; returns what happened, in order."""
    monkeypatch.setattr("ray.get", lambda references: references)
    monkeypatch.setattr("hbtrain.runs.ray_train.POLL_S", 0.01)

    def run(batches, fails_at=None, body=lambda: None):
        broker = Server(batches)
        delivery = EventDelivery(Tracker(broker.order, fails_at), Shown(broker.order), Usage(), 100)
        run.order = broker.order
        with delivery.running(broker):
            while broker.batches:
                pass
            body()
        return broker.order

    return run


def test_events_are_delivered_and_acknowledged_before_they_are_shown(delivered):
    events = [Event(1, {"x": 1.0}), Event(2, {"x": 2.0})]
    assert delivered([events]) == [("tracked", 1), ("tracked", 2), ("acknowledged", 2), ("shown", 1), ("shown", 2)]


def test_something_unexpected_is_raised_at_the_end_and_later_events_arrive(delivered):
    with pytest.raises(ValueError, match="what nobody expected"):
        delivered([[Event(1, {"x": 1.0})], [Event(2, {"x": 2.0})]], fails_at=1)
    assert ("tracked", 2) in delivered.order
    assert ("acknowledged", 2) in delivered.order, "or a checkpoint would wait for the first"


def test_what_ended_the_training_is_told_rather_than_that(delivered):
    def fail():
        raise KeyError("training")

    with pytest.raises(KeyError, match="training"):
        delivered([[Event(1, {"x": 1.0})]], fails_at=1, body=fail)
