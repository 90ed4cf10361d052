"""Counting the tokens of sampled batches, prepared as in training: by language, with padding, at the limit."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from hbtrain.batching import BatchPlan, GlobalBatch
from hbtrain.batching.switching import Switcher
from hbtrain.config import Config
from hbtrain.corpus import ParallelCorpus
from hbtrain.corpus.conflicts import Int64s

if TYPE_CHECKING:
    from hbtrain.modeling.tokens import Tokenizes
    from hbtrain.training.feed import Work


@dataclass
class Texts:
    """Texts of one side in one language."""

    texts: int = 0
    tokens: int = 0  # of all of them, prefix and special tokens included, after cutting
    at_limit: int = 0  # texts that reach the token limit of their side; most of them were cut


@dataclass
class Tokens:
    """Counts over sampled batches, of each batch the part of one rank; ranks take turns."""

    batches: int = 0  # how many were looked at
    workers: int = 1
    pairs: int = 0  # in the parts that were looked at
    tokens: int = 0  # without padding, hard negatives included
    computed: int = 0  # tokens with padding, hard negatives included
    unsorted: int = 0  # `computed`, if texts were not sorted by length
    largest_graph: int = 0  # the most tokens, with padding, that have a graph at one time
    words: int = 0  # in the texts of `switched` batches whose words are replaced
    known_words: int = 0  # those of them that the lexicons know
    queries: dict[str, Texts] = field(default_factory=dict)  # {language: texts}
    passages: dict[str, Texts] = field(default_factory=dict)  # {language: texts}, without hard negatives

    @property
    def tokens_per_pair(self) -> float:
        return self.tokens / self.pairs

    @property
    def padding_share(self) -> float:
        """The share of padding in the computed tokens."""
        return 1.0 - self.tokens / self.computed

    @property
    def unsorted_padding_share(self) -> float:
        """The share of padding, if texts were not sorted by length."""
        return 1.0 - self.tokens / self.unsorted


def count_tokens(
    plan: BatchPlan,
    corpus: ParallelCorpus,
    tokenizer: Tokenizes,
    config: Config,
    steps: Int64s,
    progress: Callable[[int, int], None],
) -> Tokens:
    """Prepare the batches of `steps` (int64 [n]) as training does, each for one rank, and count their tokens.

    Raises:
        DataError: a text cannot be read.
    """
    import torch

    from hbtrain.training.chunks import padded_tokens
    from hbtrain.training.feed import Feed

    workers, switcher = config.resources.max_workers, Switcher.from_config(config)
    device = torch.device("cuda" if config.resources.use_gpu else "cpu")  # where training computes, not the audit
    found = Tokens(workers=workers)
    for i, step in enumerate(steps.tolist()):
        rank = i % workers
        work = Feed(plan, corpus, tokenizer, config, rank, workers, switcher, device).work(step)
        found.batches += 1
        found.pairs += work.sizes.pairs[rank]
        found.tokens += work.tokens
        found.computed += work.computed_tokens
        found.unsorted += sum(side["input_ids"].numel() for side in work.sides if side is not None)
        found.largest_graph = max(found.largest_graph, *map(padded_tokens, work.chunks))
        _add_languages(found, work, config, rank)
        _add_words(found, work.batch.shard(rank, workers), corpus, switcher)
        progress(i + 1, len(steps))
    return found


def _add_words(found: Tokens, shard: GlobalBatch, corpus: ParallelCorpus, switcher: Switcher) -> None:
    if shard.kind != "switched":
        return
    source = corpus.sources[shard.source]
    for words, known in (
        switcher.coverage(shard, "query", source.texts("query", shard.rows, shard.query_languages)),
        switcher.coverage(shard, "passage", source.texts("passage", shard.rows, shard.passage_languages)),
    ):
        found.words += words
        found.known_words += known


def _add_languages(found: Tokens, work: Work, config: Config, rank: int) -> None:
    from hbtrain.modeling.features import token_counts

    shard = work.batch.shard(rank, found.workers)
    limits = config.encoder.max_query_tokens, config.encoder.max_passage_tokens
    places = (found.queries, shard.query_languages), (found.passages, shard.passage_languages)
    for (by_language, languages), side, limit in zip(places, work.sides, limits, strict=False):
        if side is None:
            continue
        for language, tokens in zip(languages, token_counts(side).tolist(), strict=True):
            one = by_language.setdefault(language, Texts())
            one.texts += 1
            one.tokens += tokens
            one.at_limit += tokens >= limit
