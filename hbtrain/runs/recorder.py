"""Everything that a run tells, for those who do not watch: its log, its heartbeat, tags in MLflow, Prometheus."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from hbtrain.config import Config, without_passwords
from hbtrain.events import Event, Observer
from hbtrain.runs.gauges import Gauges
from hbtrain.runs.run_folder import RunFolder
from hbtrain.runs.run_log import RunLog, utc
from hbtrain.runs.run_status import STOPPED, StatusWriter
from hbtrain.tracking.tracker import Tracker

COUNTS = {"restart": "restarts", "hang": "hangs"}
"""{kind of a note: the count of the run's status that it adds to}."""
TAGGED = ("restart", "hang", "damage", "skipped", "early stop", "stop")
"""Kinds of notes of which the last one stands in MLflow, as the tag `note.<kind>`."""
WAITING = "waiting "  # how phases begin in which a run waits for room on the cluster


class Recorder:
    """An observer that records what it is told, and then tells another one."""

    def __init__(
        self,
        folder: RunFolder,
        tracker: Tracker,
        observer: Observer,
        config: Config,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._tracker = tracker
        self._observer = observer
        self._clock = clock
        self._log = RunLog(folder.path)
        self._gauges = Gauges(folder.name)
        self._first: tuple[int, float] | None = None  # the first step of this attempt that was told, and when
        self._status = StatusWriter(
            folder.path,
            steps=config.training.steps,
            mlflow_run_id=tracker.run_id,
            tracking_uri=without_passwords(tracker.uri),
        )

    @contextmanager
    def running(self) -> Iterator[None]:
        """While the block runs, the run's heartbeat beats; at its end the log is complete."""
        try:
            with self._status.beating():
                yield
        finally:
            status = self._status.status
            self._log.phase(f"{status.state}: {status.reason}" if status.reason else status.state)
            self._log.flush()

    def stopped(self) -> None:
        """Training stops here as it was told to before, and goes on later (see `hbtrain.runs.segments`)."""
        self._status.set(state=STOPPED)

    def phase(self, text: str) -> None:
        self._log.phase(text)
        self._status.set(doing=text)
        if text.startswith(WAITING):
            self._status.count("waits")
        self._observer.phase(text)

    def event(self, event: Event) -> None:
        self._log.event(event)
        self._status.set(**self._progress(event))
        if event.note:
            self._note(event)
        self._gauges.show(event.metrics, self._status.status, event.time_s)
        self._observer.event(event)

    def _progress(self, event: Event) -> dict[str, object]:
        """The fields of the run's status that an event changes."""
        known = {"train/pairs_per_s": "pairs_per_s", "train/loss": "loss"}
        fields: dict[str, object] = {known[name]: value for name, value in event.metrics.items() if name in known}
        for name, field in (("train/workers", "workers"), ("train/skipped_steps", "skipped_steps")):
            if name in event.metrics:
                fields[field] = int(event.metrics[name])
        if event.kind == "resume" or self._first is None or event.step < self._first[0]:
            self._first = event.step, self._clock()
        step, since_s = self._first
        if event.metrics and event.step > step:
            fields["steps_per_s"] = (event.step - step) / max(self._clock() - since_s, 1e-9)
        return fields | {"step": event.step}

    def _note(self, event: Event) -> None:
        count = COUNTS.get(event.kind)
        if count is not None:
            self._tracker.tags({f"count.{count}": self._status.count(count)})
        if event.kind in TAGGED:
            text = f"{utc(event.time_s)} step {event.step}: {event.note}"
            self._tracker.tags({f"note.{event.kind.replace(' ', '_')}": text})
