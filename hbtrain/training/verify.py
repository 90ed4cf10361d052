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
from hbtrain.batching.companions import Companions, translated_passages, translated_queries
from hbtrain.batching.switching import Switcher
from hbtrain.config import Config
from hbtrain.config.encoder import Precision
from hbtrain.corpus import ParallelCorpus
from hbtrain.modeling.encoder import Encoder, Side
from hbtrain.modeling.gather import SingleProcess
from hbtrain.modeling.loss_inputs import Owners, References
from hbtrain.training.batch_texts import BatchTexts
from hbtrain.training.export import load_for_training, trainable
from hbtrain.training.feed import on_device
from hbtrain.training.frozen_models import FrozenModels
from hbtrain.training.gradients import without_dropout
from hbtrain.training.loop import Trainer
from hbtrain.training.plain_loss import WholeBatch, plain_total
from hbtrain.training.worker import Worker

Gradient = dict[str, Tensor]  # {name of a trained parameter: its gradient, flat, float32, on the CPU}

NONE = Companions(np.zeros(0, np.int64), np.zeros(0, np.int64))

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
    plan = BatchPlan.over(corpus, config)
    batch, loss = plan.batch(step), config.loss
    source, switcher = corpus.sources[batch.source], Switcher.from_config(config)
    queries = source.texts("query", batch.rows, batch.query_languages)
    passages = source.texts("passage", batch.rows, batch.passage_languages)
    chosen = (batch.rows, batch.passage_languages, loss.hard_negatives, step)
    translations = translated_passages(batch, source.index, loss.translations, config.seed)
    others = translated_queries(batch, source.index, config.seed) if loss.needs_translated_queries else NONE

    def translated(side: Side, drawn: Companions) -> list[str]:
        return source.texts(side, batch.rows[drawn.owners], [batch.languages[code] for code in drawn.codes.tolist()])

    texts: list[tuple[Side, list[str]]] = [
        ("query", switcher.of_batch(batch, "query", queries)),
        ("passage", switcher.of_batch(batch, "passage", passages)),
        ("passage", switcher.of_batch(batch, "negative", source.negatives(*chosen))),
        ("passage", translated("passage", translations)),
        ("query", translated("query", others)),
    ]
    counts = source.negative_counts(*chosen[:2]).clip(max=loss.hard_negatives)
    owners = np.repeat(np.arange(len(batch)), counts), translations.owners, others.owners
    features = [encoder.tokenize(of_side, side) for side, of_side in texts if of_side]
    vectors, scale = module([{k: v.to(encoder.device) for k, v in x.items()} for x in features])
    x_ND = torch.cat(vectors)
    q_BD, p_BD, n_MD, t_KD, u_OD = x_ND.split([len(of_side) for _, of_side in texts])
    ids = [batch.passage_ids, source.negative_ids(*chosen), batch.passage_ids[translations.owners]]
    whole = WholeBatch(
        q_BD,
        torch.cat([p_BD, n_MD, t_KD]),
        u_OD,
        1 / loss.temperature if scale is None else scale,
        torch.from_numpy(batch.query_ids).to(x_ND.device),
        torch.from_numpy(np.concatenate(ids)).to(x_ND.device),
        Owners(*(torch.from_numpy(x).to(x_ND.device) for x in owners)),
        _references(config, plan, corpus, step, x_ND.device),
    )
    return plain_total(whole, loss, step)


def _references(config: Config, plan: BatchPlan, corpus: ParallelCorpus, step: int, device: torch.device) -> References:
    """What guide and teacher say of the whole batch of a step, from the store that training reads."""
    frozen = FrozenModels(config, SingleProcess(), device)
    frozen.prepare(plan, corpus, range(step, step + 1))
    batch = plan.batch(step)
    source = corpus.sources[batch.source]
    own = BatchTexts.of(batch, source, config.loss, config.seed)
    found = frozen.references(batch, source, own, own.read(source), own.sizes([len(batch)]))
    return References(on_device(found.guide, device), on_device(found.teacher, device))
