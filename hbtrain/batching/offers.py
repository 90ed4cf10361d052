"""Offers: what each source has for each kind of batch, and how probable it is that a batch is drawn from it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
import numpy.typing as npt

from hbtrain.batching.availability import Availability, PairTable
from hbtrain.batching.stream import Stream
from hbtrain.config.batching import BatchingConfig, Kind
from hbtrain.corpus.conflicts import SourceIndex
from hbtrain.errors import ConfigError, DataError

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Sampling:
    """`batching.source_weights`, `batching.language_weights` and the temperatures, for given training languages."""

    # the training languages, without those of weight 0; a language's code is its index in this tuple
    languages: tuple[str, ...]
    language_weights: Floats  # float64 [L], positive
    source_weights: Mapping[str, float]  # {name: weight}; a source that is not named has weight 1
    language_temperature: float | None = None  # of the draw of a monolingual batch's language; None: by weights only
    pair_temperature: float | None = None  # of the draw of pairs of languages; None is 1: in proportion to size

    @classmethod
    def of(cls, batching: BatchingConfig, languages: Sequence[str]) -> Sampling:
        """The sampling of a configuration whose training languages are `languages`, weights of 0 included.

        Raises:
            ConfigError: a weight of a language that is not trained; no language is left, or not English where the mode
                needs it.
        """
        for language in batching.language_weights:
            if language not in languages:
                raise ConfigError(
                    f"batching.language_weights: {language!r} is not among the training languages "
                    f"{', '.join(languages)}"
                )
        weights = {language: batching.language_weights.get(language, 1.0) for language in languages}
        left = tuple(language for language, weight in weights.items() if weight > 0)
        if not left:
            raise ConfigError("batching.language_weights: every training language has weight 0; raise one")
        if batching.mode == "english":
            if "en" not in left:
                raise ConfigError(f"batching.mode = 'english' needs en among the training languages {', '.join(left)}")
            left = ("en",)
        return cls(
            languages=left,
            language_weights=np.array([weights[language] for language in left]),
            source_weights=batching.source_weights,
            language_temperature=batching.language_temperature,
            pair_temperature=batching.pair_temperature,
        )

    def source_weight(self, name: str) -> float:
        """The weight that each row of a source has."""
        return self.source_weights.get(name, 1.0)

    def language_shares(self, sizes: Mapping[int, float]) -> dict[int, float]:
        """{code: probability} of the languages of monolingual batches, from {code: weighted pairs in it}."""
        power = 0.0 if self.language_temperature is None else 1.0 / self.language_temperature
        share = {code: size**power * float(self.language_weights[code]) for code, size in sizes.items()}
        total = sum(share.values())
        return {code: one / total for code, one in share.items()}

    def pair_weights(self, sizes: Floats) -> Floats | None:
        """float64 [L, L]: the weight of each pair (query language, passage language); None if all weigh the same.

        The weight is the product of the two languages' weights (of a pair (x, x), the weight of x), times
        size^(1/temperature - 1). Since `size` rows offer the pair, it is drawn in proportion to size^(1/temperature).
        `sizes` is float64 [L, L], the weighted number of rows that offer each pair.
        """
        tempered = self.pair_temperature not in (None, 1.0)
        if not tempered and (self.language_weights == self.language_weights[0]).all():
            return None
        weights = np.outer(self.language_weights, self.language_weights)
        np.fill_diagonal(weights, self.language_weights)
        if tempered and self.pair_temperature is not None:
            offered = sizes > 0
            weights[offered] *= (sizes[offered] / sizes.max()) ** (1.0 / self.pair_temperature - 1.0)
        return np.maximum(weights, np.finfo(np.float64).tiny)  # a weight that underflows to 0 would never be drawn


def weighted_sources(sources: Sequence[SourceIndex], weights: Mapping[str, float]) -> list[SourceIndex]:
    """The sources with a weight above 0.

    Raises:
        ConfigError: a weight of a source that does not exist.
        DataError: no source is left.
    """
    names = [source.name for source in sources]
    for name in weights:
        if name not in names:
            raise ConfigError(f"batching.source_weights: no source is called {name!r}; they are {', '.join(names)}")
    left = [source for source in sources if weights.get(source.name, 1.0) > 0]
    if not left:
        raise DataError("batching.source_weights: every source has weight 0; raise one")
    return left


@dataclass(frozen=True)
class Offer:
    """One source's rows for one kind of batch."""

    kind: Kind
    availability: Availability  # the source, seen through the training languages
    # codes of (query language, passage language) if the whole batch has one pair, else None
    pair: tuple[int, int] | None
    rows: int  # how many rows can be used
    pairs: int  # how many (row, query language, passage language) they offer; sources are drawn in proportion to it
    weight: float = 0.0  # probability among the offers of its kind
    # float64 [L, L], how probable the pairs are among those of a row; None: all alike
    pair_weights: Floats | None = None

    @property
    def label(self) -> str:
        """Source, kind and languages, for reports: `office-help mono de`."""
        return " ".join([self.availability.source.name, self.kind, *self.languages])

    @property
    def languages(self) -> tuple[str, ...]:
        """The languages of `pair`, one where both are the same; none where pairs of a batch differ."""
        codes = () if self.pair is None else dict.fromkeys(self.pair)
        return tuple(self.availability.languages[code] for code in codes)

    def stream(self, seed: int) -> Stream:
        """The offer's stream of rows; it depends on the seed, the source's name, the kind and the languages."""
        if self.pair is None:
            patterns = self.availability.pairs_per_pattern(same=self.kind == "multi") > 0
        else:
            patterns = self.availability.pair_patterns(*self.pair)
        return self.availability.stream(f"{seed}\0{self.label}", patterns)

    @cached_property
    def table(self) -> PairTable:
        """The pairs of languages from which one is drawn for each row, where `pair` is None."""
        pairs = self.availability.pairs(same=self.kind == "multi")
        patterns = len(self.availability.source.pattern_counts)
        return PairTable(pairs, patterns, len(self.availability.languages), self.pair_weights)

    @property
    def pair_shares(self) -> Floats:
        """float64 [L, L], which sums to 1: the share of each (query language, passage language) in its batches."""
        if self.pair is None:
            return self.table.shares(self.availability.source.pattern_counts)
        shares = np.zeros((len(self.availability.languages),) * 2)
        shares[self.pair] = 1.0
        return shares

    def add_pair_counts(self, counts: Floats, weight: float) -> None:
        """Add to `counts` (float64 [L, L]) how many rows offer each pair of languages, times `weight`."""
        if self.pair is not None:
            counts[self.pair] += weight * self.rows
            return
        same = np.eye(len(counts), dtype=bool)
        counts += weight * np.where(same if self.kind == "multi" else ~same, self.availability.rows_per_pair, 0)

    def weighted_pairs(self) -> float:
        """The sum of the weights of `pairs`."""
        if self.pair_weights is None:
            return float(self.pairs)
        if self.pair is not None:
            return self.pairs * float(self.pair_weights[self.pair])
        return float((self.availability.source.pattern_counts * self.table.weight_per_pattern).sum())


