"""Figures of an audit in words."""

from __future__ import annotations

from hbtrain.audit.audit import Audit

GIB = 2**30


def fraction(share: float) -> str:
    """A share as a percentage."""
    return f"{share:.1%}"


def number(count: float) -> str:
    """With as many digits as tell something: 0, 0.012, 3.4, 120."""
    if count == 0:
        return "0"
    return f"{count:.1f}" if 0.95 <= count < 100 else f"{count:,.0f}" if count >= 100 else f"{count:.2g}"


def size(count: float) -> str:
    """Bytes: 3 MiB, 1.2 GiB."""
    return f"{count / GIB:.3g} GiB" if count >= GIB else f"{count / 2**20:.3g} MiB"


def notes(audit: Audit) -> list[str]:
    """What the figures rest on, and what cannot be avoided or is never drawn, a line each."""
    counts, looked = audit.counts, sum(one.batches for one in audit.collisions.values())
    rest = (
        f"kinds, sources and epochs: all {counts.steps:,} batches; pairs that rows draw by themselves: expected number"
    )
    rest += f"; collisions: {looked:,} batches"
    if audit.tokens is not None:
        workers = audit.tokens.workers
        part = f" (the part of one of {workers} workers)" if workers > 1 else ""
        rest += f"; tokens: {audit.tokens.batches:,} batches{part}"
    lines = [rest]
    for one in counts.streams:
        if one.largest_cluster > max(1, one.batches_per_epoch) and one.batches:
            name = " ".join([one.source, one.kind, *one.languages])
            lines.append(
                f"{name}: up to {one.largest_cluster:,} rows are linked by shared queries or passages, and an epoch "
                f"has {one.batches_per_epoch:,} batches, so some of them meet; the loss masks them"
            )
    for kind in ("mono", "cross", "multi"):
        small = [offer for offer in audit.too_small if offer.kind == kind]
        told = ", ".join(f"{' '.join(o.label.split(' ' + kind + ' '))} ({o.rows:,})" for o in small)
        if small:
            lines.append(f"never drawn for {kind} batches, as fewer rows than a batch: {told}")
    return lines
