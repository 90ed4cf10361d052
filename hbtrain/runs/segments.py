"""Training in segments, and forking a run from a checkpoint of another.

A segment trains up to a step and evaluates; a later one goes on from there as if training had never stopped. The run's
folder holds the step where training stopped last, and in `results-steps` the scores of the encoder at each such step. A
segment that is done is not trained or evaluated again.

A forked run begins with the checkpoint of another run, in a folder of its own. Where the batches of both are the same
up to that step (see `hbtrain.batching.plan`), it ends with the weights of a run trained from its own first step.
"""

from __future__ import annotations

import json
import os
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hbtrain.config import Config, absolute_paths
from hbtrain.errors import ConfigError, StorageError
from hbtrain.evaluation.benchmarks import parse_benchmarks
from hbtrain.runs.run_folder import RunFolder
from hbtrain.storage import Place, RemoteError, RemotePath, as_local, files_in, is_whole, push, write_text
from hbtrain.storage.files import make_folder, whole
from hbtrain.training.best import best_in
from hbtrain.training.checkpoint_files import Manifest, checkpoints_in, is_complete, step_of


@dataclass(frozen=True)
class Segment:
    """A run that has been trained up to a step, and its scores there."""

    folder: RunFolder  # the run's folder
    step: int  # the step where it stopped
    scores: dict[str, float]  # {`<benchmark>/<setting>/<metric>`: score} of the encoder of that step


def check_until(config: Config, until: int) -> None:
    """Raise ConfigError unless `until` is one of the run's steps."""
    if not 1 <= until <= config.training.steps:
        raise ConfigError(
            f"until = {until}: training can be stopped after 1 to training.steps = {config.training.steps} steps"
        )


def finished_segment(config: Config, until: int) -> Segment | None:
    """The run of `config` up to step `until`, with scores on all its benchmarks; None if it has not come that far.

    For the last step only a run that has finished counts.
    """
    folders = RunFolder.finished(config)
    is_last = until == config.training.steps
    for folder in folders if is_last else [*folders, RunFolder.current(config)]:
        evaluated = is_last and config.evaluation.benchmarks
        file = folder.results / "metrics.json" if evaluated else _scores_file(folder, until)
        scores = scores_in(folder, file, config)
        if scores is not None:
            return Segment(folder, until, scores)
    return None


def last_segment(config: Config) -> Segment | None:
    """The unfinished run of `config` up to the last step that was evaluated; None if none was."""
    folder = RunFolder.current(config)
    for name in sorted(files_in(folder.results_steps, "*.json"), reverse=True):
        scores = scores_in(folder, folder.results_steps / name, config)
        if scores is not None:
            return Segment(folder, int(name.removesuffix(".json")), scores)
    return None


def record_scores(folder: RunFolder, step: int, metrics: Place | None, config: Config) -> dict[str, float]:
    """Record that the segment up to `step` is done, with its scores and how `config` has them measured.

    Args:
        folder: the run's folder.
        step: last step of the segment.
        metrics: the `metrics.json` of its evaluation; None: it was not evaluated.
        config: the run's.

    Returns:
        The scores.

    Raises:
        StorageError: the folder cannot be written.
    """
    file = _scores_file(folder, step)
    try:
        text = "{}" if metrics is None else metrics.read_text(encoding="utf-8")
        if isinstance(file, Path):
            make_folder(file.parent)
        write_text(file, text)
        how, steps = measured_by(config), folder.state.measured_steps
        if steps is None:  # an earlier version kept one value for all files
            before = folder.state.measured
            steps = {} if before is None else dict.fromkeys(files_in(folder.results_steps, "*.json"), before)
        folder.update(measured=how, measured_steps=steps | {file.name: how})
        scores: dict[str, float] = json.loads(text)
    except (OSError, ValueError) as error:
        raise StorageError(f"cannot keep the scores of step {step} in {file}: {error}") from error
    return scores


def measured_by(config: Config) -> dict[str, Any]:
    """Values of all options of an evaluation, besides the benchmarks, that a model's scores depend on."""
    evaluation = config.evaluation
    found: dict[str, Any] = {"candidates": evaluation.candidates, "index": evaluation.index}
    if evaluation.index is not None:
        found |= {"index_parameters": evaluation.index_parameters, "depth": evaluation.depth}
    # Only where they are set, so that scores of earlier versions, which had none of them, count.
    if evaluation.precision is not None:
        found["precision"] = evaluation.precision
    found |= {name: True for name in ("ignore_identical_ids", "allow_missing_documents") if getattr(evaluation, name)}
    parts = [text for text in evaluation.benchmarks if "?" in text.partition("=")[0]]  # of data sets: some languages
    return found | ({"parts": parts} if parts else {})


