"""Bad rows of a source: the first is an error, or all are listed, counted and skipped."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from types import TracebackType
from typing import TextIO

from hbtrain.errors import DataError
from hbtrain.formats.inputs import Position

FLAG = "--skip-bad-rows"


class Drops:
    """Collects the bad rows of a part of a source.

    Attributes:
        counts: dropped rows by reason.
    """

    def __init__(self, skip: bool, path: Path | None) -> None:
        """Raise at the first bad row, or with `skip` write each as a JSON line to `path` (None: nowhere)."""
        self.counts: Counter[str] = Counter()
        self._skip = skip
        self._stream: TextIO | None = path.open("w", encoding="utf-8") if path is not None else None

    @classmethod
    def silent(cls) -> Drops:
        """For reading a part again: skips the bad rows, which the first reading has reported."""
        return cls(True, None)

    def bad(self, position: Position, reason: str, detail: str = "") -> None:
        """Report a row that cannot be used; see `hbtrain.formats.inputs.BadRows`.

        Raises:
            DataError: unless bad rows are skipped.
        """
        if not self._skip:
            raise DataError(f"{position}: {reason}{detail}; mend it, or pass over such rows with {FLAG}")
        self.leave_out(position, reason, detail)

    def leave_out(self, position: Position, reason: str, detail: str = "") -> None:
        """Count and list what is left out without harm, such as a text that is there twice; never an error."""
        self.counts[reason] += 1
        if self._stream is not None:
            record = {"file": position.file, position.unit: position.number, "reason": f"{reason}{detail}"}
            self._stream.write(json.dumps(record, ensure_ascii=False) + "\n")

    def __enter__(self) -> Drops:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._stream is not None:
            self._stream.close()
