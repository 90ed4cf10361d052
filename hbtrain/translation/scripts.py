"""Scripts: what the letters of a text are written in."""

from __future__ import annotations

import unicodedata
from collections import Counter
from functools import lru_cache

UNSPACED = frozenset({"CJK", "HIRAGANA", "KATAKANA", "THAI", "LAO", "KHMER", "MYANMAR"})
"""Scripts that put no space between words; as Unicode's character names begin."""


@lru_cache(maxsize=65536)
def script_of(character: str) -> str | None:
    """The script of a letter, as the first word of its name in Unicode; None for what is no letter.

    Vowel signs and other combining letters of a script count as letters of it; accents that combine with any script do
    not, nor do signs for numbers.
    """
    kind = unicodedata.category(character)
    if kind[0] not in "LM":
        return None
    plain = unicodedata.normalize("NFKC", character)[0]  # full-width and half-width forms
    name = unicodedata.name(plain, "").split(" ")[0]
    if name in ("COMBINING", "VARIATION", "MODIFIER", "") or kind == "Me":
        return None
    return "CJK" if name in ("IDEOGRAPHIC", "KANGXI") else name


def letters_by_script(text: str) -> Counter[str]:
    """How many letters of a text are in each script."""
    counts = Counter(text)
    found: Counter[str] = Counter()
    for character, times in counts.items():
        script = script_of(character)
        if script is not None:
            found[script] += times
    return found
