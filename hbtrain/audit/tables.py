"""An audit as tables for a terminal."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

import numpy as np

from hbtrain.audit.audit import Audit
from hbtrain.audit.tokens import Texts
from hbtrain.batching.offers import Offer
from hbtrain.config.batching import KINDS
from hbtrain.reporting.table import EMPTY, Table, facts, table_of, terminal
from hbtrain.reporting.text import byte_size, counted, listed

if TYPE_CHECKING:
    from rich.table import Table as RichTable

MOST_COLUMNS = 12
"""Tables with a column for each language are left out if there are more; picture and JSON have the numbers."""

SMALL_NAMED = 20  # how many of a kind's offers that are too small are named


def tables(audit: Audit) -> Iterator[RichTable]:
    """Kinds, sources, languages, ordered pairs, uses by source and language, and what a step needs."""
    yield terminal(_kinds(audit))
    yield terminal(_sources(audit))
    yield terminal(_languages(audit))
    if len(audit.counts.languages) <= MOST_COLUMNS:
        yield terminal(_pairs(audit))
        yield terminal(_passes(audit))
    yield facts(_needs(audit), "A step")


def _kinds(audit: Audit) -> Table:
    counts = audit.counts
    rows = []
    for kind, batches in counts.kinds.items():
        expected = fraction(counts.expected_kinds[kind] / counts.steps)
        pairs = batches * counts.batch_size
        rows.append((kind, f"{batches:,}", fraction(batches / counts.steps), expected, f"{pairs:,}"))
    head = ("kind", "batches", "share", "expected", "pairs")
    return table_of(f"{counted(counts.steps, 'step')} of {counts.batch_size:,} pairs", head, rows)


def _sources(audit: Audit) -> Table:
    counts = audit.counts
    columns = "rows", "batches", "share", "epochs", "by language"
    rows: list[tuple[str, ...]] = []
    for name in counts.sources:
        mine = [one for one in counts.streams if one.source == name]
        for kind in dict.fromkeys(one.kind for one in mine):
            streams = [one for one in mine if one.kind == kind]
            batches = sum(one.batches for one in streams)
            epochs = [one.epochs for one in streams]
            rows.append(
                (
                    name,
                    kind,
                    f"{max(one.rows for one in streams):,}",
                    f"{batches:,}",
                    fraction(batches / counts.steps),
                    number(batches * counts.batch_size / sum(one.rows for one in streams)),
                    f"{number(min(epochs))} to {number(max(epochs))}" if len(epochs) > 1 else "",
                )
            )
        if not mine:
            rows.append((name, "never drawn", *[""] * len(columns)))
    note = "epochs: how often a row is dealt out for this kind, on average and for each language or pair"
    return table_of("Sources", ("source", "kind", *columns), rows, note, labels=2)


def _languages(audit: Audit) -> Table:
    counts, tokens = audit.counts, audit.tokens
    columns = ["rows", "same", "two", "share", "uses", *(["tokens", "cut off"] if tokens is not None else [])]
    table = []
    rows = counts.passage_rows.sum(axis=0)
    pairs = counts.all_pairs.sum(axis=0)
    same, crossed = np.diag(pairs), pairs - np.diag(np.diag(pairs))
    for i, language in enumerate(counts.languages):
        cells = [
            f"{rows[i]:,}",
            f"{same[i]:,.0f}",
            f"{crossed[i].sum() + crossed[:, i].sum():,.0f}",
            fraction(counts.language_shares[i]),
            number(counts.language_passes[i]),
        ]
        if tokens is not None:
            sides = tokens.queries.get(language), tokens.passages.get(language)
            cells += [
                _two(sides, lambda one: f"{one.tokens / one.texts:.0f}"),
                _two(sides, lambda one: f"{one.at_limit / one.texts:.0%}"),
            ]
        table.append((language, *cells))
    note = "pairs in the language, and pairs with one side in it; share of all texts; uses of a text, on average"
    if tokens is not None:
        note += "; mean tokens and share of texts that reach their limit, queries | passages"
    return table_of("Languages", ("language", *columns), table, note)


def _pairs(audit: Audit) -> Table:
    counts = audit.counts
    head = ("query in", *(f"→ {x}" for x in counts.languages))
    shares = counts.all_pairs.sum(axis=0) / counts.total_pairs
    rows = [
        (language, *(f"{100 * share:.2f}" if share else EMPTY for share in of_language))
        for language, of_language in zip(counts.languages, shares, strict=True)
    ]
    return table_of("Pairs of languages, % of all pairs", head, rows)


def _passes(audit: Audit) -> Table:
    counts = audit.counts
    rows = [
        (source, *(EMPTY if np.isnan(one) else number(one) for one in passes))
        for source, passes in zip(counts.sources, counts.passes, strict=True)
    ]
    return table_of("Uses of a query or passage, on average", ("source", *counts.languages), rows)


def _needs(audit: Audit) -> list[tuple[str, str]]:
    batches = sum(one.batches for one in audit.collisions.values())
    left, shuffled = (
        sum(getattr(one, name) for one in audit.collisions.values()) / batches for name in ("left", "shuffled")
    )
    rows = [("pairs that collide in a batch", f"{number(left)} left, {number(shuffled)} in a plain shuffle")]
    if audit.tokens is not None:
        tokens = audit.tokens
        per_batch = tokens.tokens_per_pair * audit.counts.batch_size
        rows.append(("tokens of a batch", f"{per_batch:,.0f} ({tokens.tokens_per_pair:.0f} a pair)"))
        padding = f"{fraction(tokens.padding_share)} of what is computed"
        rows.append(("padding", f"{padding} ({fraction(tokens.unsorted_padding_share)} if unsorted)"))
    rows.append(("epochs over all rows", number(audit.counts.epochs)))
    if audit.estimate is None:
        rows.append(("memory of a worker", "not known, as the backbone's sizes are not to be had here"))
        return rows
    at_most = byte_size(audit.estimate.memory)
    same = audit.measured is None or audit.measured.memory == audit.estimate.memory
    measured = (
        "" if same or audit.measured is None else f", {byte_size(audit.measured.memory)} by the texts that were read"
    )
    rows.append(("memory of a worker", f"{at_most} at most{measured}"))
    if audit.estimate.sent:
        rows.append(("sent by a worker", byte_size(audit.estimate.sent)))
    return rows


def _two(sides: tuple[Texts | None, Texts | None], tell: Callable[[Texts], str]) -> str:
    return " | ".join(EMPTY if one is None else tell(one) for one in sides)


def fraction(share: float) -> str:
    return f"{share:.1%}"


def number(count: float) -> str:
    """A number with two or three significant digits: 0, 0.012, 3.4, 120."""
    if count == 0:
        return "0"
    return f"{count:.1f}" if 0.95 <= count < 100 else f"{count:,.0f}" if count >= 100 else f"{count:.2g}"


def notes(audit: Audit) -> list[str]:
    """Lines on what was counted, on collisions that cannot be avoided, and on what is never drawn."""
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
    if audit.tokens is not None and audit.tokens.words:
        known = audit.tokens.known_words / audit.tokens.words
        lines.append(
            f"switched batches: the lexicons know {known:.0%} of the words of these texts, of which "
            f"{audit.config.batching.switching.share:.0%} are replaced"
        )
    for one in counts.streams:
        if one.largest_cluster > max(1, one.batches_per_epoch) and one.batches:
            name = " ".join([one.source, one.kind, *one.languages])
            lines.append(
                f"{name}: up to {one.largest_cluster:,} rows are linked by shared queries or passages, and an epoch "
                f"has {one.batches_per_epoch:,} batches, so some of them meet; the loss masks them"
            )
    for kind in KINDS:
        small = [_never_drawn(offer) for offer in audit.too_small if offer.kind == kind]
        if small:
            lines.append(f"never drawn for {kind} batches, as fewer rows than a batch: {listed(small, SMALL_NAMED)}")
    return lines


def _never_drawn(offer: Offer) -> str:
    return f"{' '.join([offer.availability.source.name, *offer.languages])} ({offer.rows:,})"
