"""Code-switching: words of a text replaced by translations from bilingual lexicons (arXiv 2305.05295, section 3).

Of the words that a lexicon knows, each is replaced with probability `share`, independently of the others. A replaced
word draws its own target language among those whose lexicons know it, then one of the translations there, both
uniformly. Everything else stays as it is, numbers, punctuation and blanks included.

A draw is a pure function of (seed, step, side, place of the pair in the global batch, position of the word in the
text), so texts are the same on any number of workers. The draws do not depend on `share`: a word that is replaced at
one share is replaced by the same translation at every larger share.

How words are found: a text is cut into runs of letters, digits and combining marks; writing that puts no spaces between
words (Chinese, Japanese, Thai, Lao, Khmer, Burmese, Tibetan) is cut into single characters, with their combining marks.
From left to right, the longest entry of the lexicons is taken that these parts, and what stands between them, spell. So
entries may have several words ("New York", "don't"), and an entry of a spaced language never matches inside a word. In
writing without spaces an entry may match inside a longer word that the lexicons lack. Letters are compared without
regard to their case and their Unicode form; inflected forms are found only as the lexicon has them.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Iterator, Mapping, Sequence
from typing import Literal, NamedTuple

import numpy as np
import regex

from hbtrain.batching.batch import GlobalBatch
from hbtrain.batching.permutation import key_of, uniform
from hbtrain.config import Config
from hbtrain.corpus.conflicts import Int64s
from hbtrain.errors import DataError
from hbtrain.formats import inputs
from hbtrain.formats.lexicons import Lexicon, read_lexicon
from hbtrain.formats.locations import expanded

Texts = Literal["query", "passage", "negative"]
"""What texts are in a batch; each has draws of its own."""

SWITCHED: dict[str, tuple[Texts, ...]] = {
    "query": ("query",),
    "passage": ("passage", "negative"),
    "both": ("query", "passage", "negative"),
}
"""{`batching.switching.side`: the texts whose words are replaced}: hard negatives go with passages, as otherwise the
switching itself would tell them from passages that answer the query."""

_SCRIPTS = "Han", "Hira", "Kana", "Thai", "Laoo", "Khmr", "Mymr", "Tibt"  # whose words have no spaces between them
_UNSPACED = "[" + "".join(rf"\p{{scx={script}}}" for script in _SCRIPTS) + "]"
_SPACED = rf"[\w--{_UNSPACED}]"
_TOKEN = regex.compile(rf"(?V1)(?P<number>[\p{{N}}_]+(?!\w))|(?P<word>{_SPACED}+|(?=\w)\X)|(?P<blanks>\s+)|\X")
_TOUCHING = regex.compile(rf"(?V1){_SPACED}\w|\w{_SPACED}")
"""Two characters that would read as one word, although they belong to two."""


class Match(NamedTuple):
    """A place in a text where an entry of the lexicons stands."""

    start: int
    end: int
    translations: Sequence[Sequence[str]]  # the translations in each language whose lexicon knows the entry


class Vocabulary:
    """The words of one language that can be replaced: all lexicons from it, together."""

    def __init__(self, lexicons: Mapping[str, Lexicon]) -> None:
        """From {target language: lexicon}.

        Entries that do not begin with a word, such as "'s", or that hold numbers are left out, and so is what reads
        as the same word as another entry: their translations count as those of one word.
        """
        found: dict[str, dict[str, dict[str, None]]] = {}
        self._longest: dict[str, int] = {}  # {first token of an entry: tokens of the longest that begins with it}
        for language in sorted(lexicons):
            for word, translations in lexicons[language].items():
                tokens = list(_TOKEN.finditer(word))
                kinds = [token.lastgroup for token in tokens]
                if kinds[0] != "word" or "number" in kinds:
                    continue
                folded = [_folded(token) for token in tokens]
                self._longest[folded[0]] = max(self._longest.get(folded[0], 0), len(folded))
                found.setdefault("".join(folded), {}).setdefault(language, {}).update(dict.fromkeys(translations))
        self._entries = {key: tuple(map(tuple, entry.values())) for key, entry in found.items()}

    def __len__(self) -> int:
        return len(self._entries)

    def find(self, text: str) -> Iterator[Match]:
        """The entries that stand in a text, from left to right; none overlaps another."""
        tokens = list(_TOKEN.finditer(text))
        folded = [_folded(token) for token in tokens]
        first = 0
        while first < len(tokens):
            after = first + 1
            for end in range(min(first + self._longest.get(folded[first], 0), len(tokens)), first, -1):
                if entry := self._entries.get("".join(folded[first:end])):
                    yield Match(tokens[first].start(), tokens[end - 1].end(), entry)
                    after = end
                    break
            first = after

    def coverage(self, text: str) -> tuple[int, int]:
        """How many words a text has, and how many of them stand in an entry; without spaces, characters are words."""
        words = [token.start() for token in _TOKEN.finditer(text) if token.lastgroup == "word"]
        matches = list(self.find(text))
        return len(words), sum(any(one.start <= word < one.end for one in matches) for word in words)


class Switcher:
    """Replaces words of texts, by what it is told of them: language, side, step and place."""

    def __init__(
        self, lexicons: Mapping[tuple[str, str], Lexicon], share: float, seed: int, side: str = "query"
    ) -> None:
        """A switcher by {(language of the words, language of their translations): lexicon}.

        Args:
            lexicons: as of `hbtrain.formats.lexicons.read_lexicon`.
            share: probability that a word which the lexicons know is replaced, from 0 to 1.
            seed: of the draws.
            side: one of `SWITCHED`.
        """
        self.share = share
        self._seed = seed
        self._switched = SWITCHED[side]
        self._vocabularies = {
            language: Vocabulary({y: lexicon for (x, y), lexicon in lexicons.items() if x == language})
            for language in sorted({x for x, _ in lexicons})
        }

    @classmethod
    def from_config(cls, config: Config) -> Switcher:
        """The switcher of a configuration, which reads its lexicons, none where it has no `switched` batches.

        Raises:
            DataError: a lexicon cannot be read, or has a line that is no word with its translation.
        """
        switching, lexicons = config.batching.switching, {}
        for pair, file in switching.pairs.items() if "switched" in config.batching.kinds else ():
            try:
                lexicons[pair] = read_lexicon(str(inputs.local_copy(expanded(file), config.data.cache)))
            except DataError as error:
                raise DataError(f"batching.switching.lexicons, from {pair[0]} to {pair[1]}: {error}") from error
        return cls(lexicons, switching.share, config.seed, switching.side)

    def coverage(self, batch: GlobalBatch, what: Texts, texts: Sequence[str]) -> tuple[int, int]:
        """How many words there are in texts of a batch that `of_batch` changes, and how many of them lexicons know."""
        if batch.kind != "switched" or what not in self._switched:
            return 0, 0
        vocabulary = self._vocabularies[batch.query_languages[0]]
        words, known = np.sum([vocabulary.coverage(text) for text in texts], axis=0).tolist()
        return words, known

    def of_batch(self, batch: GlobalBatch, what: Texts, texts: list[str], first: int = 0) -> list[str]:
        """Texts of a batch as they are trained on: with words replaced if the batch is `switched`, and they are to be.

        Args:
            batch: a global batch, or a rank's part of it.
            what: which texts of the batch they are.
            texts: [M], all those of a kind that `batch` has, in its order.
            first: how many texts of that kind the ranks before have.
        """
        if batch.kind != "switched" or what not in self._switched or not texts:
            return texts
        places = np.arange(first, first + len(texts), dtype=np.int64)
        return self.switch(texts, batch.query_languages[0], what, batch.step, places)

    def switch(self, texts: Sequence[str], language: str, side: Texts, step: int, places: Int64s) -> list[str]:
        """The texts with words replaced.

        Args:
            texts: [B], all in `language`.
            language: one that lexicons lead from.
            side: what the texts are.
            step: of the batch.
            places: int64 [B], places of the texts among those of their side in the global batch, below 2**31.
        """
        vocabulary = self._vocabularies[language]
        found = [list(vocabulary.find(text)) for text in texts]
        starts = [(place, one.start) for place, matches in zip(places.tolist(), found, strict=True) for one in matches]
        counters = np.array([(place << 32) + start for place, start in starts], np.uint64)
        words, languages, translations = (
            uniform(key_of(self._seed, "switching", what, side, step), counters)
            for what in ("word", "language", "translation")
        )
        replaced = (words < self.share).tolist()
        draws = iter(zip(replaced, languages.tolist(), translations.tolist(), strict=True))
        switched = []
        for text, matches in zip(texts, found, strict=True):
            chosen = []
            for match in matches:
                is_replaced, u, v = next(draws)
                if is_replaced:
                    of_language = match.translations[int(u * len(match.translations))]
                    chosen.append((match, of_language[int(v * len(of_language))]))
            switched.append(_replaced(text, chosen))
        return switched


def _folded(token: regex.Match[str]) -> str:
    """What a token is compared by: letters without case, in composed form; any run of blanks as one."""
    if token.lastgroup == "blanks":
        return " "
    composed = unicodedata.normalize("NFC", token.group()).casefold()
    return unicodedata.normalize("NFC", composed).replace("’", "'")


def _replaced(text: str, chosen: Sequence[tuple[Match, str]]) -> str:
    """The text with translations in the places of what they translate, in its capitals.

    A blank is set where a translation would run into its neighbour, which it does in writing without spaces.
    """
    parts: list[str] = []
    done = 0
    for match, translation in chosen:
        parts += [text[done : match.start], _with_capitals_of(text[match.start : match.end], translation)]
        done = match.end
    parts.append(text[done:])
    out = ""
    for part in filter(None, parts):
        out += " " * bool(_TOUCHING.fullmatch(out[-1:] + part[0])) + part
    return out


def _with_capitals_of(word: str, translation: str) -> str:
    """A translation in capitals, or with one in front, if the word is so written; else as the lexicon writes it."""
    if word.isupper() and sum(map(str.isupper, word)) > 1:
        return translation.upper()
    return translation[0].title() + translation[1:] if word[0].isupper() else translation
