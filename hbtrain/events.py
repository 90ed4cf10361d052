"""What a training tells, and whoever wants to follow it: the command line's display, tracking, a test, a notebook."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Protocol

logger = logging.getLogger(__name__)


class Observer(Protocol):
    """Told by `hbtrain.train` of what goes on; called on the thread that trains or on one of its own, never on both."""

    def phase(self, text: str) -> None:
        """A new phase begins, e.g. `training 600 steps on 2 workers`."""

    def event(self, event: Event) -> None:
        """Something happened in training."""


class Silent:
    """Follows nothing."""

    def phase(self, text: str) -> None:
        """Ignored."""

    def event(self, event: Event) -> None:
        """Ignored."""


class Harmless:
    """Tells another observer, and goes on where that fails: a lost terminal or a full disk behind it ends no run."""

    def __init__(self, observer: Observer) -> None:
        self._observer = observer
        self._has_warned = False

    def phase(self, text: str) -> None:
        """See `Observer`."""
        with self._failing_alone():
            self._observer.phase(text)

    def event(self, event: Event) -> None:
        """See `Observer`."""
        with self._failing_alone():
            self._observer.event(event)

    @contextmanager
    def _failing_alone(self) -> Iterator[None]:
        try:
            yield
        except Exception as error:
            if not self._has_warned:
                logger.warning("progress cannot be shown (%r); the run goes on", error)
            self._has_warned = True


@dataclass(frozen=True)
class Event:
    """Something that happened in training, told by rank 0.

    Attributes:
        step: steps done by then.
        metrics: figures under the names that tracking uses, e.g. `train/loss_mono`, `validation/loss`.
        note: a sentence for people, or empty.
        pairs: that were trained on since the last event that told of any; steps done again count again.
        tokens: theirs, of all ranks, without padding.
    """

    step: int
    metrics: Mapping[str, float]
    note: str = ""
    pairs: int = 0
    tokens: int = 0
