"""A campaign of stages within one budget of time, which loses nothing that it has measured.

Stages run one after the other in a process of their own, which is begun anew after a stage that has broken it: one that
did not come to its end in time, or that left CUDA in an error. Each line of a stage is printed, and appended to a
file, at once. A stage that fails, or that has no memory, is a line with its reason, and the next one goes on.
"""

from __future__ import annotations

import gc
import multiprocessing
import signal
import sys
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from multiprocessing.connection import Connection
from typing import Any

import torch
from torch.nn import functional

from tests.bench.gpu.compilers import Compilers
from tests.bench.gpu.lines import Lines
from tests.bench.gpu.settings import Settings

CONTEXT = multiprocessing.get_context("spawn")  # a forked process could not use a GPU that its parent has looked at
USUAL_S = 720.0
GRACE_S = 10.0  # after its time is up, a stage has so long to say so; then its process is killed
START_S = 90.0  # for a new process to import what it needs
LEAST_S = 2.0  # a stage is not begun with less time than this
LINEAR = functional.linear

Line = dict[str, Any]  # "case" names what was measured; the rest are figures


class LeftOut(Exception):  # noqa: N818
    """A stage, or a part of it, that cannot be measured here; its text says why."""


class TimeUp(BaseException):
    """The time of a stage is over. No `Exception`, so that nothing that is being measured takes it for its own."""


@dataclass(frozen=True)
class Stage:
    """A part of the campaign."""

    name: str
    seconds: float  # the most that it may take of a campaign of `USUAL_S`; in a longer or shorter one more or less
    # its lines, each as soon as it is measured; may raise LeftOut
    lines: Callable[[Settings], Iterator[Line]]


def run_campaign(stages: Sequence[Stage], settings: Settings, lines: Lines, budget_s: float) -> None:
    """Run the stages in their order, each in its own time, all of them in `budget_s`; `lines` has what they found."""
    deadline = time.monotonic() + budget_s
    left = [replace(stage, seconds=stage.seconds * budget_s / USUAL_S) for stage in stages]
    while left:
        if deadline - time.monotonic() < LEAST_S:
            lines.add({"stage": left.pop(0).name, "left_out": f"the campaign's {budget_s:g} s were over"})
            continue
        left = _in_a_process(left, settings, lines, deadline)


def _in_a_process(stages: list[Stage], settings: Settings, lines: Lines, deadline: float) -> list[Stage]:
    """Run stages in a new process until one of them breaks it, or the time is over; returns those not begun."""
    receiver, sender = CONTEXT.Pipe(duplex=False)
    process = CONTEXT.Process(target=_serve, args=(stages, settings, sender, deadline), daemon=True)
    process.start()
    sender.close()
    begun, until = 0, min(deadline, time.monotonic() + START_S)
    try:
        while True:
            reason = f"it did not end in its time, and its process was killed after {GRACE_S:g} s more"
            try:
                if not receiver.poll(max(0.0, until + GRACE_S - time.monotonic())):
                    break
                message = receiver.recv()
            except EOFError:
                process.join()
                reason = f"its process ended with exit code {process.exitcode}"
                break
            if message is None:  # the process ends by itself: all is done, or the time is over, or CUDA is broken
                return stages[begun:]
            if isinstance(message, float):
                begun, until = begun + 1, message
            else:
                lines.add(message)
    finally:
        process.kill()
        process.join()
    begun = max(begun, 1)  # where not even the first was begun, it is the one that fails
    lines.add({"stage": stages[begun - 1].name, "failed": reason})
    return stages[begun:]


def _serve(stages: list[Stage], settings: Settings, sender: Connection, deadline: float) -> None:
    """Run stages, and send their lines; before each, the time at which it has to be over; None at the end."""
    settings.prepare_process()
    for stage in stages:
        until = min(deadline, time.monotonic() + stage.seconds)
        if until - time.monotonic() < LEAST_S:
            break
        sender.send(until)
        if not run_stage(stage, settings, sender.send, until):
            break
    sender.send(None)


def run_stage(stage: Stage, settings: Settings, tell: Callable[[Line], None], until: float) -> bool:
    """Tell the lines of a stage, and last how long it took; returns whether this process can run another one."""
    started, processor_s, end, usable = time.monotonic(), time.process_time(), {}, True
    with Compilers() as compilers:
        try:
            with _interrupted_at(until):
                for line in stage.lines(settings):
                    tell({"stage": stage.name, **line})
        except TimeUp:
            end = {"failed": f"cut off after {time.monotonic() - started:.0f} s; the lines before are whole"}
        except LeftOut as reason:
            end = {"left_out": str(reason)}
        except Exception as error:
            traceback.print_exc(file=sys.stderr)
            end = {"failed": reason_of(error)}
            usable = "CUDA error" not in str(error)
            error.__traceback__ = None  # it would keep the stage's tensors
    end |= {"seconds": time.monotonic() - started, "processor_s": time.process_time() - processor_s}
    end |= {"peak_gib": _cleared_gib(settings) if usable else None}
    tell({"stage": stage.name, "case": "end", **end, "compilers_started": compilers.started})
    return usable


def reason_of(error: Exception) -> str:
    """One line: the kind of error and the beginning of its text."""
    kind = "out of memory" if isinstance(error, torch.OutOfMemoryError) else type(error).__name__
    text = str(error).strip()
    return f"{kind}: {text.splitlines()[0][:300]}" if text else kind


def _cleared_gib(settings: Settings) -> float | None:
    """Clear up after a stage; returns the most memory of the device that it had, in GiB."""
    functional.linear = LINEAR  # for ZeRO-3, DeepSpeed replaces it in the whole process, by one with more kernels
    if settings.device.type != "cuda":
        return None
    gc.collect()
    peak = torch.cuda.max_memory_allocated() / 2**30
    torch.cuda.empty_cache()
    torch.cuda.reset_peak_memory_stats()
    return peak


@contextmanager
def _interrupted_at(until: float) -> Iterator[None]:
    """Raise TimeUp in the body at a time of the monotonic clock, as soon as Python runs again."""

    def interrupt(*_: object) -> None:
        raise TimeUp

    before = signal.signal(signal.SIGALRM, interrupt)
    signal.setitimer(signal.ITIMER_REAL, max(0.001, until - time.monotonic()))
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
