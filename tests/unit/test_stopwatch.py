"""Every moment counts for one phase."""

import time

import pytest
import torch

from hbtrain.training import stopwatch as module
from hbtrain.training.stopwatch import OTHER, Stopwatch


class Clock:
    """A clock that is moved by hand."""

    def __init__(self, monkeypatch):
        self.now = 0.0
        monkeypatch.setattr(module.time, "perf_counter", lambda: self.now)

    def passes(self, seconds):
        self.now += seconds


@pytest.fixture
def clock(monkeypatch):
    return Clock(monkeypatch)


@pytest.fixture
def watch(clock):
    return Stopwatch(torch.device("cpu"))


def test_the_innermost_phase_counts(clock, watch):
    clock.passes(1)
    with watch.phase("backward"):
        clock.passes(2)
        with watch.phase("communication"):
            clock.passes(4)
        clock.passes(8)
    clock.passes(16)
    assert watch.read() == {OTHER: 17, "backward": 10, "communication": 4}
    clock.passes(32)
    assert watch.read() == {OTHER: 32}, "a reading begins anew"


def test_a_phase_can_take_the_whole_and_goes_on_over_a_reading(clock, watch):
    with watch.phase("validation", whole=True), watch.phase("encode"):
        clock.passes(1)
        assert watch.read()["validation"] == 1
        clock.passes(2)
    with watch.phase("encode"):
        clock.passes(4)
    assert {k: v for k, v in watch.read().items() if v} == {"validation": 2, "encode": 4}


def test_an_error_ends_its_phase(clock, watch):
    with pytest.raises(ValueError), watch.phase("loss"):
        raise ValueError
    clock.passes(1)
    assert watch.read()[OTHER] == 1


def test_waiting_for_items(clock, watch):
    def slow():
        for item in "ab":
            clock.passes(3)
            yield item

    for item in watch.each(slow(), "data"):
        assert item in "ab"
        clock.passes(5)
    assert watch.read() == {OTHER: 10, "data": 6}


def test_a_real_clock_moves():
    watch = Stopwatch(torch.device("cpu"))
    with watch.phase("encode"):
        time.sleep(0.002)
    assert watch.read()["encode"] > 0.001


class Stream:
    """A stream of a GPU, with the time at which what it was given so far will be done."""

    def __init__(self):
        self.done_at = 0.0

    def synchronize(self):
        pass


class Event:
    """As CUDA's: recorded on the stream that is named, else on the one that is current."""

    current = None

    def __init__(self, enable_timing=False):
        assert enable_timing

    def record(self, stream=None):
        self.at = (stream or Event.current).done_at

    def elapsed_time(self, end):
        return end.at - self.at


def test_collectives_on_a_second_stream_of_a_gpu_give_no_negative_times(monkeypatch):
    computing, reducing = Stream(), Stream()
    monkeypatch.setattr(torch.cuda, "Event", Event)
    monkeypatch.setattr(torch.cuda, "current_stream", lambda device=None: Event.current)
    monkeypatch.setattr(torch.cuda, "synchronize", lambda: None)
    monkeypatch.setattr(Event, "current", computing)
    watch = Stopwatch(torch.device("cuda:0"))
    with watch.phase("backward"):
        computing.done_at = 50.0  # kernels that wait for the GPU
        Event.current = reducing  # DeepSpeed: with stream(reduction_stream): all_reduce(...)
        reducing.done_at = 20.0
        with watch.phase("communication"):
            reducing.done_at = 35.0
        Event.current = computing
        computing.done_at = 55.0
    computing.done_at = 60.0
    assert watch.read() == {OTHER: 0.005, "backward": 0.055, "communication": 0.0}
