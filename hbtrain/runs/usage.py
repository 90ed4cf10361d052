"""What a run has used, over all its attempts: workers' time, GPU-hours, pairs, tokens.

The totals are saved in the run's folder, so an attempt adds to those before it. Time is the driver's clock times the
number of workers that run at that moment, from their beginning to their end: loading, repeated steps, validation,
evaluations and checkpoints included. Pairs and tokens are those of all steps that workers reported, repeated ones
included. A driver that is killed loses the usage since it last saved the totals: at most `SAVE_EVERY_S`, or since the
last report; in a bucket, where saving them costs two requests, at most `REMOTE_SAVE_EVERY_S`.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from contextlib import suppress
from pathlib import Path

from hbtrain.errors import StorageError
from hbtrain.events import Event
from hbtrain.runs.run_folder import RunFolder, UsageTotals

SAVE_EVERY_S = 10.0
REMOTE_SAVE_EVERY_S = 60.0


class Usage:
    """Counts what a run uses. One thread at a time may use it."""

    def __init__(self, folder: RunFolder, gpus_per_worker: int, clock: Callable[[], float] = time.monotonic) -> None:
        self._totals = folder.state.usage + UsageTotals()
        self._folder = folder
        self._gpus_per_worker = gpus_per_worker
        self._clock = clock
        self._seen_at = self._saved_at = clock()
        self._is_remote = not isinstance(folder.path, Path)
        self._save_every_s = REMOTE_SAVE_EVERY_S if self._is_remote else SAVE_EVERY_S

    def start_clock(self) -> None:
        self._seen_at = self._clock()

    def add_time(self, workers: int) -> None:
        """Count the time since the last call as that of `workers` workers."""
        now = self._clock()
        worker_s = workers * (now - self._seen_at)
        self._seen_at = now
        self._totals += UsageTotals(worker_s=worker_s, gpu_s=worker_s * self._gpus_per_worker)
        self._save_if_due()

    def add_event(self, event: Event) -> None:
        if event.pairs:
            self._totals += UsageTotals(pairs=event.pairs, tokens=event.tokens)
            if self._is_remote:
                self._save_if_due()
            else:
                self.save()

    def _save_if_due(self) -> None:
        if self._clock() - self._saved_at >= self._save_every_s:
            self.save()

    def save(self) -> None:
        """Write the totals into the run's folder."""
        self._saved_at = self._clock()
        # Storage may not answer for a moment; the next call saves the totals.
        with suppress(StorageError):
            self._folder.update(usage=self._totals)

    def metrics(self) -> dict[str, float]:
        """{MLflow metric: total}, with GPU-hours where workers have GPUs."""
        return metrics_of(self._totals, self._gpus_per_worker > 0)


def metrics_of(totals: UsageTotals, has_gpus: bool = False) -> dict[str, float]:
    """{MLflow metric: total} of totals from a run's folder, with GPU-hours where `has_gpus` or some were used."""
    metrics = {
        "usage/worker_hours": totals.worker_s / 3600,
        "usage/pairs": totals.pairs,
        "usage/tokens": totals.tokens,
    }
    if has_gpus or totals.gpu_s:
        metrics["usage/gpu_hours"] = totals.gpu_s / 3600
    return metrics


def total_usage(folders: Iterable[RunFolder]) -> UsageTotals:
    """The totals of several runs together. Raises StorageError: the state of one cannot be read."""
    return sum((folder.state.usage for folder in folders), UsageTotals())
