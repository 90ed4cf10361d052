"""Decoders with last-token pooling: padding on either side, and the end-of-text token where the tokenizer adds one."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from sentence_transformers import SentenceTransformer
from tokenizers.processors import TemplateProcessing
from torch.nn import functional
from transformers import AutoModel, AutoTokenizer

from hbtrain.modeling import Encoder
from hbtrain.modeling.embedding import embed
from hbtrain.modeling.features import select_rows
from tests.unit.tiny_models import TEXTS, encoder_config, save_decoder


def save(folder: Path, side: str, adds_eos: bool) -> Path:
    """A decoder whose tokenizer pads on `side` and, as that of Qwen3-Embedding, may end each text with its EOS."""
    save_decoder(folder)
    tokenizer = AutoTokenizer.from_pretrained(folder, padding_side=side)
    tokenizer.eos_token = "[SEP]"
    if adds_eos:
        tokenizer.backend_tokenizer.post_processor = TemplateProcessing(
            single="$A [SEP]", special_tokens=[("[SEP]", tokenizer.eos_token_id)]
        )
    tokenizer.save_pretrained(folder)
    return folder


@pytest.mark.parametrize("adds_eos", [False, True])
@pytest.mark.parametrize("side", ["left", "right"])
def test_the_last_token_is_that_of_the_text_alone(tmp_path: Path, side: str, adds_eos: bool) -> None:
    path = save(tmp_path / "decoder", side, adds_eos)
    encoder = Encoder.build(encoder_config(str(path)), lambda: [], 0)
    features = encoder.tokenize(TEXTS, "query")
    mask = features["attention_mask"]
    assert mask[:, -1].all() if side == "left" else mask[:, 0].all(), "padded on the side that was asked for"
    assert not mask.all()
    vectors = embed(encoder.model, features)
    vectors[:, 0].sum().backward()
    some = select_rows(features, torch.tensor([6, 1]))
    torch.testing.assert_close(embed(encoder.model, some), vectors[[6, 1]], atol=1e-5, rtol=0)
    network, tokenizer = AutoModel.from_pretrained(path), AutoTokenizer.from_pretrained(path)
    for text, vector, row, used in zip(TEXTS, vectors, features["input_ids"], mask.bool(), strict=True):
        ids = tokenizer("Query: " + text, add_special_tokens=False).input_ids
        ids = [*ids[:11], tokenizer.eos_token_id] if adds_eos else ids[:12]
        assert row[used].tolist() == ids, "a text that is cut has its end-of-text token all the same"
        last = network(torch.tensor([ids])).last_hidden_state[0, -1]
        torch.testing.assert_close(vector, functional.normalize(last, dim=0), atol=1e-5, rtol=0)
    encoder.save(tmp_path / "saved")
    theirs = SentenceTransformer(str(tmp_path / "saved"), device="cpu")
    assert theirs.tokenizer.padding_side == side
    np.testing.assert_allclose(encoder.encode(TEXTS, "passage"), theirs.encode_document(TEXTS), atol=1e-5)
