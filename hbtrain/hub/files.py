"""Which files of a data set are wanted: from its patterns, and what the repository holds."""

from __future__ import annotations

import hashlib
import shlex
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field, replace
from fnmatch import fnmatchcase
from pathlib import Path
from urllib.parse import quote

from hbtrain.errors import DataError
from hbtrain.hub.data_set import DataSet, Download, Purpose, Repository, fields, filled
from hbtrain.hub.names import catalogue
from hbtrain.hub.problems import in_words
from hbtrain.hub.repositories import (
    Entry,
    ask_tree,
    at_commit,
    endpoint,
    file_url,
    headers,
    is_there,
    kept_tree,
    lock_path,
    repository_folder,
)
from hbtrain.hub.web import Web
from hbtrain.storage import cache_root

PARALLEL = 8  # how many files are fetched, or asked for their size, at the same time


@dataclass(frozen=True)
class File:
    """A file of a data set, or an archive of such files."""

    path: str  # in the data set's folder; of an archive, which is not there: its address
    url: str  # where it comes from
    local: Path  # how readers open it, in the cache of huggingface_hub or of hbtrain
    blob: Path  # where its content is kept; `local` is a link to it, or the same
    lock: Path  # the file that whoever writes `blob` holds the lock of
    size: int | None  # bytes; None: not known before it is fetched
    digest: str | None  # `sha256:...`, `git:...` (SHA-1 of git's blob) or `md5:...`; None: none has been published
    source: Repository | Download
    # {path in an archive: path in the data set's folder} of what is taken out of it; empty: it is no archive
    members: Mapping[str, str] = field(default_factory=dict)

    @property
    def content(self) -> Path | None:
        """Where its content is on this machine, right or not; None: it is not."""
        return next((path for path in (self.local, self.blob) if is_there(path)), None)

    @property
    def headers(self) -> dict[str, str]:
        """Headers of requests for it; a token is for the hub alone."""
        return headers() if isinstance(self.source, Repository) else {}


@dataclass(frozen=True)
class Listing:
    """The files of a data set in some languages, those that are on this machine and those that are not."""

    data_set: DataSet
    purpose: Purpose
    languages: tuple[str, ...]
    options: Mapping[str, str]  # value of each field of patterns, such as `split`
    files: tuple[File, ...]
    elsewhere: str  # how another machine fetches them, and where they belong, for messages

    @property
    def missing(self) -> tuple[File, ...]:
        """The files that are to be fetched; of several with the same content one."""
        return tuple({file.blob: file for file in self.files if file.content is None}.values())

    @property
    def size(self) -> int:
        """Bytes of all files whose size is known."""
        return sum(file.size or 0 for file in self.files)

    @property
    def missing_size(self) -> int:
        """Bytes to fetch, as far as known."""
        return sum(file.size or 0 for file in self.missing)

    @property
    def unknown(self) -> int:
        """How many files are to be fetched whose size is not known."""
        return sum(file.size is None for file in self.missing)


def listing(
    data_set: DataSet,
    languages: Sequence[str] | None = None,
    *,
    purpose: Purpose | None = None,
    options: Mapping[str, str] | None = None,
    cache: str | None = None,
    notify: Callable[[str], None] = lambda text: None,
    ask: bool = True,
) -> Listing:
    """The files of a data set. Each repository is asked once for what it holds, and the answer is kept.

    Args:
        data_set: of the catalogue.
        languages: hbtrain's codes; None: all that the set has.
        purpose: what the files are for; None: what the set is for in the first place.
        options: values of fields of its patterns, such as `split` and `translator`.
        cache: folder of hbtrain's cache; by default `$HBTRAIN_CACHE` or `~/.cache/hbtrain`.
        notify: called with a line of text where a server asks for patience.
        ask: whether servers may be asked; if not, what a repository holds must be known from earlier.

    Raises:
        DataError: the set has not such languages, purpose or options; a repository cannot be read, or lacks a file.
    """
    for_purpose = data_set.purpose(purpose)
    values = data_set.chosen(for_purpose, options or {})
    chosen = data_set.in_languages(for_purpose, values, languages)
    sources = [source for source in data_set.sources if for_purpose in (source.purposes or (for_purpose,))]
    root = cache_root(cache) / "hub"
    fetch = command(data_set, for_purpose, languages, options or {})
    elsewhere = _elsewhere(fetch, sources, root)
    web, found = Web(notify), dict[str, File]()
    for source in sources:
        if isinstance(source, Repository):
            with in_words(source, endpoint(), elsewhere):
                pinned, tree = _contents(source, web if ask else None, fetch)
            made = list(_of_repository(data_set, pinned, tree, chosen, values))
        else:
            made = list(_of_addresses(data_set, source, chosen, values, root))
            made = _sized(made, Web(notify, patient=False) if ask else None)
        found |= {file.path: file for file in made}
    return Listing(data_set, for_purpose, chosen, values, tuple(found.values()), elsewhere)


