"""Connecting to Ray, or starting it on this machine."""

from __future__ import annotations

import os
import re
import socket
from collections.abc import Iterator
from contextlib import contextmanager

from hbtrain.cluster.memory import RETRY_VARIABLE, TASK_RETRIES
from hbtrain.cluster.termination import signals_preserved
from hbtrain.errors import ClusterError, ConfigError
from hbtrain.storage import expand_home

GIVEN_DEVICES = {"env_vars": {"RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "1"}}
"""Runtime environment of every task, actor and worker: with it a process sees the GPUs that Ray gave it, and no others.

By default, Ray 2.60 hides no GPU from a process that asked for none, and libraries use the GPUs they see: DeepSpeed
would compute on the GPU in a worker that is to use the CPU, and several actors would share the first GPU.
"""
SOCKET_PATH_BYTES = 107  # the longest path of a socket on Linux
SESSION_SOCKET = "ray/session_2026-01-01_00-00-00_000000_4194304/sockets/plasma_store"
"""The longest path of a socket of Ray's, below its folder for temporary files."""
SHORT_FOLDERS = ("/tmp", "/var/tmp", "/dev/shm")
STARTS = 2  # attempts to start Ray on this machine
ANSWER_WITHIN_S = 5.0  # seconds after which a cluster that accepts no connection counts as missing


@contextmanager
def ray_connection(address: str, name: str) -> Iterator[None]:
    """Connect to Ray at `address`, or start it on this machine if that is `local`; disconnect or end it afterwards.

    Where this process is connected to Ray already, that connection is used, and stays.

    Args:
        address: a cluster's address, `auto` or `local`.
        name: what messages call the address, e.g. `resources.address`.

    Raises:
        ConfigError: no cluster answers there.
        ClusterError: none could be started on this machine.
    """
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    if address != "local" and expand_home("~/.ray/auth_token").exists():
        # Clusters ask for this token by default; Ray shows it only if told to before it is imported.
        os.environ.setdefault("RAY_AUTH_MODE", "token")
    import ray

    if ray.is_initialized():
        yield
        return
    os.environ.setdefault(RETRY_VARIABLE, TASK_RETRIES)
    if address == "local":
        _start()
    else:
        _connect(_resolved(address, name), name)
    try:
        yield
    finally:
        ray.shutdown()


def _connect(address: str, name: str) -> None:
    import ray

    check_answers(address, name)
    try:
        with signals_preserved():
            ray.init(address=address, log_to_driver=False, logging_level="ERROR")
    except (ConnectionError, ValueError, RuntimeError) as error:
        reason = str(error).splitlines()[0]
        raise ConfigError(f"{name} = {address!r}: no Ray cluster answers there: {reason}") from error


def _start() -> None:
    """Start Ray on this machine: once more where its processes did not answer within the half minute that Ray waits."""
    import ray

    folder = session_root()
    for attempt in range(1, STARTS + 1):
        try:
            # A cluster that only this command uses starts in half the time without a dashboard.
            with signals_preserved():
                ray.init("local", log_to_driver=False, logging_level="ERROR", include_dashboard=False, _temp_dir=folder)
        except Exception as error:  # the type that Ray raises where its processes are too slow
            if attempt == STARTS:
                reason = (str(error).strip() or repr(error)).splitlines()[0].rstrip(".")
                raise ClusterError(
                    f"Ray did not start on this machine in {STARTS} attempts: {reason}; see whether it is busy, or "
                    f"short of memory or disk, and into {folder}/session_latest/logs; the same command tries again"
                ) from error
        else:
            return


def session_root() -> str:
    """The folder for a local cluster's session: Ray's own choice, or where it makes socket paths too long, a short one.

    Raises:
        ConfigError: there is no such folder that can be written.
    """
    name = next((name for name in ("RAY_TMPDIR", "TMPDIR") if os.environ.get(name)), "TMPDIR")
    first = os.path.abspath(os.environ.get(name, SHORT_FOLDERS[0]))  # noqa: PTH100  # a link in it stays as it is
    for folder in (first, *SHORT_FOLDERS):
        fits = len(os.fsencode(f"{folder}/{SESSION_SOCKET}")) <= SOCKET_PATH_BYTES
        if fits and os.access(folder, os.W_OK | os.X_OK):
            return f"{folder}/ray"
    most = SOCKET_PATH_BYTES - len(SESSION_SOCKET) - 1
    raise ConfigError(
        f"{name} = {first!r} is no folder for Ray's sockets, and {', '.join(SHORT_FOLDERS)} cannot be written; set "
        f"RAY_TMPDIR to a folder that can be, with a path of {most} bytes at most"
    )


def _resolved(address: str, name: str) -> str:
    """The address that `auto` stands for; it may be that of a cluster that was killed."""
    if address != "auto":
        return address
    from ray._private.services import canonicalize_bootstrap_address

    try:
        return canonicalize_bootstrap_address(address) or address
    except ConnectionError as error:
        raise ConfigError(
            f"{name} = 'auto': no Ray cluster runs on this machine; start one, or leave it out"
        ) from error


def head_answers() -> bool:
    """Whether the head of the cluster that this process is connected to takes connections."""
    import ray

    try:
        check_answers(ray.get_runtime_context().gcs_address, "the head")
    except ConfigError:
        return False
    return True


def check_answers(address: str, name: str) -> None:
    """Raise ConfigError unless a gRPC server answers at `address`, if it has a port; Ray would try for minutes."""
    found = re.fullmatch(r"(?:ray://)?(?P<where>\[?(?P<host>.+?)\]?:(?P<port>[0-9]+))", address)
    if found is None:
        return
    try:
        socket.create_connection((found["host"], int(found["port"])), ANSWER_WITHIN_S).close()
        if os.environ.get("RAY_USE_TLS", "0") == "0":
            _shake_hands(found["where"])
    except (OSError, OverflowError, UnicodeError) as error:
        raise ConfigError(
            f"{name} = {address!r}: no Ray cluster answers there: {error}; start one, give the address of one that "
            "runs, or leave it out for one on this machine"
        ) from error


def _shake_hands(where: str) -> None:
    """Raise TimeoutError unless gRPC is spoken at `where` (host:port); any answer to a call will do, even a refusal."""
    import grpc

    with grpc.insecure_channel(where, options=[("grpc.enable_http_proxy", 0)]) as channel:
        try:
            channel.unary_unary("/grpc.health.v1.Health/Check")(b"", timeout=ANSWER_WITHIN_S, wait_for_ready=True)
        except grpc.RpcError as error:
            if error.code() in (grpc.StatusCode.DEADLINE_EXCEEDED, grpc.StatusCode.UNAVAILABLE):
                raise TimeoutError(f"not Ray, or hanging: no answer in {ANSWER_WITHIN_S:g} s") from None
