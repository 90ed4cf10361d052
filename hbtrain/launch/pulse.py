"""The worker's side of hang detection: a thread that tells the mailbox where this worker stands, once a second."""

from __future__ import annotations

import os
import threading
from dataclasses import replace
from types import TracebackType
from typing import Any

from hbtrain.launch.hang import FINISHED, Position

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
