"""The units of a text that scores count: words, or pairs of neighbouring letters in scripts without spaces."""

from __future__ import annotations

import re
import unicodedata
from collections import Counter
from functools import lru_cache

# Letters of scripts without spaces (Han, kana, Thai, Lao, Myanmar, Khmer), which may be next to words of other scripts.
_UNSPACED = "\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u2e80-\u2fdf\u3005-\u3007\u3021-\u3029\u3031-\u9fff"
_UNSPACED += "\uf900-\ufaff\uff66-\uff9f\U00020000-\U0003ffff"
_PUNCTUATION = "\u3000-\u303f\uff00-\uff0f\uff1a-\uff20\uff3b-\uff40\uff5b-\uff65“”„‘«»…—–،؛؟।¿¡"
_CHUNK = re.compile(f"[{_UNSPACED}]+|[^\\s{_UNSPACED}{_PUNCTUATION}]+")
_ENDS = "!\"#$%&'()*+,-./:;<=>?@[\\]^_`{|}~’"
_JOINTS = re.compile("[-'’/]")


def words(text: str) -> list[str]:
    """The words of a text in their order, without punctuation around them; a number or a code expression is a word."""
    found = []
    for chunk in _CHUNK.findall(text):
        word = chunk.strip(_ENDS)
        parts = [part for part in _JOINTS.split(word) if part]
        if all(part.isalpha() for part in parts):
            found += parts
        elif word:
            found.append(word)
    return found


def is_plain(word: str) -> bool:
    """Whether a word has only letters and no capitals, so that it is hardly a name, abbreviation, number or code."""
    return len(word) > 1 and word == word.lower() and all(script_of(x) is not None for x in word)


def is_unspaced(word: str) -> bool:
    """Whether a word of `words` is a run of letters of a script without spaces."""
    return re.match(f"[{_UNSPACED}]", word) is not None


def units(text: str) -> list[str]:
    """The words of a text in lower case; runs of letters of scripts without spaces as pairs of neighbouring letters."""
    found: list[str] = []
    for word in words(text.lower()):
        if is_unspaced(word):
            found.extend(word[i : i + 2] for i in range(max(1, len(word) - 1)))
        else:
            found.append(word)
    return found


def runs(text: str, length: int) -> Counter[tuple[str, ...]]:
    """{run of `length` units: how often it occurs in a text}."""
    everything = units(text)
    return Counter(tuple(everything[i : i + length]) for i in range(len(everything) - length + 1))


UNSPACED = frozenset({"CJK", "HIRAGANA", "KATAKANA", "THAI", "LAO", "KHMER", "MYANMAR"})
"""Scripts without spaces between words, by the first word of their characters' names in Unicode."""


@lru_cache(maxsize=65536)
def script_of(character: str) -> str | None:
    """The script of a letter, which is the first word of its name in Unicode; None if the character is no letter.

    Vowel signs and other combining characters of a script are letters; accents that combine with any script are not.
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
    """{script: how many letters of a text are in it}."""
    counts = Counter(text)
    found: Counter[str] = Counter()
    for character, times in counts.items():
        script = script_of(character)
        if script is not None:
            found[script] += times
    return found
