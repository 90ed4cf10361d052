"""Weights and temperatures: what is drawn follows what was stated, computed here row by row."""

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from scipy.stats import chisquare

from hbtrain.batching import BatchPlan
from hbtrain.batching.availability import PairTable
from hbtrain.batching.permutation import key_of, uniform
from hbtrain.config.batching import BatchingConfig
from hbtrain.corpus import SourceIndex
from hbtrain.errors import ConfigError, DataError
from tests.property.test_plan_property import LANGUAGES, indices

STEPS = 250
LOWEST_P = 1e-5
WEIGHTS = st.sampled_from([0.0, 0.25, 1.0, 3.0])


def counts(plan, kind):
    """{(source, query language, passage language): pairs} of the batches of one kind."""
    found = {}
    for batch in map(plan.batch, range(STEPS)):
        if batch.kind == kind:
            for x, y in zip(batch.query_languages, batch.passage_languages, strict=True):
                found[batch.source, x, y] = found.get((batch.source, x, y), 0) + 1
    return found


def offered(rows, kind, weights):
    """The pairs (x, y) that a row, given as bits of its query and its passage, has for a kind."""
    query, passage = rows
    pairs = []
    for i, x in enumerate(LANGUAGES):
        for j, y in enumerate(LANGUAGES):
            if query >> i & 1 and passage >> j & 1 and (x != y) == (kind == "cross"):
                weight = weights.get(x, 1.0) * (weights.get(y, 1.0) if x != y else 1.0)
                pairs += [(x, y, weight)] * (weight > 0)
    return pairs


def expected_by_rows(sources, kind, batching):
    """{(source, x, y): share}, by the definition: sources by weighted pairs, rows alike, pairs by weight."""
    weights, source_weights = batching.language_weights, batching.source_weights
    size, power = {}, 1.0 / (batching.pair_temperature or 1.0) - 1.0
    tables = {
        name: [offered(row, kind, weights) for row in rows]
        for name, rows in sources.items()
        if source_weights.get(name, 1.0) > 0
    }
    tables = {  # a source too small for a batch is never drawn
        name: table for name, table in tables.items() if sum(map(bool, table)) >= batching.global_batch_size
    }
    for name, table in tables.items():
        for x, y, _ in (pair for row in table for pair in row):
            size[x, y] = size.get((x, y), 0.0) + source_weights.get(name, 1.0)
    share, sizes = {}, {}
    for name, table in tables.items():
        used = [[(x, y, w * size[x, y] ** power) for x, y, w in row] for row in table if row]
        sizes[name] = source_weights.get(name, 1.0) * sum(w for row in used for _, _, w in row)
        for row in used:
            total = sum(w for _, _, w in row)
            for x, y, w in row:
                share[name, x, y] = share.get((name, x, y), 0.0) + w / total / len(used)
    return {key: value * sizes[key[0]] / sum(sizes.values()) for key, value in share.items()}


@st.composite
def weighted(draw, **fixed):
    sources = [draw(indices(name)) for name in ("a", "b")]
    batching = BatchingConfig(
        **{
            "global_batch_size": draw(st.integers(1, 4)),
            "pair_temperature": draw(st.sampled_from([None, 2.0, 1e6])),
            "language_weights": draw(st.dictionaries(st.sampled_from(LANGUAGES), WEIGHTS, max_size=3)),
            "source_weights": draw(st.dictionaries(st.sampled_from(["a", "b"]), WEIGHTS, max_size=2)),
            **fixed,
        }
    )
    try:
        plan = BatchPlan([index for index, _ in sources], batching, None, draw(st.integers(0, 2**16)))
    except (ConfigError, DataError):
        assume(False)
    return plan, {index.name: rows for index, rows in sources}


@settings(max_examples=40)
@given(weighted(mode="hybrid"), st.integers(0, 300))
def test_nothing_of_weight_0_is_drawn_and_rows_offer_only_what_they_have(plan_and_rows, step):
    plan, rows_of = plan_and_rows
    batch, batching = plan.batch(step), plan.batching
    assert batching.source_weights.get(batch.source, 1.0) > 0
    for row, x, y in zip(batch.rows, batch.query_languages, batch.passage_languages, strict=True):
        assert batching.language_weights.get(x, 1.0) > 0
        assert batching.language_weights.get(y, 1.0) > 0
        query, passage = rows_of[batch.source][row]
        assert query >> LANGUAGES.index(x) & 1
        assert passage >> LANGUAGES.index(y) & 1


