"""Scores that compare a translation with its source; `gates` decides which scores are good enough."""

from __future__ import annotations

import zlib
from collections import Counter
from dataclasses import dataclass

from hbtrain.translation.languages import Identifier, Language
from hbtrain.translation.units import UNSPACED, is_plain, letters_by_script, runs, units, words

RUN = 4  # length in words of the runs whose repetitions are counted
RUN_OF_IDEOGRAMS = 6  # the same in pairs of neighbouring characters, for Chinese and Japanese
RUN_OF_LETTERS = 12  # the same in pairs of neighbouring letters, for alphabets without spaces
KANA = 20  # so many letters of Japanese always have kana among them; without any, the text is Chinese
SMOOTHING = 15
"""Characters of English that are added to both lengths, as a heading of ten letters may well become twice as long."""


@dataclass(frozen=True)
class Scores:
    """The scores of one translation, rounded so that they are the same when read from a file."""

    characters: int  # how many the translation has, without spaces around it
    copied: float  # share of the source's plain words (no names, numbers or code) that the translation also has
    copyable: int  # how many plain words the source has
    words: int  # how many words of any kind the source has, without numbers
    length: float  # characters of the translation, relative to the number expected for this pair of languages
    script: float  # share of its letters that are in a script of the target, without words that the source also has
    letters: int  # how many letters that share is of
    # probability that the words of `script` are in the target language; None if it was not identified
    language: float | None
    # share of the translation's runs of words that are repetitions, minus that of the source, at least 0
    repeated: float
    looped: int  # how often its most frequent run of words occurs, minus the same for the source, at least 0
    squeezed: float  # compression ratio of the translation under zlib, divided by that of the source


def score(
    text: str, translation: str, source: Language, target: Language, identifier: Identifier | None = None
) -> Scores:
    """Measure a translation of `text`; without an identifier, its language is not identified."""
    text, translation = text.strip(), translation.strip()
    copied, copyable = _copied(text, translation)
    own = " ".join(_words_beside(translation, text))
    counts = letters_by_script(own)
    letters = sum(counts.values())
    right = sum(counts[script] for script in target.scripts)
    if "HIRAGANA" in target.scripts and letters >= KANA and not counts["HIRAGANA"] + counts["KATAKANA"]:
        right = 0  # it is Chinese
    both = _repetition(translation, target), _repetition(text, source)
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
        squeezed=round(_compression(translation) / _compression(text), 4),
    )


def _repetition(text: str, language: Language) -> tuple[float, int]:
    """(share of a text's runs that are repetitions, how often its most frequent run occurs)."""
    counts = runs(text, _run(language))
    total = counts.total()
    return ((total - len(counts)) / total, max(counts.values())) if total else (0.0, 0)


def _run(language: Language) -> int:
    if UNSPACED.isdisjoint(language.scripts):
        return RUN
    return RUN_OF_IDEOGRAMS if "CJK" in language.scripts else RUN_OF_LETTERS


def _expected(text: str, translation: str, source: Language, target: Language) -> float:
    """How many characters the translation should have, if words that both texts have stay as long as they are."""
    shared = set(words(translation.lower()))
    same = sum(len(word) + 1 for word in words(text) if word.lower() in shared)
    return min(same, len(text)) + max(0, len(text) - same) * target.density / source.density


def _copied(text: str, translation: str) -> tuple[float, int]:
    """(share of the text's plain words that the translation has, how many plain words there are)."""
    plain = Counter(unit for word in words(text) if is_plain(word) for unit in units(word))
    number = sum(plain.values())
    found = (plain & Counter(units(translation))).total()
    return (found / number if number else 0.0), number


def _words_beside(text: str, other: str) -> list[str]:
    """The words of a text that another text does not have."""
    shared = set(words(other.lower()))
    return [word for word in words(text) if word.lower() not in shared]


def _compression(text: str) -> float:
    """Characters divided by compressed bytes, adjusted so that short texts are near 1."""
    # One byte for each character: the three of UTF-8 for a letter of Hindi can be compressed in any text.
    raw = bytes(ord(character) & 255 for character in text)
    # The constants make up for what zlib adds to any text, which would make short ones look incompressible.
    return (len(raw) + 64) / (len(zlib.compress(raw, 6)) + 64)
