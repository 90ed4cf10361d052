"""The cosine between the gradients of a monolingual and of a cross-lingual batch: whether both pull the same way.

Both batches are those that a run with only their kind would draw at the step, and both gradients are taken at the
current weights, over the whole batch; they are of InfoNCE, whatever other terms training has (see `LossConfig.plain`).
Nothing of the training is touched: autograd hands the gradients out instead of adding them to those of the parameters,
where DeepSpeed would reduce them; random numbers, dropout and the batches to come are as they were.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from hbtrain.batching import BatchPlan
from hbtrain.config import Config, override
from hbtrain.corpus import ParallelCorpus
from hbtrain.errors import ConfigError, DataError
from hbtrain.modeling.gather import Group
from hbtrain.training.deepspeed_config import zero_stage
from hbtrain.training.delivery import Delivery
from hbtrain.training.gradients import Gradients, without_dropout
from hbtrain.training.stopwatch import Stopwatch

KEY = "training.gradient_cosine_every"
METRIC = "train/gradient_cosine"
PIECE = 1 << 22  # numbers of both gradients that are added up over the ranks at one time


def cosine_plans(config: Config, corpus: ParallelCorpus, plan: BatchPlan) -> tuple[BatchPlan, BatchPlan]:
    """The plans of the monolingual and of the cross-lingual batches; `plan` is the run's own.

    Raises:
        ConfigError: gradients are spread over the ranks (ZeRO-3), or there is one training language.
        DataError: the sources cannot fill batches of both kinds.
    """
    if zero_stage(config) > 2:
        raise ConfigError(
            f"{KEY} needs whole gradients on every rank, which ZeRO-3 is there to avoid: set "
            "zero_optimization.stage to 0, 1 or 2 in training.deepspeed, or leave the key out"
        )
    if not {"mono", "cross"} <= set(config.batching.kinds):
        both = {"batching.mode": "hybrid", "batching.alpha": 0.5, "batching.mixture": None}
        try:
            plan = BatchPlan.over(corpus, override(config, both))
        except (ConfigError, DataError) as error:
            raise type(error)(
                f"{KEY} compares a monolingual with a cross-lingual batch, and the data do not give both ({error}); "
                "leave the key out"
            ) from error
    return plan.only("mono"), plan.only("cross")


class GradientCosine:
    """Computes the cosine in the middle of a training."""

    def __init__(
        self,
        module: nn.Module,
        deliveries: Sequence[Delivery],
        group: Group,
        config: Config,
        stopwatch: Stopwatch,
    ) -> None:
        """Of the trained parameters of `module`; `deliveries` bring batches of one kind each."""
        self._module = module
        self._deliveries = deliveries
        self._group = group
        self._local = _LocalGradients(module)
        self._gradients = Gradients(self._local, group, config, stopwatch)

    def at(self, step: int) -> float:
        """The cosine at the current weights, of the batches of `step`; NaN if a gradient is zero; collective."""
        device = next(self._module.parameters()).device
        with torch.random.fork_rng([device] if device.type == "cuda" else []), without_dropout(self._module):
            mono, cross = (self._gradient(delivery, step) for delivery in self._deliveries)
        return cosine(mono, cross, self._group)

    def _gradient(self, delivery: Delivery, step: int) -> list[Tensor]:
        self._gradients.backward(delivery.work(step))
        return self._local.take()


def cosine(one: Sequence[Tensor], other: Sequence[Tensor], group: Group) -> float:
    """The cosine between two gradients, each the mean over ranks of what they have; the same on all ranks; collective.

    Args:
        one: this rank's part of one gradient, a tensor for each parameter, float32.
        other: the same of the other gradient.
        group: the ranks.

    Returns:
        The cosine, in float64; NaN if a gradient is zero.
    """
    sums = torch.zeros(3, dtype=torch.float64, device=one[0].device)
    for a, b in zip(one, other, strict=True):
        for pair in zip(a.flatten().split(PIECE), b.flatten().split(PIECE), strict=True):
            x, y = group.all_reduce_sum(torch.stack(pair)).double()
            sums += torch.stack([x @ y, x @ x, y @ y])
    product, squared, squared_other = sums.tolist()
    norms = math.sqrt(squared) * math.sqrt(squared_other)
    return product / norms if norms else math.nan


class _LocalGradients:
    """Stands for the engine: adds up this rank's gradients beside those of the parameters, in float32."""

    def __init__(self, module: nn.Module) -> None:
        self._module = module
        self._parameters = [p for p in module.parameters() if p.requires_grad]
        self._sums: list[Tensor] | None = None

    def __call__(self, *inputs: Any) -> Any:
        return self._module(*inputs)

    def backward(self, loss: Tensor, last: bool = True) -> None:
        found = torch.autograd.grad(loss, self._parameters, allow_unused=True)
        if self._sums is None:
            self._sums = [torch.zeros_like(p, dtype=torch.float32) for p in self._parameters]
        for total, gradient in zip(self._sums, found, strict=True):
            if gradient is not None:
                total.add_(gradient)

    def take(self) -> list[Tensor]:
        """The gradient since the last call."""
        assert self._sums is not None
        taken, self._sums = self._sums, None
        return taken
