"""An outbox: messages for a server that may be down, delivered in order by a thread, and kept in a spool until then.

The sender never waits for the server. A message that cannot be delivered is tried again, and again by a later process
that reads the spool. A message may be delivered twice, if a process dies in between, so delivery must be idempotent.

In memory are those that are delivered next, at most a block of the spool, and the last ones, which the spool has not
yet; so memory does not grow with an outage, and each message is written at most once, however long it lasts.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress

from hbtrain.storage import Place
from hbtrain.tracking.spool import Message, Spool

RETRY_EVERY_S = 5.0
CLOSING_RETRY_EVERY_S = 1.0
SAVE_AFTER_S = 2.0  # messages wait so many seconds for their delivery before `settle` writes them to the spool
SETTLE_S = 0.2  # how long `settle` waits for a delivery
METRICS_PER_CALL = 1000  # the most metrics that MLflow takes in one call
MESSAGES_IN_MEMORY = 100  # that are not in the spool; more are written to it


class Outbox:
    """Messages that wait for delivery, and the thread that delivers them.

    Attributes:
        refused: descriptions of messages that the server will never take.
        error: the last error of a delivery, or None.
        away_s: seconds in all for which the server did not answer.
        file: where messages are kept; None: nowhere.
    """

    def __init__(
        self,
        send: Callable[[Message], None],
        failures: tuple[type[Exception], ...],
        is_refusal: Callable[[Exception], bool],
        file: Place | None,
        server: str,
    ) -> None:
        """An outbox that begins empty.

        Args:
            send: delivers one message.
            failures: exceptions of `send` that mean an outage, after which it is tried again.
            is_refusal: whether one of these means that the server will never take the message; it is then dropped.
            file: where pending messages are kept, or None.
            server: identifies the server in the file.
        """
        self.refused: list[str] = []
        self.error: Exception | None = None
        self.away_s = 0.0
        self.file = file
        self._send = send
        self._failures = failures
        self._is_refusal = is_refusal
        self._server = server
        self._spool = None if file is None else Spool(file, server)
        self._next: deque[Message] = deque()  # delivered next; in the spool as well unless that is empty
        self._last: list[Message] = []  # delivered after what is still to be read from the spool; not in it
        self._without: tuple[str, str] | None = None
        self._unresumed = False  # whether the spool may hold messages of another process that could not be read yet
        self._pending_since = 0.0
        self._away_since: float | None = None
        self._unexpected: Exception | None = None
        self._changed = threading.Condition()
        self._closing = threading.Event()
        self._given_up = False
        self._thread: threading.Thread | None = None

    @property
    def is_pending(self) -> bool:
        """Whether messages are not delivered yet."""
        return bool(self._next or self._last) or self._has_unread

    def pending(self) -> Iterator[Message]:
        """The messages that are not delivered yet, in order, those in the spool included as far as it answers."""
        with self._changed:
            yield from self._next
            with suppress(OSError):
                yield from [] if self._spool is None else self._spool.unread()
            yield from self._last

    def put(self, messages: Iterable[Message]) -> None:
        """Deliver these after all that are pending. Adjacent metrics of a run are merged into one message."""
        with self._changed:
            if not self.is_pending:
                self._pending_since = time.monotonic()
            for message in messages:
                if self._last and _can_merge(self._last[-1], message):
                    self._last[-1].content += message.content
                else:
                    self._last.append(message)
            if len(self._last) > MESSAGES_IN_MEMORY:
                self.save()
            self._start()

    def adopt(self, file: Place, without: tuple[str, str] | None = None) -> None:
        """Deliver the messages that another process kept in `file`, if they are for the same server.

        Args:
            file: may be missing. Once its messages are in this outbox's own spool, or delivered, it is deleted.
            without: (run id, kind) of messages to leave out, as they are no longer true.
        """
        try:
            if file == self.file and self._spool is not None:
                with self._changed:
                    self._without, self._unresumed = without, True
                    self._spool.resume()
                    self._unresumed = False
                    self._start()
                return
            other = Spool(file, self._server)
            other.resume()
            while not other.is_read:
                self.put(message for message in other.read() if (message.run_id, message.kind) != without)
            if not other.is_empty and self.save():
                other.clear()
        except OSError:
            return  # `save` tries again, or the next process finds them

    def close(self, patience_s: float) -> None:
        """Stop the thread once all is delivered, or `patience_s` after the call if the server does not answer.

        What is pending then is saved. Raises what has stopped the thread unexpectedly.
        """
        self._closing.set()
        given_up_at = time.monotonic() + patience_s
        with self._changed:
            while self.is_pending and self._unexpected is None:
                if self._away_since is not None and time.monotonic() >= given_up_at:
                    break
                self._changed.wait(0.1)
            self._given_up = self.is_pending
        self.save()
        if self._unexpected is not None:
            raise self._unexpected

    def settle(self) -> bool:
        """Whether all messages are delivered or saved, which they are if their delivery takes `SAVE_AFTER_S`."""
        with self._changed:
            if self._changed.wait_for(lambda: not self.is_pending, SETTLE_S):
                return True
            return time.monotonic() - self._pending_since >= SAVE_AFTER_S and self.save()

    def save(self) -> bool:
        """Write the pending messages that the spool lacks to it; False if some of them are saved nowhere."""
        with self._changed:
            if self._spool is None:
                return not self.is_pending
            try:
                if self._unresumed:  # else what another process has left would be overwritten
                    self._spool.resume()
                    self._unresumed = False
                    if not self._spool.is_empty:
                        self._spool.add(
                            self._next
                        )  # behind that, so they are read once more: MLflow takes points twice
                if self._next and self._spool.is_empty:
                    self._spool.add(self._next, are_read=True)
                if self._last:
                    self._spool.add(self._last)
                self._last = []
                if not self.is_pending and not self._spool.is_empty:
                    self._spool.clear()
            except OSError:
                return not self.is_pending
        return True

    @property
    def _has_unread(self) -> bool:
        return self._spool is not None and not self._spool.is_read

    def _start(self) -> None:
        """Start the thread, if there is something for it."""
        self._closing.clear()
        self._given_up = False
        if self._thread is None and self.is_pending and self._unexpected is None:
            self._thread = threading.Thread(target=self._deliver, name="outbox", daemon=True)
            self._thread.start()

    def _deliver(self) -> None:
        try:
            while (message := self._first()) is not None:
                try:
                    self._send(message)
                except self._failures as error:
                    self._note_failure(message, error)
                else:
                    self._remove_first()
        except Exception as error:  # nobody waits for this thread: it is raised by `close`
            self._stop(error)

    def _first(self) -> Message | None:
        """The message to deliver; None if there is none, or if it was given up: then the thread has ended."""
        while True:
            try:
                with self._changed:
                    if self._given_up or not (self._next or self._fill()):
                        self._stop(None)
                        return None
                    return self._next[0]
            except OSError as error:  # the spool's storage does not answer
                self.error = error
                self._wait()

    def _fill(self) -> bool:
        """Take the messages that come next; False if there are none. Raises OSError."""
        while self._spool is not None and self._has_unread:
            without = self._without if self._spool.is_left_over else None
            self._next.extend(m for m in self._spool.read() if (m.run_id, m.kind) != without)
            if self._next:
                return True
        if self._spool is not None and not self._spool.is_empty:
            self._spool.clear()  # all that it has is delivered
        self._next.extend(self._last)
        self._last = []
        return bool(self._next)

    def _stop(self, error: Exception | None) -> None:
        with self._changed:
            self._unexpected = self._unexpected or error
            self._thread = None
            self._changed.notify_all()

    def _note_failure(self, message: Message, error: Exception) -> None:
        """Wait for the next attempt. What the server refused is sent in halves, or dropped: the others shall arrive."""
        self.error = error
        if not self._is_refusal(error):
            self._wait()
        elif message.kind == "figures" and len(message.content) > 1:
            half = len(message.content) // 2
            with self._changed:
                self._next.popleft()
                parts = message.content[half:], message.content[:half]
                self._next.extendleft(Message(message.run_id, message.kind, part) for part in parts)
        else:
            self.refused.append(str(message))
            self._remove_first()

    def _remove_first(self) -> None:
        """Remove the first message, which was delivered or refused; an outage, if there was one, is over."""
        with self._changed:
            self._next.popleft()
            if self._away_since is not None:
                self.away_s += time.monotonic() - self._away_since
                self._away_since = None
            self._changed.notify_all()

    def _wait(self) -> None:
        """Save the pending messages for the next process, and wait before the next attempt."""
        with self._changed:
            self._away_since = self._away_since or time.monotonic()
            self._changed.notify_all()
        self.save()
        if self._closing.is_set():
            time.sleep(CLOSING_RETRY_EVERY_S)
        else:
            self._closing.wait(RETRY_EVERY_S)


def _can_merge(last: Message, new: Message) -> bool:
    return (
        last.kind == new.kind == "figures"
        and last.run_id == new.run_id
        and len(last.content) + len(new.content) <= METRICS_PER_CALL
    )
