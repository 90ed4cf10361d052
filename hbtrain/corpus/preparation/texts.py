"""The first stage of a preparation: the texts of a part, in a table for each side and language."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

from hbtrain.corpus.drops import Drops
from hbtrain.corpus.negatives import digest_number
from hbtrain.corpus.preparation.numbers import NumberWriter
from hbtrain.corpus.preparation.tables import Table, TableWriter
from hbtrain.corpus.readers.items import IdItem, Part, TextItem, check_languages
from hbtrain.errors import DataError
from hbtrain.formats.inputs import Place
from hbtrain.formats.languages import LANGUAGE

TELL_EVERY = 4096
"""Texts between two words of progress."""


def write_texts(
    part: Part, content_keys: bool, drops: Drops, folder: Path, progress: Callable[[int], None]
) -> dict[str, int]:
    """Write the texts of `part` to tables in `folder`; returns the items of each.

    Blank texts and repeated keys are bad rows.

    Raises:
        DataError: a bad row, where `drops` says so, a code that is no language's, or too many languages.
    """
    writers: dict[tuple[str, str], TableWriter] = {}
    ids = (NumberWriter(folder / "ids"), NumberWriter(folder / "id_keys"))
    done = 0
    for item in part.read(drops):
        if isinstance(item, IdItem):
            ids[0].append(digest_number(item.id))
            ids[1].append(digest_number(item.key))
            continue
        if item.text is not None and not item.text.strip():
            drops.bad(item.place, "an empty text", f" ({item.side} {item.key} in {item.language})")
            continue
        _writer(writers, item, folder).append(item)
        done += 1
        if done % TELL_EVERY == 0:
            progress(done)
    progress(done)
    for number_writer in ids:
        number_writer.close()
    for writer in writers.values():
        writer.close()
    counts = {}
    for side, language in sorted(writers, key=lambda key: (key[0] != "query", key[1])):
        table = Table(folder / f"{side}.{language}")
        table.drop_repeated(None if content_keys else _repeated(drops, side))
        counts[f"{side}.{language}"] = len(table)
    return counts


def _writer(writers: dict[tuple[str, str], TableWriter], item: TextItem, folder: Path) -> TableWriter:
    key = item.side, item.language
    writer = writers.get(key)
    if writer is None:
        if not LANGUAGE.fullmatch(item.language):
            raise DataError(f"{item.place}: {item.language!r} is not a language code such as en, zh or pt-BR")
        check_languages(1 + sum(side == item.side for side, _ in writers), f"{item.place}: the source up to here")
        path = folder / f"{item.side}.{item.language}"
        shutil.rmtree(path, ignore_errors=True)
        writer = writers[key] = TableWriter(path)
    return writer


def _repeated(drops: Drops, side: str) -> Callable[[Place, Place], None]:
    def told(again: Place, first: Place) -> None:
        drops.bad(again, f"a {side} id that came before", f" (at {first})")

    return told
