"""What a file of the catalogue says of a data set: its schema."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import PurePosixPath
from string import Formatter
from typing import Annotated, Any, Literal

from pydantic import Discriminator, Field, StringConstraints, Tag, ValidationInfo, field_validator, model_validator

from hbtrain.config.section import PositiveFloat, Section
from hbtrain.errors import DataError
from hbtrain.formats.languages import LANGUAGE, choose_languages

Purpose = Literal["benchmark", "training", "sentences"]
Text = Annotated[str, StringConstraints(strip_whitespace=True, min_length=1)]
Hex = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]+$")]
Digests = Mapping[str, Hex] | Hex
"""Hex digests of a source's files: {language code: digest}, or one if the source is one file for all languages."""

LANGUAGE_FIELDS = ("language", "code", "other")
"""What stands in patterns for the set's spelling of a language and for hbtrain's code; with `{other}`, the spelling of
another, for each ordered pair of languages."""
NEWEST = "main"
"""The revision of a repository of which no commit is known: the newest one when it is asked for."""
DIGEST_LENGTHS = {"sha256": 64, "md5": 32, "git": 40}  # {algorithm: hex digits}; git: SHA-1 of git's blob


KINDS = ("repository", "url")
"""The keys by which one kind of source is told from the other."""


class _Source(Section):
    purposes: tuple[Purpose, ...] | None = None  # for which the files are needed; None: for all

    def patterns(self) -> tuple[str, ...]:
        """The texts in which fields such as `{language}` may stand."""
        raise NotImplementedError


class Repository(_Source):
    """Files of a dataset repository on the hub, at one commit."""

    repository: Annotated[str, StringConstraints(pattern=r"^[\w.-]+/[\w.-]+$")]
    revision: Annotated[str, StringConstraints(pattern=rf"^([0-9a-f]{{40}}|{NEWEST})$")]  # a commit, or NEWEST
    gated: bool = False  # whether its terms must be accepted on its page before it can be read
    files: Annotated[tuple[Text, ...], Field(min_length=1)]
    """Patterns in which `*` is any text without a slash; each must match a file, for each language."""
    optional: tuple[Text, ...] = ()  # patterns that may match nothing, such as licences

    def patterns(self) -> tuple[str, ...]:
        return (*self.files, *self.optional)


class Download(_Source):
    """Files at web addresses whose content never changes, such as those of a commit on GitHub."""

    url: Annotated[str, StringConstraints(pattern=r"^https?://")]
    to: Text  # path of the file in the data set's folder
    sha256: Digests | None = None
    md5: Digests | None = None
    git: Digests | None = None
    unpack: Text | None = None  # path in the zip or tar archive that `url` is, of the file that becomes `to`

    def patterns(self) -> tuple[str, ...]:
        return (self.url, self.to, *([] if self.unpack is None else [self.unpack]))

    @property
    def is_checked(self) -> bool:
        """Whether digests of its files have been published."""
        return any(getattr(self, algorithm) is not None for algorithm in DIGEST_LENGTHS)

    def digest(self, language: str) -> str | None:
        """`algorithm:hex digits` of the file of a language; None: none has been published."""
        for algorithm in DIGEST_LENGTHS:
            known: Digests | None = getattr(self, algorithm)
            value = known if isinstance(known, str) or known is None else known.get(language)
            if value is not None:
                return f"{algorithm}:{value}"
        return None

    @field_validator("url", "to", "unpack")
    @classmethod
    def _inside(cls, value: str | None) -> str | None:
        path = PurePosixPath((value or "").rpartition("://")[2])
        if path.is_absolute() or ".." in path.parts:
            raise ValueError(f"must be a path inside the folder, not {path}")
        return value

    @field_validator(*DIGEST_LENGTHS)
    @classmethod
    def _whole_digests(cls, value: Digests | None, info: ValidationInfo) -> Digests | None:
        length = DIGEST_LENGTHS[str(info.field_name)]
        for digest in (value,) if isinstance(value, str) else (value or {}).values():
            if len(digest) != length:
                raise ValueError(f"a digest has {length} hex digits, not {len(digest)}")
        return value

    @model_validator(mode="after")
    def _distinct(self) -> Download:
        named = {*fields([self.to])}
        if missing := sorted({*fields([self.url])} - named - ({"language"} if "code" in named else set())):
            raise ValueError(f"to must name {{{missing[0]}}}, as url does")
        return self


