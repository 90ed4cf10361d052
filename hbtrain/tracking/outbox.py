"""What is to be told to a server that may be away: delivered in order by a thread, kept in a file until it is.

Nobody who has something to tell waits for the server. What it does not take is tried again, and again by a later
process that reads the file. A letter may be delivered twice, if a process dies in between, so it must do no harm twice.
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
FIGURES_AT_ONCE = 1000
"""MLflow takes no more in one call."""


DESCRIPTION = "mlflow.note.content"
"""The tag that MLflow shows at the head of a run's page."""


@dataclass
class Letter:
    """Something to tell the server about a run.

    Attributes:
        run_id: the run.
        kind: `figures`, `tag`, `untag`, `artifact` or `status`.
        content: what the kind needs, as JSON has it; of `figures` one list [name, value, time in ms, step] each.
    """

    run_id: str
    kind: str
    content: list[Any]

    def __str__(self) -> str:
        if self.kind == "figures":
            return f"{len(self.content)} figures"
        if self.kind == "artifact":
            path, folder = self.content
            return f"artifact {folder or Path(path).name}"
        return f"{self.kind} {'description' if self.content[0] == DESCRIPTION else self.content[0]}"


class Outbox:
    """Letters on their way.

    Attributes:
        pending: not delivered yet, in order.
        refused: what the server will never take, in words.
        error: the last one.
        away_s: seconds that the server was away for, all in all.
        file: where it is kept, or None.
    """

    def __init__(
        self,
        send: Callable[[Letter], None],
        failures: tuple[type[Exception], ...],
        is_refusal: Callable[[Exception], bool],
        file: Place | None,
        server: str,
    ) -> None:
        """Send with `send`; what is undelivered goes to `file`, under the name of `server`.

        An exception of `failures` is an outage, unless `is_refusal` says that trying again is no use.
        """
        self.pending: list[Letter] = []
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

    def put(self, letters: Iterable[Letter]) -> None:
        """Deliver these after those that wait."""
        with self._changed:
            for letter in letters:
                # The first one may be on its way, so nothing is added to it.
                last = self.pending[-1] if len(self.pending) > 1 else None
                if last is not None and _go_together(last, letter):
                    last.content += letter.content
                else:
                    self.pending.append(letter)
            self._closing.clear()
            self._given_up = False
            if self._thread is None and self.pending:
                self._thread = threading.Thread(target=self._deliver, name="outbox", daemon=True)
                self._thread.start()

    def adopt(self, file: Place, without: tuple[str, str] | None = None) -> None:
        """Take over what another process left in `file`, if it is for the same server.

        Args:
            file: may be missing.
            without: (run id, kind) of letters that are no longer true.
        """
        try:
            server, *lines = file.read_text(encoding="utf-8").splitlines()
            letters = [Letter(**json.loads(line)) for line in lines]
        except (OSError, ValueError, TypeError):
            return
        if server != self._server:
            return
        self.put(letter for letter in letters if (letter.run_id, letter.kind) != without)
        if file != self.file and self.save():
            file.unlink(missing_ok=True)

    def close(self, patience_s: float) -> None:
        """Wait until all is delivered, or the server has been away for `patience_s` since the call; then stop."""
        self._closing.set()
        given_up_at = time.monotonic() + patience_s
        with self._changed:
            while self.pending and (self._away_since is None or time.monotonic() < given_up_at):
                self._changed.wait(0.1)
            self._given_up = bool(self.pending)
        self.save()

    def save(self) -> bool:
        """Have the file hold what is pending; False if some of it is kept nowhere."""
        with self._changed:
            if self.file is None:
                return not self.pending
            lines = [self._server, *(json.dumps(asdict(letter)) for letter in self.pending)]
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
                        self.save()  # the file goes: what it held has been delivered
                    self._thread = None
                    self._changed.notify_all()
                    return
                letter = self.pending[0]
            try:
                self._send(letter)
            except self._failures as error:
                self.error = error
                if self._is_refusal(error):
                    self.refused.append(str(letter))
                    self._done()
                else:
                    self._wait()
            else:
                self._done()

    def _done(self) -> None:
        """The first letter needs no more care; an outage, if there was one, is over."""
        with self._changed:
            self.pending.pop(0)
            if self._away_since is not None:
                self.away_s += time.monotonic() - self._away_since
                self._away_since = None
            self._changed.notify_all()

    def _wait(self) -> None:
        """Keep what is pending where the next process finds it, and wait before the next attempt."""
        with self._changed:
            self._away_since = self._away_since or time.monotonic()
            self._changed.notify_all()
        self.save()
        if self._closing.is_set():
            time.sleep(CLOSING_RETRY_EVERY_S)
        else:
            self._closing.wait(RETRY_EVERY_S)


def _go_together(last: Letter, new: Letter) -> bool:
    return (
        last.kind == new.kind == "figures"
        and last.run_id == new.run_id
        and len(last.content) + len(new.content) <= FIGURES_AT_ONCE
    )
