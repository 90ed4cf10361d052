from __future__ import annotations

from pathlib import Path

import pytest
import torch
import transformers as hf

from hbtrain.config import load_config
from hbtrain.errors import ConfigError, ModelError
from hbtrain.modeling import Encoder
from hbtrain.modeling.embedding import embed
from hbtrain.modeling.loading import set_dropout
from tests.unit.tiny_models import TEXTS, encoder_config, save_bert

WIDE = {"hidden_size": 8, "num_attention_heads": 2, "intermediate_size": 12, "vocab_size": 30, "num_hidden_layers": 2}
DROPS = {"hidden_dropout_prob": 0.3, "attention_probs_dropout_prob": 0.3}
NETWORKS = {
    "bert": lambda how: hf.BertModel(hf.BertConfig(**WIDE, **DROPS, attn_implementation=how)),
    "xlm-roberta": lambda how: hf.XLMRobertaModel(hf.XLMRobertaConfig(**WIDE, **DROPS, attn_implementation=how)),
    "distilbert": lambda how: hf.DistilBertModel(
        hf.DistilBertConfig(
            vocab_size=30, dim=8, n_heads=2, hidden_dim=12, n_layers=2, attention_dropout=0.3, attn_implementation=how
        )
    ),
    "modernbert": lambda how: hf.ModernBertModel(
        hf.ModernBertConfig(**WIDE, pad_token_id=0, attention_dropout=0.3, mlp_dropout=0.3, attn_implementation=how)
    ),
    "qwen": lambda how: hf.Qwen2Model(
        hf.Qwen2Config(**WIDE, num_key_value_heads=1, attention_dropout=0.3, attn_implementation=how)
    ),
    "t5": lambda how: hf.T5EncoderModel(
        hf.T5Config(vocab_size=30, d_model=8, d_kv=4, d_ff=12, num_layers=2, num_heads=2, dropout_rate=0.3)
    ),
}


@pytest.mark.parametrize("attention", ["eager", "sdpa"])
@pytest.mark.parametrize("architecture", NETWORKS)
def test_no_dropout_is_the_pass_of_evaluation_and_another_probability_reaches_every_kernel(
    architecture: str, attention: str
) -> None:
    network = NETWORKS[architecture](attention)
    ids = torch.arange(4, 28).reshape(2, 12)

    def output(training: bool) -> torch.Tensor:
        torch.manual_seed(0)
        with torch.no_grad():
            return network.train(training)(input_ids=ids).last_hidden_state

    evaluated = output(training=False)
    assert not torch.equal(output(training=True), evaluated)
    set_dropout("a model", network, 0.0)
    assert torch.equal(output(training=True), evaluated)


def test_a_pretrained_encoder_takes_its_dropout_from_the_configuration(tmp_path: Path) -> None:
    folder = save_bert(tmp_path / "bert")

    def vectors(**changes: object) -> torch.Tensor:
        torch.manual_seed(0)
        encoder = Encoder.build(encoder_config(str(folder), **changes), lambda: [], 0)
        encoder.model.train()
        return embed(encoder.model, encoder.tokenize(TEXTS, "query"))

    as_saved = vectors()  # its files say 0
    assert torch.equal(vectors(dropout=0.0), as_saved)
    assert not torch.allclose(vectors(dropout=0.5), as_saved)


def test_what_has_no_dropout_takes_none_but_zero() -> None:
    plain = torch.nn.Linear(2, 2)
    set_dropout("a model", plain, 0.0)
    with pytest.raises(ModelError, match=r"model 'a model' has no dropout, so encoder\.dropout cannot be 0\.1"):
        set_dropout("a model", plain, 0.1)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"encoder.dropout": 0.1}, "dropout is for pretrained backbones; the backbone static has no dropout"),
        ({"encoder.backbone": "transformer", "encoder.dropout": 0}, r"encoder\.transformer\.dropout"),
        ({"encoder.backbone": "labse", "encoder.dropout": 1}, "less than 1"),
    ],
)
def test_a_dropout_that_cannot_be_is_refused(values: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        load_config("quickstart", values)
