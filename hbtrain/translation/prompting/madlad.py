"""MADLAD-400: `<2de>` before the text; the source's language is not named (arXiv 2309.04662)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from hbtrain.translation.languages import Language
from hbtrain.translation.prompting.vocabulary import check_languages, knows


class Madlad:
    """See `Prompting`."""

    family = "MADLAD"

    def __init__(self, tokenizer: Any, source: Language, targets: Sequence[Language]) -> None:
        check_languages(tokenizer, self.family, _token, targets)

    @staticmethod
    def is_of(tokenizer: Any) -> bool:
        """Whether the tokenizer is one of this family."""
        return knows(tokenizer, "<2en>")

    def text(self, text: str, target: Language) -> str:
        """The text behind the target's token."""
        return f"{_token(target)} {text}"

    def generation(self, target: Language) -> dict[str, Any]:
        """Nothing."""
        return {}


def _token(language: Language) -> str:
    return f"<2{language.code}>"
