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

**Rescoring.** A second model may score what the first one found: then its scores, of candidates and of positives,
decide the order and the margin. It finds nothing itself.

**Merging.** A training pair needs negatives in the language of its passage, whatever the language they were found with.
So what is chosen are passages, not texts: a passage's score is its best over the row's queries and its own languages;
it is too close if any of its texts that were found is; and it brings all its translations. Passages are sorted by
score, ties in the order of the pool. The first `skip_top` are passed over, those too close are dropped, and the next
`negatives` become the row's.

**Memory.** Vectors lie on disk (`pool_embeddings`) and are read a file at a time: 32,768 vectors, on a GPU the same. In
memory are the numbers of `PassagePool`, and `BLOCK_CANDIDATES` candidates of some rows at a time.

Shapes: B rows of a block (or its queries in one language), K candidates of a query, L languages, N texts of the pool,
D dimensions, n candidates of a whole block.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from itertools import zip_longest
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO, Literal, NamedTuple, Self, get_args

import numpy as np
import numpy.typing as npt

from hbtrain.corpus import ParallelCorpus, Source, source_path
from hbtrain.corpus.conflicts import Int64s
from hbtrain.errors import ConfigError, DataError
from hbtrain.formats.parallel import read_records
from hbtrain.retrieval.collection_search import SearchOptions, started
from hbtrain.retrieval.encoding import StoredEncoder
from hbtrain.retrieval.identities import PassagePool
from hbtrain.retrieval.pool_embeddings import PoolEmbeddings, Progress
from hbtrain.retrieval.rescoring import MiningWorker, PairScorer, PairScores
from hbtrain.retrieval.scores import Floats, similarities
from hbtrain.retrieval.top import NONE, Top, merge_top
from hbtrain.retrieval.workers import Factory

CandidateLanguages = Literal["same", "other", "both"]
MarginKind = Literal["absolute", "relative"]

BLOCK_ROWS = 8192  # the most rows mined at one time
BLOCK_CANDIDATES = 2_000_000  # the most candidates of the rows that are mined at one time: some 200 MB


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
    scores: list[float]  # of the row's own passage, then of each of the negatives


