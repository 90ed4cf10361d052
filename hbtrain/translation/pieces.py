"""Long texts in pieces that a model can read: lines, and runs of sentences. Nothing is cut off."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import NamedTuple

from hbtrain.translation.languages import Language

_LINE_END = re.compile(r"(\s*\n\s*)")
# After the stop of a sentence: a blank, but in Chinese and Japanese nothing.
_SENTENCE_END = re.compile(r"(?<=[.!?…।؟])(\s+)|(?<=[。！？])(\s*)(?=\S)")


class Piece(NamedTuple):
    """A part of a text that is translated on its own, and what stands between it and the next."""

    text: str
    gap: str


def split(text: str, fits: Callable[[str], bool]) -> list[Piece] | None:
    """The pieces of a text: each line, or, of lines that do not fit, as many sentences as do.

    Args:
        text: not blank; blanks around it are left out.
        fits: whether the model can read a piece.

    Returns:
        Pieces that are, with their gaps, the whole text; None if one sentence alone does not fit.
    """
    parts = _LINE_END.split(text.strip())
    pieces: list[Piece] = []
    for line, gap in zip(parts[::2], [*parts[1::2], ""], strict=True):
        if fits(line):
            pieces.append(Piece(line, gap))
            continue
        packed = _packed(_sentences(line), fits)
        if packed is None:
            return None
        pieces += [*packed[:-1], Piece(packed[-1].text, gap)]
    return pieces


def join(pieces: Sequence[Piece], translations: Sequence[str], target: Language) -> str:
    """The translation of a whole text from those of its pieces; lines stay lines."""
    between = "" if "CJK" in target.scripts else " "
    joined = "".join(
        translation.strip() + (piece.gap if "\n" in piece.gap else between)
        for piece, translation in zip(pieces[:-1], translations[:-1], strict=True)
    )
    return joined + translations[-1].strip()


def _sentences(line: str) -> list[Piece]:
    found, start = [], 0
    for end in _SENTENCE_END.finditer(line):
        found.append(Piece(line[start : end.start()], end.group()))
        start = end.end()
    return [*found, Piece(line[start:], "")]


def _packed(sentences: Sequence[Piece], fits: Callable[[str], bool]) -> list[Piece] | None:
    packed: list[Piece] = []
    for sentence in sentences:
        if not fits(sentence.text):
            return None
        longer = packed[-1].text + packed[-1].gap + sentence.text if packed else ""
        if packed and fits(longer):
            packed[-1] = Piece(longer, sentence.gap)
        else:
            packed.append(sentence)
    return packed
