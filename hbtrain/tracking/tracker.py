"""Writing to MLflow: one MLflow run per training, which a resumed training continues (`past_runs` reads them).

If a database, and no server, tracks the runs, their artifacts are stored in hbtrain's own storage. MLflow writes to s3://
storage with boto3, which reads the environment and not the options of the storage's URI.
"""

from __future__ import annotations

import logging
import os
import shlex
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from importlib.util import find_spec
from typing import Any

from hbtrain.config import Config, to_flat, without_passwords
from hbtrain.config.batching import KINDS
from hbtrain.errors import LeaseLostError, StorageError
from hbtrain.events import Event
from hbtrain.storage import Place, RemoteError
from hbtrain.tracking.changes import deliver
from hbtrain.tracking.data_inputs import DIGEST_LENGTH, DataInput
from hbtrain.tracking.outbox import Outbox
from hbtrain.tracking.run_tags import environment_tags, source_tags
from hbtrain.tracking.spool import DESCRIPTION, Message
from hbtrain.tracking.uris import (
    TrackingError,
    artifact_location,
    is_database,
    missing_dependency,
    set_s3_endpoint,
    tracking_uri,
)

PARAMETERS_PER_CALL = 100  # the most parameters that MLflow takes in one call

UNDELIVERED = "mlflow-undelivered.jsonl"  # file in a run's folder: messages that MLflow has not received yet

PATIENCE_S = 30.0  # seconds that the end of a run waits for a server that does not answer

EXTRAS = {"psycopg2": "postgres", "boto3": "s3"}
"""{module that a tracking URI may need: extra of hbtrain that installs it}."""

ENGINE_ATTEMPTS = 5
"""Attempts to reach a database at the start: some 3 seconds. MLflow's default of 10 takes two minutes."""