@settings(max_examples=40)
@given(weighted(), st.sampled_from(["cross", "multi"]))
def test_the_shares_that_offers_state_are_the_definition(plan_and_rows, kind):
    """Weight of an offer times its shares of pairs, against row by row."""
    plan, rows_of = plan_and_rows
    batching = plan.batching.model_copy(update={"mode": "cross-lingual" if kind == "cross" else "multilingual"})
    try:
        plan = BatchPlan([o.availability.source for o in _distinct(plan)], batching, None, plan.seed)
    except (ConfigError, DataError):
        assume(False)
    expected = expected_by_rows({name: rows_of[name] for name in {o.name for o in _sources(plan)}}, kind, batching)
    stated = {}
    for offer in plan.catalogue.offers:
        for i, x in enumerate(plan.languages):
            for j, y in enumerate(plan.languages):
                stated[offer.availability.source.name, x, y] = offer.weight * offer.pair_shares[i, j]
    assert {key for key, share in stated.items() if share > 0} == set(expected)
    for key, share in expected.items():
        np.testing.assert_allclose(stated[key], share, rtol=1e-9)


def _distinct(plan):
    return {o.availability.source.name: o for o in plan.catalogue.offers}.values()


def _sources(plan):
    return [o.availability.source for o in _distinct(plan)]


def fixed_source(name, patterns, counts, languages=("de", "en", "sw")):
    """A source whose rows have, on both sides, the languages of their pattern."""
    table = np.array([[language in pattern for language in languages] for pattern in patterns])
    of_row = np.repeat(np.arange(len(counts), dtype=np.uint16), counts)
    return SourceIndex(name, sum(counts), languages, table, table, np.array(counts), of_row)


BIG = ("big", [("de", "en", "sw"), ("de", "en")], [100, 900])
SMALL = ("small", [("en", "sw")], [300])


