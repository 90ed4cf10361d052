"""Data sets by name where paths may stand: `hub:mmarco?languages=ar,de` among sources, `xquad-r` among benchmarks.

On a cluster, whatever reads a data set asks for it as the driver does: where the cache is shared its files are there
already, and elsewhere one process of each node fetches them while the others wait.
"""

from __future__ import annotations

import hashlib
import json
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from hbtrain.corpus.prepared import FORMAT, MANIFEST
from hbtrain.corpus.readers.items import check_languages
from hbtrain.errors import DataError
from hbtrain.formats.languages import choose_languages
from hbtrain.hub import DataSet, Fetched, Listing, Repository, data_set, fetch, listing, parse
from hbtrain.hub.data_set import Purpose
from hbtrain.hub.names import SCHEME
from hbtrain.reporting.text import byte_size, counted, lasting
from hbtrain.storage import cache_root

TRAINING: tuple[Purpose, ...] = ("training", "sentences")
"""Purposes of the data sets that are sources of training."""
BENCHMARK: tuple[Purpose, ...] = ("benchmark",)
ELSEWHERE = {
    "benchmark": "it is a benchmark; name it in evaluation.benchmarks (--benchmark {name})",
    "training": "it is for training; name it in data.sources (hub:{name})",
}
"""{purpose: what is said where a set of that purpose is named for another}."""
NOT_CONTENT = {"title", "licence", "citation", "checked", "sizes"}  # what of an entry does not change a corpus
TOLD_EVERY_S = 60.0  # how often a line of text says how far a download is

Notify = Callable[[str], None]
"""Called with a line of text for people."""


@dataclass(frozen=True)
class WantedData:
    """A data set, and what of it is wanted for what."""

    data_set: DataSet
    purpose: Purpose
    languages: tuple[str, ...] | None  # None: all that it has
    options: Mapping[str, str]  # value of each that it has, such as `split` and `translator`

    @classmethod
    def parse(cls, text: str, purposes: Sequence[Purpose], catalogue: Sequence[str] = ()) -> WantedData:
        """What a text such as `hub:mmarco?languages=ar,de&translator=google` means; nothing is asked of a server.

        Args:
            text: with or without `hub:` in front.
            purposes: for one of which the set is wanted.
            catalogue: files of the user's own data sets.

        Raises:
            DataError: there is no such set, or it is for other purposes, or lacks a language or an option.
            ConfigError: a file of `catalogue` cannot be used.
        """
        asked = parse(SCHEME + text.removeprefix(SCHEME))
        found = data_set(asked.name, catalogue)
        purpose = next((one for one in purposes if one in found.purposes), None)
        if purpose is None:
            of = "benchmark" if "benchmark" in found.purposes else "training"
            raise DataError(f"{text}: {ELSEWHERE[of].format(name=found.name)}")
        values = found.chosen(purpose, asked.options)
        languages = found.in_languages(purpose, values, asked.languages)
        if purpose in TRAINING:
            check_languages(len(languages), text)
        return cls(found, purpose, asked.languages, values)

    @property
    def is_gated(self) -> bool:
        """Whether terms must be accepted before some of its files can be read."""
        return any(isinstance(source, Repository) and source.gated for source in self.data_set.sources)

    def only(self, languages: Sequence[str] | None) -> WantedData:
        """The same in fewer languages; None: as it is. Raises DataError for a language that is not among its own."""
        if languages is None:
            return self
        self.data_set.in_languages(self.purpose, self.options, languages)
        if self.languages is not None:
            choose_languages(self.languages, languages, f"{self.data_set.name}?languages={','.join(self.languages)}")
        return replace(self, languages=tuple(languages))

    def listing(self, cache: str | None = None) -> Listing:
        """Its files, those that are on this machine and those that are not.

        Raises:
            DataError: the hub cannot be asked for them, or lacks one.
        """
        return listing(self.data_set, self.languages, purpose=self.purpose, options=self.options, cache=cache)

    def fetch(self, cache: str | None = None, notify: Notify | None = None) -> Fetched:
        """Its files on this machine, which are fetched if need be.

        Args:
            cache: folder of hbtrain's cache.
            notify: told what is fetched, how large it is, and now and then how far that is.

        Raises:
            DataError: they cannot be fetched, or are not what they should be.
            StorageError: a cache cannot be written.
        """
        say = notify or (lambda text: None)
        return fetch(
            self.data_set,
            self.languages,
            purpose=self.purpose,
            options=self.options,
            cache=cache,
            notify=say,
            progress=Told(self.data_set.name, say),
        )

    def corpus_folder(self, cache: str | None = None) -> Path:
        """Where its corpus for training is, or will be, in the cache (`hbtrain.corpus.prepare.named`)."""
        entry = self.data_set.model_dump(mode="json", exclude=NOT_CONTENT)
        content = [FORMAT, entry, self.purpose, self.languages, dict(self.options)]
        digest = hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:16]
        return cache_root(cache) / "hub" / "corpora" / digest / self.data_set.name

    def is_prepared(self, cache: str | None = None) -> bool:
        """Whether its corpus is in the cache."""
        return (self.corpus_folder(cache) / MANIFEST).is_file()


