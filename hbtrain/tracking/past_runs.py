"""Reading MLflow runs that have ended, and adding artifacts to them."""

from __future__ import annotations

import math
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlparse

from hbtrain.config import Config, override, without_passwords
from hbtrain.tracking.tracker import failures, first_line, limit_retries
from hbtrain.tracking.uris import TrackingError, sqlite_file, tracking_uri

STOPPED_AT = "stopped_at_step"
"""Tag of a run whose training was stopped at a step to go on later (see `hbtrain.runs.segments`)."""
CONTINUES = "continues_run"  # tag: id of the MLflow run from whose checkpoint this run began
DRIVER_LOST = "driver_lost"  # tag of a run that was marked KILLED by another process, with since when it was silent
RUNS_PER_CALL = 1000


@dataclass(frozen=True)
class TrackedRun:
    """A run as MLflow knows it."""

    run_id: str
    name: str
    status: str
    """MLflow's status; or `stopped at step N`, where training was stopped before its last step to go on later."""
    parent_id: str | None
    source: str  # the command that made the run
    parameters: Mapping[str, str]
    artifact_uri: str

    @property
    def is_finished(self) -> bool:
        return self.status == "FINISHED"


class TrackedRuns:
    """The runs of one tracking server."""

    def __init__(self, uri: str | None = None) -> None:
        """Connect to `uri`, else `$MLFLOW_TRACKING_URI`, else the SQLite file in the folder `runs`.

        Raises:
            TrackingError: there is no such database, or the server does not answer.
        """
        config = Config(name="compare")
        self.uri = tracking_uri(config if uri is None else override(config, {"tracking.uri": uri}))
        self._shown = without_passwords(self.uri)
        # MLflow would create an empty database.
        file = sqlite_file(self.uri)
        if file is not None and not file.is_file():
            raise TrackingError(f"there is no MLflow database {self._shown}; name the right one with --tracking-uri")
        from mlflow import MlflowClient

        limit_retries()
        os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")
        try:
            self._client = MlflowClient(tracking_uri=self.uri)
            self._experiments = [str(found.experiment_id) for found in self._client.search_experiments()]
        except failures() as error:
            raise self._unusable(error) from error

    def find(self, text: str) -> TrackedRun:
        """The run whose id is `text`, or the only one whose id begins with it.

        Raises:
            TrackingError: no run or several, or the server does not answer.
        """
        found = self._search(f"attributes.run_id LIKE '{text}%'") if text.isalnum() else []
        exact = [run for run in found if run.run_id == text]
        if len(exact or found) == 1:
            return (exact or found)[0]
        if found:
            names = ", ".join(f"{run.run_id[: len(text) + 4]}… ({run.name})" for run in found[:3])
            raise TrackingError(f"run {text!r}: {len(found)} runs begin so, such as {names}; write more of the id")
        raise TrackingError(f"run {text!r} is neither a folder nor the id of an MLflow run in {self._shown}")

    def children(self, run: TrackedRun) -> list[TrackedRun]:
        """The runs nested under `run`, oldest first."""
        return self._search(f"tags.`mlflow.parentRunId` = '{run.run_id}'")[::-1]

    def fetch(self, run: TrackedRun, name: str, into: Path) -> Path | None:
        """Path of an artifact (a file or a folder): its own on this machine, or of a copy in `into`; None if missing.

        Raises:
            TrackingError: the store of artifacts does not answer.
        """
        local = _local_path(run.artifact_uri)
        if local is not None:
            return local / name if (local / name).exists() else None
        try:
            if name not in {artifact.path for artifact in self._client.list_artifacts(run.run_id)}:
                return None
            into.mkdir(parents=True, exist_ok=True)
            return Path(self._client.download_artifacts(run.run_id, name, str(into)))
        except failures() as error:
            raise self._unusable(error) from error

    def history(self, run_id: str, metric: str) -> dict[int, float]:
        """{step: value} of a metric of a run, in the order of steps; empty if there is no such run or metric.

        Of several values at a step it is the one that was told first: what comes later at the last step may be of an
        earlier one, the best, which is evaluated after training. Where a run began with the checkpoint of another, the
        steps before are that one's.

        Raises:
            TrackingError: the server does not answer.
        """
        from hbtrain.tracking.mlflow_names import allowed_name

        try:
            told = self._client.get_metric_history(run_id, allowed_name(metric))
            origin = self._client.get_run(run_id).data.tags.get(CONTINUES) if told else None
        except failures() as error:
            if getattr(error, "error_code", None) == "RESOURCE_DOES_NOT_EXIST":
                return {}
            raise self._unusable(error) from error
        values: dict[int, float] = {}
        for one in sorted(told, key=lambda one: (one.step, one.timestamp)):
            if math.isfinite(one.value):
                values.setdefault(one.step, one.value)
        if origin is None or not values:
            return values
        before = {step: value for step, value in self.history(origin, metric).items() if step < min(values)}
        return before | values

    def add_artifacts(self, run: TrackedRun, folder: Path, name: str) -> None:
        """Store a folder's content with a run, as artifacts under `name`.

        Raises:
            TrackingError: the server or the store does not take it.
        """
        try:
            self._client.log_artifacts(run.run_id, str(folder), name)
        except failures() as error:
            raise TrackingError(f"run {run.run_id} did not take {name}: {first_line(error)}") from error

    def end_lost(self, run_id: str, why: str) -> bool:
        """Mark a run KILLED whose driver is dead, with `why` as its tag `driver_lost`; False if it does not count as
        running.

        Raises:
            TrackingError: there is no such run, or the server does not answer.
        """
        try:
            if self._client.get_run(run_id).info.status != "RUNNING":
                return False
            self._client.set_tag(run_id, DRIVER_LOST, why)
            self._client.set_terminated(run_id, "KILLED")
        except failures() as error:
            raise self._unusable(error) from error
        return True

    def _search(self, condition: str) -> list[TrackedRun]:
        """The runs that meet a condition of MLflow's filter language, newest first."""
        found: list[TrackedRun] = []
        token = None
        try:
            while True:
                page = self._client.search_runs(
                    self._experiments, filter_string=condition, max_results=RUNS_PER_CALL, page_token=token
                )
                found += [_tracked(run) for run in page]
                token = page.token
                if not token:
                    return found
        except failures() as error:
            raise self._unusable(error) from error

    def _unusable(self, error: Exception) -> TrackingError:
        return TrackingError(f"tracking.uri = {self._shown} cannot be used: {first_line(error)}")


def _tracked(run: Any) -> TrackedRun:
    tags = run.data.tags
    stopped_at = tags.get(STOPPED_AT) if run.info.status == "FINISHED" else None
    return TrackedRun(
        run_id=run.info.run_id,
        name=run.info.run_name or run.info.run_id,
        status=run.info.status if stopped_at is None else f"stopped at step {stopped_at}",
        parent_id=tags.get("mlflow.parentRunId"),
        source=tags.get("mlflow.source.name", ""),
        parameters=dict(run.data.params),
        artifact_uri=run.info.artifact_uri,
    )


def _local_path(uri: str) -> Path | None:
    parts = urlparse(uri)
    if parts.scheme == "file":
        return Path(unquote(parts.path))
    return Path(uri) if not parts.scheme else None
