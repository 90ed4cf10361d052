"""The audit's figures against the batches themselves, one by one."""

import json
from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
from scipy.stats import chisquare

from hbtrain.audit import audit
from hbtrain.audit.audit import spread
from hbtrain.audit.picture import draw
from hbtrain.audit.record import record
from hbtrain.audit.tables import notes
from hbtrain.batching import BatchPlan
from hbtrain.config import load_config
from hbtrain.corpus import ParallelCorpus
from hbtrain.errors import ConfigError, ModelError, StorageError
from hbtrain.modeling.encoder import Encoder
from hbtrain.modeling.features import token_counts
from hbtrain.training.feed import Feed

STEPS = 120


@pytest.fixture
def sources(write_source, rows):
    """Two sources: one with gaps and shared paragraphs, one of German and English alone."""
    gaps = rows(90, missing=lambda i, language: language == "ru" and i % 3 > 0)
    for i, row in enumerate(gaps):
        row["passage_id"] = f"paragraph {i // 6}"
        row["passage"] = {x: text + " and so on" * (i % 7) for x, text in row["passage"].items()}
    return [str(write_source(gaps, "gaps.jsonl")), str(write_source(rows(40, ("de", "en")), "two.jsonl"))]


@pytest.fixture
def config(cache, sources):
    def make(**overrides):
        small = {
            "data.sources": sources,
            "batching.global_batch_size": 6,
            "training.steps": STEPS,
            "training.checkpoint_every": None,
            "encoder.static.vocabulary_size": 300,
            "evaluation.benchmarks": [],
            "training.deepspeed": None,
        }
        return load_config("quickstart", small | overrides)

    return make


def batches(config, steps=STEPS):
    plan = BatchPlan.from_config(config)
    return [plan.batch(step) for step in range(steps)]


@pytest.mark.parametrize("mode", ["hybrid", "multilingual", "english", "monolingual"])
def test_kinds_sources_and_epochs_are_those_of_the_batches(config, mode):
    one = config(**{"batching.mode": mode, "batching.cross_languages": "batch"})
    found, plan = audit(one, tokens=False).counts, BatchPlan.from_config(one)
    seen = batches(one)
    assert found.kinds == dict(Counter(b.kind for b in seen))
    dealt = dict.fromkeys(((o.availability.source.name, o.label) for o in plan.catalogue.offers), 0)
    for batch in seen:
        languages = () if batch.kind == "multi" else (batch.query_languages[0], batch.passage_languages[0])
        dealt[batch.source, " ".join([batch.source, batch.kind, *dict.fromkeys(languages)])] += len(batch)
    told = {(s.source, " ".join([s.source, s.kind, *s.languages])): s.epochs * s.rows for s in found.streams}
    assert told == pytest.approx(dealt)
    assert sum(s.batches for s in found.streams) == STEPS


def test_pairs_and_uses_are_those_of_the_batches_where_a_batch_has_one_pair(config):
    one = config(**{"batching.cross_languages": "batch"})
    found, seen = audit(one, tokens=False).counts, batches(one)
    counted = np.zeros_like(found.all_pairs)
    for batch in seen:
        np.add.at(counted[found.sources.index(batch.source)], (batch.query_codes, batch.passage_codes), 1)
    np.testing.assert_allclose(found.all_pairs, counted)
    texts = Counter((b.source, x) for b in seen for x in b.query_languages + b.passage_languages)
    rows = {("gaps", "de"): 90, ("gaps", "en"): 90, ("gaps", "ru"): 30, ("two", "de"): 40, ("two", "en"): 40}
    for i, source in enumerate(found.sources):
        for j, language in enumerate(found.languages):
            if (source, language) in rows:
                assert found.passes[i, j] == pytest.approx(texts[source, language] / (2 * rows[source, language]))
            else:
                assert np.isnan(found.passes[i, j])
    shares = Counter(x for b in seen for x in b.query_languages + b.passage_languages)
    assert found.language_shares == pytest.approx([shares[x] / (2 * 6 * STEPS) for x in found.languages])


@pytest.mark.parametrize(
    "overrides", [{}, {"batching.language_weights": {"ru": 4.0}, "batching.pair_temperature": 2.0}]
)
def test_pairs_that_rows_draw_are_told_as_expected(config, overrides):
    one = config(**{"batching.mode": "cross-lingual", "training.steps": 600, **overrides})
    found = audit(one, tokens=False).counts
    counted = np.zeros_like(found.all_pairs)
    for batch in batches(one, 600):
        np.add.at(counted[found.sources.index(batch.source)], (batch.query_codes, batch.passage_codes), 1)
    expected = found.all_pairs
    assert (counted[expected == 0] == 0).all()
    assert chisquare(counted[expected > 0], expected[expected > 0]).pvalue > 1e-4


def test_collisions_left_and_those_of_a_shuffle(config):
    """Six questions a paragraph, enough batches: none is left, while a shuffle has many."""
    found = audit(config(**{"batching.mode": "english"}), tokens=False).collisions
    assert set(found) == {"gaps", "two"}
    assert found["gaps"].left == 0
    chance = 1 - np.prod([(84 - i) / (89 - i) for i in range(5)])  # that none of five others is of the same paragraph
    share = found["gaps"].shuffled / found["gaps"].pairs
    assert share == pytest.approx(chance, abs=4 * np.sqrt(chance / found["gaps"].pairs))
    assert found["two"].shuffled == 0, "no two rows share anything"


def test_a_shuffle_of_translations_meets_itself(config):
    found = audit(config(**{"batching.mode": "cross-lingual", "data.languages": ["de", "en"]}), tokens=False).collisions
    assert found["two"].left == 0
    assert found["two"].shuffled > 0, "a row's two pairs are cards of one pack"


