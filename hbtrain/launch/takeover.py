"""A run that goes on from another run's checkpoint, in a folder of its own.

Where the batches of the first steps are the same (see `hbtrain.batching.plan`), the run ends with the weights that it
would have had if it had been trained from its own first step.
"""

from __future__ import annotations

import os
import shutil
from pathlib import Path

from hbtrain.config import Config, absolute_paths
from hbtrain.errors import StorageError
from hbtrain.launch.run_folder import RunFolder
from hbtrain.launch.segments import CONTINUES
from hbtrain.storage import Place, RemotePath, as_local, is_whole, push
from hbtrain.tracked_runs import STOPPED_AT
from hbtrain.training.checkpoint_files import checkpoints_in, is_complete, step_of

LINKED_BYTES = 2**20
"""Files of this size on are linked where the storage can do that; smaller ones, such as cards, may be written to."""


def take_over(config: Config, donor: Config, step: int) -> bool:
    """Have the run of `config` begin with the checkpoint of `step` of the run of `donor`.

    Nothing is done where the run has come that far, or is over.

    Returns:
        Whether the run can go on from `step`; if not, as the donor has no such checkpoint, it begins at its own start.

    Raises:
        StorageError: the storage cannot be written.
    """
    config, donor = absolute_paths(config), absolute_paths(donor)
    if RunFolder.finished(config) or _furthest(RunFolder.current(config)) >= step:
        return True
    for source in [*RunFolder.finished(donor), RunFolder.current(donor)]:
        checkpoint = _checkpoint(source, step)
        if checkpoint is not None:
            folder = RunFolder.open(config)
            try:
                _copy(source.initial_model, folder.initial_model)
                _copy(checkpoint, folder.checkpoints / checkpoint.name)
            except OSError as error:
                raise StorageError(
                    f"cannot copy {checkpoint} to {folder.checkpoints}: {error.strerror or error}"
                ) from error
            folder.remember(**{CONTINUES: source.recall("mlflow_run_id"), STOPPED_AT: step})
            return True
    return False


def _furthest(folder: RunFolder) -> int:
    """The last step that a run has a whole checkpoint of; 0 without one."""
    steps = [step_of(name) for name in checkpoints_in(folder.checkpoints) if is_complete(folder.checkpoints / name)]
    return max(steps, default=0)


def _checkpoint(folder: RunFolder, step: int) -> Place | None:
    names = [name for name in checkpoints_in(folder.checkpoints) if step_of(name) == step]
    return next((folder.checkpoints / name for name in names if is_complete(folder.checkpoints / name)), None)


def _copy(source: Place, to: Place) -> None:
    """A folder, as a whole or not at all."""
    if to.exists() and is_whole(to):
        return
    if isinstance(to, RemotePath):
        with as_local(source) as folder:
            push(folder, to)
    elif isinstance(source, Path):
        _copy_here(source, to)


def _copy_here(source: Path, to: Path) -> None:
    unfinished = to.with_name(f".{to.name}")
    shutil.rmtree(unfinished, ignore_errors=True)
    to.parent.mkdir(parents=True, exist_ok=True)
    shutil.copytree(source, unfinished, copy_function=_link_or_copy)
    unfinished.replace(to)


def _link_or_copy(source: str, to: str) -> str:
    """The files of checkpoints and weights are never written to again, only replaced or deleted."""
    if Path(source).stat().st_size >= LINKED_BYTES:
        try:
            os.link(source, to)
        except OSError:
            pass  # another file system, or one without links
        else:
            return to
    return str(shutil.copy2(source, to))
