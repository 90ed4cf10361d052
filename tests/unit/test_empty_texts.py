"""Texts that are empty: documents by the block, whole batches of them, queries that nobody judged."""

import json
import os

import numpy as np
import pytest
import torch
from sentence_transformers import SentenceTransformer
from sentence_transformers.base.modules import Transformer
from sentence_transformers.sentence_transformer.modules import Pooling
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import BertConfig, BertModel, PreTrainedTokenizerFast

from hbtrain.corpus.columns import CHUNK
from hbtrain.errors import DataError
from hbtrain.evaluation.documents import open_documents
from hbtrain.evaluation.judged import read_judged
from hbtrain.modeling.encoder import Encoder
from hbtrain.modeling.features import token_counts
from tests.unit.evaluation_samples import only
from tests.unit.judged_samples import beir, json_lines, miracl, topics, write

WORDS = ["[PAD]", "[UNK]", "red", "green", "blue"]


@pytest.mark.parametrize("filled", [[], [CHUNK + 1], [0, 2 * CHUNK]])
def test_blocks_of_documents_may_be_empty(tmp_path, filled, monkeypatch):
    read = os.pread

    def within_the_file(file, size, offset):  # elsewhere a read fails or not, as the memory's addresses happen to be
        assert 0 <= offset < os.fstat(file).st_size
        return read(file, size, offset)

    monkeypatch.setattr(os, "pread", within_the_file)
    records = [{"_id": f"d{n}", "text": "some text" if n in filled else ""} for n in range(2 * CHUNK + 3)]
    documents = open_documents([json_lines(tmp_path / "corpus.jsonl", records)], tmp_path / "cache")
    assert list(documents.texts) == [record["text"] for record in records]


@pytest.fixture(scope="module")
def bare_model(tmp_path_factory):
    """An encoder whose tokenizer puts no token of its own around a text."""
    folder = tmp_path_factory.mktemp("bare")
    made = Tokenizer(models.WordLevel({word: number for number, word in enumerate(WORDS)}, unk_token="[UNK]"))
    made.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=made, pad_token="[PAD]", unk_token="[UNK]")
    torch.manual_seed(0)
    sizes = {"hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 8}
    BertModel(BertConfig(vocab_size=len(WORDS), **sizes)).save_pretrained(folder / "bert")
    tokenizer.save_pretrained(folder / "bert")
    model = SentenceTransformer(modules=[Transformer(str(folder / "bert")), Pooling(8, "mean")], device="cpu")
    model.save(str(folder / "model"))
    return folder / "model"


@pytest.mark.parametrize("own_padding", [True, False])
def test_empty_texts_have_the_same_vector_in_any_batch(bare_model, own_padding, monkeypatch):
    if not own_padding:
        monkeypatch.setattr("hbtrain.modeling.features.gives_rows", lambda model: False)
    encoder = Encoder.load(str(bare_model), device="cpu")
    texts = ["", "red green", "", "blue blue red", ""]
    alone = np.concatenate([encoder.encode([text], "passage") for text in texts])
    for size in (1, 2, 3, 5):
        assert encoder.encode(texts, "passage", batch_size=size) == pytest.approx(alone, abs=1e-6)
    assert not alone[[0, 2, 4]].any()
    features = encoder.tokenize(["", ""], "query")
    assert token_counts(features).tolist() == [0, 0]
    assert encoder.encode(["", ""], "query").shape == (2, 8)


def judged(folder):
    return read_judged("beir", folder, "mine", ["en"], cache=folder / "cache")


@pytest.mark.parametrize("text", ["", " \t"])
def test_an_empty_query_matters_only_where_it_is_asked(tmp_path, text):
    beir(tmp_path)
    asked = [{"_id": "1", "text": "where?"}, {"_id": "2", "text": "who?"}, {"_id": "3", "text": text}]
    json_lines(tmp_path / "queries.jsonl", [*asked, {"_id": "unjudged", "text": text}])
    collection = only(judged(tmp_path))  # nothing is relevant to 3
    assert (collection.question_ids, collection.left_out) == (["1", "2"], 1)
    json_lines(tmp_path / "queries.jsonl", [asked[0], {"_id": "2", "text": text}, asked[2]])
    with pytest.raises(DataError, match=r"queries\.jsonl line 2: an empty text \(question 2\)"):
        only(judged(tmp_path))


def test_a_topic_without_text_is_refused_where_it_is_asked(tmp_path):
    def read():
        return only(read_judged("miracl", tmp_path, "miracl", cache=tmp_path / "cache"))

    miracl(tmp_path)
    file = tmp_path / "miracl-v1.0-sw" / "topics" / "topics.miracl-v1.0-sw-dev.tsv"
    topics(file, {"1": "wapi?", "2": "nani?", "3": " "})
    assert read().question_ids == ["1", "2"]
    topics(file, {"1": " ", "2": "nani?", "3": "lini?"})
    with pytest.raises(DataError, match=r"line 1: an empty text \(question 1\)"):
        read()


def test_a_corpus_that_is_empty_throughout_is_refused(tmp_path):
    beir(tmp_path)
    records = [json.dumps({"_id": x, "title": "", "text": " "}) for x in ("10#0", "10#1", "11#0")]
    write(tmp_path / "corpus.jsonl", "\n".join(records))
    with pytest.raises(DataError, match=r"corpus\.jsonl: all 3 documents of the corpus are empty"):
        only(judged(tmp_path))
