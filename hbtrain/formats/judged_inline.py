"""Questions with their judged passages inside, as Mr. TyDi's hub repository has them for training, beside no corpus.

`mrtydi-v1.1-<language>/<split>.jsonl`, plain or .gz, or Parquet (`<language>/<split>/0000.parquet`, the hub's own
conversion). A record is `{"query_id", "query", "positive_passages": [{"docid", "title", "text"}, ...],
"negative_passages": [...]}`, in which `title` may be missing.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

from hbtrain.errors import shown
from hbtrain.formats.hub_layout import check_whole, read_configs
from hbtrain.formats.inputs import NOT_UNICODE, BadRows, Position, identifier, is_unicode
from hbtrain.formats.judged import Document
from hbtrain.formats.language_codes import code_of, is_known
from hbtrain.formats.languages import one_each
from hbtrain.formats.locations import list_files, named
from hbtrain.formats.tables import read_table

_FILE = re.compile(r"(?:.*/)?(?:[a-z]+-v[\d.]+-)?(?P<language>[A-Za-z]+)/(?P<split>[\w-]+)\.jsonl(?:\.gz)?")
_PASSAGES = ("positive_passages", "negative_passages")


class JudgedQuestion(NamedTuple):
    """A question with the passages that answer it, at least one, and others that do not."""

    id: str
    text: str
    positives: Sequence[Document]
    negatives: Sequence[Document]
    position: Position


def find_inline(folder: str, split: str) -> dict[str, str]:
    """{hbtrain's code of a language: file} of a split; empty where there are none.

    Raises:
        DataError: the folder cannot be read, or has two files of one language.
    """
    found = [
        (code_of(match["language"]), path)
        for path in list_files(folder)
        if (match := _FILE.fullmatch(named(path))) and match["split"] == split and is_known(match["language"])
    ]
    for config, splits in read_configs(folder).items() if not found else ():
        if is_known(config):
            check_whole(splits.get(split, ()))
            found += [(code_of(config), path) for path in splits.get(split, ()) if named(path).endswith(".parquet")]
    return one_each(found)


def read_inline(file: str, rows: BadRows) -> Iterator[JudgedQuestion]:
    """The questions of a file, in its order; one without a passage that answers it is bad.

    Raises:
        DataError: the file cannot be read, or `rows` refuses a record.
    """
    needed = (("query_id",), ("query",), *((name,) for name in _PASSAGES[:1]))
    for record, position in read_table(file, needed, _PASSAGES[1:], rows, "not a question"):
        key, text = identifier(record.get("query_id")), record.get("query")
        if key is None or not isinstance(text, str) or not text.strip():
            rows.bad(position, "not a question", f": query_id and query are expected, not {shown(text)}")
            continue
        try:
            positives, negatives = (_documents(record.get(name), position) for name in _PASSAGES)
        except ValueError as error:
            rows.bad(position, "not a question", f": question {key}: {error}")
            continue
        if not positives:
            rows.bad(position, "a question without a passage that answers it", f" ({key})")
        elif not is_unicode("".join([key, text, *(x.id + x.text for x in (*positives, *negatives))])):
            rows.bad(position, NOT_UNICODE, f" (question {shown(key)} or its passages)")
        else:
            yield JudgedQuestion(key, text, positives, negatives, position)


def _documents(given: Any, position: Position) -> list[Document]:
    """The passages of a record. Raises ValueError where they are none."""
    found = []
    for one in [] if given is None else given:
        passage = one if isinstance(one, dict) else {}
        key, title, text = identifier(passage.get("docid")), passage.get("title") or "", passage.get("text")
        if key is None or not isinstance(title, str) or not isinstance(text, str) or not f"{title}{text}".strip():
            raise ValueError(f"a passage must have docid and text, as texts, not {shown(one)}")
        found.append(Document(key, f"{title} {text}".strip(), position))
    return found
