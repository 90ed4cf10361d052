"""The translations that pairs bring along, against their laws: whose, in which languages, how often each."""

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from hbtrain.batching import GlobalBatch
from hbtrain.batching.companions import translated_passages, translated_queries
from hbtrain.corpus.conflicts import SourceIndex

LANGUAGES = ("ar", "de", "en", "sw")


@st.composite
def batches(draw):
    """A batch whose rows have some languages on each side, of which each pair has one a side; and its source."""
    sentences = draw(st.booleans())
    subset = st.sets(st.sampled_from(range(4)), min_size=2 if sentences else 1)
    patterns = draw(st.lists(st.tuples(subset, subset), min_size=1, max_size=5))
    queries = [query for query, _ in patterns]
    passages = queries if sentences else [passage for _, passage in patterns]
    rows = draw(st.lists(st.integers(0, len(patterns) - 1), min_size=1, max_size=12))
    pairs = [
        draw(
            st.tuples(st.sampled_from(sorted(queries[row])), st.sampled_from(sorted(passages[row]))).filter(
                lambda pair: not sentences or pair[0] != pair[1]
            )
        )
        for row in rows
    ]
    source = SourceIndex(
        name="any",
        rows=len(patterns),
        languages=LANGUAGES,
        query_patterns=np.array([[x in own for x in range(4)] for own in queries]),
        passage_patterns=np.array([[x in own for x in range(4)] for own in passages]),
        pattern_counts=np.ones(len(patterns), np.int64),
        pattern_of_row=np.arange(len(patterns)),
        sentences=sentences,
    )
    numbers = np.arange(len(rows))
    codes = np.array(pairs, np.int64).reshape(-1, 2).T
    step = draw(st.integers(0, 10**6))
    batch = GlobalBatch(step, "cross", "any", np.array(rows), LANGUAGES, codes[0], codes[1], numbers, numbers)
    return batch, source


@given(batches(), st.integers(1, 5), st.integers(0, 3))
@settings(deadline=None)
def test_each_pair_brings_as_many_as_its_row_has_and_none_twice(given_batch, count, seed):
    batch, source = given_batch
    owners, codes = translated_passages(batch, source, count, seed)
    assert owners.tolist() == sorted(owners.tolist())
    for place, row in enumerate(batch.rows.tolist()):
        there = {x for x in range(4) if source.passage_patterns[row, x]} - {int(batch.passage_codes[place])}
        if source.sentences:
            there -= {int(batch.query_codes[place])}
        brought = codes[owners == place].tolist()
        assert len(brought) == len(set(brought)) == min(count, len(there))
        assert set(brought) <= there


@given(batches(), st.integers(0, 3))
@settings(deadline=None)
def test_a_pair_brings_one_translated_query_where_its_row_has_another(given_batch, seed):
    batch, source = given_batch
    owners, codes = translated_queries(batch, source, seed)
    assert len(set(owners.tolist())) == len(owners)
    for place, row in enumerate(batch.rows.tolist()):
        there = {x for x in range(4) if source.query_patterns[row, x]} - {int(batch.query_codes[place])}
        if source.sentences:
            there -= {int(batch.passage_codes[place])}
        assert set(codes[owners == place].tolist()) <= there
        assert (owners == place).sum() == (len(there) > 0)


def complete(step, pairs):
    """A batch of rows that have all languages: queries in German, passages in English."""
    rows, code = np.arange(pairs), np.ones(pairs, np.int64)
    return GlobalBatch(step, "cross", "any", rows, LANGUAGES, code, 2 * code, rows, rows)


def test_languages_are_drawn_uniformly_and_by_step_and_seed():
    source = SourceIndex.complete("any", 3000, LANGUAGES)
    owners, codes = translated_passages(complete(3, 3000), source, 2, 0)
    assert len(owners) == 6000
    counts = np.bincount(codes, minlength=4)
    assert counts[2] == 0
    assert np.abs(counts[[0, 1, 3]] - 2000).max() < 4 * np.sqrt(3000 * 2 / 9)
    again = translated_passages(complete(3, 3000), source, 2, 0)
    assert np.array_equal(again.codes, codes)
    for other in (
        translated_passages(complete(4, 3000), source, 2, 0),
        translated_passages(complete(3, 3000), source, 2, 1),
    ):
        assert not np.array_equal(other.codes, codes)


def test_languages_that_are_not_trained_are_not_drawn():
    batch = complete(0, 50)
    source = SourceIndex.complete("any", 50, ("zu", *LANGUAGES))
    assert set(translated_passages(batch, source, 9, 0).codes.tolist()) == {0, 1, 3}
    few = SourceIndex.complete("any", 50, ("de", "en"))
    assert translated_queries(batch, few, 0).codes.tolist() == [2] * 50
