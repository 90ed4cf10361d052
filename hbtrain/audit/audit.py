"""The audit of a configuration: what its batches are like and what a step needs, before anything is trained."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from hbtrain.audit.counts import Collisions, Counts, collisions, count
from hbtrain.audit.tokens import Tokens, count_tokens
from hbtrain.batching import BatchPlan, shard_sizes
from hbtrain.batching.offers import Offer
from hbtrain.config import Config, absolute_paths
from hbtrain.corpus import ParallelCorpus
from hbtrain.corpus.conflicts import Int64s
from hbtrain.errors import ConfigError, ModelError
from hbtrain.planning.estimate import Estimate, estimate

PLANNED_BATCHES, PLANNED_PAIRS = 500, 500_000
"""The most that are made in full to count collisions; a batch at least."""
TOKENIZED_BATCHES, TOKENIZED_PAIRS = 50, 20_000
"""The most whose texts are read and tokenized; a batch at least."""

Progress = Callable[[str, int, int], None]
"""Told what goes on, how much of it is done, and of how much."""


@dataclass(frozen=True)
class Audit:
    """What the plan of a configuration holds.

    Attributes:
        config: audited.
        counts: over all steps.
        collisions: {source: of sampled batches}.
        tokens: of sampled batches; None if they were not wanted.
        estimate: what a worker needs if every text is as long as may be; None where the backbone is not known here.
        measured: the same with the longest chunk of the sample; None without tokens.
        too_small: what has rows, but fewer than a batch, and is never drawn.
    """

    config: Config
    counts: Counts
    collisions: dict[str, Collisions]
    tokens: Tokens | None
    estimate: Estimate | None
    measured: Estimate | None
    too_small: tuple[Offer, ...]


def audit(
    config: Config,
    steps: int | None = None,
    sample: int = TOKENIZED_BATCHES,
    tokens: bool = True,
    progress: Progress | None = None,
) -> Audit:
    """Audit the batches of `config` without training anything.

    Args:
        config: of the run.
        steps: how many, from the first; by default all of the run.
        sample: the most batches that are tokenized.
        tokens: whether texts are tokenized at all.
        progress: told what goes on.

    Raises:
        HbtrainError: what is wrong with the configuration or the sources, in one line.
    """
    steps = config.training.steps if steps is None else steps
    if not 1 <= steps <= config.training.steps:
        raise ConfigError(f"--steps {steps}: the run has {config.training.steps} (training.steps); give 1 to that many")
    if sample < 1:
        raise ConfigError(f"--sample {sample}: must be 1 or more")
    config = absolute_paths(config)
    shard_sizes(config.batching.global_batch_size, config.resources.max_workers)
    at_most = estimate(config)
    corpus = ParallelCorpus.from_config(config)
    plan = BatchPlan.over(corpus, config)
    counts = count(plan, [source.index for source in corpus.sources.values()], steps)
    size = config.batching.global_batch_size
    found = collisions(plan, spread(steps, PLANNED_BATCHES, PLANNED_PAIRS // size))
    read = None
    if tokens:
        read = _tokens(plan, corpus, config, spread(steps, sample, TOKENIZED_PAIRS // size), progress)
    return Audit(
        config=config,
        counts=counts,
        collisions=found,
        tokens=read,
        estimate=at_most,
        measured=None if read is None or at_most is None else estimate(config, read.largest_graph),
        too_small=plan.catalogue.too_small,
    )


def spread(steps: int, *most: int) -> Int64s:
    """int64 [n]: as many steps of [0, steps) as the least of `most` allows, and one at least; evenly spread."""
    number = max(1, min(steps, *most))
    return (np.arange(number, dtype=np.int64) * steps) // number


def _tokens(
    plan: BatchPlan, corpus: ParallelCorpus, config: Config, steps: Int64s, progress: Progress | None
) -> Tokens:
    from hbtrain.modeling.tokens import tokenizer_of

    def tell(done: int, total: int) -> None:
        if progress is not None:
            progress("tokenizing batches", done, total)

    tell(0, len(steps))
    try:
        tokenizer = tokenizer_of(config.encoder, corpus.every_text)
    except ModelError as error:
        raise ModelError(f"{error}; --without-tokens audits the rest") from error
    return count_tokens(plan, corpus, tokenizer, config, steps, tell)
