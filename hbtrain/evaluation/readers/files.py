"""Where the files of benchmarks are in a folder."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from hbtrain.errors import DataError

DEPTH = 3
"""Folders below a benchmark's own in which its files are looked for."""


def found_below(folder: Path, pattern: str) -> list[Path]:
    """What matches a glob pattern in a folder or some levels below it, in the order of names."""
    return sorted(path for depth in range(DEPTH + 1) for path in folder.glob("*/" * depth + pattern))


def one_of(folder: Path, names: Sequence[str], what: str) -> Path:
    """The one file of those names (each also with .gz) in a folder.

    Raises:
        DataError: there is none, or more than one.
    """
    there = [folder / name for stem in names for name in (stem, f"{stem}.gz") if (folder / name).is_file()]
    if not there:
        raise DataError(f"{folder} has no {what}: {' or '.join(names)} is expected there, plain or .gz")
    if len(there) > 1:
        raise DataError(f"{folder} holds both {there[0].name} and {there[1].name}; remove one")
    return there[0]
