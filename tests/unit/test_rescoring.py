"""`hbtrain mine --rescore`: the scores of a second model, in rows and in order; the models that it refuses; memory."""

import json
import shutil
import tracemalloc

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from sentence_transformers import CrossEncoder
from transformers import AutoTokenizer, BertConfig, BertForSequenceClassification

from hbtrain.corpus import ParallelCorpus
from hbtrain.errors import DataError
from hbtrain.formats.parallel import read_rows
from hbtrain.modeling import Encoder
from hbtrain.modeling.cross_encoder import CrossScorer
from hbtrain.retrieval.collection_search import SearchOptions
from hbtrain.retrieval.mining import Miner, MiningOptions
from tests.unit.retrieval_samples import Hashed
from tests.unit.tiny_models import TEXTS, encoder_config, save_bert

WORDS = ("hello", "world", "today", "lives", "here", "under", "some", "old", "bridge", "near", "another", "town")
ROWS = [
    {"id": i, "query": {"en": f"where is {word}?"}, "passage": {"en": f"{word} is number {i * 7 % 12}"}}
    for i, word in enumerate(WORDS)
]


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tiny") / "model"
    Encoder.build(encoder_config("static"), lambda: TEXTS, seed=3).save(folder)
    return folder


@pytest.fixture(scope="module")
def cross(tmp_path_factory):
    """A classifier with one score, as cross-encoders are published."""
    folder = tmp_path_factory.mktemp("cross") / "cross"
    save_bert(folder)
    # With the usual range of random weights all scores are nearly the same.
    config = BertConfig.from_pretrained(folder, num_labels=1, initializer_range=0.5)
    torch.manual_seed(5)
    BertForSequenceClassification(config).save_pretrained(folder)
    return folder


@pytest.fixture
def mined(hbtrain, tmp_path, model, write_source):
    source = write_source(ROWS, "rows.jsonl")

    def run(*flags):
        output = tmp_path / "mined.jsonl"
        code, _, err = hbtrain("mine", model, "--data", source, "--output", output, "--negatives", 4, *flags)
        assert code == 0, err
        return [json.loads(line) for line in output.read_text().splitlines()]

    return run


def pairs(row):
    (query,) = row["query"].values()
    return [(query, text["en"]) for text in (row["passage"], *row["negatives"])]


@pytest.mark.parametrize("margin", [-1000, 0.001])
def test_rows_get_the_scores_of_a_cross_encoder_and_its_order(mined, tmp_path, cross, margin):
    plain, rows = mined("--margin", -1000, "--depth", 5), mined("--rescore", cross, "--margin", margin, "--depth", 5)
    scorer = CrossEncoder(str(cross), device="cpu")
    given = [row for row in rows if "negatives" in row]
    taken = sum(len(row["negatives"]) for row in given)
    assert taken == 48 if margin < 0 else 0 < taken < 48
    for row in given:
        expected = scorer.predict(pairs(row))
        np.testing.assert_allclose(row["scores"], expected, atol=1e-5)
        assert row["scores"][1:] == sorted(row["scores"][1:], reverse=True)
        found = [text["en"] for text in plain[int(row["id"])]["negatives"]]
        taken = [text["en"] for text in row["negatives"]]
        assert set(taken) <= set(found), "a rescorer finds nothing itself"
        if margin > 0:
            assert max(row["scores"][1:]) <= row["scores"][0] - margin + 1e-6
        else:
            assert len(taken) == 4
    assert not any("scores" in row for row in plain)
    assert len(list(read_rows(tmp_path / "mined.jsonl"))) == 12
    assert len(ParallelCorpus.open([str(tmp_path / "mined.jsonl")]).sources) == 1
    # Mined over its own output, old scores go with the old negatives.
    (tmp_path / "rows.jsonl").write_text((tmp_path / "mined.jsonl").read_text())
    assert not any("scores" in row for row in mined("--margin", -1000))


def test_a_model_that_embeds_rescores_by_its_similarity(mined, tmp_path):
    Encoder.build(encoder_config("static"), lambda: TEXTS, seed=9).save(tmp_path / "second")
    second = Encoder.load(str(tmp_path / "second"))
    for row in mined("--rescore", tmp_path / "second", "--margin", -9):
        texts = [text for _, text in pairs(row)]
        expected = second.encode(texts, "passage") @ second.encode([pairs(row)[0][0]], "query")[0]
        np.testing.assert_allclose(row["scores"], expected, atol=1e-6)


