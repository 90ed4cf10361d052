"""Features that are padded here are those of sentence-transformers."""

import pytest
import torch

from hbtrain.modeling.encoder import Encoder
from hbtrain.modeling.features import gives_rows
from tests.unit.tiny_models import TEXTS, encoder_config, save_bert, save_decoder, save_labse


@pytest.mark.parametrize("make", [save_bert, save_labse, save_decoder, None], ids=["bert", "labse", "decoder", "built"])
@pytest.mark.parametrize("side", ["left", "right"])
def test_features_are_those_of_sentence_transformers(tmp_path, make, side):
    config = encoder_config("transformer" if make is None else str(make(tmp_path / "model")))
    encoder = Encoder.build(config, lambda: TEXTS, 0)
    encoder.model[0].processor.padding_side = side
    assert gives_rows(encoder.model)
    for what, limit, prefix in (("query", 12, "Query: "), ("passage", 20, "Passage: ")):
        expected = encoder.model.preprocess(TEXTS, prompt=prefix, max_length=limit)
        found = encoder.tokenize(TEXTS, what)
        tensors = {name: value for name, value in expected.items() if isinstance(value, torch.Tensor)}
        assert set(found) - {"prompt_length"} == set(tensors)
        for name, value in tensors.items():
            assert torch.equal(found[name], value), name
        assert found["input_ids"].dtype == torch.int64


ODD = ["[SEP] and [CLS]", "</s><s>", "https://example.org/cat.png", "", " \t ", "\ufdfa" * 9, *TEXTS]


@pytest.mark.parametrize("make", [save_bert, save_decoder, None], ids=["bert", "decoder", "built"])
@pytest.mark.parametrize("split", [False, True])
def test_odd_texts_and_limits_of_a_model_are_those_of_sentence_transformers(tmp_path, make, split):
    config = encoder_config("transformer" if make is None else str(make(tmp_path / "model")))
    encoder = Encoder.build(config, lambda: TEXTS, 0)
    first = encoder.model[0]
    first.processor.split_special_tokens = split
    for own_limit, query_limit in ((64, None), (9, None), (10**30, None), (64, 5)):
        first.processor.model_max_length, first.query_length = own_limit, query_limit
        for side, task in (("query", "query"), ("passage", "document")):
            expected = encoder.model.preprocess(ODD, prompt=encoder.prefixes[side], task=task)
            found = encoder._preprocessor(ODD, encoder.prefixes[side], task)
            assert {name for name in expected if isinstance(expected[name], torch.Tensor)} <= set(found)
            assert torch.equal(found["input_ids"], expected["input_ids"])
            assert torch.equal(found["attention_mask"], expected["attention_mask"])
            assert found["prompt_length"].tolist() == [expected["prompt_length"]] * len(ODD)


def test_a_model_that_only_tokenizes_is_asked_for_the_length_of_a_prompt_and_for_nothing_else(monkeypatch):
    encoder = Encoder.build(encoder_config("transformer"), lambda: TEXTS, 0)
    asked = []
    real = encoder.model.preprocess
    monkeypatch.setattr(encoder.model, "preprocess", lambda texts, **how: asked.append(texts) or real(texts, **how))
    alone = [encoder.tokenize(TEXTS[:3], side) for side in ("query", "passage", "query")]
    assert asked == [[""], [""]]
    encoder.prefixes["query"] = "Question about the world: "
    longer = encoder.tokenize(TEXTS[:3], "query")
    assert longer["prompt_length"][0] > alone[0]["prompt_length"][0]
    assert torch.equal(alone[2]["input_ids"], alone[0]["input_ids"])


def test_a_static_encoder_and_a_chat_template_are_left_to_sentence_transformers(tmp_path):
    static = Encoder.build(encoder_config("static"), lambda: TEXTS, 0)
    assert not gives_rows(static.model)
    assert static.tokenize([], "query") == {} or "input_ids" in static.tokenize(["a"], "query")
