"""Evaluate run files, whatever system wrote them, into the tables that a model's evaluation gives.

A run of depth k says nothing about what ranks behind: mAP from it is mAP@k, a metric with a deeper cut-off stays
unknown, and so do rank distance and worst rank unless every relevant candidate was found.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from hbtrain.errors import DataError
from hbtrain.evaluation.benchmark import SETTINGS, Benchmark, Collection, Floats, Int64s
from hbtrain.evaluation.metrics import FIRST_PLACES
from hbtrain.evaluation.scoring import ALL_LANGUAGES, CollectionScores, RankingScores, cutoff, table_scores
from hbtrain.evaluation.summary import Evaluation, summarise
from hbtrain.evaluation.trec_runs import query_name
from hbtrain.reporting.metric_names import RANK_DISTANCE, WORST_RANK
from hbtrain.retrieval.trec_files import TrecRun, escape_id, read_trec_run

RunKey = tuple[str, str]
"""Setting and query language."""
SUFFIXES = (".trec.gz", ".trec", ".run.gz", ".run", ".txt.gz", ".txt")
CHECKED_DOCUMENTS = 2_000_000
"""In a larger collection unknown document ids are not looked for: the ids would fill the memory."""


@dataclass(frozen=True)
class _JudgedQuery:
    """A line of the tables: a query of a collection in a setting."""

    name: str
    """Its id in run files."""
    query: int
    passage_language: str
    relevant: dict[str, float]
    """Gains by document id, as they stand in run files."""


def find_trec_runs(folder: Path) -> dict[RunKey, Path]:
    """The files `<setting>/<query language>.trec.gz` of a folder; .trec, .run and .txt will do as well.

    Raises:
        DataError: there is none.
    """
    found: dict[RunKey, Path] = {}
    for setting in SETTINGS:
        for path in sorted((folder / setting).glob("*")):
            for suffix in SUFFIXES:
                if path.name.endswith(suffix) and path.is_file():
                    found.setdefault((setting, path.name.removesuffix(suffix)), path)
                    break
    if not found:
        raise DataError(
            f"no run file in {folder}: expected <setting>/<query language>.trec.gz with setting "
            f"{', '.join(SETTINGS)}, such as {folder}/mono/en.trec.gz"
        )
    return found


def evaluate_trec_runs(
    benchmark: Benchmark, run_files: Mapping[RunKey, Path], trained_languages: Sequence[str] | None = None
) -> Evaluation:
    """The scores of run files, by trec_eval's measures; queries without a line score 0.

    Args:
        benchmark: what was asked of which candidates; ids in run files are its ids (see `runs`, `escape_id`).
        run_files: by setting and query language; what is not there is not scored.
        trained_languages: what the system was trained on, if that is known.

    Raises:
        DataError: a setting or language that the benchmark does not have, or a file that `read_trec_run` refuses.
    """
    _check_keys(benchmark, run_files)
    collections = list(benchmark.collections())  # candidates of large ones stay on disk
    asked_of = [{key: asked for key in run_files if (asked := _judged_queries(c, *key))} for c in collections]
    known = {key: {a.name for of in asked_of for a in of.get(key, ())} for key in run_files}
    runs: dict[RunKey, TrecRun] = {}
    parts: list[CollectionScores] = []
    notes: list[str] = []
    cuts: set[int] = set()
    for collection, own in zip(collections, asked_of, strict=True):
        small = len(collections) == 1 and len(collection.candidate_ids) <= CHECKED_DOCUMENTS
        places = {escape_id(c): place for place, c in enumerate(collection.candidate_ids)} if small else None
        for key in own:
            if key not in runs:
                runs[key] = read_trec_run(run_files[key], known[key], places)
                missing = len(known[key]) - len(runs[key].documents)
                notes += runs[key].notes
                notes += [f"{run_files[key]}: no line for {missing} queries; they score 0"] if missing else []
        rows = [_rows(collection, key, asked, runs[key]) for key, asked in own.items()]
        cuts |= {runs[key].depth for key, asked in own.items() if runs[key].depth < _candidates(collection, asked)}
        if rows:
            parts.append(table_scores(benchmark, collection, rows, _pool(collection, own, runs, places)))
    depths = {"/".join(key): run.depth for key, run in runs.items()}
    search = f"run files of depth {max(depths.values())}"
    cut = [min(cuts), max(cuts)] if cuts else []
    about = {
        "search": search,
        "run_depth": depths,
        "map": "mAP@" + " to ".join(map(str, dict.fromkeys(cut))) if cut else "mAP",
        "notes": notes,
    }
    return summarise(benchmark, parts, about, trained_languages)


def _check_keys(benchmark: Benchmark, run_files: Mapping[RunKey, Path]) -> None:
    if not run_files:
        raise DataError(f"benchmark {benchmark.name}: no run file given")
    for (setting, language), path in run_files.items():
        if setting not in benchmark.settings or language not in benchmark.languages:
            raise DataError(
                f"{path}: benchmark {benchmark.name} has no setting {setting} for queries in {language}; its settings "
                f"are {', '.join(benchmark.settings)}, its languages {', '.join(benchmark.languages)}"
            )


def _judged_queries(collection: Collection, setting: str, query_language: str) -> list[_JudgedQuery]:
    """The queries of a setting in one language, in `cross` one for every passage language with an answer."""
    stops = np.cumsum(list(collection.candidate_counts.values()))
    found: list[_JudgedQuery] = []
    for query, language in enumerate(collection.query_languages):
        if language != query_language:
            continue
        relevant = collection.relevant[query]
        gains = np.ones(len(relevant)) if collection.gains is None else collection.gains[query]
        by_language: dict[str, dict[str, float]] = {}
        for place, gain in zip(relevant.tolist(), gains.tolist(), strict=True):
            own = collection.languages[int(np.searchsorted(stops, place, side="right"))]
            kind = "multi" if setting == "multi" else "mono" if own == language else "cross"
            if kind == setting:
                asked = ALL_LANGUAGES if setting == "multi" else own
                by_language.setdefault(asked, {})[escape_id(collection.candidate_ids[place])] = gain
        question = collection.question_ids[query]
        found += [
            _JudgedQuery(escape_id(query_name(question, setting, asked)), query, asked, judged)
            for asked, judged in by_language.items()
        ]
    return found


def _rows(collection: Collection, key: RunKey, asked: list[_JudgedQuery], run: TrecRun) -> RankingScores:
    judged = {a.name: a.relevant for a in asked}
    by_trec = cutoff_scores(judged, run.documents, list(TREC_MEASURES.values()))
    pool = _candidates(collection, asked)
    scores: dict[str, Floats] = {}
    for name, measure in TREC_MEASURES.items():
        if run.depth >= min(cutoff(name), pool):
            scores[name] = np.array([by_trec[measure][a.name] for a in asked], np.float64)
    if run.depth >= min(FIRST_PLACES, pool):
        scores["mrr@10"] = np.where(scores["mrr"] * FIRST_PLACES > 0.99, scores["mrr"], 0.0)
    if key[0] == "multi":
        ranks = [_ranks(run.documents.get(a.name, []), a.relevant) for a in asked]
        if all(None not in own for own in ranks):
            worst = np.array([max(r for r in own if r) for own in ranks], np.float64)
            scores[WORST_RANK] = worst
            best = np.array([min(r for r in own if r) for own in ranks], np.float64)
            scores[RANK_DISTANCE] = np.where([len(own) > 1 for own in ranks], worst - best, np.nan)
    return RankingScores(
        setting=np.full(len(asked), key[0], object),
        query=np.array([a.query for a in asked], np.int64),
        passage_language=np.array([a.passage_language for a in asked], object),
        scores=scores,
    )


def _candidates(collection: Collection, asked: list[_JudgedQuery]) -> int:
    """The most that one of the queries is asked of."""
    counts = collection.candidate_counts
    return max(counts.get(a.passage_language, sum(counts.values())) for a in asked)


def _ranks(documents: Sequence[str], relevant: Mapping[str, float]) -> list[int | None]:
    place = {document: rank for rank, document in enumerate(documents, 1)}
    return [place.get(document) for document in relevant]


def _pool(
    collection: Collection,
    asked: Mapping[RunKey, list[_JudgedQuery]],
    runs: Mapping[RunKey, TrecRun],
    places: Mapping[str, int] | None,
) -> Int64s | None:
    """[Q, 10] places of what stands first in the pool of all languages, if it was asked for all queries."""
    multi = {key: own for key, own in asked.items() if key[0] == "multi"}
    if places is None or sum(map(len, multi.values())) < len(collection.question_ids):
        return None
    found = np.full((len(collection.question_ids), FIRST_PLACES), -1, np.int64)
    for key, own in multi.items():
        for a in own:
            first = [places[document] for document in runs[key].documents.get(a.name, ())[:FIRST_PLACES]]
            found[a.query, : len(first)] = first
    return found


TREC_MEASURES: dict[str, str] = {
    "map": "AP",
    "recall@1": "R@1",
    "recall@10": "R@10",
    "recall@100": "R@100",
    "mrr": "RR",
    "ndcg@10": "nDCG@10",
}
"""Our names of measures that trec_eval computes, and their names in ir_measures."""


def cutoff_scores(
    judged: Mapping[str, Mapping[str, float]], found: Mapping[str, Sequence[str]], measures: Sequence[str]
) -> dict[str, dict[str, float]]:
    """{measure: {query: score}} of ranked lists, for every judged query.

    Args:
        judged: for each query the gains of its relevant documents, whole numbers; those of 1 and more are relevant,
            and nDCG uses the gain itself.
        found: for each query its documents, best first and each once; a query without a list scores 0.
        measures: as ir_measures writes them, such as nDCG@10, R@100, AP, RR; a measure without a cut-off knows no
            more than the lists.

    Raises:
        DataError: a gain that is no whole number.
        ValueError: a measure that trec_eval does not have.
    """
    import ir_measures

    parsed = {name: ir_measures.parse_measure(name) for name in measures}
    gains: dict[str, dict[str, int]] = {}
    for query, own in judged.items():
        if any(gain != int(gain) for gain in own.values()):
            raise DataError(f"gains of query {query} must be whole numbers for trec_eval, not {dict(own)}")
        gains[query] = {document: int(gain) for document, gain in own.items()}
    # Places as scores: trec_eval has a rule of its own for equal ones.
    run = {query: {d: float(-place) for place, d in enumerate(found[query])} for query in judged if found.get(query)}
    scores = {name: dict.fromkeys(judged, 0.0) for name in measures}
    by_measure: dict[str, list[str]] = {}
    for name, measure in parsed.items():
        by_measure.setdefault(str(measure), []).append(name)
    if run:
        for metric in ir_measures.pytrec_eval.iter_calc(list(parsed.values()), gains, run):
            if metric.query_id in run:
                for name in by_measure[str(metric.measure)]:
                    scores[name][metric.query_id] = float(metric.value)
    return scores
