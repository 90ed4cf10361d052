"""Hard negatives, mined with an earlier model: passages that it ranks high for a row's queries though they are not its
answer.

**Candidates.** For each language x in which a row has a query, the `depth` best passages of the pool: those in x
(`same`), in all languages but x (`other`), or in all (`both`). The row's own passage is taken out, and with it the
passages of every row that has the same question; see `PassagePool` for what is the same.

**Margin against false negatives** (NV-Retriever, arXiv 2407.15831). A candidate in language y is too close if its score
exceeds the positive's less the margin, `absolute` (s+ - margin) or `relative` (s+ - margin * |s+|). The positive is the
row's passage in the same language y, since models score some pairs of languages higher than others. If the row's
passage lacks that language, the positive is the best of its translations; so it is if a parallel sentence is compared
in its own language, where the positive would be the sentence itself and score 1.

**Merging.** A training pair needs negatives in the language of its passage, whatever the language they were found with.
So what is chosen are passages, not texts: a passage's score is its best over the row's queries and its own languages;
it is too close if any of its texts that were found is; and it brings all its translations. Passages are sorted by
score, ties in the order of the pool. The first `skip_top` are passed over, those too close are dropped, and the next
`negatives` become the row's.

Shapes: B rows of a block (or its queries in one language), K candidates of a query, L languages, N texts of the pool,
D dimensions, n candidates of a whole block.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import zip_longest
from pathlib import Path
from typing import Any, BinaryIO, Literal, NamedTuple, get_args

import numpy as np
import numpy.typing as npt

from hbtrain.corpus import ParallelCorpus, Source, source_path
from hbtrain.corpus.conflicts import Int64s
from hbtrain.errors import ConfigError, DataError, ModelError
from hbtrain.formats.parallel import read_records
from hbtrain.modeling.encoder import Encoder, Side
from hbtrain.retrieval.identities import PassagePool
from hbtrain.retrieval.scores import Floats, for_inner_products, similarities, similarity_of
from hbtrain.retrieval.top import DevicePool

CandidateLanguages = Literal["same", "other", "both"]
MarginKind = Literal["absolute", "relative"]
Progress = Callable[[str, int, int], None]
"""Called with what is being done, how much of it is done, and how much there is."""

BLOCK_ROWS = 1024  # rows mined at one time
BLOCK_TEXTS = 8192  # passages read from disk at one time


@dataclass(frozen=True)
class MiningOptions:
    """Which passages become hard negatives; the head of this file explains the words."""

    negatives: int = 8  # the most for each row
    languages: str = "same"  # of the candidates, relative to the query's: `same`, `other` or `both`
    margin: float = 0.05  # how far below the positive's score a candidate's must be
    margin_kind: str = "absolute"  # `absolute`, or `relative` to the positive's score
    skip_top: int = 0  # how many of the best candidates are passed over
    depth: int = 100  # candidates that are looked at for each query

    def __post_init__(self) -> None:
        for flag, value, allowed in (
            ("--languages", self.languages, get_args(CandidateLanguages)),
            ("--margin-kind", self.margin_kind, get_args(MarginKind)),
        ):
            if value not in allowed:
                raise ConfigError(f"{flag} {value}: must be one of {', '.join(allowed)}")
        if self.negatives < 1:
            raise ConfigError(f"--negatives {self.negatives}: must be 1 or more")
        if self.skip_top < 0:
            raise ConfigError(f"--skip-top {self.skip_top}: must be 0 or more")
        if not math.isfinite(self.margin):
            raise ConfigError(
                f"--margin {self.margin}: must be a number; below 0 it lets in what outscores the positive"
            )
        if self.depth < self.negatives + self.skip_top:
            raise ConfigError(
                f"--depth {self.depth}: must be at least --negatives + --skip-top = {self.negatives + self.skip_top}"
            )


class MinedRow(NamedTuple):
    """What was mined for one row."""

    negatives: list[dict[str, str]]  # {language: text} of each negative passage, best first
    too_close: int  # how many passages were dropped by the margin


class Miner:
    """Encodes the passages of a corpus once, then mines negatives for one row after another.

    Memory: the embeddings (N x D x 4 bytes) and the numbers of `PassagePool`. On a GPU, the embeddings once more, or
    the part of them that fits (see `DevicePool`).
    """

    def __init__(
        self,
        encoder: Encoder,
        corpus: ParallelCorpus,
        options: MiningOptions,
        batch_size: int = 128,
        progress: Progress | None = None,
    ) -> None:
        """Encode the passages, which `progress` is told of, as it is of rows that are mined.

        Raises:
            ConfigError: other languages are wanted and the corpus has only one.
            ModelError: an embedding holds NaN or infinity.
        """
        if options.languages == "other" and len(corpus.languages) == 1:
            raise ConfigError(f"--languages other: the sources have {corpus.languages[0]} only; use same")
        self._encoder = encoder
        self._options = options
        self._batch_size = batch_size
        self._progress = progress
        self.pool = PassagePool(corpus)
        self._p_ND = self._embed_pool()
        self._on_device = DevicePool(self._p_ND, encoder.device)

    def rows(self, source: Source) -> Iterator[MinedRow]:
        """The negatives of every row of a source, in the order of the rows."""
        numbers = self.pool.rows_of(source)
        for first in range(0, len(numbers), BLOCK_ROWS):
            rows = np.arange(first, min(first + BLOCK_ROWS, len(numbers)), dtype=np.int64)
            parts = [self._candidates(source, rows, numbers.start, code) for code in range(len(self.pool.languages))]
            yield from self._choose(Candidates.joined(parts), len(rows))
            self._tell(f"rows of {source.name}", first + len(rows), len(numbers))

    def _candidates(self, source: Source, rows: Int64s, start: int, code: int) -> Candidates:
        """The candidates that the rows' queries in one language find."""
        language = self.pool.languages[code]
        index = source.index
        if language not in index.languages:
            return Candidates.none()
        has = index.query_patterns[index.patterns_of(rows), index.languages.index(language)]
        asking = np.flatnonzero(has)
        if not len(asking):
            return Candidates.none()
        q_BD = self._embed(source.texts("query", rows[asking], [language] * len(asking)), "query")
        products_BK, texts_BK = self._on_device.best(q_BD, self._spans(code), self._options.depth)
        scores_BK = similarities(products_BK, similarity_of(self._encoder))
        positives_BL = self._positives(q_BD, self.pool.row_texts[start + rows[asking]])
        if index.sentences:
            _drop_copies(positives_BL, code)
        options = self._options
        allowed_BL = highest_allowed(positives_BL, options.margin, options.margin_kind == "relative")
        too_close_BK = scores_BK > np.take_along_axis(allowed_BL, self.pool.language[texts_BK], axis=1)
        owner = np.repeat(asking, texts_BK.shape[1])
        found = Candidates(owner, texts_BK.ravel(), scores_BK.ravel(), too_close_BK.ravel())
        return found.at(~self.pool.is_own(start + rows[found.row], found.text))

    def _spans(self, code: int) -> list[slice]:
        own = self.pool.span(code)
        if self._options.languages == "same":
            return [own]
        if self._options.languages == "other":
            return [slice(0, own.start), slice(own.stop, len(self.pool))]
        return [slice(0, len(self.pool))]

    def _positives(self, q_BD: Floats, texts_BL: Int64s) -> Doubles:
        """[B, L] scores of the rows' own passages, NaN where a row lacks the language."""
        scores_BL = np.full(texts_BL.shape, np.nan)
        for code, texts in enumerate(texts_BL.T):
            has = np.flatnonzero(texts >= 0)
            products = np.einsum("bd,bd->b", q_BD[has], self._p_ND[texts[has]])
            scores_BL[has, code] = similarities(products, similarity_of(self._encoder))
        return scores_BL

    def _choose(self, found: Candidates, rows: int) -> list[MinedRow]:
        """Merge what the queries of each of the block's rows found, and take the best."""
        ranked = found.merged(self.pool.identity[found.text]).ranked()
        reached = ranked.at(ranked.ranks() >= self._options.skip_top)
        dropped = np.bincount(reached.row[reached.too_close], minlength=rows)
        allowed = reached.at(~reached.too_close)
        chosen = allowed.at(allowed.ranks() < self._options.negatives)
        bounds = np.searchsorted(chosen.row, np.arange(rows + 1))
        negatives = self.pool.translations(chosen.text)
        return [
            MinedRow(negatives[start:stop], close)
            for start, stop, close in zip(bounds[:-1].tolist(), bounds[1:].tolist(), dropped.tolist(), strict=True)
        ]

    def _embed_pool(self) -> Floats:
        p_ND = np.empty((len(self.pool), self._embed([], "passage").shape[1]), np.float32)
        for start in range(0, len(p_ND), BLOCK_TEXTS):
            places = np.arange(start, min(start + BLOCK_TEXTS, len(p_ND)))
            p_ND[places] = self._embed(self.pool.texts(places), "passage")
            self._tell("passages", start + len(places), len(p_ND))
        return p_ND

    def _embed(self, texts: Sequence[str], side: Side) -> Floats:
        """Vectors whose inner products rank as the encoder's similarity does."""
        vectors = self._encoder.encode(texts, side, batch_size=self._batch_size)
        broken = np.flatnonzero(~np.isfinite(vectors).all(axis=1))
        if len(broken):
            raise ModelError(
                f"the embedding of {side} {texts[broken[0]][:60]!r} holds NaN or infinity: training has diverged or "
                "the precision is too low; use an earlier checkpoint"
            )
        return for_inner_products(vectors, side, similarity_of(self._encoder))

    def _tell(self, what: str, done: int, total: int) -> None:
        if self._progress is not None:
            self._progress(what, done, total)


