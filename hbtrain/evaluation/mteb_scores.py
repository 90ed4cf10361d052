"""Scores as mteb computes them, for the subsets of its tasks that a benchmark holds.

A subset is taken for mteb's if as many queries are asked of as many documents with as many relevant ones as mteb counts
in its own copy of the data. Lists of the best candidates are put into mteb's order, by score and then by document id,
both descending, and handed to pytrec_eval, as mteb does. Shapes: Q queries, K places of a list.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import cache
from importlib import resources
from typing import Any, NamedTuple

import numpy as np

from hbtrain.evaluation.benchmark import Benchmark, Collection
from hbtrain.evaluation.rankers import TopLists
from hbtrain.evaluation.trec_runs import Listed, lists_of
from hbtrain.hub import catalogue
from hbtrain.retrieval.ranks import Search

CUTOFFS = (1, 3, 5, 10, 20, 100)
"""Those of mteb but 1,000, for which lists would have to be longer than memory allows where languages are many."""
DEEP, SHALLOW = 128, 20
"""Length of lists where a collection has one language, and where it has several and each query a list for each. Longer
than the cut-offs, to see whether candidates of equal score lie on both sides of one."""
MEASURES = {
    "ndcg_at": "ndcg_cut",
    "map_at": "map_cut",
    "recall_at": "recall",
    "precision_at": "P",
    "hit_rate_at": "success",
}
"""{name in mteb: name in pytrec_eval} of measures with a cut-off."""
ROUNDED = 5  # digits of mteb's means


class Subset(NamedTuple):
    """What mteb counts in one of its subsets."""

    languages: list[str]  # as mteb writes them: `swa-Latn`
    documents: int
    queries: int
    relevant: int


@dataclass(frozen=True)
class Task:
    """A task of mteb whose data a benchmark holds."""

    benchmark: str  # its name here, in the catalogue of data sets
    name: str
    revision: str  # of mteb's copy of the data
    split: str
    main_score: str
    subsets: dict[str, Subset]  # {mteb's name: counts}
    pairs: bool = False  # whether a subset is called `<language of documents>-<language of queries>`
    own_ids: bool = True  # whether documents have mteb's ids, which decide between equal scores


@dataclass
class TaskScores:
    """The scores of a model in some subsets of a task."""

    task: Task
    subsets: dict[str, dict[str, float]]  # {mteb's name of the subset: {metric: score}}


@dataclass
class MtebScores:
    """Takes what is found in collections; `found` and `notes` say what mteb would report, and what it would not."""

    found: dict[str, TaskScores] = field(default_factory=dict)  # by the name of the task
    notes: list[str] = field(default_factory=list)  # which subsets are left out, and why

    def depth_for(self, benchmark: Benchmark) -> int:
        """The length of the lists that it needs."""
        if benchmark.name not in mteb_tasks():
            return 0
        return DEEP if benchmark.settings == ("mono",) else SHALLOW

    def add(self, benchmark: Benchmark, collection: Collection, ranking: Search | TopLists) -> None:
        """Score what was found in a collection."""
        task = mteb_tasks().get(benchmark.name)
        if task is None:
            return
        spelling = catalogue()[benchmark.name].languages
        for listed in lists_of(benchmark, collection, ranking):
            if listed.setting == "multi" or (listed.setting == "cross" and not task.pairs):
                continue
            of_queries = collection.query_languages[listed.rows[0]]
            documents, queries = (spelling.get(x, x) for x in (collection.languages[listed.code], of_queries))
            name = f"{documents}-{queries}" if task.pairs else queries
            if name in task.subsets:
                self._score(task, name, collection, listed)
            elif listed.setting == "mono":
                self.notes.append(f"{task.name} has no subset {name}")

    def _score(self, task: Task, name: str, collection: Collection, listed: Listed) -> None:
        known, judged = task.subsets[name], _judged(collection, listed)
        documents = collection.languages[listed.code]
        counts = {
            # mteb counts a document that comes twice as two, and ranks it once
            "documents": (collection.candidate_counts[documents] + collection.repeated, known.documents),
            "queries": (len(listed.rows), known.queries),
            "relevant documents": (sum(map(len, judged)), known.relevant),
        }
        unlike = [
            f"{ours:,} {what} where mteb counts {mteb:,}" for what, (ours, mteb) in counts.items() if ours != mteb
        ]
        if collection.own is not None and np.any(collection.own[listed.rows] >= 0):
            unlike.append("queries whose own documents are left out, which mteb does not do here")
        scores = {} if unlike else scores_of(_in_order(collection, listed), judged, task.own_ids)
        if not unlike and task.main_score not in scores:
            unlike.append(f"candidates of equal score on both sides of the cut-off of {task.main_score}")
        if unlike:
            self.notes.append(f"{task.name}, subset {name}, is left out: {', '.join(unlike)}")
            return
        scores["main_score"] = scores[task.main_score]
        self.found.setdefault(task.name, TaskScores(task, {})).subsets[name] = scores


@cache
def mteb_tasks() -> dict[str, Task]:
    """{name of a benchmark: the task of mteb that has the same data}."""
    tasks = [
        Task(**one | {"subsets": {name: Subset(*counts) for name, counts in one["subsets"].items()}})
        for one in _table()["tasks"]
    ]
    return {task.benchmark: task for task in tasks}


def mteb_version() -> str:
    """The version of mteb with which tasks, counts and scores were compared."""
    return str(_table()["mteb"])


@cache
def _table() -> dict[str, Any]:
    table: dict[str, Any] = json.loads((resources.files("hbtrain.evaluation") / "mteb_tasks.json").read_text("utf-8"))
    return table


class Ordered(NamedTuple):
    """The best candidates of a query in mteb's order, and how many of all are there."""

    ids: list[str]
    scores: list[float]
    whole: bool  # whether all candidates are in the list


