"""Jobs of a Ray cluster, through its dashboard: what is sent along with one, sending it, its output until its end."""

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

if TYPE_CHECKING:
    from ray.job_submission import JobSubmissionClient

PACKAGE = Path(hbtrain.__file__).resolve().parent
CHECKOUT = PACKAGE.parent if (PACKAGE.parent / "pyproject.toml").is_file() else None
"""What this hbtrain runs from; None where it is an installed package."""
LEFT_OUT = ["/cluster", "/docs", "/tests"]
"""Not sent along with a checkout; nor is what `.gitignore` names, nor `.git`."""
START_S = 60.0
"""How long a cluster that takes no jobs yet is waited for."""
STOPPED = 143
"""Exit code for a job that someone stopped, as of a process that ended on SIGTERM."""


def job_client(address: str | None) -> JobSubmissionClient:
    """The cluster's job server, reached with the token that this user has.

    Args:
        address: of the cluster's dashboard; None: `$RAY_API_SERVER_ADDRESS`, or what Ray finds.

    Raises:
        ConfigError: it does not answer, or does not take the token.
    """
    token = Path.home() / ".ray" / "auth_token"
    if token.exists() or "RAY_AUTH_TOKEN" in os.environ or "RAY_AUTH_TOKEN_PATH" in os.environ:
        os.environ.setdefault("RAY_AUTH_MODE", "token")
    if address is not None:
        os.environ["RAY_API_SERVER_ADDRESS"] = address  # the client takes it before its own argument
    from ray.exceptions import AuthenticationError
    from ray.job_submission import JobSubmissionClient

    logging.disable(logging.WARNING)  # of each file that is not sent, and the like
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
    """Raise ConfigError if the same command is a job already: two of them would write into the same folders."""
    for job in client.list_jobs():
        if job.entrypoint == entrypoint and not job.status.is_terminal():
            raise ConfigError(
                f"job {job.submission_id or job.job_id} is this command already, and {job.status.lower()}: "
                f"ray job logs --follow {job.submission_id}; stop it before you submit it again"
            )


def send_job(client: JobSubmissionClient, entrypoint: str, environment: Mapping[str, str]) -> str:
    """Send a job with this hbtrain; a cluster that has just started is given time until it takes one.

    Args:
        client: of the cluster's job server.
        entrypoint: the command that the job runs.
        environment: variables that it gets.

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
    """The part of a runtime environment that holds this hbtrain.

    A checkout becomes the job's working folder, with the recipes and spaces of one's own that are in it. An installed
    package is sent alone, and put on the path of the job's processes.
    """
    if CHECKOUT is None:
        return {"py_modules": [str(PACKAGE)]}
    return {"working_dir": str(CHECKOUT), "excludes": LEFT_OUT}


def follow(client: JobSubmissionClient, job: str) -> int:
    """Print the job's output until its end; its exit code."""
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
