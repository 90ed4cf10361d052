"""The model's own similarity, wherever vectors are compared: against sentence-transformers and a plain computation."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from sentence_transformers import SentenceTransformer
from sentence_transformers.sentence_transformer.modules import StaticEmbedding
from tokenizers import Tokenizer, models, pre_tokenizers

from hbtrain.corpus import ParallelCorpus
from hbtrain.errors import ModelError
from hbtrain.evaluation.benchmark import Collection
from hbtrain.evaluation.rankers import ExactRanker, SpreadRanker
from hbtrain.modeling import Encoder
from hbtrain.retrieval.collection_search import SearchOptions, search_collection
from hbtrain.retrieval.mining import Miner, MiningOptions
from hbtrain.retrieval.passage_index import PassageIndex
from hbtrain.retrieval.scores import for_inner_products, similarities
from tests.unit.tiny_models import encoder_config

WORDS = [f"w{number}" for number in range(60)]
SIMILARITIES = ["cosine", "dot", "euclidean"]


def save(folder: Path, similarity: str, dimension: int = 8) -> Path:
    """A model that gives every word a random vector of a random length."""
    tokenizer = Tokenizer(models.WordLevel({word: number for number, word in enumerate(WORDS)}, unk_token="w0"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    generator = torch.Generator().manual_seed(8)
    lengths = torch.rand(len(WORDS), 1, generator=generator) * 5
    vectors = torch.randn(len(WORDS), dimension, generator=generator) * lengths
    module = StaticEmbedding(tokenizer, embedding_weights=vectors)
    SentenceTransformer(modules=[module], device="cpu", similarity_fn_name=similarity).save(str(folder))
    return folder


@pytest.fixture(params=SIMILARITIES)
def model(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    return save(tmp_path / request.param, request.param)


def expected_order(model: Path, queries: list[str], passages: list[str]) -> tuple[np.ndarray, np.ndarray]:
    """Similarities as sentence-transformers computes them, and the passages in their order."""
    theirs = SentenceTransformer(str(model), device="cpu")
    scores = theirs.similarity(theirs.encode(queries), theirs.encode(passages)).numpy()
    return scores, np.argsort(-scores, axis=1, kind="stable")


@pytest.mark.parametrize("similarity", SIMILARITIES)
def test_inner_products_stand_for_the_similarity(similarity: str) -> None:
    rng = np.random.default_rng(9)
    q, p = (rng.standard_normal((20, 6)).astype(np.float32) for _ in range(2))
    products = for_inner_products(q, "query", similarity) @ for_inner_products(p, "passage", similarity).T
    plain = q.astype(np.float64) @ p.T if similarity != "euclidean" else -np.linalg.norm(q[:, None] - p, axis=2)
    np.testing.assert_allclose(similarities(products, similarity), plain, atol=1e-5)
    assert similarities(for_inner_products(q, "query", similarity)[:, 0] * 0, similarity).max() <= 0


def test_ranks_are_those_of_the_models_similarity(model: Path, cache: Path) -> None:
    encoder = Encoder.load(str(model), device="cpu")
    queries, passages = WORDS[:25], WORDS[25:]
    _, order = expected_order(model, queries, passages)
    relevant = [np.arange(len(passages), dtype=np.int64) for _ in queries]
    collection = Collection(
        name="words",
        question_ids=queries,
        query_languages=["en"] * len(queries),
        query_texts=queries,
        candidate_ids=passages,
        candidate_texts=passages,
        candidate_counts={"en": len(passages)},
        relevant=relevant,
    )
    ranks = np.argsort(order, axis=1) + 1
    spread = SpreadRanker(SearchOptions(shards=3, rows_per_shard=9, block_rows=9))
    for ranker in (ExactRanker(), spread):
        found = ranker(encoder, collection)
        assert found.ranks.in_pool.reshape(ranks.shape).tolist() == ranks.tolist()
        assert found.pool.places.tolist() == order[:, : found.depth].tolist()


@pytest.mark.parametrize("index", ["Flat", "IVF2,Flat", "HNSW8"])
@pytest.mark.parametrize("dtype", ["float32", "float16"])
def test_an_index_finds_by_the_models_similarity(model: Path, cache: Path, index: str, dtype: str) -> None:
    encoder = Encoder.load(str(model), device="cpu")
    parameters = {"IVF2,Flat": "nprobe=2", "HNSW8": "efSearch=64"}.get(index, "")
    options = SearchOptions(index=index, parameters=parameters, shards=2, rows_per_shard=9, block_rows=9, dtype=dtype)
    found = search_collection(encoder, WORDS[25:], WORDS[:25], 5, options)
    scores, order = expected_order(model, WORDS[:25], WORDS[25:])
    got = np.take_along_axis(scores, found.found.places, axis=1)
    best = np.take_along_axis(scores, order[:, :5], axis=1)
    np.testing.assert_allclose(got, best, atol=0 if dtype == "float32" and index != "HNSW8" else 0.3)
    assert (found.recall or 1.0) > 0.95


def test_search_shows_the_models_similarity(model: Path, cache: Path, write_source) -> None:
    table = [{"id": i, "query": {"en": "w0"}, "passage": {"en": word}} for i, word in enumerate(WORDS[25:])]
    corpus = ParallelCorpus.open([str(write_source(table))])
    hits = PassageIndex(Encoder.load(str(model), device="cpu"), corpus).search("w3", top=7)
    scores, order = expected_order(model, ["w3"], WORDS[25:])
    assert [hit.passage.text for hit in hits] == [WORDS[25:][place] for place in order[0, :7]]
    np.testing.assert_allclose([hit.score for hit in hits], scores[0, order[0, :7]], atol=1e-4)


def test_mining_measures_margins_by_the_models_similarity(model: Path, cache: Path, write_source) -> None:
    asked, passages = WORDS[:20], WORDS[20:40]
    table = [
        {"id": i, "query": {"en": query}, "passage": {"en": passage}}
        for i, (query, passage) in enumerate(zip(asked, passages, strict=True))
    ]
    corpus = ParallelCorpus.open([str(write_source(table))])
    options = MiningOptions(negatives=3, margin=0.2)
    miner = Miner(Encoder.load(str(model), device="cpu"), corpus, options)
    (source,) = corpus.sources.values()
    scores, order = expected_order(model, asked, passages)
    for row, mined in enumerate(miner.rows(source)):
        allowed = [at for at in order[row] if at != row and scores[row, at] <= scores[row, row] - 0.2]
        assert [negative["en"] for negative in mined.negatives] == [passages[at] for at in allowed[:3]]


def test_models_with_other_similarities_have_other_digests(tmp_path: Path) -> None:
    encoders = [Encoder.load(str(save(tmp_path / name, name)), device="cpu") for name in SIMILARITIES]
    assert len({encoder.digest() for encoder in encoders}) == 3
    assert [encoder.similarity for encoder in encoders] == SIMILARITIES


def test_training_makes_it_the_cosine(tmp_path: Path) -> None:
    path = str(save(tmp_path / "dot", "dot"))
    Encoder.build(encoder_config(path), lambda: [], 0).save(tmp_path / "trained")
    trained = Encoder.load(str(tmp_path / "trained"), device="cpu")
    assert trained.similarity == "cosine"
    assert SentenceTransformer(str(tmp_path / "trained"), device="cpu").similarity_fn_name == "cosine"
    np.testing.assert_allclose(np.linalg.norm(trained.encode(WORDS, "query"), axis=1), 1, atol=1e-6)


@pytest.mark.parametrize("name", ["manhattan", "maxsim"])
def test_a_similarity_that_is_not_known_is_refused(tmp_path: Path, name: str) -> None:
    path = save(tmp_path / "odd", "cosine")
    file = path / "config_sentence_transformers.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"similarity_fn_name": name}))
    with pytest.raises(ModelError, match=f"odd.*similarity_fn_name = '{name}'"):
        Encoder.load(str(path), device="cpu")
