"""Noticing that the cluster is gone, while there is time to say so.

Without its head a Ray cluster ends: its nodes, and the process that is connected to them, are ended by Ray's own code
a minute later, from one instruction to the next. A little earlier than that the main thread is interrupted here. Where
it waits in Ray's core, that takes until the call ends; of calls that never do, this process ends itself.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from hbtrain.cluster.connection import check_answers
from hbtrain.errors import ConfigError, TrainingError

LIMIT = "RAY_gcs_rpc_server_reconnect_timeout_s"
"""Ray's variable for how long a process goes on without the head, in seconds. Set on nodes whose head may come back."""
LIMIT_S = 60.0
"""Its default."""
SHARE = 0.75
"""Of the limit, after which the cluster counts as lost."""
TO_END_S = 300.0
"""How much longer this process is to live than the nodes, so that it can bring its own things to an end."""
LOOK_EVERY_S = 2.0
AGAIN_S = 30.0
"""After which it is interrupted again: an interrupt is lost on a callback that takes no exceptions."""
STUCK_S = 120.0
"""Interrupted for so long, the main thread does not come back. Calls of Ray's core that end do so within a minute."""


@contextmanager
def outliving(address: str) -> Iterator[float]:
    """Have Ray let this process live longer than the nodes of a cluster that is lost; for Ray to be started in.

    Gives how many seconds a head may be silent until the cluster counts as lost.
    """
    if address == "local":  # ends with this process; its nodes must not live longer
        yield SHARE * LIMIT_S
        return
    before = os.environ.get(LIMIT)
    limit_s = float(before or LIMIT_S)
    os.environ[LIMIT] = str(round(limit_s + TO_END_S))
    try:
        yield SHARE * limit_s
    finally:
        if before is None:
            del os.environ[LIMIT]
        else:
            os.environ[LIMIT] = before


@contextmanager
def loss_in_words(address: str, patience_s: float) -> Iterator[None]:
    """While the body runs, watch the cluster; what Ray says when it is gone becomes one line.

    Raises:
        TrainingError: the cluster was lost.
    """
    import ray

    line = Lifeline(address, patience_s)
    try:
        with line.held():
            yield
    except KeyboardInterrupt as error:
        if line.lost is None:
            raise
        raise TrainingError(line.in_words(line.lost)) from error
    except ray.exceptions.RayTaskError:
        raise  # of what ran there
    except ray.exceptions.RayError as error:
        reason = str(error).strip().splitlines()[0].partition(". ")[0].rstrip(".")
        raise TrainingError(line.in_words(reason)) from error


class Lifeline:
    """Looks after the head of a cluster, from another thread.

    Attributes:
        lost: why the cluster counts as lost; None while it does not.
    """

    def __init__(self, address: str, patience_s: float) -> None:
        self.lost: str | None = None
        self._where = "of this machine" if address == "local" else f"at {address}"
        self._patience_s = patience_s
        self._done = threading.Event()

    def in_words(self, reason: str) -> str:
        """What to say when the cluster is lost."""
        again = "when one is there again, the same command goes on with what was kept"
        return f"the Ray cluster {self._where} was lost: {reason}; {again}"

    @contextmanager
    def held(self) -> Iterator[None]:
        """While the body runs, raise KeyboardInterrupt in it when the cluster is lost; on the main thread only."""
        import ray

        if threading.current_thread() is not threading.main_thread():
            yield
            return
        address = ray.get_runtime_context().gcs_address
        before = signal.signal(signal.SIGRTMIN, _interrupt)
        thread = threading.Thread(target=self._watch, args=(address,), name="lifeline", daemon=True)
        thread.start()
        try:
            yield
        finally:
            self._done.set()
            thread.join()
            signal.signal(signal.SIGRTMIN, before)

    def _watch(self, address: str) -> None:
        answered = time.monotonic()
        while not self._done.wait(LOOK_EVERY_S):
            try:
                check_answers(address, "the head")
                answered = time.monotonic()
            except ConfigError:
                silent_s = time.monotonic() - answered
                if silent_s >= self._patience_s and not self._done.is_set():
                    self.lost = f"its head at {address} has not answered for {silent_s:.0f} s"
                    self._end(self.lost)
                    return

    def _end(self, reason: str) -> None:
        """Interrupt the main thread until it has left the body; if it never does, end the process."""
        stuck_at = time.monotonic() + STUCK_S
        while time.monotonic() < stuck_at:
            # Not SIGINT, which Ray Train and Ray Tune answer with farewells to the cluster.
            signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGRTMIN)
            if self._done.wait(AGAIN_S):
                return
        print(f"error: {self.in_words(reason)}", file=sys.stderr, flush=True)
        os._exit(TrainingError.exit_code)


def _interrupt(signum: int, frame: Any) -> None:
    raise KeyboardInterrupt
