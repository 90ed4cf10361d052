"""The audit of a configuration: what its batches are like and what a step needs, before anything is trained."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import numpy as np

from hbtrain.audit.counts import Collisions, Counts, collisions, count
from hbtrain.audit.tokens import Tokens, count_tokens
from hbtrain.batching import BatchPlan, shard_sizes
from hbtrain.batching.offers import Offer
from hbtrain.config import Config, absolute_paths
from hbtrain.corpus import ParallelCorpus
from hbtrain.corpus.conflicts import Int64s
from hbtrain.corpus.data_sets import Notify
from hbtrain.corpus.parallel import fetch_sources
from hbtrain.errors import ConfigError, ModelError
from hbtrain.planning.estimate import Estimate, estimate

PLANNED_BATCHES, PLANNED_PAIRS = 500, 500_000
"""The most batches, and pairs in them, in which collisions are counted; at least one batch."""
TOKENIZED_BATCHES, TOKENIZED_PAIRS = 50, 20_000
"""The most batches, and pairs in them, whose texts are tokenized; at least one batch."""

Progress = Callable[[str, int, int], None]
"""Called with what is being done, how much of it is done, and how much there is."""


@dataclass(frozen=True)
class Audit:
    """What the batches of a configuration are like."""

    config: Config
    counts: Counts  # of all steps
    collisions: dict[str, Collisions]  # {source: collisions in sampled batches}
    tokens: Tokens | None  # of sampled batches; None if texts were not tokenized
    # what a worker needs if every text is as long as its limit; None if the backbone's sizes are not known
    estimate: Estimate | None
    measured: Estimate | None  # the same for the longest chunk of the sample; None if texts were not tokenized
    too_small: tuple[Offer, ...]  # what a source offers in fewer rows than a batch, so that it is never drawn


def audit(
    config: Config,
    steps: int | None = None,
    sample: int = TOKENIZED_BATCHES,
    tokens: bool = True,
    progress: Progress = lambda what, done, total: None,
    notify: Notify = lambda text: None,
) -> Audit:
    """Audit the batches of the first `steps` steps (None: all) without training anything.

    At most `sample` batches are tokenized, which `progress` is told of; without `tokens` none. `notify` is told which
    sources are fetched.

    Raises:
        HbtrainError: something is wrong with the configuration or the sources.
    """
    steps = config.training.steps if steps is None else steps
    if not 1 <= steps <= config.training.steps:
        raise ConfigError(f"--steps {steps}: the run has {config.training.steps} (training.steps); give 1 to that many")
    if sample < 1:
        raise ConfigError(f"--sample {sample}: must be 1 or more")
    config = absolute_paths(config)
    shard_sizes(config.batching.global_batch_size, config.resources.max_workers)
    at_most = estimate(config)
    fetch_sources(config.data.sources, config.data, notify)
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
    """int64 [n]: steps of [0, steps), evenly spaced; n is the least of `steps` and `most`, but at least 1."""
    number = max(1, min(steps, *most))
    return (np.arange(number, dtype=np.int64) * steps) // number


def _tokens(plan: BatchPlan, corpus: ParallelCorpus, config: Config, steps: Int64s, progress: Progress) -> Tokens:
    from hbtrain.modeling.tokens import tokenizer_of

    tell = partial(progress, "tokenizing batches")
    tell(0, len(steps))
    try:
        tokenizer = tokenizer_of(config.encoder, corpus.every_text, config.resources.use_gpu)
    except ModelError as error:
        raise ModelError(f"{error}; --without-tokens audits the rest") from error
    return count_tokens(plan, corpus, tokenizer, config, steps, tell)
