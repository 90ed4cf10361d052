"""Tiny models with random weights, made on the fly, in the shapes that real backbones come in."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from sentence_transformers import SentenceTransformer
from sentence_transformers.base.modules import Dense, Normalize, Transformer
from sentence_transformers.sentence_transformer.modules import Pooling
from transformers import (
    BertConfig,
    BertModel,
    MT5Config,
    MT5ForConditionalGeneration,
    PreTrainedTokenizerFast,
    Qwen2Config,
    Qwen2ForCausalLM,
    XLMRobertaConfig,
    XLMRobertaModel,
)

from hbtrain.config.encoder import EncoderConfig, StaticConfig, TransformerConfig
from hbtrain.modeling.vocabulary import build_tokenizer, train_vocabulary

TEXTS = [
    "Guten Tag, Welt! Ärger mit Ünïcode.",
    "hello world, how are you today?",
    "東京は日本の首都です。",
    "สวัสดีชาวโลก",
    "Où est la gare, s'il vous plaît ?",
    "Как пройти в библиотеку?",
    "a",
    "hello world " * 30,
]
VOCABULARY_SIZE = 240


def encoder_config(backbone: str, **changes: Any) -> EncoderConfig:
    sections = {
        "static": StaticConfig(dimension=16, vocabulary_size=VOCABULARY_SIZE),
        "transformer": TransformerConfig(
            hidden_size=16, heads=2, intermediate_size=24, vocabulary_size=VOCABULARY_SIZE, max_positions=64
        ),
        "max_query_tokens": 12,
        "max_passage_tokens": 20,
    }
    return EncoderConfig.model_validate({"backbone": backbone, **sections, **changes})


def save_bert(folder: Path) -> Path:
    """A plain Hugging Face encoder, without pooling."""
    torch.manual_seed(1)
    tokenizer = _tokenizer()
    config = BertConfig(
        vocab_size=len(tokenizer),
        hidden_size=16,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=24,
        max_position_embeddings=64,
        hidden_dropout_prob=0.0,
        attention_probs_dropout_prob=0.0,
    )
    BertModel(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def save_xlm_roberta(folder: Path) -> Path:
    """A plain encoder of the RoBERTa family, which numbers positions from its padding token's id plus one: 2."""
    torch.manual_seed(4)
    tokenizer = _tokenizer(first=("[UNK]", "[PAD]"))
    config = XLMRobertaConfig(
        vocab_size=len(tokenizer),
        hidden_size=16,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=24,
        max_position_embeddings=66,
        type_vocab_size=1,
        pad_token_id=tokenizer.pad_token_id,
        initializer_range=0.2,
    )
    XLMRobertaModel(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def save_decoder(folder: Path, chat_template: str | None = None) -> Path:
    """A plain causal language model."""
    torch.manual_seed(2)
    tokenizer = _tokenizer()
    tokenizer.chat_template = chat_template
    config = Qwen2Config(
        vocab_size=len(tokenizer),
        hidden_size=16,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=1,
        intermediate_size=24,
        max_position_embeddings=64,
    )
    Qwen2ForCausalLM(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def save_mt5(folder: Path) -> Path:
    """An encoder with a decoder, as mT5 is published; only its encoder embeds texts."""
    torch.manual_seed(3)
    tokenizer = _tokenizer()
    config = MT5Config(
        vocab_size=len(tokenizer), d_model=16, d_kv=8, d_ff=24, num_layers=2, num_decoder_layers=3, num_heads=2,
        dropout_rate=0.0, decoder_start_token_id=0, pad_token_id=tokenizer.pad_token_id,
    )  # fmt: skip
    MT5ForConditionalGeneration(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def save_labse(folder: Path, **changes: Any) -> Path:
    """LaBSE's modules: transformer, CLS pooling, a dense layer with tanh, normalisation."""
    bert = Transformer(str(save_bert(folder / "bert")))
    torch.manual_seed(3)
    modules = [bert, Pooling(16, "cls"), Dense(16, 10), Normalize()]
    SentenceTransformer(modules=modules, device="cpu", **changes).save(str(folder / "model"))
    return folder / "model"


def _tokenizer(first: tuple[str, ...] = ()) -> PreTrainedTokenizerFast:
    """A tokenizer whose vocabulary begins with some pieces."""
    pieces = train_vocabulary(lambda: TEXTS, VOCABULARY_SIZE)
    return PreTrainedTokenizerFast(
        tokenizer_object=build_tokenizer([*first, *(piece for piece in pieces if piece not in first)]),
        pad_token="[PAD]",
        unk_token="[UNK]",
        cls_token="[CLS]",
        sep_token="[SEP]",
        mask_token="[MASK]",
    )
