"""Metrics of training between two log lines: losses by kind of batch, throughput, time by phase, memory."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from hbtrain.errors import TrainingError
from hbtrain.modeling.gather import Group
from hbtrain.modeling.loss import BatchLoss
from hbtrain.training.feed import Work
from hbtrain.training.stopwatch import OTHER, Stopwatch

PHASES = ("data", "encode", "loss", "backward", "communication", "step", OTHER)
"""Phases of a step whose share of the time is reported."""

NOT_TRAINING = ("validation", "evaluation", "gradient_cosine", "checkpoint")
"""Phases whose time does not count in throughput and shares."""


class Meter:
    """Collects losses and tokens of each step, and aggregates them over ranks.

    Attributes:
        pairs: pairs of all ranks in the steps of the last reading.
        tokens: tokens of these pairs, without padding.
    """

    def __init__(self, group: Group, stopwatch: Stopwatch, device: torch.device) -> None:
        self._group = group
        self._stopwatch = stopwatch
        self._device = device
        self._losses: list[BatchLoss] = []
        self._works: list[Work] = []
        self._latest: Work | None = None
        self.pairs = self.tokens = 0

    @property
    def is_read(self) -> bool:
        """Whether no step was added since the last reading."""
        return not self._works

    def start(self) -> None:
        """Measure time from now on."""
        self._stopwatch.read()

    def add(self, work: Work, loss: BatchLoss) -> None:
        """Add a step; `loss` is this rank's part, and is not waited for on a GPU."""
        self._losses.append(replace(loss, total=loss.total.detach().float()))
        self._latest = replace(work, sides=[], chunks=[], ids=None, owners=None, references=None)
        self._works.append(self._latest)

    def read(self) -> dict[str, float]:
        """{metric: value} of the steps since the last reading; collective.

        `train/`: mean loss, in all and by kind of batch, and so the terms of it where there are several; the share of
        negatives that a guide drops, in all, by kind of batch and by languages of query and passage; pairs and tokens
        (without padding) per second of training; share of computed tokens that is padding. `system/`: share of the time
        by phase, mean over ranks (`communication` includes waiting for other ranks); the largest peak memory of a rank,
        in GiB.

        Raises:
            TrainingError: a loss is not finite; the message names its step and batch.
        """
        losses = self._mean_losses()
        seconds = self._stopwatch.read()
        trained_s = sum(s for phase, s in seconds.items() if phase not in NOT_TRAINING)
        tokens = sum(work.tokens for work in self._works)
        computed = sum(work.computed_tokens for work in self._works)
        own = [trained_s, tokens, computed, _memory_gib(), *(seconds.get(phase, 0.0) for phase in PHASES)]
        ranks = self._group.all_gather(torch.tensor(own, dtype=torch.float64, device=self._device)).cpu()
        trained_s = float(ranks[:, 0].mean())
        self.pairs, self.tokens = sum(len(work.batch) for work in self._works), int(ranks[:, 1].sum())
        figures = self._by_kind("train/loss", losses) | self._terms() | self._guided()
        figures |= {
            "train/pairs_per_s": self.pairs / trained_s,
            "train/tokens_per_s": self.tokens / trained_s,
            "train/padding_share": 1 - float(ranks[:, 1].sum() / ranks[:, 2].sum()),
            "system/memory_peak_gib": float(ranks[:, 3].max()),
        }
        for i, phase in enumerate(PHASES):
            figures[f"system/time_share_{phase}"] = float(ranks[:, 4 + i].mean()) / trained_s
        if self._device.type == "cuda":
            peak = torch.tensor([torch.cuda.max_memory_allocated(self._device) / 2**30], device=self._device)
            figures["system/gpu_memory_peak_gib"] = float(self._group.all_gather(peak).max())
        self._losses, self._works = [], []
        return figures

    def check(self, weights_are_finite: bool) -> None:
        """Raise unless losses and weights are finite; collective, to be called before anything is saved.

        Args:
            weights_are_finite: whether this rank's part of the model is finite.

        Raises:
            TrainingError: a loss since the last reading, or the model of some rank, is not finite.
        """
        if self._losses:
            self._mean_losses()
        lost = self._group.all_reduce_sum(torch.tensor([0.0 if weights_are_finite else 1.0], device=self._device))
        if float(lost) > 0 and self._latest is not None:
            raise TrainingError(
                _with_batch(f"weights are not finite after step {self._latest.batch.step}", self._latest)
            )

    def _by_kind(self, name: str, values: Sequence[float]) -> dict[str, float]:
        """The mean of what each step has, in all and by kind of batch."""
        figures = {name: sum(values) / len(values)}
        for kind in dict.fromkeys(work.batch.kind for work in self._works):
            of_kind = [value for work, value in zip(self._works, values, strict=True) if work.batch.kind == kind]
            figures[f"{name}_{kind}"] = sum(of_kind) / len(of_kind)
        return figures

    def _terms(self) -> dict[str, float]:
        """Each term of the loss, before its weight; nothing where InfoNCE is the only one."""
        names = list(self._losses[0].terms)
        if not names:
            return {}
        parts = torch.stack([torch.stack([loss.terms[name].float() for name in names]) for loss in self._losses])
        means = (self._group.all_reduce_sum(parts).cpu() / self._group.world_size).T.tolist()
        named = zip(names, means, strict=True)
        return {key: x for name, values in named for key, x in self._by_kind(f"train/{name}", values).items()}

    def _guided(self) -> dict[str, float]:
        """The share of negatives that a guide drops; nothing without one."""
        found = [loss.guided_b2 for loss in self._losses if loss.guided_b2 is not None]
        if not found:
            return {}
        languages, kinds = self._works[0].batch.languages, list(dict.fromkeys(work.batch.kind for work in self._works))
        counts = np.zeros((len(kinds), len(languages), len(languages), 2))  # dropped, in all
        of_steps = np.split(torch.cat(found).cpu().numpy(), np.cumsum([len(x) for x in found])[:-1])
        for work, guided_b2 in zip(self._works, of_steps, strict=True):
            own = work.batch.shard(self._group.rank, self._group.world_size)
            np.add.at(counts[kinds.index(own.kind)], (own.query_codes, own.passage_codes), guided_b2)
        counts = self._group.all_reduce_sum(torch.from_numpy(counts).to(self._device)).cpu().numpy()
        name = "train/guided_out"
        sums = {name: counts.sum((0, 1, 2))} | {f"{name}_{k}": counts[i].sum((0, 1)) for i, k in enumerate(kinds)}
        for i, j in zip(*np.nonzero(counts[..., 1].sum(0)), strict=True):
            sums[f"{name}/{languages[i]}-{languages[j]}"] = counts[:, i, j].sum(0)
        return {key: float(dropped / negatives) for key, (dropped, negatives) in sums.items() if negatives}

    def _mean_losses(self) -> list[float]:
        """The loss of each step over the global batch."""
        sums = self._group.all_reduce_sum(torch.stack([loss.total for loss in self._losses])).cpu()
        losses: list[float] = (sums / self._group.world_size).tolist()
        for work, loss in zip(self._works, losses, strict=True):
            if not math.isfinite(loss):
                raise TrainingError(_with_batch(f"the loss of step {work.batch.step} is {loss}", work))
        return losses


def _with_batch(problem: str, work: Work) -> str:
    """A message: the problem, the batch with its first rows, and what to do."""
    rows = ", ".join(map(str, work.batch.rows[:5].tolist()))
    return (
        f"{problem}: {work.batch.kind} batch of source {work.batch.source}, rows {rows}, ...; "
        "lower training.learning_rate or look at these rows"
    )


def _memory_gib() -> float:
    """Peak main memory of this process in GiB; `getrusage` would include that of its parent."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) / 2**20
    return 0.0
