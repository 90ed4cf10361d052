"""What a training worker is given, and what it reports: the training loop's only ties to the world outside."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from hbtrain.events import Event

if TYPE_CHECKING:  # events travel through processes that need no torch
    import torch

    from hbtrain.modeling.encoder import Encoder
    from hbtrain.modeling.gather import Group
    from hbtrain.storage import Place


class PhaseCallback(Protocol):
    """Called with every phase of training as it begins, in the same order on all ranks; must return at once."""

    def __call__(self, phase: str, step: int | None = None) -> None:
        """`phase` begins, in `step` if given, else in the same step as the phase before."""


def ignore_phase(phase: str, step: int | None = None) -> None:
    """A `PhaseCallback` that does nothing."""


def no_flush() -> None:
    """A `Worker.flush_events` that does nothing, for a worker whose events are not stored."""


def no_check() -> None:
    """A `Worker.check_lease` that does nothing, for a worker whose run no other process can drive."""


@dataclass(frozen=True)
class CheckpointPart:
    """One rank's part of a checkpoint, on this machine's disk."""

    step: int  # steps done
    folder: Path  # the local folder that holds the part
    to: Place  # the checkpoint's folder in the run's storage
    # moves the part from `folder` to `to`; may run on a thread of its own. Raises StorageError
    store: Callable[[], None]


@dataclass(frozen=True)
class Worker:
    """What the training loop of one rank is given."""

    group: Group  # the ranks that train together
    device: torch.device  # where this rank computes
    initial_model: Path  # folder of the encoder that training starts from, on this machine
    final_model: Place  # folder that rank 0 saves the trained encoder to
    emit: Callable[[Event], None]  # takes events; called on rank 0 only, on any thread
    # takes this rank's part of a checkpoint and has it stored, now or in the background
    upload: Callable[[CheckpointPart], None]
    checkpoints: Place  # the folder in storage that holds the run's checkpoints; all ranks see the same one
    # called with every phase that begins, so that a hanging worker can be told from those waiting for it
    on_phase: PhaseCallback = ignore_phase
    protected_step: int | None = None  # the checkpoint of this step is not deleted, however many newer ones there are
    # returns when the events emitted so far are stored outside this process and the driver's; called on rank 0 only, on
    # any thread
    flush_events: Callable[[], None] = no_flush
    # whether this rank has heard that training is to stop, with a checkpoint, before its last step; it must return at
    # once. None, on all ranks: nobody ever asks
    is_stop_requested: Callable[[], bool] | None = None
    # gives {`<benchmark>/<setting>/<metric>`: score} of an encoder that is the same on all ranks; collective. None:
    # nothing is evaluated during training
    evaluate: Callable[[Encoder], dict[str, float]] | None = None
    # raises LeaseLostError if another process drives the run now, OSError if the storage does not answer; called on
    # rank 0 only, before checkpoints or the encoder are written or deleted, on any thread
    check_lease: Callable[[], None] = no_check
