"""What a model loses outside its domain: the MRR of one benchmark or domain less that of the others.

A benchmark whose queries have domains is also reported by domain, as `<benchmark>@<domain>`, with the candidates of the
whole benchmark.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import chain, count

from hbtrain.errors import DataError
from hbtrain.evaluation.benchmark import SETTINGS, Benchmark
from hbtrain.evaluation.summary import Cell, Evaluation, cells_of, mean_of_cells

MRR, MRR_10 = "mrr", "mrr@10"


@dataclass(frozen=True)
class DomainScore:
    """MRR of a benchmark, or of one of its domains, in a setting."""

    name: str  # `<benchmark>` or `<benchmark>@<domain>`
    setting: str  # `mono`, `cross` or `multi`
    queries: int  # how many; in `cross`, each counts once for every passage language
    mrr: float  # macro mean over cells (see `summary`)
    # the in-domain MRR less this one, both over the cells that the two have in common; None if they have none, or if
    # there is no in-domain benchmark
    drop: float | None


def domain_scores(evaluations: Sequence[Evaluation], in_domain: str | None = None) -> list[DomainScore]:
    """Scores of every benchmark and every domain in its settings, with the drop against `in_domain`.

    MRR is uncut; if one of the evaluations knows MRR@10 only, all scores are MRR@10.

    Raises:
        DataError: no benchmark or domain is called `in_domain`.
    """
    metric = MRR if all(MRR in cell.means for e in evaluations for cell in e.cells) else MRR_10
    cells = {name: found for e in evaluations for name, found in _by_domain(e).items()}
    _check_known(in_domain, list(cells))
    scores = []
    for setting in SETTINGS:
        for name, own in cells.items():
            here = [cell for cell in own if cell.setting == setting and metric in cell.means]
            if here:
                base = () if in_domain is None or in_domain == name else cells[in_domain]
                drop = _drop([cell for cell in base if cell.setting == setting], here, metric)
                queries = sum(cell.queries for cell in here)
                scores.append(DomainScore(name, setting, queries, mean_of_cells(here, metric), drop))
    return scores


def domain_metrics(scores: Sequence[DomainScore]) -> dict[str, float]:
    """`<benchmark>/<setting>/mrr_drop`, and `<benchmark>@<domain>/<setting>/mrr` and `.../mrr_drop`."""
    metrics: dict[str, float] = {}
    for score in scores:
        if "@" in score.name:
            metrics[f"{score.name}/{score.setting}/mrr"] = score.mrr
        if score.drop is not None:
            metrics[f"{score.name}/{score.setting}/mrr_drop"] = score.drop
    return metrics


def check_in_domain(in_domain: str | None, benchmarks: Sequence[Benchmark]) -> None:
    """Raise DataError if neither a benchmark nor a domain is called `in_domain`; before anything is encoded."""
    if in_domain is None or in_domain in (benchmark.name for benchmark in benchmarks):
        return
    names = []
    for benchmark in benchmarks:
        domains = {domain for c in benchmark.collections() for domain in c.domains or () if domain is not None}
        names += [benchmark.name, *_names(benchmark.name, domains).values()]
    _check_known(in_domain, names)


def _check_known(in_domain: str | None, names: Sequence[str]) -> None:
    if in_domain is not None and in_domain not in names:
        raise DataError(f"in-domain benchmark {in_domain!r} is not evaluated; there are {', '.join(names)}")


def _by_domain(evaluation: Evaluation) -> dict[str, tuple[Cell, ...]]:
    """{name: cells} of a benchmark and of each of its domains."""
    import pyarrow.compute as pc

    table = evaluation.per_query
    found = {evaluation.benchmark: evaluation.cells}
    for domain, name in _names(evaluation.benchmark, pc.unique(table["domain"]).drop_null().to_pylist()).items():
        rows = table.filter(pc.equal(table["domain"], domain))
        found[name] = cells_of(rows, evaluation.languages)
    return found


def _names(benchmark: str, domains: Iterable[str]) -> dict[str, str]:
    """{domain: its name}, with a hyphen for characters that a metric's key cannot hold. Of domains that would then have
    one name, all but the first get a number: `own@C-`, `own@C-2` for C# and C+."""
    names: dict[str, str] = {}
    for domain in sorted(domains):
        plain = f"{benchmark}@" + re.sub(r"[^\w. -]", "-", domain)
        numbered = chain([plain], (f"{plain}{number}" for number in count(2)))
        names[domain] = next(name for name in numbered if name not in names.values())
    return names


def _drop(base: Sequence[Cell], here: Sequence[Cell], metric: str) -> float | None:
    def pairs(cells: Sequence[Cell]) -> set[tuple[str, str]]:
        return {(cell.query_language, cell.passage_language) for cell in cells if metric in cell.means}

    common = pairs(base) & pairs(here)
    if not common:
        return None
    first, second = (
        mean_of_cells([c for c in cells if (c.query_language, c.passage_language) in common], metric)
        for cells in (base, here)
    )
    return first - second
