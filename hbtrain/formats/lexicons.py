"""Bilingual lexicons: on each line a word and a translation of it, as MUSE publishes them (arXiv 1710.04087).

The two are separated by a tab, and may then be of several words each; or by blanks, and are then one word each. A word
with several translations has a line for each. Files are plain or .gz.
"""

from __future__ import annotations

from collections.abc import Iterator

from hbtrain.errors import DataError
from hbtrain.formats.inputs import REFUSED, BadRows, numbered_lines

Lexicon = dict[str, tuple[str, ...]]
"""{word: its translations, each once, in the order of the file}; both as they are written there."""


def read_lexicon(file: str, rows: BadRows = REFUSED) -> Lexicon:
    """The lexicon in a file, by path or URL. Blank lines are skipped, and blanks around words are no part of them.

    Args:
        file: plain or gzip.
        rows: told of lines that are no word with its translation.

    Raises:
        DataError: the file cannot be read or holds no words, or `rows` refuses a line.
    """
    found: dict[str, dict[str, None]] = {}
    for word, translation in _pairs(file, rows):
        found.setdefault(word, {})[translation] = None
    if not found:
        raise DataError(f"{file} holds no words: lines of a word, tab, its translation are expected")
    return {word: tuple(translations) for word, translations in found.items()}


def _pairs(file: str, rows: BadRows) -> Iterator[tuple[str, str]]:
    for line, position in numbered_lines(file, rows):
        by_tab = "\t" in line
        # Unlike str.split(), this leaves no-break spaces alone, which stand inside of French and other words.
        columns = [column.strip() for column in line.split("\t")] if by_tab else line.strip(" ").split(" ")
        columns = columns if by_tab else [column for column in columns if column]
        if len(columns) == 2 and all(columns):
            yield columns[0], columns[1]
            continue
        expected = "word, tab, translation" if by_tab or len(columns) < 2 else "a tab between both if one has blanks"
        count = sum(map(bool, columns))
        rows.bad(
            position, "a line that is no word with a translation", f": {expected} is expected, it has {count} parts"
        )
