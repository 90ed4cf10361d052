"""Where MLflow keeps artifacts if a database, and no server, tracks the runs: beside them, in the storage.

In s3:// storage MLflow gets there with boto3, on its own way: it knows the environment, and not the URI's options.
"""

from __future__ import annotations

import os
from importlib.util import find_spec
from pathlib import Path
from urllib.parse import parse_qs

from hbtrain.storage import RemotePath, place

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
