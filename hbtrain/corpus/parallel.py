"""ParallelCorpus: all sources of a run."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from importlib import resources
from pathlib import Path

from hbtrain.config import Config
from hbtrain.config.schema import DataConfig
from hbtrain.corpus.data_sets import TRAINING, Notify, WantedData, is_named
from hbtrain.corpus.source import Source
from hbtrain.errors import ConfigError, DataError
from hbtrain.hub import catalogue as data_sets
from hbtrain.hub import parse
from hbtrain.hub.names import SCHEME
from hbtrain.storage import cache_root, is_remote, local_copy, place

SHIPPED = {"demo": "train.jsonl", "demo-heldout": "heldout.jsonl"}
"""{name in `data.sources`: file} of the sources that ship in the package."""


class ParallelCorpus:
    """The sources of a run, memory-mapped, by name."""

    def __init__(self, sources: Sequence[Source]) -> None:
        self.sources = {source.name: source for source in sources}

    @classmethod
    def from_config(cls, config: Config) -> ParallelCorpus:
        """The training sources of a configuration.

        Raises:
            ConfigError: no source is named.
            DataError: a source is missing, empty or broken.
        """
        if not config.data.sources:
            raise ConfigError("data.sources names no source: give --data.sources FILE [FILE ...], or demo")
        return cls.open(config.data.sources, config.data.cache, config.data.catalogue)

    @classmethod
    def open(cls, sources: Sequence[str], cache: str | None = None, catalogue: Sequence[str] = ()) -> ParallelCorpus:
        """Open sources by path, URI or name (see `source_path`): files of parallel JSON lines, and prepared corpora."""
        root, names = cache_root(cache), _names(sources)
        paths = [source_path(source, cache, catalogue) for source in sources]
        return cls([_open(path, name, root) for path, name in zip(paths, names, strict=True)])

    @property
    def languages(self) -> tuple[str, ...]:
        """Every language that a query or a passage of some source has, sorted."""
        return tuple(sorted({language for s in self.sources.values() for language in s.index.languages}))

    def every_text(self) -> Iterator[str]:
        for source in self.sources.values():
            yield from source.every_text()


def source_path(
    source: str, cache: str | None = None, catalogue: Sequence[str] = (), notify: Notify | None = None
) -> Path:
    """The file or folder of an entry of `data.sources`.

    Args:
        source: a path, a shipped name, a URI, which is copied to the cache, or a data set such as
            `hub:mmarco?languages=ar,de`, whose corpus is made in the cache.
        cache: folder of the cache.
        catalogue: files of the user's own data sets.
        notify: told what is fetched and prepared.

    Raises:
        DataError: a remote file or a data set cannot be fetched; or a data set's name stands where a path should.
        ConfigError: a file of `catalogue` cannot be used.
        StorageError: the cache cannot be written.
    """
    if source in SHIPPED:
        return Path(str(resources.files("hbtrain.corpus") / "demo" / SHIPPED[source]))
    if is_named(source):
        wanted = WantedData.parse(source, TRAINING, catalogue)
        if wanted.is_prepared(cache):
            return wanted.corpus_folder(cache)
        from hbtrain.corpus.prepare.named import prepared_corpus  # DuckDB is needed where something is prepared

        return prepared_corpus(wanted, cache, notify)
    path = local_copy(place(source), cache, notify)
    if source.partition("?")[0] in data_sets(catalogue) and not path.exists():
        raise DataError(f"source {source} does not exist; the data set of that name is hub:{source}")
    return path


def fetch_sources(sources: Iterable[str], data: DataConfig, notify: Notify) -> None:
    """Fetch and prepare those of `sources` that are remote or data sets, as far as they are not in the cache.

    Raises:
        HbtrainError: as `source_path`.
    """
    for source in sources:
        if is_named(source) or is_remote(source):
            source_path(source, data.cache, data.catalogue, notify)


def _open(path: Path, name: str, cache: Path) -> Source:
    return Source.from_prepared(path, name) if path.is_dir() else Source.from_jsonl(path, name, cache)


def _names(sources: Sequence[str]) -> list[str]:
    """What sources are called: their file names without endings, or the names of data sets; where two would be equal,
    with the folder in front, or the options behind."""
    if len(set(sources)) < len(sources):
        twice = next(s for s in sources if list(sources).count(s) > 1)
        raise DataError(f"source {twice} is listed twice in data.sources")
    called = [_called(source) for source in sources]
    short = [name for name, _ in called]
    return [name if short.count(name) == 1 else longer for name, longer in called]


def _called(source: str) -> tuple[str, str]:
    """The short name of a source, and a longer one for where two would be equal."""
    if is_named(source):
        return parse(source).name, source.removeprefix(SCHEME)
    at = place(source)
    name = at.name.removesuffix(".gz").removesuffix(".jsonl").removesuffix(".json")
    return name, f"{at.parent.name}/{name}"
