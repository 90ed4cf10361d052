"""The DeepSpeed engine around an encoder: optimizer, schedule, precision, gradient norm."""

from __future__ import annotations

import math
import os
import sys
from itertools import chain
from pathlib import Path
from typing import Any, NamedTuple

import torch
import torch.distributed as dist
from torch import Tensor, nn

from hbtrain.config import Config
from hbtrain.config.schema import TrainingConfig
from hbtrain.modeling.embedding import EmbeddingModule
from hbtrain.storage.files import plain_path
from hbtrain.training.deepspeed_config import deepspeed_config, zero_stage
from hbtrain.training.optimizers import WholeStep, build_optimizer, look_once


class Part(NamedTuple):
    """What a rank steps of a trained parameter: all of it, or under ZeRO the numbers from one place to another."""

    name: str  # of the parameter in the module
    start: int  # the place of its first number in the flattened parameter
    weights: Tensor  # float32; the optimizer's own, not a copy


def scheduler_of(optimizer: torch.optim.Optimizer, training: TrainingConfig) -> torch.optim.lr_scheduler.LRScheduler:
    """What sets the learning rate of each step: `training.schedule`, after `training.warmup_steps`."""
    from transformers import get_scheduler

    warmup, schedule = training.warmup_steps, training.schedule
    if schedule == "constant" and warmup:
        schedule = "constant_with_warmup"  # by the other name, transformers would begin at the full rate
    scheduler: torch.optim.lr_scheduler.LRScheduler = get_scheduler(
        schedule, optimizer, num_warmup_steps=warmup, num_training_steps=training.steps
    )
    return scheduler


