"""Verifying the gradient of a configuration's workers, ZeRO stage, chunks and precision against a plain computation.

The plain computation shares as little code as possible with training: one process, the whole batch at once, the full
score matrix, terms of the loss written row by row (`hbtrain.training.plain_loss`), no DeepSpeed, no gathering, no
chunks. Gradients are compared rather than losses or weights: Adam hides a wrong factor, and a loss can be right while
its gradient points elsewhere. Dropout is off on both sides, as its random numbers depend on the number of ranks and
chunks.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from hbtrain.batching import BatchPlan
from hbtrain.batching.switching import Switcher
from hbtrain.config import Config
from hbtrain.config.encoder import Precision
from hbtrain.corpus import ParallelCorpus
from hbtrain.modeling.encoder import Encoder
from hbtrain.modeling.loss_inputs import Owners, References
from hbtrain.training.export import load_for_training, trainable
from hbtrain.training.gradients import without_dropout
from hbtrain.training.loop import Trainer
from hbtrain.training.plain_loss import WholeBatch, plain_total
from hbtrain.training.worker import Worker

Gradient = dict[str, Tensor]  # {name of a trained parameter: its gradient, flat, float32, on the CPU}

TOLERANCE: dict[Precision, float] = {"fp32": 1e-5, "bf16": 2e-2}
"""How far norm ratio and cosine may be from 1. A number in bf16 has 8 significant bits, an error of up to 0.4 %."""


@dataclass(frozen=True)
class Agreement:
    """How a gradient compares with the plain one."""

    norm_ratio: float  # norm of the gradient / norm of the plain one
    cosine: float  # cosine of the angle between both
    # largest absolute difference of a component / largest absolute component of the plain one
    largest_difference: float
    tolerance: float  # allowed distance of `norm_ratio` and `cosine` from 1

    @property
    def holds(self) -> bool:
        """Whether both agree within the tolerance."""
        return abs(self.norm_ratio - 1) <= self.tolerance and abs(self.cosine - 1) <= self.tolerance


def compare(got: Gradient, plain: Gradient, precision: Precision) -> Agreement:
    """Compare two gradients of the same parameters; a parameter that one of them lacks counts as zero there."""
    names = sorted(got.keys() | plain.keys())

    def flat(gradient: Gradient) -> Tensor:
        other = plain if gradient is got else got
        return torch.cat([gradient[n] if n in gradient else torch.zeros_like(other[n]) for n in names]).double()

    g, p = flat(got), flat(plain)
    return Agreement(
        norm_ratio=float(g.norm() / p.norm()),
        cosine=float(g @ p / (g.norm() * p.norm())),
        largest_difference=float((g - p).abs().max() / p.abs().max()),
        tolerance=TOLERANCE[precision],
    )


def trained_gradient(config: Config, worker: Worker, step: int) -> Gradient:
    """The gradient of a step as in training, averaged over ranks, before clipping; collective."""
    from deepspeed.utils import safe_get_full_grad

    trainer = Trainer(config, worker)
    trainer.prepare(range(step, step + 1))
    trainer.module.train()
    with without_dropout(trainer.module):
        for work in trainer.feed.steps(step, step + 1):
            trainer.backward(work)
    gradient = {}
    for name, parameter in trainer.module.named_parameters():
        if parameter.requires_grad:
            whole = parameter.grad if trainer.engine.zero_stage == 0 else safe_get_full_grad(parameter)
            if whole is not None:
                gradient[name] = whole.detach().float().flatten().cpu()
    return gradient


def plain_gradient(config: Config, initial_model: Path, step: int, device: torch.device) -> Gradient:
    """The gradient of a step by autograd over the full score matrix, in this process."""
    encoder = load_for_training(config, initial_model)
    corpus = ParallelCorpus.from_config(config)
    module = trainable(encoder, config).to(device).train()
    if config.encoder.precision == "bf16":
        module.bfloat16()
    with without_dropout(module):
        plain_loss(config, encoder, module, corpus, step).backward()
    return {n: p.grad.float().flatten().cpu() for n, p in module.named_parameters() if p.grad is not None}


def plain_loss(config: Config, encoder: Encoder, module: nn.Module, corpus: ParallelCorpus, step: int) -> Tensor:
    """The loss of a step over the whole global batch at once (see `hbtrain.training.plain_loss`)."""
    batch = BatchPlan.over(corpus, config).batch(step)
    source, switcher = corpus.sources[batch.source], Switcher.from_config(config)
    queries = source.texts("query", batch.rows, batch.query_languages)
    passages = source.texts("passage", batch.rows, batch.passage_languages)
    texts = [
        (switcher.of_batch(batch, "query", queries), "query"),
        (switcher.of_batch(batch, "passage", passages), "passage"),
    ]
    candidate_ids, negative_owners = torch.from_numpy(batch.passage_ids), np.zeros(0, np.int64)
    if config.loss.hard_negatives:
        chosen = (batch.rows, batch.passage_languages, config.loss.hard_negatives, step)
        if negatives := source.negatives(*chosen):
            texts.append((switcher.of_batch(batch, "negative", negatives), "passage"))
            candidate_ids = torch.cat([candidate_ids, torch.from_numpy(source.negative_ids(*chosen))])
            counts = source.negative_counts(*chosen[:2]).clip(max=config.loss.hard_negatives)
            negative_owners = np.repeat(np.arange(len(batch)), counts)
    features = [encoder.tokenize(of_side, side) for of_side, side in texts]  # type: ignore[arg-type]
    (q_BD, *candidates), scale = module([{k: v.to(encoder.device) for k, v in x.items()} for x in features])
    c_CD = torch.cat(candidates)
    nothing = np.zeros(0, np.int64)
    whole = WholeBatch(
        q_BD,
        c_CD,
        q_BD[:0],
        1 / config.loss.temperature if scale is None else scale,
        torch.from_numpy(batch.query_ids).to(q_BD.device),
        candidate_ids.to(q_BD.device),
        Owners(*(torch.from_numpy(x).to(q_BD.device) for x in (negative_owners, nothing, nothing))),
        References(),
    )
    return plain_total(whole, config.loss, step)