def _kind(value: Any) -> str | None:
    keys = value if isinstance(value, Mapping) else vars(value)
    return next((kind for kind in KINDS if kind in keys), None)


Source = Annotated[
    Annotated[Repository, Tag("repository")] | Annotated[Download, Tag("url")],
    Discriminator(_kind, custom_error_type="source", custom_error_message="needs `repository` or `url`"),
]


class Licence(Section):
    """Under what terms a data set may be used."""

    name: Text  # as its publisher writes it: apache-2.0, cc-by-sa-4.0
    page: Annotated[str, StringConstraints(pattern=r"^https?://")]  # where that is said


class DataSet(Section):
    """A data set of the catalogue."""

    name: Annotated[str, StringConstraints(pattern=r"^[a-z0-9]+(-[a-z0-9]+)*$")]
    family: str | None = None  # name of the page of the catalogue of which it is one of the parts
    title: Text  # what it is, in one line
    purposes: Annotated[tuple[Purpose, ...], Field(min_length=1)]  # what it is for; the first where none is asked for
    form: Text | Mapping[Purpose, Text]  # what reads its folder: one form, or one for each purpose
    languages: Annotated[Mapping[str, Text], Field(min_length=1)]
    """{language code: the set's own spelling}; codes are of ISO 639-1 where there is one, else of 639-3."""
    splits: Mapping[Purpose, Annotated[tuple[Text, ...], Field(min_length=1)]] = {}
    """{purpose: what `{split}` may stand for}, the first where none is asked for."""
    options: Mapping[str, Annotated[tuple[Text, ...], Field(min_length=1)]] = {}
    """{name: values} of further fields of patterns, such as a translator; the first value where none is asked for."""
    lacks: Mapping[str, tuple[str, ...]] = {}
    """{purpose, split or value of an option: languages that the set does not have there}."""
    pivot: str | None = None  # a language that is the other side of all and has no files of its own, such as English
    columns: Mapping[Literal["query", "passage", "negatives", "text"], Text] = {}
    """{what: column of a table} of the form `columns`, such as `translation.{language}`; `text`: parallel sentences."""
    parallel: bool = False  # whether an id of a question means the same question in all languages
    sources: Annotated[tuple[Source, ...], Field(min_length=1)]
    sizes: Mapping[str, PositiveFloat] = {}  # {language: MB to fetch, as far as known}
    shared_size: PositiveFloat | None = None  # MB of files that are the same for all languages, such as one archive
    licence: Licence
    citation: Text
    checked: Text  # how each fact here was checked, and what was not

    @field_validator("languages", mode="before")
    @classmethod
    def _own_spelling(cls, value: Any) -> Any:
        return {code: code for code in value} if isinstance(value, Sequence) and not isinstance(value, str) else value

    @field_validator("languages")
    @classmethod
    def _codes(cls, value: Mapping[str, str]) -> Mapping[str, str]:
        for code in value:
            if not LANGUAGE.fullmatch(code):
                raise ValueError(f"{code!r} is not a language code such as en, yue or pt-BR")
        return value

    @model_validator(mode="after")
    def _agree(self) -> DataSet:
        for named in (self.splits, self.form if isinstance(self.form, Mapping) else {}):
            if unknown := [purpose for purpose in named if purpose not in self.purposes]:
                raise ValueError(f"{unknown[0]} is not among purposes")
        if isinstance(self.form, Mapping) and (missing := [x for x in self.purposes if x not in self.form]):
            raise ValueError(f"form names no reader for {missing[0]}")
        if strange := {*fields(tuple(self.columns.values()))} - {"language", "code"}:
            raise ValueError(f"{{{min(strange)}}} in columns is not known: code, language are")
        known = {*LANGUAGE_FIELDS, *(["split"] if self.splits else []), *self.options}
        for source in self.sources:
            for field in fields(source.patterns()):
                if field not in known:
                    raise ValueError(f"{{{field}}} in sources is not known: {', '.join(sorted(known))} are")
        return self

    @model_validator(mode="after")
    def _agree_on_languages(self) -> DataSet:
        downloads = [source for source in self.sources if isinstance(source, Download)]
        digests = [(name, getattr(source, name)) for source in downloads for name in DIGEST_LENGTHS]
        by_language = [(key, values) for key, values in digests if isinstance(values, Mapping)]
        for key, codes in (("sizes", self.sizes), *(("lacks", codes) for codes in self.lacks.values()), *by_language):
            if unknown := [code for code in codes if code not in self.languages]:
                raise ValueError(f"{key} names {unknown[0]}, which is not among languages")
        if self.pivot in self.languages:
            raise ValueError(f"pivot {self.pivot} is among languages; it has no files of its own")
        given = {x for named in (self.splits, self.options) for values in named.values() for x in values}
        if unknown := [value for value in self.lacks if value not in {*self.purposes, *given}]:
            raise ValueError(f"lacks names {unknown[0]}, which is no purpose, split or value of an option")
        return self

    @property
    def size(self) -> tuple[float, bool]:
        """MB to fetch for all languages, as far as known, and whether that is all."""
        whole = set(self.sizes) == set(self.languages) or (not self.sizes and self.shared_size is not None)
        return sum(self.sizes.values()) + (self.shared_size or 0), whole

    @property
    def gated(self) -> bool:
        """Whether terms must be accepted before all of it can be fetched."""
        return any(isinstance(source, Repository) and source.gated for source in self.sources)

    def form_for(self, purpose: Purpose) -> str:
        """What reads the folder for a purpose."""
        return self.form if isinstance(self.form, str) else self.form[purpose]

    def purpose(self, wanted: Purpose | None) -> Purpose:
        """`wanted`, or what the set is for in the first place. Raises DataError if the set is not for that."""
        if wanted is not None and wanted not in self.purposes:
            raise DataError(f"data set {self.name} is for {' and '.join(self.purposes)}, not for {wanted}")
        return wanted or self.purposes[0]

    def in_languages(
        self, purpose: Purpose, values: Mapping[str, str], wanted: Sequence[str] | None = None
    ) -> tuple[str, ...]:
        """Those of `wanted` that have files of their own, in that order; None: all languages that the set has there.

        Args:
            purpose: what the files are for.
            values: of the fields of patterns, see `chosen`.
            wanted: hbtrain's codes.

        Raises:
            DataError: one is not there, or is named twice, or the pivot is the only one.
        """
        where = f"data set {self.name}"
        lacking = {code: value for value in (purpose, *values.values()) for code in self.lacks.get(value, ())}
        there = [code for code in self.languages if code not in lacking]
        others = wanted if wanted is None else [code for code in wanted if code != self.pivot]
        if wanted and not others:
            raise DataError(
                f"{where}: {self.pivot} is the other side of all its languages; name one of {', '.join(there)}"
            )
        for code in others or ():
            if code in lacking:
                raise DataError(f"{where} has nothing in {code} for {lacking[code]}; it has {', '.join(there)}")
        return choose_languages(there, others, where)

    def chosen(self, purpose: Purpose, given: Mapping[str, str]) -> dict[str, str]:
        """The value of each field of patterns, from those given and the first of the others.

        Raises:
            DataError: a name or a value is not known.
        """
        allowed = dict(self.options) | ({"split": self.splits[purpose]} if purpose in self.splits else {})
        for name, value in given.items():
            if name not in allowed:
                known = f"it has {', '.join(sorted(allowed))}" if allowed else "it has none"
                raise DataError(f"data set {self.name} has no option {name!r}; {known}")
            if value not in allowed[name]:
                raise DataError(f"data set {self.name}: {name} {value!r} must be {' or '.join(allowed[name])}")
        return {name: given.get(name, values[0]) for name, values in allowed.items()}


def fields(patterns: Sequence[str]) -> Iterator[str]:
    """The names of the fields in patterns: `language` of `{language}.json`."""
    for pattern in patterns:
        yield from (name for _, name, _, _ in Formatter().parse(pattern) if name is not None)


def filled(pattern: str, values: Mapping[str, str]) -> str:
    """The pattern with values in place of its fields."""
    return re.sub(r"\{(\w+)\}", lambda field: values[field[1]], pattern)
