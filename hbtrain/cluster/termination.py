"""Being asked to end: SIGTERM, as Kubernetes, SLURM and `kill` send it, and SIGUSR1, SLURM's warning ahead of it.

The first signal ends a command as Ctrl-C does, by an exception in the main thread, but for a training: it is postponed
until the workers have kept a checkpoint. The second signal ends the process at once. Whoever sends them ends what is
left by SIGKILL after a while, so nothing here waits for ever.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from types import FrameType

from hbtrain.errors import Terminated

SIGNALS = (signal.SIGTERM, signal.SIGUSR1)
GOES_ON = "the same command goes on, a training from its last checkpoint"


@dataclass
class _State:
    name: str | None = None  # of the signal that came; None: none did
    postponed: int = 0  # how many blocks of `postponed_termination` are running


_state = _State()


@contextmanager
def termination_as_exception() -> Iterator[None]:
    """While the block runs, the first signal raises Terminated in it; does nothing outside the main thread."""
    with _handlers_put_back(lambda _: True) as can_be_set:
        if can_be_set:
            _state.name = None
            listen()
        yield


@contextmanager
def _handlers_put_back(is_put_back: Callable[[object], bool]) -> Iterator[bool]:
    """After the block, handlers of before it are set again if they pass; gives whether any can, as in main threads."""
    can_be_set = threading.current_thread() is threading.main_thread()
    before = {number: signal.getsignal(number) for number in SIGNALS}
    try:
        yield can_be_set
    finally:
        for number, handler in before.items():
            if can_be_set and is_put_back(handler):
                signal.signal(number, handler)


def listen() -> None:
    """Set the handlers of the signals."""
    for number in SIGNALS:
        signal.signal(number, _handle)


def listen_again() -> None:
    """Set the handlers anew where one of them is set: Ray Tune replaces the other by its own."""
    if signal.getsignal(signal.SIGTERM) is _handle:
        listen()


@contextmanager
def signals_preserved() -> Iterator[None]:
    """Whatever handlers the block sets, those of before are there after it: Ray's own would end the process."""
    with _handlers_put_back(lambda handler: handler is _handle):
        yield


@contextmanager
def postponed_termination() -> Iterator[None]:
    """A signal does not interrupt the block, which is to look at `asked_by` and to end in its own way."""
    _state.postponed += 1
    try:
        yield
    finally:
        _state.postponed -= 1


def asked_by() -> str | None:
    """The name of the signal that has asked this process to end; None as long as none has."""
    return _state.name


def ask(name: str) -> None:
    """Have `asked_by` tell of a signal that another process got on behalf of this one, as a sweep does for trials."""
    _state.name = _state.name or name


def _handle(number: int, frame: FrameType | None) -> None:
    if _state.name is not None:
        with suppress(Exception):  # the stream may be in use by what is interrupted
            sys.stdout.flush()
        os._exit(Terminated.exit_code)
    _state.name = signal.Signals(number).name
    if not _state.postponed:
        raise Terminated(f"ended by {_state.name}; {GOES_ON}")
