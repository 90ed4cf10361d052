"""Measures of ranked lists by trec_eval, through ir_measures and its pytrec_eval provider."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

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
        ValueError: a gain that is no whole number, or a measure that trec_eval does not have.
    """
    import ir_measures

    parsed = {name: ir_measures.parse_measure(name) for name in measures}
    gains: dict[str, dict[str, int]] = {}
    for query, own in judged.items():
        if any(gain != int(gain) for gain in own.values()):
            raise ValueError(f"gains of query {query} must be whole numbers for trec_eval, not {dict(own)}")
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
