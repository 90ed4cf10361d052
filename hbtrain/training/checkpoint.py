"""Checkpoints: what a run needs to go on from a step as if it had never stopped.

DeepSpeed saves each rank's part of model, optimizer and schedule; beside it stand the step and what early stopping
remembers. The batches need no state (they are a function of the step), nor do random numbers (each step seeds them).
A checkpoint can be restored on any number of ranks.
"""

from __future__ import annotations

import hashlib
import math
import shutil
import tempfile
import time
import uuid
from contextlib import suppress
from pathlib import Path
from typing import TypeVar

import torch.distributed as dist

from hbtrain.errors import StorageError, TrainingError, is_write_error
from hbtrain.events import Event
from hbtrain.reporting.text import counted
from hbtrain.storage import Place, RemoteError, local_copy, pushed, remove_tree, with_retries
from hbtrain.training.checkpoint_files import (
    CONVERTED,
    Manifest,
    at_hand,
    checkpoints_in,
    folder_name,
    is_complete,
    prune,
    step_of,
    store,
)
from hbtrain.training.engine import Engine
from hbtrain.training.safe_loading import to_universal, weights_only
from hbtrain.training.validation import Patience
from hbtrain.training.worker import Part, Worker

TAG = "state"
OTHERS_S = 600.0
"""How long rank 0 waits for the other ranks' parts before it says nothing of a checkpoint."""
AWAY_S = 300.0
"""How long a part waits for remote storage that is away."""
LOOK_S = 0.05
LOOK_REMOTE_S = 1.0
"""How often rank 0 looks for them: a look at remote storage is paid for."""

T = TypeVar("T")


