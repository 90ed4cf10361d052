"""The optimizers, AdamW and Muon, and how they take a step without ZeRO: no number of it is waited for.

Left to itself, DeepSpeed 0.19.8 computes norms, clips, and looks for numbers that are not finite one parameter at a
time, and in bf16 waits for each answer: a step of XLM-R base is 3,749 kernels and 202 waits, more time than its
computing takes on a fast GPU. Here a few kernels look at all parameters together, and what they find stays on the
device: torch's optimizers take a divisor of the gradient (`grad_scale`) and a mark that it is not finite (`found_inf`)
as tensors, which torch made for scaling losses in fp16.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from itertools import chain
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from hbtrain.config.schema import TrainingConfig
from hbtrain.errors import ModelError
from hbtrain.modeling.adapters import stack_of_layers
from hbtrain.modeling.embedding import EmbeddingModule

if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer


def build_optimizer(module: EmbeddingModule, training: TrainingConfig) -> torch.optim.Optimizer:
    """The optimizer of `training` for the parameters of `module` that are trained.

    Biases and normalisation weights (one dimension) have no weight decay.

    Raises:
        ModelError: `training.optimizer` is muon, and no matrix of a layer is trained.
    """
    trained = [p for p in module.parameters() if p.requires_grad]
    matrices = layer_matrices(module.model) if training.optimizer == "muon" else []
    own = set(matrices)
    groups = [
        {"params": [p for p in trained if p.ndim > 1 and p not in own], "weight_decay": training.weight_decay},
        {"params": [p for p in trained if p.ndim <= 1], "weight_decay": 0.0},
    ]
    adamw = torch.optim.AdamW(
        [group for group in groups if group["params"]], lr=training.learning_rate, betas=training.betas, fused=True
    )
    if training.optimizer == "adamw":
        return adamw
    # An update as large as AdamW's, so that the learning rate and weight decay of AdamW serve (arXiv 2502.16982).
    lr, decay = training.learning_rate, training.weight_decay
    return MuonWithAdamW(torch.optim.Muon(matrices, lr, decay, adjust_lr_fn="match_rms_adamw"), adamw)


def layer_matrices(model: SentenceTransformer) -> list[Tensor]:
    """The matrices of linear maps in the transformer's layers that are trained: what Muon is for.

    Embedding tables and what stands before or after the layers, such as a pooler, are none of them.

    Raises:
        ModelError: there are none.
    """
    from sentence_transformers.base.modules import Transformer

    layers = stack_of_layers(model[0].model) if isinstance(model[0], Transformer) else ()
    linear = [part for layer in layers for part in layer.modules() if isinstance(part, nn.Linear)]
    matrices = [part.weight for part in linear if part.weight.requires_grad]
    if not matrices:
        raise ModelError(
            "training.optimizer = 'muon' is for matrices of a transformer's layers, and this encoder has none that are "
            "trained; set training.optimizer to 'adamw', or freeze fewer layers"
        )
    return matrices


class MuonWithAdamW(torch.optim.Optimizer):
    """Muon and AdamW as one optimizer: they share their groups of parameters and their state with it."""

    def __init__(self, muon: torch.optim.Muon, adamw: torch.optim.AdamW) -> None:
        self._muon, self._adamw = muon, adamw
        super().__init__([*muon.param_groups, *adamw.param_groups], {})
        self._share()

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Take the groups and the state of a checkpoint."""
        super().__setstate__(state)
        self._share()

    def _share(self) -> None:
        self._muon.param_groups = [group for group in self.param_groups if "ns_steps" in group]
        self._adamw.param_groups = [group for group in self.param_groups if "ns_steps" not in group]
        self._muon.state = self._adamw.state = self.state

    @torch.no_grad()
    def step(self, closure: Any = None) -> None:  # type: ignore[override]
        """Take a step, with the gradients divided by `grad_scale`, unless `found_inf`.

        Muon knows neither. Whether a step is left out, the host must know, and waits for it.
        """
        divisor, found_inf = getattr(self, "grad_scale", None), getattr(self, "found_inf", None)
        if found_inf is not None and bool(found_inf):
            return
        if divisor is not None:
            gradients = [p.grad for group in self._muon.param_groups for p in group["params"] if p.grad is not None]
            torch._foreach_div_(gradients, divisor)
        self._muon.step()
        self._adamw.grad_scale = divisor  # type: ignore[attr-defined]
        self._adamw.step()