def offers_of(availability: Availability, kinds: Sequence[str], batching: BatchingConfig) -> list[Offer]:
    """The offers of a source for these kinds of batches, still without probabilities."""
    codes = range(len(availability.languages))
    offers = []
    # In one language, a parallel sentence is its own passage, so such a batch would only teach to match copies.
    if "mono" in kinds and not availability.source.sentences:
        offers += [_fixed_pair("mono", availability, (x, x)) for x in codes]
    if "switched" in kinds and not availability.source.sentences:
        leading = {x for x, _ in batching.switching.pairs}
        offers += [_fixed_pair("switched", availability, (x, x)) for x in codes if availability.languages[x] in leading]
    if "multi" in kinds and not availability.source.sentences:
        offers.append(_any_pair("multi", availability))
    if "cross" in kinds and batching.cross_languages == "pair":
        offers.append(_any_pair("cross", availability))
    elif "cross" in kinds:
        offers += [_fixed_pair("cross", availability, (x, y)) for x in codes for y in codes if x != y]
    return offers


def weighed(offers: Sequence[Offer], sampling: Sampling) -> list[Offer]:
    """Give offers of one kind their probabilities.

    For monolingual batches, with words switched or not, the language is drawn first, then a source in proportion to its
    size in that language; for other kinds, pairs of languages and sources are drawn together, in proportion to size.
    """
    if not offers:
        return []
    size = [sampling.source_weight(o.availability.source.name) * o.pairs for o in offers]
    if offers[0].kind in ("mono", "switched"):
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
    counts = np.zeros((len(sampling.languages),) * 2)  # one array for all: a source may make L * L offers
    for o in offers:
        o.add_pair_counts(counts, sampling.source_weight(o.availability.source.name))
    weights = sampling.pair_weights(counts)
    offers = [replace(o, pair_weights=weights) for o in offers]
    size = [sampling.source_weight(o.availability.source.name) * o.weighted_pairs() for o in offers]
    total = sum(size)
    return [replace(o, weight=one / total) for o, one in zip(offers, size, strict=True)]


def _fixed_pair(kind: Kind, availability: Availability, pair: tuple[int, int]) -> Offer:
    rows = int(availability.rows_per_pair[pair])
    return Offer(kind, availability, pair, rows, rows)


def _any_pair(kind: Kind, availability: Availability) -> Offer:
    per_pattern = availability.pairs_per_pattern(same=kind == "multi")
    pairs = int((availability.source.pattern_counts * per_pattern).sum())
    return Offer(kind, availability, None, availability.count(per_pattern > 0), pairs)
