"""Marian (OPUS-MT): one pair of languages a model, or `>>de<<` before the text (Tiedemann and Thottingal, 2020)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from hbtrain.errors import ModelError
from hbtrain.translation.languages import LANGUAGES, Language


class Marian:
    """See `Prompting`."""

    family = "Marian"

    def __init__(self, tokenizer: Any, source: Language, targets: Sequence[Language]) -> None:
        self._tokens = {x.strip("><") for x in tokenizer.supported_language_codes}
        _check_named(tokenizer.source_lang, source, "from")
        for target in targets:
            if self._tokens:
                self._token(target)
            else:
                _check_named(tokenizer.target_lang, target, "to")
        if not self._tokens and len(targets) > 1:
            raise ModelError(
                f"this Marian model translates into one language, not into {', '.join(x.code for x in targets)}; "
                "translate into one at a time, each with its model"
            )

    @staticmethod
    def is_of(tokenizer: Any) -> bool:
        """Whether the tokenizer is one of this family."""
        return hasattr(tokenizer, "supported_language_codes")

    def text(self, text: str, target: Language) -> str:
        """The text, behind the target's token if the model has several targets."""
        return f">>{self._token(target)}<< {text}" if self._tokens else text

    def generation(self, target: Language) -> dict[str, Any]:
        """Nothing."""
        return {}

    def _token(self, target: Language) -> str:
        found = next((name for name in _names(target) if name in self._tokens), None)
        if found is None:
            known = [code for code, other in LANGUAGES.items() if not self._tokens.isdisjoint(_names(other))]
            raise ModelError(
                f"this Marian model has no token >>{target.code}<<, so it does not translate into {target.code} "
                f"({target.name}); it has {', '.join(known) or 'none of the languages known here'}"
            )
        return found


def _names(language: Language) -> tuple[str, ...]:
    return (*language.marian, language.code)


def _check_named(name: str | None, language: Language, which: str) -> None:
    """Raise ModelError if the tokenizer names another language; what it names may also be a group of languages."""
    others = {other for x in LANGUAGES.values() if x.code != language.code for other in _names(x)}
    if name in others:
        raise ModelError(f"this Marian model translates {which} {name}, not {which} {language.code} ({language.name})")
