"""The driver's side of hang detection: names the worker that hangs, and kills it, so that Ray Train restarts the group.

Ray Train's own health check asks the worker's process, not the training in it: a training thread that waits for ever
is healthy to it, and a stopped process is replaced after ten minutes without a word of where it stood. Timeouts of the
process group fire on the ranks that wait, and name the wrong ones. Both stay on as a second line, later than this one.
"""

from __future__ import annotations

import math
import os
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from hbtrain.launch.hang import Hang, HangDetector
from hbtrain.training.worker import Event

LOOK_EVERY_S = 1.0
ANSWER_WITHIN_S = 5.0
SECOND_LINE_S = 300
"""How much later than the watchdog the timeouts of Ray Train and of the process group come."""


def collective_timeout_s(step_timeout_s: float) -> int:
    """Timeout of the process group's operations."""
    return math.ceil(step_timeout_s) + SECOND_LINE_S


def let_the_watchdog_be_first(step_timeout_s: float) -> None:
    """Have Ray Train's health check wait longer than the watchdog; call before the trainer is made."""
    os.environ.setdefault("RAY_TRAIN_WORKER_HEALTH_CHECK_TIMEOUT_S", str(collective_timeout_s(step_timeout_s)))


class Watchdog:
    """Looks at the workers' positions on a thread of its own."""

    def __init__(self, mailbox: Any, timeout_s: float) -> None:
        self._mailbox = mailbox
        self._detector = HangDetector(timeout_s)
        self._last: tuple[str, str] | None = None

    @contextmanager
    def watching(self) -> Iterator[None]:
        """Watch while the body runs."""
        done = threading.Event()
        thread = threading.Thread(target=self._watch, args=(done,), name="watchdog", daemon=True)
        thread.start()
        try:
            yield
        finally:
            done.set()
            thread.join()

    def verdict(self) -> str | None:
        """What was found of the latest worker group, in words; None if it did not hang."""
        import ray

        positions = ray.get(self._mailbox.standings.remote())
        latest = next((at.group for at in positions), None)
        return self._last[1] if self._last is not None and self._last[0] == latest else None

    def _watch(self, done: threading.Event) -> None:
        import ray

        while not done.wait(LOOK_EVERY_S):
            try:
                hang = self._detector.observe(ray.get(self._mailbox.standings.remote()), time.monotonic())
                if hang is not None:
                    self._end(hang)
            except ray.exceptions.RayError:
                return  # the mailbox is gone, and with it the run

    def _end(self, hang: Hang) -> None:
        """Kill the first rank that is behind, unless it is dead already; Ray Train restarts the group."""
        import ray

        at = hang.behind[0]
        self._detector.ignore(at.group)
        actor = ray.get(self._mailbox.actor.remote(at.rank))
        try:
            ray.get(actor.__ray_ready__.remote(), timeout=ANSWER_WITHIN_S)
        except ray.exceptions.GetTimeoutError:
            pass  # alive and stuck as a whole: stopped, swapped out or cut off
        except ray.exceptions.RayActorError:
            return  # dead: Ray Train knows, and waits for the resources of a new group
        found = hang.words(time.strftime("%H:%M:%S", time.localtime(time.time() - hang.waited_s)))
        self._last = (at.group, found)
        words = f"{found}; the workers are restarted from the last checkpoint"
        ray.get(self._mailbox.put.remote(Event(at.step, {}, words)))
        ray.kill(actor)
