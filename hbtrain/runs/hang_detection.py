"""Hang detection: finds the worker that keeps the others waiting, names it, and kills it so that the group restarts.

Workers train in step, so all ranks begin the same phases in the same order, and the number of phases begun says who is
behind. When one rank hangs, the others wait for it in a collective, one or more phases ahead: the rank that is behind
is the one to name. The driver decides from the last heartbeat of every rank, so a stopped process need not cooperate.

Ray Train's own health check asks the worker's process, not the training in it: a training thread that waits for ever
looks healthy, and a stopped process is replaced after ten minutes without a word of where it stood. Timeouts of the
process group fire on the ranks that wait, and name the wrong ones. Both stay on as a fallback, later than this one.
"""

from __future__ import annotations

import math
import os
import threading
import time
from collections.abc import Collection
from contextlib import suppress
from dataclasses import dataclass, field, replace
from types import TracebackType
from typing import Any

from hbtrain.cluster.memory import MemoryUse, memory_use
from hbtrain.events import Event

FINISHED = 2**62  # value of `RankProgress.phases_begun` for a rank that has ended

LOADING = ("start", "loading", "restore")
LOADING_S = 600.0
"""Least timeout while a rank is in a phase of `LOADING`: models and checkpoints take longer than a step."""

SILENT_S = 5.0  # a rank that has sent no heartbeat for so many seconds counts as silent; heartbeats come every second

HEARTBEAT_EVERY_S = 1.0
CHECK_EVERY_S = 1.0
ANSWER_WITHIN_S = 5.0
FALLBACK_DELAY_S = 300  # how much later than hang detection the timeouts of Ray Train and of the process group fire


@dataclass(frozen=True)
class RankProgress:
    """How far one rank has come, as of its last heartbeat."""

    group: str  # id of the worker group that the rank belongs to; a restart makes a new group
    world_size: int  # ranks of that group
    rank: int  # the rank
    node: str = ""  # IP address of its machine
    pid: int = 0  # id of its process there
    step: int = 0  # the step it is in
    phase: str = "start"  # what it does in that step, e.g. `loss`
    phases_begun: int = 0  # phases begun since the group started; `FINISHED` at the end
    heartbeats: int = 0  # heartbeats sent; they go on while the main thread waits, and stop with the process
    memory: MemoryUse = field(default_factory=MemoryUse)  # what its process and its node use


@dataclass(frozen=True)
class Hang:
    """Ranks that keep the others waiting."""

    behind: tuple[RankProgress, ...]  # progress of the ranks that are furthest behind; all of them where none is ahead
    missing: tuple[int, ...]  # ranks of the group that never sent a heartbeat
    waited_s: float  # seconds without progress
    silent: bool  # whether the ranks in `behind` send no heartbeats either

    def describe(self, since: str) -> str:
        """One line: which rank hangs, since when (`since` is a time of day), in which step and phase."""
        if self.missing:
            ranks = ", ".join(map(str, self.missing))
            return f"rank {ranks} hangs since {since}: it has not begun in {self.waited_s:.0f} s"
        first = self.behind[0]
        who = ", ".join(f"{rank.rank} on node {rank.node} (pid {rank.pid})" for rank in self.behind)
        where = f"in phase {first.phase} of step {first.step}"
        if self.silent:
            process = f"last heard of {where}; the process is stopped or cut off"
        elif len(self.behind) > 1:
            process = f"{where}, where they wait for each other"
        else:
            process = f"{where}; the process is alive"
        return f"rank {who} hangs since {since}: no progress for {self.waited_s:.0f} s, {process}"


@dataclass
class HangDetector:
    """Decides from the progress of all ranks over time whether one hangs; the caller supplies the clock."""

    timeout_s: float  # time without progress after which a rank counts as hanging; while it loads, at least `LOADING_S`
    _group: str = ""
    _ignored: set[str] = field(default_factory=set)
    _began_s: float = 0.0
    _phases_begun: dict[int, tuple[int, float]] = field(default_factory=dict)
    _heartbeats: dict[int, tuple[int, float]] = field(default_factory=dict)

    def ignore(self, group: str) -> None:
        """Report no hang of `group` any more: it has ended, or is about to."""
        self._ignored.add(group)

    def observe(self, ranks: Collection[RankProgress], now_s: float) -> Hang | None:
        """Take note of the last known progress of one group's ranks at `now_s`; a Hang once the timeout has passed."""
        group = next((rank.group for rank in ranks), "")
        if not ranks or group in self._ignored:
            return None
        if group != self._group:
            self._group, self._began_s, self._phases_begun, self._heartbeats = group, now_s, {}, {}
        for rank in ranks:
            _note_change(self._phases_begun, rank.rank, rank.phases_begun, now_s)
            _note_change(self._heartbeats, rank.rank, rank.heartbeats, now_s)
        world_size = max(rank.world_size for rank in ranks)
        missing = tuple(sorted(set(range(world_size)) - {rank.rank for rank in ranks}))
        fewest = min(rank.phases_begun for rank in ranks)
        behind = [rank for rank in ranks if rank.phases_begun == fewest]
        since_s = self._began_s if missing else max(self._phases_begun[rank.rank][1] for rank in behind)
        loading = missing or all(rank.phase in LOADING for rank in behind)
        timeout_s = max(self.timeout_s, LOADING_S) if loading else self.timeout_s
        if fewest == FINISHED or now_s - since_s < timeout_s:
            return None
        silent = [rank for rank in behind if now_s - self._heartbeats[rank.rank][1] >= SILENT_S]
        behind = sorted(silent or behind, key=lambda rank: rank.rank)
        return Hang(tuple(behind), missing, now_s - since_s, bool(silent))


