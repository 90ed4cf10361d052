"""`encoder.compile`: the layers of a transformer as kernels that torch.compile makes of them.

Each layer is compiled by itself. All of them run the same code, so that one is compiled for all, and what is around
them stays as it is: embeddings, masks, poolings, DeepSpeed's engine, and the names of weights. Sizes of a batch are
variables of the compiled code, so new shapes compile nothing new; a few conditions do, each for the first batch that
meets it: with and without a graph, in training and in evaluation, with and without padding, of one text or more.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from hbtrain.errors import ConfigError, ModelError

if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer
    from torch import nn

    from hbtrain.config import Config

BACKEND = "inductor"  # of torch.compile

_MOST_VARIANTS = 32
"""How often a layer may be compiled for new conditions; beyond that, torch would run it as it is written."""
_COMPILERS = ("g++", "clang++")


def check_compiling(config: Config, zero_stage: int) -> None:
    """Raise ConfigError if `encoder.compile` is set, and cannot work."""
    if not config.encoder.compile:
        return
    if zero_stage == 3:
        raise ConfigError(
            "encoder.compile does not go with ZeRO stage 3, which fetches the weights of a layer while it runs: take "
            "stage 0, 1 or 2 in training.deepspeed, or leave encoder.compile out"
        )
    compilers = (os.environ["CXX"],) if os.environ.get("CXX") else _COMPILERS
    if not config.resources.use_gpu and not any(map(shutil.which, compilers)):
        raise ConfigError(
            f"encoder.compile needs a C++ compiler where a CPU computes, and there is none here ({', '.join(compilers)}"
            "): install one on every machine, or leave encoder.compile out"
        )


def check_layers(model: SentenceTransformer) -> None:
    """Raise ModelError if the model has no layers that can be compiled."""
    from sentence_transformers.base.modules import Transformer

    if not isinstance(model[0], Transformer):
        raise ModelError(
            f"encoder.compile needs a transformer, and the first module of this backbone is {type(model[0]).__name__}; "
            "leave encoder.compile out"
        )


def compile_layers(model: SentenceTransformer) -> None:
    """Have the layers of the model's transformer compiled when they are first called, in place.

    Copies of the model, and what is saved of it, know nothing of it.
    """
    import torch

    from hbtrain.modeling.adapters import stack_of_layers

    dynamo = torch._dynamo.config
    dynamo.recompile_limit = max(dynamo.recompile_limit, _MOST_VARIANTS)
    for layer in stack_of_layers(model[0].model):
        layer.compile(backend=BACKEND, dynamic=True)


def is_compiled(model: nn.Module) -> bool:
    """Whether a module of the model is compiled."""
    return any(module._compiled_call_impl is not None for module in model.modules())


@contextmanager
def as_written(model: nn.Module) -> Iterator[None]:
    """While the body runs, what is compiled runs as it is written, and computes what a saved model computes."""
    if not is_compiled(model):
        yield
        return
    import torch

    with torch.compiler.set_stance("force_eager"):
        yield
