"""URIs of MLflow's tracking server or database, and of the folder of artifacts in a storage."""

from __future__ import annotations

import os
from importlib.util import find_spec
from pathlib import Path
from urllib.parse import parse_qs

from hbtrain.config import Config
from hbtrain.errors import HbtrainError
from hbtrain.storage import RemotePath, expand_home, is_remote, place

SQLITE = "sqlite:///"
POSTGRES, POSTGRES_DRIVER = "postgresql://", "postgresql+psycopg2://"
DATABASES = ("sqlite", "postgresql", "mysql", "mssql")


class TrackingError(HbtrainError):
    """The tracking server cannot be used."""


def tracking_uri(config: Config) -> str:
    """The URI that `config` means: its own, `$MLFLOW_TRACKING_URI`, or SQLite in the storage folder.

    A relative path of SQLite is made absolute, as runs may be driven from other folders. PostgreSQL gets its driver: by
    itself SQLAlchemy takes psycopg2 in one version and psycopg in the next.

    Raises:
        TrackingError: none is given, and the storage is remote, where SQLite cannot write, or has a name that leads to
            another file as a part of a URI.
    """
    uri = config.tracking.uri or os.environ.get("MLFLOW_TRACKING_URI")
    if uri is None:
        if is_remote(config.storage):
            raise TrackingError(
                f"storage = {config.storage!r} cannot hold MLflow's SQLite file: set tracking.uri or "
                "$MLFLOW_TRACKING_URI to a server (http://...), to postgresql://..., or to sqlite:///path/on/a/disk.db"
            )
        return _sqlite_in(config.storage)
    if uri.startswith(POSTGRES):
        return uri.replace(POSTGRES, POSTGRES_DRIVER, 1)
    path = uri.removeprefix(SQLITE)
    return f"{SQLITE}{Path(path).absolute()}" if path != uri and path else uri


def sqlite_file(uri: str) -> Path | None:
    """The file of an SQLite URI, as SQLAlchemy reads it; None of other URIs, and of a database in memory."""
    from sqlalchemy.engine import make_url

    database = make_url(uri).database if uri.startswith(SQLITE) else None
    return Path(database) if database else None


def _sqlite_in(storage: str) -> str:
    """The URI of MLflow's SQLite file in a storage folder.

    MLflow makes the folder that the URI names to the letter, and SQLAlchemy opens the file that it names after decoding
    `%20` and cutting at `?`. So there is no way to write a folder's name in which these two differ.
    """
    file = expand_home(storage).absolute() / "mlflow.db"
    uri = f"{SQLITE}{file}"
    if sqlite_file(uri) != file:
        raise TrackingError(
            f"storage = {storage!r} cannot hold MLflow's SQLite file: ? and % followed by two digits have a meaning of "
            "their own in its URI; name the folder without them, or set tracking.uri"
        )
    return uri


def is_database(tracking_uri: str) -> bool:
    """Whether a tracking URI is a database's, such as postgresql+psycopg2://..., and not a server's."""
    return tracking_uri.partition(":")[0].partition("+")[0] in DATABASES


def artifact_location(storage: str) -> str:
    """URI of the folder of artifacts in a storage. Raises TrackingError where MLflow would read another one from it."""
    root = place(storage) / "artifacts"
    if isinstance(root, Path):
        return root.absolute().as_uri()
    if "#" in root.address:
        raise TrackingError(f"storage = {storage!r}: MLflow cuts URIs at #; name the folder without it")
    return root.address


def missing_dependency(location: str) -> str:
    """A sentence naming what must be installed to write artifacts to `location`; empty if nothing."""
    if location.startswith("s3:") and find_spec("boto3") is None:
        return f"artifacts go to {location}, which needs boto3: pip install 'hbtrain[s3]'"
    return ""


def set_s3_endpoint(storage: str) -> None:
    """Pass the S3 endpoint in a storage's URI on to MLflow, unless the environment names one."""
    root = place(storage)
    if not isinstance(root, RemotePath) or {"MLFLOW_S3_ENDPOINT_URL", "AWS_ENDPOINT_URL"} & os.environ.keys():
        return
    options = {name: values[-1] for name, values in parse_qs(root.options).items()}
    if "endpoint_override" in options:
        os.environ["MLFLOW_S3_ENDPOINT_URL"] = f"{options.get('scheme', 'https')}://{options['endpoint_override']}"
