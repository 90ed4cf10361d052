"""Runs in segments: trained up to a step, evaluated, and gone on with later as if they had never stopped.

A run folder remembers the step where training stopped last, and in `results-steps` what the encoder of each such step
scored. A segment that is done is not trained or evaluated again.

A run that goes on from another run's checkpoint, in a folder of its own.

Where the batches of the first steps are the same (see `hbtrain.batching.plan`), the run ends with the weights that it
would have had if it had been trained from its own first step.
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
from hbtrain.evaluation.benchmarks import parse_benchmark
from hbtrain.runs.run_folder import RunFolder
from hbtrain.storage import Place, RemoteError, RemotePath, as_local, files_in, is_whole, push, write_text
from hbtrain.tracking.past_runs import STOPPED_AT
from hbtrain.training.checkpoint_files import checkpoints_in, is_complete, step_of

CONTINUES = "continues_run"
"""What a run folder and its MLflow run call the MLflow run whose checkpoint the run began with."""


@dataclass(frozen=True)
class Segment:
    """What is known of a run that has been trained up to a step.

    Attributes:
        folder: the run's folder.
        step: where it stopped.
        scores: {`<benchmark>/<setting>/<metric>`: score} of the encoder of that step.
    """

    folder: RunFolder
    step: int
    scores: dict[str, float]


def check_until(config: Config, until: int) -> None:
    """Raise ConfigError unless `until` is one of the run's steps."""
    if not 1 <= until <= config.training.steps:
        raise ConfigError(
            f"until = {until}: training can be stopped after 1 to training.steps = {config.training.steps} steps"
        )


def finished_segment(config: Config, until: int) -> Segment | None:
    """The run of `config` as far as step `until`, with scores on all its benchmarks; None if it has not come there.

    At the last step only a run that came to its end counts.
    """
    folders = RunFolder.finished(config)
    whole = until == config.training.steps
    for folder in folders if whole else [*folders, RunFolder.current(config)]:
        evaluated = whole and config.evaluation.benchmarks
        file = folder.results / "metrics.json" if evaluated else _scores_file(folder, until)
        scores = scores_in(folder, file, config)
        if scores is not None:
            return Segment(folder, until, scores)
    return None


def last_segment(config: Config) -> Segment | None:
    """The run of `config` that is not finished, as far as it has been evaluated; None if it has not come anywhere."""
    folder = RunFolder.current(config)
    for name in sorted(files_in(folder.results_steps, "*.json"), reverse=True):
        scores = scores_in(folder, folder.results_steps / name, config)
        if scores is not None:
            return Segment(folder, int(name.removesuffix(".json")), scores)
    return None


def keep_scores(folder: RunFolder, step: int, metrics: Place | None, config: Config) -> dict[str, float]:
    """Remember that the segment up to `step` is done, with the scores in the file `metrics` (None: not evaluated).

    And how `config` has them measured.

    Raises:
        StorageError: the folder cannot be written.
    """
    file = _scores_file(folder, step)
    try:
        text = "{}" if metrics is None else metrics.read_text(encoding="utf-8")
        if isinstance(file, Path):
            file.parent.mkdir(exist_ok=True)
        write_text(file, text)
        folder.remember(measured=measured_by(config))
        scores: dict[str, float] = json.loads(text)
    except (OSError, ValueError) as error:
        raise StorageError(f"cannot keep the scores of step {step} in {file}: {error}") from error
    return scores


def measured_by(config: Config) -> dict[str, Any]:
    """All keys that decide what a model's scores are, besides the benchmarks."""
    evaluation = config.evaluation
    found: dict[str, Any] = {"candidates": evaluation.candidates, "index": evaluation.index}
    if evaluation.index is not None:
        found |= {"index_parameters": evaluation.index_parameters, "depth": evaluation.depth}
    return found


def scores_in(folder: RunFolder, file: Place, config: Config) -> dict[str, float] | None:
    """The scores in a file of `folder` on the benchmarks of `config`; None if one lacks, or was measured otherwise.

    Raises:
        StorageError: remote storage does not answer; what it holds would not be nothing.
    """
    wanted = {parse_benchmark(text).name for text in config.evaluation.benchmarks}
    if wanted and folder.recall("measured") != measured_by(config):
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
