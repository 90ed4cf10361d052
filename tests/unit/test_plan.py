import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
from scipy.stats import binomtest, chisquare

from hbtrain.batching import BatchPlan, shard_sizes
from hbtrain.batching.permutation import permute
from hbtrain.config import load_config
from hbtrain.config.batching import BatchingConfig
from hbtrain.corpus import ParallelCorpus, SourceIndex
from hbtrain.errors import ConfigError, DataError

LANGUAGES = ("ar", "de", "en", "ru", "zh")


def complete(name="all", rows=1000, languages=LANGUAGES):
    return SourceIndex.complete(name, rows, languages)


def plan(sources=None, languages=None, seed=0, **batching):
    return BatchPlan(sources or [complete()], BatchingConfig(**{"global_batch_size": 8, **batching}), languages, seed)


def offer_at(plan, step):
    """What the step draws from."""
    return plan.catalogue.offers[plan.draws(step, step + 1)[0]]


def kinds(plan, steps):
    return [plan.catalogue.offers[number].kind for number in plan.draws(0, steps)]


@pytest.mark.parametrize("alpha", [0.1, 0.5, 0.9])
def test_alpha_is_the_share_of_monolingual_batches(alpha):
    mono = kinds(plan(alpha=alpha), 4000).count("mono")
    assert binomtest(mono, 4000, alpha).pvalue > 1e-4


def test_extreme_alphas_and_modes():
    assert set(kinds(plan(alpha=0.0), 300)) == {"cross"}
    assert set(kinds(plan(alpha=1.0), 300)) == {"mono"}
    assert set(kinds(plan(mode="cross-lingual"), 300)) == {"cross"}
    assert set(kinds(plan(mode="monolingual"), 300)) == {"mono"}
    assert set(kinds(plan(mode="multilingual"), 300)) == {"multi"}
    english = plan(mode="english")
    assert {x for step in range(50) for x in english.batch(step).query_languages} == {"en"}


def test_alpha_may_be_a_schedule():
    drawn = kinds(plan(alpha={0: 1.0, 1000: 1.0, 3000: 0.0}), 5000)
    assert set(drawn[:1000]) == {"mono"}
    assert set(drawn[3000:]) == {"cross"}
    assert binomtest(drawn[1000:3000].count("mono"), 2000, 0.5).pvalue > 1e-4


def test_multilingual_batches_mix_languages_but_not_pairs():
    batch = plan(mode="multilingual", global_batch_size=64).batch(0)
    assert batch.query_languages == batch.passage_languages
    assert len(set(batch.query_languages)) == len(LANGUAGES)


def test_cross_pairs_are_uniform_over_ordered_pairs():
    one = plan(mode="cross-lingual", global_batch_size=100)
    pairs = [p for s in range(60) for p in zip(one.batch(s).query_codes, one.batch(s).passage_codes, strict=True)]
    counts = np.unique(np.array(pairs), axis=0, return_counts=True)[1]
    assert len(counts) == 20
    assert chisquare(counts).pvalue > 1e-4


def test_one_pair_may_serve_the_batch():
    one = plan(mode="cross-lingual", cross_languages="batch")
    pairs = {(tuple(set(b.query_languages)), tuple(set(b.passage_languages))) for b in map(one.batch, range(200))}
    assert all(len(x) == len(y) == 1 and x != y for x, y in pairs)
    assert len(pairs) == 20


def test_languages_are_uniform_or_by_temperature():
    sources = [complete("big", 8000, ("en",)), complete("small", 1000, ("de",))]
    for temperature, share in ((None, 0.5), (1.0, 8 / 9), (3.0, 2 / 3)):
        one = plan(sources, mode="monolingual", language_temperature=temperature)
        english = sum(offer_at(one, s).availability.source.name == "big" for s in range(3000))
        assert binomtest(english, 3000, share).pvalue > 1e-4