def _drop_copies(positives_BL: Doubles, code: int) -> None:
    """Set the score of a parallel sentence with itself to NaN, where it has translations as positives."""
    translated = np.isfinite(positives_BL).sum(axis=1) > 1
    positives_BL[translated, code] = np.nan


@dataclass
class MiningSummary:
    """How many rows were mined, and what became of their candidates."""

    rows: int = 0
    negatives: int = 0
    too_close: int = 0  # passages that were dropped by the margin
    rows_without: int = 0  # rows that got no negative


def write_mined(miner: Miner, corpus: ParallelCorpus, sources: Sequence[str], stream: BinaryIO) -> MiningSummary:
    """Write the rows of `sources`, from which `corpus` was opened, to `stream` as JSON lines with mined negatives.

    Negatives that a row had before are replaced; all else stays. Where there are several sources, ids get the
    source's name in front, so that rows of different sources do not become one.

    Raises:
        DataError: a source changed while it was mined.
    """
    summary = MiningSummary()
    for source, name in zip(corpus.sources.values(), sources, strict=True):
        prefix = f"{source.name}/" if len(sources) > 1 else ""
        for read, mined in zip_longest(_records(source, source_path(name)), miner.rows(source)):
            if read is None or mined is None:
                raise DataError(f"source {name} changed while it was mined; run again")
            record = _with_negatives(read, mined.negatives, prefix)
            stream.write(json.dumps(record, ensure_ascii=False).encode() + b"\n")
            summary.rows += 1
            summary.negatives += len(mined.negatives)
            summary.too_close += mined.too_close
            summary.rows_without += not mined.negatives
    return summary


