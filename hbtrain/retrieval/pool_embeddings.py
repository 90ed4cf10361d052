"""The passages of a pool and the queries of its rows as vectors on disk, and the search of some languages of the pool.

Each language of the pool has a store of its own, so that any choice of languages is searched, exactly or by an index of
each. What is in the stores already is not encoded again: mining that was interrupted goes on, and mining with another
margin encodes nothing.

Shapes: B queries, n pairs of a query and a text, N texts of the pool, K candidates, D dimensions.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import NamedTuple, overload

import numpy as np

from hbtrain.corpus import Source
from hbtrain.corpus.conflicts import Int64s
from hbtrain.errors import ConfigError
from hbtrain.modeling.devices import Device
from hbtrain.modeling.encoder import Side, Similarity
from hbtrain.retrieval.collection_search import SearchOptions, check_index, embed, encoders, settle_precision
from hbtrain.retrieval.encoding import StoredEncoder
from hbtrain.retrieval.identities import PassagePool
from hbtrain.retrieval.scores import Floats, for_inner_products, similarities, similarity_of
from hbtrain.retrieval.shards import ShardIndex, split
from hbtrain.retrieval.store import EmbeddingStore
from hbtrain.retrieval.top import Top, merge_top
from hbtrain.retrieval.workers import StartWorkers

READ_TEXTS = 8192  # texts read from disk at one time
PAIR_FLOATS = 8_388_608  # numbers of each side's vectors that are read at one time to score pairs: 32 MiB

Progress = Callable[[str, int, int], None]
"""Called with what is being done, how much of it is done, and how much there is."""


class Asked(NamedTuple):
    """The rows of a source that have a query in one language."""

    rows: Int64s  # int64, ascending
    store: EmbeddingStore  # of their queries, in this order


class PoolEmbeddings:
    """Vectors of all passages of a pool and of all queries of its sources by one model.

    In memory are the numbers of the rows alone.
    """

    def __init__(
        self,
        encoder: StoredEncoder,
        pool: PassagePool,
        sources: Sequence[Source],
        options: SearchOptions,
        start: StartWorkers,
        progress: Progress | None = None,
    ) -> None:
        """Encode what the stores in the cache lack.

        Raises:
            ConfigError: the index of `options` does not fit the passages in some language.
            ModelError: an embedding holds NaN or infinity.
            StorageError: the cache cannot be written.
        """
        self.similarity = similarity_of(encoder)
        self._pool = pool
        spans = {code: pool.span(code) for code in range(len(pool.languages))}
        spans = {code: span for code, span in spans.items() if span.start < span.stop}
        for code, span in spans.items():
            try:
                check_index(span.stop - span.start, encoder.dimension, self.similarity, options)
            except ConfigError as error:
                raise ConfigError(f"passages in {pool.languages[code]}: {error}") from error
        settle_precision(encoder, options, start)
        digest = encoder.digest()
        asking = {key: rows for key in _queries(pool, sources) if len(rows := _asking(pool, sources, *key))}

        def embedded(texts: TextsOnDisk, side: Side, what: str) -> EmbeddingStore:
            told = None if progress is None else lambda side, done, total: progress(what, done, total)
            return embed(encoder, digest, texts, side, options, workers, None, told)

        with encoders(encoder, digest, options, start, options.actors) as workers:
            self.passages = {
                code: embedded(
                    TextsOnDisk(partial(_passages, pool, span.start), span.stop - span.start),
                    "passage",
                    f"passages in {pool.languages[code]}",
                )
                for code, span in spans.items()
            }
            self._asked = {
                (number, code): Asked(
                    rows,
                    embedded(
                        TextsOnDisk(partial(_texts, sources[number], pool.languages[code], rows), len(rows)),
                        "query",
                        f"queries of {sources[number].name} in {pool.languages[code]}",
                    ),
                )
                for (number, code), rows in asking.items()
            }

    def queries(self, source: int, code: int, rows: range) -> tuple[Int64s, Floats]:
        """Those of the rows of a source that have a query in the language, and the queries' vectors [B, D]."""
        if (asked := self._asked.get((source, code))) is None:
            return np.zeros(0, np.int64), np.zeros((0, 1), np.float32)
        places = np.arange(*np.searchsorted(asked.rows, (rows.start, rows.stop)))
        return asked.rows[places], asked.store.take(places)

    def score(self, source: int, code: int, rows: Int64s, texts: Int64s) -> Floats:
        """float32 [n]: how similar the query of each row in the language is to each text of the pool."""
        found = np.empty(len(rows), np.float32)
        languages = self._pool.language[texts]
        asked = self._asked[source, code]
        step = max(1, PAIR_FLOATS // asked.store.manifest.dimension)
        for language in np.unique(languages).tolist():
            of_language = np.flatnonzero(languages == language)
            first = self._pool.span(language).start
            for start in range(0, len(of_language), step):
                at = of_language[start : start + step]
                q_nD = asked.store.take(np.searchsorted(asked.rows, rows[at]))
                p_nD = self.passages[language].take(texts[at] - first)
                q_nD = for_inner_products(q_nD, "query", self.similarity)
                products_n = np.einsum("nd,nd->n", q_nD, for_inner_products(p_nD, "passage", self.similarity))
                found[at] = similarities(products_n, self.similarity)
        return found

    def parts(self, options: SearchOptions, idle: bool = False) -> list[list[LanguagePart]]:
        """For each worker what it searches: the files of every language, dealt out in turn.

        Workers that would have nothing to search are left out, unless `idle` ones have something else to do.
        """
        dealt: list[list[LanguagePart]] = [[] for _ in range(options.parts)]
        turn = 0
        for code, store in self.passages.items():
            for files in split(len(store.manifest.shards), options.parts):
                part = LanguagePart(code, self._pool.span(code).start, str(store.folder), files)
                dealt[turn % options.parts].append(part)
                turn += 1
        return [part for part in dealt if part or idle]


Ways = tuple[str, str, int, Similarity]
"""How a worker searches: the arguments `factory`, `parameters`, `seed` and `similarity` of `ShardIndex`."""


class LanguagePart(NamedTuple):
    """Neighbouring files of the store of a language's passages."""

    code: int  # of the language
    first: int  # place of the language's first text in the pool
    folder: str  # of the store
    files: range


class PoolPart:
    """What a worker holds of a pool: an index of each `LanguagePart`. An index is built at the first search."""

    def __init__(self, parts: Sequence[LanguagePart], ways: Ways, device: Device = "cpu") -> None:
        self._parts = [(part, ShardIndex(part.folder, part.files, *ways, device)) for part in parts]

    def nearest(self, q_BD: Floats, codes: Sequence[int], depth: int) -> Top:
        """The `depth` best texts in some languages, or all if there are fewer, at their places in the pool."""
        best = Top(np.zeros((len(q_BD), 0), np.float32), np.zeros((len(q_BD), 0), np.int64))
        for part, index in self._parts:
            if part.code in codes:
                scores, places = index.nearest(q_BD, depth)
                best = merge_top([best, Top(scores, np.where(places >= 0, places + part.first, places))], depth)
        return best


class TextsOnDisk(Sequence[str]):
    """Texts that are read in blocks of neighbours, of which one is in memory."""

    def __init__(self, read: Callable[[Int64s], list[str]], count: int) -> None:
        """`read` gives the texts with these numbers, of `count` in all."""
        self._read, self._count = read, count
        self._first, self._block = 0, list[str]()

    def __len__(self) -> int:
        return self._count

    @overload
    def __getitem__(self, number: int) -> str: ...
    @overload
    def __getitem__(self, number: slice) -> list[str]: ...
    def __getitem__(self, number: int | slice) -> str | list[str]:
        if isinstance(number, slice):
            return [self[one] for one in range(*number.indices(self._count))]
        if not 0 <= number < self._count:
            raise IndexError(number)
        if not self._first <= number < self._first + len(self._block):
            self._first = number - number % READ_TEXTS
            self._block = self._read(np.arange(self._first, min(self._first + READ_TEXTS, self._count)))
        return self._block[number - self._first]


def _queries(pool: PassagePool, sources: Sequence[Source]) -> list[tuple[int, int]]:
    """(number of the source, code of the language) of all queries."""
    return [
        (number, code)
        for number, source in enumerate(sources)
        for code, language in enumerate(pool.languages)
        if language in source.index.languages
    ]


def _asking(pool: PassagePool, sources: Sequence[Source], number: int, code: int) -> Int64s:
    index = sources[number].index
    has = index.query_patterns[:, index.languages.index(pool.languages[code])]
    return np.flatnonzero(has[index.patterns_of(np.arange(index.rows))])


def _passages(pool: PassagePool, first: int, numbers: Int64s) -> list[str]:
    return pool.texts(first + numbers)


def _texts(source: Source, language: str, rows: Int64s, numbers: Int64s) -> list[str]:
    return source.texts("query", rows[numbers], [language] * len(numbers))
