"""The texts of one side of a source in one language, by number: a column, and where in it each number's text is."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from hbtrain.corpus.columns import CHUNK, TextColumn
from hbtrain.corpus.conflicts import Int64s


class TextTable:
    """Memory-mapped."""

    def __init__(self, folder: Path, side: str, language: str) -> None:
        """A number's text stands in the row that `place.<side>.<language>.npy` says; without that file, in its own."""
        self._column = TextColumn(folder / f"{side}.{language}.arrow")
        places = folder / f"place.{side}.{language}.npy"
        self._places: npt.NDArray[Any] | None = np.load(places, mmap_mode="r") if places.exists() else None

    def get(self, numbers: Int64s | list[int]) -> list[str | None]:
        """The texts of numbers, None where there is none in this language."""
        if self._places is None:
            return self._column.get(numbers)
        rows = self._places[numbers]
        if len(rows) and rows.min() < 0:
            found = iter(self._column.get(rows[rows >= 0]))
            return [next(found) if row >= 0 else None for row in rows.tolist()]
        return self._column.get(rows)

    def has(self, numbers: Int64s) -> npt.NDArray[np.bool_]:
        """bool [n]: whether each number has a row in this language."""
        return np.ones(len(numbers), bool) if self._places is None else np.asarray(self._places[numbers] >= 0)

    def every_text(self) -> Iterator[str]:
        """The column's texts, each once."""
        for start in range(0, len(self._column), CHUNK):
            for text in self._column.get(list(range(start, min(start + CHUNK, len(self._column))))):
                if text is not None:
                    yield text
