"""Low-rank adapters (LoRA, arXiv 2106.09685) on the transformer inside an encoder."""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING

from hbtrain.errors import ModelError

if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer

    from hbtrain.config.schema import LoraConfig


def add_lora(model: SentenceTransformer, config: LoraConfig, seed: int) -> None:
    """Freeze `model` and add adapters that leave its embeddings as they are until they are trained.

    Raises:
        ModelError: the model has no transformer, or `target_modules` names no linear layer of it.
    """
    import torch
    from peft import LoraConfig as PeftLoraConfig
    from peft import get_peft_model
    from sentence_transformers.base.modules import Transformer

    first = model[0]
    if not isinstance(first, Transformer):
        raise ModelError(
            f"encoder.lora needs a backbone with linear layers, and the first module of this one is "
            f"{type(first).__name__}; leave encoder.lora out or take a transformer"
        )
    targets = config.target_modules
    peft_config = PeftLoraConfig(
        r=config.rank,
        lora_alpha=config.alpha,
        lora_dropout=config.dropout,
        target_modules=targets if isinstance(targets, str) else list(targets),
    )
    model.requires_grad_(False)
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        try:
            first.model = get_peft_model(first.model, peft_config)
        except ValueError as error:
            raise ModelError(
                f"encoder.lora.target_modules {targets!r} fits no layer of the backbone: {error}"
            ) from error


def has_lora(model: SentenceTransformer) -> bool:
    """Whether the model carries adapters that are not merged."""
    from peft import PeftModel

    return isinstance(getattr(model[0], "model", None), PeftModel)


def merged(model: SentenceTransformer) -> SentenceTransformer:
    """The plain model with the same embeddings: `model` itself, or a copy with the adapters added to its weights."""
    if not has_lora(model):
        return model
    plain = copy.deepcopy(model)
    plain[0].model = plain[0].model.merge_and_unload()
    return plain.requires_grad_(True)