class Miner:
    """Encodes the passages and queries of a corpus, then mines negatives for one row after another.

    A context manager: its workers end with it. Of workers in this process nothing is left anyway.
    """

    def __init__(
        self,
        encoder: StoredEncoder,
        corpus: ParallelCorpus,
        options: MiningOptions,
        search: SearchOptions | None = None,
        progress: Progress | None = None,
        rescorer: StoredEncoder | PairScorer | None = None,
    ) -> None:
        """Encode what the cache lacks, which `progress` is told of, as it is of rows that are mined.

        Args:
            encoder: finds the candidates.
            corpus: whose passages are candidates for its rows.
            options: which of them become negatives.
            search: how they are encoded and searched; None: exactly, in this process, on the CPU.
            progress: called with what is done.
            rescorer: a second model that scores what `encoder` found.

        Raises:
            ConfigError: other languages are wanted and the corpus has only one, or the index does not fit.
            ModelError: an embedding holds NaN or infinity.
            StorageError: the cache cannot be written.
        """
        if options.languages == "other" and len(corpus.languages) == 1:
            raise ConfigError(f"--languages other: the sources have {corpus.languages[0]} only; use same")
        self._options = options
        self._progress = progress
        self._search = search = search or SearchOptions()
        self._sources = list(corpus.sources.values())
        self.pool = PassagePool(corpus)
        with ExitStack() as stack:
            start = stack.enter_context(started(search))
            given = self.pool, self._sources, search, start, progress
            self._found = PoolEmbeddings(encoder, *given)
            pairs = rescorer if isinstance(rescorer, PairScorer) else None
            self._second: PoolEmbeddings | PairScores | None = None
            if rescorer is not None and not isinstance(rescorer, PairScorer):
                self._second = PoolEmbeddings(rescorer, *given)
            ways = search.index, search.parameters, search.seed, self._found.similarity
            load = None if pairs is None else pairs.loader(anew=search.actors > 0 or len(search.devices) > 1)
            factories: list[Factory] = [
                partial(MiningWorker, part, ways, load) for part in self._found.parts(search, pairs is not None)
            ]
            self._workers = stack.enter_context(start(factories))
            if pairs is not None:
                self._second = PairScores(self.pool, self._sources, self._workers)
            self._stack = stack.pop_all()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.close()

    @property
    def rescored(self) -> bool:
        """Whether a second model gives the scores."""
        return self._second is not None

    def rows(self, source: Source) -> Iterator[MinedRow]:
        """The negatives of every row of a source, in the order of the rows."""
        numbers = self.pool.rows_of(source)
        most = BLOCK_CANDIDATES // (self._options.depth * len(self.pool.languages))
        step = max(1, min(BLOCK_ROWS, most))
        for first in range(0, len(numbers), step):
            rows = range(first, min(first + step, len(numbers)))
            yield from self._mined(self._sources.index(source), rows, numbers.start)
            if self._progress is not None:
                self._progress(f"rows of {source.name}", rows.stop, len(numbers))

    def _mined(self, source: int, rows: range, start: int) -> list[MinedRow]:
        positive_R = np.full(len(rows), -np.inf)
        parts = [Candidates.none()]
        for code, (asking_B, top) in self._best(source, rows).items():
            held_BL = self._positives(source, code, asking_B, self.pool.row_texts[start + asking_B])
            searched = self._searched(code)
            place_B = asking_B - rows.start
            positive_R[place_B] = np.maximum(positive_R[place_B], held_BL[:, searched].max(axis=1))
            scores_BK = similarities(top.scores, self._found.similarity)
            owner_n, text_n = np.repeat(asking_B, top.places.shape[1]), top.places.ravel()
            found = Candidates(owner_n, text_n, scores_BK.ravel(), np.zeros(len(text_n), bool)).at(text_n != NONE)
            found = found.at(~self.pool.is_own(start + found.row, found.text))
            if self._second is not None:
                found = found._replace(score=self._second.score(source, code, found.row, found.text))
            allowed_BL = highest_allowed(held_BL, self._options.margin, self._options.margin_kind == "relative")
            at_n = np.searchsorted(asking_B, found.row), self.pool.language[found.text]
            parts.append(found._replace(row=found.row - rows.start, too_close=found.score > allowed_BL[at_n]))
        return self._choose(Candidates.joined(parts), positive_R)

    def _best(self, source: int, rows: range) -> Mapping[int, tuple[Int64s, Top]]:
        """{code of a language: (rows that have a query in it, their best candidates)}; scores are inner products."""
        asked = {code: self._found.queries(source, code, rows) for code in range(len(self.pool.languages))}
        asked = {code: (rows_B, q_BD) for code, (rows_B, q_BD) in asked.items() if len(rows_B)}
        found: dict[int, tuple[Int64s, Top]] = {}
        # What searches the same languages does so at once: then the pool is read once for all of them.
        for searched in dict.fromkeys(tuple(self._searched(code)) for code in asked):
            codes = [code for code in asked if tuple(self._searched(code)) == searched]
            q_BD = np.concatenate([asked[code][1] for code in codes])
            best = merge_top(
                self._workers.call_all("nearest", q_BD, searched, self._options.depth), self._options.depth
            )
            stops = np.cumsum([len(asked[code][0]) for code in codes])[:-1]
            parts = zip(codes, np.split(best.scores, stops), np.split(best.places, stops), strict=True)
            found |= {code: (asked[code][0], Top(scores, places)) for code, scores, places in parts}
        return {code: found[code] for code in asked}

    def _searched(self, code: int) -> list[int]:
        """Codes of the languages in which candidates for queries in a language are sought."""
        everything = range(len(self.pool.languages))
        if self._options.languages == "same":
            return [code]
        return [other for other in everything if other != code or self._options.languages == "both"]

    def _positives(self, source: int, code: int, rows_B: Int64s, texts_BL: Int64s) -> Doubles:
        """[B, L] the score that candidates in each language are compared with."""
        scores_BL = np.full(texts_BL.shape, np.nan)
        place_n, language_n = np.nonzero(texts_BL >= 0)
        by = self._second or self._found
        scores_BL[place_n, language_n] = by.score(source, code, rows_B[place_n], texts_BL[place_n, language_n])
        if self._sources[source].index.sentences:
            _drop_copies(scores_BL, code)
        best_B1 = np.nanmax(scores_BL, axis=1, keepdims=True)
        return np.where(np.isnan(scores_BL), best_B1, scores_BL)

    def _choose(self, found: Candidates, positive_R: Doubles) -> list[MinedRow]:
        """Merge what the queries of each of the block's rows found, and take the best."""
        rows = len(positive_R)
        ranked = found.merged(self.pool.identity[found.text]).ranked()
        reached = ranked.at(ranked.ranks() >= self._options.skip_top)
        dropped = np.bincount(reached.row[reached.too_close], minlength=rows)
        allowed = reached.at(~reached.too_close)
        chosen = allowed.at(allowed.ranks() < self._options.negatives)
        bounds = np.searchsorted(chosen.row, np.arange(rows + 1)).tolist()
        negatives, scores = self.pool.translations(chosen.text), chosen.score.tolist()
        return [
            MinedRow(negatives[start:stop], close, [positive, *scores[start:stop]])
            for start, stop, close, positive in zip(
                bounds[:-1], bounds[1:], dropped.tolist(), positive_R.tolist(), strict=True
            )
        ]


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
            record = _with_negatives(read, mined, prefix, miner.rescored)
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


def _with_negatives(record: dict[str, Any], mined: MinedRow, prefix: str, scored: bool) -> dict[str, Any]:
    for old in ("negatives", "scores"):
        record.pop(old, None)
    if prefix:
        record |= {key: f"{prefix}{record[key]}" for key in ("id", "passage_id") if key in record}
    if not mined.negatives:
        return record
    scores = {"scores": [float(f"{score:.7g}") for score in mined.scores]} if scored else {}
    return record | {"negatives": mined.negatives} | scores


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


def highest_allowed(held_BL: Doubles, margin: float, relative: bool) -> Doubles:
    """[B, L] the highest score that a candidate in each language may have.

    `held_BL` are the scores of the queries' positives; a `relative` margin is a share of their magnitude.
    """
    return np.asarray(held_BL - margin * (np.abs(held_BL) if relative else 1.0))