def total_norm(gradients: list[Tensor]) -> Tensor:
    """The norm of all gradients together: a float32 scalar on their device, whatever their precision."""
    norm: Tensor = torch.linalg.vector_norm(torch.stack(torch._foreach_norm(gradients, 2.0, torch.float32)))
    return norm


class WholeStep:
    """The step of an optimizer that has all gradients, averaged over ranks, on every rank (ZeRO stage 0).

    Before each step of the optimizer it computes the gradient's norm, and clips by it.
    """

    def __init__(self, engine: Any, optimizer: torch.optim.Optimizer, clipping: float, skips: bool) -> None:
        """Take over the step from DeepSpeed.

        Args:
            engine: DeepSpeed's, which is told not to clip.
            optimizer: torch's optimizer within it.
            clipping: largest norm of the gradient; 0: it is not clipped.
            skips: whether a step with a gradient that is not finite is left out: DeepSpeed's rule in bf16.
        """
        self.norm = torch.zeros(())  # of the last step's gradient, before clipping
        self.skipped: Tensor | float = 0.0  # steps that were left out
        self._clipping, self._skips = clipping, skips
        if torch.distributed.get_world_size() == 1:
            engine.enable_backward_allreduce = False  # of one rank, it would copy all gradients twice
        engine.allreduce_and_copy = partial(_allreduce_and_copy, engine)
        wrapper = engine.optimizer
        if wrapper is not optimizer:  # in bf16, what holds float32 copies of the weights
            wrapper.step = partial(_step_of_copies, wrapper)
            # DeepSpeed has let it take a step without a gradient, which decayed the copies and counts as a step.
            optimizer.state.clear()
            wrapper.refresh_fp32_params()
        optimizer.register_step_pre_hook(self._before)

    def _before(self, optimizer: torch.optim.Optimizer, *_: Any) -> None:
        gradients = [p.grad for group in optimizer.param_groups for p in group["params"] if p.grad is not None]
        self.norm = total_norm(gradients)
        if self._clipping > 0:
            optimizer.grad_scale = ((self.norm + 1e-6) / self._clipping).clamp_(min=1.0)  # type: ignore[attr-defined]
        if self._skips:
            optimizer.found_inf = (~self.norm.isfinite()).float()  # type: ignore[attr-defined]
            self.skipped = self.skipped + optimizer.found_inf  # type: ignore[attr-defined]


@torch.no_grad()
def _step_of_copies(wrapper: Any) -> None:
    """Instead of the step of DeepSpeed's `FP16_UnfusedOptimizer`: float32 copies of bf16 weights take the step."""
    pairs = zip(chain(*wrapper.fp16_groups), chain(*wrapper.fp32_groups), strict=True)
    weights, copies = zip(*[(weight, copy) for weight, copy in pairs if weight.grad is not None], strict=True)
    for copy in copies:
        copy.grad = torch.empty_like(copy)
    torch._foreach_copy_([copy.grad for copy in copies], [weight.grad for weight in weights])
    wrapper.optimizer.step()
    torch._foreach_copy_(weights, copies)
    for copy in copies:
        copy.grad = None


def _allreduce_and_copy(engine: Any, bucket: list[Tensor], *group: Any) -> None:
    """Instead of DeepSpeed's method of this name, which copies what ranks have averaged one tensor at a time."""
    averaged = engine.allreduce_bucket(bucket, *group)
    torch._foreach_copy_(bucket, list(engine.unflatten(averaged, bucket)))


def look_once(zero: Any) -> None:
    """Spare DeepSpeed's optimizer of ZeRO-1 and 2 most of what it looks at each gradient for.

    In bf16 it asks of each whether it is finite, in twelve kernels, and then of the norm of all, which tells the same:
    a step that the norm says is not finite is skipped. The norm itself takes two kernels for each gradient.
    """
    from deepspeed import comm
    from deepspeed.runtime.zero.stage_1_and_2 import DeepSpeedZeroOptimizer

    if not isinstance(zero, DeepSpeedZeroOptimizer) or zero.cpu_offload:  # the user's settings led to another one
        return

    def norm(gradients: Sequence[Tensor], _: Any) -> Tensor:
        own = [gradient for gradient in gradients if not getattr(gradient, "_zero_padding", False)]
        squared = total_norm(own).square() if own else torch.zeros((), device=zero.device)
        comm.all_reduce(squared, group=zero.dp_process_group)
        return squared.sqrt()

    zero.get_grad_norm_direct = norm
    if zero.compute_grad_norm:
        zero.check_overflow = lambda partition_gradients: None
