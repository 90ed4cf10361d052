"""The last stage of a preparation: the corpus's own folder, its manifest last."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from hbtrain.corpus.conflicts import Int64s
from hbtrain.corpus.preparation.identities import all_differ
from hbtrain.corpus.preparation.numbering import Numbering
from hbtrain.corpus.preparation.numbers import blocks, count, save_npy
from hbtrain.corpus.preparation.pairs import Rows
from hbtrain.corpus.preparation.tables import Table
from hbtrain.corpus.prepared import write_manifest

DROPS = "drops.jsonl"


@dataclass(frozen=True)
class Parts:
    """What a corpus is made of.

    Attributes:
        sides: tables by language and the numbers that they share, by side; of sentences there are queries only.
        passages: the numbers of the passages.
        rows: the rows.
        stages: folders whose `.npy` files belong to the corpus.
        drops: files that list bad rows.
    """

    sides: Mapping[str, tuple[Mapping[str, Table], Numbering]]
    passages: Numbering
    rows: Rows
    stages: Sequence[Path]
    drops: Sequence[Path]


def collect(parts: Parts, manifest: dict[str, Any], folder: Path) -> dict[str, Any]:
    """Bring the files of a corpus together in `folder`, and write its manifest."""
    for side, (tables, numbering) in parts.sides.items():
        for code, (language, table) in enumerate(tables.items()):
            _link(table.column, folder / f"{side}.{language}.arrow")
            if (rows := numbering.rows(code)) is not None:
                save_npy(blocks(rows), folder / f"place.{side}.{language}.npy", len(numbering), len(table))
    for stage in parts.stages:
        for path in sorted(stage.glob("*.npy")):
            _link(path, folder / path.name)
    _rows(parts, folder)
    if parts.drops:
        with (folder / DROPS).open("wb") as stream:
            for path in parts.drops:
                with path.open("rb") as part:
                    shutil.copyfileobj(part, stream)
    write_manifest(folder, manifest)
    return {}


def _rows(parts: Parts, folder: Path) -> None:
    rows = parts.rows
    queries = parts.sides["query"][1]
    for side, numbers, bound in (
        ("query", rows.queries, len(queries)),
        ("passage", rows.passages, len(parts.passages)),
    ):
        if not all_differ(numbers):
            save_npy(blocks(numbers), folder / f"{side}_of_row.npy", len(rows), bound)
    length = count(rows.negatives)
    if length:
        save_npy(blocks(rows.negatives), folder / "negatives.npy", length, len(parts.passages))
        if rows.negatives_per_row() is None:
            save_npy(_starts(rows.negative_counts), folder / "negative_starts.npy", len(rows) + 1, length + 1)


def _starts(counts: Path) -> Iterator[Int64s]:
    """[rows + 1]: where each row's negatives begin."""
    done = 0
    yield np.zeros(1, np.int64)
    for block in blocks(counts):
        yield done + np.cumsum(block)
        done += int(block.sum())


def _link(path: Path, target: Path) -> None:
    """The same file under another name; where the file system has no such links, a copy."""
    try:
        os.link(path, target)
    except OSError:
        shutil.copyfile(path, target)
