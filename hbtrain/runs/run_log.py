"""The log of a run, `log.jsonl` in its folder: every event, note and phase, with clock time, rank and step.

A line is a JSON object: `time` (UTC), then `phase`, or `step`, `rank`, and `note` with its `kind` or `metrics`. A log
that has grown to `PART_BYTES` becomes `log-0001.jsonl`, and so on; the oldest of more than `PARTS` such parts is
deleted. On a disk, lines are appended. An object cannot be appended to, so on S3 the current part is written anew, once
a minute while there is something new: one request, whatever has happened in that minute.
"""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from hbtrain.errors import without_passwords
from hbtrain.events import Event
from hbtrain.storage import Place, files_in, write_text

LOG = "log.jsonl"
PART_BYTES = 4 * 2**20
PARTS = 16
REMOTE_EVERY_S = 60.0


class RunLog:
    """Writes the log of one run. A storage that fails loses lines of the log at worst, and never ends the run."""

    def __init__(self, folder: Place, clock: Callable[[], float] = time.monotonic) -> None:
        """The log in `folder`, after the lines that earlier attempts have left there."""
        self._folder = folder
        self._clock = clock
        self._lock = threading.Lock()
        self._waiting = ""  # lines that are not written yet
        self._written = ""  # on S3, what the current part holds
        self._flushed_at = clock()
        if not isinstance(folder, Path):
            with suppress(OSError, ValueError):
                self._written = (folder / LOG).read_text()

    def phase(self, text: str) -> None:
        """Log the beginning of a phase."""
        self._add(time.time(), {"phase": text})

    def event(self, event: Event) -> None:
        """Log an event."""
        fields: dict[str, Any] = {"step": event.step, "rank": event.rank}
        if event.note:
            fields |= {"kind": event.kind or "note", "note": event.note}
        if event.metrics:
            fields["metrics"] = dict(event.metrics)
        self._add(event.time_s, fields)

    def _add(self, time_s: float, fields: Mapping[str, Any]) -> None:
        clean = {key: without_passwords(value) if isinstance(value, str) else value for key, value in fields.items()}
        line = json.dumps({"time": utc(time_s), **clean}, ensure_ascii=False)
        with self._lock:
            # What storage does not take for a long time is dropped: memory is bounded.
            self._waiting = self._waiting[-PART_BYTES:] + line + "\n"
        self.flush(is_last=False)

    def flush(self, is_last: bool = True) -> None:
        """Write what is waiting; to S3 only once a minute, unless it is the last call."""
        with self._lock, suppress(OSError):
            if isinstance(self._folder, Path):
                self._append(self._folder / LOG)
            elif self._waiting and (is_last or self._clock() - self._flushed_at >= REMOTE_EVERY_S):
                self._flushed_at = self._clock()
                self._put()

    def _append(self, file: Path) -> None:
        with file.open("a", encoding="utf-8") as stream:
            stream.write(self._waiting)
            self._waiting = ""
            size = stream.tell()
        if size >= PART_BYTES:
            file.replace(file.parent / self._next_part())

    def _put(self) -> None:
        text = self._written + self._waiting
        is_full = len(text) >= PART_BYTES
        write_text(self._folder / (self._next_part() if is_full else LOG), text)
        self._written, self._waiting = "" if is_full else text, ""
        if is_full:
            (self._folder / LOG).unlink(missing_ok=True)

    def _next_part(self) -> str:
        """The name of a new part, for which the oldest makes room."""
        parts = sorted(files_in(self._folder, "log-*.jsonl"))
        for old in parts[: max(0, len(parts) - PARTS + 1)]:
            (self._folder / old).unlink(missing_ok=True)
        last = int(parts[-1].removeprefix("log-").removesuffix(".jsonl")) if parts else 0
        return f"log-{last + 1:04d}.jsonl"


def utc(time_s: float) -> str:
    """Seconds since 1970 as a time of ISO 8601, to the millisecond."""
    return datetime.fromtimestamp(time_s, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
