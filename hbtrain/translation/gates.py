"""Quality gates: which translations are kept. Each gate looks at the scores of one translation and says yes or no.

The limits were set on real translations, human and machine-made, of 11 languages (docs/translation.md has the rates).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from hbtrain.errors import ConfigError
from hbtrain.translation.scores import Scores


@dataclass(frozen=True)
class Limits:
    """Where the gates close.

    Attributes:
        copied: the most of the source's plain words that may stand in the translation, from `MIN_COPYABLE` of them on;
            of fewer see there.
        shortest: the least characters, over those expected of the pair of languages.
        longest: the most characters, over those expected.
        script: the least share of letters in the target's scripts, from `MIN_LETTERS` letters on.
        language: the least probability of the target's language, from `MIN_IDENTIFIABLE` letters on; 0 asks nothing.
        repeated: the most of the translation that may be runs of words which came before, beyond the source's share.
        looped: how much more often than the source a translation may say its most frequent run of words.
        squeezed: how much more than the source a translation may be compressed.
    """

    copied: float = 0.6
    shortest: float = 0.45
    longest: float = 2.2
    script: float = 0.6
    language: float = 0.03
    repeated: float = 0.35
    looped: int = 8
    squeezed: float = 1.6

    def __post_init__(self) -> None:
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
"""Plain words of the source; where it has two or three, only a translation that holds all of them is a copy, and where
it has one or none, no translation is for their sake: such a word is often the same in both languages."""
MIN_WORDS = 5
"""Words of the source, of any kind; where all that the translation says is among them, it is a copy."""
MIN_LETTERS = 5
"""Letters beyond the words of the source; fewer may be a sign or a name."""
MIN_IDENTIFIABLE = 30
"""Letters that telling languages apart takes."""

Gate = Callable[[Scores, Limits], bool]
"""Whether a translation is to be rejected."""


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
"""By the reason that a reject is given, in the order in which they are asked: the first that closes is the reason."""

TOO_LONG = "too long"
"""The reason of a source that the model cannot read, even in pieces: it has no translation and no scores."""

UNFINISHED = "unfinished"
"""The reason of a translation that the limit on its length cut off, whatever else is wrong with it."""

REASONS = (*GATES, UNFINISHED, TOO_LONG)


def reason_to_reject(scores: Scores, limits: Limits) -> str | None:
    """The name of the first gate that a translation does not pass; None if it passes all."""
    return next((name for name, closes in GATES.items() if closes(scores, limits)), None)