class Tracker:
    """Writes to one MLflow run.

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
            run_id: id of the run to go on with, or None.
            name: name of a new run.
            command: the command line, shown as the source of a new run; by default one that trains it.
            parameters: parameters of a new run, in place of the configuration.
            outbox: file for messages that are not delivered; those it holds already are delivered first.

        Raises:
            TrackingError: the server or the database does not answer.
        """
        from mlflow import MlflowClient

        limit_retries()
        set_s3_endpoint(config.storage)
        self.uri = tracking_uri(config)
        try:
            self._client = MlflowClient(tracking_uri=self.uri)
            if run_id is None:
                run_id = self._begin(config, name, command or f"hbtrain train {config.name}", parameters)
            else:
                self._continue(run_id)
        except failures() as error:
            raise TrackingError(f"tracking.uri = {self.uri} cannot be used: {first_line(error)}") from error
        self.run_id: str = run_id
        self.patience_s = PATIENCE_S
        self._outbox = Outbox(
            lambda message: deliver(self._client, message), failures(), _is_refusal, outbox, without_passwords(self.uri)
        )
        if outbox is not None:
            self._outbox.adopt(outbox, without=(run_id, "status"))

    def _begin(self, config: Config, name: str, command: str, parameters: Mapping[str, object] | None) -> str:
        """Begin a run; returns its id."""
        from mlflow.entities import Param

        from hbtrain.tracking import mlflow_names as names

        experiment = _retry_while_locked(self._experiment, config)
        tags = environment_tags() | source_tags(command)
        tags["mlflow.runName"] = names.allowed_text(config.tracking.run_name or name, names.RUN_NAME_LENGTH)
        if config.tracking.parent_run_id is not None:
            tags["mlflow.parentRunId"] = config.tracking.parent_run_id
        run_id: str = _retry_while_locked(
            self._client.create_run, experiment, tags=names.allowed_tags(tags)
        ).info.run_id
        given = _parameters(config) if parameters is None else parameters
        params = [Param(*names.allowed_parameter(key, _shown(value))) for key, value in given.items()]
        for start in range(0, len(params), PARAMETERS_PER_CALL):
            batch = params[start : start + PARAMETERS_PER_CALL]
            _retry_while_locked(self._client.log_batch, run_id, params=batch)
        return run_id

    def _continue(self, run_id: str) -> None:
        """Set a run's status to running. Raises TrackingError if it was deleted, or is not there."""
        anew = (
            "to go on as a new MLflow run delete mlflow_run_id from run.json in its folder, or begin another run by a "
            "new name"
        )
        try:
            found = _retry_while_locked(self._client.get_run, run_id)
        except failures() as error:
            if getattr(error, "error_code", None) != "RESOURCE_DOES_NOT_EXIST":
                raise
            raise TrackingError(
                f"MLflow run {run_id}, which this training goes on with, is not in {self.uri}: set tracking.uri to "
                f"where it is; {anew}"
            ) from error
        if found.info.lifecycle_stage == "deleted":
            raise TrackingError(
                f"MLflow run {run_id}, which this training goes on with, was deleted: restore it "
                f"({self._command('runs restore --run-id')} {run_id}); {anew}"
            )
        _retry_while_locked(self._client.set_terminated, run_id, "RUNNING")

    def _command(self, arguments: str) -> str:
        """A command of MLflow's, for a shell."""
        return f"MLFLOW_TRACKING_URI={shlex.quote(self.uri)} mlflow {arguments}"

    def event(self, event: Event) -> None:
        if event.metrics:
            self.metrics(event.metrics, event.step)

    def metrics(self, metrics: Mapping[str, float], step: int) -> list[list[Any]]:
        """Log metrics at a step, which are returned in the form of messages.

        This and the methods below only hand a message to the outbox, which delivers it.
        """
        from hbtrain.tracking.mlflow_names import allowed_name

        now_ms = int(time.time() * 1000)
        figures = [[allowed_name(key), float(value), now_ms, step] for key, value in metrics.items()]
        self._put("figures", list(figures))
        return figures

    def scores(self, metrics: Mapping[str, float], step: int) -> list[list[Any]]:
        """Log scores of an evaluation under `eval/`."""
        return self.metrics({f"eval/{key}": value for key, value in metrics.items()}, step)

    def inputs(self, inputs: Sequence[DataInput]) -> None:
        """Log the data that the run reads."""
        if inputs:
            self._put("inputs", [one.to_json() for one in inputs])

    def tables(self, artifacts: Sequence[str]) -> None:
        """Have MLflow show artifacts of the run, which are stored already, as tables that can be compared."""
        if artifacts:
            self._put("tables", list(artifacts))

    def model(self, path: Place, step: int, figures: Sequence[list[Any]] = (), run_id: str | None = None) -> None:
        """Store the folder of the encoder of a step as the logged model of a run, by default this one, with its scores.

        A figure is one that `scores` returned, followed by the name and the digest of the benchmark's `DataInput`.
        """
        scores = [[*first, name, digest[:DIGEST_LENGTH]] for *first, name, digest in figures]
        self._outbox.put([Message(run_id or self.run_id, "model", [str(path), step, scores])])

    def register(self, name: str, run_id: str | None = None) -> None:
        """Make the logged model of a run, by default this one, a version of the registered model `name`."""
        self._put("register", [name, run_id or self.run_id])

    def describe(self, markdown: str) -> None:
        """Set the text that stands at the head of the run's page."""
        self.tags({DESCRIPTION: markdown})

    def tags(self, tags: Mapping[str, object]) -> None:
        from hbtrain.tracking.mlflow_names import allowed_tags

        for key, value in allowed_tags(tags).items():
            self._put("tag", [key, value])

    def untag(self, key: str) -> None:
        """Delete a tag, if the run has it."""
        self._put("untag", [key])

    def artifact(self, path: Place, folder: str | None = None) -> None:
        """Store a file, or a folder's content, under `folder`; what is in remote storage is fetched to be stored."""
        self._put("artifact", [str(path), folder])

    def adopt(self, outbox: Place) -> None:
        """Deliver the messages that another run, which has ended, left in its file."""
        self._outbox.adopt(outbox)

    def save_undelivered(self) -> bool:
        """Whether all messages are delivered, or saved where the run's next process finds them (`Outbox.settle`)."""
        return self._outbox.settle()

    @contextmanager
    def ending(self, tell: Callable[[str], object]) -> Iterator[None]:
        """End the run with the block: FINISHED, KILLED by Ctrl-C, or FAILED; `tell` is given what `finish` returns.

        A block that loses its lease leaves the run as it is: another process goes on with it.

        Raises:
            StorageError: in place of the RemoteError of a storage that does not answer.
        """
        status: str | None = "FAILED"
        try:
            yield
            status = "FINISHED"
        except KeyboardInterrupt:
            status = "KILLED"
            raise
        except LeaseLostError:
            status = None
            raise
        except RemoteError as error:
            raise StorageError(f"{error.filename}: {error.strerror}; the same command goes on") from error
        finally:
            if status is not None and (notes := self.finish(status)):
                tell(notes)

    def finish(self, status: str = "FINISHED") -> str:
        """End the run as FINISHED, FAILED or KILLED; returns a sentence about outages and refusals, mostly empty.

        Waits until all is delivered, but only `patience_s` seconds for a server that does not answer. Raises what has
        stopped the deliveries unexpectedly; what was not delivered is saved then.
        """
        self._put("status", [status, int(time.time() * 1000)])
        outbox = self._outbox
        outbox.close(self.patience_s)
        reason = without_passwords(first_line(outbox.error))
        notes = []
        if outbox.refused:
            notes.append(f"MLflow refused {', '.join(outbox.refused)} of run {self.run_id}: {reason}")
        if outbox.is_pending:
            kept = f"; kept in {outbox.file}, the same command delivers it" if outbox.save() else ""
            notes.append(f"MLflow run {self.run_id} did not get {_summary(outbox.pending())}: {reason}{kept}")
        elif outbox.away_s:
            notes.append(f"MLflow was away for {outbox.away_s:.0f} s ({reason}); all has been delivered since")
        return "; ".join(notes)

    def _put(self, kind: str, content: list[object]) -> None:
        self._outbox.put([Message(self.run_id, kind, content)])

    def _experiment(self, config: Config) -> str:
        """Id of the experiment, made if need be; in a database without a server, its artifacts go to the storage."""
        from hbtrain.tracking.mlflow_names import EXPERIMENT_NAME_LENGTH, allowed_text

        name = allowed_text(config.tracking.experiment, EXPERIMENT_NAME_LENGTH)
        found = self._client.get_experiment_by_name(name)
        location = None
        if found is not None:
            location = found.artifact_location
        elif is_database(self.uri):
            location = artifact_location(config.storage)
        if found is not None and found.lifecycle_stage == "deleted":
            raise TrackingError(
                f"tracking.experiment = {name!r} was deleted in MLflow: give another name, or restore it "
                f"({self._command('experiments restore --experiment-id')} {found.experiment_id})"
            )
        if location is not None and (missing := missing_dependency(location)):
            raise TrackingError(f"experiment {name!r}: {missing}")
        if found is not None:
            return str(found.experiment_id)
        # Without its kind, the browser takes an experiment for one of language-model applications.
        tags = {"mlflow.experimentKind": "custom_model_development"}
        return str(self._client.create_experiment(name, artifact_location=location, tags=tags))


