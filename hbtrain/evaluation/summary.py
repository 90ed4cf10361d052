"""Averaging the scores of a benchmark: over queries, then over languages.

A *cell* is a setting, a query language and a passage language ("all" in multi): the mean over its queries is the unit
of every mean over languages.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from hbtrain.evaluation.benchmark import SETTINGS, Benchmark, CandidatesKind
from hbtrain.evaluation.metrics import metrics
from hbtrain.evaluation.scoring import ALL_LANGUAGES, POOL_METRICS, CollectionScores, Ties
from hbtrain.formats.language_codes import is_among
from hbtrain.modeling.encoder import Side, Similarity
from hbtrain.retrieval.ranks import TIE_RULE

if TYPE_CHECKING:
    import pyarrow as pa

    from hbtrain.evaluation.geometry import LanguagePairs

__all__ = [
    "POOL_METRICS",
    "SETTINGS",
    "Cell",
    "Evaluation",
    "cells_of",
    "mean_of_cells",
    "summarise",
]


@dataclass(frozen=True)
class Cell:
    """Mean scores of the queries in one language on the candidates in one language, or in all languages ("all")."""

    setting: str
    query_language: str
    passage_language: str
    queries: int
    means: dict[str, float]  # {metric: mean over queries}, without metrics that this setting or search does not have


@dataclass(frozen=True)
class Evaluation:
    """The scores of one model on one benchmark."""

    benchmark: str
    candidates_kind: CandidatesKind
    languages: tuple[str, ...]
    query_counts: dict[str, int]
    candidate_counts: dict[str, int]
    """{language: candidates}, added up where collections share a language, as English in every pair of Tatoeba."""
    left_out: int  # queries that were left out, because they have no relevant candidate
    repeated: int  # documents that were left out, because they came before, word for word
    never_found: int
    """Relevant candidates that no ranking can hold, as the pool lacks them or they are the query's own document."""
    own_left_out: int  # queries whose own document is left out of their rankings
    ties: dict[str, Ties]  # {setting: how many relevant candidates are tied}, where scores are known
    notes: tuple[str, ...]  # what readers of the scores should know, a sentence each
    search: dict[str, Any]  # how it was searched; the entry `search` is "exact" or the factory string of an index
    parallel: bool  # whether a question id means the same question in every language
    groups: dict[str, tuple[str, ...]]
    """{name: languages} with a mean of their own: the benchmark's groups, and `seen` and `unseen` if the training
    languages of the model are known."""
    trained_languages: tuple[str, ...] | None
    metrics: dict[str, float]
    """`<benchmark>/<setting>/<metric>` is the macro mean over cells, `<benchmark>/<setting>/<metric>/<language>` that
    of a query language (in `cross`, over its passage languages), `.../<group>` that of a group's query languages.
    Settings or languages without queries have no key."""
    cells: tuple[Cell, ...]
    first_languages: Mapping[str, Mapping[str, float]]
    """{query language: {language: share}}: mean share of each language among the first ten candidates in `multi`; empty
    without that setting."""
    per_query: pa.Table
    """One row per query and setting (in `cross`, per passage language): benchmark, setting, query_language,
    passage_language ("all" in multi), question_id, the metrics by name, those of `POOL_METRICS` (null except in multi),
    domain (null without domains)."""
    pairs: Mapping[Side, LanguagePairs] = field(default_factory=dict)
    """How the vectors of two languages lie to each other; empty without the setting `multi` and where vectors are not
    known."""
    similarity: Similarity | None = None
    """How the model's vectors were compared; None where the scores are those of run files."""
    precision: str | None = None
    """The types in which the model's weights were, and computed, such as `bfloat16`; None as for `similarity`."""
    model_notes: tuple[str, ...] = ()  # what was found about the model while it was loaded and used
    seconds: float | None = None  # how long it took, from opening the first collection; None for run files
    # where the benchmark's data come from, if it is a data set of the catalogue
    data: Mapping[str, Any] = field(default_factory=dict)

    @property
    def macro(self) -> dict[str, float]:
        """The macro means among `metrics`."""
        return {key: value for key, value in self.metrics.items() if key.count("/") == 2}

    @property
    def pair_map(self) -> npt.NDArray[np.float64]:
        """[L, L] mAP by query language and passage language; NaN where there are no queries or it is not known."""
        place = {language: code for code, language in enumerate(self.languages)}
        found = np.full((len(place), len(place)), np.nan)
        for cell in self.cells:
            if cell.passage_language in place and "map" in cell.means:
                found[place[cell.query_language], place[cell.passage_language]] = cell.means["map"]
        return found


