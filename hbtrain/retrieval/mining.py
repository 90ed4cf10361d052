"""Hard negatives, mined with an earlier model: passages that it ranks high for a row's queries though they are not its
answer.

**Candidates.** For each language x in which a row has a query, the `depth` best passages of the pool: those in x
(`same`), in all languages but x (`other`), or in all (`both`). The row's own passage is taken out, and with it the
passages of every row that has the same question; see `PassagePool` for what is the same.

**Margin against false negatives** (NV-Retriever, arXiv 2407.15831). A candidate in language y is too close if its score
exceeds the positive's less the margin, `absolute` (s+ - margin) or `relative` (s+ - margin * |s+|). The positive is the
row's passage in the same language y, since models score some pairs of languages higher than others. A candidate in a
language that the row's passage lacks is held against the best of the row's, and so is one in the language of a parallel
sentence, which as its own positive would score 1.

**Merging.** A training pair wants negatives in the language of its passage, whatever the language it was found with. So
what is chosen are passages, not texts: a passage's score is its best over the row's queries and its own languages, it
is too close if a text of it that was found is, and it brings all its translations. Of these, best first, ties in the
order of the pool, the first `skip_top` are passed over and those too close dropped; the next `negatives` are the row's.

Shapes: B rows of a block, K candidates of a query, L languages, N texts of the pool, D dimensions.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple, get_args

import numpy as np

from hbtrain.corpus import ParallelCorpus, Source
from hbtrain.corpus.conflicts import Int64s
from hbtrain.errors import ConfigError, ModelError
from hbtrain.modeling.encoder import Encoder, Side
from hbtrain.retrieval.candidates import Candidates, Doubles, highest_allowed
from hbtrain.retrieval.identities import PassagePool
from hbtrain.retrieval.scores import Floats
from hbtrain.retrieval.top import top_scores

CandidateLanguages = Literal["same", "other", "both"]
MarginKind = Literal["absolute", "relative"]
Progress = Callable[[str, int, int], None]
"""Called with what is being done, how much of it is done, and how much there is."""

BLOCK_ROWS = 1024
"""Rows mined at one time."""
BLOCK_TEXTS = 8192
"""Passages read from disk at one time."""


@dataclass(frozen=True)
class MiningOptions:
    """What is a hard negative; the head of this file says how they are used.

    Raises:
        ConfigError: a value that cannot be used, by its name on the command line.
    """

    negatives: int = 8
    languages: str = "same"
    margin: float = 0.05
    margin_kind: str = "absolute"
    skip_top: int = 0
    depth: int = 100

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
    """The outcome for one row."""

    negatives: list[dict[str, str]]
    """Best first; each in all languages that it has."""
    too_close: int
    """Passages dropped by the margin."""


class Miner:
    """Embeds the passages of a corpus once, then mines row by row.

    In memory: the embeddings (N x D x 4 bytes) and the pool's numbers.
    """

    def __init__(
        self,
        encoder: Encoder,
        corpus: ParallelCorpus,
        options: MiningOptions,
        batch_size: int = 128,
        progress: Progress | None = None,
    ) -> None:
        """Args: `batch_size`, texts embedded at one time; `progress`, told of the passages, then of the rows.

        Raises:
            ConfigError: other languages are wanted and the corpus has only one.
            ModelError: an embedding holds NaN or infinity.
        """
        import torch

        if options.languages == "other" and len(corpus.languages) == 1:
            raise ConfigError(f"--languages other: the sources have {corpus.languages[0]} only; use same")
        self._encoder = encoder
        self._options = options
        self._batch_size = batch_size
        self._progress = progress
        self.pool = PassagePool(corpus)
        self._p_ND = self._embed_pool()
        self._on_device = torch.from_numpy(self._p_ND).to(encoder.device)

    def rows(self, source: Source) -> Iterator[MinedRow]:
        """The negatives of every row of a source of the corpus, in its order."""
        numbers = self.pool.rows_of(source)
        for first in range(0, len(numbers), BLOCK_ROWS):
            rows = np.arange(first, min(first + BLOCK_ROWS, len(numbers)), dtype=np.int64)
            parts = [self._candidates(source, rows, numbers.start, code) for code in range(len(self.pool.languages))]
            yield from self._choose(Candidates.joined(parts), len(rows))
            self._tell(f"rows of {source.name}", first + len(rows), len(numbers))

    def _candidates(self, source: Source, rows: Int64s, start: int, code: int) -> Candidates:
        """What the rows' queries in one language find."""
        language = self.pool.languages[code]
        index = source.index
        if language not in index.languages:
            return Candidates.none()
        has = index.query_patterns[index.patterns_of(rows), index.languages.index(language)]
        asking = np.flatnonzero(has)
        if not len(asking):
            return Candidates.none()
        q_BD = self._embed(source.texts("query", rows[asking], [language] * len(asking)), "query")
        scores_BK, texts_BK = top_scores(q_BD, self._on_device, self._spans(code), self._options.depth)
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
            scores_BL[has, code] = np.einsum("bd,bd->b", q_BD[has], self._p_ND[texts[has]])
        return scores_BL

    def _choose(self, found: Candidates, rows: int) -> list[MinedRow]:
        """Merge what the queries of each of the block's rows found, and take the best."""
        ranked = found.merged(self.pool.identity[found.text]).ranked()
        reached = ranked.at(ranked.ranks() >= self._options.skip_top)
        dropped = np.bincount(reached.row[reached.too_close], minlength=rows)
        kept = reached.at(~reached.too_close)
        chosen = kept.at(kept.ranks() < self._options.negatives)
        bounds = np.searchsorted(chosen.row, np.arange(rows + 1))
        negatives = self.pool.translations(chosen.text)
        return [
            MinedRow(negatives[start:stop], close)
            for start, stop, close in zip(bounds[:-1].tolist(), bounds[1:].tolist(), dropped.tolist(), strict=True)
        ]

    def _embed_pool(self) -> Floats:
        p_ND = np.empty((len(self.pool), self._encoder.dimension), np.float32)
        for start in range(0, len(p_ND), BLOCK_TEXTS):
            places = np.arange(start, min(start + BLOCK_TEXTS, len(p_ND)))
            p_ND[places] = self._embed(self.pool.texts(places), "passage")
            self._tell("passages", start + len(places), len(p_ND))
        return p_ND

    def _embed(self, texts: Sequence[str], side: Side) -> Floats:
        vectors = self._encoder.encode(texts, side, batch_size=self._batch_size)
        broken = np.flatnonzero(~np.isfinite(vectors).all(axis=1))
        if len(broken):
            raise ModelError(
                f"the embedding of {side} {texts[broken[0]][:60]!r} holds NaN or infinity: training has diverged or "
                "the precision is too low; use an earlier checkpoint"
            )
        return vectors

    def _tell(self, what: str, done: int, total: int) -> None:
        if self._progress is not None:
            self._progress(what, done, total)


def _drop_copies(positives_BL: Doubles, code: int) -> None:
    """Take a sentence's own text out of its positives, where it has translations."""
    translated = np.isfinite(positives_BL).sum(axis=1) > 1
    positives_BL[translated, code] = np.nan
