"""ParallelCorpus: all sources of a run."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from importlib import resources
from pathlib import Path

from hbtrain.config import Config
from hbtrain.corpus.source import Source
from hbtrain.errors import ConfigError, DataError
from hbtrain.storage import cache_root, local_copy, place

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
        return cls.open(config.data.sources, config.data.cache)

    @classmethod
    def open(cls, sources: Sequence[str], cache: str | None = None) -> ParallelCorpus:
        """Open sources by path, URI or shipped name: files of parallel JSON lines, and folders of `hbtrain prepare`."""
        root = cache_root(cache)
        return cls([_open(source_path(s, cache), name, root) for s, name in zip(sources, _names(sources), strict=True)])

    @property
    def languages(self) -> tuple[str, ...]:
        """Every language that a query or a passage of some source has, sorted."""
        return tuple(sorted({language for s in self.sources.values() for language in s.index.languages}))

    def every_text(self) -> Iterator[str]:
        for source in self.sources.values():
            yield from source.every_text()


def source_path(source: str, cache: str | None = None) -> Path:
    """The file or folder of an entry of `data.sources`: a path, a shipped name, or a URI, copied to the cache."""
    if source in SHIPPED:
        return Path(str(resources.files("hbtrain.corpus") / "demo" / SHIPPED[source]))
    return local_copy(place(source), cache)


def _open(path: Path, name: str, cache: Path) -> Source:
    return Source.from_prepared(path, name) if path.is_dir() else Source.from_jsonl(path, name, cache)


def _names(sources: Sequence[str]) -> list[str]:
    """What sources are called: their file names without endings, with the folder in front where two would be equal."""
    if len(set(sources)) < len(sources):
        twice = next(s for s in sources if list(sources).count(s) > 1)
        raise DataError(f"source {twice} is listed twice in data.sources")
    places = [place(source) for source in sources]
    short = [p.name.removesuffix(".gz").removesuffix(".jsonl").removesuffix(".json") for p in places]
    return [
        name if short.count(name) == 1 else f"{p.parent.name}/{name}" for p, name in zip(places, short, strict=True)
    ]
