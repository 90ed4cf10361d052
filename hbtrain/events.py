"""Events and phases that a training run reports, and the observers that follow them, such as a display."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Protocol

logger = logging.getLogger(__name__)


class Observer(Protocol):
    """Follows a run of `hbtrain.train`; called on the thread that trains or on one of its own, never on both."""

    def phase(self, text: str) -> None:
        """A new phase begins, e.g. `training 600 steps on 2 workers`."""

    def event(self, event: Event) -> None: ...


class NullObserver:
    """An observer that ignores everything."""

    def phase(self, text: str) -> None: ...

    def event(self, event: Event) -> None: ...


class PrintingObserver:
    """An observer that prints phases and notes, a line each, for scripts and notebooks."""

    def __init__(self) -> None:
        self._began_s = time.monotonic()

    def phase(self, text: str) -> None:
        print(f"{time.monotonic() - self._began_s:5.0f} s  {text}", flush=True)

    def event(self, event: Event) -> None:
        if event.note:
            self.phase(f"step {event.step}: {event.note}")


class SafeObserver:
    """Calls another observer, and goes on where that fails: a lost terminal or a full disk behind it ends no run."""

    def __init__(self, observer: Observer) -> None:
        self._observer = observer
        self._has_warned = False

    def phase(self, text: str) -> None:
        with self._errors_as_warning():
            self._observer.phase(text)

    def event(self, event: Event) -> None:
        with self._errors_as_warning():
            self._observer.event(event)

    @contextmanager
    def _errors_as_warning(self) -> Iterator[None]:
        try:
            yield
        except Exception as error:
            if not self._has_warned:
                logger.warning("progress cannot be shown (%r); the run goes on", error)
            self._has_warned = True


NOTES = {
    "hang": "a rank kept the others waiting",
    "restart": "a worker died, and all are restarted",
    "resume": "training goes on from a checkpoint",
    "damage": "a checkpoint is damaged, and an earlier one was taken",
    "checkpoint": "a checkpoint is kept",
    "skipped": "steps whose gradients were not finite were skipped",
    "early stop": "no better validation loss for so long that training ended",
    "stop": "someone asked for the end",
}
"""{kind of a note: what it tells}."""


@dataclass(frozen=True)
class Event:
    """Something that happened in training, reported by rank 0, or by the driver about a rank."""

    step: int  # steps done by then
    # {name: value} under the names that MLflow gets, e.g. `train/loss_mono`, `validation/loss`
    metrics: Mapping[str, float]
    note: str = ""  # a sentence for people, or empty
    # pairs trained on since the last event that had any; steps that are repeated after a restart count again
    pairs: int = 0
    tokens: int = 0  # tokens of these pairs on all ranks, without padding
    kind: str = ""  # what sort of a note it is, e.g. `restart`: one of `NOTES`, or empty
    rank: int | None = 0  # the rank that it is about; None: no rank
    time_s: float = field(default_factory=time.time, compare=False)  # when it happened, since 1970
