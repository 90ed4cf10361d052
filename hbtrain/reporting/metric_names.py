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
METRICS = {
    "map": "mAP",
    "mrr": "MRR",
    RANK_DISTANCE: "rank distance",
    WORST_RANK: "worst rank",
}
LOWER_IS_BETTER = frozenset({RANK_DISTANCE, WORST_RANK})  # metrics whose unit is the rank

ALL, SEEN, UNSEEN, SOME = "all", "seen", "unseen", "seen by some"
"""Parts of a table that are not a single language. Seen: trained on by every system; unseen: by none."""


def metric_title(metric: str) -> str:
    """`mAP`, `R@10`, `nDCG@10`, ...; a metric without a title is called by its name."""
    name, at, cutoff = metric.partition("@")
    short = {"recall": "R", "ndcg": "nDCG", "mrr": "MRR", "map": "mAP"}.get(name) if at else METRICS.get(metric)
    return f"{short}{at}{cutoff}" if short else metric


def score_title(metric: str, setting: str) -> str:
    """`mAP monolingual`; a metric in ranks is of one setting only and called by its name: `rank distance`."""
    return metric_title(metric) if metric in LOWER_IS_BETTER else f"{metric_title(metric)} {SETTINGS[setting]}"


def shown(value: float, metric: str) -> str:
    """A score as tables and pictures write it."""
    return format(value, _form(metric))


def shown_difference(value: float, metric: str) -> str:
    """A difference between scores, with its sign; never `-0.000`."""
    text = format(value, "+" + _form(metric))
    return text.replace("-", "+", 1) if float(text.replace(",", "")) == 0 else text


def _form(metric: str) -> str:
    return ",.1f" if metric in LOWER_IS_BETTER else ".3f"


def sign(metric: str) -> int:
    """1 where higher is better, -1 where lower is."""
    return -1 if metric in LOWER_IS_BETTER else 1
