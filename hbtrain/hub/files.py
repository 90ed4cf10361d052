"""Which files of a data set are wanted: from its patterns, and what the repository holds."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path

from hbtrain.errors import DataError
from hbtrain.formats.languages import choose_languages
from hbtrain.hub.data_set import DataSet, Download, Purpose, Repository, fields, filled
from hbtrain.hub.repositories import read_tree, snapshot_path
from hbtrain.storage import cache_root


@dataclass(frozen=True)
class File:
    """A file of a data set."""

    path: str  # in the data set's folder
    url: str  # where it comes from
    local: Path  # where it is, or will be, on this machine: a link in the hub's cache, or in hbtrain's
    size: int | None  # bytes; None: not known before it is fetched
    digest: str | None  # `sha256:...`, `git:...` (SHA-1 of git's blob) or `md5:...`; None: none has been published
    source: Repository | Download

    @property
    def is_there(self) -> bool:
        """Whether a file is where it belongs; what it holds is not looked at."""
        return self.local.exists()


@dataclass(frozen=True)
class Listing:
    """The files of a data set in some languages, those that are on this machine and those that are not."""

    data_set: DataSet
    purpose: Purpose
    languages: tuple[str, ...]
    options: Mapping[str, str]  # value of each field of patterns, such as `split`
    files: tuple[File, ...]

    @property
    def missing(self) -> tuple[File, ...]:
        """The files that are to be fetched."""
        return tuple(file for file in self.files if not file.is_there)

    @property
    def size(self) -> int:
        """Bytes of all files whose size is known."""
        return sum(file.size or 0 for file in self.files)

    @property
    def missing_size(self) -> int:
        """Bytes to fetch, as far as known."""
        return sum(file.size or 0 for file in self.missing)


def listing(
    data_set: DataSet,
    languages: Sequence[str] | None = None,
    *,
    purpose: Purpose | None = None,
    options: Mapping[str, str] | None = None,
    cache: str | None = None,
) -> Listing:
    """The files of a data set. Each repository is asked once for what it holds, and the answer is kept.

    Args:
        data_set: of the catalogue.
        languages: hbtrain's codes; None: all that the set has.
        purpose: what the files are for; None: what the set is for in the first place.
        options: values of fields of its patterns, such as `split` and `translator`.
        cache: folder of hbtrain's cache; by default `$HBTRAIN_CACHE` or `~/.cache/hbtrain`.

    Raises:
        DataError: the set has not such languages, purpose or options; a repository cannot be read, or lacks a file.
    """
    for_purpose = data_set.purpose(purpose)
    chosen = choose_languages(data_set.languages, languages, f"data set {data_set.name}")
    values = data_set.chosen(for_purpose, options or {})
    found: dict[str, File] = {}
    for source in data_set.sources:
        if source.purposes is not None and for_purpose not in source.purposes:
            continue
        if isinstance(source, Repository):
            made = _of_repository(data_set, source, chosen, values)
        else:
            made = _of_addresses(data_set, source, chosen, values, cache_root(cache))
        found |= {file.path: file for file in made}
    return Listing(data_set, for_purpose, chosen, values, tuple(found.values()))


def _of_repository(
    data_set: DataSet, source: Repository, languages: Sequence[str], values: Mapping[str, str]
) -> Iterator[File]:
    tree = read_tree(source)
    for pattern in (*source.files, *source.optional):
        for language, path in _expanded(data_set, pattern, languages, values):
            matches = [name for name in tree if fnmatchcase(name, path)]
            if not matches and pattern in source.files:
                of = f" for {language}" if language else ""
                raise DataError(
                    f"data set {data_set.name} has no files{of}: "
                    f"{source.repository} at {source.revision} holds none that match {path}"
                )
            for name in matches:
                url, size, digest = tree[name]
                yield File(name, url, snapshot_path(source, name), size, digest, source)


def _of_addresses(
    data_set: DataSet, source: Download, languages: Sequence[str], values: Mapping[str, str], root: Path
) -> Iterator[File]:
    for language, url in _expanded(data_set, source.url, languages, values):
        fill = dict(values) | ({"language": data_set.languages[language]} if language else {})
        local = root / "hub" / url.partition("://")[2]
        yield File(filled(source.to, fill), url, local, None, source.digest(language), source)


def _expanded(
    data_set: DataSet, pattern: str, languages: Sequence[str], values: Mapping[str, str]
) -> Iterator[tuple[str, str]]:
    """(language, pattern with values in place of its fields); the language is empty where the pattern has none."""
    named = set(fields([pattern]))
    for language in languages if "language" in named else ("",):
        for other in languages if "other" in named else ("",):
            spelled = {"language": language, "other": other}
            yield language, filled(pattern, dict(values) | {k: data_set.languages[v] for k, v in spelled.items() if v})