def test_sources_are_drawn_by_the_pairs_they_offer():
    sources = [complete("big", 3000), complete("small", 1000), complete("english", 5000, ("en",))]
    one = plan(sources, alpha=0.5)
    cross = [o.availability.source.name for s in range(6000) if (o := offer_at(one, s)).kind == "cross"]
    assert set(cross) == {"big", "small"}, "an English source has no cross-lingual pairs"
    assert binomtest(cross.count("big"), len(cross), 0.75).pvalue > 1e-4
    english = [
        o.availability.source.name
        for s in range(20_000)
        if (o := offer_at(one, s)).kind == "mono" and o.pair == (LANGUAGES.index("en"),) * 2
    ]
    assert binomtest(english.count("english"), len(english), 5 / 9).pvalue > 1e-4


def test_parallel_sentences_serve_cross_lingual_batches_only():
    sentences = replace(complete("sentences", 3000), sentences=True)
    one = plan([complete("questions", 1000), sentences], alpha=0.5)
    drawn = {(offer.kind, offer.availability.source.name) for offer in (offer_at(one, step) for step in range(2000))}
    assert drawn == {("mono", "questions"), ("cross", "questions"), ("cross", "sentences")}
    assert set(kinds(plan([complete("questions", 1000), sentences], alpha=1.0), 100)) == {"mono"}
    with pytest.raises(DataError, match="monolingual batch in 'ar': the largest offers 0 rows"):
        plan([sentences], mode="monolingual")


def test_a_sweep_over_alpha_shares_its_order():
    low, high = plan(alpha=0.3), plan(alpha=0.6)
    low_mono = {s for s in range(500) if offer_at(low, s).kind == "mono"}
    high_mono = {s for s in range(500) if offer_at(high, s).kind == "mono"}
    assert low_mono < high_mono
    first = min(low_mono & high_mono)
    assert offer_at(low, first).label == offer_at(high, first).label


def test_seeds_and_epochs_differ():
    assert plan(seed=1).fingerprint(0, 5) != plan(seed=2).fingerprint(0, 5)
    one = plan([complete(rows=80, languages=("en",))], mode="monolingual")
    epochs = [np.concatenate([one.batch(e * 10 + s).rows for s in range(10)]) for e in range(2)]
    assert all(sorted(rows.tolist()) == list(range(80)) for rows in epochs)
    assert not np.array_equal(*epochs)


def test_rows_are_well_mixed():
    meet = np.zeros((64, 64))
    one = plan([complete(rows=64, languages=("en",))], mode="monolingual")
    for step in range(4000):
        rows = one.batch(step).rows
        meet[np.ix_(rows, rows)] += 1
    together = meet[np.triu_indices(64, 1)]
    expected = 4000 * 8 / 64 * 7 / 63
    assert abs(together - expected).max() < 6 * np.sqrt(expected)


def test_permutation_spreads_evenly():
    n, keys = 12, 6000
    table = np.stack([permute(np.arange(n, dtype=np.int64), n, key) for key in range(keys)])
    for place in range(n):
        assert chisquare(np.bincount(table[:, place], minlength=n)).pvalue > 1e-5


def test_squad_like_collisions_are_all_avoided(cache, write_source, rows):
    """Five questions a paragraph, each in three languages: a naive shuffle would collide in most batches."""
    table = rows(1000)
    for i, row in enumerate(table):
        row["passage_id"] = f"paragraph {i // 5}"
    corpus = ParallelCorpus.open([str(write_source(table))])
    config = load_config("quickstart", {"data.sources": "x", "batching.global_batch_size": 128})
    one = BatchPlan.over(corpus, config)
    assert sum(one.batch(step).collisions().sum() for step in range(200)) == 0
    passages = np.arange(1000) // 5
    shuffled = [np.random.default_rng(s).permutation(passages)[:128] for s in range(200)]
    assert np.mean([len(set(batch)) < 128 for batch in shuffled]) > 0.95


def test_unavoidable_collisions_are_counted():
    ids = np.zeros(16, np.int64)
    from hbtrain.corpus.conflicts import SizeClass

    source = SourceIndex(
        "one-passage",
        16,
        ("en",),
        np.ones((1, 1), bool),
        np.ones((1, 1), bool),
        np.array([16]),
        passage_ids=ids,
        order=np.arange(16),
        classes=(SizeClass(16, 1, 0),),
    )
    assert plan([source], mode="monolingual").batch(0).collisions().all()