def check_registration(config: Config) -> None:
    """Raise TrackingError if `tracking.register` names a model, and MLflow gets none, or has no registry for it."""
    name, uri = config.tracking.register, tracking_uri(config)
    if name is None:
        return
    if not config.tracking.log_model:
        raise TrackingError(
            f"tracking.register = {name!r} needs the model in MLflow, but tracking.log_model is false; change either"
        )
    from mlflow import MlflowClient

    limit_retries()
    try:
        MlflowClient(tracking_uri=uri).search_registered_models(max_results=1)
    except failures() as error:
        raise TrackingError(
            f"tracking.register = {name!r}: {uri} has no registry of models that can be used ({first_line(error)}); "
            "leave the key out, or track runs in a database or by a server"
        ) from error


def failures() -> tuple[type[Exception], ...]:
    """Exceptions of MLflow where its server, database or files cannot be used, or the driver for them is missing."""
    from mlflow.exceptions import MlflowException
    from sqlalchemy.exc import SQLAlchemyError

    return MlflowException, SQLAlchemyError, OSError, ModuleNotFoundError, *boto3_failures()


def _retry_while_locked(call: Callable[..., Any], *arguments: object, **named: object) -> Any:
    """Call the server; while another run is writing to the same SQLite database, try again after a moment."""
    for wait_s in (0.2, 0.5, 1.0, 2.0):
        try:
            return call(*arguments, **named)
        except failures() as error:
            if "database is locked" not in str(error):
                raise
            time.sleep(wait_s)
    return call(*arguments, **named)


