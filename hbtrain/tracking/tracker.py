"""MLflow, written: one run per training; a resumed training goes on in the same one. `tracked_runs` reads them.

Where MLflow keeps artifacts if a database, and no server, tracks the runs: beside them, in the storage.

In s3:// storage MLflow gets there with boto3, on its own way: it knows the environment, and not the URI's options.
"""

from __future__ import annotations

import logging
import os
import platform
import subprocess
import time
from collections.abc import Callable, Iterable, Mapping
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs

import psutil

from hbtrain.config import Config, to_flat, without_passwords
from hbtrain.errors import HbtrainError
from hbtrain.events import Event
from hbtrain.storage import Place, RemotePath, as_local, is_remote, place
from hbtrain.tracking.outbox import DESCRIPTION, Letter, Outbox

PACKAGES = ("hbtrain", "torch", "ray", "deepspeed", "transformers", "sentence-transformers", "faiss-cpu", "mlflow")
SQLITE = "sqlite:///"
POSTGRES, POSTGRES_DRIVER = "postgresql://", "postgresql+psycopg2://"
PARAMETERS_AT_ONCE = 100
"""MLflow takes no more in one call."""

UNDELIVERED = "mlflow-undelivered.jsonl"
"""File in a run's folder: what MLflow did not take."""

PATIENCE_S = 30.0
"""How long the end of a run waits for a server that is away."""

EXTRAS = {"psycopg2": "postgres", "boto3": "s3"}
"""Modules that a tracking URI may need, and the extras that bring them."""

ENGINE_ATTEMPTS = 5
"""Attempts to reach a database at the start, some 3 seconds; MLflow's own 10 take two minutes."""


class TrackingError(HbtrainError):
    """The tracking server cannot be used."""


