"""Checkpoints: saving and restoring all that a run needs to go on from a step as if it had never stopped.

DeepSpeed saves each rank's part of model, optimizer and schedule, and beside it lies that of the moving average; a
manifest adds the step, the best figure so far and the state of early stopping. Batches need no state (they are a
function of the step), nor do random numbers (each step seeds them). A checkpoint can be restored on any number of
ranks.
"""

from __future__ import annotations

import hashlib
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
from hbtrain.training.average import FILES as AVERAGES
from hbtrain.training.average import MovingAverage
from hbtrain.training.best import Patience, best_in
from hbtrain.training.checkpoint_files import (
    CONVERTED,
    Manifest,
    checkpoints_in,
    folder_name,
    is_complete,
    local_checkpoint,
    prune,
    step_of,
    store,
)
from hbtrain.training.engine import Engine
from hbtrain.training.safe_loading import to_universal, weights_only
from hbtrain.training.worker import CheckpointPart, Worker

TAG = "state"
COMPLETE_WITHIN_S = 600.0
"""Seconds for which rank 0 waits for the other ranks' parts; after that a checkpoint is not reported."""
RETRY_STORAGE_S = 300.0  # seconds for which the upload of a part is tried again while remote storage does not answer
POLL_S = 0.05
POLL_REMOTE_S = 1.0  # seconds between two looks of rank 0 for the other parts; requests to remote storage cost money

T = TypeVar("T")


