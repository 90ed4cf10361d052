from __future__ import annotations

from pathlib import Path

import pytest
import torch
import transformers as hf
from torch import nn

from hbtrain.config import load_config
from hbtrain.config.encoder import EncoderConfig
from hbtrain.errors import ConfigError, ModelError
from hbtrain.modeling import Encoder
from hbtrain.modeling.adapters import embedding_modules, stack_of_layers
from hbtrain.modeling.embedding import embed
from tests.unit.tiny_models import TEXTS, encoder_config, save_bert, save_decoder, save_labse

WIDE = {"hidden_size": 8, "num_attention_heads": 2, "intermediate_size": 12, "vocab_size": 30}
ARCHITECTURES = {
    "bert": (hf.BertModel(hf.BertConfig(**WIDE, num_hidden_layers=3)), "encoder.layer.", "embeddings."),
    "xlm-roberta": (
        hf.XLMRobertaModel(hf.XLMRobertaConfig(**WIDE, num_hidden_layers=3)),
        "encoder.layer.",
        "embeddings.",
    ),
    "distilbert": (
        hf.DistilBertModel(hf.DistilBertConfig(vocab_size=30, dim=8, n_heads=2, hidden_dim=12, n_layers=3)),
        "transformer.layer.",
        "embeddings.",
    ),
    "modernbert": (
        hf.ModernBertModel(hf.ModernBertConfig(**WIDE, num_hidden_layers=3, pad_token_id=0)),
        "layers.",
        "embeddings.",
    ),
    "qwen": (
        hf.Qwen2Model(hf.Qwen2Config(**WIDE, num_key_value_heads=1, num_hidden_layers=3)),
        "layers.",
        "embed_tokens.",
    ),
    "t5": (
        hf.T5EncoderModel(hf.T5Config(vocab_size=30, d_model=8, d_kv=4, d_ff=12, num_layers=3, num_heads=2)),
        "encoder.block.",
        "shared.",
    ),
    "gpt2": (hf.GPT2Model(hf.GPT2Config(vocab_size=30, n_embd=8, n_head=2, n_layer=3)), "h.", ("wte.", "wpe.")),
    "mixtral": (
        hf.MixtralModel(hf.MixtralConfig(**WIDE, num_key_value_heads=1, num_hidden_layers=3, num_local_experts=2)),
        "layers.",
        "embed_tokens.",
    ),
}


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_layers_and_embeddings_are_found_in_every_architecture(architecture: str) -> None:
    network, layers, embeddings = ARCHITECTURES[architecture]
    network.requires_grad_(True)
    stack = stack_of_layers(network)
    assert len(stack) == 3
    stack[:2].requires_grad_(False)
    frozen = {name for name, p in network.named_parameters() if not p.requires_grad}
    assert frozen == {n for n, _ in network.named_parameters() if n.startswith((f"{layers}0.", f"{layers}1."))}
    network.requires_grad_(True)
    for module in embedding_modules(network, stack):
        module.requires_grad_(False)
    frozen = {name for name, p in network.named_parameters() if not p.requires_grad}
    assert frozen == {n for n, _ in network.named_parameters() if n.startswith(embeddings)}
    assert frozen


@pytest.mark.parametrize("save_backbone", [save_labse, save_decoder])
def test_frozen_weights_stay_and_the_others_move(tmp_path: Path, save_backbone: object) -> None:
    path = save_backbone(tmp_path / "backbone")  # type: ignore[operator]
    config = encoder_config(str(path), freeze_layers=1, freeze_embeddings=True, gradient_checkpointing=True)
    encoder = Encoder.build(config, lambda: [], 0)
    before = {name: p.detach().clone() for name, p in encoder.model.named_parameters()}
    optimizer = torch.optim.AdamW([p for p in encoder.model.parameters() if p.requires_grad], lr=0.01)
    encoder.model.train()
    q_BD, p_BD = (embed(encoder.model, encoder.tokenize(TEXTS, side)) for side in ("query", "passage"))  # type: ignore[arg-type]
    nn.functional.cross_entropy(q_BD @ p_BD.T / 0.05, torch.arange(len(TEXTS))).backward()
    optimizer.step()
    for name, parameter in encoder.model.named_parameters():
        stays = "embed" in name or "layer.0." in name or "layers.0." in name or "pooler" in name
        assert torch.equal(parameter, before[name]) is stays, name


def test_too_many_layers_are_named_with_what_is_allowed(tmp_path: Path) -> None:
    path = str(save_bert(tmp_path))
    with pytest.raises(ModelError, match=r"freeze_layers = 3, but .* has 2 layers; give 0 to 2"):
        Encoder.build(encoder_config(path, freeze_layers=3), lambda: [], 0)
    Encoder.build(encoder_config(path, freeze_layers=2), lambda: [], 0)


def test_something_must_be_left_to_train() -> None:
    config = encoder_config("transformer", freeze_layers=2, freeze_embeddings=True)
    with pytest.raises(ModelError, match="nothing of 'transformer' to train"):
        Encoder.build(config, lambda: TEXTS, 0)


def test_a_saved_static_encoder_has_no_layers(tmp_path: Path) -> None:
    Encoder.build(encoder_config("static"), lambda: TEXTS, 0).save(tmp_path / "static")
    with pytest.raises(ModelError, match="StaticEmbedding"):
        Encoder.build(encoder_config(str(tmp_path / "static"), freeze_layers=1), lambda: TEXTS, 0)


@pytest.mark.parametrize(
    ("overrides", "words"),
    [
        ({"encoder.backbone": "static", "encoder.freeze_layers": 1}, ["static", "freeze_layers", "0"]),
        ({"encoder.backbone": "static", "encoder.freeze_embeddings": True}, ["static", "freeze_embeddings", "false"]),
        ({"encoder.backbone": "transformer", "encoder.freeze_layers": 3}, ["freeze_layers = 3", "layers = 2"]),
        (
            {"encoder.backbone": "labse", "encoder.freeze_layers": 1, "encoder.lora": {"rank": 2}},
            ["lora", "freeze_layers", "leave"],
        ),
    ],
)
def test_what_cannot_be_frozen_is_known_from_the_configuration(overrides: dict[str, object], words: list[str]) -> None:
    with pytest.raises(ConfigError) as error:
        load_config("quickstart", overrides)
    for word in words:
        assert word in str(error.value)


def test_nothing_is_frozen_by_default() -> None:
    config = EncoderConfig(backbone="transformer")
    assert config.freeze_layers == 0
    assert not config.freeze_embeddings
