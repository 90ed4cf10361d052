"""An outbox: messages for a server that may be down, delivered in order by a thread, and saved in a file until then.

The sender never waits for the server. A message that cannot be delivered is tried again, and again by a later process
that reads the file. A message may be delivered twice, if a process dies in between, so delivery must be idempotent.
"""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from hbtrain.storage import Place, write_text

RETRY_EVERY_S = 5.0
CLOSING_RETRY_EVERY_S = 1.0
METRICS_PER_CALL = 1000  # the most metrics that MLflow takes in one call

DESCRIPTION = "mlflow.note.content"  # the tag that MLflow shows at the head of a run's page


@dataclass
class Message:
    """A change of a run that the server is to make."""

    run_id: str  # id of the MLflow run
    kind: str  # `figures`, `tag`, `untag`, `artifact` or `status`
    # arguments by kind, as JSON values: of `figures` a list [name, value, time in ms, step] for each metric, of `tag`
    # [name, value], of `untag` [name], of `artifact` [path, folder], of `status` [status, time in ms]
    content: list[Any]

    def __str__(self) -> str:
        if self.kind == "figures":
            return f"figure {self.content[0][0]}" if len(self.content) == 1 else f"{len(self.content)} figures"
        if self.kind == "artifact":
            path, folder = self.content
            return f"artifact {folder or Path(path).name}"
        return f"{self.kind} {'description' if self.content[0] == DESCRIPTION else self.content[0]}"


class Outbox:
    """Messages that wait for delivery, and the thread that delivers them.

    Attributes:
        pending: messages not delivered yet, in order.
        refused: descriptions of messages that the server will never take.
        error: the last error of a delivery, or None.
        away_s: seconds in all for which the server did not answer.
        file: where pending messages are saved; None: nowhere.
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
            file: where pending messages are saved, or None.
            server: identifies the server in the file.
        """
        self.pending: list[Message] = []
        self.refused: list[str] = []
        self.error: Exception | None = None
        self.away_s = 0.0
        self._send = send
        self._failures = failures
        self._is_refusal = is_refusal
        self.file = file
        self._server = server
        self._away_since: float | None = None
        self._changed = threading.Condition()
        self._closing = threading.Event()
        self._given_up = False
        self._thread: threading.Thread | None = None

    def put(self, messages: Iterable[Message]) -> None:
        """Deliver these after all that are pending. Adjacent metrics of a run are merged into one message."""
        with self._changed:
            for message in messages:
                # The first message may be on its way, so nothing is merged into it.
                last = self.pending[-1] if len(self.pending) > 1 else None
                if last is not None and _can_merge(last, message):
                    last.content += message.content
                else:
                    self.pending.append(message)
            self._closing.clear()
            self._given_up = False
            if self._thread is None and self.pending:
                self._thread = threading.Thread(target=self._deliver, name="outbox", daemon=True)
                self._thread.start()

    def adopt(self, file: Place, without: tuple[str, str] | None = None) -> None:
        """Deliver the messages that another process saved in `file`, if they are for the same server.

        Args:
            file: may be missing. Once its messages are in this outbox's own file, it is deleted.
            without: (run id, kind) of messages to leave out, as they are no longer true.
        """
        try:
            server, *lines = file.read_text(encoding="utf-8").splitlines()
            messages = [Message(**json.loads(line)) for line in lines]
        except (OSError, ValueError, TypeError):
            return
        if server != self._server:
            return
        self.put(message for message in messages if (message.run_id, message.kind) != without)
        if file != self.file and self.save():
            file.unlink(missing_ok=True)

    def close(self, patience_s: float) -> None:
        """Stop the thread once all is delivered, or `patience_s` after the call if the server does not answer."""
        self._closing.set()
        given_up_at = time.monotonic() + patience_s
        with self._changed:
            while self.pending and (self._away_since is None or time.monotonic() < given_up_at):
                self._changed.wait(0.1)
            self._given_up = bool(self.pending)
        self.save()

    def save(self) -> bool:
        """Write the pending messages to the file; False if some of them are saved nowhere."""
        with self._changed:
            if self.file is None:
                return not self.pending
            lines = [self._server, *(json.dumps(asdict(message)) for message in self.pending)]
            try:
                if len(lines) == 1:
                    self.file.unlink(missing_ok=True)
                else:
                    write_text(self.file, "\n".join(lines) + "\n")
            except OSError:
                return False
        return True

    def _deliver(self) -> None:
        while True:
            with self._changed:
                if not self.pending or self._given_up:
                    if not self.pending:
                        self.save()  # all is delivered, so the file is deleted
                    self._thread = None
                    self._changed.notify_all()
                    return
                message = self.pending[0]
            try:
                self._send(message)
            except self._failures as error:
                self.error = error
                if not self._is_refusal(error):
                    self._wait()
                elif message.kind == "figures" and len(message.content) > 1:
                    self._halve_first()
                else:
                    self.refused.append(str(message))
                    self._remove_first()
            else:
                self._remove_first()

    def _halve_first(self) -> None:
        """Send the figures of the first message, one of which was refused, as two messages: the others shall arrive."""
        with self._changed:
            first = self.pending[0]
            half = len(first.content) // 2
            parts = first.content[:half], first.content[half:]
            self.pending[:1] = [Message(first.run_id, first.kind, part) for part in parts]

    def _remove_first(self) -> None:
        """Remove the first message, which was delivered or refused; an outage, if there was one, is over."""
        with self._changed:
            self.pending.pop(0)
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