def test_a_cross_encoder_in_bf16_gives_its_last_number_in_float32(cross):
    queries, passages = [row["query"]["en"] for row in ROWS], [row["passage"]["en"] for row in ROWS]
    exact, rounded = (CrossScorer.load(str(cross), precision) for precision in ("fp32", "bf16"))
    raw = [scorer.model.predict(list(zip(queries, passages, strict=True)), activation_fn=torch.nn.Identity())
           for scorer in (exact, rounded)]  # fmt: skip
    np.testing.assert_allclose(*raw, atol=0.5)
    assert not np.array_equal(*raw)
    assert not np.array_equal(raw[1], torch.from_numpy(raw[1]).bfloat16().float().numpy())
    again = exact.loader(anew=True)("cpu")
    np.testing.assert_array_equal(again.score(queries, passages), exact.score(queries, passages))
    np.testing.assert_allclose(exact.score(queries[3:5], passages[3:5]), exact.score(queries, passages)[3:5], atol=1e-6)


def without_head(folder):
    weights = load_file(folder / "model.safetensors")
    save_file(
        {k: v for k, v in weights.items() if "classifier" not in k}, folder / "model.safetensors", {"format": "pt"}
    )


def with_three_labels(folder):
    BertForSequenceClassification(BertConfig.from_pretrained(folder, num_labels=3)).save_pretrained(folder)


def without_tokenizer(folder):
    for path in folder.glob("*token*"):
        path.unlink()


def with_few_embeddings(folder):
    config = BertConfig.from_pretrained(folder, vocab_size=50)
    BertForSequenceClassification(config).save_pretrained(folder)


def cut_off(folder):
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-100])


def as_a_pickle(folder):
    torch.save(load_file(folder / "model.safetensors"), folder / "pytorch_model.bin")
    (folder / "model.safetensors").unlink()


def unreadable(folder):
    (folder / "config.json").write_text("{")


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (shutil.rmtree, "--rescore '{}' does not exist"),
        (without_head, "lack 2 weights that its scores depend on (classifier.bias, classifier.weight)"),
        (with_three_labels, "gives 3 numbers for a pair"),
        (without_tokenizer, "has no tokenizer"),
        (with_few_embeddings, "its network embeddings for 50"),
        (cut_off, "is cut off or damaged"),
        (as_a_pickle, "a pickle, which can run code"),
        (unreadable, "config.json cannot be read"),
    ],
)
def test_a_rescorer_that_cannot_be_is_one_line_before_anything_is_encoded(
    hbtrain, tmp_path, model, cross, write_source, monkeypatch, damage, words
):
    folder = shutil.copytree(cross, tmp_path / "broken")
    assert AutoTokenizer.from_pretrained(folder).pad_token_id is not None
    damage(folder)
    monkeypatch.setattr("hbtrain.retrieval.mining.Miner.__init__", None)
    code, _, err = hbtrain(
        "mine", model, "--data", write_source(ROWS), "--output", tmp_path / "m.jsonl", "--rescore", folder
    )
    assert code == 2, err
    assert err.startswith("error: ")
    assert len(err.strip().splitlines()) == 1, err
    assert words.format(folder) in err
    assert not (tmp_path / "m.jsonl").exists()


@pytest.mark.parametrize("scores", [[1.0], "high", [1.0, True], [1.0, None], [1.0, 2.0, 3.0]])
def test_scores_that_do_not_fit_the_negatives_are_refused(tmp_path, scores):
    path = tmp_path / "rows.jsonl"
    row = {"id": 1, "query": {"en": "q"}, "passage": {"en": "p"}, "negatives": [{"en": "n"}], "scores": scores}
    path.write_text(json.dumps(row) + "\n")
    with pytest.raises(DataError, match="line 1: scores must be a list of 2 finite numbers"):
        list(read_rows(path))


@pytest.mark.parametrize("rescored", [False, True])
def test_memory_is_that_of_blocks_not_of_the_pool(tmp_path, write_source, monkeypatch, rescored):
    """Of 3,000 passages with 4 KiB each, 12 MB for each model, a twelfth is in memory at a time."""
    count, dimension = 3000, 1024
    source = write_source([{"id": i, "query": {"en": f"q{i}"}, "passage": {"en": f"p{i}"}} for i in range(count)])
    corpus = ParallelCorpus.open([str(source)])
    for name, value in (("mining.BLOCK_ROWS", 128), ("pool_embeddings.PAIR_FLOATS", 128 * dimension)):
        monkeypatch.setattr(f"hbtrain.retrieval.{name}", value)
    search = SearchOptions(rows_per_shard=250, block_rows=125, cache=tmp_path / "cache")
    second = Hashed(dimension, "second") if rescored else None
    tracemalloc.start()
    try:
        miner = Miner(Hashed(dimension), corpus, MiningOptions(depth=20), search, rescorer=second)
        mined = sum(1 for source in corpus.sources.values() for _ in miner.rows(source))
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert mined == count
    assert peak < count * dimension * 4 / 2, "numpy's arrays, and all that Python holds"
