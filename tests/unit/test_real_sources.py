"""The plan over real parallel text."""

import pytest

from hbtrain.batching import BatchPlan
from hbtrain.config import load_config
from hbtrain.corpus import ParallelCorpus

pytestmark = pytest.mark.shared

TRAINED = ("ar", "de", "en", "es", "hi", "ru", "th", "tr", "zh")


@pytest.fixture
def corpus(shared, cache):
    files = sorted([*(shared / "parallel").glob("*.gz"), *(shared / "sentences").glob("*.gz")])
    return ParallelCorpus.open([str(file) for file in files])


def test_real_batches_keep_their_promises(corpus):
    config = load_config("static-parallel", {"data.sources": "x", "data.languages": list(TRAINED)})
    plan = BatchPlan.over(corpus, config)
    seen = set()
    for step in range(300):
        batch = plan.batch(step)
        assert not batch.collisions().any()
        seen |= set(batch.query_languages) | set(batch.passage_languages)
        source = corpus.sources[batch.source]
        assert all(source.texts("query", batch.rows, batch.query_languages))
        assert all(source.texts("passage", batch.rows, batch.passage_languages))
    assert seen == set(TRAINED), "Greek and Vietnamese are in the files, not in training"


def test_small_streams_are_left_out_and_known(corpus):
    config = load_config("static-parallel", {"data.sources": "x", "data.languages": list(TRAINED)})
    small = {offer.label: offer.rows for offer in BatchPlan.over(corpus, config).catalogue.too_small}
    assert small["office-help mono hi"] == 74
