"""An audit as values that JSON can hold."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

import numpy as np

from hbtrain.audit.audit import Audit
from hbtrain.audit.tables import notes
from hbtrain.batching.availability import Floats
from hbtrain.config import to_flat
from hbtrain.planning.estimate import Estimate


def record(audit: Audit) -> dict[str, Any]:
    """The whole audit; `pairs_by_language` is {kind: {query language: {passage language: pairs}}}."""
    counts = audit.counts
    return {
        "config": to_flat(audit.config),
        "steps": counts.steps,
        "batch_size": counts.batch_size,
        "pairs": counts.total_pairs,
        "epochs": counts.epochs,
        "kinds": {
            kind: {"batches": batches, "expected": counts.expected_kinds[kind]}
            for kind, batches in counts.kinds.items()
        },
        "sources": {
            name: {
                "rows": int(rows),
                "uses": _by_language(counts.passes[i], counts.languages),
                "streams": [
                    {key: value for key, value in asdict(one).items() if key != "source"}
                    for one in counts.streams
                    if one.source == name
                ],
                "collisions": asdict(audit.collisions[name]) if name in audit.collisions else None,
            }
            for i, (name, rows) in enumerate(zip(counts.sources, counts.source_rows, strict=True))
        },
        "languages": _languages(audit),
        "pairs_by_language": {
            kind: {
                x: _by_language(row, counts.languages)
                for x, row in zip(counts.languages, pairs.sum(axis=0), strict=True)
            }
            for kind, pairs in counts.pairs.items()
        },
        "tokens": _tokens(audit),
        "memory_bytes_at_most": _memory(audit.estimate),
        "memory_bytes_measured": _memory(audit.measured),
        "never_drawn": [
            {"source": o.availability.source.name, "kind": o.kind, "label": o.label, "rows": o.rows}
            for o in audit.too_small
        ],
        "notes": notes(audit),
    }


def _languages(audit: Audit) -> dict[str, Any]:
    counts, tokens = audit.counts, audit.tokens
    rows = zip(counts.query_rows.sum(axis=0).tolist(), counts.passage_rows.sum(axis=0).tolist(), strict=True)
    found = {}
    for i, (language, (queries, passages)) in enumerate(zip(counts.languages, rows, strict=True)):
        found[language] = {
            "query_rows": queries,
            "passage_rows": passages,
            "share": float(counts.language_shares[i]),
            "uses": _number(counts.language_passes[i]),
        }
        if tokens is not None:
            for name, side in (("queries", tokens.queries), ("passages", tokens.passages)):
                found[language][name] = asdict(side[language]) if language in side else None
    return found


def _tokens(audit: Audit) -> dict[str, Any] | None:
    tokens = audit.tokens
    if tokens is None:
        return None
    whole = {name: value for name, value in asdict(tokens).items() if name not in ("queries", "passages")}
    shares = {"padding_share": tokens.padding_share, "unsorted_padding_share": tokens.unsorted_padding_share}
    return whole | {"tokens_per_pair": tokens.tokens_per_pair} | shares


def _memory(estimate: Estimate | None) -> dict[str, int] | None:
    if estimate is None:
        return None
    parts = {"activations": estimate.activations, "loss": estimate.loss, "sent_per_step": estimate.sent}
    return {"worker": estimate.memory} | asdict(estimate.states) | parts


def _by_language(values: Floats, languages: tuple[str, ...]) -> dict[str, float | None]:
    return {x: _number(value) for x, value in zip(languages, values, strict=True)}


def _number(value: np.floating[Any]) -> float | None:
    """The value, or None for NaN (a language without texts), which JSON does not have."""
    return None if np.isnan(value) else float(value)
