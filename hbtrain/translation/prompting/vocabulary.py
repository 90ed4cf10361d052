"""What the families ask of a tokenizer."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from hbtrain.errors import ModelError
from hbtrain.translation.languages import LANGUAGES, Language


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
