"""Laws of the batch plan, for any sources, languages, gaps and batch sizes."""

import numpy as np
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from hbtrain.batching import BatchPlan, shard_sizes
from hbtrain.batching.permutation import permute
from hbtrain.batching.stream import Stream
from hbtrain.config.batching import BatchingConfig
from hbtrain.corpus.conflicts import SourceIndex, cluster_order, clusters
from hbtrain.errors import ConfigError, DataError

LANGUAGES = ("ar", "de", "en", "ru")


@given(st.integers(1, 5000), st.integers(0, 2**32))
def test_permutation_is_one(n, key):
    out = permute(np.arange(n, dtype=np.int64), n, key)
    assert sorted(out.tolist()) == list(range(n))


@given(st.integers(1, 10**12), st.integers(0, 100), st.data())
def test_permutation_of_a_place_does_not_depend_on_the_others(n, key, data):
    places = np.array(data.draw(st.lists(st.integers(0, n - 1), min_size=1, max_size=20, unique=True)), np.int64)
    together = permute(places, n, key)
    assert ((together >= 0) & (together < n)).all()
    assert len(set(together.tolist())) == len(places)
    for place, sent in zip(places, together, strict=True):
        assert permute(np.array([place]), n, key)[0] == sent


def stream_of(query_ids, passage_ids):
    cluster = clusters(query_ids, passage_ids)
    order, classes = cluster_order(np.arange(len(cluster)), cluster, passage_ids)
    return Stream("test", len(cluster), order, classes), np.bincount(cluster).max()


@st.composite
def id_columns(draw):
    """Query and passage ids: from all different to heavily shared."""
    n = draw(st.integers(2, 120))
    passages = draw(st.integers(1, n))
    queries = draw(st.integers(max(1, n // 2), n))
    query_ids = draw(st.lists(st.integers(0, queries - 1), min_size=n, max_size=n))
    passage_ids = draw(st.lists(st.integers(0, passages - 1), min_size=n, max_size=n))
    return np.array(query_ids), np.array(passage_ids)


@given(id_columns(), st.integers(1, 12), st.integers(0, 3))
def test_an_epoch_deals_every_row_at_most_once_and_drops_less_than_a_batch(ids, batch_size, epoch):
    stream, _ = stream_of(*ids)
    assume(stream.rows >= batch_size)
    batches = stream.rows // batch_size
    dealt = np.concatenate([stream.batch(epoch * batches + b, batch_size) for b in range(batches)])
    assert len(set(dealt.tolist())) == len(dealt) == batches * batch_size
    assert stream.rows - len(dealt) < batch_size


@given(id_columns(), st.integers(1, 12))
def test_every_row_is_dealt_in_the_long_run(ids, batch_size):
    """Those that an epoch leaves over are drawn anew for each, whatever their clusters' sizes."""
    stream, _ = stream_of(*ids)
    assume(stream.rows >= batch_size)
    dealt: set[int] = set()
    for number in range(200 * (stream.rows // batch_size)):
        dealt.update(stream.batch(number, batch_size).tolist())
        if len(dealt) == stream.rows:
            return
    raise AssertionError(f"never dealt: {sorted(set(range(stream.rows)) - dealt)}")


@given(id_columns(), st.integers(1, 12), st.integers(0, 50))
def test_no_batch_repeats_a_query_or_passage_where_that_can_be_avoided(ids, batch_size, number):
    query_ids, passage_ids = ids
    stream, largest_cluster = stream_of(query_ids, passage_ids)
    assume(stream.rows >= batch_size)
    assume(largest_cluster <= stream.rows // batch_size)
    rows = stream.batch(number, batch_size)
    assert len(set(query_ids[rows].tolist())) == batch_size
    assert len(set(passage_ids[rows].tolist())) == batch_size


@st.composite
def indices(draw, name="source"):
    """A source in which each row has a random set of languages on each side."""
    n = draw(st.integers(8, 60))
    bits = st.integers(1, 2 ** len(LANGUAGES) - 1)
    rows = draw(st.lists(st.tuples(bits, bits), min_size=n, max_size=n))
    patterns = sorted(set(rows))
    code = {pattern: i for i, pattern in enumerate(patterns)}
    of_row = np.array([code[row] for row in rows], np.uint16)
    query, passage = (
        np.array([[bool(p[side] >> i & 1) for i in range(len(LANGUAGES))] for p in patterns]) for side in (0, 1)
    )
    passage_ids = np.array(draw(st.lists(st.integers(0, n), min_size=n, max_size=n)), np.int64)
    cluster = clusters(np.arange(n), passage_ids)
    order, classes = cluster_order(np.arange(n), cluster, passage_ids)
    index = SourceIndex(
        name, n, LANGUAGES, query, passage, np.bincount(of_row), of_row, None, passage_ids, order, classes
    )
    return index, rows


MODES = ["hybrid", "monolingual", "cross-lingual", "multilingual", "english"]


@st.composite
def plans(draw):
    sources = [draw(indices(name)) for name in draw(st.sampled_from([["a"], ["a", "b"]]))]
    batching = BatchingConfig(
        mode=draw(st.sampled_from(MODES)),
        alpha=draw(st.sampled_from([0.0, 0.3, 1.0, {0: 1.0, 20: 0.0}])),
        global_batch_size=draw(st.integers(1, 4)),
        cross_languages=draw(st.sampled_from(["pair", "batch"])),
        language_temperature=draw(st.sampled_from([None, 1.0, 3.0])),
    )
    languages = draw(st.sampled_from([None, ("en", "de"), ("ru", "en", "ar")]))
    seed = draw(st.integers(0, 2**16))

    def make():
        return BatchPlan([index for index, _ in sources], batching, languages, seed)

    try:
        return make(), make, {index.name: rows for index, rows in sources}
    except (ConfigError, DataError):
        assume(False)


@settings(max_examples=60)
@given(plans(), st.integers(0, 300))
def test_a_batch_offers_only_pairs_that_the_rows_have(plan_and_rows, step):
    plan, _, rows_of = plan_and_rows
    batch = plan.batch(step)
    assert len(batch) == plan.batching.global_batch_size
    for row, x, y in zip(batch.rows, batch.query_languages, batch.passage_languages, strict=True):
        query, passage = rows_of[batch.source][row]
        assert query >> LANGUAGES.index(x) & 1
        assert passage >> LANGUAGES.index(y) & 1
        assert {x, y} <= set(plan.languages)
        assert (x != y) == (batch.kind == "cross")
    if batch.kind == "mono":
        assert len(set(batch.query_languages + batch.passage_languages)) == 1


@settings(max_examples=40)
@given(plans(), st.integers(0, 300))
def test_a_batch_depends_on_its_step_alone(plan_and_rows, step):
    plan, make, _ = plan_and_rows
    for earlier in (3, 0, 200):
        plan.batch(earlier)
    assert plan.fingerprint(step, step + 2) == make().fingerprint(step, step + 2)


@settings(max_examples=40)
@given(plans(), st.integers(0, 50), st.integers(1, 4))
def test_shards_are_the_batch(plan_and_rows, step, world_size):
    plan, _, _ = plan_and_rows
    batch = plan.batch(step)
    assume(world_size <= len(batch))
    shards = [batch.shard(rank, world_size) for rank in range(world_size)]
    sizes = [len(shard) for shard in shards]
    assert sizes == shard_sizes(len(batch), world_size)
    assert max(sizes) - min(sizes) <= 1
    for name in ("rows", "query_codes", "passage_codes", "query_ids", "passage_ids"):
        assert np.array_equal(np.concatenate([getattr(s, name) for s in shards]), getattr(batch, name))