class Told:
    """Says in a line of text, now and then, how far a download is and how long it will still take."""

    def __init__(self, name: str, notify: Notify, clock: Callable[[], float] = time.monotonic) -> None:
        self._name, self._notify, self._clock = name, notify, clock
        self._began: tuple[float, int] | None = None  # when it was called first, and the bytes there were by then
        self._last_s = 0.0

    def __call__(self, done: int, total: int) -> None:
        """Take note that `done` of `total` bytes are there."""
        now_s = self._clock()
        if self._began is None:
            self._began, self._last_s = (now_s, done), now_s
        if now_s - self._last_s < TOLD_EVERY_S:
            return
        self._last_s = now_s
        began_s, before = self._began
        rate = (done - before) / (now_s - began_s)
        left = f", {lasting((total - done) / rate)} left" if rate > 0 else ""
        self._notify(f"fetching {self._name}: {byte_size(done)} of {byte_size(total)}{left}")


def is_named(source: str) -> bool:
    """Whether an entry of `data.sources` names a data set."""
    return source.startswith(SCHEME)


def fetch_all(wanted: Sequence[WantedData], cache: str | None, notify: Notify | None) -> None:
    """Fetch what is not here yet, after all have been looked at, and first what the hub may refuse, so that an error
    comes before hours of fetching.

    Raises:
        DataError: one cannot be fetched.
        StorageError: a cache cannot be written.
    """
    missing = [one for one in wanted if one.listing(cache).missing]
    for one in sorted(missing, key=lambda one: not one.is_gated):
        one.fetch(cache, notify)


def about(fetched: Fetched) -> dict[str, Any]:
    """Where data come from, for results and records: what was asked for, repositories, revisions and digests."""
    return fetched.about() | {"files": dict(sorted(fetched.digests.items()))}


def repositories(about: Mapping[str, Any]) -> dict[str, str]:
    """{repository of the hub: revision} of what `about` says; files from other addresses are left out."""
    return {name: revision for name, revision in about["sources"].items() if "://" not in name}


def provenance(about: Mapping[str, Any]) -> str:
    """What `about` says, in one line: `unicamp-dl/mmarco at 6d03...; sha256 of its files' digests: 93f1...`."""
    found = [f"{name} at {revision}" for name, revision in repositories(about).items()]
    hosts = Counter(urlsplit(name).netloc for name in about["sources"] if "://" in name)
    found += [f"{counted(number, 'file')} of {host}" for host, number in hosts.items()]
    return f"{', '.join(found)}; sha256 of its files' digests: {about['digest']}"