def check_sources(corpus: ParallelCorpus) -> None:
    """Raise DataError if some sources hold pairs of query and passage, and others parallel sentences."""
    by_form = {source.index.sentences: name for name, source in corpus.sources.items()}
    if len(by_form) > 1:
        raise DataError(
            f"--data: source {by_form[True]} holds parallel sentences (text), {by_form[False]} queries and passages; "
            "one file cannot hold both, mine them one by one"
        )


def _records(source: Source, path: Path) -> Iterator[dict[str, Any]]:
    return source.records() if path.is_dir() else (record for record, _ in read_records(path))


def _with_negatives(record: dict[str, Any], negatives: list[dict[str, str]], prefix: str) -> dict[str, Any]:
    record.pop("negatives", None)
    if prefix:
        record |= {key: f"{prefix}{record[key]}" for key in ("id", "passage_id") if key in record}
    return record | {"negatives": negatives} if negatives else record


Bools = npt.NDArray[np.bool_]
Doubles = npt.NDArray[np.float64]


class Candidates(NamedTuple):
    """n candidates: texts that were found for rows of a block."""

    row: Int64s  # int64 [n], the row's place in the block
    text: Int64s  # int64 [n], the text's place in the pool
    score: Floats  # float32 [n]
    too_close: Bools  # bool [n], whether the score exceeds the positive's less the margin

    @classmethod
    def none(cls) -> Candidates:
        return cls(np.zeros(0, np.int64), np.zeros(0, np.int64), np.zeros(0, np.float32), np.zeros(0, bool))

    @classmethod
    def joined(cls, parts: Sequence[Candidates]) -> Candidates:
        return cls(*map(np.concatenate, zip(*parts, strict=True)))

    def at(self, places: Int64s | Bools) -> Candidates:
        """The candidates with these numbers, or for which a mask is true."""
        return Candidates(self.row[places], self.text[places], self.score[places], self.too_close[places])

    def merged(self, identity: Int64s) -> Candidates:
        """One candidate for each row and passage: the text with the best score, of equal scores the first in the pool.

        It is too close if any of the passage's texts is. `identity` (int64 [n]) says which passage a text belongs to.
        """
        if not len(self.row):
            return self
        order = np.lexsort((self.text, -self.score, identity, self.row))
        found = self.at(order)
        changes = (np.diff(found.row, prepend=-1) != 0) | (np.diff(identity[order], prepend=-1) != 0)
        first = np.flatnonzero(changes)
        return found.at(first)._replace(too_close=np.logical_or.reduceat(found.too_close, first))

    def ranked(self) -> Candidates:
        """The candidates sorted by row, then by score, best first; ties in the order of the pool."""
        return self.at(np.lexsort((self.text, -self.score, self.row)))

    def ranks(self) -> Int64s:
        """int64 [n]: 0 for the first candidate of each row, 1 for the next, and so on; rows must ascend."""
        return np.arange(len(self.row)) - np.searchsorted(self.row, self.row)


def highest_allowed(positives_BL: Doubles, margin: float, relative: bool) -> Doubles:
    """[B, L] the highest score that a candidate in each language may have.

    `positives_BL` are the scores of the queries' positives, NaN where there is none in a language (but one at least). A
    `relative` margin is a share of their magnitude.
    """
    best_B1 = np.nanmax(positives_BL, axis=1, keepdims=True)
    held_BL = np.where(np.isnan(positives_BL), best_B1, positives_BL)
    return np.asarray(held_BL - margin * (np.abs(held_BL) if relative else 1.0))
