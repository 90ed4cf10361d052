"""Messages between the workers and the driver: events, progress, uploads of checkpoints, and reasons to give up."""

from __future__ import annotations

import threading
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

from hbtrain.errors import HbtrainError
from hbtrain.events import Event
from hbtrain.runs.hang_detection import FINISHED, RankProgress
from hbtrain.training.worker import CheckpointPart

ACKNOWLEDGE_WITHIN_S = 60.0
"""How long a checkpoint waits for events that the driver can neither deliver to MLflow nor write to storage."""
POLL_S = 0.1
UPLOAD_WITHIN_S = 600.0
"""After so many seconds an upload no longer holds up the next: Ray Train may have dropped it with a lost worker."""


class MessageBroker:
    """A Ray actor between workers and driver: events and progress go to the driver, a reason to give up to workers."""

    def __init__(self) -> None:
        self._events: list[Event] = []
        self._received = self._acknowledged = 0
        self._failure: str | None = None
        self._complete = self._stop = False
        self._restarts, self._furthest = 0, -1
        self._group = ""
        self._progress: dict[int, RankProgress] = {}
        self._actors: dict[int, Any] = {}

    def put_event(self, event: Event) -> None:
        self._events.append(event)
        self._received += 1

    def take_events(self) -> list[Event]:
        """The events received since the last call, in order."""
        events, self._events = self._events, []
        return events

    def acknowledge(self, count: int) -> None:
        """The driver has delivered the next `count` events, or written them to storage: they outlive its process."""
        self._acknowledged += count

    def received(self) -> int:
        """How many events have been put so far."""
        return self._received

    def acknowledged(self) -> int:
        """How many of the events received are acknowledged."""
        return self._acknowledged

    def register(self, progress: RankProgress, actor: Any) -> None:
        """A worker begins. The first worker of a new group replaces the whole group before."""
        if progress.group != self._group:
            self._group, self._progress, self._actors = progress.group, {}, {}
        self._actors[progress.rank] = actor
        self.report_progress(progress)

    def report_progress(self, progress: RankProgress) -> bool:
        """Take a worker's heartbeat; those of an earlier group are ignored. Returns whether training is to stop."""
        if progress.group == self._group:
            self._progress[progress.rank] = progress
        return self._stop

    def request_stop(self) -> None:
        """Have the workers stop training, with a checkpoint; they learn of it by the answer to a heartbeat."""
        self._stop = True

    def progress(self) -> list[RankProgress]:
        """The last heartbeat of every worker of the latest group."""
        return list(self._progress.values())

    def active_workers(self) -> int:
        """How many workers of the latest group have begun and not ended."""
        return sum(progress.phases_begun != FINISHED for progress in self._progress.values())

    def actor(self, rank: int) -> Any:
        """The Ray actor of the worker that has `rank` in the latest group."""
        return self._actors[rank]

    def fail(self, reason: str) -> None:
        """Report that restarting the workers would end the same way; the first reason counts."""
        self._failure = self._failure or reason

    def failure(self) -> str | None:
        """Why restarted workers must not go on; None while they may."""
        return self._failure

    def count_restart(self, furthest: int | None) -> int:
        """Count a restart of the workers; returns how many there were in a row without a newer checkpoint.

        Args:
            furthest: step of the newest whole checkpoint; 0 without one, None where that is not known.
        """
        if furthest is not None:
            self._restarts = 0 if furthest > self._furthest else self._restarts
            self._furthest = furthest
        self._restarts += 1
        return self._restarts

    def complete(self) -> None:
        """Report that training came to its end, and that the model is saved."""
        self._complete = True

    def is_complete(self) -> bool:
        """Whether training came to its end; False where it was interrupted."""
        return self._complete


def await_acknowledged(broker: Any) -> None:
    """Return when all events received so far are acknowledged, or after `ACKNOWLEDGE_WITHIN_S` without that."""
    import ray

    deadline = time.monotonic() + ACKNOWLEDGE_WITHIN_S
    received = ray.get(broker.received.remote())
    while ray.get(broker.acknowledged.remote()) < received and time.monotonic() < deadline:
        time.sleep(POLL_S)


def end_training(broker: Any, reason: str) -> None:
    """End training at once and for good: the workers that Ray Train starts anew find the reason, and do nothing."""
    import ray

    with suppress(ray.exceptions.RayError):  # there may be no worker at this moment
        ray.get(broker.fail.remote(reason))
        ray.kill(ray.get(broker.actor.remote(0)))


class CheckpointUploads:
    """One worker's uploads, one at a time: were they slower than training, parts would pile up on the local disk."""

    def __init__(self, broker: Any) -> None:
        """`broker` is told why an upload failed."""
        self._broker = broker
        self._idle = threading.Event()
        self._idle.set()

    def start(self, part: CheckpointPart) -> None:
        """Report a part of a checkpoint to Ray Train, which uploads it on a thread of its own; collective."""
        import ray
        import ray.train
        from ray.train import Checkpoint, CheckpointUploadMode

        def upload(_: Checkpoint, __: str) -> Checkpoint:
            try:
                part.store()
            except HbtrainError as error:
                ray.get(self._broker.fail.remote(str(error)))
                raise
            finally:
                self._idle.set()
            stored = str(part.to)
            return Checkpoint.from_directory(stored) if isinstance(part.to, Path) else Checkpoint(stored)

        self._idle.wait(UPLOAD_WITHIN_S)
        self._idle.clear()
        ray.train.report(
            {"step": part.step},
            checkpoint=Checkpoint.from_directory(str(part.folder)),
            checkpoint_dir_name=part.to.name,
            checkpoint_upload_mode=CheckpointUploadMode.ASYNC,
            delete_local_checkpoint_after_upload=False,  # `store` has deleted it
            checkpoint_upload_fn=upload,
        )
