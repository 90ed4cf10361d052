"""MLflow: the only file that imports it. One run per training; a resumed training goes on in the same one."""

from __future__ import annotations

import logging
import os
import platform
import subprocess
import time
from collections.abc import Callable, Iterable, Mapping
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import psutil

from hbtrain.config import Config, to_flat, without_passwords
from hbtrain.errors import HbtrainError
from hbtrain.training.worker import Event

PACKAGES = ("hbtrain", "torch", "ray", "deepspeed", "transformers", "sentence-transformers", "faiss-cpu", "mlflow")
SQLITE = "sqlite:///"
PARAMETERS_AT_ONCE = 100
METRICS_AT_ONCE = 1000
"""MLflow takes no more in one call."""


class TrackingError(HbtrainError):
    """The tracking server cannot be used."""


def tracking_uri(config: Config) -> str:
    """The URI that `config` means: its own, `$MLFLOW_TRACKING_URI`, or SQLite in the storage folder.

    A relative path of SQLite is made absolute, as runs may be driven from other folders.
    """
    uri = config.tracking.uri or os.environ.get("MLFLOW_TRACKING_URI")
    if uri is None:
        return f"{SQLITE}{Path(config.storage).expanduser().absolute() / 'mlflow.db'}"
    path = uri.removeprefix(SQLITE)
    return f"{SQLITE}{Path(path).absolute()}" if path != uri and path else uri


class Tracker:
    """One MLflow run.

    Attributes:
        run_id: its id.
    """

    def __init__(
        self,
        config: Config,
        run_id: str | None,
        name: str,
        command: str | None = None,
        parameters: Mapping[str, object] | None = None,
    ) -> None:
        """Go on with run `run_id`, or begin one: with the whole configuration as its parameters, or those given.

        Raises:
            TrackingError: the server or the database does not answer.
        """
        from mlflow import MlflowClient
        from mlflow.entities import Param

        # A server that is down is to be reported in seconds, and the making of a new database not at all.
        os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "3")
        logging.getLogger("mlflow.store.db.utils").setLevel(logging.WARNING)
        logging.getLogger("alembic").setLevel(logging.WARNING)
        self.uri = tracking_uri(config)
        try:
            self._client = MlflowClient(tracking_uri=self.uri)
            if run_id is None:
                experiment = self._experiment(config)
                tags = environment_tags() | {
                    "mlflow.runName": config.tracking.run_name or name,
                    "mlflow.source.name": command or f"hbtrain train {config.name}",
                }
                if config.tracking.parent_run_id is not None:
                    tags["mlflow.parentRunId"] = config.tracking.parent_run_id
                if "USER" in os.environ:
                    tags["mlflow.user"] = os.environ["USER"]
                run_id = self._client.create_run(experiment, tags=tags).info.run_id
                given = to_flat(config) if parameters is None else parameters
                params = [Param(key, _shown(value)) for key, value in given.items()]
                for start in range(0, len(params), PARAMETERS_AT_ONCE):
                    self._client.log_batch(run_id, params=params[start : start + PARAMETERS_AT_ONCE])
            else:
                self._client.set_terminated(run_id, "RUNNING")
        except _failures() as error:
            reason = str(error).splitlines()[0]
            raise TrackingError(without_passwords(f"tracking.uri = {self.uri} cannot be used: {reason}")) from error
        self.run_id: str = run_id
        self._pending: list[Any] = []
        self._missed: list[str] = []
        self._error: Exception | None = None

    def event(self, event: Event) -> None:
        """Log the figures of training at their step."""
        if event.metrics:
            self.metrics(event.metrics, event.step)

    def metrics(self, metrics: Mapping[str, float], step: int) -> None:
        """Log figures at a step. What the server does not take now is kept, and sent with the next figures."""
        from mlflow.entities import Metric

        now_ms = int(time.time() * 1000)
        self._pending += [Metric(key, float(value), now_ms, step) for key, value in metrics.items()]
        self._deliver()

    def scores(self, metrics: Mapping[str, float], step: int) -> None:
        """Log scores of an evaluation under `eval/`. MLflow takes no @ in names: `recall@10` becomes `recall_at_10`."""
        self.metrics({f"eval/{key.replace('@', '_at_')}": value for key, value in metrics.items()}, step)

    def describe(self, markdown: str) -> None:
        """Set the text that stands at the head of the run's page."""
        self._attempt("description", self._client.set_tag, self.run_id, "mlflow.note.content", markdown)

    def tags(self, tags: Mapping[str, object]) -> None:
        """Set tags."""
        for key, value in tags.items():
            self._attempt(f"tag {key}", self._client.set_tag, self.run_id, key, str(value))

    def artifact(self, path: Path, folder: str | None = None) -> None:
        """Store a file, or a folder's content, under `folder`."""
        store = self._client.log_artifacts if path.is_dir() else self._client.log_artifact
        self._attempt(f"artifact {folder or path.name}", store, self.run_id, str(path), folder)

    def finish(self, status: str = "FINISHED") -> str:
        """End the run: FINISHED, FAILED or KILLED. Returns what could not be delivered, in words; empty if all was."""
        self._deliver()
        self._attempt(f"status {status}", self._client.set_terminated, self.run_id, status)
        missed = [*self._missed, f"{len(self._pending)} figures"] if self._pending else self._missed
        if not missed:
            return ""
        reason = str(self._error).splitlines()[0]
        return without_passwords(f"MLflow run {self.run_id} did not get {', '.join(missed)}: {reason}")

    def _attempt(self, what: str, call: Callable[..., object], *arguments: object) -> None:
        """Call the server; what it does not take is remembered, for an outage of it must not end a training."""
        try:
            call(*arguments)
        except _failures() as error:
            self._missed.append(what)
            self._error = error

    def _deliver(self) -> None:
        """Send the figures that are pending, as far as the server takes them."""
        try:
            while self._pending:
                self._client.log_batch(self.run_id, self._pending[:METRICS_AT_ONCE])
                del self._pending[:METRICS_AT_ONCE]
        except _failures() as error:
            self._error = error

    def _experiment(self, config: Config) -> str:
        """The experiment's id; a new one under SQLite keeps its artifacts in the storage folder."""
        name = config.tracking.experiment
        found = self._client.get_experiment_by_name(name)
        if found is not None:
            return str(found.experiment_id)
        location = None
        if self.uri.startswith("sqlite:"):
            location = (Path(config.storage).expanduser().absolute() / "artifacts").as_uri()
        # Without its kind, the browser takes an experiment for one of language-model applications.
        tags = {"mlflow.experimentKind": "custom_model_development"}
        return str(self._client.create_experiment(name, artifact_location=location, tags=tags))