class Engine:
    """A DeepSpeed engine, reduced to what a training step needs."""

    def __init__(self, module: EmbeddingModule, config: Config, device: torch.device) -> None:
        """Wrap `module`; torch.distributed must be initialised."""
        deepspeed = deepspeed_for(device)
        settings = deepspeed_config(config, dist.get_world_size())
        training = config.training
        optimizer = build_optimizer(module, training)
        scheduler = scheduler_of(optimizer, training)
        self.zero_stage = zero_stage(config)
        if config.encoder.precision == "bf16":
            # DeepSpeed casts parameters as well, but not where some were partitioned before (ZeRO-3).
            for parameter in module.parameters():
                parameter.data = parameter.data.bfloat16()
        self.deepspeed, *_ = deepspeed.initialize(
            model=module, optimizer=optimizer, lr_scheduler=scheduler, config=settings
        )
        self.module: nn.Module = self.deepspeed.module
        self._optimizer, self._scheduler = optimizer, scheduler
        self._whole: WholeStep | None = None
        self._unrounded = training.average is not None  # an average in bf16 would be but one of a few weights
        self._copies: dict[nn.Parameter, Tensor] = {}  # float32 copies of bf16 weights, in stage 0
        if self.zero_stage == 0:
            skips = config.encoder.precision == "bf16"
            self._whole = WholeStep(self.deepspeed, optimizer, training.gradient_clipping, skips)
            if (wrapper := self.deepspeed.optimizer) is not optimizer:
                self._copies = dict(zip(chain(*wrapper.fp16_groups), chain(*wrapper.fp32_groups), strict=True))
        elif self.zero_stage < 3:
            look_once(self.deepspeed.optimizer)

    def __call__(self, *inputs: Any) -> Any:
        return self.deepspeed(*inputs)

    def backward(self, loss: Tensor, last: bool = True) -> None:
        """Back-propagate a part of the step's loss; gradients are averaged over ranks with the last part.

        DeepSpeed reduces gradients where accumulation ends. It must be told where: left to count for itself, it
        reduces each part under ZeRO-1 and 2, and keeps only some of them.
        """
        self.deepspeed.set_gradient_accumulation_boundary(last)
        self.deepspeed.backward(loss)

    def step(self) -> None:
        """Clip the gradient, and take a step of the optimizer and the schedule."""
        self.deepspeed.step()
        if not self.deepspeed.was_step_applied():
            self._scheduler.step()  # a skipped step is one of the schedule nevertheless, at every stage

    @property
    def gradient_norm(self) -> float:
        """Norm of the last step's whole gradient, averaged over ranks, before clipping."""
        norm = float(self.deepspeed.get_global_grad_norm() or 0.0 if self._whole is None else self._whole.norm)
        return math.inf if math.isnan(norm) else norm

    @property
    def learning_rate(self) -> float:
        """The learning rate of the next step."""
        return float(self.deepspeed.get_lr()[0])

    @property
    def skipped_steps(self) -> int:
        """Steps of the run that were not taken, since their gradients were not finite; only in bf16."""
        if self._whole is not None:  # where DeepSpeed keeps them with checkpoints
            self.deepspeed.skipped_steps += int(self._whole.skipped)
            self._whole.skipped = 0.0
        return int(self.deepspeed.skipped_steps)

    def is_finite(self) -> bool:
        """Whether all weights that this rank holds are finite."""
        # Under ZeRO-3 a parameter is empty between uses, and `ds_tensor` is the rank's part of it.
        held = [getattr(parameter, "ds_tensor", parameter).detach() for parameter in self.module.parameters()]
        return bool(torch.stack([weights.isfinite().all() for weights in held]).all())

    def save(self, folder: Path, tag: str) -> None:
        """Save a checkpoint to `folder`, which each rank has for itself; collective."""
        _ = self.skipped_steps  # counted
        self.deepspeed.save_checkpoint(str(folder), tag=tag)

    def load(self, folder: Path, tag: str, universal: bool) -> None:
        """Load a checkpoint that `deepspeed.save_checkpoint` wrote, or its universal form; collective.

        DeepSpeed 0.19.8 reads a universal checkpoint under ZeRO-3 with the settings of the first parameter group for
        all, and with one step counter that they share and all count up; both are put right here.
        """
        settings = [{k: v for k, v in group.items() if k != "params"} for group in self._optimizer.param_groups]
        self.deepspeed._config.load_universal_checkpoint = universal
        with plain_path(folder) as plain:
            self.deepspeed.load_checkpoint(str(plain), tag=tag)
        self.deepspeed._config.load_universal_checkpoint = False
        if not universal:
            return
        for group, own, rate in zip(self._optimizer.param_groups, settings, self._scheduler.get_last_lr(), strict=True):
            group.update(own, lr=rate)
        for state in self._optimizer.state.values():
            state["step"] = state["step"].clone()

    def trained_weights(self, everywhere: bool = False) -> dict[str, Tensor]:
        """The module's state without frozen parameters, on the CPU of rank 0 or `everywhere`; else empty; collective.

        Parameters that ZeRO-3 has partitioned are gathered one at a time. With `training.average` those in bf16 are
        given as float32, as the optimizer has them.
        """
        import deepspeed
        from deepspeed.utils import safe_get_full_fp32_param

        weights = {}
        for name, value in self.module.state_dict(keep_vars=True).items():
            is_parameter = isinstance(value, nn.Parameter)
            if is_parameter and not value.requires_grad:
                continue
            unrounded = None
            if is_parameter and self._unrounded and value.dtype == torch.bfloat16:
                unrounded = self._copies[value] if self.zero_stage == 0 else safe_get_full_fp32_param(value)
            with deepspeed.zero.GatheredParameters([value] if unrounded is None else []):
                if everywhere or dist.get_rank() == 0:
                    weights[name] = (value if unrounded is None else unrounded).detach().cpu().clone()
        return weights

    def parts(self) -> list[Part]:
        """What this rank steps of the trained parameters; who writes into it must call `take_over` then."""
        zero, rank = self.deepspeed.optimizer, dist.get_rank()
        names: dict[Any, str] = {value: name for name, value in self.module.named_parameters() if value.requires_grad}
        if self.zero_stage == 0:
            return [Part(name, 0, self._copies.get(value, value).detach()) for value, name in names.items()]
        if self.zero_stage < 3:
            held = {name: value._hp_mapping for value, name in names.items()}
            return [Part(k, x.lp_fragment_address.start, x.hp_fragment.detach()) for k, x in held.items() if x]
        found = []
        for values, flat in zip(zero.fp16_groups, zero.fp32_partitioned_groups_flat, strict=True):
            offset = 0
            for value in values:
                size = value.partition_numel()  # of every rank's part; the last ones may be padding
                if (own := min(size, value.ds_numel - rank * size)) > 0:
                    found.append(Part(names[value], rank * size, flat.detach().narrow(0, offset, own)))
                offset += size
        return found

    @torch.no_grad()
    def take_over(self) -> None:
        """Have the module compute with what was written into the weights of `parts`; collective."""
        zero = self.deepspeed.optimizer
        if self.zero_stage == 3:
            zero.checkpoint_event_prologue()  # frees whole parameters
            for group in range(len(zero.fp16_groups)):
                zero._reassign_or_swap_out_partitioned_parameters(group)
            zero.checkpoint_event_epilogue()  # gathers those that stay whole between steps
        elif self.zero_stage > 0:
            zero.update_lp_params()
        elif self._copies:
            torch._foreach_copy_(list(self._copies), list(self._copies.values()))


def deepspeed_for(device: torch.device) -> Any:
    """DeepSpeed, imported so that it computes on `device`, whatever other devices the machine has.

    On CPUs it is kept from compiling an extension for shared-memory collectives: gloo serves as well.
    """
    if device.type == "cpu":
        os.environ["DS_ACCELERATOR"] = "cpu"  # read at the import; otherwise it takes a GPU where there is one
    deepspeed = import_deepspeed()
    from deepspeed import ops

    if device.type == "cpu":
        ops.__compatible_ops__["deepspeed_shm_comm"] = False
    return deepspeed


def import_deepspeed() -> Any:
    """DeepSpeed, imported without MLflow, which takes longer to import than DeepSpeed itself.

    Only DeepSpeed's autotuner uses MLflow, and does without where it is not installed. While DeepSpeed is imported,
    MLflow is made to look as if it were not, unless this process has imported it before.
    """
    if "mlflow" in sys.modules:
        import deepspeed
    else:
        sys.modules["mlflow"] = None  # type: ignore[assignment]
        try:
            import deepspeed
        finally:
            sys.modules.pop("mlflow", None)
    return deepspeed
