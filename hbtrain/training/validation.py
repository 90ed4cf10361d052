"""Validation: the loss on fixed batches of a source that is not trained on."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from hbtrain.batching import BatchPlan
from hbtrain.config import Config, override
from hbtrain.config.batching import SwitchingConfig
from hbtrain.corpus import ParallelCorpus
from hbtrain.errors import DataError
from hbtrain.modeling.gather import Group


def validation_plan(config: Config, corpus: ParallelCorpus) -> BatchPlan:
    """The plan of the validation batches, of the same kinds as in training as far as the source's languages allow.

    A source smaller than a batch is validated in batches of its own size. With one training language, or where
    training has `switched` batches and lexicons lead from none of the languages, it has only monolingual batches.

    Raises:
        DataError: the source shares no language with training, or cannot fill the batches.
    """
    (source,) = corpus.sources.values()
    training = config.data.languages or source.index.languages
    weights = config.batching.language_weights
    languages = [x for x in training if x in source.index.languages and weights.get(x, 1.0) > 0]
    if not languages:
        raise DataError(
            f"data.validation: source {source.name} has {', '.join(source.index.languages)}, "
            f"none of the training languages {', '.join(training)}"
        )
    changes: dict[str, object] = {
        "batching.global_batch_size": min(config.batching.global_batch_size, source.index.rows),
        "batching.language_weights": {x: weight for x, weight in weights.items() if x in languages},
        "batching.source_weights": {},  # of other sources
        "data.languages": languages,
    }
    switched = "switched" in config.batching.kinds
    if switched:
        changes["batching.switching.lexicons"] = _leading_from(languages, config.batching.switching)
    if len(languages) == 1 or (switched and not changes["batching.switching.lexicons"]):
        changes |= {"batching.mode": "monolingual", "batching.mixture": None}
    try:
        return BatchPlan.over(corpus, override(config, changes))
    except DataError as error:
        raise DataError(f"data.validation: {error}") from error


def _leading_from(languages: Sequence[str], switching: SwitchingConfig) -> dict[str, str]:
    pairs = zip(switching.pairs, switching.lexicons.items(), strict=True)
    return {name: file for (x, _), (name, file) in pairs if x in languages}


def mean_over_ranks(losses: list[torch.Tensor], group: Group) -> float:
    """The mean loss of several global batches, from this rank's part of the loss of each; collective."""
    total = group.all_reduce_sum(torch.stack([loss.detach().float() for loss in losses]))
    return float(total.mean()) / group.world_size
