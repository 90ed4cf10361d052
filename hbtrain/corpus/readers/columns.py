"""Rows from the columns of tables and Hugging Face datasets; the user says which column holds what."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from decimal import Decimal, InvalidOperation
from typing import Any

from hbtrain.corpus.drops import Drops
from hbtrain.corpus.readers.inline import InlineReader
from hbtrain.corpus.readers.items import check_languages
from hbtrain.errors import ConfigError, DataError, shown
from hbtrain.formats.inputs import Position, identifier
from hbtrain.formats.languages import LANGUAGE
from hbtrain.formats.parallel import ParallelRow
from hbtrain.formats.squad import is_unanswerable
from hbtrain.formats.tables import HuggingFaceSplit, Record, Records, table_reading

SHOWN_VALUES = 5  # how many values of a column a message names


@dataclass(frozen=True)
class Columns:
    """Which column holds what.

    A column is given by its name; by a path into its value, such as `answers.text.0`, where a name after a list means
    that key of each element; or by several of these, such as `title+text`, whose texts are joined with a space.
    """

    query: Mapping[str, str]  # {language: column} of the query
    passage: Mapping[str, str]  # {language: column} of its passage
    # {language: column} of texts that do not answer it; a value is a text or a list of texts
    negatives: Mapping[str, str]
    id: str | None = None  # column of the query's id; None: equal texts are one query
    passage_id: str | None = None  # column of the passage's id; None: equal texts are one passage
    # {column: value as text}; only records that have these values are rows. `1` is also 1.0 and true
    where: Mapping[str, str] = field(default_factory=dict)
    # {language: column} of parallel sentences, which are their own passages; then there are no other columns of texts
    text: Mapping[str, str] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        found = asdict(self)
        return found if self.text else {name: value for name, value in found.items() if name != "text"}

    def names(self) -> list[str]:
        """The names of the columns that must be read, without paths into them."""
        sides = (self.query, self.passage, self.negatives, self.text)
        paths = [*(path for side in sides for path in side.values()), self.id, self.passage_id]
        parts = [part for path in paths if path for part in path.split("+")]
        return list(dict.fromkeys(part.split(".")[0] for part in (*parts, *self.where)))


def parse_columns(pairs: Sequence[str], flag: str) -> dict[str, str]:
    """{language: column} from arguments of the form `LANGUAGE=COLUMN`.

    Raises:
        ConfigError: one is not of that form, or a language comes twice.
        DataError: there are more languages than a corpus can hold.
    """
    columns: dict[str, str] = {}
    for pair in pairs:
        language, equals, column = pair.partition("=")
        if not equals or not column or not LANGUAGE.fullmatch(language):
            raise ConfigError(f"{flag} {pair}: must be LANGUAGE=COLUMN, such as en=question")
        if language in columns:
            raise ConfigError(f"{flag} {pair}: {language} has the column {columns[language]} already")
        columns[language] = column
    check_languages(len(columns), flag)
    return columns


def parse_where(pairs: Sequence[str]) -> dict[str, str]:
    """{column: value} from arguments of the form `COLUMN=VALUE`.

    Raises:
        ConfigError: one is not of that form.
    """
    for pair in pairs:
        if not pair.partition("=")[1] or pair.startswith("="):
            raise ConfigError(f"--where {pair}: must be COLUMN=VALUE, such as label=1")
    return {column: value for column, _, value in (pair.partition("=") for pair in pairs)}


class _BadRecordError(Exception):
    """A record that makes no row, with the reason and the detail for `Drops.bad`."""


class MappedReader(InlineReader):
    """A reader that makes a row of each record of a table."""

    columns: Columns

    @abstractmethod
    def records(self, drops: Drops) -> Records:
        """The records with their positions; each has the columns of `columns.names()`."""

    def rows(self, drops: Drops) -> Iterator[tuple[ParallelRow, Position]]:
        """A row for each record that passes `where`. A row lacks the languages whose columns are empty. Questions that
        say that they have no answer are left out and counted.

        Raises:
            DataError: there are records, and none passes.
        """
        where, passed = self.columns.where, False
        seen: dict[str, set[str]] = {column: set() for column in where}
        for record, position in self.records(drops):
            values = {column: _inside(record, column) for column in where}
            if not passed:
                for column, value in values.items():
                    if len(seen[column]) < SHOWN_VALUES:
                        seen[column].add(shown(value))
            if not all(_fits(values[column], wanted) for column, wanted in where.items()):
                continue
            passed = True
            if is_unanswerable(record):
                drops.leave_out(position, "a question without an answer")
                continue
            passed = True
            try:
                row = self._row(record)
            except _BadRecordError as error:
                drops.bad(position, *error.args)
                continue
            yield row, position
        if any(seen.values()) and not passed:
            sought = " ".join(f"{column}={wanted}" for column, wanted in where.items())
            there = "; ".join(f"{x} has values such as {', '.join(sorted(values))}" for x, values in seen.items())
            raise DataError(f"--where {sought} fits no record of {', '.join(self.inputs) or self.kind}: {there}")

    def _row(self, record: Record) -> ParallelRow:
        columns = self.columns
        if columns.text:
            texts, key = _texts(record, columns.text), _id(record, columns.id)
            if not texts:
                raise _BadRecordError("an empty text", f" ({_listed(columns.text)})")
            return ParallelRow(key, texts, texts, key)
        query, passage = _texts(record, columns.query), _texts(record, columns.passage)
        if not query:
            raise _BadRecordError("an empty text", f" (query: {_listed(columns.query)})")
        if not passage:
            raise _BadRecordError("an empty text", f" (passage: {_listed(columns.passage)})")
        negatives = [
            {language: text}
            for language, column in columns.negatives.items()
            for text in _negatives(record, column)
            if text.strip()
        ]
        return ParallelRow(_id(record, columns.id), query, passage, _id(record, columns.passage_id), negatives)


class ColumnReader(MappedReader):
    """Rows of table files, one file after the other."""

    kind = "columns"

    def __init__(self, files: Sequence[str], columns: Columns) -> None:
        """A reader of files. Raises ConfigError where the name of one has no ending of a table."""
        self.inputs = list(files)
        self.columns = columns
        self.sentences = bool(columns.text)
        self.options: dict[str, Any] = {"columns": columns.to_json()}
        self._readings = [table_reading(file) for file in files]

    def records(self, drops: Drops) -> Records:
        for file, reading in zip(self.inputs, self._readings, strict=True):
            yield from reading(file, self.columns.names(), drops)


class HuggingFaceReader(MappedReader):
    """Rows of one split of a Hugging Face dataset."""

    kind = "huggingface"

    def __init__(
        self, name: str, columns: Columns, split: str = "train", config: str | None = None, revision: str | None = None
    ) -> None:
        """Opens the dataset, as `HuggingFaceSplit` does.

        Raises:
            DataError: there is no such dataset, split or column.
        """
        self.columns = columns
        self.sentences = bool(columns.text)
        self.inputs = []
        self._data = HuggingFaceSplit(name, columns.names(), split, config, revision)
        self.options: dict[str, Any] = {
            "dataset": name,
            "split": split,
            "config": config,
            "revision": revision,
            "fingerprint": self._data.fingerprint,
            "columns": columns.to_json(),
        }

    def records(self, drops: Drops) -> Records:
        return self._data.records()


def _texts(record: Record, columns: Mapping[str, str]) -> dict[str, str]:
    found = {}
    for language, column in columns.items():
        parts = [value for part in column.split("+") if (value := _inside(record, part)) is not None]
        for value in parts:
            if not isinstance(value, str):
                raise _BadRecordError("a column that holds no text", f" ({column} holds {type(value).__name__})")
        text = " ".join(part for part in parts if part.strip())
        if text:
            found[language] = text
    return found


def _negatives(record: Record, column: str) -> list[str]:
    value = _inside(record, column)
    texts = [] if value is None else [value] if isinstance(value, str) else value
    if not isinstance(texts, list) or not all(isinstance(text, str) for text in texts):
        raise _BadRecordError("a column that holds no text", f" ({column}: a text or a list of texts is expected)")
    return texts


def _id(record: Record, column: str | None) -> str:
    if column is None:
        return ""
    value = identifier(_inside(record, column))
    if value is None:
        raise _BadRecordError("a row without an id", f" ({column} is {shown(_inside(record, column))})")
    return value


def _fits(value: Any, wanted: str) -> bool:
    """Whether a value is that of `--where`: numbers are compared as numbers, true and false in any capitals."""
    if isinstance(value, bool):
        return str(value).lower() == wanted.lower()
    if isinstance(value, int | float | Decimal):
        try:
            return Decimal(wanted) == Decimal(str(value))  # str: 0.1 is the number that is written so
        except (InvalidOperation, ValueError):
            return False
    return str(value) == wanted


def _inside(value: Any, path: str) -> Any:
    """The value that a path such as `answers.text.0` leads to inside `value`; None where it leads nowhere."""
    for name in path.split("."):
        if isinstance(value, list):
            if name.isdigit():
                value = value[int(name)] if int(name) < len(value) else None
            else:
                value = [element.get(name) if isinstance(element, Mapping) else None for element in value]
        else:
            value = value.get(name) if isinstance(value, Mapping) else None
    return value


def _listed(columns: Mapping[str, str]) -> str:
    return ", ".join(columns.values())