def _measured(folder: RunFolder, file: Place) -> dict[str, Any] | None:
    """How the scores in a file of `folder` were measured. Runs of earlier versions have one value for all files."""
    steps = folder.state.measured_steps
    if steps is not None and file.parent == folder.results_steps:
        return steps.get(file.name)
    return folder.state.measured


def scores_in(folder: RunFolder, file: Place, config: Config) -> dict[str, float] | None:
    """The scores in a file of `folder` on the benchmarks of `config`; None if one is missing or measured differently.

    Raises:
        StorageError: remote storage does not answer, so whether there are scores is not known.
    """
    wanted = {spec.name for spec in parse_benchmarks(config.evaluation.benchmarks, config.data.catalogue)}
    if wanted and _measured(folder, file) != measured_by(config):
        return None
    try:
        scores: dict[str, float] = json.loads(file.read_text(encoding="utf-8"))
    except RemoteError as error:
        raise StorageError(f"cannot read {file}: {error.strerror}") from error
    except (OSError, ValueError):
        return None
    if not wanted <= {key.partition("/")[0] for key in scores}:
        return None
    return {key: score for key, score in scores.items() if key.partition("/")[0] in wanted}


def check_not_beyond(folder: RunFolder, until: int) -> None:
    """Raise ConfigError if the run in `folder` has gone further than `until`: there is no way back."""
    reached = next((n for n in checkpoints_in(folder.checkpoints) if is_complete(folder.checkpoints / n)), None)
    if reached is not None and step_of(reached) > until:
        raise ConfigError(
            f"until = {until}, but the run in {folder.path} has come to step {step_of(reached)}; "
            "stop later, or delete the folder"
        )


def _scores_file(folder: RunFolder, step: int) -> Place:
    return folder.results_steps / f"{step:08d}.json"


LINKED_BYTES = 2**20
"""Files of at least this size are hard-linked where that works; smaller ones, such as model cards, may change later."""


def fork_run(config: Config, origin: Config, step: int) -> bool:
    """Have the run of `config` begin with the checkpoint of `step` of the run of `origin`.

    Nothing is done where the run has come that far already, or is finished.

    Returns:
        Whether the run can go on from `step`. If not, `origin` has no such checkpoint, and the run begins at step 0.

    Raises:
        StorageError: the storage cannot be written.
    """
    config, origin = absolute_paths(config), absolute_paths(origin)
    if RunFolder.finished(config) or _furthest(RunFolder.current(config)) >= step:
        return True
    for source in [*RunFolder.finished(origin), RunFolder.current(origin)]:
        checkpoint = _checkpoint(source, step)
        if checkpoint is not None:
            folder = RunFolder.open(config)
            before = source.state
            try:
                _copy(source.initial_model, folder.initial_model)
                _copy_best(source, checkpoint, folder)
                folder.update(continues=before.mlflow_run_id, stopped_at=step, inputs=before.inputs)
                # Last: where the checkpoint is, the run remembers whose it is.
                _copy(checkpoint, folder.checkpoints / checkpoint.name)
            except OSError as error:
                raise StorageError(
                    f"cannot copy {checkpoint} to {folder.checkpoints}: {error.strerror or error}"
                ) from error
            return True
    return False


def _furthest(folder: RunFolder) -> int:
    """The step of a run's last complete checkpoint; 0 without one."""
    steps = [step_of(name) for name in checkpoints_in(folder.checkpoints) if is_complete(folder.checkpoints / name)]
    return max(steps, default=0)


def _checkpoint(folder: RunFolder, step: int) -> Place | None:
    names = [name for name in checkpoints_in(folder.checkpoints) if step_of(name) == step]
    return next((folder.checkpoints / name for name in names if is_complete(folder.checkpoints / name)), None)


def _copy_best(source: RunFolder, checkpoint: Place, to: RunFolder) -> None:
    """Copy the best encoder up to a checkpoint of a run, unless the run has found a better one since."""
    manifest = Manifest.read(checkpoint, 0)
    if manifest.best is not None and best_in(source.model) == (manifest.best_step, manifest.best):
        _copy(source.model, to.model)


def _copy(source: Place, to: Place) -> None:
    """Copy a folder, completely or not at all."""
    if to.exists() and is_whole(to):
        return
    if isinstance(to, RemotePath):
        with as_local(source) as folder:
            push(folder, to)
    elif isinstance(source, Path):
        _copy_here(source, to)


def _copy_here(source: Path, to: Path) -> None:
    make_folder(to.parent)
    with whole(to) as unfinished:
        shutil.copytree(source, unfinished, copy_function=_link_or_copy)


def _link_or_copy(source: str, to: str) -> str:
    """Link large files: those of checkpoints and weights are never written to again, only replaced or deleted."""
    if Path(source).stat().st_size >= LINKED_BYTES:
        try:
            os.link(source, to)
        except OSError:
            pass  # another file system, or one without links
        else:
            return to
    return str(shutil.copy2(source, to))
