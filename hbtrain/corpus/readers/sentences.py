"""Where sentences begin, by the marks that end them in the scripts of the training languages."""

from __future__ import annotations

import re

_END = re.compile(
    r"(?<=[.!?؟۔।])[\"'”’»)\]]*\s+(?=\S)"  # a mark, and a blank after it
    r"|(?<=[。！？])[」』”’）]*(?=[^\s」』”’）])"  # Chinese and Japanese write no blank
    r"|\n+\s*(?=\S)"
)


def sentence_starts(text: str) -> list[int]:
    """The places at which the sentences of `text` begin, 0 first.

    A rule for passages, not a linguist's: an abbreviation with a full stop ends a sentence here.
    """
    return [0, *(match.end() for match in _END.finditer(text) if match.end() > 0)]