def tracking_uri(config: Config) -> str:
    """The URI that `config` means: its own, `$MLFLOW_TRACKING_URI`, or SQLite in the storage folder.

    A relative path of SQLite is made absolute, as runs may be driven from other folders. PostgreSQL gets its driver: by
    itself SQLAlchemy takes psycopg2 in one version and psycopg in the next.

    Raises:
        TrackingError: none is given, and the storage is remote: SQLite needs a disk.
    """
    uri = config.tracking.uri or os.environ.get("MLFLOW_TRACKING_URI")
    if uri is None:
        if is_remote(config.storage):
            raise TrackingError(
                f"storage = {config.storage!r} cannot hold MLflow's SQLite file: set tracking.uri or "
                "$MLFLOW_TRACKING_URI to a server (http://...), to postgresql://..., or to sqlite:///path/on/a/disk.db"
            )
        return f"{SQLITE}{Path(config.storage).expanduser().absolute() / 'mlflow.db'}"
    if uri.startswith(POSTGRES):
        return uri.replace(POSTGRES, POSTGRES_DRIVER, 1)
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
        outbox: Place | None = None,
    ) -> None:
        """Go on with run `run_id`, or begin one: with the whole configuration as its parameters, or those given.

        Args:
            config: the run's.
            run_id: of the run to go on with, or None.
            name: of a new run.
            command: what is shown as the new run's source.
            parameters: of the new run, in place of the configuration.
            outbox: file for what the server does not take; what it holds already is delivered first.

        Raises:
            TrackingError: the server or the database does not answer.
        """
        from mlflow import MlflowClient
        from mlflow.entities import Param

        be_brief()
        lead_to(config.storage)
        self.uri = tracking_uri(config)
        try:
            self._client = MlflowClient(tracking_uri=self.uri)
            if run_id is None:
                experiment = _patiently(self._experiment, config)
                tags = environment_tags() | {
                    "mlflow.runName": config.tracking.run_name or name,
                    "mlflow.source.name": command or f"hbtrain train {config.name}",
                }
                if config.tracking.parent_run_id is not None:
                    tags["mlflow.parentRunId"] = config.tracking.parent_run_id
                if "USER" in os.environ:
                    tags["mlflow.user"] = os.environ["USER"]
                run_id = _patiently(self._client.create_run, experiment, tags=tags).info.run_id
                given = _parameters(config) if parameters is None else parameters
                params = [Param(key, _shown(value)) for key, value in given.items()]
                for start in range(0, len(params), PARAMETERS_AT_ONCE):
                    at_once = params[start : start + PARAMETERS_AT_ONCE]
                    _patiently(self._client.log_batch, run_id, params=at_once)
            else:
                _patiently(self._client.set_terminated, run_id, "RUNNING")
        except failures() as error:
            raise TrackingError(f"tracking.uri = {self.uri} cannot be used: {first_line(error)}") from error
        self.run_id: str = run_id
        self.patience_s = PATIENCE_S
        self._outbox = Outbox(self._send, failures(), _is_refusal, outbox, without_passwords(self.uri))
        if outbox is not None:
            self._outbox.adopt(outbox, without=(run_id, "status"))

    def event(self, event: Event) -> None:
        """Log the figures of training at their step."""
        if event.metrics:
            self.metrics(event.metrics, event.step)

    def metrics(self, metrics: Mapping[str, float], step: int) -> None:
        """Log figures at a step; like all that follows, it is handed over here and delivered by a thread."""
        now_ms = int(time.time() * 1000)
        self._put("figures", [[key, float(value), now_ms, step] for key, value in metrics.items()])

    def scores(self, metrics: Mapping[str, float], step: int) -> None:
        """Log scores of an evaluation under `eval/`. MLflow takes no @ in names: `recall@10` becomes `recall_at_10`."""
        self.metrics({f"eval/{key.replace('@', '_at_')}": value for key, value in metrics.items()}, step)

    def describe(self, markdown: str) -> None:
        """Set the text that stands at the head of the run's page."""
        self._put("tag", [DESCRIPTION, markdown])

    def tags(self, tags: Mapping[str, object]) -> None:
        """Set tags."""
        for key, value in tags.items():
            self._put("tag", [key, str(value)])

    def untag(self, key: str) -> None:
        """Delete a tag, if it is there."""
        self._put("untag", [key])

    def artifact(self, path: Place, folder: str | None = None) -> None:
        """Store a file, or a folder's content, under `folder`; what is in remote storage is fetched to be stored."""
        self._put("artifact", [str(path), folder])

    def adopt(self, outbox: Place) -> None:
        """Deliver what the server did not take from another run that is over."""
        self._outbox.adopt(outbox)

    def keep(self) -> bool:
        """Keep what is not delivered where the run's next process finds it; False if some of it is kept nowhere."""
        return self._outbox.save()

    def finish(self, status: str = "FINISHED") -> str:
        """End the run: FINISHED, FAILED or KILLED. Returns what there is to say of outages, in words; mostly nothing.

        Waits for deliveries as long as the server takes them, and `patience_s` for one that is away.
        """
        self._put("status", [status, int(time.time() * 1000)])
        outbox = self._outbox
        outbox.close(self.patience_s)
        reason = without_passwords(first_line(outbox.error))
        said = []
        if outbox.refused:
            said.append(f"MLflow refused {', '.join(outbox.refused)} of run {self.run_id}: {reason}")
        if outbox.pending:
            kept = f"; kept in {outbox.file}, the same command delivers it" if outbox.save() else ""
            said.append(f"MLflow run {self.run_id} did not get {_summary(outbox.pending)}: {reason}{kept}")
        elif outbox.away_s:
            said.append(f"MLflow was away for {outbox.away_s:.0f} s ({reason}); all has been delivered since")
        return "; ".join(said)

    def _put(self, kind: str, content: list[object]) -> None:
        self._outbox.put([Letter(self.run_id, kind, content)])

    def _send(self, letter: Letter) -> None:
        """Deliver a letter; called on the outbox's thread."""
        from mlflow.entities import Metric

        client, run_id, content = self._client, letter.run_id, letter.content
        if letter.kind == "figures":
            client.log_batch(run_id, [Metric(*figure) for figure in content])
        elif letter.kind == "tag":
            client.set_tag(run_id, *content)
        elif letter.kind == "untag":
            if content[0] in client.get_run(run_id).data.tags:
                client.delete_tag(run_id, content[0])
        elif letter.kind == "status":
            client.set_terminated(run_id, *content)
        else:
            with as_local(place(content[0])) as path:
                store = client.log_artifacts if path.is_dir() else client.log_artifact
                store(run_id, str(path), content[1])

    def _experiment(self, config: Config) -> str:
        """The experiment's id; a new one in a database, without a server, keeps its artifacts in the storage."""
        name = config.tracking.experiment
        found = self._client.get_experiment_by_name(name)
        location = None
        if found is not None:
            location = found.artifact_location
        elif is_database(self.uri):
            location = artifact_location(config.storage)
        if location is not None and (missing := what_is_missing(location)):
            raise TrackingError(f"experiment {name!r}: {missing}")
        if found is not None:
            return str(found.experiment_id)
        # Without its kind, the browser takes an experiment for one of language-model applications.
        tags = {"mlflow.experimentKind": "custom_model_development"}
        return str(self._client.create_experiment(name, artifact_location=location, tags=tags))