def _failures() -> tuple[type[Exception], ...]:
    """What MLflow raises when its server, its database or its files cannot be used."""
    from mlflow.exceptions import MlflowException
    from sqlalchemy.exc import SQLAlchemyError

    return MlflowException, SQLAlchemyError, OSError


def _shown(value: object) -> str:
    """A parameter as the command line takes it: a list's items side by side; without passwords."""
    text = " ".join(map(str, value)) if isinstance(value, list | tuple) else str(value)
    return without_passwords(text)


def environment_tags() -> dict[str, str]:
    """What a run was made with: versions, git commit, hardware."""
    tags = {f"version.{name}": found for name, found in _versions(PACKAGES)}
    tags["version.python"] = platform.python_version()
    tags["hardware.host"] = platform.node()
    tags["hardware.cpus"] = str(os.cpu_count())
    tags["hardware.memory_gib"] = f"{psutil.virtual_memory().total / 2**30:.1f}"
    commit = _git("rev-parse", "HEAD")
    if commit:
        tags["git.commit"] = commit
        tags["git.dirty"] = str(bool(_git("status", "--porcelain"))).lower()
    return tags


def _versions(names: Iterable[str]) -> Iterable[tuple[str, str]]:
    for name in names:
        try:
            yield name, version(name)
        except PackageNotFoundError:
            continue


def _git(*arguments: str) -> str:
    """What git says of the folder hbtrain is run from; empty outside a repository."""
    try:
        done = subprocess.run(["git", *arguments], capture_output=True, text=True, timeout=10, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout.strip() if done.returncode == 0 else ""
