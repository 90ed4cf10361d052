"""What a model leaves open, or says otherwise than its network can: positions, padding, tokens, pooling, prompts."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from sentence_transformers import SentenceTransformer
from sentence_transformers.base.modules import Transformer
from sentence_transformers.sentence_transformer.modules import Pooling
from tokenizers.processors import BertProcessing
from transformers import (
    AutoModel,
    AutoTokenizer,
    BartConfig,
    BertConfig,
    BertLMHeadModel,
    GPT2Config,
    GPT2LMHeadModel,
    GPT2Model,
    LlamaConfig,
    LlamaModel,
    MambaConfig,
    MambaModel,
    MPNetConfig,
    OPTConfig,
    Qwen3Config,
    Qwen3ForCausalLM,
    Qwen3Model,
    T5Config,
    XLMRobertaConfig,
    XLMRobertaModel,
)

from hbtrain.errors import ModelError
from hbtrain.modeling import Encoder
from hbtrain.modeling.fitting import usable_positions
from tests.unit.tiny_models import TEXTS, encoder_config, save_bert, save_decoder, save_labse, save_mt5

SMALL = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 24}
DECODER = SMALL | {"num_key_value_heads": 1, "max_position_embeddings": 64}


@pytest.mark.parametrize(
    ("config", "positions"),
    [
        (BertConfig(max_position_embeddings=30, **SMALL), 30),
        (XLMRobertaConfig(max_position_embeddings=30, pad_token_id=1, **SMALL), 28),
        (MPNetConfig(max_position_embeddings=30, pad_token_id=1, **SMALL), 28),
        (GPT2Config(n_positions=30, n_embd=16, n_layer=1, n_head=2), 30),
        (BartConfig(max_position_embeddings=30, d_model=16, encoder_layers=1, decoder_layers=1), 30),
        (
            OPTConfig(
                max_position_embeddings=30, hidden_size=16, ffn_dim=16, num_hidden_layers=1, num_attention_heads=2
            ),
            30,
        ),
        (Qwen3Config(**DECODER), None),
        (T5Config(d_model=16, d_ff=16, num_layers=1), None),
    ],
    ids=lambda value: getattr(value, "model_type", None),
)
def test_positions_of_networks(config: Any, positions: int | None) -> None:
    with torch.device("meta"):
        assert usable_positions(AutoModel.from_config(config)) == positions


def save_xlm_r(folder: Path, **stated: Any) -> Path:
    """XLM-R with 22 positions, which hold 20 tokens; its tokenizer states another limit, or none."""
    tokenizer = AutoTokenizer.from_pretrained(save_bert(folder))
    torch.manual_seed(5)
    sizes = SMALL | {"vocab_size": len(tokenizer), "max_position_embeddings": 22, "type_vocab_size": 1}
    XLMRobertaModel(XLMRobertaConfig(pad_token_id=1, **sizes)).save_pretrained(folder)
    for name, value in stated.items():
        setattr(tokenizer, name, value)
    tokenizer.save_pretrained(folder)
    return folder


@pytest.mark.parametrize("stated", [{}, {"model_max_length": 512}, {"model_max_length": 21}])
def test_texts_are_cut_to_the_positions_of_the_network(tmp_path: Path, stated: dict[str, int]) -> None:
    encoder = Encoder.load(str(save_xlm_r(tmp_path / "model", **stated)), device="cpu")
    assert len(encoder.tokenize(["hello " * 90], "query")["input_ids"][0]) == 20
    assert any("texts are cut to 20 tokens" in note for note in encoder.notes)
    assert np.isfinite(encoder.encode(["hello " * 90, "a"], "passage")).all()


def test_a_limit_in_the_folder_gives_way_to_the_network_and_a_lower_one_stays(tmp_path: Path) -> None:
    modules = [Transformer(str(save_xlm_r(tmp_path / "network"))), Pooling(16, "mean")]
    SentenceTransformer(modules=modules, device="cpu").save(str(tmp_path / "model"))
    for limit, kept, told in ((400, 20, True), (9, 9, False)):
        for name, key in (
            ("tokenizer_config.json", "model_max_length"),
            ("sentence_bert_config.json", "max_seq_length"),
        ):
            file = tmp_path / "model" / name
            file.write_text(json.dumps(json.loads(file.read_text()) | {key: limit}))
        encoder = Encoder.load(str(tmp_path / "model"), device="cpu")
        assert len(encoder.tokenize(["hello " * 90], "query")["input_ids"][0]) == kept
        assert bool(encoder.notes) == told


def test_training_and_audit_cut_at_the_same_length(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    from hbtrain.modeling.tokens import tokenizer_of

    path = save_xlm_r(tmp_path / "model")
    config = encoder_config(str(path), max_passage_tokens=60)
    encoder = Encoder.build(config, lambda: [], 0)
    assert encoder.max_tokens == {"query": 12, "passage": 20}
    assert "the backbone reads 20 tokens at most" in caplog.text
    alone = tokenizer_of(config, lambda: []).tokenize(["hello " * 90], "passage")
    assert alone["input_ids"].tolist() == encoder.tokenize(["hello " * 90], "passage")["input_ids"].tolist()


def save_gpt2(folder: Path, padding: str | None, side: str = "right") -> Path:
    tokenizer = AutoTokenizer.from_pretrained(save_bert(folder), padding_side=side)
    tokenizer.pad_token, tokenizer.eos_token = padding, "[SEP]"
    torch.manual_seed(6)
    GPT2LMHeadModel(
        GPT2Config(vocab_size=len(tokenizer), n_embd=16, n_layer=1, n_head=2, n_positions=64, initializer_range=0.5)
    ).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


@pytest.mark.parametrize("side", ["left", "right"])
@pytest.mark.parametrize("padding", [None, "[PAD]"])
def test_a_batch_gives_what_each_text_gives_alone(tmp_path: Path, padding: str | None, side: str) -> None:
    encoder = Encoder.load(str(save_gpt2(tmp_path / "gpt", padding, side)), device="cpu")
    together = encoder.encode(TEXTS, "query")
    np.testing.assert_allclose(together, encoder.encode(TEXTS, "query", batch_size=1), atol=1e-5)
    assert any("no padding token" in note and "[SEP]" in note for note in encoder.notes) == (padding is None)


def test_the_padding_that_was_chosen_is_saved(tmp_path: Path) -> None:
    path = save_gpt2(tmp_path / "gpt", None)
    encoder = Encoder.build(encoder_config(str(path)), lambda: [], 0)
    encoder.save(tmp_path / "saved")
    theirs = SentenceTransformer(str(tmp_path / "saved"), device="cpu")
    np.testing.assert_allclose(encoder.encode(TEXTS, "query"), theirs.encode_query(TEXTS), atol=1e-5)
    assert not Encoder.load(str(tmp_path / "saved"), device="cpu").notes


@pytest.mark.parametrize("make", [save_bert, save_labse, save_decoder, save_mt5])
def test_a_tokenizer_with_more_tokens_than_embeddings_is_refused(tmp_path: Path, make: Any) -> None:
    path = make(tmp_path / "wide")
    tokenizer = AutoTokenizer.from_pretrained(path)
    rows = AutoModel.from_pretrained(path).get_input_embeddings().num_embeddings
    tokenizer.add_tokens(["Danube", "Drau"])
    tokenizer.save_pretrained(path)
    for load in (Encoder.load, lambda name: Encoder.build(encoder_config(name), lambda: [], 0)):
        with pytest.raises(
            ModelError, match=rf"has {len(tokenizer)} tokens and its network embeddings for {rows}.*2 have"
        ):
            load(str(path))


def test_a_table_of_token_vectors_is_checked_too(tmp_path: Path) -> None:
    Encoder.build(encoder_config("static"), lambda: TEXTS, 0).save(tmp_path / "static")
    file = tmp_path / "static" / "tokenizer.json"
    content = json.loads(file.read_text())
    content["model"]["vocab"]["Danube"] = len(content["model"]["vocab"])
    file.write_text(json.dumps(content))
    with pytest.raises(ModelError, match="1 have none, such as 'Danube'"):
        Encoder.load(str(tmp_path / "static"))


def test_a_special_token_beyond_the_table_counts_where_it_is_put(tmp_path: Path) -> None:
    path = save_bert(tmp_path / "bert")
    tokenizer = AutoTokenizer.from_pretrained(path)
    tokenizer.add_special_tokens({"additional_special_tokens": ["[QUERY]"]})
    tokenizer.save_pretrained(path)
    encoder = Encoder.load(str(path), device="cpu")
    encoder.encode(TEXTS, "query")
    with pytest.raises(ModelError, match=rf"a query has the token {len(tokenizer) - 1}, and"):
        encoder.encode([*TEXTS, "[QUERY] hello"], "query")
    number = tokenizer.convert_tokens_to_ids("[QUERY]")
    tokenizer.backend_tokenizer.post_processor = BertProcessing(("[SEP]", 3), ("[QUERY]", number))
    tokenizer.save_pretrained(path)
    with pytest.raises(ModelError, match=r"1 have none, such as '\[QUERY\]'"):
        Encoder.load(str(path), device="cpu")


@pytest.mark.parametrize(
    ("network", "config", "pooling"),
    [
        (GPT2Model, GPT2Config(n_embd=16, n_layer=1, n_head=2), "lasttoken"),
        (LlamaModel, LlamaConfig(**DECODER), "lasttoken"),
        (Qwen3Model, Qwen3Config(**DECODER, head_dim=8), "lasttoken"),
        (Qwen3ForCausalLM, Qwen3Config(**DECODER, head_dim=8), "lasttoken"),
        (Qwen3ForCausalLM, Qwen3Config(**DECODER, head_dim=8, is_causal=False), "mean"),
        (MambaModel, MambaConfig(hidden_size=16, num_hidden_layers=1, state_size=4), "lasttoken"),
        (BertLMHeadModel, BertConfig(**SMALL), "mean"),
        (XLMRobertaModel, XLMRobertaConfig(**SMALL), "mean"),
    ],
    ids=lambda value: getattr(value, "__name__", None),
)
def test_causal_networks_are_pooled_by_their_last_token(
    tmp_path: Path, network: Any, config: Any, pooling: str
) -> None:
    tokenizer = AutoTokenizer.from_pretrained(save_bert(tmp_path))
    (tmp_path / "tokenizer_config.json").write_text(
        json.dumps({"tokenizer_class": "PreTrainedTokenizerFast", "pad_token": "[PAD]", "unk_token": "[UNK]"})
    )
    torch.manual_seed(7)
    config.vocab_size = len(tokenizer)
    network(config).save_pretrained(tmp_path)
    encoder = Encoder.load(str(tmp_path), device="cpu")
    assert encoder.model[1].pooling_mode == pooling
    asked = Encoder.load(str(tmp_path), encoder_config(str(tmp_path), pooling="cls"), device="cpu")
    assert asked.model[1].pooling_mode == "cls"


def test_stored_prompts_that_are_not_used_are_offered(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    stored = {"query": "q: ", "s2p_query": "Find: ", "classify": "Sort: ", "nothing": ""}
    path = str(save_labse(tmp_path, prompts=stored, default_prompt_name="classify"))
    caplog.clear()
    encoder = Encoder.load(path, device="cpu")
    assert encoder.prefixes == {"query": "q: ", "passage": ""}
    (note,) = encoder.notes
    assert "classify ('Sort: '), s2p_query ('Find: ')" in note
    assert "--query-prompt" in note
    assert "nothing" not in note
    assert "applies unless" not in caplog.text, "in sentence-transformers it would"
    given = Encoder.load(path, device="cpu", prompts={"query": "Find: ", "passage": ""})
    assert given.prefixes == {"query": "Find: ", "passage": ""}
    assert not given.notes


def test_a_model_whose_vectors_are_all_equal_is_told(tmp_path: Path) -> None:
    encoder = Encoder.build(encoder_config("static"), lambda: TEXTS, 0)
    encoder.encode(TEXTS, "query")
    assert not encoder.notes
    encoder.model[0].embedding.weight.data[:] = torch.linspace(-1, 1, encoder.dimension)
    encoder.encode(["hello"], "query")
    encoder.encode(["hello", "hello"], "query")
    assert not encoder.notes, "one text has one vector"
    encoder.encode(TEXTS, "passage")
    assert "all 8 different texts of a passage have one and the same vector" in encoder.notes[0]