class Checkpoints:
    """Saves and restores a run's checkpoints; made on all ranks at one time."""

    def __init__(self, engine: Engine, worker: Worker, patience: Patience, keep: int) -> None:
        """Look for what earlier attempts left; collective.

        Args:
            engine: what is saved.
            worker: its `checkpoints` is the storage, its `keep` takes the parts there.
            patience: early stopping's memory.
            keep: how many checkpoints stay.
        """
        self._engine, self._worker, self._patience, self._keep = engine, worker, patience, keep
        # Parts on this machine's disk bear the mark of the run. Those that are there are of killed workers: no rank
        # saves before all have come through the line below.
        self._mark = f"hbtrain-{hashlib.blake2b(str(worker.checkpoints).encode(), digest_size=6).hexdigest()}-"
        for left in Path(tempfile.gettempdir()).glob(f"{self._mark}*"):
            shutil.rmtree(left, ignore_errors=True)
        # Rank 0 looks for all: what is there may change while others look.
        self._earlier, self._token = self._from_first((checkpoints_in(worker.checkpoints), uuid.uuid4().hex[:8]))
        self._refused: dict[str, str] = {}

    def save(self, step: int) -> None:
        """Save this rank's part after `step` steps, and hand it over; collective.

        Raises:
            StorageError: this machine's disk is full or cannot be written.
        """
        group, patience = self._worker.group, self._patience
        folder = Path(tempfile.mkdtemp(prefix=self._mark))
        try:
            self._engine.deepspeed.save_checkpoint(str(folder), tag=TAG)
        except (OSError, RuntimeError) as error:
            shutil.rmtree(folder, ignore_errors=True)
            if not is_write_error(error):  # another rank died, for one: the workers are restarted
                raise
            raise StorageError(f"checkpoint of step {step}: cannot write {folder}: {error}") from error
        best = patience.best if math.isfinite(patience.best) else None
        manifest = Manifest(step, group.rank, group.world_size, best, patience.waited)
        to = self._worker.checkpoints / folder_name(step, self._token)
        self._worker.keep(Part(step, folder, to, lambda: self._store(folder, to, manifest)))

    def restore(self) -> int:
        """Load the newest checkpoint that is whole, and return the step to go on from: 0 without one; collective.

        Raises:
            TrainingError: it cannot be divided among this number of ranks.
        """
        group = self._worker.group
        for name in self._earlier:
            checkpoint = self._worker.checkpoints / name
            with at_hand(checkpoint, group.rank, group.world_size, self._engine.zero_stage, self._mark) as at:
                folder, damage = at
                if reason := self._first_of_all(damage):
                    self._refused[name] = reason
                    continue
                manifest = Manifest.read(folder, 0)
                self._load(folder, manifest)
            self._patience.best = math.inf if manifest.best is None else manifest.best
            self._patience.waited = manifest.waited
            workers = counted(group.world_size, "worker")
            self._tell(manifest.step, f"goes on from the checkpoint of step {manifest.step} on {workers}")
            return manifest.step
        if self._refused:
            self._tell(0, "no checkpoint is whole: begins again at step 0")
        return 0

    def _load(self, folder: Path, manifest: Manifest) -> None:
        if manifest.world_size == self._worker.group.world_size or self._engine.zero_stage == 0:
            with weights_only():
                self._engine.load(folder, TAG, universal=False)
            return
        converted = self._worker.checkpoints / f"{CONVERTED}{self._token}"
        fetched = Path(tempfile.gettempdir()) / f"{self._mark}{self._token}"  # one for the ranks of a machine
        first = self._worker.group.rank == 0
        failure = self._from_first(_convert(folder, converted) if first else "")
        try:
            if failure:
                raise TrainingError(
                    f"the checkpoint {folder}, saved by {manifest.world_size} workers, cannot be divided among "
                    f"{self._worker.group.world_size}: {failure}; go on with resources.workers {manifest.world_size}"
                )
            with weights_only():
                self._engine.load(local_copy(converted, str(fetched)), TAG, universal=True)
            dist.barrier()
        finally:
            if first:
                remove_tree(converted)
            remove_tree(fetched)

    def _store(self, part: Path, to: Place, manifest: Manifest) -> None:
        """Take a part to storage. Rank 0 then waits for the others', says so, and deletes what is too old.

        What was told of the steps before is settled first: who goes on from here never tells of them again.
        """
        if manifest.rank == 0:
            self._worker.settle()
        try:
            with_retries(lambda: store(part, to, manifest), AWAY_S)
        except OSError as error:
            remove_tree(to)  # it will not be whole, and room may be what is missing
            remedy = "make room there, and" if isinstance(to, Path) else "see to that storage, and"
            raise StorageError(
                f"checkpoint of step {manifest.step}: cannot write {to}: {error.strerror or error}; {remedy} "
                "the same command goes on from the checkpoint before"
            ) from error
        finally:
            shutil.rmtree(part, ignore_errors=True)
        if manifest.rank > 0:
            return
        if _completed(to):
            self._worker.emit(Event(manifest.step, {}, f"checkpoint of step {manifest.step} kept"))
            with suppress(RemoteError):  # the next one will see to it
                prune(self._worker.checkpoints, self._keep, self._token, self._refused, self._worker.kept_step)

    def _tell(self, step: int, text: str) -> None:
        if self._worker.group.rank == 0:
            refused = [f"checkpoint of step {step_of(name)} is damaged ({why})" for name, why in self._refused.items()]
            self._worker.emit(Event(step, {}, ": ".join(["; ".join(refused), text]) if refused else text))

    def _from_first(self, value: T) -> T:
        """Rank 0's value, on all ranks; collective."""
        values = [value]
        dist.broadcast_object_list(values, src=0, device=self._worker.device)
        return values[0]

    def _first_of_all(self, text: str) -> str:
        """The first text that is not empty on some rank; collective."""
        texts: list[str] = [""] * self._worker.group.world_size
        dist.all_gather_object(texts, text)
        return next((text for text in texts if text), "")


def _completed(checkpoint: Place) -> bool:
    """Wait until all parts are there; False if that takes too long."""
    deadline = time.monotonic() + OTHERS_S
    while time.monotonic() < deadline:
        with suppress(RemoteError):
            if is_complete(checkpoint):
                return True
        time.sleep(LOOK_S if isinstance(checkpoint, Path) else LOOK_REMOTE_S)
    return False


def _convert(folder: Path, to: Place) -> str:
    """Convert a checkpoint for any number of ranks; why that failed, or empty."""
    try:
        with pushed(to) as converted:
            return to_universal(folder / TAG, converted / TAG)
    except OSError as error:
        return f"{to}: {error.strerror or error}"
