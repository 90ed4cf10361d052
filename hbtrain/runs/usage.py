"""What a run has used, over all its attempts: workers' time, GPU-hours, pairs, tokens.

The totals are kept in the run's folder, so an attempt adds to those before it. Time is the driver's clock times the
workers that stand at that moment, from their beginning to their end: loading, repeated steps, validation and
checkpoints included. Pairs and tokens are those of all steps that workers reported, repeated ones included. A driver
that is killed loses what happened since it last kept the totals: `KEEP_EVERY_S`, or the last report.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress

from hbtrain.errors import StorageError
from hbtrain.events import Event
from hbtrain.runs.run_folder import RunFolder

KEEP_EVERY_S = 10.0
TOTALS = ("worker_s", "gpu_s", "pairs", "tokens")


class Usage:
    """The ledger of a run. One thread at a time may use it."""

    def __init__(self, folder: RunFolder, gpus_per_worker: int, clock: Callable[[], float] = time.monotonic) -> None:
        """Go on with the totals in `folder`."""
        kept = folder.recall("usage") or {}
        self._totals = {key: float(kept.get(key, 0.0)) for key in TOTALS}
        self._folder = folder
        self._gpus_per_worker = gpus_per_worker
        self._clock = clock
        self._seen_at = self._kept_at = clock()

    def start(self) -> None:
        """Time counts from now."""
        self._seen_at = self._clock()

    def stand(self, workers: int) -> None:
        """The time since the last call was `workers` workers'."""
        now = self._clock()
        worker_s = workers * (now - self._seen_at)
        self._seen_at = now
        self._totals["worker_s"] += worker_s
        self._totals["gpu_s"] += worker_s * self._gpus_per_worker
        if now - self._kept_at >= KEEP_EVERY_S:
            self.keep()

    def add(self, event: Event) -> None:
        """The work that an event reports."""
        if event.pairs:
            self._totals["pairs"] += event.pairs
            self._totals["tokens"] += event.tokens
            self.keep()

    def keep(self) -> None:
        """Write the totals into the run's folder."""
        self._kept_at = self._clock()
        # Storage may be away for a moment; the next call keeps them.
        with suppress(StorageError):
            self._folder.remember(usage=self._totals)

    def metrics(self) -> dict[str, float]:
        """The totals by the names that tracking uses; GPU-hours where there are GPUs."""
        return metrics_of(self._totals, self._gpus_per_worker > 0)


def metrics_of(totals: Mapping[str, float], has_gpus: bool = False) -> dict[str, float]:
    """Totals as a run's folder keeps them, by the names that tracking uses; GPU-hours where there are any."""
    metrics = {
        "usage/worker_hours": totals["worker_s"] / 3600,
        "usage/pairs": totals["pairs"],
        "usage/tokens": totals["tokens"],
    }
    if has_gpus or totals["gpu_s"]:
        metrics["usage/gpu_hours"] = totals["gpu_s"] / 3600
    return metrics


def total_usage(folders: Iterable[RunFolder]) -> dict[str, float]:
    """The totals of several runs together."""
    kept = [folder.recall("usage") or {} for folder in folders]
    return {key: sum(float(of_run.get(key, 0.0)) for of_run in kept) for key in TOTALS}
