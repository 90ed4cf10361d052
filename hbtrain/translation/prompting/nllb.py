"""NLLB: `eng_Latn` before the source's tokens, `deu_Latn` as the first token of the translation (arXiv 2207.04672)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from hbtrain.translation.languages import Language
from hbtrain.translation.prompting.vocabulary import check_languages, knows


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
