"""Loading a pretrained model, and checking that all of it was loaded."""

from __future__ import annotations

import gc
import logging
import threading
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, NamedTuple

from hbtrain.errors import ModelError
from hbtrain.modeling.backbone import find_backbone
from hbtrain.modeling.model_files import ADAPTER, check_encoder_files, is_adapter, read_json
from hbtrain.reporting.text import counted, listed

if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer
    from torch import nn
    from transformers import PreTrainedModel

    from hbtrain.config.encoder import EncoderConfig

logger = logging.getLogger(__name__)

_TALKATIVE = ("sentence_transformers", "transformers.modeling_utils", "transformers.distributed.tensor_parallel")
"""Loggers that tell of weights and prompts at loading in words of another library's defaults, both of which are checked
here; the last lists all layers, as not spread over GPUs, where the second is quiet."""
_NAMED = 3  # weights that a message names
_METHOD = "from_pretrained"
_patching = threading.Lock()


@contextmanager
def without_garbage_collection() -> Iterator[None]:
    """No garbage collection while sentence-transformers is imported, since its many new objects would be scanned again
    and again."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()


class Loaded(NamedTuple):
    """A model, and sentences that say where it is used otherwise than its files say."""

    model: SentenceTransformer
    notes: list[str]


def load_pretrained(name: str, config: EncoderConfig | None, device: str, trust_remote_code: bool = False) -> Loaded:
    """A sentence-transformers model as it is, or a plain Hugging Face model with pooling on top.

    Its own Python code, if it has any, runs only where `trust_remote_code` says so or `config` names the model.

    Raises:
        ModelError: there is no such model, it is unsafe, makes no embeddings, is not whole, or the libraries cannot
            load it.
    """
    from sentence_transformers import SentenceTransformer

    from hbtrain.modeling.fitting import fit_tokenizers

    backbone = find_backbone(name, "model" if config is None else "encoder.backbone")
    check_encoder_files(backbone.name, backbone.is_sentence_transformer)
    trusted = trust_remote_code or (config is not None and config.trust_remote_code is not None)
    try:
        with watched_loading() as networks:
            if backbone.is_sentence_transformer:
                model = SentenceTransformer(
                    backbone.name, device=device, model_kwargs=_model_kwargs(config), trust_remote_code=trusted
                )
            else:
                model = with_pooling(backbone.name, config, device, trusted)
        notes = fit_tokenizers(name, model)
        check_loaded(name, model, networks)
        if config is not None and config.dropout is not None:
            set_dropout(name, model, config.dropout)
    except ModelError:
        raise
    except Exception as error:  # tokenizers and safetensors have errors of their own
        if not trusted and "trust_remote_code" in str(error):
            raise ModelError(
                f"model '{name}' comes with Python code of its own, which runs only if it is named: read it, then set "
                f"encoder.trust_remote_code (evaluate and search: --trust-remote-code) to '{name}'"
            ) from error
        if read_json(backbone.name, ADAPTER) is not None:
            raise is_adapter(name, backbone.name, "model") from error
        reason = " ".join(str(error).split())[:300] or type(error).__name__
        raise ModelError(f"model '{name}' cannot be loaded: {reason}") from error
    for note in notes:
        logger.warning("%s", note)
    return Loaded(model, notes)


def with_pooling(
    folder_or_name: str, config: EncoderConfig | None, device: str, trusted: bool = False
) -> SentenceTransformer:
    """A plain Hugging Face model with the pooling that `config` names, or that its attention asks for."""
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.base.modules import Transformer
    from sentence_transformers.sentence_transformer.modules import Pooling

    from hbtrain.modeling.fitting import natural_pooling

    trust = {"trust_remote_code": trusted}
    # Texts are embedded as they are: without this, a backbone with a chat template would get them as messages.
    module = Transformer(
        folder_or_name,
        model_kwargs=_model_kwargs(config) | trust,
        processor_kwargs=dict(trust),
        config_kwargs=dict(trust),
        modality_config={"text": {"method": "forward", "method_output_name": "last_hidden_state"}},
        module_output_name="token_embeddings",
    )
    pooling = config.pooling if config is not None else None
    modules: list[nn.Module] = [
        module,
        Pooling(module.get_embedding_dimension(), pooling or natural_pooling(module)),
    ]
    return SentenceTransformer(modules=modules, device=device)


def set_dropout(name: str, model: nn.Module, probability: float) -> None:
    """Give every dropout of a model one probability, in [0, 1).

    Most are modules of their own; some attentions keep the number, and hand it to the kernel.

    Raises:
        ModelError: the probability is above 0, and the model has no dropout.
    """
    from torch import nn

    found = False
    for module in model.modules():
        if isinstance(module, nn.Dropout):
            module.p = probability
            found = True
        for key, value in vars(module).items():
            if "dropout" in key and isinstance(value, (int, float)) and not isinstance(value, bool):
                setattr(module, key, probability)
                found = True
    if probability and not found:
        raise ModelError(f"model '{name}' has no dropout, so encoder.dropout cannot be {probability:g}; leave it out")


def _model_kwargs(config: EncoderConfig | None) -> dict[str, Any]:
    import torch

    if config is None:
        return {"use_safetensors": True}
    # Which networks take packed batches is known when they are loaded.
    attention = {} if config.attention in ("auto", "packed") else {"attn_implementation": config.attention}
    # Given at loading, because parameters that are spread over ranks (ZeRO-3) cannot be cast afterwards.
    dtype = torch.bfloat16 if config.precision == "bf16" else torch.float32
    return {"use_safetensors": True, "dtype": dtype, **attention}


Networks = list[tuple["PreTrainedModel", dict[str, Any]]]
"""Networks, each with what transformers says of its loading (`output_loading_info`)."""


@contextmanager
def watched_loading() -> Iterator[Networks]:
    """Collects the networks that are loaded while the body runs; sentence-transformers keeps to itself how it went."""
    from transformers import PreTrainedModel
    from transformers.integrations.deepspeed import is_deepspeed_zero3_enabled

    found: Networks = []
    loggers = [logging.getLogger(name) for name in _TALKATIVE]

    def from_pretrained(
        cls: type[PreTrainedModel], *args: Any, output_loading_info: bool = False, **kwargs: Any
    ) -> Any:
        told = {"output_loading_info": True, "ignore_mismatched_sizes": not is_deepspeed_zero3_enabled()}
        network, info = plain.__func__(cls, *args, **told | kwargs)
        found.append((network, info))
        return (network, info) if output_loading_info else network

    with _patching:
        plain, levels = PreTrainedModel.__dict__[_METHOD], [each.level for each in loggers]
        setattr(PreTrainedModel, _METHOD, classmethod(from_pretrained))  # type: ignore[arg-type]
        for each in loggers:
            each.setLevel(logging.ERROR)
        try:
            yield found
        finally:
            setattr(PreTrainedModel, _METHOD, plain)
            for each, level in zip(loggers, levels, strict=True):
                each.setLevel(level)


def check_loaded(name: str, model: SentenceTransformer, networks: Networks) -> None:
    """Check that the files of a model and its networks fit each other.

    Raises:
        ModelError: weights that its embeddings depend on are in none of its files, or its files hold weights of layers
            that the network does not have. Heads that embeddings do not depend on, such as a pooler, may be missing,
            and others may be left over.
    """
    from transformers.integrations.deepspeed import is_deepspeed_zero3_enabled

    if is_deepspeed_zero3_enabled():  # what is spread over ranks has been loaded whole before
        return
    for network, info in networks:
        for key, in_file, in_network in sorted(info["mismatched_keys"]):
            if _needed(model, network, [key]):
                raise ModelError(
                    f"model '{name}': {key} has the shape {list(in_file)} in its files and {list(in_network)} in its "
                    "network; config.json is of another model"
                )
        missing = sorted(info["missing_keys"])
        if missing and (needed := _needed(model, network, missing)):
            raise ModelError(
                f"model '{name}': its files lack {counted(len(needed), 'weight')} that its embeddings depend on "
                f"({listed(needed, _NAMED)}), and these would be random; config.json is of another model, the "
                "weights have other names, or files are missing"
            )
        if left_over := _left_over(network, info["unexpected_keys"]):
            raise ModelError(
                f"model '{name}': its files hold {counted(len(left_over), 'weight')} for which the layers of the "
                f"network have no place ({listed(left_over, _NAMED)}); config.json is of another model, or says "
                "too few layers"
            )


def _needed(model: SentenceTransformer, network: PreTrainedModel, missing: Sequence[str]) -> list[str]:
    """Those of the missing weights that embeddings depend on, found by a gradient."""
    import torch

    from hbtrain.modeling.fitting import without_flash_attention

    parameters = dict(network.named_parameters())
    needed = {key for key in missing if key not in parameters or not parameters[key].requires_grad}
    rest = [key for key in missing if key not in needed]
    for task in ("query", "document"):
        features = model.preprocess(["a"], task=task)
        on_device = {k: v.to(model.device) if isinstance(v, torch.Tensor) else v for k, v in features.items()}
        with torch.enable_grad(), without_flash_attention(network):
            vector = model(on_device, task=task)["sentence_embedding"]
            gradients = torch.autograd.grad(vector.sum(), [parameters[key] for key in rest], allow_unused=True)
        needed |= {key for key, gradient in zip(rest, gradients, strict=True) if gradient is not None}
    return sorted(needed)


def _left_over(network: PreTrainedModel, unexpected: Iterable[str]) -> list[str]:
    """Those of the unexpected weights that are inside the network's lists of layers."""
    from torch import nn

    layers = tuple(f"{path}." for path, module in network.named_modules() if isinstance(module, nn.ModuleList))
    prefix = f"{network.base_model_prefix}."
    # Earlier versions of transformers saved the masks of causal attention, too.
    masks = ("attn.bias", "attention.bias", "masked_bias")
    return sorted(key for key in unexpected if key.removeprefix(prefix).startswith(layers) and not key.endswith(masks))
