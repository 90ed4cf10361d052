"""The catalogue: everything a batch can be drawn from, with its probability, checked before training starts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from hbtrain.batching.alpha import kinds_of
from hbtrain.batching.availability import Availability, Bools
from hbtrain.batching.batch import Kind
from hbtrain.batching.stream import Stream
from hbtrain.config.schema import BatchingConfig
from hbtrain.corpus.conflicts import Int64s
from hbtrain.corpus.index import SourceIndex
from hbtrain.errors import ConfigError, DataError


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
    """

    kind: Kind
    availability: Availability
    patterns: Bools
    pair: tuple[int, int] | None
    rows: int
    pairs: int
    weight: float = 0.0

    @property
    def label(self) -> str:
        """Source, kind and languages, for reports: `office-help mono de`."""
        codes = () if self.pair is None else dict.fromkeys(self.pair)
        return " ".join([self.availability.source.name, self.kind, *(self.availability.languages[c] for c in codes)])

    def stream(self, seed: int) -> Stream:
        """The offer's stream; depends on the seed, the source's name, the kind and the languages."""
        return self.availability.stream(f"{seed}\0{self.label}", self.patterns)


@dataclass(frozen=True)
class Catalogue:
    """All offers that can fill a batch, and those too small to.

    Attributes:
        languages: the training languages.
        offers: drawable, with weights that sum to 1 within a kind.
        too_small: rows exist, but fewer than a batch.
    """

    languages: tuple[str, ...]
    offers: tuple[Offer, ...]
    too_small: tuple[Offer, ...]
    cumulative: dict[Kind, tuple[Int64s, npt.NDArray[np.float64]]]

    @classmethod
    def build(
        cls, sources: Sequence[SourceIndex], batching: BatchingConfig, languages: Sequence[str] | None
    ) -> Catalogue:
        """List and check what `sources` offer.

        Raises:
            ConfigError: a cross-lingual kind with fewer than two languages, an English mode without English.
            DataError: a language that no source has, a source or a kind too small to fill a batch.
        """
        training = _training_languages(sources, batching, languages)
        kinds = kinds_of(batching)
        if "cross" in kinds and len(training) < 2:
            raise ConfigError(
                f"batching.mode = {batching.mode!r} makes cross-lingual batches, which need two languages or more; "
                f"training languages are {', '.join(training)}: add one, or use --batching.mode monolingual"
            )
        offers = [o for s in sources for o in _offers(Availability(s, training), kinds, batching)]
        usable = [o for o in offers if o.rows >= batching.global_batch_size]
        too_small = tuple(o for o in offers if 0 < o.rows < batching.global_batch_size)
        _check(sources, training, kinds, usable, offers, batching)
        weighted = tuple(o for kind in kinds for o in _weigh([o for o in usable if o.kind == kind], batching))
        cumulative = {}
        for kind in {o.kind for o in weighted}:
            numbers = np.array([i for i, o in enumerate(weighted) if o.kind == kind], np.int64)
            cumulative[kind] = (numbers, np.cumsum([weighted[i].weight for i in numbers]))
        return cls(training, weighted, too_small, cumulative)

    def pick(self, kind: Kind, uniforms: npt.NDArray[np.float64]) -> Int64s:
        """int64 [n]: the offer of `kind` that each uniform number in [0, 1) chooses."""
        numbers, cumulative = self.cumulative[kind]
        place = np.searchsorted(cumulative, uniforms * cumulative[-1], side="right")
        return np.asarray(numbers[np.minimum(place, len(numbers) - 1)])


def _training_languages(
    sources: Sequence[SourceIndex], batching: BatchingConfig, languages: Sequence[str] | None
) -> tuple[str, ...]:
    known = sorted({language for source in sources for language in source.languages})
    for language in languages or ():
        if language not in known:
            raise DataError(f"data.languages: no source has {language!r}; they have {', '.join(known)}")
    training = tuple(languages or known)
    if batching.mode == "english":
        if "en" not in training:
            raise ConfigError(f"batching.mode = 'english' needs en among the training languages {', '.join(training)}")
        return ("en",)
    return training


def _offers(availability: Availability, kinds: Sequence[str], batching: BatchingConfig) -> list[Offer]:
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


def _fixed_pair(kind: Kind, availability: Availability, pair: tuple[int, int]) -> Offer:
    patterns = availability.pair_patterns(*pair)
    rows = availability.count(patterns)
    return Offer(kind, availability, patterns, pair, rows, rows)


def _any_pair(kind: Kind, availability: Availability) -> Offer:
    table = availability.cross if kind == "cross" else availability.same
    patterns = np.asarray(table.pairs_per_pattern > 0)
    pairs = int((availability.source.pattern_counts * table.pairs_per_pattern).sum())
    return Offer(kind, availability, patterns, None, availability.count(patterns), pairs)


def _weigh(offers: list[Offer], batching: BatchingConfig) -> list[Offer]:
    """Offers of one kind with their probabilities: languages first where a batch has one, then sources by size."""
    if offers and offers[0].kind == "mono":
        by_language: dict[int, int] = {}
        for offer in offers:
            assert offer.pair is not None
            by_language[offer.pair[0]] = by_language.get(offer.pair[0], 0) + offer.pairs
        power = 0.0 if batching.language_temperature is None else 1.0 / batching.language_temperature
        share = {language: pairs**power for language, pairs in by_language.items()}
        total = sum(share.values())
        weights = [share[o.pair[0]] / total * o.pairs / by_language[o.pair[0]] for o in offers if o.pair is not None]
    else:
        total = sum(o.pairs for o in offers)
        weights = [o.pairs / total for o in offers]
    return [
        Offer(o.kind, o.availability, o.patterns, o.pair, o.rows, o.pairs, weight)
        for o, weight in zip(offers, weights, strict=True)
    ]


def _check(
    sources: Sequence[SourceIndex],
    training: tuple[str, ...],
    kinds: Sequence[str],
    usable: Sequence[Offer],
    offers: Sequence[Offer],
    batching: BatchingConfig,
) -> None:
    size = batching.global_batch_size
    for source in sources:
        mine = [o for o in offers if o.availability.source is source]
        if source.sentences and "cross" not in kinds:
            continue  # idle in a run, or a point of a sweep, that has no cross-lingual batches
        if not any(o.availability.source is source for o in usable):
            most = max((o.rows for o in mine), default=0)
            raise DataError(
                f"source {source.name} cannot fill a batch: it offers at most {most:,} {' or '.join(kinds)} rows in "
                f"{', '.join(training)}, and batching.global_batch_size is {size:,}; lower it or leave the source out"
            )
    if "mono" in kinds:
        for code, language in enumerate(training):
            mine = [o for o in offers if o.kind == "mono" and o.pair == (code, code)]
            if not any(o.rows >= size for o in mine):
                most = max((o.rows for o in mine), default=0)
                raise DataError(
                    f"no source can fill a monolingual batch in {language!r}: the largest offers {most:,} rows, and "
                    f"batching.global_batch_size is {size:,}; lower it or leave {language} out of data.languages"
                )
    for kind in kinds:
        if not any(o.kind == kind for o in usable):
            most = max((o.rows for o in offers if o.kind == kind), default=0)
            raise DataError(
                f"no source can fill a {kind} batch: the largest offers {most:,} rows, and "
                f"batching.global_batch_size is {size:,}"
            )
