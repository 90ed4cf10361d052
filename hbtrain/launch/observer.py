"""Whoever wants to follow a run: the command line's progress display, a test, a notebook."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Protocol

from hbtrain.training.worker import Event

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
