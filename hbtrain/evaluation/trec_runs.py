"""Writing the candidates that an evaluation found as TREC runs: `<benchmark>/<setting>/<query language>.trec.gz`.

The query id is the question id; in `cross`, where a question is asked of every other language, it is
`<question id>/<passage language>`. Shapes: Q queries, K places of a list.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path
from typing import NamedTuple

import numpy as np

from hbtrain.errors import StorageError
from hbtrain.evaluation.benchmark import Benchmark, Collection, Int64s, Setting
from hbtrain.evaluation.rankers import TopLists
from hbtrain.retrieval.ranks import Search
from hbtrain.retrieval.top import Top
from hbtrain.retrieval.trec_files import write_trec_run

RUN_DEPTH = 10


def query_name(question: str, setting: str, passage_language: str) -> str:
    """The query id in a run file, before it is escaped."""
    return f"{question}/{passage_language}" if setting == "cross" else question


@dataclass
class TrecRunWriter:
    """Writes the best candidates of every scored query; files of an earlier evaluation are replaced."""

    folder: Path  # of the run files
    tag: str  # name of the system, the last field of each line
    depth: int = RUN_DEPTH  # the most candidates of a query
    _begun: set[Path] = field(default_factory=set)

    def depth_for(self, benchmark: Benchmark) -> int:
        """The length of the lists that it needs."""
        return self.depth

    def add(self, benchmark: Benchmark, collection: Collection, ranking: Search | TopLists) -> None:
        """Write what was found in a collection.

        Raises:
            StorageError: a file cannot be written.
        """
        for listed in lists_of(benchmark, collection, ranking):
            self._write(benchmark, collection, listed)

    def _write(self, benchmark: Benchmark, collection: Collection, listed: Listed) -> None:
        rows, top = listed.rows, listed.top
        asked, language = collection.query_languages[rows[0]], collection.languages[listed.code]
        path = self.folder / benchmark.name / listed.setting / f"{asked}.trec.gz"
        if path not in self._begun:
            self._begun.add(path)
            _remove(path)
        found = Top(top.scores[rows, : self.depth], top.places[rows, : self.depth])
        names = [query_name(collection.question_ids[row], listed.setting, language) for row in rows.tolist()]
        ids = collection.candidate_ids
        write_trec_run(
            path, names, found, ([ids[place] for place in places] for places in found.places.tolist()), self.tag
        )


class Listed(NamedTuple):
    """Lists of the best candidates for queries of one language, in one setting."""

    setting: Setting
    rows: Int64s  # the queries' places in the collection
    top: Top  # of all queries of the collection [Q, K]
    code: int = 0  # of the candidates' language, in `mono` and `cross`


def lists_of(benchmark: Benchmark, collection: Collection, ranking: Search | TopLists) -> Iterator[Listed]:
    """What was found, by setting and language, in the settings of the benchmark."""
    if isinstance(ranking, TopLists):
        places = ranking.places
        scores = -np.arange(places.shape[1], dtype=np.float32) + np.zeros((len(places), 1), np.float32)
        top = Top(scores if ranking.scores is None else ranking.scores, places)
        one = benchmark.listed_language(collection)
        code = None if one is None else collection.languages.index(one)
        found = _of_pool(collection, top) if code is None else _of_language(collection, code, top)
    else:
        of_languages = (_of_language(collection, code, top) for code, top in ranking.by_language.items())
        # The pool's lists are merged from the others, which takes time and memory.
        of_pool = _of_pool(collection, ranking.pool) if "multi" in benchmark.settings else iter(())
        found = chain(chain.from_iterable(of_languages), of_pool)
    return (listed for listed in found if listed.setting in benchmark.settings)


def _of_language(collection: Collection, code: int, top: Top) -> Iterator[Listed]:
    """`top`, the best candidates in the language `code`, for the queries that have an answer in it."""
    bounds = np.cumsum([0, *collection.candidate_counts.values()])[code : code + 2]
    answered = np.array([np.any((r >= bounds[0]) & (r < bounds[1])) for r in collection.relevant], bool)
    if collection.pool_language == collection.languages[code]:
        answered[:] = True  # also where the only relevant candidates are never found
    codes = collection.query_codes
    for asked in np.unique(codes[answered]).tolist():
        rows = np.flatnonzero(answered & (codes == asked))
        yield Listed("mono" if asked == code else "cross", rows, top, code)


def _of_pool(collection: Collection, top: Top) -> Iterator[Listed]:
    codes = collection.query_codes
    for asked in np.unique(codes).tolist():
        yield Listed("multi", np.flatnonzero(codes == asked), top)


def _remove(path: Path) -> None:
    try:
        path.unlink(missing_ok=True)
    except OSError as error:
        raise StorageError(f"cannot replace {path}: {error.strerror or error}; choose another folder") from error
