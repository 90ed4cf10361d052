"""Connecting to Ray, or starting it on this machine."""

from __future__ import annotations

import os
import re
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from hbtrain.errors import ConfigError

GIVEN_DEVICES = {"env_vars": {"RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "1"}}
"""The runtime environment of every task, actor and worker: it sees the GPUs that Ray gave it, and no others.

Left to itself, Ray 2.60 hides no GPU from a process that asked for none, and libraries take what they see: DeepSpeed
would compute on the GPU of a worker that is to use the CPU, and several actors would share the first one.
"""
ANSWER_WITHIN_S = 5.0
"""A cluster that takes no connection for so long is not there."""


@contextmanager
def ray_connection(address: str, name: str) -> Iterator[None]:
    """Ray as it runs in this process already, or at `address`, or, where that is `local`, started here and ended after.

    Args:
        address: of a cluster, or `local`.
        name: what messages call the address.

    Raises:
        ConfigError: no cluster answers.
    """
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    if address != "local" and (Path.home() / ".ray" / "auth_token").exists():
        # Clusters ask for this token by default; Ray shows it only if told to before it is imported.
        os.environ.setdefault("RAY_AUTH_MODE", "token")
    import ray

    if ray.is_initialized():
        yield
        return
    address = _resolved(address, name)
    check_answers(address, name)
    # A cluster of this command alone starts in half the time without a dashboard.
    alone = {"include_dashboard": False} if address == "local" else {}
    try:
        ray.init(address=address, log_to_driver=False, logging_level="ERROR", **alone)
    except (ConnectionError, ValueError, RuntimeError) as error:
        reason = str(error).splitlines()[0]
        raise ConfigError(f"{name} = {address!r}: no Ray cluster answers there: {reason}") from error
    try:
        yield
    finally:
        ray.shutdown()


def _resolved(address: str, name: str) -> str:
    """The address that `auto` stands for; a cluster that was killed leaves its own behind."""
    if address != "auto":
        return address
    from ray._private.services import canonicalize_bootstrap_address

    try:
        return canonicalize_bootstrap_address(address) or address
    except ConnectionError as error:
        raise ConfigError(
            f"{name} = 'auto': no Ray cluster runs on this machine; start one, or leave it out"
        ) from error


def check_answers(address: str, name: str) -> None:
    """Raise ConfigError unless a server like Ray's listens at an address with a port: Ray would try for minutes."""
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
    """Raise TimeoutError unless gRPC is spoken at `where` (host:port)."""
    import grpc

    with grpc.insecure_channel(where, options=[("grpc.enable_http_proxy", 0)]) as channel:
        try:
            grpc.channel_ready_future(channel).result(ANSWER_WITHIN_S)
        except grpc.FutureTimeoutError:
            raise TimeoutError(f"not Ray, or hanging: no answer in {ANSWER_WITHIN_S:g} s") from None
