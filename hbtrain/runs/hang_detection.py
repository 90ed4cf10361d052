"""Which worker hangs: decided from what all of them last said, so that a stopped process need not help.

All ranks pass the same marks in the same order (they train in step), so the number of marks passed says who is behind.
When one rank hangs the others wait for it in a collective, one or more marks ahead: they are its victims, and the rank
that is behind is to be named.

The driver's side of hang detection: names the worker that hangs, and kills it, so that Ray Train restarts the group.

Ray Train's own health check asks the worker's process, not the training in it: a training thread that waits for ever
is healthy to it, and a stopped process is replaced after ten minutes without a word of where it stood. Timeouts of the
process group fire on the ranks that wait, and name the wrong ones. Both stay on as a second line, later than this one.
"""

from __future__ import annotations

import math
import os
import threading
import time
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from types import TracebackType
from typing import Any

from hbtrain.events import Event

FINISHED = 2**62
"""Marks of a rank that has come to its end."""

LOADING = ("start", "loading", "restore")
LOADING_S = 600.0
"""Models and checkpoints take longer than a step: before the first one the timeout is at least this."""

SILENT_S = 5.0
"""Heartbeats come every second; a rank that has sent none for this long counts as silent."""


@dataclass(frozen=True)
class Position:
    """Where a rank stands.

    Attributes:
        group: the worker group it belongs to; a restart makes a new one.
        world_size: ranks of that group.
        rank: its rank.
        node: address of its machine.
        pid: its process there.
        step: the step it is in.
        phase: what it does in that step, e.g. `loss`.
        marks: phases begun since the group started; `FINISHED` at the end.
        beats: heartbeats sent; they go on while the main thread waits, and stop with the process.
    """

    group: str
    world_size: int
    rank: int
    node: str = ""
    pid: int = 0
    step: int = 0
    phase: str = "start"
    marks: int = 0
    beats: int = 0


@dataclass(frozen=True)
class Hang:
    """Ranks that keep the others waiting.

    Attributes:
        behind: where they stand; several where none is further than the others.
        missing: ranks of the group that never said anything.
        waited_s: seconds without progress.
        silent: whether the ranks in `behind` send no heartbeats either.
    """

    behind: tuple[Position, ...]
    missing: tuple[int, ...]
    waited_s: float
    silent: bool

    def words(self, since: str) -> str:
        """In one line: who hangs, since when (a time of day), in which step and phase."""
        if self.missing:
            ranks = ", ".join(map(str, self.missing))
            return f"rank {ranks} hangs since {since}: it has not begun in {self.waited_s:.0f} s"
        at = self.behind[0]
        who = ", ".join(f"{at.rank} on node {at.node} (pid {at.pid})" for at in self.behind)
        place = f"in phase {at.phase} of step {at.step}"
        if self.silent:
            process = f"last heard of {place}; the process is stopped or cut off"
        elif len(self.behind) > 1:
            process = f"{place}, where they wait for each other"
        else:
            process = f"{place}; the process is alive"
        return f"rank {who} hangs since {since}: no progress for {self.waited_s:.0f} s, {process}"


@dataclass
class HangDetector:
    """Watches positions over time; pure, its clock is given.

    Attributes:
        timeout_s: time without progress after which a rank counts as hanging; while it loads, at least `LOADING_S`.
    """

    timeout_s: float
    _group: str = ""
    _ignored: set[str] = field(default_factory=set)
    _began_s: float = 0.0
    _marks: dict[int, tuple[int, float]] = field(default_factory=dict)
    _beats: dict[int, tuple[int, float]] = field(default_factory=dict)

    def ignore(self, group: str) -> None:
        """Say no more about `group`: it is gone, or about to be."""
        self._ignored.add(group)

    def observe(self, positions: Collection[Position], now_s: float) -> Hang | None:
        """Take note of the last known positions of one group at `now_s`; a Hang once the timeout has passed."""
        group = next((at.group for at in positions), "")
        if not positions or group in self._ignored:
            return None
        if group != self._group:
            self._group, self._began_s, self._marks, self._beats = group, now_s, {}, {}
        for at in positions:
            _note(self._marks, at.rank, at.marks, now_s)
            _note(self._beats, at.rank, at.beats, now_s)
        world_size = max(at.world_size for at in positions)
        missing = tuple(sorted(set(range(world_size)) - {at.rank for at in positions}))
        fewest = min(at.marks for at in positions)
        behind = [at for at in positions if at.marks == fewest]
        since_s = self._began_s if missing else max(self._marks[at.rank][1] for at in behind)
        loading = missing or all(at.phase in LOADING for at in behind)
        timeout_s = max(self.timeout_s, LOADING_S) if loading else self.timeout_s
        if fewest == FINISHED or now_s - since_s < timeout_s:
            return None
        silent = [at for at in behind if now_s - self._beats[at.rank][1] >= SILENT_S]
        behind = sorted(silent or behind, key=lambda at: at.rank)
        return Hang(tuple(behind), missing, now_s - since_s, bool(silent))


def _note(known: dict[int, tuple[int, float]], rank: int, value: int, now_s: float) -> None:
    """Keep `value` and when it was first seen."""
    if rank not in known or known[rank][0] != value:
        known[rank] = (value, now_s)


BEAT_EVERY_S = 1.0


class Pulse:
    """Heartbeats of one worker, from `with` to its end.

    Marking a phase costs two assignments; the thread sends, and nobody waits for an answer.
    """

    def __init__(self, mailbox: Any, rank: int, world_size: int) -> None:
        """To be made on a Ray Train worker."""
        import ray

        context = ray.get_runtime_context()
        # Each worker group has a placement group of its own: what its workers, and no others, have in common.
        group = ray.util.get_current_placement_group()
        self._mailbox = mailbox
        self._actor = context.current_actor
        self._position = Position(
            group=context.get_actor_id() if group is None else group.id.hex(),
            world_size=world_size,
            rank=rank,
            node=ray.util.get_node_ip_address(),
            pid=os.getpid(),
        )
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._beat, name="pulse", daemon=True)

    def at(self, phase: str, step: int | None = None) -> None:
        """A phase begins, in `step` if given, else in the same step as the one before."""
        position = self._position
        step = position.step if step is None else step
        self._position = replace(position, phase=phase, step=step, marks=position.marks + 1)

    def __enter__(self) -> Pulse:
        self._mailbox.join.remote(self._position, self._actor)
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._ended.set()
        self._thread.join()
        self._mailbox.stand.remote(replace(self._position, phase="end", marks=FINISHED))

    def _beat(self) -> None:
        beats = 0
        while not self._ended.wait(BEAT_EVERY_S):
            beats += 1
            self._mailbox.stand.remote(replace(self._position, beats=beats))


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
