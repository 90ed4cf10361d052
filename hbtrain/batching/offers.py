"""Offers: what each source has for each kind of batch, and how probable it is to be drawn."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np

from hbtrain.batching.availability import Availability, Bools, Floats, PairTable
from hbtrain.batching.batch import Kind
from hbtrain.batching.sampling import Sampling
from hbtrain.batching.stream import Stream
from hbtrain.config.schema import BatchingConfig


@dataclass(frozen=True)
class Offer:
    """One source's rows for one kind of batch.

    Attributes:
        kind: `mono`, `cross` or `multi`.
        availability: the source, seen through the training languages.
        patterns: bool [P], availability patterns whose rows serve.
        pair: (query, passage) language codes where the whole batch has one pair, else None.
        rows: how many rows serve.
        pairs: how many (row, query language, passage language) they offer: the size the source is drawn by.
        weight: probability among the offers of its kind.
        pair_weights: float64 [L, L], how much the pairs weigh that rows choose from; None: all the same.
    """

    kind: Kind
    availability: Availability
    patterns: Bools
    pair: tuple[int, int] | None
    rows: int
    pairs: int
    weight: float = 0.0
    pair_weights: Floats | None = None

    @property
    def label(self) -> str:
        """Source, kind and languages, for reports: `office-help mono de`."""
        codes = () if self.pair is None else dict.fromkeys(self.pair)
        return " ".join([self.availability.source.name, self.kind, *(self.availability.languages[c] for c in codes)])

    def stream(self, seed: int) -> Stream:
        """The offer's stream; depends on the seed, the source's name, the kind and the languages."""
        return self.availability.stream(f"{seed}\0{self.label}", self.patterns)

    @cached_property
    def table(self) -> PairTable:
        """The pairs that each row chooses from, where the batch has not one pair."""
        return PairTable(self.availability.allowed(same=self.kind == "multi"), self.pair_weights)

    @property
    def pair_shares(self) -> Floats:
        """float64 [L, L], sums to 1: the share of each (query language, passage language) among the pairs it gives."""
        if self.pair is None:
            return self.table.shares(self.availability.source.pattern_counts)
        shares = np.zeros((len(self.availability.languages),) * 2)
        shares[self.pair] = 1.0
        return shares

    def pair_counts(self) -> Floats:
        """float64 [L, L]: rows that offer each pair."""
        if self.pair is not None:
            return self.pair_shares * self.rows
        allowed = self.availability.allowed(same=self.kind == "multi")
        return np.asarray(np.einsum("p,pxy->xy", self.availability.source.pattern_counts, allowed), np.float64)

    def weighted_pairs(self) -> float:
        """`pairs`, each counted by its weight."""
        if self.pair_weights is None:
            return float(self.pairs)
        if self.pair is not None:
            return self.pairs * float(self.pair_weights[self.pair])
        return float((self.availability.source.pattern_counts * self.table.weight_per_pattern).sum())


def offers_of(availability: Availability, kinds: Sequence[str], batching: BatchingConfig) -> list[Offer]:
    """Everything that a source offers, as yet without probabilities."""
    codes = range(len(availability.languages))
    offers = []
    # A sentence as its own passage would teach nothing but to match copies.
    if "mono" in kinds and not availability.source.sentences:
        offers += [_fixed_pair("mono", availability, (x, x)) for x in codes]
    if "multi" in kinds and not availability.source.sentences:
        offers.append(_any_pair("multi", availability))
    if "cross" in kinds and batching.cross_languages == "pair":
        offers.append(_any_pair("cross", availability))
    elif "cross" in kinds:
        offers += [_fixed_pair("cross", availability, (x, y)) for x in codes for y in codes if x != y]
    return offers


def weighed(offers: Sequence[Offer], sampling: Sampling) -> list[Offer]:
    """Offers of one kind with their probabilities.

    Monolingual: languages first, then sources by size; else pairs of languages and sources by size together.
    """
    if not offers:
        return []
    size = [sampling.source_weight(o.availability.source.name) * o.pairs for o in offers]
    if offers[0].kind == "mono":
        by_language: dict[int, float] = {}
        for offer, one in zip(offers, size, strict=True):
            assert offer.pair is not None
            by_language[offer.pair[0]] = by_language.get(offer.pair[0], 0.0) + one
        share = sampling.language_shares(by_language)
        return [
            replace(o, weight=share[o.pair[0]] * one / by_language[o.pair[0]])
            for o, one in zip(offers, size, strict=True)
            if o.pair is not None
        ]
    rows = [sampling.source_weight(o.availability.source.name) * o.pair_counts() for o in offers]
    weights = sampling.pair_weights(np.sum(rows, axis=0))
    offers = [replace(o, pair_weights=weights) for o in offers]
    size = [sampling.source_weight(o.availability.source.name) * o.weighted_pairs() for o in offers]
    total = sum(size)
    return [replace(o, weight=one / total) for o, one in zip(offers, size, strict=True)]


def _fixed_pair(kind: Kind, availability: Availability, pair: tuple[int, int]) -> Offer:
    patterns = availability.pair_patterns(*pair)
    rows = availability.count(patterns)
    return Offer(kind, availability, patterns, pair, rows, rows)


def _any_pair(kind: Kind, availability: Availability) -> Offer:
    per_pattern = availability.allowed(same=kind == "multi").sum((1, 2))
    patterns = np.asarray(per_pattern > 0)
    pairs = int((availability.source.pattern_counts * per_pattern).sum())
    return Offer(kind, availability, patterns, None, availability.count(patterns), pairs)
