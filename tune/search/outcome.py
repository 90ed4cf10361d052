"""What a search leaves: trials that were trained in full, those that were stopped earlier, members of a population."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from hbtrain.errors import StorageError
from hbtrain.storage import Place, write_text
from tune.findings.points import Finished
from tune.search.alpha_schedule import Schedule
from tune.space.trials import Trial


@dataclass(frozen=True)
class Stopped:
    """A trial that was not trained in full, as others had better scores at that step."""

    trial: Trial
    step: int
    scores: Mapping[str, float]
    """Of the encoder of that step."""
    folder: Place
    """Of its run."""


@dataclass(frozen=True)
class Member:
    """A member of a population at the end of training."""

    schedule: Schedule
    """[(step, alpha), ...]: with it a run from scratch ends with the same weights."""
    scores: Mapping[str, float]
    folder: Place
    """Of the run that holds its end; where it took over another one, that has the beginning."""


@dataclass(frozen=True)
class SearchOutcome:
    """All trials of a search."""

    finished: list[Finished] = field(default_factory=list)
    """Trained in full, members included."""
    stopped: list[Stopped] = field(default_factory=list)
    members: list[Member] = field(default_factory=list)
    failures: dict[str, str] = field(default_factory=dict)
    """{label: why it failed}."""


def save_outcome(outcome: SearchOutcome, path: Place) -> None:
    """Write the outcome as JSON: per trial its values, where it ended, its macro scores and its run's folder.

    Raises:
        StorageError: `path` cannot be written.
    """
    tree: dict[str, Any] = {
        "finished": [
            {"values": one.trial.values, "scores": _macro(one.scores), "run": one.folder.name}
            for one in outcome.finished
        ],
        "stopped": [
            {"values": one.trial.values, "step": one.step, "scores": _macro(one.scores), "run": one.folder.name}
            for one in outcome.stopped
        ],
        "members": [
            {"schedule": dict(one.schedule), "scores": _macro(one.scores), "run": one.folder.name}
            for one in outcome.members
        ],
        "failed": outcome.failures,
    }
    try:
        write_text(path, json.dumps(tree, indent=2, ensure_ascii=False) + "\n")
    except OSError as error:
        raise StorageError(f"cannot write the outcome to {path}: {error.strerror or error}") from error


def _macro(scores: Mapping[str, float]) -> dict[str, float]:
    return {key: score for key, score in scores.items() if key.count("/") == 2}
