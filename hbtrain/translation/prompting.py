"""How a translation model is told the languages, which differs by its family: NLLB, M2M100, MADLAD or Marian.

NLLB and M2M100: the tokenizer puts the source's token before a text, and the translation begins with the target's.
MADLAD: the target's token stands before the text; the model finds out the source's language. Marian: a model of one
source and one target, or of several targets, whose token stands before the text.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from hbtrain.errors import ModelError
from hbtrain.translation.languages import LANGUAGES, Language

FAMILIES = {"m2m_100": ("NLLB", "M2M100"), "nllb-moe": ("NLLB",), "t5": ("MADLAD",), "marian": ("Marian",)}
"""{type of a model in its configuration: families that have it, which differ by the tokens of their languages}."""

TOKENS: dict[str, Callable[[Language], str]] = {
    "NLLB": lambda language: language.nllb,
    "M2M100": lambda language: f"__{language.code}__",
    "MADLAD": lambda language: f"<2{language.code}>",
}
"""{family: the token of a language}."""


@dataclass(frozen=True)
class Prompting:
    """How a model is told the languages, beside its tokenizer, which is set to the source's."""

    family: str
    prefixes: dict[str, str]  # {code of a target: what stands before a text}
    first_tokens: dict[str, int]  # {code of a target: the token that a translation begins with}

    def text(self, text: str, target: Language) -> str:
        """What the tokenizer is given for a text that is to be translated into `target`."""
        return self.prefixes.get(target.code, "") + text

    def generation(self, target: Language) -> dict[str, Any]:
        """Arguments of the model's `generate` for translations into `target`."""
        return {"forced_bos_token_id": self.first_tokens[target.code]} if self.first_tokens else {}


def prompting_of(model_type: str, tokenizer: Any, source: str, targets: Sequence[str], model: str) -> Prompting:
    """The prompting of a model with this name and type, whose tokenizer is set to the language `source`.

    Raises:
        ModelError: its family is unknown, or it does not translate one of the languages, given by ISO 639-1 codes.
    """
    start, ends = LANGUAGES[source], [LANGUAGES[target] for target in targets]
    try:
        for family in FAMILIES.get(model_type, ()):
            if family == "Marian" and hasattr(tokenizer, "supported_language_codes"):
                return _marian(tokenizer, start, ends)
            if family in TOKENS and _knows(tokenizer, TOKENS[family](LANGUAGES["en"])):
                return _by_token(family, tokenizer, start, ends)
    except ModelError as error:
        raise ModelError(f"--model {model}: {error}") from error
    raise ModelError(
        f"--model {model} is of type {model_type!r} and has no tokens for languages that are known here; give a model "
        "of the families NLLB, M2M100, MADLAD or Marian"
    )


def _by_token(family: str, tokenizer: Any, source: Language, targets: Sequence[Language]) -> Prompting:
    token = TOKENS[family]
    for language in targets if family == "MADLAD" else [source, *targets]:
        if not _knows(tokenizer, token(language)):
            known = [code for code, other in LANGUAGES.items() if _knows(tokenizer, token(other))]
            raise ModelError(
                f"this {family} model has no token {token(language)}, so it does not translate {language.code} "
                f"({language.name}); it has {', '.join(known) or 'none of the languages known here'}"
            )
    if family == "MADLAD":
        return Prompting(family, {target.code: f"{token(target)} " for target in targets}, {})
    tokenizer.src_lang = source.nllb if family == "NLLB" else source.code
    return Prompting(family, {}, {x.code: tokenizer.convert_tokens_to_ids(token(x)) for x in targets})


def _marian(tokenizer: Any, source: Language, targets: Sequence[Language]) -> Prompting:
    _check_named(tokenizer.source_lang, source, "from")
    tokens = {token.strip("><") for token in tokenizer.supported_language_codes}
    if tokens:
        return Prompting("Marian", {target.code: f">>{_marian_token(target, tokens)}<< " for target in targets}, {})
    for target in targets:
        _check_named(tokenizer.target_lang, target, "to")
    if len(targets) > 1:
        raise ModelError(
            f"this Marian model translates into one language, not into {', '.join(x.code for x in targets)}; "
            "translate into one at a time, each with its model"
        )
    return Prompting("Marian", {}, {})


def _marian_token(target: Language, tokens: set[str]) -> str:
    found = next((name for name in _names(target) if name in tokens), None)
    if found is None:
        known = [code for code, other in LANGUAGES.items() if not tokens.isdisjoint(_names(other))]
        raise ModelError(
            f"this Marian model has no token >>{target.code}<<, so it does not translate into {target.code} "
            f"({target.name}); it has {', '.join(known) or 'none of the languages known here'}"
        )
    return found


def _names(language: Language) -> tuple[str, ...]:
    return (*language.marian, language.code)


def _check_named(name: str | None, language: Language, which: str) -> None:
    """Raise ModelError if `name` is that of another language; the name of a group of languages is accepted."""
    others = {other for x in LANGUAGES.values() if x.code != language.code for other in _names(x)}
    if name in others:
        raise ModelError(f"this Marian model translates {which} {name}, not {which} {language.code} ({language.name})")


def _knows(tokenizer: Any, token: str) -> bool:
    """Whether a token is in the tokenizer's vocabulary."""
    number = tokenizer.convert_tokens_to_ids(token)
    return isinstance(number, int) and number != tokenizer.unk_token_id
