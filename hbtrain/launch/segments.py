"""Runs in segments: trained up to a step, evaluated, and gone on with later as if they had never stopped.

A run folder remembers the step where training stopped last, and in `results-steps` what the encoder of each such step
scored. A segment that is done is not trained or evaluated again.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hbtrain.config import Config
from hbtrain.errors import ConfigError, StorageError
from hbtrain.evaluation.benchmark import parse_benchmark
from hbtrain.launch.run_folder import RunFolder
from hbtrain.storage import Place, RemoteError, files_in, write_text
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