def _is_refusal(error: Exception) -> bool:
    """Whether trying again would fail as well: the server refused the message, or the file to send is missing."""
    refusals = {
        "INVALID_PARAMETER_VALUE", "RESOURCE_DOES_NOT_EXIST", "RESOURCE_ALREADY_EXISTS", "PERMISSION_DENIED",
        "ENDPOINT_NOT_FOUND", "FEATURE_DISABLED",
    }  # fmt: skip
    return getattr(error, "error_code", None) in refusals or isinstance(error, FileNotFoundError)


def limit_retries() -> None:
    """Have MLflow fail within seconds, by exceptions only, where a server does not answer: the outbox retries."""
    from mlflow.store.db import utils

    os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "1")
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "30")
    os.environ["MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT"] = "true"  # it would print the URI, password and all
    utils.MAX_RETRY_COUNT = ENGINE_ATTEMPTS
    logging.getLogger("mlflow.store.db.utils").setLevel(logging.CRITICAL)
    for chatty in ("alembic", "mlflow.pyfunc"):
        logging.getLogger(chatty).setLevel(logging.WARNING)
    logging.getLogger("urllib3.connectionpool").setLevel(logging.ERROR)


def _summary(messages: Iterable[Message]) -> str:
    """What the messages hold, e.g. `20 figures, artifact model, status FINISHED`."""
    figures, others = 0, []
    for message in messages:
        if message.kind == "figures":
            figures += len(message.content)
        else:
            others.append(str(message))
    return ", ".join([f"{figures} figures", *others] if figures else others)


def first_line(error: Exception | None) -> str:
    """An error's message in one line, with the extra to install where a module is missing."""
    lines = [line for line in str(error or "").strip().splitlines() if not line.startswith("(raised as a result of")]
    if isinstance(error, ModuleNotFoundError) and error.name in EXTRAS:
        return f"{lines[0]}: pip install 'hbtrain[{EXTRAS[error.name]}]'"
    return lines[0] if lines else "no reason given"


def _parameters(config: Config) -> dict[str, Any]:
    """{dotted key: value} but for the run's name: MLflow has it, and would plot it as an axis of its own.

    A constant mixture is told as the share of each kind, 0 too: MLflow's plots need every axis of every run.
    """
    parameters = {key: value for key, value in to_flat(config).items() if key != "tracking.run_name"}
    shares = config.batching.kind_points.get(0, {})
    if any(f"batching.mixture.{kind}" in parameters for kind in KINDS):
        parameters |= {f"batching.mixture.{kind}": shares.get(kind, 0.0) for kind in KINDS}
    return parameters


def _shown(value: object) -> str:
    """A parameter's value as flags take it: a list's items separated by spaces; without passwords."""
    text = " ".join(map(str, value)) if isinstance(value, list | tuple) else str(value)
    return without_passwords(text)


def boto3_failures() -> tuple[type[Exception], ...]:
    """Exceptions of boto3 where storage does not answer or refuses; empty where boto3 is not installed."""
    if find_spec("boto3") is None:
        return ()
    from boto3.exceptions import Boto3Error
    from botocore.exceptions import BotoCoreError, ClientError

    return Boto3Error, BotoCoreError, ClientError
