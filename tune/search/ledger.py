"""The points that a search has begun, in their order: what the same command goes on with after a kill."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from hbtrain.errors import StorageError
from hbtrain.storage import Place, write_text
from tune.space.space import Space


class Ledger:
    """A file of {key: value}, one point a line."""

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
        """Add a point, kept before this returns.

        Raises:
            StorageError: the file cannot be written.
        """
        try:
            write_text(self._file, "".join(f"{json.dumps(dict(p))}\n" for p in [*self.points(), point]))
        except OSError as error:
            raise StorageError(f"cannot write {self._file}: {error.strerror or error}") from error


def known_points(space: Space, ledger: Ledger) -> list[dict[str, Any]]:
    """The points of the ledger that the space holds, as it is now."""
    points = []
    for kept in ledger.points():
        if kept.keys() == space.draws.keys():
            point = {key: draw.recalled(kept[key]) for key, draw in space.draws.items()}
            if None not in point.values():
                points.append(point)
    return points
