"""Making a SentenceTransformer from a configuration, with random weights; making one ready to be trained."""

from __future__ import annotations

import logging
import tempfile
from collections.abc import Callable, Iterable
from itertools import chain
from typing import TYPE_CHECKING

from hbtrain.errors import ModelError
from hbtrain.modeling.loading import with_pooling
from hbtrain.modeling.vocabulary import (
    SPECIAL_TOKENS,
    build_tokenizer,
    load_vocabulary,
    train_vocabulary,
    trim_vocabulary,
)

if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer

    from hbtrain.config.encoder import EncoderConfig, StaticConfig, TransformerConfig

logger = logging.getLogger(__name__)

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
        return with_pooling(folder, config, "cpu")


def made_trainable(model: SentenceTransformer, config: EncoderConfig) -> int:
    """Give a model what the configuration says of it, adapters excepted, in place; returns the most tokens of a text.

    Raises:
        ModelError: it cannot be trained in this way.
    """
    from sentence_transformers.base.modules import Normalize, Router

    from hbtrain.modeling.adapters import freeze
    from hbtrain.modeling.compiling import check_layers
    from hbtrain.modeling.fitting import limit_length
    from hbtrain.modeling.packing import FLASH, PACKED, can_pack, pack

    if isinstance(model[0], Router):
        raise ModelError(
            f"encoder.backbone '{config.backbone}' has separate query and passage encoders; "
            "hbtrain trains one encoder for both, take another backbone"
        )
    if not isinstance(model[-1], Normalize):
        model.add_module(str(len(model)), Normalize())
    if config.precision == "fp32":
        model.float()
    if config.gradient_checkpointing:
        model.gradient_checkpointing_enable({"use_reentrant": False})
    freeze(model, config)
    if config.compile:
        check_layers(model)
    if config.attention == PACKED or (config.attention == FLASH and can_pack(model)):
        pack(model)
    # "document" is the name that SentenceTransformer.encode_document looks for first.
    model.prompts = {
        "query": config.query_prefix, "passage": config.passage_prefix, "document": config.passage_prefix
    }  # fmt: skip
    model.default_prompt_name = None
    model.similarity_fn_name = "cosine"  # by which it is trained
    wanted = max(config.max_query_tokens, config.max_passage_tokens)
    limit = limit_length(model, wanted)
    if limit < wanted:
        logger.warning("the backbone reads %d tokens at most; longer texts are cut to that", limit)
    return limit


def _vocabulary(config: EncoderConfig, section: StaticConfig | TransformerConfig, texts: Texts) -> list[str]:
    def prefixed_texts() -> Iterable[str]:
        return chain((config.query_prefix, config.passage_prefix), texts())

    if section.vocabulary is None:
        return train_vocabulary(prefixed_texts, section.vocabulary_size)
    pieces = load_vocabulary(section.vocabulary)
    return trim_vocabulary(pieces, prefixed_texts()) if section.trim else pieces
