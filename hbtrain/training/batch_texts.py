"""The texts of a global batch, by their numbers in its source: queries, passages, and what pairs bring along.

All ranks know these of the whole batch alike, without reading a text; a rank reads those of its own pairs.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from hbtrain.batching import GlobalBatch
from hbtrain.batching.companions import translated_passages, translated_queries
from hbtrain.config.loss import LossConfig
from hbtrain.corpus.conflicts import Int64s
from hbtrain.corpus.source import Side, Source
from hbtrain.errors import DataError
from hbtrain.modeling.loss_inputs import Owners, PairIds, Sizes


@dataclass(frozen=True)
class Texts:
    """n texts of one kind, of a global batch or of a rank's pairs, pair after pair."""

    side: Side  # whose prefix they get, and in whose columns of the source they are
    owners: Int64s  # int64 [n], the place in the global batch of the pair that each belongs to
    numbers: Int64s  # int64 [n], in the source
    codes: Int64s  # int64 [n], their languages, as indices into `languages`
    languages: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.owners)

    def of_pairs(self, start: int, stop: int) -> Texts:
        """Those of the pairs at the places [start, stop)."""
        part = slice(*np.searchsorted(self.owners, (start, stop)).tolist())
        return replace(self, owners=self.owners[part], numbers=self.numbers[part], codes=self.codes[part])

    def per_rank(self, pairs: Sequence[int]) -> list[int]:
        """How many texts each rank has, where ranks have so many pairs."""
        bounds = np.searchsorted(self.owners, np.cumsum([0, *pairs]))
        return [int(count) for count in np.diff(bounds)]

    def by_language(self) -> Iterator[tuple[str, Int64s]]:
        """(language, int64 indices of the texts in it), for each language that they have."""
        for code in np.unique(self.codes).tolist():
            yield self.languages[code], np.flatnonzero(self.codes == code)

    def in_language(self, source: Source, language: str) -> Texts:
        """The translations of the texts into a language, or the texts themselves where the source has none."""
        there = source.has(self.side, language, self.numbers)
        codes = np.where(there, len(self.languages), self.codes)
        return replace(self, codes=codes, languages=(*self.languages, language))

    def read(self, source: Source) -> list[str]:
        """The texts, read from the source of the batch.

        Raises:
            DataError: the source lacks one.
        """
        found: list[str | None] = [None] * len(self)
        for language, places in self.by_language():
            texts = source.numbered_texts(self.side, language, self.numbers[places])
            for place, text in zip(places.tolist(), texts, strict=True):
                found[place] = text
        if None in found:
            place = found.index(None)
            language = self.languages[self.codes[place]]
            raise DataError(f"source {source.name} has no {self.side} {self.numbers[place]} in {language}")
        return [text for text in found if text is not None]


@dataclass(frozen=True)
class BatchTexts:
    """All texts of a global batch, or those of a rank's pairs."""

    queries: Texts  # one for each pair
    passages: Texts  # one for each pair
    negatives: Texts  # hard negatives, in the languages of the passages of their pairs
    translations: Texts  # of passages, which pairs bring along as candidates
    translated_queries: Texts  # at most one for each pair

    @classmethod
    def of(cls, batch: GlobalBatch, source: Source, loss: LossConfig, seed: int) -> BatchTexts:
        """Those of a global batch of `source`, as a configuration's section `loss` and its seed say."""
        places, nothing = np.arange(len(batch), dtype=np.int64), np.zeros(0, np.int64)

        def made(side: Side, owners: Int64s, numbers: Int64s, codes: Int64s) -> Texts:
            return Texts(side, owners, numbers, codes, batch.languages)

        queries, passages = source.numbers("query", batch.rows), source.numbers("passage", batch.rows)
        negatives = translations = made("passage", nothing, nothing, nothing)
        translated = made("query", nothing, nothing, nothing)
        if loss.hard_negatives:
            chosen = batch.rows, batch.passage_languages, loss.hard_negatives, batch.step
            numbers, owners = source.negative_numbers(*chosen)
            negatives = made("passage", owners, numbers, batch.passage_codes[owners])
        if loss.translations:
            owners, codes = translated_passages(batch, source.index, loss.translations, seed)
            translations = made("passage", owners, passages[owners], codes)
        if loss.needs_translated_queries:
            owners, codes = translated_queries(batch, source.index, seed)
            translated = made("query", owners, queries[owners], codes)
        return cls(
            queries=made("query", places, queries, batch.query_codes),
            passages=made("passage", places, passages, batch.passage_codes),
            negatives=negatives,
            translations=translations,
            translated_queries=translated,
        )

    def of_pairs(self, start: int, stop: int) -> BatchTexts:
        """Those of the pairs at the places [start, stop) of the batch."""
        return BatchTexts(**{name: texts.of_pairs(start, stop) for name, texts in vars(self).items()})

    def read(self, source: Source) -> dict[str, list[str]]:
        """{name of a field: its texts}, read from the source of the batch; see `Texts.read`."""
        return {name: texts.read(source) for name, texts in vars(self).items()}

    def sizes(self, pairs: Sequence[int]) -> Sizes:
        """How many texts each rank has, where ranks have so many pairs."""
        translations, queries = (
            texts.per_rank(pairs) if len(texts) else () for texts in (self.translations, self.translated_queries)
        )
        return Sizes(pairs, self.negatives.per_rank(pairs), translations, queries)

    def owners(self) -> Owners:
        """The pairs that brought texts along; of a global batch."""
        return Owners(*map(_tensor, (self.negatives.owners, self.translations.owners, self.translated_queries.owners)))

    def ids(self, batch: GlobalBatch, source: Source, loss: LossConfig) -> PairIds | None:
        """Which queries and candidates of a global batch are the same; None if no candidates are."""
        candidates = batch.passage_ids
        collide = bool(batch.collisions().any()) or len(self.translations) > 0
        if loss.hard_negatives:
            chosen = batch.rows, batch.passage_languages, loss.hard_negatives, batch.step
            negatives = source.negative_ids(*chosen)
            collide = collide or bool(np.isin(negatives, batch.passage_ids).any())
            candidates = np.concatenate([candidates, negatives])
        if not collide:
            return None
        return PairIds(
            _tensor(batch.query_ids), _tensor(np.append(candidates, batch.passage_ids[self.translations.owners]))
        )


def _tensor(numbers: Int64s) -> Tensor:
    return torch.from_numpy(np.ascontiguousarray(numbers))
