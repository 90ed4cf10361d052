"""Verifying the gradient of a configuration's workers, ZeRO stage, chunks and precision against a plain computation.

The plain computation shares as little code as possible with training: one process, the whole batch at once, the full
score matrix, PyTorch's cross-entropy, no DeepSpeed, no gathering, no chunks. Gradients are compared rather than losses
or weights: Adam hides a wrong factor, and a loss can be right while its gradient points elsewhere. Dropout is off on
both sides, as its random numbers depend on the number of ranks and chunks.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, normalize

from hbtrain.batching import BatchPlan
from hbtrain.batching.switching import Switcher
from hbtrain.config import Config
from hbtrain.config.encoder import Precision
from hbtrain.corpus import ParallelCorpus
from hbtrain.modeling.encoder import Encoder
from hbtrain.training.export import load_for_training, trainable
from hbtrain.training.gradients import without_dropout
from hbtrain.training.loop import Trainer
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
    """The loss of a step over the whole global batch at once (InfoNCE, see `hbtrain.modeling.loss`)."""
    batch = BatchPlan.over(corpus, config).batch(step)
    source, switcher = corpus.sources[batch.source], Switcher.from_config(config)
    queries = source.texts("query", batch.rows, batch.query_languages)
    passages = source.texts("passage", batch.rows, batch.passage_languages)
    texts = [
        (switcher.of_batch(batch, "query", queries), "query"),
        (switcher.of_batch(batch, "passage", passages), "passage"),
    ]
    candidate_ids = torch.from_numpy(batch.passage_ids)
    if config.loss.hard_negatives:
        chosen = (batch.rows, batch.passage_languages, config.loss.hard_negatives, step)
        if negatives := source.negatives(*chosen):
            texts.append((switcher.of_batch(batch, "negative", negatives), "passage"))
            candidate_ids = torch.cat([candidate_ids, torch.from_numpy(source.negative_ids(*chosen))])
    features = [encoder.tokenize(of_side, side) for of_side, side in texts]  # type: ignore[arg-type]
    (q_BD, *candidates), scale = module([{k: v.to(encoder.device) for k, v in x.items()} for x in features])
    c_CD = torch.cat(candidates)
    scale = 1 / config.loss.temperature if scale is None else scale
    count = len(batch)
    query_ids = torch.from_numpy(batch.query_ids)
    same_BC = candidate_ids[:count, None] == candidate_ids
    same_BC[:, :count] |= query_ids[:, None] == query_ids
    same_BC[range(count), range(count)] = False
    same_BC, target_B = same_BC.to(q_BD.device), torch.arange(count, device=q_BD.device)
    losses = []
    for d in (*(d for d in config.loss.matryoshka_dimensions if d < q_BD.shape[1]), q_BD.shape[1]):
        q_Bd, c_Cd = normalize(q_BD[:, :d], dim=1), normalize(c_CD[:, :d], dim=1)
        scores_BC = (q_Bd @ c_Cd.T * scale).masked_fill(same_BC, float("-inf"))
        loss = cross_entropy(scores_BC, target_B)
        if config.loss.symmetric:
            back_BB = (c_Cd[:count] @ q_Bd.T * scale).masked_fill(same_BC[:, :count], float("-inf"))
            loss = (loss + cross_entropy(back_BB, target_B)) / 2
        losses.append(loss)
    return torch.stack(losses).mean()
