"""Detecting that the Ray cluster was lost, in time to end with an error message.

When the head node of a Ray cluster is lost, Ray's own code ends all nodes and the connected process a minute later,
without warning. A little earlier, this module interrupts the main thread, which raises a TrainingError. Where the main
thread waits in a call of Ray's core, the interrupt takes effect when the call ends; if it never does, the process
prints the error and exits.
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
from hbtrain.cluster.memory import out_of_memory
from hbtrain.errors import ConfigError, TrainingError

RECONNECT_TIMEOUT = "RAY_gcs_rpc_server_reconnect_timeout_s"
"""Ray's environment variable for how long a process goes on without the head; set higher where a head may return."""
RECONNECT_TIMEOUT_S = 60.0  # ray's default of that variable, in seconds
LOST_AFTER_SHARE = 0.75  # the share of the reconnect timeout after which a silent head counts as lost
SHUTDOWN_S = 300.0
"""How much longer than the nodes this process may live, to finish its own work such as telling MLflow."""
CHECK_EVERY_S = 2.0
INTERRUPT_EVERY_S = 30.0
"""Seconds until the interrupt is repeated: one that arrives in a callback without exceptions is lost."""
STUCK_S = 120.0
"""Seconds of interrupts after which the process exits. Calls of Ray's core that end at all do so within a minute."""


@contextmanager
def longer_reconnect_timeout(address: str) -> Iterator[float]:
    """Let this process live longer than the nodes of a lost cluster; Ray must be started while the body runs.

    Yields the number of seconds after which a silent head counts as lost.
    """
    if address == "local":  # ends with this process; its nodes must not live longer
        yield LOST_AFTER_SHARE * RECONNECT_TIMEOUT_S
        return
    before = os.environ.get(RECONNECT_TIMEOUT)
    timeout_s = float(before or RECONNECT_TIMEOUT_S)
    os.environ[RECONNECT_TIMEOUT] = str(round(timeout_s + SHUTDOWN_S))
    try:
        yield LOST_AFTER_SHARE * timeout_s
    finally:
        if before is None:
            del os.environ[RECONNECT_TIMEOUT]
        else:
            os.environ[RECONNECT_TIMEOUT] = before


@contextmanager
def loss_as_error(address: str, patience_s: float) -> Iterator[None]:
    """While the body runs, watch the cluster's head, and turn the errors of a lost cluster into a TrainingError.

    Args:
        address: the cluster's address, or `local`; for the message.
        patience_s: seconds without an answer after which the head counts as lost.

    Raises:
        TrainingError: the cluster was lost.
    """
    import ray

    monitor = HeadMonitor(address, patience_s)
    try:
        with monitor.running():
            yield
    except KeyboardInterrupt as error:
        if monitor.lost is None:
            raise
        raise TrainingError(monitor.message(monitor.lost)) from error
    except ray.exceptions.RayTaskError:
        raise  # an error of the task itself
    except ray.exceptions.OutOfMemoryError as error:
        raise TrainingError(f"{out_of_memory(str(error))}; the same command goes on with what was kept") from error
    except ray.exceptions.RayError as error:
        reason = str(error).strip().splitlines()[0].partition(". ")[0].rstrip(".")
        raise TrainingError(monitor.message(reason)) from error


class HeadMonitor:
    """Checks from a thread that the head of a cluster answers.

    Attributes:
        lost: why the cluster counts as lost; None as long as it does not.
    """

    def __init__(self, address: str, patience_s: float) -> None:
        self.lost: str | None = None
        self._where = "of this machine" if address == "local" else f"at {address}"
        self._patience_s = patience_s
        self._done = threading.Event()

    def message(self, reason: str) -> str:
        again = "when one is there again, the same command goes on with what was kept"
        return f"the Ray cluster {self._where} was lost: {reason}; {again}"

    @contextmanager
    def running(self) -> Iterator[None]:
        """Raise KeyboardInterrupt in the body when the cluster is lost; does nothing outside the main thread."""
        import ray

        if threading.current_thread() is not threading.main_thread():
            yield
            return
        address = ray.get_runtime_context().gcs_address
        before = signal.signal(signal.SIGRTMIN, _interrupt)
        thread = threading.Thread(target=self._watch, args=(address,), name="head-monitor", daemon=True)
        thread.start()
        try:
            yield
        finally:
            self._done.set()
            thread.join()
            signal.signal(signal.SIGRTMIN, before)

    def _watch(self, address: str) -> None:
        answered = time.monotonic()
        while not self._done.wait(CHECK_EVERY_S):
            try:
                check_answers(address, "the head")
                answered = time.monotonic()
            except ConfigError:
                silent_s = time.monotonic() - answered
                if silent_s >= self._patience_s and not self._done.is_set():
                    self.lost = f"its head at {address} has not answered for {silent_s:.0f} s"
                    self._interrupt_main(self.lost)
                    return

    def _interrupt_main(self, reason: str) -> None:
        """Interrupt the main thread until it has left the body; exit if it has not in `STUCK_S`."""
        stuck_at = time.monotonic() + STUCK_S
        while time.monotonic() < stuck_at:
            # Not SIGINT, which Ray Train and Ray Tune answer with farewells to the cluster.
            signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGRTMIN)
            if self._done.wait(INTERRUPT_EVERY_S):
                return
        print(f"error: {self.message(reason)}", file=sys.stderr, flush=True)
        os._exit(TrainingError.exit_code)


def _interrupt(signum: int, frame: Any) -> None:
    raise KeyboardInterrupt
