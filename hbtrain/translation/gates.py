"""Quality gates: which translations are kept. Each gate accepts or rejects a translation by its scores.

The limits were set on real translations, human and machine-made, of 11 languages (docs/translation.md has the rates).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

from hbtrain.errors import ConfigError
from hbtrain.translation.scores import Scores


@dataclass(frozen=True)
class Limits:
    """The limits of the gates, each for the score of that name in `Scores`."""

    # the largest share of the source's plain words that the translation may hold, where there are `MIN_COPYABLE` or
    # more
    copied: float = 0.6
    # the smallest `length`: characters, relative to the number expected for the pair of languages
    shortest: float = 0.45
    longest: float = 2.2  # the largest `length`
    script: float = 0.6  # the smallest share of letters in the target's scripts, where there are `MIN_LETTERS` or more
    # the smallest probability of the target language, where there are `MIN_IDENTIFIABLE` letters or more; 0 turns
    # language identification off
    language: float = 0.03
    repeated: float = 0.35  # the largest share of the translation in repeated runs of words, beyond that of the source
    looped: int = 8  # how many times more than in the source the most frequent run of words may occur
    squeezed: float = 1.6  # how many times better than the source zlib may compress the translation

    def __post_init__(self) -> None:
        for name in ("shortest", "longest", "squeezed"):
            if math.isnan(getattr(self, name)):  # no text would be below or above it
                raise ConfigError(f"limit {name} = nan: must be a number")
        for name in ("copied", "script", "language", "repeated"):
            if not 0 <= getattr(self, name) <= 1:
                raise ConfigError(f"limit {name} = {getattr(self, name)}: must be from 0 to 1")
        if not 0 <= self.shortest < self.longest:
            raise ConfigError(
                f"limits shortest = {self.shortest}, longest = {self.longest}: 0 or more, and in this order"
            )
        if self.squeezed < 1:
            raise ConfigError(f"limit squeezed = {self.squeezed}: must be 1 or more")


MIN_COPYABLE = 4
"""Plain words of the source from which on their copied share counts. With two or three, a translation is a copy if it
holds all of them; with one or none it never is, as a single word is often the same in both languages."""
MIN_WORDS = 5  # words of any kind in the source from which on a translation without any other word is a copy
MIN_LETTERS = 5
"""Letters of the translation, beside the source's words, from which on their script counts; fewer may be a name."""
MIN_IDENTIFIABLE = 30  # letters of the translation, beside the source's words, from which on its language is identified

Gate = Callable[[Scores, Limits], bool]  # returns whether a translation is to be rejected


def _copy(scores: Scores, limits: Limits) -> bool:
    if scores.letters == 0 and scores.words >= MIN_WORDS:
        return limits.copied < 1
    if scores.copyable < MIN_COPYABLE:
        return scores.copyable > 1 and scores.copied == 1 and limits.copied < 1
    return scores.copied > limits.copied


def _repetition(scores: Scores, limits: Limits) -> bool:
    return scores.repeated > limits.repeated or scores.looped > limits.looped or scores.squeezed > limits.squeezed


def _language(scores: Scores, limits: Limits) -> bool:
    return scores.language is not None and scores.letters >= MIN_IDENTIFIABLE and scores.language < limits.language


GATES: dict[str, Gate] = {
    "empty": lambda scores, limits: scores.characters == 0,
    "copy": _copy,
    "repetition": _repetition,
    "script": lambda scores, limits: scores.letters >= MIN_LETTERS and scores.script < limits.script,
    "language": _language,
    "length": lambda scores, limits: not limits.shortest <= scores.length <= limits.longest,
}
"""{reason in the file of rejects: gate}, in the order in which they are asked; the first that rejects is the reason."""

TOO_LONG = "too long"
"""Reason of a text with a sentence that is too long for the model; it has no translation and no scores."""

UNFINISHED = "unfinished"
"""Reason of a translation that reached the limit on its length, whatever else is wrong with it."""

REASONS = (*GATES, UNFINISHED, TOO_LONG)


def reason_to_reject(scores: Scores, limits: Limits) -> str | None:
    """The reason of the first gate that rejects a translation; None if it passes all."""
    return next((reason for reason, rejects in GATES.items() if rejects(scores, limits)), None)