def _contents(source: Repository, web: Web | None, fetch: str) -> tuple[Repository, Mapping[str, Entry]]:
    """A repository at its commit, and {path: entry} of what it holds; asked for if need be, where `web` is given.

    Raises:
        DataError: it is not known, and may not be asked for.
        httpx2.HTTPError: see `ask_tree`.
    """
    from huggingface_hub.errors import RevisionNotFoundError

    pinned = at_commit(source, web)
    tree = None if pinned is None else kept_tree(pinned)
    if pinned is not None and tree is None and web is not None:
        try:
            tree = ask_tree(pinned, web)
        except RevisionNotFoundError:
            if source.revision == pinned.revision:
                raise
            # The history of `main` was written anew.
            pinned = at_commit(source, web, anew=True) or pinned
            tree = ask_tree(pinned, web)
    if pinned is None or tree is None:
        raise DataError(f"what {source.repository} holds is not known yet; run: {fetch}")
    return pinned, tree


def command(data_set: DataSet, purpose: Purpose, languages: Sequence[str] | None, options: Mapping[str, str]) -> str:
    """The command line that fetches the same files."""
    query = "&".join(f"{name}={value}" for name, value in options.items())
    words = ["hbtrain", "data", "fetch", data_set.name + (f"?{query}" if query else "")]
    words += [*(["--languages", *languages] if languages else [])]
    words += ["--purpose", purpose] if purpose != data_set.purposes[0] else []
    words += ["--catalogue", "FILE"] if data_set.name not in catalogue() else []
    return shlex.join(words)


def _elsewhere(fetch: str, sources: Sequence[Repository | Download], root: Path) -> str:
    places = dict.fromkeys(
        str(repository_folder(source) if isinstance(source, Repository) else root / "files") for source in sources
    )
    return f"on a machine with a network run: {fetch} ; and copy to the same place here: {' and '.join(places)}"


def _of_repository(
    data_set: DataSet,
    source: Repository,
    tree: Mapping[str, Entry],
    languages: Sequence[str],
    values: Mapping[str, str],
) -> Iterator[File]:
    for pattern in (*source.files, *source.optional):
        for language, spelled in _expanded(data_set, [pattern], languages, values):
            wanted = filled(pattern, spelled)
            depth = wanted.count("/")  # a star is no slash
            matches = [path for path in tree if path.count("/") == depth and fnmatchcase(path, wanted)]
            if not matches and pattern in source.files:
                of = f" for {language}" if language else ""
                raise DataError(
                    f"data set {data_set.name} has no such files{of}: "
                    f"{source.repository} at {source.revision[:12]} holds none that match {wanted}"
                )
            for path in matches:
                folder, entry = repository_folder(source), tree[path]
                local, blob = folder / "snapshots" / source.revision / path, folder / "blobs" / entry.blob
                lock = lock_path(source, entry.blob)
                yield File(path, file_url(source, path), local, blob, lock, entry.size, entry.digest, source)


def _of_addresses(
    data_set: DataSet, source: Download, languages: Sequence[str], values: Mapping[str, str], root: Path
) -> Iterator[File]:
    archives: dict[str, File] = {}
    for language, spelled in _expanded(data_set, source.patterns(), languages, values):
        url, to = filled(source.url, spelled), filled(source.to, spelled)
        address = url.partition("://")[2]
        local = root / "files" / quote(address, safe="/")
        lock = root / "locks" / f"{hashlib.sha256(url.encode()).hexdigest()[:24]}.lock"
        file = File(to, url, local, local, lock, None, source.digest(language), source)
        if source.unpack is None:
            yield file
        else:
            before = archives.get(url, replace(file, path=address))
            archives[url] = replace(before, members={**before.members, filled(source.unpack, spelled): to})
    yield from archives.values()


def _sized(files: Sequence[File], web: Web | None) -> list[File]:
    """The files with their sizes; of those that are not here, the server is asked where `web` is given."""

    def asked(file: File) -> File:
        if web is None:
            return file
        with suppress(DataError), in_words(file.source, file.url, ""):  # told when it is fetched
            return replace(file, size=web.size(file.url, file.headers))
        return file

    here = [replace(file, size=at.stat().st_size) for file in files if (at := file.content) is not None]
    missing = [file for file in files if file.content is None]
    with ThreadPoolExecutor(PARALLEL) as pool:
        return [*here, *pool.map(asked, missing)]


def _expanded(
    data_set: DataSet, patterns: Sequence[str], languages: Sequence[str], values: Mapping[str, str]
) -> Iterator[tuple[str, dict[str, str]]]:
    """(language, value of each field) for all that patterns ask for; the language is empty where they name none."""
    named = set(fields(patterns))
    for language in languages if named & {"language", "code"} else ("",):
        for other in languages if "other" in named else ("",):
            spelled = {"language": language, "other": other}
            own = {name: data_set.languages[code] for name, code in spelled.items() if code}
            yield language, {**values, **own, "code": language}