def test_what_cannot_be_kept_apart_is_counted_and_said(config):
    one = config(**{"batching.mode": "monolingual", "batching.global_batch_size": 25, "data.languages": ["de"]})
    found = audit(one, tokens=False)
    plan = BatchPlan.from_config(one)
    left = Counter()
    for batch in map(plan.batch, range(STEPS)):
        left[batch.source] += int(batch.collisions().sum())
    assert {name: c.left for name, c in found.collisions.items()} == left
    assert left["gaps"] > 0
    assert any("gaps mono de: up to 6 rows are linked" in note and "3 batches" in note for note in notes(found))


@pytest.mark.parametrize("backbone", ["static", "transformer"])
def test_tokens_are_what_training_prepares(config, backbone):
    one = config(**{"encoder.backbone": backbone, "encoder.transformer.vocabulary_size": 300, "resources.workers": 2})
    found = audit(one, sample=7)
    corpus = ParallelCorpus.from_config(one)
    encoder, plan = Encoder.build(one.encoder, corpus.every_text, 0), BatchPlan.over(corpus, one)
    steps = spread(STEPS, 7)
    works = [Feed(plan, corpus, encoder, one, i % 2, 2).work(int(step)) for i, step in enumerate(steps)]
    assert found.tokens.batches == 7
    assert found.tokens.tokens == sum(work.tokens for work in works)
    assert found.tokens.computed == sum(work.computed_tokens for work in works)
    queries = Counter()
    for i, work in enumerate(works):
        shard = work.batch.shard(i % 2, 2)
        for x, n in zip(shard.query_languages, token_counts(work.sides[0]).tolist(), strict=True):
            queries[x] += n
    assert {x: t.tokens for x, t in found.tokens.queries.items()} == queries
    assert sum(t.texts for t in found.tokens.passages.values()) == found.tokens.pairs == 7 * 3
    assert found.measured.memory <= found.estimate.memory


def test_a_schedule_shows_in_parts_and_expectation(config):
    found = audit(config(**{"batching.alpha": {0: 1.0, 60: 1.0, 61: 0.0}}), tokens=False).counts
    assert found.kinds == {"mono": 61, "cross": 59} == found.expected_kinds
    assert found.kinds_by_part["mono"][0] == 1.0
    assert found.kinds_by_part["mono"][-1] == 0.0
    total = sum(found.kinds_by_part.values())
    np.testing.assert_allclose(total, 1.0)
    few = audit(config(**{"batching.alpha": {0: 1.0, 60: 1.0, 61: 0.0}}), steps=10, tokens=False).counts
    assert (few.steps, few.kinds["mono"]) == (10, 10)


def test_a_schedule_of_mixtures_shows_in_parts_and_expectation(config, tmp_path):
    """Over 120 steps: multi falls from 1 to 0 within 100, mono and cross rise to a quarter and three quarters."""
    mixture = {0: {"multi": 2}, 100: {"mono": 1, "cross": 3}}
    found = audit(config(**{"batching.mixture": mixture}), tokens=False)
    multi = sum(1 - step / 100 for step in range(100))
    assert found.counts.expected_kinds == pytest.approx(
        {"mono": (STEPS - multi) / 4, "cross": (STEPS - multi) * 3 / 4, "multi": multi}
    )
    drawn = [batch.kind for batch in batches(found.config)]
    assert found.counts.kinds == {kind: drawn.count(kind) for kind in ("mono", "cross", "multi")}
    assert found.counts.kinds_by_part["multi"][-1] == 0.0
    draw(found, tmp_path / "mixture.png")
    assert (tmp_path / "mixture.png").stat().st_size > 10_000


def test_json_is_whole_and_the_picture_is_one(config, tmp_path):
    found = audit(config(), sample=2)
    told = json.loads(json.dumps(record(found), allow_nan=False))
    assert told["sources"]["two"]["uses"]["ru"] is None
    assert sum(p for x in told["pairs_by_language"].values() for y in x.values() for p in y.values()) == pytest.approx(
        told["pairs"]
    )
    assert sum(x["share"] for x in told["languages"].values()) == pytest.approx(1.0)
    draw(found, tmp_path / "a.png")
    from PIL import Image

    pixels = np.asarray(Image.open(tmp_path / "a.png").convert("RGB"))
    assert min(pixels.shape[:2]) > 500
    assert len(np.unique(pixels.reshape(-1, 3), axis=0)) > 20
    with pytest.raises(StorageError, match="nowhere"):
        draw(found, tmp_path / "nowhere" / "a.png")


def test_json_has_a_null_where_no_source_has_a_language(config):
    found = audit(config(), tokens=False)
    counts = found.counts
    rows = {name: getattr(counts, name) * [1, 1, 0] for name in ("query_rows", "passage_rows")}
    lacking = replace(found, counts=replace(counts, **rows))
    told = json.loads(json.dumps(record(lacking), allow_nan=False))
    assert told["languages"][counts.languages[2]]["uses"] is None
    assert told["languages"][counts.languages[1]]["uses"] > 0


def test_bad_questions(config):
    with pytest.raises(ConfigError, match=f"--steps 0: the run has {STEPS}"):
        audit(config(), steps=0)
    with pytest.raises(ConfigError, match="--sample 0"):
        audit(config(), sample=0)
    with pytest.raises(ConfigError, match="resources.workers = 7"):
        audit(config(**{"resources.workers": 7}))
    with pytest.raises(ModelError, match="no-model.*--without-tokens"):
        audit(config(**{"encoder.backbone": "./no-model"}))
    assert audit(config(**{"encoder.backbone": "./no-model"}), tokens=False).estimate is None