def failures() -> tuple[type[Exception], ...]:
    """What MLflow raises when its server, its database or its files cannot be used, or lack their driver here."""
    from mlflow.exceptions import MlflowException
    from sqlalchemy.exc import SQLAlchemyError

    return MlflowException, SQLAlchemyError, OSError, ModuleNotFoundError, *client_failures()


def _patiently(call: Callable[..., Any], *arguments: object, **named: object) -> Any:
    """Call the server; where another run is just writing to the same SQLite database, again after a moment."""
    for wait_s in (0.2, 0.5, 1.0, 2.0):
        try:
            return call(*arguments, **named)
        except failures() as error:
            if "database is locked" not in str(error):
                raise
            time.sleep(wait_s)
    return call(*arguments, **named)


def _is_refusal(error: Exception) -> bool:
    """Whether trying again is no use: the server has refused what it was sent, or the file to send is missing."""
    refusals = {"INVALID_PARAMETER_VALUE", "RESOURCE_DOES_NOT_EXIST", "RESOURCE_ALREADY_EXISTS", "PERMISSION_DENIED"}
    return getattr(error, "error_code", None) in refusals or isinstance(error, FileNotFoundError)


def be_brief() -> None:
    """Have MLflow report a server that is away in seconds, and only through exceptions: retrying is the outbox's."""
    from mlflow.store.db import utils

    os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "1")
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "30")
    os.environ["MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT"] = "true"  # it would print the URI, password and all
    utils.MAX_RETRY_COUNT = ENGINE_ATTEMPTS
    logging.getLogger("mlflow.store.db.utils").setLevel(logging.CRITICAL)
    logging.getLogger("alembic").setLevel(logging.WARNING)
    logging.getLogger("urllib3.connectionpool").setLevel(logging.ERROR)


def _summary(letters: list[Letter]) -> str:
    """What they hold, e.g. `20 figures, artifact model, status FINISHED`."""
    figures = sum(len(letter.content) for letter in letters if letter.kind == "figures")
    others = [str(letter) for letter in letters if letter.kind != "figures"]
    return ", ".join([f"{figures} figures", *others] if figures else others)


def first_line(error: Exception | None) -> str:
    """What an error says, in one line."""
    lines = [line for line in str(error or "").strip().splitlines() if not line.startswith("(raised as a result of")]
    if isinstance(error, ModuleNotFoundError) and error.name in EXTRAS:
        return f"{lines[0]}: pip install 'hbtrain[{EXTRAS[error.name]}]'"
    return lines[0] if lines else "no reason given"


def _parameters(config: Config) -> dict[str, Any]:
    """All keys but the run's name, which MLflow has, and which would be an axis of its own in parallel coordinates."""
    return {key: value for key, value in to_flat(config).items() if key != "tracking.run_name"}


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


DATABASES = ("sqlite", "postgresql", "mysql", "mssql")


def is_database(tracking_uri: str) -> bool:
    """Whether a tracking URI is a database's, such as postgresql+psycopg2://..., and not a server's."""
    return tracking_uri.partition(":")[0].partition("+")[0] in DATABASES


def artifact_location(storage: str) -> str:
    """The URI of the artifacts' folder in a storage."""
    root = place(storage) / "artifacts"
    return root.absolute().as_uri() if isinstance(root, Path) else root.address


def what_is_missing(location: str) -> str:
    """What must be installed before artifacts can be taken to a location, in words; empty if nothing."""
    if location.startswith("s3:") and find_spec("boto3") is None:
        return f"artifacts go to {location}, which needs boto3: pip install 'hbtrain[s3]'"
    return ""


def lead_to(storage: str) -> None:
    """Let MLflow find the endpoint that a storage's URI names, unless the environment names one."""
    at = place(storage)
    if not isinstance(at, RemotePath) or {"MLFLOW_S3_ENDPOINT_URL", "AWS_ENDPOINT_URL"} & os.environ.keys():
        return
    options = {name: values[-1] for name, values in parse_qs(at.options).items()}
    if "endpoint_override" in options:
        os.environ["MLFLOW_S3_ENDPOINT_URL"] = f"{options.get('scheme', 'https')}://{options['endpoint_override']}"


def client_failures() -> tuple[type[Exception], ...]:
    """What boto3 raises when storage does not answer or refuses; nothing where it is not installed."""
    if find_spec("boto3") is None:
        return ()
    from boto3.exceptions import Boto3Error
    from botocore.exceptions import BotoCoreError, ClientError

    return Boto3Error, BotoCoreError, ClientError
