"""M2M100: `__en__` before the source's tokens, `__de__` as the first token of the translation (arXiv 2010.11125)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from hbtrain.translation.languages import Language
from hbtrain.translation.prompting.vocabulary import check_languages, knows


class M2m100:
    """See `Prompting`."""

    family = "M2M100"

    def __init__(self, tokenizer: Any, source: Language, targets: Sequence[Language]) -> None:
        check_languages(tokenizer, self.family, _token, [source, *targets])
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
        return {"forced_bos_token_id": self._tokenizer.convert_tokens_to_ids(_token(target))}


def _token(language: Language) -> str:
    return f"__{language.code}__"
