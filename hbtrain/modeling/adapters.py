"""Training only a part of a transformer: low-rank adapters (LoRA, arXiv 2106.09685), or freezing.

Frozen are the lowest layers, the embeddings, or both. Layers are found by structure, because every architecture has
other names for them: they are the `ModuleList` with the most parameters, in the order in which text passes through it.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator
from typing import TYPE_CHECKING

from hbtrain.errors import ModelError

if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer
    from torch import nn

    from hbtrain.config.encoder import EncoderConfig, LoraConfig


def add_lora(model: SentenceTransformer, config: LoraConfig, seed: int) -> None:
    """Freeze `model` and add adapters, which change nothing until they are trained.

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
    """Whether the model has adapters that are not merged into its weights."""
    from peft import PeftModel

    return isinstance(getattr(model[0], "model", None), PeftModel)


def merged(model: SentenceTransformer) -> SentenceTransformer:
    """A model without adapters that gives the same embeddings: `model` itself, or a copy with the adapters merged."""
    if not has_lora(model):
        return model
    plain = copy.deepcopy(model)
    plain[0].model = plain[0].model.merge_and_unload()
    return plain.requires_grad_(True)


def freeze(model: SentenceTransformer, config: EncoderConfig) -> None:
    """Freeze what `config.freeze_layers` and `config.freeze_embeddings` say of the transformer in `model`.

    Raises:
        ModelError: the model has no transformer, or fewer layers, or nothing would be left to train.
    """
    from sentence_transformers.base.modules import Transformer

    if not config.freeze_layers and not config.freeze_embeddings:
        return
    first = model[0]
    if not isinstance(first, Transformer):
        raise ModelError(
            f"encoder.freeze_layers and encoder.freeze_embeddings need a transformer, and the first module of "
            f"'{config.backbone}' is {type(first).__name__}; leave both out"
        )
    layers = stack_of_layers(first.model)
    if config.freeze_layers > len(layers):
        raise ModelError(
            f"encoder.freeze_layers = {config.freeze_layers}, but '{config.backbone}' has {len(layers)} layers; "
            f"give 0 to {len(layers)}"
        )
    for layer in layers[: config.freeze_layers]:
        layer.requires_grad_(False)
    if config.freeze_embeddings:
        for module in embedding_modules(first.model, layers):
            module.requires_grad_(False)
    if not any(p.requires_grad for p in model.parameters()):
        raise ModelError(
            f"encoder.freeze_layers = {config.freeze_layers} and encoder.freeze_embeddings leave nothing of "
            f"'{config.backbone}' to train; freeze less"
        )


def stack_of_layers(network: nn.Module) -> nn.ModuleList:
    """The transformer layers, lowest first: of all lists of modules the one with the most parameters.

    Raises:
        ModelError: the network has no list of modules.
    """
    from torch import nn

    lists = [module for module in network.modules() if isinstance(module, nn.ModuleList)]
    if not lists:
        raise ModelError(
            f"{type(network).__name__} has no list of layers, which encoder.freeze_layers, encoder.freeze_embeddings "
            "and training.optimizer 'muon' need; leave them out"
        )
    # Of lists one inside the other (a layer's parts, a layer's experts) the outer one holds at least as many.
    return max(lists, key=_parameter_count)


def embedding_modules(network: nn.Module, layers: nn.ModuleList) -> Iterator[nn.Module]:
    """The modules between tokens and the lowest layer: the block around the token embeddings, with its normalisation,
    and every other embedding table outside the layers, such as that of positions."""
    from torch import nn

    inside = set(layers.modules())
    tokens = network.get_input_embeddings()  # type: ignore[operator]
    yield tokens
    for module in network.modules():
        if module in inside or layers in set(module.modules()):
            continue
        if isinstance(module, nn.Embedding) or tokens in set(module.modules()):
            yield module


def _parameter_count(module: nn.Module) -> int:
    # `ds_numel` is the size of a parameter that is spread over ranks (ZeRO-3) and empty here.
    return sum(getattr(parameter, "ds_numel", parameter.numel()) for parameter in module.parameters())
