"""mMARCO (arXiv 2108.13897): collections and queries of several languages, and MS MARCO's triples of ids.

A folder holds, some levels deep, `<language>_collection.tsv`, `<language>_queries.train.tsv` (languages by their
English names, as published, or by code) and `triples.train.ids.small.tsv`; or a folder for each language with
`collection.tsv` and `queries.tsv` or `queries.train.tsv`. Each is plain or .gz. Lines of texts are id, tab, text
(`inputs.text_lines`).
"""

from __future__ import annotations

import codecs
import re
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from hbtrain.errors import DataError
from hbtrain.formats.inputs import BadRows, Position, raw_lines
from hbtrain.formats.language_codes import NAMES
from hbtrain.formats.languages import LANGUAGE, choose_languages, one_each
from hbtrain.formats.locations import list_files, named

_TEXTS = re.compile(r"(?:.*/)?(?P<language>[A-Za-z-]+)[_/](?P<kind>collection|queries(?:\.train)?)\.tsv(?:\.gz)?")
_TRIPLES = re.compile(r"(?:.*/)?triples\.train\.ids(?:\.small)?\.tsv(?:\.gz)?")


class MmarcoFiles(NamedTuple):
    """The files of a folder: {language: file} of queries and of collections, in the same languages, and the triples."""

    queries: dict[str, str]
    collections: dict[str, str]
    triples: str


class Triple(NamedTuple):
    """The ids of a query, of a passage that answers it, and of one that does not."""

    query: str
    passage: str
    negative: str
    position: Position


def find_mmarco(folder: str, languages: Sequence[str] | None = None) -> MmarcoFiles:
    """Find mMARCO's files in a folder, for `languages` or for all that are there.

    Raises:
        DataError: a file or a language is missing, or there are two files of one kind and language.
    """
    paths = list_files(folder)
    triples = [path for path in paths if _TRIPLES.fullmatch(named(path))]
    if len(triples) != 1:
        raise DataError(
            f"{folder} holds {len(triples) or 'no'} triples.train.ids.small.tsv (plain or .gz); one is expected"
        )
    queries = _texts(paths, folder, "queries", "german_queries.train.tsv", languages)
    collections = _texts(paths, folder, "collection", "german_collection.tsv", languages)
    for language in sorted({*queries} ^ {*collections}):
        lacks = "collection" if language in queries else "queries"
        raise DataError(f"{folder} has no {lacks} in {language}, but the other kind; add the file, or give --languages")
    return MmarcoFiles(queries, collections, triples[0])


def read_triples(file: str, rows: BadRows) -> Iterator[Triple]:
    """The triples of a file, in its order.

    Raises:
        DataError: the file cannot be read, or `rows` refuses a line that is no triple.
    """
    for line, position in raw_lines(file):
        columns = line.removeprefix(codecs.BOM_UTF8).split()
        if len(columns) != 3:
            rows.bad(position, "a triple without three columns", f": it has {len(columns)}")
            continue
        try:
            query, passage, negative = (column.decode("ascii") for column in columns)
        except UnicodeDecodeError:
            rows.bad(position, "a triple whose ids are not in ASCII")
            continue
        yield Triple(query, passage, negative, position)


def _texts(
    paths: Sequence[str], folder: str, kind: str, example: str, languages: Sequence[str] | None
) -> dict[str, str]:
    found = []
    for path in paths:
        match = _TEXTS.fullmatch(named(path).removeprefix(named(folder).rstrip("/") + "/"))
        if match and match["kind"].startswith(kind):
            language = NAMES.get(match["language"].lower(), match["language"])
            if LANGUAGE.fullmatch(language):
                found.append((language, path))
    if not found:
        raise DataError(f"{folder} holds no {kind}: files such as {example} are expected")
    files = one_each(found)
    return {x: files[x] for x in sorted(choose_languages(files, languages, f"{folder} ({kind})"))}
