"""What can be measured of a translation beside its source. Nothing here knows what is good enough: `gates` does."""

from __future__ import annotations

import zlib
from collections import Counter
from dataclasses import asdict, dataclass

from hbtrain.translation.languages import Identifier, Language
from hbtrain.translation.units import UNSPACED, is_plain, letters_by_script, runs, units, words

RUN = 4
"""Words of a run that counts as repeated."""
RUN_OF_IDEOGRAMS = 6
"""Pairs of neighbours, in Chinese and Japanese."""
RUN_OF_LETTERS = 12
"""Pairs of neighbours, in alphabets without spaces."""
KANA = 20
"""Letters of Japanese that have kana among them."""
SMOOTHING = 15
"""Characters of English by which both lengths are increased: a heading of ten letters may well double."""


@dataclass(frozen=True)
class Scores:
    """Of one translation. Scores are rounded, so that they are the same after a file.

    Attributes:
        characters: of the translation, without blanks around it.
        copied: share of the source's plain words (no names, numbers, code) that stand in the translation, too.
        copyable: how many plain words the source has.
        words: how many words of any kind the source has, numbers left out.
        length: characters over those expected of this pair of languages; 1 is as expected.
        script: share of the letters that are in a script of the target, words of the source left out.
        letters: how many letters these are.
        language: probability of the target's language, of the same words; None if it was not asked for.
        repeated: share of runs of words that came before in the translation, less that of the source.
        looped: how often its most frequent run of words is there, less the same of the source.
        squeezed: how much smaller zlib makes the translation, over how much smaller it makes the source.
    """

    characters: int
    copied: float
    copyable: int
    words: int
    length: float
    script: float
    letters: int
    language: float | None
    repeated: float
    looped: int
    squeezed: float

    def as_dict(self) -> dict[str, float | None]:
        """By name."""
        return asdict(self)


def score(
    text: str, translation: str, source: Language, target: Language, identifier: Identifier | None = None
) -> Scores:
    """Measure a translation.

    Args:
        text: in `source`.
        translation: of it into `target`.
        source: the language translated from.
        target: the language that the translation should be in.
        identifier: tells languages apart; without it only scripts are looked at.
    """
    text, translation = text.strip(), translation.strip()
    copied, copyable = _copied(text, translation)
    own = " ".join(_beside(translation, text))
    counts = letters_by_script(own)
    letters = sum(counts.values())
    right = sum(counts[script] for script in target.scripts)
    if "HIRAGANA" in target.scripts and letters >= KANA and not counts["HIRAGANA"] + counts["KATAKANA"]:
        right = 0  # Chinese
    both = _again(translation, target), _again(text, source)
    repeated, looped = (there - before for there, before in zip(*both, strict=True))
    smoothing = SMOOTHING * target.density
    return Scores(
        characters=len(translation),
        copied=round(copied, 4),
        copyable=copyable,
        words=sum(any(x.isalpha() for x in word) for word in words(text)),
        length=round((len(translation) + smoothing) / (_expected(text, translation, source, target) + smoothing), 4),
        script=round(right / letters, 4) if letters else 1.0,
        letters=letters,
        language=None if identifier is None else identifier.probability(own, target.code),
        repeated=round(max(0.0, repeated), 4),
        looped=max(0, int(looped)),
        squeezed=round(_squeeze(translation) / _squeeze(text), 4),
    )


def _again(text: str, language: Language) -> tuple[float, int]:
    """The share of runs that came before in a text, and how often its most frequent run is there."""
    counts = runs(text, _run(language))
    total = counts.total()
    return ((total - len(counts)) / total, max(counts.values())) if total else (0.0, 0)


def _run(language: Language) -> int:
    if UNSPACED.isdisjoint(language.scripts):
        return RUN
    return RUN_OF_IDEOGRAMS if "CJK" in language.scripts else RUN_OF_LETTERS


def _expected(text: str, translation: str, source: Language, target: Language) -> float:
    """Characters that the translation should have; names, numbers and code in both are as long as they were."""
    shared = set(words(translation.lower()))
    same = sum(len(word) + 1 for word in words(text) if word.lower() in shared)
    return min(same, len(text)) + max(0, len(text) - same) * target.density / source.density


def _copied(text: str, translation: str) -> tuple[float, int]:
    plain = Counter(unit for word in words(text) if is_plain(word) for unit in units(word))
    number = sum(plain.values())
    found = (plain & Counter(units(translation))).total()
    return (found / number if number else 0.0), number


def _beside(text: str, other: str) -> list[str]:
    """The words of a text that another does not have."""
    shared = set(words(other.lower()))
    return [word for word in words(text) if word.lower() not in shared]


def _squeeze(text: str) -> float:
    """Characters over compressed bytes, such that short texts are near 1."""
    # A byte a character: UTF-8's three for a letter of Hindi would be squeezed however varied the text.
    raw = bytes(ord(character) & 255 for character in text)
    # What zlib adds to any text would make short ones look incompressible.
    return (len(raw) + 64) / (len(zlib.compress(raw, 6)) + 64)
