"""Bilingual lexicons, as MUSE publishes them (arXiv 1710.04087), and as FreeDict does.

MUSE: on each line a word and a translation of it. The two are separated by a tab, and may then be of several words
each; or by blanks, and are then one word each. A word with several translations has a line for each. Files are plain or
.gz.

FreeDict (freedict.org; Debian's packages `dict-freedict-*`), in the form of the server dictd: a file `.dict.dz` or
`.dict`; the index beside it is not needed. An entry is a line of a word with its pronunciation between slashes, then a
line of translations, separated by commas, or a numbered line for each sense. Other lines are definitions, and what is
indented is examples and notes. Remarks in brackets are left out, and so are words with a slash, which stands between
alternatives.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from hbtrain.errors import DataError
from hbtrain.formats.inputs import REFUSED, BadRows, numbered_lines
from hbtrain.formats.locations import named

FREEDICT = (".dict.dz", ".dict")  # how names of dictd's files end

_HEAD = re.compile(r"(?P<word>\S.*?)(?<!, ) /(?=\S).*/( ?[<(].*[>)])?$")
_SENSE = re.compile(r"\d+\. ")
_REMARK = re.compile(r"\([^()]*\)|\[[^][]*\]|<[^<>]*>|\{[^{}]*\}| \d+\.$")
_UNCLEAR = re.compile(r"[][(){}<>/]")

Lexicon = dict[str, tuple[str, ...]]
"""{word: its translations, each once, in the order of the file}; both as they are written there."""


def read_lexicon(file: str, rows: BadRows = REFUSED) -> Lexicon:
    """The lexicon in a file, by path or URL; its name tells in which form it is (`FREEDICT`).

    Blank lines are skipped, and blanks around words are no part of them.

    Args:
        file: plain or gzip.
        rows: told of lines that are no word with its translation, or not UTF-8.

    Raises:
        DataError: the file cannot be read or holds no words, or `rows` refuses a line.
    """
    found: dict[str, dict[str, None]] = {}
    of_dictd = named(file).endswith(FREEDICT)
    for word, translation in (_dictd_pairs if of_dictd else _pairs)(file, rows):
        found.setdefault(word, {})[translation] = None
    if not found:
        expected = "a word /pronunciation/, then its translations" if of_dictd else "a word, tab, its translation"
        raise DataError(f"{file} holds no words: lines of {expected} are expected")
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


def _dictd_pairs(file: str, rows: BadRows) -> Iterator[tuple[str, str]]:
    word, answered = None, False
    for line, _ in numbered_lines(file, rows):
        if " /" in line and (head := _HEAD.match(line)):
            word, answered = next(iter(_words(head["word"])), None), False
        elif word and not line[0].isspace() and (not answered or _SENSE.match(line)):
            translations = _words(_SENSE.sub("", line, count=1))
            yield from ((word, translation) for translation in translations)
            answered = answered or bool(translations)


def _words(text: str) -> list[str]:
    """The words in a text that commas separate, without remarks."""
    while (shorter := _REMARK.sub(" ", text)) != text:
        text = shorter
    parts = (re.sub(" +", " ", part).strip(" ") for part in re.split("[,;]", text))
    return [part for part in parts if part and not _UNCLEAR.search(part)]
