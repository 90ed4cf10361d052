"""The reader of a data set's files for training, by the form that the catalogue names."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from fnmatch import fnmatchcase
from typing import Any

from hbtrain.corpus.drops import Drops
from hbtrain.corpus.readers.by_id import JudgedReader, MmarcoReader, SquadReader
from hbtrain.corpus.readers.columns import ColumnReader, Columns
from hbtrain.corpus.readers.inline import InlineReader, PagesReader, ParallelReader
from hbtrain.corpus.readers.items import Reader, check_languages
from hbtrain.errors import ConfigError, DataError, did_you_mean
from hbtrain.formats.inputs import REFUSED, Position, numbered_lines
from hbtrain.formats.judged import find_beir, find_miracl, find_mr_tydi
from hbtrain.formats.mteb import find_mteb
from hbtrain.formats.parallel import ParallelRow
from hbtrain.hub import Fetched, Listing, Repository
from hbtrain.hub.data_set import filled


def reader_of(files: Listing, fetched: Fetched) -> Reader:
    """The reader of the files of a data set, for `hbtrain.corpus.prepare.prepare`.

    Args:
        files: which files are wanted in which languages.
        fetched: the same, on this machine.

    Raises:
        ConfigError: the catalogue names a form that is not known.
        DataError: the files are not of that form.
    """
    form = files.data_set.form_for(files.purpose)
    if form not in FORMS:
        hint = did_you_mean(form, FORMS) or f"known for training are {', '.join(FORMS)}"
        raise ConfigError(f"data set {files.data_set.name}: unknown form {form!r}: {hint}".rstrip())
    return FORMS[form](files, fetched)


def files_of_languages(files: Listing, fetched: Fetched) -> dict[str, list[str]]:
    """{language: its files}, from the patterns of the catalogue; files of all languages are those of each.

    Raises:
        DataError: a language has none.
    """
    own: dict[str, list[str]] = {language: [] for language in files.languages}
    for source in files.data_set.sources:
        if source.purposes is not None and files.purpose not in source.purposes:
            continue
        for pattern in source.files if isinstance(source, Repository) else (source.to,):
            for language, found in own.items():
                spelled = {"language": files.data_set.languages[language], "code": language, "other": "*"}
                path = filled(pattern, dict(files.options) | spelled)
                found += [
                    str(fetched.folder / name)
                    for name in fetched.files
                    if fnmatchcase(name, path) or name.startswith(f"{path}/")
                ]
    if lacking := [language for language, found in own.items() if not found]:
        raise DataError(f"data set {files.data_set.name} has no files in {lacking[0]}")
    return {language: list(dict.fromkeys(found)) for language, found in own.items()}


class TablesReader(InlineReader):
    """Rows of tables in one language each, or with columns for several; the catalogue says what is in which column."""

    kind = "columns"

    def __init__(self, files: Listing, fetched: Fetched) -> None:
        """A reader of all tables of a data set.

        Raises:
            DataError: a language has no file, or there are more languages than a corpus can hold.
        """
        check_languages(len(files.languages), f"data set {files.data_set.name}")
        self.sentences = "text" in files.data_set.columns
        tables: dict[tuple[str, ...], list[str]] = {}
        for language, paths in files_of_languages(files, fetched).items():
            tables.setdefault(tuple(paths), []).append(language)
        self._readers = [ColumnReader(paths, _columns(files, languages)) for paths, languages in tables.items()]
        self.inputs = [path for paths in tables for path in paths]
        self.options: dict[str, Any] = {"columns": [reader.columns.to_json() for reader in self._readers]}

    def rows(self, drops: Drops) -> Iterator[tuple[ParallelRow, Position]]:
        for reader in self._readers:
            for row, position in reader.rows(drops):
                yield replace(row, passage=row.query) if self.sentences else row, position


def _columns(files: Listing, languages: Sequence[str]) -> Columns:
    """The columns of tables in some languages."""
    of_part = {
        part: {language: filled(name, {"language": files.data_set.languages[language]}) for language in languages}
        for part, name in files.data_set.columns.items()
    }
    text = of_part.get("text", {})
    return Columns(of_part.get("query", text), of_part.get("passage", text), of_part.get("negatives", {}))


class LinesReader(InlineReader):
    """Parallel sentences from files of one language each: line i of one translates line i of the others."""

    kind = "lines"
    sentences = True

    def __init__(self, files: Mapping[str, str]) -> None:
        """A reader of {language: file}. Raises DataError if there are more languages than a corpus can hold."""
        check_languages(len(files), "the source")
        self._files = dict(files)
        self.inputs = list(files.values())
        self.options: dict[str, Any] = {"languages": list(files)}

    def rows(self, drops: Drops) -> Iterator[tuple[ParallelRow, Position]]:
        """A row for each line; a language whose line is blank is missing in it.

        Raises:
            DataError: the files have not equally many lines.
        """
        try:
            # Refused: a line that is left out would shift all that follow.
            lines = (numbered_lines(file, REFUSED, blank=True) for file in self.inputs)
            for together in zip(*lines, strict=True):
                texts = {x: text for x, (text, _) in zip(self._files, together, strict=True) if text.strip()}
                position = together[0][1]
                if texts:
                    yield ParallelRow("", texts, texts, ""), position
                else:
                    drops.bad(position, "an empty text", " (a line that is blank in all languages)")
        except ValueError as error:
            raise DataError(f"{', '.join(self.inputs)}: not equally many lines ({error})") from error


def _judged(find: Callable[..., Any], **more: Any) -> Callable[[Listing, Fetched], Reader]:
    def made(files: Listing, fetched: Fetched) -> Reader:
        found = find(str(fetched.folder), files.options.get("split", "train"), **more)
        return JudgedReader(found, files.languages)

    return made


def _one_each(files: Listing, fetched: Fetched) -> dict[str, str]:
    found = files_of_languages(files, fetched)
    for language, paths in found.items():
        if len(paths) > 1:
            raise DataError(f"data set {files.data_set.name} has {len(paths)} files in {language}; one is expected")
    return {language: paths[0] for language, paths in found.items()}


FORMS: Mapping[str, Callable[[Listing, Fetched], Reader]] = {
    "parallel": lambda files, fetched: ParallelReader([str(fetched.folder / name) for name in fetched.files]),
    "columns": TablesReader,
    "lines": lambda files, fetched: LinesReader(_one_each(files, fetched)),
    "squad": lambda files, fetched: SquadReader(_one_each(files, fetched), complete=False),
    "pages": lambda files, fetched: PagesReader(_one_each(files, fetched)),
    "mmarco": lambda files, fetched: MmarcoReader(str(fetched.folder), files.languages),
    "miracl": _judged(find_miracl, by="topics"),
    "mr-tydi": _judged(find_mr_tydi),
    "beir": _judged(find_beir),
    "mteb": lambda files, fetched: JudgedReader(
        find_mteb(str(fetched.folder), files.options.get("split", "train"), files.languages), files.languages
    ),
}
"""{form: what makes its reader}."""
