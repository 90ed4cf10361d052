"""The reader of a data set's files for training, by the form that the catalogue names."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from fnmatch import fnmatchcase
from typing import Any

from hbtrain.corpus.drops import Drops
from hbtrain.corpus.readers.by_id import JudgedReader, MmarcoReader, SquadReader
from hbtrain.corpus.readers.columns import ColumnReader, Columns
from hbtrain.corpus.readers.inline import InlineReader, LinesReader, PagesReader, ParallelReader, PluginReader
from hbtrain.corpus.readers.items import Reader
from hbtrain.errors import ConfigError, DataError, did_you_mean
from hbtrain.formats.inputs import Position
from hbtrain.formats.judged import JudgedFolder, find_beir, find_miracl, find_mr_tydi
from hbtrain.formats.mteb import find_mteb
from hbtrain.formats.parallel import ParallelRow
from hbtrain.hub import DataSet, Fetched, Repository
from hbtrain.hub.data_set import filled
from hbtrain.plugins import plugins


def reader_of(fetched: Fetched) -> Reader:
    """The reader of the files of a data set, for `hbtrain.corpus.prepare.prepare`.

    Raises:
        ConfigError: the catalogue names a form that is not known.
        DataError: the files are not of that form.
    """
    asked = fetched.listing
    form = asked.data_set.form_for(asked.purpose)
    if form in plugins("reader") and form not in FORMS:
        return PluginReader(form, [str(fetched.folder / name) for name in sorted(fetched.files)])
    if form not in FORMS:
        forms = [*FORMS, *plugins("reader")]
        hint = did_you_mean(form, forms) or f"known for training are {', '.join(forms)}"
        raise ConfigError(f"data set {asked.data_set.name}: unknown form {form!r}: {hint}".rstrip())
    return FORMS[form](fetched)


def files_of_languages(fetched: Fetched) -> dict[str, list[str]]:
    """{language: its files}, from the patterns of the catalogue; files of all languages are those of each.

    Raises:
        DataError: a language has none.
    """
    asked = fetched.listing
    own: dict[str, list[str]] = {language: [] for language in asked.languages}
    for source in asked.data_set.sources:
        if asked.purpose not in (source.purposes or (asked.purpose,)):
            continue
        for pattern in source.files if isinstance(source, Repository) else (source.to,):
            for language, found in own.items():
                spelled = {"language": asked.data_set.languages[language], "code": language, "other": "*"}
                path = filled(pattern, dict(asked.options) | spelled)
                found += [str(fetched.folder / name) for name in fetched.files if fnmatchcase(name, path)]
    if lacking := [language for language, found in own.items() if not found]:
        raise DataError(f"data set {asked.data_set.name} has no files in {lacking[0]}")
    return {language: list(dict.fromkeys(found)) for language, found in own.items()}


class TablesReader(InlineReader):
    """Rows of tables in one language each, or with columns for several; the catalogue says what is in which column."""

    kind = "columns"

    def __init__(self, fetched: Fetched) -> None:
        """A reader of all tables of a data set. Raises DataError if a language has none."""
        named = fetched.listing.data_set
        self.sentences = "text" in named.columns
        tables: dict[tuple[str, ...], list[str]] = {}
        for language, paths in files_of_languages(fetched).items():
            tables.setdefault(tuple(paths), []).append(language)
        self._readers = [ColumnReader(paths, _columns(named, languages)) for paths, languages in tables.items()]
        self.inputs = [path for paths in tables for path in paths]
        self.options: dict[str, Any] = {"columns": [reader.columns.to_json() for reader in self._readers]}

    def rows(self, drops: Drops) -> Iterator[tuple[ParallelRow, Position]]:
        for reader in self._readers:
            yield from reader.rows(drops)


def _columns(named: DataSet, languages: Sequence[str]) -> Columns:
    """The columns of the tables that a data set has in some languages."""
    of_part = {
        part: {x: filled(column, {"language": named.languages[x], "code": x}) for x in languages}
        for part, column in named.columns.items()
    }
    query, passage, negatives, text = (of_part.get(part, {}) for part in ("query", "passage", "negatives", "text"))
    return Columns(query, passage, negatives, text=text)


def _judged(find: Callable[[str, str, Sequence[str]], JudgedFolder]) -> Callable[[Fetched], Reader]:
    """What makes the reader of judged queries from a function of folder, split and languages that finds the files."""

    def made(fetched: Fetched) -> Reader:
        asked = fetched.listing
        found = find(str(fetched.folder), asked.options.get("split", "train"), asked.languages)
        return JudgedReader(found, asked.languages)

    return made


def _one_each(fetched: Fetched) -> dict[str, str]:
    """{language: its only file}."""
    found = files_of_languages(fetched)
    for language, paths in found.items():
        if len(paths) > 1:
            raise DataError(f"data set {fetched.listing.data_set.name} has {len(paths)} files in {language}, not one")
    return {language: paths[0] for language, paths in found.items()}


FORMS: Mapping[str, Callable[[Fetched], Reader]] = {
    "parallel": lambda fetched: ParallelReader(
        [str(fetched.folder / name) for name in sorted(fetched.files)], fetched.listing.languages
    ),
    "columns": TablesReader,
    "lines": lambda fetched: LinesReader(_one_each(fetched)),
    "squad": lambda fetched: SquadReader(_one_each(fetched), complete=False),
    "pages": lambda fetched: PagesReader(_one_each(fetched)),
    "mmarco": lambda fetched: MmarcoReader(
        str(fetched.folder), fetched.listing.languages, translator=fetched.listing.options.get("translator")
    ),
    "miracl": _judged(lambda folder, split, _: find_miracl(folder, split, by="topics")),
    "mr-tydi": _judged(lambda folder, split, _: find_mr_tydi(folder, split)),
    "beir": _judged(find_beir),
    "mteb": _judged(find_mteb),
}
"""{form: what makes its reader}."""
