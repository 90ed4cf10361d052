"""Guide and teacher: which texts they embed, once each; what a rank's texts are given of it."""

import json

import numpy as np
import pytest
import torch

from hbtrain.batching import BatchPlan
from hbtrain.config import load_config, override
from hbtrain.corpus import ParallelCorpus
from hbtrain.errors import ConfigError, ModelError
from hbtrain.modeling.encoder import Encoder
from hbtrain.modeling.gather import SingleProcess
from hbtrain.training import text_embedding
from hbtrain.training.feed import Feed
from hbtrain.training.frozen_models import FrozenModels
from tests.unit.tiny_models import encoder_config

LANGUAGES = ("de", "en", "ru")
CPU = torch.device("cpu")


def row(i):
    """English is missing in every third passage; a passage occurs in two rows."""
    return {
        "id": f"r{i}",
        "query": {x: f"question {i} {x}" for x in LANGUAGES},
        "passage": {x: f"answer {i // 2} {x}" for x in LANGUAGES if x != "en" or i // 2 % 3},
        "negatives": [{x: f"other {i} {j} {x}" for x in LANGUAGES} for j in range(2)],
        "scores": [2.0, 1.0 + i, 0.5],
    }


@pytest.fixture
def model(tmp_path):
    """Saves a small static model to a folder."""

    def make(name="model", seed=0, **changes):
        texts = [text for i in range(20) for texts in row(i)["query"].values() for text in (texts, "answer other")]
        encoder = Encoder.build(encoder_config("static", **changes), lambda: texts, seed)
        encoder.save(tmp_path / name)
        return str(tmp_path / name)

    return make


@pytest.fixture
def config(tmp_path, cache):
    path = tmp_path / "source.jsonl"
    path.write_text("".join(json.dumps(row(i)) + "\n" for i in range(20)))

    def make(**changes):
        small = {
            "data.sources": [str(path)],
            "batching.global_batch_size": 6,
            "encoder.static.vocabulary_size": 200,
            "evaluation.benchmarks": [],
            "loss.hard_negatives": 1,
        }
        return load_config("quickstart", small | changes)

    return make


@pytest.fixture
def embedded(monkeypatch):
    """[(side, text)] of everything that a model embeds."""
    found, encode = [], Encoder.encode

    def recorded(self, texts, side, *more, **options):
        found.extend((side, text) for text in texts)
        return encode(self, texts, side, *more, **options)

    monkeypatch.setattr(text_embedding.Encoder, "encode", recorded)
    return found


def prepared(config, steps, told=None):
    corpus = ParallelCorpus.from_config(config)
    plan = BatchPlan.over(corpus, config)
    frozen = FrozenModels(config, SingleProcess(), CPU, tell=[].append if told is None else told.append)
    frozen.prepare(plan, corpus, steps)
    feed = Feed(plan, corpus, Encoder.build(config.encoder, corpus.every_text, 0), config, 0, 1)
    feed.frozen = frozen
    return feed


def expected(path, texts, side):
    vectors = Encoder.load(path).encode(texts, side)
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def texts_of(config, step):
    corpus = ParallelCorpus.from_config(config)
    batch = BatchPlan.over(corpus, config).batch(step)
    source = corpus.sources[batch.source]
    return [
        source.texts("query", batch.rows, batch.query_languages),
        source.texts("passage", batch.rows, batch.passage_languages),
        source.negatives(batch.rows, batch.passage_languages, 1, step),
    ]


def test_references_are_the_vectors_of_the_texts(config, model):
    one = config(**{"loss.guide": model(), "loss.teacher": model("other", 1), "loss.terms": {"teacher_kl": 1}})
    feed = prepared(one, range(3))
    for step in range(3):
        references = feed.work(step).references
        for found, name in ((references.guide, one.loss.guide), (references.teacher, one.loss.teacher)):
            both = zip((found.q_bE, found.p_bE, found.n_mE), texts_of(one, step), strict=True)
            for (vectors, texts), side in zip(both, ("query", "passage", "passage"), strict=True):
                np.testing.assert_allclose(vectors, expected(name, texts, side), atol=1e-6)
        assert not torch.allclose(references.guide.q_bE, references.teacher.q_bE, atol=1e-3)
        assert references.guide.t_kE is None


def test_a_text_is_embedded_once_whatever_asks_for_it(config, model, embedded):
    one = config(**{"loss.guide": model(), "loss.teacher": model(), "loss.terms": {"teacher_kl": 1}})
    told = []
    prepared(one, range(4), told)
    assert sorted(embedded) == sorted(set(embedded))
    sides = ("query", "passage", "passage")
    wanted = {(side, x) for step in range(4) for side, of in zip(sides, texts_of(one, step), strict=True) for x in of}
    assert set(embedded) == wanted
    assert len(told) == 2
    assert f"has embedded {len(wanted)} texts" in told[1]
    prepared(one, range(4), told)
    prepared(override(one, {"training.steps": 500}), range(1, 3), told)
    assert len(embedded) == len(wanted)
    assert len(told) == 2
    prepared(override(one, {"seed": 7}), range(4))
    assert sorted(embedded) == sorted(set(embedded))
    assert len(embedded) > len(wanted)


def test_other_weights_are_another_store(config, model, embedded):
    one = config(**{"loss.guide": model()})
    prepared(one, range(1))
    count = len(embedded)
    model(seed=5)  # in the same folder
    feed = prepared(one, range(1))
    assert len(embedded) == 2 * count
    np.testing.assert_allclose(
        feed.work(0).references.guide.q_bE, expected(one.loss.guide, texts_of(one, 0)[0], "query"), atol=1e-6
    )


def test_the_untrained_model_reads_the_prefixes_of_the_run(config, model):
    path = model()
    one = config(**{"encoder.backbone": path, "loss.guide": path, "encoder.query_prefix": "ask: "})
    found = prepared(one, range(1)).work(0).references.guide
    vectors = Encoder.load(path, prompts={"query": "ask: ", "passage": "Passage: "}).encode(
        texts_of(one, 0)[0], "query"
    )
    np.testing.assert_allclose(found.q_bE, vectors, atol=1e-6)


def test_a_guide_reads_translations_where_rows_have_them(config, model, embedded):
    one = config(**{"loss.guide": model(), "loss.guide_language": "en", "loss.translations": 1})
    feed = prepared(one, range(2))
    for step in range(2):
        found = feed.work(step).references.guide
        batch = BatchPlan.from_config(one).batch(step)
        passages = [
            row(i)["passage"].get("en", row(i)["passage"][x])
            for i, x in zip(batch.rows.tolist(), batch.passage_languages, strict=True)
        ]
        queries = [row(i)["query"]["en"] for i in batch.rows.tolist()]
        negatives = [row(i)["negatives"][step % 2]["en"] for i in batch.rows.tolist()]
        both = ((found.q_bE, queries), (found.p_bE, passages), (found.n_mE, negatives))
        for (vectors, texts), side in zip(both, ("query", "passage", "passage"), strict=True):
            np.testing.assert_allclose(vectors, expected(one.loss.guide, texts, side), atol=1e-6)
        assert found.t_kE.shape == (6, 16)
    assert all(text.endswith(" en") for side, text in embedded if side == "query")


def test_scores_are_those_of_the_rows(config):
    one = config(**{"loss.guide": "scores", "loss.teacher": "scores", "loss.terms": {"teacher_margin": 1}})
    for step in range(2):
        work = prepared(one, range(2)).work(step)
        assert work.references.guide is work.references.teacher
        assert work.references.guide.positive_b.tolist() == [2.0] * 6
        nth = [[1.0 + i, 0.5][step % 2] for i in work.batch.rows.tolist()]
        assert work.references.guide.negative_m.tolist() == nth


def test_a_row_without_negatives_needs_no_scores(config, tmp_path):
    table = [{k: v for k, v in row(i).items() if i % 2 or k not in ("negatives", "scores")} for i in range(20)]
    (tmp_path / "source.jsonl").write_text("".join(json.dumps(x) + "\n" for x in table))
    work = prepared(config(**{"loss.guide": "scores"}), range(1)).work(0)
    assert torch.isfinite(work.references.guide.positive_b).all()
    assert torch.isfinite(work.references.guide.negative_m).all()


def test_vectors_that_are_no_numbers_are_refused_and_not_kept(config, model, monkeypatch):
    one = config(**{"loss.guide": model()})
    with monkeypatch.context() as patch, pytest.raises(ModelError, match=r"vectors of 1 of \d+ \w+ texts hold NaN"):
        encode = Encoder.encode

        def broken(self, texts, side, *more, **options):
            vectors = encode(self, texts, side, *more, **options)
            vectors[0, 0] = np.nan
            return vectors

        patch.setattr(text_embedding.Encoder, "encode", broken)
        prepared(one, range(1))
    assert torch.isfinite(prepared(one, range(1)).work(0).references.guide.q_bE).all()


def test_a_teacher_of_another_dimension_is_refused(config, model):
    one = config(**{"loss.teacher": model(), "loss.terms": {"teacher_mse": 1}})
    corpus = ParallelCorpus.from_config(one)
    frozen = FrozenModels(one, SingleProcess(), CPU)
    with pytest.raises(ConfigError, match="teacher_mse, which compares vectors: .* 16 dimensions, .* 17"):
        frozen.prepare(BatchPlan.over(corpus, one), corpus, range(1), dimension=17)
    frozen.prepare(BatchPlan.over(corpus, one), corpus, range(1), dimension=16)
