"""The catalogue: everything that a batch can be drawn from, with probabilities, checked before training starts."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from hbtrain.batching.availability import Availability
from hbtrain.batching.offers import Offer, Sampling, offers_of, weighed, weighted_sources
from hbtrain.config.batching import KINDS, BatchingConfig, Kind
from hbtrain.corpus.conflicts import Int64s, SourceIndex
from hbtrain.errors import ConfigError, DataError


@dataclass(frozen=True)
class Catalogue:
    """All offers (what one source has for one kind of batch) that batches are drawn from."""

    languages: tuple[str, ...]  # the training languages, without those of weight 0
    offers: tuple[Offer, ...]  # those that can fill a batch; the weights of one kind sum to 1
    too_small: tuple[Offer, ...]  # those that have rows, but fewer than a batch
    # {kind: (indices into `offers` of those of the kind, their cumulative weights)}
    cumulative: dict[Kind, tuple[Int64s, npt.NDArray[np.float64]]]

    @classmethod
    def build(
        cls, sources: Sequence[SourceIndex], batching: BatchingConfig, languages: Sequence[str] | None
    ) -> Catalogue:
        """List and check what the sources offer, in the training `languages` (None: all that the sources have).

        Raises:
            ConfigError: cross-lingual batches of fewer than two languages, mode `english` without English, or a weight
                of a source or language that does not exist.
            DataError: a language that no source has; a source, a language or a kind with too few rows for a batch.
        """
        sources = weighted_sources(sources, batching.source_weights)
        named = _training_languages(sources, languages)
        _check_lexicons(batching, named)
        sampling = Sampling.of(batching, named)
        training = sampling.languages
        kinds = batching.kinds
        _check_languages(batching, training)
        offers = [o for s in sources for o in offers_of(Availability(s, training), kinds, batching)]
        usable = [o for o in offers if o.rows >= batching.global_batch_size]
        too_small = tuple(o for o in offers if 0 < o.rows < batching.global_batch_size)
        _check(sources, training, kinds, offers, batching)
        weighted = tuple(o for kind in kinds for o in weighed([o for o in usable if o.kind == kind], sampling))
        cumulative = {}
        for kind in {o.kind for o in weighted}:
            numbers = np.array([i for i, o in enumerate(weighted) if o.kind == kind], np.int64)
            cumulative[kind] = (numbers, np.cumsum([weighted[i].weight for i in numbers]))
        return cls(training, weighted, too_small, cumulative)

    def pick(self, kind: Kind, uniforms: npt.NDArray[np.float64]) -> Int64s:
        """int64 [n]: the index in `offers` of the offer of `kind` that each uniform number in [0, 1) chooses."""
        numbers, cumulative = self.cumulative[kind]
        chosen = np.searchsorted(cumulative, uniforms * cumulative[-1], side="right")
        return np.asarray(numbers[np.minimum(chosen, len(numbers) - 1)])


def _training_languages(sources: Sequence[SourceIndex], languages: Sequence[str] | None) -> tuple[str, ...]:
    known = sorted({language for source in sources for language in source.languages})
    for language in languages or ():
        if language not in known:
            raise DataError(f"data.languages: no source has {language!r}; they have {', '.join(known)}")
    return tuple(languages or known)


def _check_languages(batching: BatchingConfig, training: tuple[str, ...]) -> None:
    """Raise ConfigError if a kind of batch needs more training languages than there are.

    In the mode `multilingual`, one language is allowed: all its batches are then monolingual.
    """
    if len(training) > 1:
        return
    for kind, name in (("cross", "cross-lingual"), ("multi", "multilingual")):
        if kind in batching.kinds and (kind == "cross" or batching.mixture is not None):
            which = f"batching.mode = {batching.mode!r}" if batching.mixture is None else "batching.mixture"
            instead = "use --batching.mode monolingual" if batching.mixture is None else f"leave {kind} out"
            raise ConfigError(
                f"{which} makes {name} batches, which need two languages or more; training languages are "
                f"{', '.join(training)}: add one, or {instead}"
            )


def _check_lexicons(batching: BatchingConfig, training: tuple[str, ...]) -> None:
    """Raise ConfigError if lexicons of `switched` batches lead from a language that is not among those of training."""
    for language, target in batching.switching.pairs if "switched" in batching.kinds else ():
        if language not in training:
            raise ConfigError(
                f"batching.switching.lexicons: the one from {language!r} to {target!r} is for texts in {language}, and "
                f"training languages are {', '.join(training)}; leave it out or name it by the codes of the data"
            )


def _check(
    sources: Sequence[SourceIndex],
    training: tuple[str, ...],
    kinds: Sequence[str],
    offers: Sequence[Offer],
    batching: BatchingConfig,
) -> None:
    """Raise DataError if a source, a language of monolingual batches or a kind has too few rows for any batch."""
    size = batching.global_batch_size
    for source in sources:
        most = _most_rows(offer for offer in offers if offer.availability.source is source)
        # Sentences are not used without cross-lingual batches, which may be one point of a sweep.
        if most < size and not (source.sentences and "cross" not in kinds):
            raise DataError(
                f"source {source.name} cannot fill a batch: it offers at most {most:,} {' or '.join(kinds)} rows in "
                f"{', '.join(training)}, and batching.global_batch_size is {size:,}; lower it or leave the source out"
            )
    leading = {x for x, _ in batching.switching.pairs}
    largest: dict[tuple[str, object], int] = {}
    for offer in offers:
        largest[offer.kind, offer.pair] = max(offer.rows, largest.get((offer.kind, offer.pair), 0))
    for kind, name in (("mono", "monolingual"), ("switched", "code-switched")):
        for code, language in enumerate(training) if kind in kinds else ():
            most = largest.get((kind, (code, code)), 0)
            if most < size and (kind == "mono" or language in leading):
                raise DataError(
                    f"no source can fill a {name} batch in {language!r}: the largest offers {most:,} rows, and "
                    f"batching.global_batch_size is {size:,}; lower it or leave {language} out of data.languages"
                )
    for kind in kinds:
        most = _most_rows(offer for offer in offers if offer.kind == kind)
        if most < size:
            raise DataError(
                f"no source can fill a {kind} batch: the largest offers {most:,} rows, and "
                f"batching.global_batch_size is {size:,}"
            )


def _most_rows(offers: Iterable[Offer]) -> int:
    return max((offer.rows for offer in offers), default=0)


def shares_at(batching: BatchingConfig, steps: Int64s) -> npt.NDArray[np.float64]:
    """float64 [K, n]: the probability of each of the K kinds in `KINDS` at each of the steps (int64 [n])."""
    points = batching.kind_points
    return np.stack([np.interp(steps, list(points), [one.get(kind, 0.0) for one in points.values()]) for kind in KINDS])
