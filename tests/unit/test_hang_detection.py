import threading
from dataclasses import replace
from types import SimpleNamespace

import pytest
import ray
from hypothesis import given
from hypothesis import strategies as st

from hbtrain.runs import hang_detection
from hbtrain.runs.hang_detection import FINISHED, HangDetector, HangMonitor, RankProgress
from hbtrain.runs.worker_messages import MessageBroker


def progress(rank, phases_begun, heartbeats=0, group="one", world_size=3, phase="loss", step=1):
    return RankProgress(group, world_size, rank, f"node-{rank}", 100 + rank, step, phase, phases_begun, heartbeats)


def watch(detector, story, every_s=1.0):
    """The first Hang of [progress at second 0, at second 1, ...], and its second."""
    for i, ranks in enumerate(story):
        hang = detector.observe(ranks, 1000.0 + i * every_s)
        if hang is not None:
            return hang, i * every_s
    return None, None


def test_the_rank_that_is_behind_is_named_and_not_its_victims():
    # Rank 1 stops after 7 phases while it computes; the others begin the 8th and wait for it, all processes alive.
    story = [
        [progress(0, min(i, 8), i), progress(1, min(i, 7), i, phase="encode", step=3), progress(2, min(i, 8), i)]
        for i in range(60)
    ]
    hang, second = watch(HangDetector(20), story)
    assert [p.rank for p in hang.behind] == [1]
    assert second == 27
    assert not hang.silent
    words = hang.describe("10:00:00")
    assert words == (
        "rank 1 on node node-1 (pid 101) hangs since 10:00:00: no progress for 20 s, in phase encode of step 3; "
        "the process is alive"
    )


def test_a_stopped_process_is_named_among_those_in_its_phase():
    # All have begun one phase, a collective, and the heartbeats of rank 2 ended.
    story = [[progress(0, 5, i), progress(1, 5, i), progress(2, 5, min(i, 3))] for i in range(60)]
    hang, _ = watch(HangDetector(20), story)
    assert [p.rank for p in hang.behind] == [2]
    assert "stopped or cut off" in hang.describe("10:00:00")


def test_a_deadlock_of_all_names_all():
    hang, _ = watch(HangDetector(20), [[progress(0, 5, i), progress(1, 5, i), progress(2, 5, i)] for i in range(60)])
    assert [p.rank for p in hang.behind] == [0, 1, 2]
    assert "wait for each other" in hang.describe("10:00:00")


def test_a_rank_that_never_began_is_named():
    hang, second = watch(HangDetector(20), [[progress(0, 5, i), progress(2, 5, i)] for i in range(800)])
    assert hang.missing == (1,)
    assert second == 600
    assert "rank 1 hangs" in hang.describe("10:00:00")


def test_loading_has_time():
    hang, second = watch(HangDetector(20), [[progress(r, 1, i, phase="loading") for r in range(3)] for i in range(800)])
    assert len(hang.behind) == 3
    assert second == 600


def test_ranks_at_their_end_wait_for_nobody():
    assert watch(HangDetector(20), [[progress(0, FINISHED), progress(1, FINISHED), progress(2, FINISHED)]] * 60) == (
        None,
        None,
    )
    hang, _ = watch(
        HangDetector(20), [[progress(0, FINISHED), progress(1, 9, i), progress(2, FINISHED)] for i in range(60)]
    )
    assert [p.rank for p in hang.behind] == [1]


def test_a_new_group_starts_its_own_clock_and_an_ignored_one_has_none():
    detector = HangDetector(20)
    old = [progress(r, 50) for r in range(3)]
    new = [progress(r, 1, group="two") for r in range(3)]
    hang, second = watch(detector, [old] * 15 + [new] * 60)
    assert second == 35
    assert hang.behind[0].group == "two"
    detector.ignore("two")
    assert watch(detector, [new] * 100) == (None, None)


@given(
    st.integers(1, 6),
    st.integers(2, 30),
    st.lists(st.integers(1, 10), min_size=1, max_size=200),
)
def test_no_alarm_while_the_slowest_moves_in_time(world_size, timeout_s, pauses_s):
    """Ranks begin one phase after pauses shorter than the timeout: whoever moves, nobody is accused."""
    detector, phases_begun, now_s = HangDetector(timeout_s), [0] * world_size, 0.0
    for pause_s in pauses_s:
        now_s += min(pause_s, timeout_s - 1)
        phases_begun = [m + 1 for m in phases_begun]
        assert (
            detector.observe([progress(r, m, world_size=world_size) for r, m in enumerate(phases_begun)], now_s) is None
        )


def test_the_broker_keeps_the_latest_group_only():
    broker = MessageBroker()
    for rank in range(3):
        broker.register(progress(rank, 0), f"actor {rank}")
    broker.report_progress(progress(1, 9))
    assert {p.rank: p.phases_begun for p in broker.progress()} == {0: 0, 1: 9, 2: 0}
    # A smaller group takes over, and the last words of the old one come late.
    broker.register(progress(0, 0, group="two", world_size=1), "new actor")
    broker.report_progress(progress(2, 11))
    assert broker.progress() == [replace(progress(0, 0), group="two", world_size=1)]
    assert broker.actor(0) == "new actor"


class Call:
    """A remote method: `ray.get` of what it returns calls `act`."""

    def __init__(self, act):
        self.act = act

    def remote(self, *arguments):
        return lambda: self.act(*arguments)


@pytest.fixture
def monitored(monkeypatch):
    """Watch a group whose rank 1 hangs; returns how often it was killed, and how many notes there are.

    At each look the broker does the next of `broker`, and the rank that is asked whether it lives the next of `rank`:
    an error is raised, anything else is an answer.
    """
    monkeypatch.setattr(hang_detection, "CHECK_EVERY_S", 0.0)

    def watch_with(broker, rank):
        killed, notes = [], []
        looks, answers, done = iter(broker), iter(rank), threading.Event()

        def next_of(steps, value):
            step = next(steps, None)
            if step is None:
                done.set()
            if isinstance(step, Exception):
                raise step
            return value

        actor = SimpleNamespace(__ray_ready__=Call(lambda: next_of(answers, True)))
        ranks = [progress(0, 8), progress(1, 7), progress(2, 8)]
        stand_in = SimpleNamespace(
            progress=Call(lambda: next_of(looks, ranks)), actor=Call(lambda _: actor), put_event=Call(notes.append)
        )
        monkeypatch.setattr(ray, "get", lambda call, timeout=None: call())
        monkeypatch.setattr(ray, "kill", killed.append)
        HangMonitor(stand_in, 0.0).run(done)
        assert all(one is actor for one in killed)
        return len(killed), len(notes)

    return watch_with


UNAVAILABLE = ray.exceptions.ActorUnavailableError("for a moment", b"0" * 16)


def test_a_passing_fault_of_ray_does_not_end_hang_detection(monitored):
    faults = [UNAVAILABLE, ray.exceptions.GetTimeoutError("slow"), ray.exceptions.RaySystemError("busy")]
    assert monitored([*faults, "an answer", "an answer"], ["alive"]) == (1, 1)


def test_a_rank_that_cannot_be_reached_for_a_moment_is_not_taken_for_dead(monitored):
    assert monitored(["an answer"] * 5, [UNAVAILABLE, UNAVAILABLE, "alive"]) == (1, 1)
    assert monitored(["an answer"] * 5, [ray.exceptions.ActorDiedError(), "alive"]) == (0, 0), (
        "the dead are left to Ray Train"
    )
