"""Tokens without a network are those of the encoder."""

import pytest

from hbtrain.errors import ModelError
from hbtrain.modeling.encoder import Encoder
from hbtrain.modeling.features import token_counts
from hbtrain.modeling.tokens import tokenizer_of
from tests.unit.tiny_models import TEXTS, encoder_config, save_bert, save_decoder, save_labse


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    root = tmp_path_factory.mktemp("models")
    static = Encoder.build(encoder_config("static"), lambda: TEXTS, 0)
    static.save(root / "static")
    return {
        "bert": str(save_bert(root / "plain")),
        "labse": str(save_labse(root / "labse")),
        "decoder": str(save_decoder(root / "decoder")),
        "saved": str(root / "static"),
    }


@pytest.mark.parametrize("backbone", ["static", "transformer", "bert", "labse", "decoder", "saved"])
def test_tokens_are_the_encoders(folders, backbone):
    config = encoder_config(folders.get(backbone, backbone), query_prefix="Frage: ")
    encoder = Encoder.build(config, lambda: TEXTS, 0)
    alone = tokenizer_of(config, lambda: TEXTS)
    for side in ("query", "passage"):
        expected, found = encoder.tokenize(TEXTS, side), alone.tokenize(TEXTS, side)
        assert token_counts(found).tolist() == token_counts(expected).tolist()
        assert found["input_ids"].tolist() == expected["input_ids"].tolist()


@pytest.mark.parametrize(
    ("backbone", "packs"),
    [("static", False), ("transformer", True), ("bert", True), ("labse", True), ("decoder", False), ("saved", False)],
)
def test_texts_are_packed_where_training_on_gpus_would(folders, backbone, packs):
    config = encoder_config(folders.get(backbone, backbone))
    bf16 = config.model_copy(update={"precision": "bf16"})
    assert tokenizer_of(bf16, lambda: TEXTS, on_gpus=True).packs == packs
    assert not tokenizer_of(bf16, lambda: TEXTS).packs
    assert not tokenizer_of(config, lambda: TEXTS, on_gpus=True).packs
    if packs:
        asked = config.model_copy(update={"attention": "packed"})
        assert tokenizer_of(asked, lambda: TEXTS).packs


def test_a_tokenizer_that_is_not_there_is_said(folders, tmp_path):
    folder = tmp_path / "no-tokenizer"
    folder.mkdir()
    (folder / "config.json").write_text('{"model_type": "bert"}')
    with pytest.raises(ModelError, match="has no tokenizer"):
        tokenizer_of(encoder_config(str(folder)), lambda: TEXTS)