def _note_change(known: dict[int, tuple[int, float]], rank: int, value: int, now_s: float) -> None:
    """Remember in `known` the rank's value and the time at which it was first seen."""
    if rank not in known or known[rank][0] != value:
        known[rank] = (value, now_s)


class Heartbeat:
    """Sends the progress of one worker to the message broker every second, from `with` to its end.

    Beginning a phase costs two assignments: a thread sends, and nobody waits for an answer.
    """

    def __init__(self, broker: Any, rank: int, world_size: int) -> None:
        """To be made on a Ray Train worker; `broker` is the handle of the run's `MessageBroker`."""
        import ray

        context = ray.get_runtime_context()
        # Each worker group has a placement group of its own: what its workers, and no others, have in common.
        group = ray.util.get_current_placement_group()
        self._broker = broker
        self._actor = context.current_actor
        self._progress = RankProgress(
            group=context.get_actor_id() if group is None else group.id.hex(),
            world_size=world_size,
            rank=rank,
            node=ray.util.get_node_ip_address(),
            pid=os.getpid(),
        )
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._send, name="heartbeat", daemon=True)
        self._answer: Any = None
        self._is_stop_requested = False

    def is_stop_requested(self) -> bool:
        """Whether the broker has answered a heartbeat with the request to stop training."""
        return self._is_stop_requested

    def begin_phase(self, phase: str, step: int | None = None) -> None:
        """Note that a phase begins, in `step` if given, else in the same step as the phase before."""
        progress = self._progress
        step = progress.step if step is None else step
        self._progress = replace(progress, phase=phase, step=step, phases_begun=progress.phases_begun + 1)

    def __enter__(self) -> Heartbeat:
        self._broker.register.remote(self._progress, self._actor)
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._ended.set()
        self._thread.join()
        self._broker.report_progress.remote(replace(self._progress, phase="end", phases_begun=FINISHED))

    def _send(self) -> None:
        heartbeats = 0
        while not self._ended.wait(HEARTBEAT_EVERY_S):
            heartbeats += 1
            progress = replace(self._progress, heartbeats=heartbeats, memory=memory_use())
            self._hear(self._broker.report_progress.remote(progress))

    def _hear(self, answer: Any) -> None:
        """Take note of the earliest answer that was not read yet, if it is there; nobody waits for it."""
        import ray

        self._answer = answer if self._answer is None else self._answer
        if ray.wait([self._answer], timeout=0)[0]:
            with suppress(ray.exceptions.RayError):  # the broker is gone, and with it the run
                self._is_stop_requested |= bool(ray.get(self._answer))
            self._answer = None


def collective_timeout_s(step_timeout_s: float) -> int:
    """Timeout in seconds of the process group's collectives: later than hang detection."""
    return math.ceil(step_timeout_s) + FALLBACK_DELAY_S


def delay_ray_health_check(step_timeout_s: float) -> None:
    """Have Ray Train's health check fire later than hang detection; to be called before the trainer is made."""
    os.environ.setdefault("RAY_TRAIN_WORKER_HEALTH_CHECK_TIMEOUT_S", str(collective_timeout_s(step_timeout_s)))


class HangMonitor:
    """Hang detection in the driver: looks at the workers' progress every second, and kills the one that hangs."""

    def __init__(self, broker: Any, timeout_s: float) -> None:
        self._broker = broker
        self._detector = HangDetector(timeout_s)
        self._last: tuple[str, str] | None = None

    def reason(self) -> str | None:
        """One line about the hang of the latest worker group; None if it did not hang."""
        import ray

        ranks = ray.get(self._broker.progress.remote())
        latest = next((rank.group for rank in ranks), None)
        return self._last[1] if self._last is not None and self._last[0] == latest else None

    def run(self, done: threading.Event) -> None:
        """Look for hangs until `done` is set. Where the broker does not answer, it is asked again."""
        import ray

        while not done.wait(CHECK_EVERY_S):
            try:
                ranks = ray.get(self._broker.progress.remote(), timeout=ANSWER_WITHIN_S)
                hang = self._detector.observe(ranks, time.monotonic())
                if hang is not None:
                    self._kill(hang)
            except ray.exceptions.RayError:
                continue  # a passing fault; where the broker or the cluster is gone, whoever waits for the run is told

    def _kill(self, hang: Hang) -> None:
        """Kill the first rank that is behind, unless it is dead already; Ray Train restarts the group.

        Where Ray does not say whether it is dead, as when its machine cannot be reached, it is asked again later.
        """
        import ray

        rank = hang.behind[0]
        actor = ray.get(self._broker.actor.remote(rank.rank), timeout=ANSWER_WITHIN_S)
        try:
            ray.get(actor.__ray_ready__.remote(), timeout=ANSWER_WITHIN_S)
        except ray.exceptions.GetTimeoutError:
            pass  # alive and stuck as a whole: stopped, swapped out or cut off
        except ray.exceptions.ActorUnavailableError:
            return  # for the moment
        except ray.exceptions.RayActorError:
            self._detector.ignore(rank.group)
            return  # dead: Ray Train knows, and waits for the resources of a new group
        found = hang.describe(time.strftime("%H:%M:%S", time.localtime(time.time() - hang.waited_s)))
        self._last = (rank.group, found)
        note = f"{found}; the workers are restarted from the last checkpoint"
        event = Event(rank.step, {}, note, kind="hang", rank=rank.rank)
        ray.get(self._broker.put_event.remote(event), timeout=ANSWER_WITHIN_S)
        ray.kill(actor)
        self._detector.ignore(rank.group)
