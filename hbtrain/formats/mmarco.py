"""mMARCO (arXiv 2108.13897): collections and queries of several languages, and MS MARCO's triples of ids.

A folder holds, some levels deep, `<language>_collection.tsv`, `<language>_queries.train.tsv` (languages by their
English names, as published, or by code) and `triples.train.ids.small.tsv`; or a folder for each language with
`collection.tsv` and `queries.tsv` or `queries.train.tsv`. A clone of `unicamp-dl/mmarco` has them twice, below `google`
and below `helsinki`. Each is plain or .gz. Lines of texts are id, tab, text (`inputs.text_lines`).
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


TRANSLATORS = ("google", "helsinki")
"""Whose translations the data set has, each in a folder of that name; English stands in both."""


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


def find_mmarco(folder: str, languages: Sequence[str] | None = None, translator: str | None = None) -> MmarcoFiles:
    """Find mMARCO's files in a folder.

    Args:
        folder: on this machine, or a URL; a clone of `unicamp-dl/mmarco`, or some of its files.
        languages: only these; None: all that are there.
        translator: one of `TRANSLATORS`, where a folder has translations by both. Their texts are never mixed.

    Raises:
        DataError: a file or a language is missing, there are two files of one kind and language, or there are
            translations by both and `translator` is not given.
    """
    paths = _translated(list_files(folder), folder, translator)
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


def _translated(paths: Sequence[str], folder: str, translator: str | None) -> list[str]:
    """The paths without those of texts by the other translator, which name it as one of their folders."""
    start = len(named(folder).rstrip("/")) + 1
    by: dict[str, list[str]] = {name: [] for name in TRANSLATORS}
    for path in paths:
        *folders, name = named(path)[start:].split("/")
        for one in TRANSLATORS:
            if one in folders and _TEXTS.fullmatch("/".join(["", *folders[-1:], name])):
                by[one].append(path)
    there = [name for name, own in by.items() if own]
    if translator is None and len(there) > 1:
        choices = " or ".join(f"--translator {name}" for name in there)
        raise DataError(f"{folder} holds translations by {' and by '.join(there)}, whose texts differ: give {choices}")
    if translator is not None and translator not in there:
        known = f"it has those by {there[0]}" if there else f"no folder is called {' or '.join(TRANSLATORS)}"
        raise DataError(f"{folder} holds no translations by {translator}; {known}")
    others = {path for name, own in by.items() if translator not in (None, name) for path in own}
    return [path for path in paths if path not in others]


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
