"""How a translation model is told the languages, which differs by its family: NLLB, M2M100, MADLAD or Marian."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any

from hbtrain.errors import ModelError
from hbtrain.translation.languages import LANGUAGES, Language


class Prompting(ABC):
    """How the models of a family are told the languages."""

    family: str  # its name in messages

    @abstractmethod
    def __init__(self, tokenizer: Any, source: Language, targets: Sequence[Language]) -> None:
        """Set the tokenizer to the language `source`. Raises ModelError if a language is not translated."""

    @classmethod
    @abstractmethod
    def is_of(cls, tokenizer: Any) -> bool:
        """Whether a tokenizer is one of this family."""

    def text(self, text: str, target: Language) -> str:
        """What the tokenizer is given for a text that is to be translated into `target`."""
        return text

    def generation(self, target: Language) -> dict[str, Any]:
        """Arguments of the model's `generate` for translations into `target`."""
        return {}


def prompting_of(model_type: str, tokenizer: Any, source: str, targets: Sequence[str], model: str) -> Prompting:
    """The prompting of a model, whose tokenizer is set to the language `source`; languages are ISO 639-1 codes.

    `model_type` is from its configuration. NLLB and M2M100 have the same, and differ by the tokens of their languages.

    Raises:
        ModelError: its family is unknown, or it does not translate one of the languages.
    """
    families: dict[str, tuple[type[Prompting], ...]] = {
        "m2m_100": (Nllb, M2m100),
        "nllb-moe": (Nllb,),
        "t5": (Madlad,),
        "marian": (Marian,),
    }
    for family in families.get(model_type, ()):
        if family.is_of(tokenizer):
            try:
                return family(tokenizer, LANGUAGES[source], [LANGUAGES[target] for target in targets])
            except ModelError as error:
                raise ModelError(f"--model {model}: {error}") from error
    raise ModelError(
        f"--model {model} is of type {model_type!r} and has no tokens for languages that are known here; give a model "
        "of the families NLLB, M2M100, MADLAD or Marian"
    )


class _ByToken(Prompting):
    """A family whose tokenizers have a token for each language."""

    @staticmethod
    @abstractmethod
    def token(language: Language) -> str: ...

    @classmethod
    def is_of(cls, tokenizer: Any) -> bool:
        return _knows(tokenizer, cls.token(LANGUAGES["en"]))

    def _check(self, tokenizer: Any, languages: Sequence[Language]) -> None:
        """Raise ModelError unless the tokenizer has a token for each of the languages."""
        for language in languages:
            if not _knows(tokenizer, self.token(language)):
                known = [code for code, other in LANGUAGES.items() if _knows(tokenizer, self.token(other))]
                raise ModelError(
                    f"this {self.family} model has no token {self.token(language)}, so it does not translate "
                    f"{language.code} ({language.name}); "
                    f"it has {', '.join(known) or 'none of the languages known here'}"
                )


class M2m100(_ByToken):
    """M2M100: the tokenizer puts the source's token before a text; the translation begins with the target's."""

    family = "M2M100"

    def __init__(self, tokenizer: Any, source: Language, targets: Sequence[Language]) -> None:
        self._check(tokenizer, [source, *targets])
        self._tokenizer = tokenizer
        tokenizer.src_lang = self.name(source)

    @staticmethod
    def name(language: Language) -> str:
        """What the tokenizer calls a language."""
        return language.code

    @staticmethod
    def token(language: Language) -> str:
        return f"__{language.code}__"

    def generation(self, target: Language) -> dict[str, Any]:
        return {"forced_bos_token_id": self._tokenizer.convert_tokens_to_ids(self.token(target))}


class Nllb(M2m100):
    """NLLB: as M2M100, with other names and tokens."""

    family = "NLLB"

    @staticmethod
    def name(language: Language) -> str:
        return language.nllb

    @staticmethod
    def token(language: Language) -> str:
        return language.nllb


class Madlad(_ByToken):
    """MADLAD: the target's token stands before the text; the model finds out the source's language."""

    family = "MADLAD"

    def __init__(self, tokenizer: Any, source: Language, targets: Sequence[Language]) -> None:
        self._check(tokenizer, targets)

    @staticmethod
    def token(language: Language) -> str:
        return f"<2{language.code}>"

    def text(self, text: str, target: Language) -> str:
        return f"{self.token(target)} {text}"


class Marian(Prompting):
    """Marian: a model of one source and one target, or of several targets, whose token stands before the text."""

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

    @classmethod
    def is_of(cls, tokenizer: Any) -> bool:
        return hasattr(tokenizer, "supported_language_codes")

    def text(self, text: str, target: Language) -> str:
        return f">>{self._token(target)}<< {text}" if self._tokens else text

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
    """Raise ModelError if `name` is that of another language; the name of a group of languages is accepted."""
    others = {other for x in LANGUAGES.values() if x.code != language.code for other in _names(x)}
    if name in others:
        raise ModelError(f"this Marian model translates {which} {name}, not {which} {language.code} ({language.name})")


def _knows(tokenizer: Any, token: str) -> bool:
    """Whether a token is in the tokenizer's vocabulary."""
    number = tokenizer.convert_tokens_to_ids(token)
    return isinstance(number, int) and number != tokenizer.unk_token_id
