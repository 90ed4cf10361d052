"""The points that a search has begun, in their order: what the same command goes on with after a kill."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from hbtrain.errors import StorageError
from tune.space import Space


class Ledger:
    """A file of {key: value}, one point a line."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def points(self) -> list[dict[str, Any]]:
        """Every point once; a last line that a kill cut off is passed over."""
        try:
            lines = self._path.read_text(encoding="utf-8").splitlines()
        except OSError:
            return []
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
        """Add a point, on the disk before this returns.

        Raises:
            StorageError: the file cannot be written.
        """
        try:
            with self._path.open("a", encoding="utf-8") as out:
                # A line that was cut off ends here, and not in front of this one.
                out.write(("\n" if out.tell() and not self._ends_well() else "") + json.dumps(dict(point)) + "\n")
                out.flush()
                os.fsync(out.fileno())
        except OSError as error:
            raise StorageError(f"cannot write {self._path}: {error.strerror or error}") from error

    def _ends_well(self) -> bool:
        return self._path.read_bytes().endswith(b"\n")


def known_points(space: Space, ledger: Ledger) -> list[dict[str, Any]]:
    """The points of the ledger that the space holds, as it is now."""
    return [
        point
        for point in ledger.points()
        if point.keys() == space.draws.keys() and all(draw.contains(point[key]) for key, draw in space.draws.items())
    ]
