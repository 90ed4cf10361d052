"""Writing the candidates that an evaluation found as TREC runs: `<benchmark>/<setting>/<query language>.trec.gz`.

The query id is the question id; in `cross`, where a question is asked of every other language, it is
`<question id>/<passage language>`. Shapes: Q queries, K places of a list.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from hbtrain.errors import StorageError
from hbtrain.evaluation.benchmark import Benchmark, Collection, Int64s
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

    def add(self, benchmark: Benchmark, collection: Collection, ranking: Search | TopLists) -> None:
        """Write what was found in a collection.

        Raises:
            StorageError: a file cannot be written.
        """
        if isinstance(ranking, TopLists):
            places = ranking.places
            scores = -np.arange(places.shape[1], dtype=np.float32) + np.zeros((len(places), 1), np.float32)
            top = Top(scores if ranking.scores is None else ranking.scores, places)
            one = benchmark.listed_language(collection)
            if one is None:
                self._add_pool(benchmark, collection, top)
            else:
                self._add_language(benchmark, collection, collection.languages.index(one), top)
            return
        for code, of_language in ranking.by_language.items():
            self._add_language(benchmark, collection, code, of_language)
        self._add_pool(benchmark, collection, ranking.pool)

    def _add_language(self, benchmark: Benchmark, collection: Collection, code: int, top: Top) -> None:
        """Write `top`, the best candidates in the language `code`, for the queries that have an answer in it."""
        bounds = np.cumsum([0, *collection.candidate_counts.values()])[code : code + 2]
        answered = np.array([np.any((r >= bounds[0]) & (r < bounds[1])) for r in collection.relevant], bool)
        if collection.pool_language == collection.languages[code]:
            answered[:] = True  # also where the only relevant candidates are never found
        codes = collection.query_codes
        for asked in np.unique(codes[answered]).tolist():
            rows = np.flatnonzero(answered & (codes == asked))
            self._write(benchmark, collection, "mono" if asked == code else "cross", rows, top, code)

    def _add_pool(self, benchmark: Benchmark, collection: Collection, top: Top) -> None:
        codes = collection.query_codes
        for asked in np.unique(codes).tolist():
            self._write(benchmark, collection, "multi", np.flatnonzero(codes == asked), top)

    def _write(
        self, benchmark: Benchmark, collection: Collection, setting: str, rows: Int64s, top: Top, code: int = 0
    ) -> None:
        """Write `top` for the queries `rows`, all in one language."""
        if setting not in benchmark.settings:
            return
        asked, language = collection.query_languages[rows[0]], collection.languages[code]
        path = self.folder / benchmark.name / setting / f"{asked}.trec.gz"
        if path not in self._begun:
            self._begun.add(path)
            _remove(path)
        found = Top(top.scores[rows, : self.depth], top.places[rows, : self.depth])
        names = [query_name(collection.question_ids[row], setting, language) for row in rows.tolist()]
        ids = collection.candidate_ids
        write_trec_run(
            path, names, found, ([ids[place] for place in places] for places in found.places.tolist()), self.tag
        )


def _remove(path: Path) -> None:
    try:
        path.unlink(missing_ok=True)
    except OSError as error:
        raise StorageError(f"cannot replace {path}: {error.strerror or error}; choose another folder") from error