def _in_order(collection: Collection, listed: Listed) -> Iterator[Ordered]:
    pool = collection.candidate_counts[collection.languages[listed.code]]
    for row in listed.rows.tolist():
        places = listed.top.places[row]
        kept = np.flatnonzero(places >= 0)
        ids = [collection.candidate_ids[place] for place in places[kept].tolist()]
        pairs = sorted(zip(listed.top.scores[row][kept].tolist(), ids, strict=True), reverse=True)
        yield Ordered([key for _, key in pairs], [score for score, _ in pairs], len(ids) == pool)


def _judged(collection: Collection, listed: Listed) -> list[dict[str, int]]:
    """[Q] {document id: grade} of the relevant documents in the language of the lists."""
    counts = list(collection.candidate_counts.values())
    start = sum(counts[: listed.code])
    found = []
    for row in listed.rows.tolist():
        places = collection.relevant[row]
        gains = np.ones(len(places)) if collection.gains is None else collection.gains[row]
        inside = (places >= start) & (places < start + counts[listed.code])
        grades = zip(places[inside].tolist(), gains[inside].tolist(), strict=True)
        own = {collection.candidate_ids[place]: int(gain) for place, gain in grades}
        missing = () if collection.missing is None else collection.missing[row]
        found.append(own | {f"missing {number}": int(gain) for number, gain in enumerate(missing)})
    return found


def scores_of(lists: Iterator[Ordered], judged: Sequence[dict[str, int]], own_ids: bool = True) -> dict[str, float]:
    """{metric, by mteb's name: mean over the queries}, rounded as mteb rounds it.

    Metrics with a cut-off are left out where a list has the score of that rank up to its end: what lies beyond it may
    have that score too, and rank first by its id.

    Args:
        lists: [Q] the best candidates of each query.
        judged: [Q] {document id: grade above 0} of each query.
        own_ids: whether ids are mteb's; if not, equal scores within the list leave metrics out as well.
    """
    import pytrec_eval

    run, qrels, known, first = {}, {}, set(CUTOFFS), []
    for number, (found, grades) in enumerate(zip(lists, judged, strict=True)):
        run[str(number)], qrels[str(number)] = dict(zip(found.ids, found.scores, strict=True)), grades
        known = {k for k in known if _certain(found, grades, k, own_ids)}
        first.append(next((rank for rank, key in enumerate(found.ids, 1) if key in grades), 0))
    cutoffs = sorted(known)
    if not cutoffs:
        return {}
    wanted = {f"{measure}.{','.join(map(str, cutoffs))}" for measure in MEASURES.values()}
    by_query = pytrec_eval.RelevanceEvaluator(qrels, wanted).evaluate(run)
    means = {
        f"{name}_{k}": round(sum(own[f"{measure}_{k}"] for own in by_query.values()) / len(run), ROUNDED)
        for name, measure in MEASURES.items()
        for k in cutoffs
    }
    means |= {f"mrr_at_{k}": sum(1 / rank for rank in first if 0 < rank <= k) / len(run) for k in cutoffs}
    return means | ({"accuracy": means["recall_at_1"]} if 1 in known else {})


def _certain(found: Ordered, grades: dict[str, int], k: int, own_ids: bool) -> bool:
    """Whether it is certain what ranks among the first `k`."""
    scores = found.scores
    if not own_ids and _tied_grades(found, grades, k):
        return False
    if len(scores) <= k:
        return found.whole
    return found.whole or scores[k - 1] > scores[-1]


def _tied_grades(found: Ordered, grades: dict[str, int], k: int) -> bool:
    """Whether candidates of one score but of different grades rank within or across the first `k`."""
    seen: dict[float, int] = {}
    for rank, (key, score) in enumerate(zip(found.ids, found.scores, strict=True), 1):
        if rank > k and score < found.scores[k - 1]:
            break
        if seen.setdefault(score, grades.get(key, 0)) != grades.get(key, 0):
            return True
    return False
