"""Units of a text that can be counted and compared: words, or pairs of letters where a script has no spaces."""

from __future__ import annotations

import re
import unicodedata
from collections import Counter
from collections.abc import Iterator
from functools import lru_cache

# Han, kana, Thai, Lao, Myanmar, Khmer: letters that stand without spaces, beside words in other scripts at times.
_UNSPACED = "\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u2e80-\u2fdf\u3005-\u3007\u3021-\u3029\u3031-\u9fff"
_UNSPACED += "\uf900-\ufaff\uff66-\uff9f\U00020000-\U0003ffff"
_PUNCTUATION = "\u3000-\u303f\uff00-\uff0f\uff1a-\uff20\uff3b-\uff40\uff5b-\uff65“”„‘«»…—–،؛؟।¿¡"
_CHUNK = re.compile(f"[{_UNSPACED}]+|[^\\s{_UNSPACED}{_PUNCTUATION}]+")
_ENDS = "!\"#$%&'()*+,-./:;<=>?@[\\]^_`{|}~’"
_JOINTS = re.compile("[-'’/]")


def words(text: str) -> list[str]:
    """The words of a text in their order, without punctuation around them; a number or a piece of code is one."""
    return list(_words(text))


def _words(text: str) -> Iterator[str]:
    for chunk in _CHUNK.findall(text):
        word = chunk.strip(_ENDS)
        parts = [part for part in _JOINTS.split(word) if part]
        if all(part.isalpha() for part in parts):
            yield from parts
        elif word:
            yield word


def is_plain(word: str) -> bool:
    """Whether a word is of the language itself: letters alone, and no capital, as names and abbreviations have."""
    return len(word) > 1 and word == word.lower() and all(script_of(x) is not None for x in word)


def is_unspaced(word: str) -> bool:
    """Whether a word of `words` is a run of letters of a script without spaces."""
    return re.match(f"[{_UNSPACED}]", word) is not None


def units(text: str) -> list[str]:
    """Words in small letters; each run of letters of a script without spaces as pairs of neighbours."""
    found: list[str] = []
    for word in words(text.lower()):
        if is_unspaced(word):
            found.extend(word[i : i + 2] for i in range(max(1, len(word) - 1)))
        else:
            found.append(word)
    return found


def runs(text: str, length: int) -> Counter[tuple[str, ...]]:
    """How often each run of `length` units is in a text."""
    everything = units(text)
    return Counter(tuple(everything[i : i + length]) for i in range(len(everything) - length + 1))


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
