"""The files of a search: the points that it has begun, with which it goes on after an interruption, and its outcome."""

from __future__ import annotations

import json
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from hbtrain.errors import StorageError
from hbtrain.storage import Place, write_text
from hbtrain.storage.files import append_line
from hbtrain.sweeps.drivers import Schedule
from hbtrain.sweeps.points import Finished
from hbtrain.sweeps.space import Space, Trial


class Ledger:
    """The file `points.jsonl`: {dotted key: value} of each point, one a line, in the order of the draws.

    It is read once, then each point is appended; in a bucket, which does not append, the file is written anew. A file
    that cannot be read or written is a StorageError.
    """

    def __init__(self, file: Place) -> None:
        self._file = file
        self._lines: dict[str, str] | None = None  # {the point's JSON, sorted by key: its line}; None: not read yet

    def points(self) -> list[dict[str, Any]]:
        """Every point once, none if the file does not exist; lines that are not JSON are skipped."""
        self._lines = self._read()
        return [json.loads(line) for line in self._lines.values()]

    def _read(self) -> dict[str, str]:
        try:
            lines = self._file.read_text(encoding="utf-8").splitlines()
        except FileNotFoundError:
            return {}
        except OSError as error:
            raise StorageError(f"cannot read {self._file}: {error.strerror or error}") from error
        found: dict[str, str] = {}
        for line in lines:
            with suppress(ValueError):
                found.setdefault(json.dumps(json.loads(line), sort_keys=True), line)
        return found

    def add(self, point: Mapping[str, Any]) -> None:
        """Add a point to the file, unless it is there; it is synced to disk when this returns."""
        if self._lines is None:
            self._lines = self._read()
        line = json.dumps(dict(point))
        key = json.dumps(json.loads(line), sort_keys=True)
        if key in self._lines:
            return
        try:
            if isinstance(self._file, Path):
                append_line(self._file, line)
            else:
                write_text(self._file, "".join(f"{one}\n" for one in [*self._lines.values(), line]))
            self._lines[key] = line
        except OSError as error:
            raise StorageError(f"cannot write {self._file}: {error.strerror or error}") from error


def known_points(space: Space, ledger: Ledger) -> list[dict[str, Any]]:
    """The points of the ledger that can still be drawn from the space, which may have changed since."""
    points = []
    for written in ledger.points():
        if written.keys() == space.draws.keys():
            with suppress(ValueError):  # it can no longer be drawn
                points.append({key: draw.recalled(written[key]) for key, draw in space.draws.items()})
    return points


@dataclass(frozen=True)
class Stopped(Finished):
    """A trial that was stopped before the end of training, as others had better scores; these are of its last step."""

    step: int


@dataclass(frozen=True)
class SearchOutcome:
    """What became of the trials of a search or a grid."""

    finished: list[Finished] = field(default_factory=list)
    """Those that were trained in full, members of a population included."""
    stopped: list[Stopped] = field(default_factory=list)
    members: list[tuple[Schedule, Finished]] = field(default_factory=list)
    """The members of a population, with the alphas or mixtures of their weights' whole history. A run from scratch with
    such a schedule ends with the same weights; its folder is that in which training ended, and may have begun in
    another."""
    failures: dict[str, str] = field(default_factory=dict)  # {label: why it failed}
    failed: list[Trial] = field(default_factory=list)  # those of `failures` whose values the configuration allows


def save_outcome(outcome: SearchOutcome, path: Place) -> None:
    """Write as JSON, of each trial, its values, the step if it was stopped, its scores and the folder of its run."""
    tree = {
        "finished": [{"values": one.trial.values, **_result(one)} for one in outcome.finished],
        "stopped": [{"values": one.trial.values, "step": one.step, **_result(one)} for one in outcome.stopped],
        "members": [{"schedule": dict(schedule), **_result(one)} for schedule, one in outcome.members],
        "failed": outcome.failures,
    }
    try:
        write_text(path, json.dumps(tree, indent=2, ensure_ascii=False) + "\n")
    except OSError as error:
        raise StorageError(f"cannot write the outcome to {path}: {error.strerror or error}") from error


def _result(one: Finished) -> dict[str, Any]:
    """Scores `<benchmark>/<setting>/<metric>`, without those of single languages, whose keys are longer; the folder."""
    return {"scores": {key: score for key, score in one.scores.items() if key.count("/") == 2}, "run": one.folder.name}
