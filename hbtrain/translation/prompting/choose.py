"""Which family a model is of."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

from hbtrain.errors import ModelError
from hbtrain.translation.languages import Language
from hbtrain.translation.prompting.m2m100 import M2m100
from hbtrain.translation.prompting.madlad import Madlad
from hbtrain.translation.prompting.marian import Marian
from hbtrain.translation.prompting.nllb import Nllb


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