def summarise(
    benchmark: Benchmark,
    scored: Sequence[CollectionScores],
    search: Mapping[str, Any],
    trained_languages: Sequence[str] | None = None,
    notes: Sequence[str] = (),
) -> Evaluation:
    """The evaluation that follows from the scores of all collections of a benchmark.

    `search` becomes `Evaluation.search`; its entry `tie_rule` says how ties rank, if not in the order of the pool.
    `notes` stand before those of the collections.
    """
    import pyarrow as pa

    table = pa.concat_tables([part.per_query for part in scored])
    cells = cells_of(table, benchmark.languages)
    groups = _groups(benchmark, trained_languages)
    ties = _added_ties(scored)
    tie_notes = _tie_notes(benchmark.name, ties, search.get("tie_rule", TIE_RULE))
    pairs = {side: found for part in scored for side, found in part.pairs.items()}  # of the only collection, if any
    return Evaluation(
        benchmark=benchmark.name,
        candidates_kind=benchmark.candidates_kind,
        languages=benchmark.languages,
        query_counts=_added([part.query_counts for part in scored], benchmark.languages),
        candidate_counts=_added([part.candidate_counts for part in scored], benchmark.languages),
        left_out=sum(part.left_out for part in scored),
        repeated=sum(part.repeated for part in scored),
        never_found=sum(part.never_found for part in scored),
        own_left_out=sum(part.own_left_out for part in scored),
        ties=ties,
        notes=(*notes, *(note for part in scored for note in part.notes), *tie_notes),
        search=dict(search),
        parallel=benchmark.parallel,
        groups=groups,
        trained_languages=None if trained_languages is None else tuple(trained_languages),
        metrics=_metrics(benchmark.name, cells, benchmark.languages, groups, pairs),
        cells=cells,
        pairs=pairs,
        first_languages=_first_languages(scored),
        per_query=table,
        data=benchmark.data,
    )


def _added_ties(scored: Sequence[CollectionScores]) -> dict[str, Ties]:
    found = {setting: [part.ties[setting] for part in scored if setting in part.ties] for setting in SETTINGS}
    return {
        setting: Ties(sum(one.tied for one in own), sum(one.relevant for one in own))
        for setting, own in found.items()
        if own
    }


def _tie_notes(benchmark: str, ties: Mapping[str, Ties], rule: str) -> list[str]:
    counts = [f"{one.tied:,} of {one.relevant:,} in {setting}" for setting, one in ties.items() if one.tied]
    if not counts:
        return []
    return [
        f"{benchmark}: relevant candidates share their score with others that are not relevant, or less so "
        f"({', '.join(counts)}), and metrics depend on which ranks first; {rule}"
    ]


def _first_languages(scored: Sequence[CollectionScores]) -> dict[str, dict[str, float]]:
    """Shares by the names of languages; a benchmark with the setting `multi` has a single collection."""
    found: dict[str, dict[str, float]] = {}
    for part in scored:
        for asked, shares in part.first_languages.items():
            found.setdefault(asked, dict(zip(part.candidate_counts, shares.tolist(), strict=True)))
    return found


def mean_of_cells(cells: Sequence[Cell], metric: str) -> float:
    """The macro mean over the cells, at least one, in which the metric is known."""
    return float(np.mean([cell.means[metric] for cell in cells if metric in cell.means]))


def _added(counts: Sequence[Mapping[str, int]], languages: Sequence[str]) -> dict[str, int]:
    total: Counter[str] = Counter()
    for count in counts:
        total.update(count)
    return {language: total[language] for language in languages}


def _groups(benchmark: Benchmark, trained: Sequence[str] | None) -> dict[str, tuple[str, ...]]:
    groups = dict(benchmark.groups)
    if trained is not None:
        groups["seen"] = tuple(x for x in benchmark.languages if is_among(x, trained))
        groups["unseen"] = tuple(x for x in benchmark.languages if x not in groups["seen"])
    own = {name: tuple(x for x in benchmark.languages if x in members) for name, members in groups.items()}
    return {name: members for name, members in own.items() if members}


def cells_of(table: pa.Table, languages: Sequence[str]) -> tuple[Cell, ...]:
    """The cells of per-query scores: settings in their order, then query languages, then passage languages."""
    keys, names = ["setting", "query_language", "passage_language"], [*metrics(), *POOL_METRICS]
    # In one thread, as sums in another order would differ in the last bit.
    found = table.group_by(keys, use_threads=False).aggregate(
        [("question_id", "count"), *((name, "mean") for name in names)]
    )
    cells = [
        Cell(
            setting=row["setting"],
            query_language=row["query_language"],
            passage_language=row["passage_language"],
            queries=row["question_id_count"],
            means={name: row[f"{name}_mean"] for name in names if row[f"{name}_mean"] is not None},
        )
        for row in found.to_pylist()
    ]
    place = {name: number for number, name in enumerate((*SETTINGS, ALL_LANGUAGES, *languages))}
    return tuple(sorted(cells, key=lambda c: (place[c.setting], place[c.query_language], place[c.passage_language])))


def _metrics(
    benchmark: str,
    cells: Sequence[Cell],
    languages: Sequence[str],
    groups: Mapping[str, Sequence[str]],
    pairs: Mapping[Side, LanguagePairs],
) -> dict[str, float]:
    """Macro means first, setting by setting; then, of each setting and metric, languages and groups."""
    by_score: defaultdict[tuple[str, str], list[Cell]] = defaultdict(list)
    for cell in cells:
        for name in cell.means:
            by_score[cell.setting, name].append(cell)
    macro: dict[str, float] = {}
    parts: dict[str, float] = {}
    members = {language: (language,) for language in languages} | dict(groups)
    for (setting, name), own in by_score.items():
        key = f"{benchmark}/{setting}/{name}"
        macro[key] = mean_of_cells(own, name)
        of_language: defaultdict[str, list[Cell]] = defaultdict(list)
        for cell in own:
            of_language[cell.query_language].append(cell)
        for part, included in members.items():
            # In the order of `own`, in which cells of a language stand together, as those of the languages do.
            if some := [cell for language in of_language if language in included for cell in of_language[language]]:
                parts[f"{key}/{part}"] = mean_of_cells(some, name)
    for side, found in pairs.items():
        for name, values in found.scores(side).items():
            for language, value in values.items():
                (parts if language else macro)["/".join(filter(None, (benchmark, "multi", name, language)))] = value
    return macro | parts
