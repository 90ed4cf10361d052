"""Which numbers stand for one query, and which for one passage: one number each, and those that are declared to be one.

Passages that share a text because the source says so, and rows of one given id, are one.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np

from hbtrain.corpus.conflicts import Int64s
from hbtrain.corpus.preparation.components import Components
from hbtrain.corpus.preparation.keys import KEYS
from hbtrain.corpus.preparation.numbering import Numbering
from hbtrain.corpus.preparation.numbers import blocks, count
from hbtrain.corpus.preparation.sorting import sorted_blocks


def identities(numbering: Numbering, numbers: Path, ids: Path, folder: Path) -> Components | None:
    """The identity of each number of one side; None where every number is itself.

    Args:
        numbering: of the side.
        numbers: of the rows.
        ids: digests of the rows' ids; an empty file where none are given.
        folder: for what is needed meanwhile; it is made.
    """
    folder.mkdir()
    components = numbering.identities(folder)
    if count(ids):
        components = components or Components(folder / "components", len(numbering))
        components.link_equal(sorted_blocks(_zipped(ids, numbers), count(ids), KEYS, folder / "ids"))
    return components if components is not None and components.linked else None


def identified(components: Components | None, numbers: Path) -> Iterator[Int64s]:
    """The identities of the numbers of a file, in blocks."""
    for block in blocks(numbers):
        yield block if components is None else components.of(block)


def all_differ(numbers: Path) -> bool:
    """Whether the i-th number is i."""
    start = 0
    for block in blocks(numbers):
        if not np.array_equal(block, np.arange(start, start + len(block))):
            return False
        start += len(block)
    return True


def _zipped(a: Path, b: Path) -> Iterator[tuple[Int64s, Int64s]]:
    return zip(blocks(a), blocks(b), strict=True)
