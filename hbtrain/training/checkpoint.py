"""Checkpoints: what a run needs to go on from a step as if it had never stopped.

DeepSpeed saves each rank's part of model, optimizer and schedule; beside it stand the step and what early stopping
remembers. The batches need no state (they are a function of the step), nor do random numbers (each step seeds them).
"""

from __future__ import annotations

import tempfile
from pathlib import Path

from hbtrain.training.engine import Engine
from hbtrain.training.validation import Patience
from hbtrain.training.worker import Worker

TAG = "state"


def save_checkpoint(engine: Engine, worker: Worker, step: int, patience: Patience) -> None:
    """Save this rank's part and hand it over; collective.

    Args:
        engine: what is saved.
        worker: takes the folder.
        step: steps done, so the first one to come.
        patience: early stopping's memory.
    """
    folder = Path(tempfile.mkdtemp(prefix="hbtrain-checkpoint-"))
    state = {"step": step, "best": patience.best, "waited": patience.waited, "world_size": worker.group.world_size}
    engine.deepspeed.save_checkpoint(str(folder), tag=TAG, client_state=state)
    worker.keep(folder, step)


def restore_checkpoint(engine: Engine, folder: Path, patience: Patience) -> int:
    """Load this rank's part, and return the step to go on from; collective."""
    _, state = engine.deepspeed.load_checkpoint(str(folder), tag=TAG)
    patience.best, patience.waited = state["best"], state["waited"]
    return int(state["step"])
