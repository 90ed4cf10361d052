"""Jobs of a Ray cluster: submitting one with hbtrain's own sources, and following its output until it ends."""

from __future__ import annotations

import asyncio
import logging
import os
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import hbtrain
from hbtrain.errors import ConfigError
from hbtrain.storage import expand_home

if TYPE_CHECKING:
    from ray.job_submission import JobSubmissionClient

PACKAGE = Path(hbtrain.__file__).resolve().parent
CHECKOUT = PACKAGE.parent if (PACKAGE.parent / "pyproject.toml").is_file() else None
"""The checkout that this hbtrain runs from; None where it is an installed package."""
LEFT_OUT = ["/cluster", "/docs", "/tests"]
"""Folders of a checkout that are not sent with a job; nor are `.git` and the files that `.gitignore` names."""
START_S = 60.0  # seconds to wait for a cluster that has just started and takes no jobs yet
STOPPED = 143  # exit code for a job that someone stopped: that of a process ended by SIGTERM


def job_client(address: str | None) -> JobSubmissionClient:
    """A client of the cluster's job server, with this user's token.

    Args:
        address: URL of the cluster's dashboard; None: `$RAY_API_SERVER_ADDRESS`, or the one that Ray finds.

    Raises:
        ConfigError: the server does not answer, or rejects the token.
    """
    token = expand_home("~/.ray/auth_token")
    if token.exists() or "RAY_AUTH_TOKEN" in os.environ or "RAY_AUTH_TOKEN_PATH" in os.environ:
        os.environ.setdefault("RAY_AUTH_MODE", "token")
    if address is not None:
        os.environ["RAY_API_SERVER_ADDRESS"] = address  # the client takes it before its own argument
    from ray.exceptions import AuthenticationError
    from ray.job_submission import JobSubmissionClient

    logging.disable(logging.WARNING)  # Ray warns of each file that is not sent
    try:
        return JobSubmissionClient()
    except AuthenticationError as error:
        raise ConfigError(
            "the cluster asks for a token and does not take this user's: copy its ~/.ray/auth_token, or name a file in "
            "RAY_AUTH_TOKEN_PATH"
        ) from error
    except (OSError, RuntimeError, ValueError) as error:
        reason = str(error).strip().splitlines()[0]
        where = os.environ.get("RAY_API_SERVER_ADDRESS") or os.environ.get("RAY_ADDRESS") or "this machine"
        raise ConfigError(f"no Ray dashboard takes jobs at {where}: {reason}") from error


def check_not_running(client: JobSubmissionClient, entrypoint: str) -> None:
    """Raise ConfigError if a job with the same command has not ended: both would write into the same folders."""
    for job in client.list_jobs():
        if job.entrypoint == entrypoint and not job.status.is_terminal():
            raise ConfigError(
                f"job {job.submission_id or job.job_id} is this command already, and {job.status.lower()}: "
                f"ray job logs --follow {job.submission_id}; stop it before you submit it again"
            )


def send_job(client: JobSubmissionClient, entrypoint: str, environment: Mapping[str, str]) -> str:
    """Submit a job that runs this hbtrain; waits up to `START_S` for a cluster that has just started.

    Args:
        client: client of the cluster's job server.
        entrypoint: the command that the job runs.
        environment: environment variables of the job.

    Returns:
        The job's id.

    Raises:
        ConfigError: the cluster does not take it.
    """
    deadline = time.monotonic() + START_S
    while True:
        runtime_env = {**sources(), "env_vars": dict(environment)}
        try:
            return str(client.submit_job(entrypoint=entrypoint, runtime_env=runtime_env))
        except (OSError, RuntimeError, ValueError) as error:
            reason = str(error).strip().splitlines()[0]
            if "No available agent" not in reason or time.monotonic() > deadline:
                raise ConfigError(f"the cluster does not take the job: {reason}") from error
            time.sleep(2)


def sources() -> dict[str, Any]:
    """The part of a job's runtime environment that holds this hbtrain.

    A checkout becomes the job's working folder, the user's own recipes and spaces in it included. An installed package
    is sent alone, and put on the path of the job's processes.
    """
    if CHECKOUT is None:
        return {"py_modules": [str(PACKAGE)]}
    return {"working_dir": str(CHECKOUT), "excludes": LEFT_OUT}


def follow(client: JobSubmissionClient, job: str) -> int:
    """Print the job's output until its end, and return its exit code."""
    import aiohttp
    from ray.job_submission import JobStatus

    async def print_output() -> None:
        try:
            async for text in client.tail_job_logs(job):
                print(text, end="", flush=True)
        except aiohttp.ClientError as error:
            raise ConnectionError(error) from error

    while not client.get_job_status(job).is_terminal():
        asyncio.run(print_output())
        time.sleep(1)
    info = client.get_job_info(job)
    if info.status == JobStatus.SUCCEEDED:
        return 0
    print(f"job {job} {info.status.lower()}: {(info.message or '').strip().partition(chr(10))[0]}", file=sys.stderr)
    if info.status == JobStatus.STOPPED:
        return STOPPED
    code = info.driver_exit_code or 1
    return code if code > 0 else 128 - code
