"""A document of a corpus in JSON lines, as MIRACL, Mr. TyDi, BEIR and Anserini publish them."""

from __future__ import annotations

from typing import Any

from hbtrain.corpus.files import is_unicode
from hbtrain.errors import DataError

ID_KEYS = ("docid", "_id", "id")


def read_document(record: dict[str, Any], place: str) -> tuple[str, str]:
    """Id, and text as a candidate: title, blank, text.

    Args:
        record: an id (`docid`, `_id` or `id`), and `title` and `text`, or `contents` that hold both.
        place: for messages.

    Raises:
        DataError: it has no id or no text.
    """
    identifier = next((record[key] for key in ID_KEYS if key in record), None)
    if not isinstance(identifier, str | int) or isinstance(identifier, bool) or identifier == "":
        raise DataError(f"{place}: a document needs an id under {', '.join(ID_KEYS)}, not {identifier!r}")
    title, text = record.get("title") or "", record.get("contents", record.get("text"))
    if not isinstance(text, str) or not isinstance(title, str):
        raise DataError(f"{place}: document {identifier} needs its text under text (or contents), and title as text")
    if not all(map(is_unicode, (str(identifier), title, text))):
        raise DataError(f"{place}: document {identifier!r} is not Unicode: it holds half a surrogate pair")
    return str(identifier), f"{title} {text}".strip()
