"""The loss of a step and its gradient: with the whole graph, or chunk by chunk (gradient cache, arXiv 2101.06983).

The gradient cache embeds all chunks without a graph, takes the loss's gradient by the embeddings, then embeds each
chunk again with its graph and back-propagates that gradient: the memory of one chunk, and the same result, for the
loss depends on the encoder through the embeddings alone. Random numbers (dropout) are drawn again the same, because
each chunk seeds them from (seed, step, rank, chunk); so there is no random state to save for a resumed run either.

Shapes: n texts of this rank (queries, passages, hard negatives, translated passages, translated queries), D dimensions.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from hbtrain.batching.permutation import key_of
from hbtrain.config import Config
from hbtrain.modeling.gather import Group
from hbtrain.modeling.loss import BatchLoss, batch_loss
from hbtrain.modeling.loss_inputs import Embedded
from hbtrain.training.chunks import Chunk, assemble
from hbtrain.training.feed import Work
from hbtrain.training.stopwatch import Stopwatch


class Differentiable(Protocol):
    """What the loss is back-propagated through: `hbtrain.training.engine.Engine`, or what stands for it."""

    def __call__(self, *inputs: Any) -> Any: ...

    def backward(self, loss: Tensor, last: bool = True) -> None: ...


class Gradients:
    """Back-propagates the loss of one rank's work through an engine; every method is collective."""

    def __init__(self, engine: Differentiable, group: Group, config: Config, stopwatch: Stopwatch) -> None:
        self._engine = engine
        self._group = group
        self._loss = config.loss
        self._seed = config.seed
        self._stopwatch = stopwatch

    def loss(self, work: Work) -> BatchLoss:
        """This rank's part of the loss (see `batch_loss`), with the whole graph unless gradients are disabled."""
        embedded = [self._embed(work, i) for i in range(len(work.chunks))]
        x_nD = assemble([x for vectors, _ in embedded for x in vectors], _positions(work), self._text_count(work))
        return self._contrast(x_nD, work, embedded[0][1])

    def backward(self, work: Work) -> BatchLoss:
        """Accumulate the gradient of the global batch in the engine; returns this rank's part of the loss."""
        if len(work.chunks) == 1:
            loss = self.loss(work)
            with self._stopwatch.phase("backward"):
                self._engine.backward(loss.total)
            return replace(loss, total=loss.total.detach())
        with torch.no_grad():
            embedded = [self._embed(work, i) for i in range(len(work.chunks))]
        # What the loss is differentiated by: every vector, and 1 / temperature where it is learned.
        leaves = [x.requires_grad_() for vectors, _ in embedded for x in vectors]
        learned = [scale.requires_grad_() for _, scale in embedded[:1] if scale is not None]
        x_nD = assemble(leaves, _positions(work), self._text_count(work))
        loss = self._contrast(x_nD, work, learned[0] if learned else None)
        with self._stopwatch.phase("loss"):
            cached = iter(torch.autograd.grad(loss.total, leaves + learned))
        for i in range(len(work.chunks)):
            vectors, scale = self._embed(work, i)
            parts = [(x * next(cached)).sum() for x in vectors]
            last = i == len(work.chunks) - 1
            if scale is not None:
                # Reached by every chunk's backward pass, as the other parameters are; its gradient counts once.
                parts.append((scale * (next(cached) if last else 0.0)).sum())
            with self._stopwatch.phase("backward"):
                self._engine.backward(torch.stack(parts).sum(), last)
        return replace(loss, total=loss.total.detach())

    def _embed(self, work: Work, i: int) -> tuple[list[Tensor], Tensor | None]:
        torch.manual_seed(int(key_of(self._seed, work.batch.step, self._group.rank, i) >> 1))
        chunk: Chunk = work.chunks[i]
        with self._stopwatch.phase("encode"):
            vectors, scale = self._engine(chunk.batches)
            return vectors, scale

    def _contrast(self, x_nD: Tensor, work: Work, scale: Tensor | None) -> BatchLoss:
        q_bD, p_bD, n_mD, t_kD, u_oD = x_nD.split(self._counts(work))
        translated = {"t_kD": t_kD if sum(work.sizes.translations) else None}
        translated["u_oD"] = u_oD if sum(work.sizes.queries) else None
        with self._stopwatch.phase("loss"):
            return batch_loss(
                Embedded(q_bD, p_bD, n_mD, scale, **translated),
                work.sizes,
                self._group,
                self._loss,
                work.ids,
                work.owners,
                work.references,
                self._loss.weights(work.batch.step),
            )

    def _counts(self, work: Work) -> list[int]:
        """This rank's texts of each side, in their order among its n."""
        sizes, rank = work.sizes, self._group.rank
        sides = (sizes.pairs, sizes.pairs, sizes.negatives, sizes.translations, sizes.queries)
        return [of_ranks[rank] if of_ranks else 0 for of_ranks in sides]

    def _text_count(self, work: Work) -> int:
        return sum(self._counts(work))


def _positions(work: Work) -> list[Tensor]:
    return [positions for chunk in work.chunks for positions in chunk.positions]


@contextmanager
def without_dropout(module: nn.Module) -> Iterator[None]:
    """While the body runs, dropout is off, and everything else that training mode means (checkpointing) stays on."""
    before: list[tuple[nn.Module, str, float]] = []
    for part in module.modules():
        for name, value in vars(part).items():
            # `p` of a dropout module; attention keeps its probability as a plain number.
            if isinstance(value, float) and ("dropout" in name or (name == "p" and isinstance(part, nn.Dropout))):
                before.append((part, name, value))
    try:
        for part, name, _ in before:
            setattr(part, name, 0.0)
        yield
    finally:
        for part, name, value in before:
            setattr(part, name, value)
