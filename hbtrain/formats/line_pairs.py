"""Two files that are line by line: line n of one translates line n of the other, which nothing in the files says.

That a side was sorted, shuffled or has lost a line would give other scores without a word; so it is looked for. What
translations have in common in any two languages is their length: over the sentences and headings of human and machine
translations, the logarithms of the lengths in characters correlate by 0.76 to 0.97, also between Chinese and English.
Of n lines in chance order, the correlation times sqrt(n - 1) is normally distributed around 0 (`strength` below).
"""

from __future__ import annotations

import unicodedata
from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Any

import numpy as np
import numpy.typing as npt

from hbtrain.errors import DataError
from hbtrain.formats.inputs import numbered_lines

Floats = npt.NDArray[np.float64]
SORTED_LINES = 8  # from so many different lines on, that they stand in order is no chance (one in 8! = 40,320)
ALIGNED, FEW_ALIGNED, CORRELATED = 3.0, 2.0, 0.35
"""Strength (the second: of fewer than `FEW_LINES`) and correlation from which on lines belong together, although one
side is sorted: pairs may be sorted too. That lines are sorted says a little about their lengths, hence the latter."""
FEW_LINES = 20
JUDGED_LINES = 300
"""From so many lines on, a strength below `ALIGNED` says that they do not: the correlation is below 0.17."""
WINDOW, SHIFTS, SHIFTED = 100, 5, 5.0
"""A gap is found in windows of so many lines, by up to so many lines, where a shift has at least this strength, and is
stronger by this than no shift."""


def read_line_pairs(one: str, other: str, published: str = "as they were published") -> tuple[list[str], list[str]]:
    """The lines of two files that are line by line; lines that are blank in both are left out.

    Args:
        one: a file.
        other: the other one.
        published: in words for messages, which such files are line by line.

    Raises:
        DataError: a file cannot be read or is empty; a line is blank in one of them; they differ in length; or their
            lines do not go together, as one is sorted or has a line more somewhere. The message ends with the way out.
    """
    sides = _lines(one), _lines(other)
    for number, (first, second) in enumerate(zip(*sides, strict=False), 1):
        if (not first) != (not second):
            blank, full = (one, other) if not first else (other, one)
            raise _refusal(published, f"{blank} line {number} is blank, and line {number} of {full} is not")
    counts = [sum(map(bool, side)) for side in sides]
    if len(sides[0]) != len(sides[1]) or not counts[0]:
        where = _parting(*map(_lengths, sides)) if all(counts) else ""
        raise _refusal(published, f"{one}, {other}: {counts[0]} sentences with {counts[1]} translations{where}")
    pairs = [pair for pair in zip(*sides, strict=True) if all(pair)]
    found = [first for first, _ in pairs], [second for _, second in pairs]
    _check(found, (one, other), published)
    return found


def strength(one: Floats, other: Floats) -> float | None:
    """How strongly two lists of n numbers go together: their correlation times sqrt(n - 1); None if one is constant."""
    if len(one) < 2 or not one.std() or not other.std():
        return None
    return float(np.corrcoef(one, other)[0, 1] * np.sqrt(len(one) - 1))


def is_sorted(lines: Sequence[str]) -> bool:
    """Whether lines stand in order, forwards or backwards: by characters, letters or length, but for one in twenty."""
    return any(_in_order([key(line) for line in lines]) for key in _ORDERS)


def _lines(file: str) -> list[str]:
    """The lines of a file without blanks around them; blank ones at its end are left out."""
    found = [line.strip() for line, _ in numbered_lines(file, blank=True)]
    while found and not found[-1]:
        found.pop()
    return found


def _lengths(lines: Sequence[str]) -> Floats:
    return np.log1p(np.array([len(line) for line in lines], np.float64))


def _check(sides: tuple[list[str], list[str]], files: tuple[str, str], published: str) -> None:
    """Raise DataError if the lines of two sides do not go together."""
    one, other = map(_lengths, sides)
    equal = sum(first == second for first, second in zip(*sides, strict=True))
    found = strength(one, other)
    if 2 * equal >= len(one):
        return
    least = FEW_ALIGNED if len(one) < FEW_LINES else max(ALIGNED, CORRELATED * np.sqrt(len(one) - 1))
    if found is None or found < least:
        for file, side in zip(files, sides, strict=True):
            if is_sorted(side):
                raise _refusal(
                    published,
                    f"the lines of {file} are sorted and do not go with the other side ({' and '.join(files)})",
                )
        if found is not None and found < ALIGNED and len(one) >= JUDGED_LINES:
            raise _refusal(
                published,
                f"the lines of {files[0]} and {files[1]} do not go together: their lengths have nothing in common",
            )
    for start in (*range(0, len(one) - WINDOW, WINDOW // 2), len(one) - WINDOW):
        if shift := _shift(one, other, start):
            place = f"{abs(shift)} {'after' if shift > 0 else 'before'}"
            raise _refusal(
                published,
                f"around line {start + WINDOW // 2}, a line of {files[0]} seems to go with the line of {files[1]} that "
                f"stands {place} its own",
            )


def _shift(one: Floats, other: Floats, start: int) -> int:
    """By how many lines `other` is behind `one` in the window that begins at `start`; 0 if none is much likelier."""
    found = {}
    for shift in range(-SHIFTS, SHIFTS + 1):
        first = max(start, -shift, 0)
        last = max(first, min(start + WINDOW, len(other) - shift))  # files may be shorter than a shift
        found[shift] = strength(one[first:last], other[first + shift : last + shift]) or 0.0
    best = max(found, key=lambda shift: found[shift])
    return best if found[best] >= SHIFTED and found[best] - found[0] >= SHIFTED else 0


def _parting(one: Floats, other: Floats) -> str:
    """In words, at which line sides of different length part, if all lines that one has more stand together."""
    longer, shorter = (one, other) if len(one) > len(other) else (other, one)
    more, size = len(longer) - len(shorter), len(shorter)
    longer, shorter = longer - longer.mean(), shorter - shorter.mean()
    together = np.cumsum(np.abs(longer[:size] - shorter))
    behind = np.cumsum(np.abs(longer[more:] - shorter)[::-1])[::-1]
    costs = np.append(0.0, together) + np.append(behind, 0.0)
    return f"; by their lengths they part at about line {int(costs.argmin()) + 1}"


def _in_order(keys: Sequence[Any]) -> bool:
    steps = [(second > first) for first, second in pairwise(keys) if first != second]
    up = sum(steps)
    return len(set(keys)) >= SORTED_LINES and 20 * min(up, len(steps) - up) <= len(steps)


def _letters(line: str) -> str:
    """A line as dictionaries and the sort command order it: by its letters, whatever their accents."""
    return "".join(x for x in unicodedata.normalize("NFKD", line).casefold() if x.isalnum())


_ORDERS: tuple[Callable[[str], Any], ...] = (str, str.casefold, _letters, len)


def _refusal(published: str, problem: str) -> DataError:
    return DataError(
        f"{problem}; line n of one side must translate line n of the other: fetch both again, {published}, or give the "
        "pairs as one .tsv file"
    )
