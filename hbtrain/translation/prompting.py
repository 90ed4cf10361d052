"""Which family a model is of."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Protocol

from hbtrain.errors import ModelError
from hbtrain.translation.languages import LANGUAGES, Language


class Prompting(Protocol):
    """How a model is told the languages. Made for a tokenizer, which it tells the source's language.

    Attributes:
        family: as messages call it.
    """

    family: str

    def text(self, text: str, target: Language) -> str:
        """What the tokenizer is given for a text that is to be translated into `target`."""

    def generation(self, target: Language) -> dict[str, Any]:
        """What `generate` is told for it."""


def prompting_of(
    model_type: str, tokenizer: Any, source: Language, targets: Sequence[Language], model: str
) -> Prompting:
    """The prompting of a model.

    Args:
        model_type: of its configuration. NLLB and M2M100 share one, and differ by the tokens of their languages.
        tokenizer: of Hugging Face; it is set to the source's language.
        source: the language translated from.
        targets: the languages translated into.
        model: its name, for messages.

    Raises:
        ModelError: it is of no family known here, or does not translate one of the languages.
    """
    families: dict[str, tuple[type[Nllb] | type[M2m100] | type[Madlad] | type[Marian], ...]] = {
        "m2m_100": (Nllb, M2m100),
        "nllb-moe": (Nllb,),
        "t5": (Madlad,),
        "marian": (Marian,),
    }
    for family in families.get(model_type, ()):
        if family.is_of(tokenizer):
            try:
                return family(tokenizer, source, targets)
            except ModelError as error:
                raise ModelError(f"--model {model}: {error}") from error
    raise ModelError(
        f"--model {model} is of type {model_type!r} and has no tokens for languages that are known here; give a model "
        "of the families NLLB, M2M100, MADLAD or Marian"
    )


class M2m100:
    """See `Prompting`."""

    family = "M2M100"

    def __init__(self, tokenizer: Any, source: Language, targets: Sequence[Language]) -> None:
        check_languages(tokenizer, self.family, _m2m100_token, [source, *targets])
        self._tokenizer = tokenizer
        tokenizer.src_lang = source.code

    @staticmethod
    def is_of(tokenizer: Any) -> bool:
        """Whether the tokenizer is one of this family."""
        return knows(tokenizer, "__en__")

    def text(self, text: str, target: Language) -> str:
        """The text itself."""
        return text

    def generation(self, target: Language) -> dict[str, Any]:
        """The first token."""
        return {"forced_bos_token_id": self._tokenizer.convert_tokens_to_ids(_m2m100_token(target))}


def _m2m100_token(language: Language) -> str:
    return f"__{language.code}__"


class Madlad:
    """See `Prompting`."""

    family = "MADLAD"

    def __init__(self, tokenizer: Any, source: Language, targets: Sequence[Language]) -> None:
        check_languages(tokenizer, self.family, _madlad_token, targets)

    @staticmethod
    def is_of(tokenizer: Any) -> bool:
        """Whether the tokenizer is one of this family."""
        return knows(tokenizer, "<2en>")

    def text(self, text: str, target: Language) -> str:
        """The text behind the target's token."""
        return f"{_madlad_token(target)} {text}"

    def generation(self, target: Language) -> dict[str, Any]:
        """Nothing."""
        return {}


def _madlad_token(language: Language) -> str:
    return f"<2{language.code}>"


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


class Nllb:
    """See `Prompting`."""

    family = "NLLB"

    def __init__(self, tokenizer: Any, source: Language, targets: Sequence[Language]) -> None:
        check_languages(tokenizer, self.family, lambda language: language.nllb, [source, *targets])
        self._tokenizer = tokenizer
        tokenizer.src_lang = source.nllb

    @staticmethod
    def is_of(tokenizer: Any) -> bool:
        """Whether the tokenizer is one of this family."""
        return knows(tokenizer, "eng_Latn")

    def text(self, text: str, target: Language) -> str:
        """The text itself."""
        return text

    def generation(self, target: Language) -> dict[str, Any]:
        """The first token."""
        return {"forced_bos_token_id": self._tokenizer.convert_tokens_to_ids(target.nllb)}


def knows(tokenizer: Any, token: str) -> bool:
    """Whether a token is one of the tokenizer's."""
    number = tokenizer.convert_tokens_to_ids(token)
    return isinstance(number, int) and number != tokenizer.unk_token_id


def check_languages(
    tokenizer: Any, family: str, token_of: Callable[[Language], str], wanted: Sequence[Language]
) -> None:
    """Raise ModelError unless the tokenizer has a token for each of the languages."""
    for language in wanted:
        if not knows(tokenizer, token_of(language)):
            known = [code for code, other in LANGUAGES.items() if knows(tokenizer, token_of(other))]
            raise ModelError(
                f"this {family} model has no token {token_of(language)}, so it does not translate {language.code} "
                f"({language.name}); it has {', '.join(known) or 'none of the languages known here'}"
            )


__all__ = ["Prompting", "prompting_of"]
