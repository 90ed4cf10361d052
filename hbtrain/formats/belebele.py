"""Belebele (arXiv 2308.16884): questions on FLORES passages, the same ones in 122 languages.

`data/<code>.jsonl` as published, with codes such as `deu_Latn` (or a configuration a code in mteb's copy). A line is
`{"link", "question_number", "flores_passage", "question", ...}`: a question is named by its link, its number and, where
there is one, its `split`. The four choices are not read: what is searched is the passage.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import NamedTuple

from hbtrain.errors import DataError, shown
from hbtrain.formats.hub_layout import check_whole, read_configs
from hbtrain.formats.inputs import REFUSED, Position, identifier, is_unicode
from hbtrain.formats.language_codes import codes_of
from hbtrain.formats.languages import one_each
from hbtrain.formats.locations import list_files, named
from hbtrain.formats.tables import read_table

TWO_SCRIPTS = ("ar", "bn", "hi", "ne", "si", "ur", "zh")  # languages that the set has in two scripts
_CODE = re.compile(r"[a-z]{3}_[A-Z][a-z]{3}")
_TEXTS = ("question", "flores_passage")
_NAMES = ("link", "question_number")


class BelebeleQuestion(NamedTuple):
    """A question, and the passage that answers it."""

    id: str  # the same in all languages
    text: str
    passage: str
    position: Position


def find_belebele(folder: str) -> dict[str, str]:
    """{hbtrain's code of a language: file} of a folder.

    Raises:
        DataError: there are none, or two of one language.
    """
    configs = {config: splits for config, splits in read_configs(folder).items() if _CODE.fullmatch(config)}
    files = [(config, path) for config, splits in configs.items() for paths in splits.values() for path in paths]
    for splits in configs.values():
        for paths in splits.values():
            check_whole(paths)
    if not files:
        names = [(named(path).rsplit("/", 1)[-1].removesuffix(".gz"), path) for path in list_files(folder, levels=2)]
        files = [(name.removesuffix(".jsonl"), path) for name, path in names if name.endswith(".jsonl")]
        files = [(code, path) for code, path in files if _CODE.fullmatch(code)]
    if not files:
        raise DataError(f"{folder} holds no Belebele: files such as data/deu_Latn.jsonl are expected")
    codes = codes_of([code for code, _ in files], TWO_SCRIPTS)
    return one_each((codes[code], path) for code, path in files)


def belebele_questions(file: str) -> Iterator[BelebeleQuestion]:
    """The questions of a file, in its order.

    Raises:
        DataError: the file cannot be read, or a line is no question, or one that came before.
    """
    seen: set[str] = set()
    needed = [(name,) for name in (*_NAMES, *_TEXTS)]
    for record, position in read_table(file, needed, ("split",), REFUSED, "not a question"):
        link, number = (identifier(record.get(name)) for name in _NAMES)
        question, passage = (record.get(name) for name in _TEXTS)
        if link is None or number is None:
            REFUSED.bad(position, "not a question", f": {' and '.join(_NAMES)} are expected")
        good = (isinstance(text, str) and text.strip() and is_unicode(text) for text in (question, passage))
        if not all(good) or not is_unicode(f"{link}"):
            REFUSED.bad(position, "not a question", f": {' and '.join(_TEXTS)} must be texts, not blank")
        split = record.get("split")
        key = "#".join(str(part) for part in (split, link, number) if part is not None)
        if key in seen:
            raise DataError(f"{position}: question {shown(key)} occurs twice; ids must be unique in a language")
        seen.add(key)
        yield BelebeleQuestion(key, str(question), str(passage), position)
    if not seen:
        raise DataError(f"{file} holds no questions; fetch it again")
