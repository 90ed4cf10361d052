"""The DeepSpeed engine around an encoder: optimizer, schedule, precision, gradient norm."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn

from hbtrain.config import Config
from hbtrain.storage.files import plain_path
from hbtrain.training.deepspeed_config import deepspeed_config, zero_stage


class Engine:
    """A DeepSpeed engine, reduced to what a training step needs."""

    def __init__(self, module: nn.Module, config: Config, device: torch.device) -> None:
        """Wrap `module`; torch.distributed must be initialised."""
        deepspeed = deepspeed_for(device)
        from transformers import get_scheduler

        settings = deepspeed_config(config, dist.get_world_size())
        training = config.training
        optimizer = torch.optim.AdamW(
            _decay_groups(module, training.weight_decay), lr=training.learning_rate, betas=training.betas, fused=True
        )
        scheduler = get_scheduler(
            training.schedule, optimizer, num_warmup_steps=training.warmup_steps, num_training_steps=training.steps
        )
        self.zero_stage = zero_stage(config)
        # Without ZeRO and in fp32 nothing stands between parameters and optimizer: gradients are where torch has them.
        self.holds_gradients = self.zero_stage == 0 and config.encoder.precision == "fp32"
        if config.encoder.precision == "bf16":
            # DeepSpeed casts parameters as well, but not where some were partitioned before (ZeRO-3).
            for parameter in module.parameters():
                parameter.data = parameter.data.bfloat16()
        self.deepspeed, *_ = deepspeed.initialize(
            model=module, optimizer=optimizer, lr_scheduler=scheduler, config=settings
        )
        self.module: nn.Module = self.deepspeed.module
        self._optimizer, self._scheduler = optimizer, scheduler

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
        if self.holds_gradients:
            self._norm = nn.utils.get_total_norm([p.grad for p in self.module.parameters() if p.grad is not None])
        self.deepspeed.step()

    @property
    def gradient_norm(self) -> float:
        """Norm of the last step's whole gradient, averaged over ranks, before clipping."""
        return float(self._norm if self.holds_gradients else self.deepspeed.get_global_grad_norm() or 0.0)

    @property
    def learning_rate(self) -> float:
        """The learning rate of the next step."""
        return float(self.deepspeed.get_lr()[0])

    @property
    def skipped_steps(self) -> int:
        """Steps of the run that DeepSpeed did not take, since their gradients were not finite; only in bf16."""
        return int(self.deepspeed.skipped_steps)

    def is_finite(self) -> bool:
        """Whether all weights that this rank holds are finite."""
        # Under ZeRO-3 a parameter is empty between uses, and `ds_tensor` is the rank's part of it.
        held = (getattr(parameter, "ds_tensor", parameter).detach() for parameter in self.module.parameters())
        return all(bool(torch.isfinite(weights).all()) for weights in held)

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

        Parameters that ZeRO-3 has partitioned are gathered one at a time.
        """
        import deepspeed

        weights = {}
        for name, value in self.module.state_dict(keep_vars=True).items():
            if isinstance(value, nn.Parameter) and not value.requires_grad:
                continue
            with deepspeed.zero.GatheredParameters([value]):
                if everywhere or dist.get_rank() == 0:
                    weights[name] = value.detach().cpu().clone()
        return weights


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


def _decay_groups(module: nn.Module, weight_decay: float) -> list[dict[str, Any]]:
    """Parameters with and without weight decay: biases and normalisation weights (one dimension) have none."""
    trained = [p for p in module.parameters() if p.requires_grad]
    groups = [
        {"params": [p for p in trained if p.ndim > 1], "weight_decay": weight_decay},
        {"params": [p for p in trained if p.ndim <= 1], "weight_decay": 0.0},
    ]
    return [group for group in groups if group["params"]]
