"""Figures of training between two log lines: losses by kind, throughput."""

from __future__ import annotations

import time
from dataclasses import replace

import torch
from torch import Tensor

from hbtrain.errors import TrainingError
from hbtrain.modeling.gather import Group
from hbtrain.training.feed import Work


class Meter:
    """Collects what each step did, and sums it over ranks when asked."""

    def __init__(self, group: Group) -> None:
        self._group = group
        self._losses: list[Tensor] = []
        self._works: list[Work] = []
        self._since = time.perf_counter()

    def add(self, work: Work, loss: Tensor) -> None:
        """Note a step; `loss` is the rank's part (see `contrastive_loss`) and is not waited for."""
        self._losses.append(loss.detach().float())
        self._works.append(replace(work, sides=[], chunks=[], ids=None))

    def read(self) -> dict[str, float]:
        """Figures of the steps since the last reading; collective.

        Raises:
            TrainingError: a loss was not finite, with its step and batch.
        """
        tokens = torch.tensor([float(work.tokens) for work in self._works])
        sums = torch.stack([torch.stack(self._losses), tokens.to(self._losses[0].device)])
        sums = self._group.all_reduce_sum(sums).cpu()
        losses = (sums[0] / self._group.world_size).tolist()
        elapsed_s = time.perf_counter() - self._since
        for work, loss in zip(self._works, losses, strict=True):
            if not torch.isfinite(torch.tensor(loss)):
                rows = ", ".join(map(str, work.batch.rows[:5].tolist()))
                raise TrainingError(
                    f"the loss of step {work.batch.step} is {loss}: {work.batch.kind} batch of source "
                    f"{work.batch.source}, rows {rows}, ...; lower training.learning_rate or look at these rows"
                )
        figures = {
            "train/loss": sum(losses) / len(losses),
            "train/pairs_per_s": sum(len(work.batch) for work in self._works) / elapsed_s,
            "train/tokens_per_s": float(sums[1].sum()) / elapsed_s,
        }
        for kind in dict.fromkeys(work.batch.kind for work in self._works):
            of_kind = [loss for work, loss in zip(self._works, losses, strict=True) if work.batch.kind == kind]
            figures[f"train/loss_{kind}"] = sum(of_kind) / len(of_kind)
        self._losses, self._works = [], []
        self._since = time.perf_counter()
        return figures
