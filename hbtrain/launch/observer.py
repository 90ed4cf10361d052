"""Whoever wants to follow a run: the command line's progress display, a test, a notebook."""

from __future__ import annotations

from typing import Protocol

from hbtrain.training.worker import Event


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
