"""Connecting to Ray, or starting it on this machine."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from hbtrain.errors import ConfigError


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
