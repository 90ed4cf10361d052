"""Evaluation of TREC run files of any system, with the same metrics and tables as the evaluation of a model.

A run of depth k does not say what ranks behind its last document: its mAP is mAP@k, a metric with a deeper cut-off is
not known, and neither are rank distance and worst rank unless every relevant candidate was found.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from hbtrain.errors import DataError
from hbtrain.evaluation.benchmark import SETTINGS, Benchmark, Collection, Floats, Int64s
from hbtrain.evaluation.metrics import FIRST_PLACES
from hbtrain.evaluation.preference import best_ranks, preferences
from hbtrain.evaluation.scoring import ALL_LANGUAGES, CollectionScores, RankingScores, combine_scores, cutoff
from hbtrain.evaluation.summary import Evaluation, summarise
from hbtrain.evaluation.trec_ids import Asked, MatchedRun, Ranking, match_run
from hbtrain.evaluation.trec_runs import query_name
from hbtrain.reporting.metric_names import RANK_DISTANCE, WORST_RANK
from hbtrain.retrieval.trec_files import read_trec_run

RunKey = tuple[str, str]  # setting and query language
SUFFIXES = (".trec.gz", ".trec", ".run.gz", ".run", ".txt.gz", ".txt")
TIE_RULE = "candidates of equal score rank by document id backwards, as in trec_eval"


@dataclass(frozen=True)
class _JudgedQuery:
    """A query in a setting, with its judgements."""

    name: str  # query id in run files, not escaped
    query: int  # the query's place in the collection
    passage_language: str  # of the candidates; `all` in the setting `multi`
    relevant: dict[int, float]  # {place of a candidate: gain}
    missing: list[float]  # gains of relevant candidates that are never found


def find_trec_runs(folder: Path) -> dict[RunKey, Path]:
    """The run files of a folder, `<setting>/<query language>` with one of SUFFIXES, such as mono/en.trec.gz.

    Raises:
        DataError: the folder has none, or two of the same queries.
    """
    found: dict[RunKey, Path] = {}
    for setting in SETTINGS:
        for path in sorted((folder / setting).glob("*")):
            for suffix in SUFFIXES:
                if path.name.endswith(suffix) and path.is_file():
                    key = setting, path.name.removesuffix(suffix)
                    if key in found:
                        raise DataError(
                            f"{found[key]} and {path} are run files of the same queries; remove one of them"
                        )
                    found[key] = path
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
    """Score run files with trec_eval's measures; a query without a line scores 0.

    Args:
        benchmark: queries and candidates; `trec_runs.query_name` says how run files name their queries.
        run_files: by setting and query language; other settings and languages get no scores.
        trained_languages: the languages that the system was trained on; None: not known.

    Raises:
        DataError: a setting or language that the benchmark does not have, or a file that `read_trec_run` or `match_run`
            refuses.
    """
    _check_keys(benchmark, run_files)
    collections = list(benchmark.collections())  # candidates of large ones stay on disk
    judged = [{key: found for key in run_files if (found := _judged_queries(c, *key))} for c in collections]
    runs: dict[RunKey, MatchedRun] = {}
    notes = _without_files(collections, run_files)
    for key, path in run_files.items():
        asked = [
            _asked(collection, query)
            for collection, by_key in zip(collections, judged, strict=True)
            for query in by_key.get(key, ())
        ]
        runs[key] = match_run(read_trec_run(path), benchmark.name, asked, _names(collections, *key))
        notes += runs[key].notes
    parts: list[CollectionScores] = []
    # In all languages or in none: those whose every answer was found are the ones that the system is good at.
    known = all(
        _finds_all(runs[key], queries) for by_key in judged for key, queries in by_key.items() if key[0] == "multi"
    )
    cuts: set[int] = set()
    for collection, by_key in zip(collections, judged, strict=True):
        cuts |= {runs[key].depth for key, own in by_key.items() if runs[key].depth < _most_candidates(collection, own)}
        if by_key:
            scores = [_scores(collection, key, queries, runs[key], known) for key, queries in by_key.items()]
            parts.append(combine_scores(benchmark, collection, scores, _first_places(collection, by_key, runs)))
    depths = {"/".join(key): run.depth for key, run in runs.items()}
    about = {
        "search": f"run files of depth {max(depths.values())}",
        "run_depth": depths,
        "map": _map_name(cuts),
        "tie_rule": TIE_RULE,
    }
    return summarise(benchmark, parts, about, trained_languages, notes)


def _without_files(collections: Sequence[Collection], run_files: Mapping[RunKey, Path]) -> list[str]:
    """A note for every setting in which queries of some languages have no run file, and so no part in the means."""
    notes = []
    for setting in dict.fromkeys(setting for setting, _ in run_files):
        asked = {x: c for c in collections for x in c.query_counts if _judged_queries(c, setting, x)}
        if lacking := [language for language in asked if (setting, language) not in run_files]:
            notes.append(f"no run file for {setting} in {', '.join(lacking)}: not in the means")
    return notes


def _names(collections: Sequence[Collection], setting: str, language: str) -> set[str]:
    """Names that queries in a language may have in a setting, those included that are not asked, as of other splits."""
    found: set[str] = set()
    for c in collections:
        asked = (x for x, own in zip(c.question_ids, c.query_languages, strict=True) if own == language)
        for question in (*asked, *c.unasked.get(language, ())):
            found.update(query_name(question, setting, passage_language) for passage_language in c.languages)
    return found


def _asked(collection: Collection, query: _JudgedQuery) -> Asked:
    counts = collection.candidate_counts
    stops = dict(zip(counts, np.cumsum(list(counts.values())).tolist(), strict=True))
    language = query.passage_language
    pool = range(len(collection.candidate_ids))
    if language != ALL_LANGUAGES:
        pool = range(stops[language] - counts[language], stops[language])
    return Asked(query.name, collection, pool, -1 if collection.own is None else int(collection.own[query.query]))


def _map_name(cuts: set[int]) -> str:
    """`mAP`, or `mAP@10`, or `mAP@10 to 100`: by the depths of the runs that do not list all candidates."""
    if not cuts:
        return "mAP"
    return f"mAP@{min(cuts)}" if len(cuts) == 1 else f"mAP@{min(cuts)} to {max(cuts)}"


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
    """The queries in one language that a setting asks; in `cross`, once for every passage language with an answer."""
    stops = np.cumsum(list(collection.candidate_counts.values()))
    found: list[_JudgedQuery] = []
    for query, language in enumerate(collection.query_languages):
        if language != query_language:
            continue
        relevant = collection.relevant[query]
        gains = np.ones(len(relevant)) if collection.gains is None else collection.gains[query]
        by_language: dict[str, dict[int, float]] = {}
        for place, gain in zip(relevant.tolist(), gains.tolist(), strict=True):
            own = collection.languages[int(np.searchsorted(stops, place, side="right"))]
            kind = "multi" if setting == "multi" else "mono" if own == language else "cross"
            if kind == setting:
                by_language.setdefault(ALL_LANGUAGES if setting == "multi" else own, {})[place] = gain
        missing = [] if collection.missing is None else collection.missing[query].tolist()
        passages = collection.pool_language or language  # only a pool of one language has missing ones
        if missing and setting in ("multi", "mono" if passages == language else "cross"):
            by_language.setdefault(ALL_LANGUAGES if setting == "multi" else passages, {})
        for passage_language, judged in by_language.items():
            name = query_name(collection.question_ids[query], setting, passage_language)
            found.append(_JudgedQuery(name, query, passage_language, judged, missing))
    return found


def _finds_all(run: MatchedRun, queries: Sequence[_JudgedQuery]) -> bool:
    """Whether every relevant candidate of the queries is in the run."""
    return all(None not in _ranks(run.rankings.get(query.name), query) for query in queries)


def _scores(
    collection: Collection, key: RunKey, queries: list[_JudgedQuery], run: MatchedRun, known: bool
) -> RankingScores:
    """The scores of a run file; `known`: whether all ranks in the setting `multi` are, in this file and others."""
    judged = {
        query.name: {str(place): gain for place, gain in query.relevant.items()}
        | {f"missing {number}": gain for number, gain in enumerate(query.missing)}
        for query in queries
    }
    found = {
        name: [str(place) if place >= 0 else f"unknown {rank}" for rank, place in enumerate(ranking.places)]
        for name, ranking in run.rankings.items()
        if name in judged
    }
    by_trec = cutoff_scores(judged, found, list(TREC_MEASURES.values()))
    candidates = _most_candidates(collection, queries)
    scores: dict[str, Floats] = {}
    for name, measure in TREC_MEASURES.items():
        if run.depth >= min(cutoff(name), candidates):
            scores[name] = np.array([by_trec[measure][query.name] for query in queries], np.float64)
    if run.depth >= min(FIRST_PLACES, candidates):
        scores["mrr@10"] = np.where(scores["mrr"] * FIRST_PLACES > 0.99, scores["mrr"], 0.0)
    if key[0] == "multi":
        ranks = [_ranks(run.rankings.get(query.name), query) for query in queries]
        if collection.pool_language is None:
            preferred = _preferences(collection, queries, ranks, run.depth)
            scores |= {name: own for name, own in preferred.items() if known or 0 < cutoff(name) <= run.depth}
        if known:
            worst = np.array([max(r for r in own if r) for own in ranks], np.float64)
            scores[WORST_RANK] = worst
            best = np.array([min(r for r in own if r) for own in ranks], np.float64)
            scores[RANK_DISTANCE] = np.where([len(own) > 1 for own in ranks], worst - best, np.nan)
    return RankingScores(
        setting=np.full(len(queries), key[0], object),
        query=np.array([query.query for query in queries], np.int64),
        passage_language=np.array([query.passage_language for query in queries], object),
        scores=scores,
        relevant=np.array([len(query.relevant) + len(query.missing) for query in queries], np.int64),
        tied=np.array([_tied(run.rankings.get(query.name), query) for query in queries], np.int64),
    )


def _most_candidates(collection: Collection, queries: list[_JudgedQuery]) -> int:
    """The size of the largest pool that one of the queries ranks."""
    counts, own = collection.candidate_counts, collection.own
    everything = sum(counts.values())
    return max(
        counts.get(query.passage_language, everything) - (own is not None and own[query.query] >= 0)
        for query in queries
    )


def _ranks(ranking: Ranking | None, query: _JudgedQuery) -> list[int | None]:
    """The ranks of the relevant candidates; None for each that is not listed."""
    place = {} if ranking is None else {document: rank for rank, document in enumerate(ranking.places, 1)}
    return [*(place.get(document) for document in query.relevant), *(None for _ in query.missing)]


def _preferences(
    collection: Collection, queries: list[_JudgedQuery], ranks: list[list[int | None]], depth: int
) -> dict[str, Floats]:
    """What the ranks say of languages; relevant candidates that are not listed rank somewhere behind the list."""
    sizes = [len(query.relevant) for query in queries]
    language = collection.candidate_codes[[place for query in queries for place in query.relevant]]
    rank = np.array([rank or depth + 1 + number for own in ranks for number, rank in enumerate(own)], np.int64)
    best = best_ranks(np.repeat(np.arange(len(queries)), sizes), language, rank, len(collection.languages))
    return preferences(best, collection.query_codes[[query.query for query in queries]])


def _tied(ranking: Ranking | None, query: _JudgedQuery) -> int:
    """How many of the relevant candidates listed have the score of one with another gain."""
    if ranking is None or len(set(ranking.scores)) == len(ranking.scores):
        return 0
    gains_of: dict[float, list[float]] = {}
    for place, score in zip(ranking.places, ranking.scores, strict=True):
        gains_of.setdefault(score, []).append(query.relevant.get(place, 0.0))
    return sum(len(gains) - gains.count(0.0) for gains in gains_of.values() if len(set(gains)) > 1)


def _first_places(
    collection: Collection, judged: Mapping[RunKey, list[_JudgedQuery]], runs: Mapping[RunKey, MatchedRun]
) -> Int64s | None:
    """[Q, 10] places of the best candidates in the pool of all languages; None unless they are known of all queries."""
    multi = {key: queries for key, queries in judged.items() if key[0] == "multi"}
    if sum(map(len, multi.values())) < len(collection.question_ids):
        return None
    found = np.full((len(collection.question_ids), FIRST_PLACES), -1, np.int64)
    for key, queries in multi.items():
        for query in queries:
            if (ranking := runs[key].rankings.get(query.name)) is not None:
                first = ranking.places[:FIRST_PLACES]
                found[query.query, : len(first)] = first
    return found


TREC_MEASURES: dict[str, str] = {
    "map": "AP",
    "recall@1": "R@1",
    "recall@10": "R@10",
    "recall@100": "R@100",
    "mrr": "RR",
    "ndcg@10": "nDCG@10",
}
"""{metric: its name in ir_measures}, of the metrics that trec_eval computes."""


def cutoff_scores(
    judged: Mapping[str, Mapping[str, float]], found: Mapping[str, Sequence[str]], measures: Sequence[str]
) -> dict[str, dict[str, float]]:
    """{measure: {query: score}} of ranked lists, for every judged query.

    Args:
        judged: {query: {document: gain}}, gains being whole numbers; 1 or more means relevant, and nDCG uses the gain.
        found: {query: documents}, best first, each once; a query without a list scores 0.
        measures: names in ir_measures, such as nDCG@10, R@100, AP, RR; one without a cut-off is computed on the lists
            as they are.

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
    # Places serve as scores, because trec_eval would sort equal scores by its own rule.
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