@pytest.mark.parametrize(
    "batching",
    [
        {},
        {"language_weights": {"sw": 4.0}},
        {"language_weights": {"sw": 4.0, "de": 0.5}, "source_weights": {"small": 3.0}},
        {"pair_temperature": 3.0},
        {"pair_temperature": 1e6, "language_weights": {"en": 0.5}},
    ],
)
@pytest.mark.parametrize("kind", ["cross", "multi"])
def test_pairs_drawn_row_by_row_converge_to_the_definition(batching, kind):
    config = BatchingConfig(
        mode="cross-lingual" if kind == "cross" else "multilingual", global_batch_size=50, **batching
    )
    plan = BatchPlan([fixed_source(*BIG), fixed_source(*SMALL)], config, None, 3)
    bits = {"de": 1 << LANGUAGES.index("de"), "en": 1 << LANGUAGES.index("en"), "sw": 1 << LANGUAGES.index("ru")}
    rows = {
        name: [
            (sum(bits[x] for x in pattern),) * 2
            for pattern, count in zip(patterns, number, strict=True)
            for _ in range(count)
        ]
        for name, patterns, number in (BIG, SMALL)
    }  # "sw" stands in the place of "ru" among the property tests' languages
    renamed = config.model_copy(
        update={"language_weights": {"ru" if x == "sw" else x: w for x, w in config.language_weights.items()}}
    )
    expected = {
        (name, *("sw" if x == "ru" else x for x in pair)): share
        for (name, *pair), share in expected_by_rows(rows, kind, renamed).items()
    }
    found = counts(plan, kind)
    assert set(found) == set(expected)
    by_source = {name: sum(n for (s, *_), n in found.items() if s == name) for name in ("big", "small")}
    drawn_batches = [by_source["big"] // 50, by_source["small"] // 50]
    share = sum(v for (s, *_), v in expected.items() if s == "big")
    assert chisquare(drawn_batches, [STEPS * share, STEPS * (1 - share)]).pvalue > LOWEST_P
    for name in ("big", "small"):
        keys = [key for key in expected if key[0] == name]
        inner = np.array([expected[key] for key in keys])
        assert chisquare([found[key] for key in keys], inner / inner.sum() * by_source[name]).pvalue > LOWEST_P


@pytest.mark.parametrize(
    ("temperature", "weights"), [(None, {}), (1.0, {"sw": 2.0}), (3.0, {"sw": 2.0, "de": 0.5}), (1e6, {})]
)
def test_pairs_of_whole_batches_are_drawn_in_proportion_to_size_and_weight(temperature, weights):
    config = BatchingConfig(
        mode="cross-lingual",
        cross_languages="batch",
        global_batch_size=5,
        pair_temperature=temperature,
        language_weights=weights,
    )
    plan = BatchPlan([fixed_source(*BIG), fixed_source(*SMALL)], config, None, 1)
    rows = {("de", "en"): 1000, ("de", "sw"): 100, ("en", "sw"): 400}
    power = 1.0 / (temperature or 1.0)
    raw = {pair: n**power * weights.get(pair[0], 1.0) * weights.get(pair[1], 1.0) for pair, n in rows.items()}
    found = dict.fromkeys([*rows, *(pair[::-1] for pair in rows)], 0)
    for offer in map(plan.catalogue.offers.__getitem__, plan.draws(0, 4000)):
        found[tuple(plan.languages[code] for code in offer.pair)] += 1
    expected = [4000 * raw[tuple(sorted(pair))] / (2 * sum(raw.values())) for pair in found]
    assert chisquare(list(found.values()), expected).pvalue > LOWEST_P


@pytest.mark.parametrize(
    ("temperature", "weights", "sources"),
    [
        (None, {"sw": 3.0}, {}),
        (1.0, {"sw": 2.0, "de": 0.25}, {"small": 2.0}),
        (3.0, {}, {"small": 0.5}),
    ],
)
def test_languages_and_sources_of_monolingual_batches(temperature, weights, sources):
    config = BatchingConfig(
        mode="monolingual",
        global_batch_size=5,
        language_temperature=temperature,
        language_weights=weights,
        source_weights=sources,
    )
    plan = BatchPlan([fixed_source(*BIG), fixed_source(*SMALL)], config, None, 1)
    small = sources.get("small", 1.0)
    rows = {("big", "de"): 1000, ("big", "en"): 1000, ("big", "sw"): 100}
    rows |= {("small", "en"): 300 * small, ("small", "sw"): 300 * small}
    size = {x: sum(n for (_, y), n in rows.items() if x == y) for x in ("de", "en", "sw")}
    raw = {x: weights.get(x, 1.0) * (1.0 if temperature is None else n ** (1 / temperature)) for x, n in size.items()}
    expected = [4000 * raw[x] / sum(raw.values()) * n / size[x] for (_, x), n in rows.items()]
    found = dict.fromkeys(rows, 0)
    for offer in map(plan.catalogue.offers.__getitem__, plan.draws(0, 4000)):
        found[offer.availability.source.name, plan.languages[offer.pair[0]]] += 1
    assert chisquare(list(found.values()), expected).pvalue > LOWEST_P


@given(st.integers(1, 6), st.integers(1, 5), st.data())
def test_a_weighted_draw_never_leaves_its_pattern(patterns, languages, data):
    allowed = np.array(
        data.draw(
            st.lists(
                st.lists(st.booleans(), min_size=languages**2, max_size=languages**2).filter(any),
                min_size=patterns,
                max_size=patterns,
            )
        )
    ).reshape(patterns, languages, languages)
    weight = st.floats(1e-12, 1e12)
    weights = np.array(data.draw(st.lists(weight, min_size=languages**2, max_size=languages**2)))
    table = PairTable(np.nonzero(allowed), patterns, languages, weights.reshape(languages, languages))
    drawn = np.repeat(np.arange(patterns), 200)
    u = uniform(key_of("test"), np.arange(len(drawn)))
    u[:2] = 0.0, 1.0 - 2.0**-53
    query, passage = table.draw(drawn, u)
    assert allowed[drawn, query, passage].all()


def test_equal_weights_change_nothing():
    """A weight is relative: the same for all is as good as none, to the last draw."""
    sources = [fixed_source(*BIG), fixed_source(*SMALL)]
    plain = BatchPlan(sources, BatchingConfig(global_batch_size=8), None, 0)
    same = BatchingConfig(
        global_batch_size=8,
        language_weights={"de": 2, "en": 2, "sw": 2},
        source_weights={"small": 1},
        pair_temperature=1,
    )
    assert BatchPlan(sources, same, None, 0).fingerprint(0, 100) == plain.fingerprint(0, 100)


@pytest.mark.parametrize("least", [1e-9, 1e-17, 1e-30])
def test_small_weights_count_beside_large_ones(least):
    """Pairs of a pattern are drawn in proportion to their weights, whatever those of other patterns are."""
    allowed = np.zeros((2, 4, 4), bool)
    allowed[0, 0, 1] = allowed[0, 1, 0] = allowed[1, 2, 3] = allowed[1, 3, 2] = True
    weights = np.ones((4, 4))
    weights[2, 3], weights[3, 2] = 3 * least, least
    table = PairTable(np.nonzero(allowed), 2, 4, weights)
    u = uniform(key_of("small"), np.arange(4000))
    query, passage = table.draw(np.ones(len(u), np.int64), u)
    assert set(zip(query.tolist(), passage.tolist(), strict=True)) == {(2, 3), (3, 2)}
    assert np.mean(query == 2) == pytest.approx(0.75, abs=0.03)
