"""Availability patterns of rows: which languages a row's query has, and which its passage."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from hbtrain.corpus.conflicts import Int64s
from hbtrain.corpus.preparation.numbering import PatternFile
from hbtrain.corpus.preparation.numbers import blocks, save_npy
from hbtrain.corpus.preparation.pairs import Rows


def write_patterns(
    rows: Rows, sides: tuple[PatternFile | None, PatternFile | None], languages: tuple[list[str], list[str]], path: Path
) -> dict[str, Any]:
    """What the manifest says of patterns; the pattern of each row goes to `path` where there are several.

    Args:
        rows: of the corpus.
        sides: bits of query and passage numbers; None: each number has all languages of its side.
        languages: what the bits of each side mean.
        path: a `.npy` file [R].
    """
    known: dict[tuple[int, int], int] = {}
    counts: list[int] = []
    raw = path.with_suffix(".raw")
    with raw.open("wb") as stream:
        for queries, passages in zip(blocks(rows.queries), blocks(rows.passages), strict=True):
            both = np.stack([_bits(sides[0], queries, len(languages[0])), _bits(sides[1], passages, len(languages[1]))])
            seen, code = np.unique(both, axis=1, return_inverse=True)
            numbers = []
            for query, passage in seen.T.tolist():
                numbers.append(known.setdefault((query, passage), len(known)))
                if len(counts) < len(known):
                    counts.append(0)
            row_codes = np.array(numbers, np.int64)[code.reshape(-1)]
            for number, found in zip(*np.unique(row_codes, return_counts=True), strict=True):
                counts[number] += int(found)
            stream.write(row_codes.astype("<i8").tobytes())
    if len(known) > 1:
        save_npy(blocks(raw), path, len(rows), len(known))
    raw.unlink()
    query_sets = [_languages(bits, languages[0]) for bits, _ in known]
    passage_sets = [_languages(bits, languages[1]) for _, bits in known]
    # A language that only negatives have is none of the rows'.
    names = sorted(set().union(*query_sets, *passage_sets))
    return {
        "languages": names,
        "query_patterns": [[name in own for name in names] for own in query_sets],
        "passage_patterns": [[name in own for name in names] for own in passage_sets],
        "pattern_counts": counts,
    }


def _bits(side: PatternFile | None, numbers: Int64s, languages: int) -> Int64s:
    return np.full(len(numbers), (1 << languages) - 1, np.int64) if side is None else side.of(numbers)


def _languages(bits: int, languages: list[str]) -> set[str]:
    return {language for place, language in enumerate(languages) if bits >> place & 1}
