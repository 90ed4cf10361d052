"""What a training worker is given, and what it tells: the loop's only ties to the world outside."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from hbtrain.events import Event

if TYPE_CHECKING:  # events travel through processes that need no torch
    import torch

    from hbtrain.modeling.gather import Group
    from hbtrain.storage import Place


class Mark(Protocol):
    """Told of the phases of training as they begin, in the same order on all ranks; must return at once."""

    def __call__(self, phase: str, step: int | None = None) -> None:
        """`phase` begins, in `step` if given, else in the same step as the phase before."""


def unmarked(phase: str, step: int | None = None) -> None:
    """A `Mark` that does nothing, for a worker whose phases nobody follows."""


def at_once() -> None:
    """A `settle` that waits for nothing, for a worker whose events nobody keeps."""


@dataclass(frozen=True)
class Part:
    """One rank's part of a checkpoint, on this machine's disk.

    Attributes:
        step: steps done.
        folder: where the part is.
        to: the checkpoint's folder in the run's storage.
        store: takes the part there and deletes it here; may run on a thread of its own. Raises StorageError.
    """

    step: int
    folder: Path
    to: Place
    store: Callable[[], None]


@dataclass(frozen=True)
class Worker:
    """One rank's place in a run.

    Attributes:
        group: the ranks that train together.
        device: where this rank computes.
        initial_model: folder of the encoder that training starts from, on this machine.
        final_model: folder that rank 0 saves the trained encoder to.
        emit: takes events; called on rank 0 only, on any thread.
        keep: takes this rank's part of a checkpoint and sees to it that it is stored, now or soon.
        checkpoints: the folder in storage that holds the run's checkpoints; one that all ranks see.
        at: told of every phase that begins, so that a hanging worker can be told from those that wait for it.
        kept_step: the checkpoint of this step stays, however many newer ones there are.
        settle: returns when the events emitted so far will outlive all processes; called on rank 0 only, on any thread.
    """

    group: Group
    device: torch.device
    initial_model: Path
    final_model: Place
    emit: Callable[[Event], None]
    keep: Callable[[Part], None]
    checkpoints: Place
    at: Mark = unmarked
    kept_step: int | None = None
    settle: Callable[[], None] = at_once