class Checkpoints:
    """Saves and restores a run's checkpoints. All methods are collective."""

    def __init__(
        self, engine: Engine, worker: Worker, patience: Patience, keep: int, average: MovingAverage | None = None
    ) -> None:
        """List the checkpoints of earlier attempts, and delete their temporary files on this machine.

        Args:
            engine: its state is saved and restored.
            worker: its `checkpoints` is the folder in storage, its `upload` stores the parts.
            patience: the best figure so far and early stopping, saved and restored as well.
            keep: how many of the newest checkpoints are not deleted.
            average: of the weights, saved and restored where there is one.
        """
        self._engine, self._worker, self._patience, self._keep = engine, worker, patience, keep
        self._average = average
        # Temporary folders of this run have a prefix of their own. Those that exist now are of killed workers, for no
        # rank saves before all have taken part in the broadcast below.
        self._prefix = f"hbtrain-{hashlib.blake2b(str(worker.checkpoints).encode(), digest_size=6).hexdigest()}-"
        for left in Path(tempfile.gettempdir()).glob(f"{self._prefix}*"):
            shutil.rmtree(left, ignore_errors=True)
        # Rank 0 lists them for all, as the list may change while other ranks look.
        self._earlier, self._token = self._broadcast((checkpoints_in(worker.checkpoints), uuid.uuid4().hex[:8]))
        self._refused: dict[str, str] = {}

    def save(self, step: int) -> None:
        """Save this rank's part after `step` steps to a local folder, and hand it to `Worker.upload`.

        Raises:
            StorageError: this machine's disk is full or cannot be written.
        """
        group, patience = self._worker.group, self._patience
        folder = Path(tempfile.mkdtemp(prefix=self._prefix))
        try:
            self._engine.save(folder, TAG)
            if self._average is not None:
                self._average.save(folder, group.rank)
        except (OSError, RuntimeError) as error:
            shutil.rmtree(folder, ignore_errors=True)
            if not is_write_error(error):  # another rank died, for one: the workers are restarted
                raise
            raise StorageError(f"checkpoint of step {step}: cannot write {folder}: {error}") from error
        best_step, best = patience.best or (None, None)
        manifest = Manifest(step, group.rank, group.world_size, best, patience.waited, best_step=best_step)
        to = self._worker.checkpoints / folder_name(step, self._token)
        self._worker.upload(CheckpointPart(step, folder, to, lambda: self._store(folder, to, manifest)))

    def restore(self) -> int:
        """Load the newest undamaged checkpoint, and return the step to go on from; 0 without one.

        Raises:
            TrainingError: the checkpoint cannot be divided among this number of ranks.
        """
        group = self._worker.group
        for name in self._earlier:
            checkpoint = self._worker.checkpoints / name
            with local_checkpoint(checkpoint, group.rank, group.world_size, self._engine.zero_stage, self._prefix) as (
                folder,
                damage,
            ):
                if reason := self._first_nonempty(damage):
                    self._refused[name] = reason
                    continue
                manifest = Manifest.read(folder, 0)
                self._load(folder, manifest)
            workers = counted(group.world_size, "worker")
            self._report(manifest.step, f"goes on from the checkpoint of step {manifest.step} on {workers}")
            self._restore_best(manifest)
            return manifest.step
        if self._refused:
            self._report(0, "no checkpoint is whole: begins again at step 0")
        return 0

    def _restore_best(self, manifest: Manifest) -> None:
        """Go on with the best figure so far, unless the encoder that it is of is no longer there."""
        if manifest.best is None:
            self._patience.waited = manifest.waited
            return
        worker = self._worker
        found = self._broadcast(best_in(worker.final_model) if worker.group.rank == 0 else None)
        if found == (manifest.best_step, manifest.best):
            self._patience.best, self._patience.waited = found, manifest.waited
        elif worker.group.rank == 0:
            of = "" if manifest.best_step is None else f" of step {manifest.best_step}"
            note = f"the best encoder so far{of} is not in {worker.final_model}: the next one counts as the best"
            worker.emit(Event(manifest.step, {}, note))

    def _load(self, folder: Path, manifest: Manifest) -> None:
        if manifest.world_size == self._worker.group.world_size or self._engine.zero_stage == 0:
            self._load_from(folder, divided_anew=False)
            return
        converted = self._worker.checkpoints / f"{CONVERTED}{self._token}"
        fetched = Path(tempfile.gettempdir()) / f"{self._prefix}{self._token}"  # shared by the ranks of a machine
        first = self._worker.group.rank == 0
        failure = self._broadcast(_convert(folder, converted) if first else "")
        try:
            if failure:
                raise TrainingError(
                    f"the checkpoint {folder}, saved by {manifest.world_size} workers, cannot be divided among "
                    f"{self._worker.group.world_size}: {failure}; go on with resources.workers {manifest.world_size}"
                )
            self._load_from(local_copy(converted, str(fetched)), divided_anew=True)
            dist.barrier()
        finally:
            if first:
                remove_tree(converted)
            remove_tree(fetched)

    def _load_from(self, folder: Path, divided_anew: bool) -> None:
        with weights_only():
            self._engine.load(folder, TAG, universal=divided_anew)
            if self._average is not None:
                self._average.load(folder, self._worker.group.rank, divided_anew)

    def _store(self, part: Path, to: Place, manifest: Manifest) -> None:
        """Copy a part to storage. Rank 0 then waits for the other parts, reports the checkpoint, and deletes old ones.

        Rank 0 flushes the events of earlier steps first: a run that goes on from here never emits them again.
        """
        if manifest.rank == 0:
            self._worker.flush_events()
        try:
            with_retries(lambda: self._store_part(part, to, manifest), RETRY_STORAGE_S)
        except OSError as error:
            remove_tree(to)  # it stays incomplete, and the disk may be full
            remedy = "make room there, and" if isinstance(to, Path) else "see to that storage, and"
            raise StorageError(
                f"checkpoint of step {manifest.step}: cannot write {to}: {error.strerror or error}; {remedy} "
                "the same command goes on from the checkpoint before"
            ) from error
        finally:
            shutil.rmtree(part, ignore_errors=True)
        if manifest.rank > 0:
            return
        if _await_complete(to):
            self._worker.emit(Event(manifest.step, {}, f"checkpoint of step {manifest.step} kept", kind="checkpoint"))
            with suppress(RemoteError):  # the next checkpoint deletes them
                self._worker.check_lease()
                prune(self._worker.checkpoints, self._keep, self._token, self._refused, self._worker.protected_step)

    def _store_part(self, part: Path, to: Place, manifest: Manifest) -> None:
        if manifest.rank == 0:  # without whose part the checkpoint counts for nothing
            self._worker.check_lease()
        store(part, to, manifest)

    def _report(self, step: int, text: str) -> None:
        if self._worker.group.rank == 0:
            refused = [f"checkpoint of step {step_of(name)} is damaged ({why})" for name, why in self._refused.items()]
            note = ": ".join(["; ".join(refused), text]) if refused else text
            self._worker.emit(Event(step, {}, note, kind="damage" if refused else "resume"))

    def _broadcast(self, value: T) -> T:
        """Rank 0's value, on all ranks; collective."""
        values = [value]
        dist.broadcast_object_list(values, src=0, device=self._worker.device)
        return values[0]

    def _first_nonempty(self, text: str) -> str:
        """The text of the first rank whose text is not empty, on all ranks; collective."""
        texts: list[str] = [""] * self._worker.group.world_size
        dist.all_gather_object(texts, text)
        return next((text for text in texts if text), "")


def _await_complete(checkpoint: Place) -> bool:
    """Wait until all parts are in storage; False after `COMPLETE_WITHIN_S`."""
    deadline = time.monotonic() + COMPLETE_WITHIN_S
    while time.monotonic() < deadline:
        with suppress(RemoteError):
            if is_complete(checkpoint):
                return True
        time.sleep(POLL_S if isinstance(checkpoint, Path) else POLL_REMOTE_S)
    return False


def _convert(folder: Path, to: Place) -> str:
    """Convert a checkpoint to DeepSpeed's universal format; returns why that failed, or an empty text.

    Parts of the average are taken along as they are: each rank finds its own in them.
    """
    try:
        with pushed(to) as converted:
            reason = to_universal(folder / TAG, converted / TAG)
            for part in folder.glob(AVERAGES):
                shutil.copyfile(part, converted / part.name)
            return reason
    except OSError as error:
        return f"{to}: {error.strerror or error}"
