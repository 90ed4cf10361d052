"""Files of texts by id: lines of id, tab, text."""

from __future__ import annotations

from collections.abc import Iterator

from hbtrain.corpus.drops import Drops
from hbtrain.corpus.files import Place, decoded, raw_lines
from hbtrain.errors import DataError


def text_lines(file: str, drops: Drops) -> Iterator[tuple[str, str, Place]]:
    """(id, text, place) of each line that is not blank; tabs after the first are the text's."""
    for line, place in raw_lines(file):
        try:
            key, tab, text = decoded(line, place).partition("\t")
        except DataError:
            drops.bad(place, "not UTF-8")
            continue
        if tab and key.strip():
            yield key.strip(), text, place
        elif line.strip():
            drops.bad(place, "a row with too few columns", ": id, tab, text is expected")
