"""News from the workers to the driver, and the reason to give up to whoever restarts them."""

from __future__ import annotations

import threading
import time
from pathlib import Path
from typing import Any

from hbtrain.errors import HbtrainError
from hbtrain.events import Event
from hbtrain.runs.hang_detection import FINISHED, Position
from hbtrain.training.worker import Part

PATIENCE_S = 60.0
"""How long a checkpoint is held up by news that the driver can neither deliver nor keep."""
LOOK_S = 0.1


class Mailbox:
    """An actor between the workers and the driver: events and positions one way, the reason to give up the other."""

    def __init__(self) -> None:
        self._events: list[Event] = []
        self._left = self._settled = 0
        self._failure: str | None = None
        self._complete = False
        self._group = ""
        self._positions: dict[int, Position] = {}
        self._actors: dict[int, Any] = {}

    def put(self, event: Event) -> None:
        """Leave an event."""
        self._events.append(event)
        self._left += 1

    def take(self) -> list[Event]:
        """The events left since the last call."""
        events, self._events = self._events, []
        return events

    def settle(self, count: int) -> None:
        """So many more of the events taken will outlive the driver: they are delivered, or kept in storage."""
        self._settled += count

    def left(self) -> int:
        """How many events have been left so far."""
        return self._left

    def settled(self) -> int:
        """How many of them are settled."""
        return self._settled

    def join(self, position: Position, actor: Any) -> None:
        """A worker begins; the first one of a group takes the place of the group before."""
        if position.group != self._group:
            self._group, self._positions, self._actors = position.group, {}, {}
        self._actors[position.rank] = actor
        self.stand(position)

    def stand(self, position: Position) -> None:
        """Where a worker stands; nobody waits for this call."""
        if position.group == self._group:
            self._positions[position.rank] = position

    def standings(self) -> list[Position]:
        """Where the workers of the latest group stand."""
        return list(self._positions.values())

    def workers(self) -> int:
        """How many of the latest group have begun and not ended."""
        return sum(position.marks != FINISHED for position in self._positions.values())

    def actor(self, rank: int) -> Any:
        """The worker that has `rank` in the latest group."""
        return self._actors[rank]

    def fail(self, reason: str) -> None:
        """Say why going on is no use: restarting the workers would end the same way."""
        self._failure = self._failure or reason

    def failure(self) -> str | None:
        """Why to give up, or None."""
        return self._failure

    def complete(self) -> None:
        """Training came to its end, and the model is saved."""
        self._complete = True

    def is_complete(self) -> bool:
        """Whether it did; an interrupted one did not."""
        return self._complete


def await_settled(mailbox: Any) -> None:
    """Return when the events left so far are settled, or waiting longer is no use."""
    import ray

    deadline = time.monotonic() + PATIENCE_S
    left = ray.get(mailbox.left.remote())
    while ray.get(mailbox.settled.remote()) < left and time.monotonic() < deadline:
        time.sleep(LOOK_S)


LONGEST_S = 600.0
"""After this long an upload no longer holds up the next one: Ray Train may have dropped it with a lost worker."""


class Uploads:
    """One worker's uploads, one at a time: were they slower than training, parts would pile up on the local disk."""

    def __init__(self, mailbox: Any) -> None:
        """`mailbox` is told why an upload failed."""
        self._mailbox = mailbox
        self._idle = threading.Event()
        self._idle.set()

    def keep(self, part: Part) -> None:
        """Report a part of a checkpoint to Ray Train, which calls back on a thread of its own; collective."""
        import ray
        import ray.train
        from ray.train import Checkpoint, CheckpointUploadMode

        def upload(_: Checkpoint, __: str) -> Checkpoint:
            try:
                part.store()
            except HbtrainError as error:
                ray.get(self._mailbox.fail.remote(str(error)))
                raise
            finally:
                self._idle.set()
            kept = str(part.to)
            return Checkpoint.from_directory(kept) if isinstance(part.to, Path) else Checkpoint(kept)

        self._idle.wait(LONGEST_S)
        self._idle.clear()
        ray.train.report(
            {"step": part.step},
            checkpoint=Checkpoint.from_directory(str(part.folder)),
            checkpoint_dir_name=part.to.name,
            checkpoint_upload_mode=CheckpointUploadMode.ASYNC,
            delete_local_checkpoint_after_upload=False,  # `store` has deleted it
            checkpoint_upload_fn=upload,
        )