def test_fingerprint_is_the_same_in_another_process():
    code = (
        "from hbtrain.batching import BatchPlan; from hbtrain.config.batching import BatchingConfig;"
        "from hbtrain.corpus import SourceIndex;"
        f"s = SourceIndex.complete('all', 1000, {LANGUAGES!r});"
        "print(BatchPlan([s], BatchingConfig(global_batch_size=8)).fingerprint(5, 25))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == plan().fingerprint(5, 25)


def test_fingerprint_is_pinned():
    """A change of this digest changes every run's data order: bump the version and say so in the changelog."""
    assert plan().fingerprint(0, 20)[:16] == "415d4edab9f4c00b"


@pytest.mark.parametrize(
    ("batching", "digest"),
    [
        ({}, "efad5fb3c14d8fa8"),
        ({"mode": "monolingual", "language_temperature": 3.0}, "0f3873a94af8af28"),
        ({"cross_languages": "batch"}, "9e020d2b23b96a51"),
        ({"mode": "multilingual"}, "f4ec04d3ab9e0626"),
        ({"mode": "english"}, "ebcf602ff94c434a"),
        ({"mode": "cross-lingual"}, "b104355a5b030fac"),
    ],
)
def test_plans_of_the_quickstart_are_pinned(cache, batching, digest):
    config = load_config("quickstart", {f"batching.{key}": value for key, value in batching.items()})
    assert BatchPlan.from_config(config).fingerprint(0, 50)[:16] == digest


def test_a_huge_source_costs_nothing_to_plan():
    one = plan([complete(rows=10**9)], global_batch_size=256)
    for step in (0, 10**6):
        rows = one.batch(step).rows
        assert len(set(rows.tolist())) == 256
        assert rows.max() > 10**8


@pytest.mark.parametrize(
    ("sources", "languages", "batching", "words"),
    [
        (None, ("de", "sw"), {}, "no source has 'sw'"),
        (None, ("de",), {}, "two languages or more"),
        (None, ("de",), {"mode": "cross-lingual"}, "two languages or more"),
        (None, ("de",), {"mode": "english"}, "needs en"),
        (None, None, {"global_batch_size": 2000}, "cannot fill a batch"),
        ([complete("a", 50), complete("b", 5)], None, {}, "source b cannot fill a batch"),
        (
            [complete("a", 50, ("de", "en")), complete("b", 50, ("en",))],
            ("de", "en"),
            {"global_batch_size": 51},
            "cannot fill a batch",
        ),
        (None, None, {"language_weights": {"sw": 2}}, "language_weights: 'sw' is not among the training languages ar,"),
        (None, ("de", "ru"), {"language_weights": {"de": 0}}, "training languages are ru"),
        (None, ("de", "ru"), {"language_weights": {"de": 0, "ru": 0}}, "every training language has weight 0"),
        (None, None, {"mode": "english", "language_weights": {"en": 0}}, "needs en"),
        (None, None, {"source_weights": {"al": 2}}, "no source is called 'al'; they are all"),
        (None, None, {"source_weights": {"all": 0}}, "every source has weight 0"),
        ([complete("english", 50, ("en",))], None, {}, "two languages or more"),
        ([complete("en", 50, ("en",)), complete("de", 50, ("de",))], None, {"alpha": 0.5}, "fill a cross batch"),
    ],
)
def test_what_cannot_be_planned_is_said(sources, languages, batching, words):
    with pytest.raises((ConfigError, DataError), match=words):
        plan(sources, languages, **batching)


def test_a_language_too_small_for_a_batch_is_said():
    table = np.array([[True, True], [True, False]])
    source = SourceIndex(
        "s", 100, ("en", "th"), table, table, np.array([5, 95]), np.array([0] * 5 + [1] * 95, np.uint16)
    )
    with pytest.raises(DataError, match="monolingual batch in 'th': the largest offers 5 rows"):
        plan([source], mode="monolingual")


def test_more_ranks_than_pairs():
    with pytest.raises(ConfigError, match="resources.workers = 9"):
        shard_sizes(8, 9)
    with pytest.raises(ValueError, match="negative"):
        plan().batch(-1)
