"""Ending the trials of a sweep, whose drivers are processes of their own on other machines, when the sweep is to end.

The sweep's process announces it in the cluster's store of keys, where the trials' drivers look. Each that trains has a
key of its own there, which it deletes once its workers have kept a checkpoint and its runs are told in MLflow.
"""

from __future__ import annotations

import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress

ENDED_WITHIN_S = 300.0  # seconds that a sweep waits for its trials; whoever sent the signal mostly waits less
POLL_S = 0.2


def announce(name: str) -> None:
    """Tell the drivers of this sweep's trials that the signal `name` has asked for the end."""
    from ray.experimental.internal_kv import _internal_kv_put

    _internal_kv_put(_key("stop"), name.encode())


def announced() -> str | None:
    """In the driver of a trial: the name of the signal that has asked the sweep to end; None as long as none has."""
    from ray.experimental.internal_kv import _internal_kv_get

    name = _internal_kv_get(_key("stop"))
    return None if name is None else name.decode()


@contextmanager
def trial_at_work() -> Iterator[None]:
    """While the block runs, in the driver of a trial, the sweep waits for it before it ends."""
    import ray
    from ray.experimental.internal_kv import _internal_kv_del, _internal_kv_put

    if not ray.is_initialized():  # nor is there a sweep
        yield
        return
    key = _key(f"trial-{uuid.uuid4().hex}")
    _internal_kv_put(key, b"1")
    try:
        yield
    finally:
        with suppress(Exception):  # a cluster that is lost, of which the block has told
            _internal_kv_del(key)


def await_trials(within_s: float = ENDED_WITHIN_S) -> int:
    """Wait until no trial of this sweep is at work; returns how many still are after `within_s`."""
    from ray.experimental.internal_kv import _internal_kv_list

    deadline = time.monotonic() + within_s
    while (at_work := len(_internal_kv_list(_key("trial-")))) and time.monotonic() < deadline:
        time.sleep(POLL_S)
    return at_work


def _key(name: str) -> bytes:
    """A key of this sweep: all its processes belong to one job of Ray's."""
    import ray

    return f"hbtrain-{ray.get_runtime_context().get_job_id()}-{name}".encode()
