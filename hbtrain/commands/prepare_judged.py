"""The options of `hbtrain prepare` for sources with topics, judgements and a corpus."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from cyclopts import Parameter

from hbtrain.commands.prepare_mapping import Many


@dataclass(frozen=True, kw_only=True)
class JudgedOptions:
    """Options of Mr. TyDi and MIRACL.

    Attributes:
        languages: Codes; by default all that are there.
        split: Of the topics: train, dev or test.
        negatives: Keep passages that are judged not to be relevant as negatives.
    """

    languages: Annotated[list[str] | None, Many] = None
    split: str = "train"
    negatives: bool = True


Judged = Annotated[JudgedOptions, Parameter(name="*")]
TRAINING = JudgedOptions()
"""What is prepared by default."""
