"""What scores are called in tables and pictures, and which way is better."""

from __future__ import annotations

SETTINGS = {"mono": "monolingual", "cross": "cross-lingual", "multi": "multilingual"}
"""Settings in the order of tables, with their titles."""

MONO, CROSS, HYBRID, MULTI, ENGLISH = "monolingual", "cross-lingual", "hybrid", "multilingual", "english"
MIXTURE = "mixture"  # of kinds of batches, others than the two of `hybrid`
TITLES = {
    MONO: "X-X only",
    HYBRID: "hybrid",
    MIXTURE: "mixture",
    CROSS: "X-Y only",
    MULTI: "multilingual",
    ENGLISH: "English only",
}
"""Samplings in the order of tables, with their titles."""

RANK_DISTANCE, WORST_RANK = "rank_distance", "worst_rank"
OWN_LANGUAGE = "own_language@10"  # share of the query's own language among the first ten candidates
LANGUAGE_BIAS = "language_bias@10"
OWN_FIRST, OWN_BEFORE, LANGUAGE_AWARE, PEER = "own_first", "own_before", "lang_ndcg@10", "peer@10"
RANK_CORRELATION, QUERY_ALIGNMENT = "rank_correlation", "query_alignment"
METRICS = {
    "map": "mAP",
    "mrr": "MRR",
    RANK_DISTANCE: "rank distance",
    WORST_RANK: "worst rank",
    LANGUAGE_BIAS: "language bias@10",
    OWN_FIRST: "own first",
    OWN_BEFORE: "own before",
    "first_relevant_own": "first relevant, own language",
    "first_relevant_other": "first relevant, other language",
    "first_irrelevant_own": "first irrelevant, own language",
    "first_irrelevant_other": "first irrelevant, other language",
    RANK_CORRELATION: "rank correlation",
    QUERY_ALIGNMENT: "alignment of queries",
    "passage_alignment": "alignment of passages",
    "query_uniformity": "uniformity of queries",
    "passage_uniformity": "uniformity of passages",
    "query_cka": "CKA of queries",
    "passage_cka": "CKA of passages",
}
IN_RANKS = frozenset({RANK_DISTANCE, WORST_RANK})  # metrics whose unit is the rank
LOWER_IS_BETTER = IN_RANKS | {
    OWN_LANGUAGE,
    LANGUAGE_BIAS,
    OWN_FIRST,
    OWN_BEFORE,
    "first_irrelevant_own",
    "first_irrelevant_other",
    QUERY_ALIGNMENT,
    "passage_alignment",
    "query_uniformity",
    "passage_uniformity",
}
"""Of measures of preference for the query's own language, less is less preference."""
ONLY_MULTI = frozenset(METRICS) - {"map", "mrr"} | {OWN_LANGUAGE, LANGUAGE_BIAS, LANGUAGE_AWARE, PEER}
"""Metrics that only the setting `multi` has."""

ALL, SEEN, UNSEEN, SOME = "all", "seen", "unseen", "seen by some"
"""Parts of a table that are not a single language. Seen: trained on by every system; unseen: by none."""


def metric_title(metric: str) -> str:
    """`mAP`, `R@10`, `nDCG@10`, ...; a metric without a title is called by its name."""
    name, at, cutoff = metric.partition("@")
    cut = {
        "recall": "R",
        "ndcg": "nDCG",
        "mrr": "MRR",
        "map": "mAP",
        "lang_ndcg": "language-aware nDCG",
        "peer": "PEER",
    }
    short = cut.get(name)
    return f"{short}{at}{cutoff}" if short and at else METRICS.get(metric, metric)


def score_title(metric: str, setting: str) -> str:
    """`mAP monolingual`; a metric that only `multi` has is called by its name: `rank distance`."""
    return metric_title(metric) if metric in ONLY_MULTI else f"{metric_title(metric)} {SETTINGS[setting]}"


def shown(value: float, metric: str) -> str:
    """A score as tables and pictures write it."""
    return format(value, _form(metric))


def shown_difference(value: float, metric: str) -> str:
    """A difference between scores, with its sign; never `-0.000`."""
    text = format(value, "+" + _form(metric))
    return text.replace("-", "+", 1) if float(text.replace(",", "")) == 0 else text


def _form(metric: str) -> str:
    return ",.1f" if metric in IN_RANKS else ".3f"


def sign(metric: str) -> int:
    """1 where higher is better, -1 where lower is."""
    return -1 if metric in LOWER_IS_BETTER else 1
