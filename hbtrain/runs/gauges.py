"""Metrics of a run for Prometheus, through Ray: each node's agent of a cluster offers them as `ray_<name>`.

`cluster/grafana/hbtrain.json` is a dashboard that shows them.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ray.util.metrics import Gauge

    from hbtrain.runs.run_status import RunStatus

GAUGES = {
    "hbtrain_step": "steps done",
    "hbtrain_steps": "steps of the whole run",
    "hbtrain_heartbeat_seconds": "when the driver was last at work, in seconds since 1970",
    "hbtrain_restarts": "restarts of all workers after a death, over all attempts",
    "hbtrain_hangs": "ranks that kept the others waiting, over all attempts",
    "hbtrain_skipped_steps": "steps skipped as gradients were not finite",
    "hbtrain_waits": "waits for room on the cluster, over all attempts",
    "hbtrain_loss": "mean loss since the last report",
    "hbtrain_validation_loss": "loss on the validation source",
    "hbtrain_pairs_per_second": "pairs trained on per second",
    "hbtrain_tokens_per_second": "tokens trained on per second, without padding",
    "hbtrain_gradient_norm": "norm of the gradient of the last step",
    "hbtrain_learning_rate": "learning rate of the last step",
    "hbtrain_workers": "workers that train",
    "hbtrain_memory_peak_gib": "largest peak of main memory of a worker",
    "hbtrain_gpu_memory_peak_gib": "largest peak of GPU memory of a worker",
}
"""{name of a gauge: what it shows}; each has the label `run`, the name of the run's folder."""

OF_METRIC = {
    "train/loss": "hbtrain_loss",
    "validation/loss": "hbtrain_validation_loss",
    "train/pairs_per_s": "hbtrain_pairs_per_second",
    "train/tokens_per_s": "hbtrain_tokens_per_second",
    "train/gradient_norm": "hbtrain_gradient_norm",
    "train/learning_rate": "hbtrain_learning_rate",
    "train/workers": "hbtrain_workers",
    "system/memory_peak_gib": "hbtrain_memory_peak_gib",
    "system/gpu_memory_peak_gib": "hbtrain_gpu_memory_peak_gib",
}
"""{MLflow metric: the gauge that shows it as well}."""


class Gauges:
    """The gauges of one run, in its driver."""

    def __init__(self, run: str) -> None:
        self._labels = {"run": run}
        self._gauges: dict[str, Gauge] = {}

    def show(self, metrics: Mapping[str, float], status: RunStatus, now_s: float) -> None:
        """Set the gauges by an event's metrics and the run's status; nothing where this process has no Ray."""
        import ray

        if not ray.is_initialized():
            return
        values = {OF_METRIC[name]: value for name, value in metrics.items() if name in OF_METRIC}
        values |= {
            "hbtrain_step": status.step,
            "hbtrain_steps": status.steps,
            "hbtrain_heartbeat_seconds": now_s,
            "hbtrain_restarts": status.restarts,
            "hbtrain_hangs": status.hangs,
            "hbtrain_skipped_steps": status.skipped_steps,
            "hbtrain_waits": status.waits,
        }
        for name, value in values.items():
            self._gauge(name).set(float(value), self._labels)

    def _gauge(self, name: str) -> Gauge:
        from ray.util.metrics import Gauge

        if name not in self._gauges:
            self._gauges[name] = Gauge(name, GAUGES[name], ("run",))
        return self._gauges[name]
