"""What a search writes: the points that it has begun, for the same command to go on with after a kill, and its outcome:
trials that were trained in full, those that were stopped earlier, members of a population.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from hbtrain.errors import StorageError
from hbtrain.storage import Place, write_text
from hbtrain.sweeps.drivers import Schedule
from hbtrain.sweeps.points import Finished
from hbtrain.sweeps.space import Space, Trial


class Ledger:
    """The file `points.jsonl`: {dotted key: value} of each point, one a line, in the order in which they were drawn."""

    def __init__(self, file: Place) -> None:
        self._file = file

    def points(self) -> list[dict[str, Any]]:
        """Every point once; a line that cannot be read is passed over.

        Raises:
            StorageError: the file is there, or may be, and cannot be read.
        """
        try:
            lines = self._file.read_text(encoding="utf-8").splitlines()
        except FileNotFoundError:
            return []
        except OSError as error:
            raise StorageError(f"cannot read {self._file}: {error.strerror or error}") from error
        points: list[dict[str, Any]] = []
        for line in lines:
            try:
                point = json.loads(line)
            except ValueError:
                continue
            if point not in points:
                points.append(point)
        return points

    def add(self, point: Mapping[str, Any]) -> None:
        """Add a point; it is on disk when this returns.

        Raises:
            StorageError: the file cannot be written.
        """
        try:
            write_text(self._file, "".join(f"{json.dumps(dict(p))}\n" for p in [*self.points(), point]))
        except OSError as error:
            raise StorageError(f"cannot write {self._file}: {error.strerror or error}") from error


def known_points(space: Space, ledger: Ledger) -> list[dict[str, Any]]:
    """The points of the ledger that can be drawn from the space as it is now."""
    points = []
    for written in ledger.points():
        if written.keys() == space.draws.keys():
            point = {key: draw.recalled(written[key]) for key, draw in space.draws.items()}
            if None not in point.values():
                points.append(point)
    return points


@dataclass(frozen=True)
class Stopped:
    """A trial that was not trained in full, as others had better scores at that step."""

    trial: Trial
    step: int
    scores: Mapping[str, float]
    """Scores of the encoder after that step."""
    folder: Place
    """Its run's."""


@dataclass(frozen=True)
class Member:
    """A member of a population at the end of training."""

    schedule: Schedule
    """[(step, alpha), ...]; a run from scratch that trains with it ends with the same weights."""
    scores: Mapping[str, float]
    folder: Place
    """The folder of the run that ended its training; where it took over another member, it began in that one's run."""


@dataclass(frozen=True)
class SearchOutcome:
    """What became of all trials of a search, or of a grid, where none is stopped early."""

    finished: list[Finished] = field(default_factory=list)
    """Trained in full, members included."""
    stopped: list[Stopped] = field(default_factory=list)
    members: list[Member] = field(default_factory=list)
    failures: dict[str, str] = field(default_factory=dict)
    """{label: why it failed}."""


def save_outcome(outcome: SearchOutcome, path: Place) -> None:
    """Write the outcome as JSON: for each trial its values, where it ended, its macro scores and its run's folder.

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
