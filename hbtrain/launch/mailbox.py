"""News from the workers to the driver, and the reason to give up to whoever restarts them."""

from __future__ import annotations

from hbtrain.training.worker import Event


class Mailbox:
    """An actor between the workers and the driver: events one way, the reason to give up the other."""

    def __init__(self) -> None:
        self._events: list[Event] = []
        self._failure: str | None = None
        self._complete = False

    def put(self, event: Event) -> None:
        """Leave an event."""
        self._events.append(event)

    def take(self) -> list[Event]:
        """The events left since the last call."""
        events, self._events = self._events, []
        return events

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
