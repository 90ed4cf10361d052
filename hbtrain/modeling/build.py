"""Making a SentenceTransformer from a configuration, with random weights or from a pretrained backbone."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterable
from itertools import chain
from typing import TYPE_CHECKING, Any

from hbtrain.errors import ModelError
from hbtrain.modeling.backbone import check_weights, find_backbone
from hbtrain.modeling.vocabulary import (
    SPECIAL_TOKENS,
    build_tokenizer,
    load_vocabulary,
    train_vocabulary,
    trim_vocabulary,
)

if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer
    from torch import nn

    from hbtrain.config.schema import EncoderConfig, StaticConfig, TransformerConfig

STATIC_INITIAL_STD = 1.0
"""Standard deviation of the initial token vectors of a static encoder.

Embeddings are normalised, so only the ratio of step to scale matters: AdamW moves a coordinate by about the learning
rate a step. Random vectors already match a word with itself, which is most of monolingual retrieval here, and words
that training never sees keep that only while trained vectors do not dwarf theirs. A smaller start aligns languages
sooner but loses it. 500 hybrid steps of batch 256 at a learning rate of 0.02, one seed, mean reciprocal rank on six
languages of XQuAD-R, same language and English to the others: 0.486 and 0.043 at 1; 0.461 and 0.073 at 0.1; 0.431 and
0.070 at 0.02. With a start at 1, learning rates of 0.05 to 0.2 reach both.
"""

Texts = Callable[[], Iterable[str]]


def build_static(config: EncoderConfig, texts: Texts) -> SentenceTransformer:
    """A static encoder, whose embedding is the mean of token vectors; these are random. The vocabulary is read from a
    file or trained on `texts()`."""
    import torch
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.sentence_transformer.modules import StaticEmbedding

    pieces = _vocabulary(config, config.static, texts)
    weights = torch.randn(len(pieces), config.static.dimension) * STATIC_INITIAL_STD
    module = StaticEmbedding(build_tokenizer(pieces), embedding_weights=weights)
    return SentenceTransformer(modules=[module], device="cpu")


def build_transformer(config: EncoderConfig, texts: Texts) -> SentenceTransformer:
    """A small BERT-like encoder with random weights and mean pooling.

    It is a DistilBERT: BERT's layers without the pooler and the segment embeddings, which nothing here would train.
    """
    from tokenizers.processors import BertProcessing
    from transformers import DistilBertConfig, DistilBertModel, PreTrainedTokenizerFast

    section = config.transformer
    pieces = _vocabulary(config, section, texts)
    tokenizer = build_tokenizer(pieces)
    tokenizer.post_processor = BertProcessing(("[SEP]", pieces.index("[SEP]")), ("[CLS]", pieces.index("[CLS]")))
    names = ("pad_token", "unk_token", "cls_token", "sep_token", "mask_token")
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        model_max_length=section.max_positions,
        model_input_names=["input_ids", "attention_mask"],
        **dict(zip(names, SPECIAL_TOKENS, strict=True)),
    )
    network = DistilBertModel(
        DistilBertConfig(
            vocab_size=len(pieces),
            max_position_embeddings=section.max_positions,
            n_layers=section.layers,
            n_heads=section.heads,
            dim=section.hidden_size,
            hidden_dim=section.intermediate_size,
            dropout=section.dropout,
            attention_dropout=section.dropout,
            pad_token_id=pieces.index("[PAD]"),
        )
    )
    # sentence-transformers loads a transformer only from a folder.
    with tempfile.TemporaryDirectory() as folder:
        network.save_pretrained(folder)
        fast.save_pretrained(folder)
        return _with_pooling(folder, config, "cpu")


def load_pretrained(
    name: str, config: EncoderConfig | None, device: str, trust_remote_code: bool = False
) -> SentenceTransformer:
    """A sentence-transformers model as it is, or a plain Hugging Face model with pooling on top.

    Its own Python code, if it has any, runs only where `trust_remote_code` says so or `config` names the model.

    Raises:
        ModelError: there is no such model, it is unsafe, or the libraries cannot load it.
    """
    from sentence_transformers import SentenceTransformer

    backbone = find_backbone(name)
    check_weights(backbone.name, backbone.is_sentence_transformer)
    trusted = trust_remote_code or (config is not None and config.trust_remote_code is not None)
    try:
        if not backbone.is_sentence_transformer:
            return _with_pooling(backbone.name, config, device, trusted)
        return SentenceTransformer(
            backbone.name, device=device, model_kwargs=_model_kwargs(config), trust_remote_code=trusted
        )
    except (ImportError, KeyError, OSError, RuntimeError, TypeError, ValueError) as error:
        if not trusted and "trust_remote_code" in str(error):
            raise ModelError(
                f"model '{name}' comes with Python code of its own, which runs only if it is named: read it, then set "
                f"encoder.trust_remote_code (evaluate and search: --trust-remote-code) to '{name}'"
            ) from error
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise ModelError(f"model '{name}' cannot be loaded: {reason}") from error


def _vocabulary(config: EncoderConfig, section: StaticConfig | TransformerConfig, texts: Texts) -> list[str]:
    def prefixed_texts() -> Iterable[str]:
        return chain((config.query_prefix, config.passage_prefix), texts())

    if section.vocabulary is None:
        return train_vocabulary(prefixed_texts, section.vocabulary_size)
    pieces = load_vocabulary(section.vocabulary)
    return trim_vocabulary(pieces, prefixed_texts()) if section.trim else pieces


def _with_pooling(
    folder_or_name: str, config: EncoderConfig | None, device: str, trusted: bool = False
) -> SentenceTransformer:
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.base.modules import Transformer
    from sentence_transformers.sentence_transformer.modules import Pooling

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
        Pooling(module.get_embedding_dimension(), pooling or _natural_pooling(module.config)),
    ]
    return SentenceTransformer(modules=modules, device=device)


def _natural_pooling(config: Any) -> str:
    """`lasttoken` for a causal language model, whose last token alone has seen the whole text, else `mean`."""
    architectures = getattr(config, "architectures", None) or [""]
    causal = architectures[0].endswith("ForCausalLM") and getattr(config, "is_causal", True)
    return "lasttoken" if causal else "mean"


def _model_kwargs(config: EncoderConfig | None) -> dict[str, Any]:
    import torch

    if config is None:
        return {"use_safetensors": True}
    attention = {} if config.attention == "auto" else {"attn_implementation": config.attention}
    # Given at loading, because parameters that are spread over ranks (ZeRO-3) cannot be cast afterwards.
    dtype = torch.bfloat16 if config.precision == "bf16" else torch.float32
    return {"use_safetensors": True, "dtype": dtype, **attention}
