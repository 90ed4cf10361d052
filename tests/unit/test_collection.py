"""A collection is encoded once, goes on where it stopped, and is found the same however the work was divided."""

from pathlib import Path

import numpy as np
import pytest

from hbtrain.errors import ConfigError, ModelError, StorageError
from hbtrain.modeling import Encoder
from hbtrain.retrieval.collection_search import SearchOptions, embed_collection, search_collection
from hbtrain.retrieval.encoding import Batching, BlockEncoder, block_encoders, cached_embeddings, fill
from hbtrain.retrieval.manifest import Manifest, texts_digest
from hbtrain.retrieval.store import EmbeddingStore, StoreWriter
from hbtrain.retrieval.workers import LocalWorkers
from tests.unit.retrieval_samples import Hashed, manifest, texts_of
from tests.unit.tiny_models import encoder_config

TEXTS = texts_of(50)
QUERIES = [TEXTS[31], TEXTS[7], "something else"]


@pytest.fixture
def options(tmp_path):
    """Shards of ten rows in blocks of four, everything below the test's own folder."""

    def make(**changes):
        return SearchOptions(**({"rows_per_shard": 10, "block_rows": 4, "cache": tmp_path / "cache"} | changes))

    return make


class Backwards(LocalWorkers):
    """Does its tasks last first, as actors may."""

    def map_unordered(self, method, tasks):
        yield from reversed(list(super().map_unordered(method, tasks)))


def described(**changes):
    fields = {"rows": 50, "dimension": 8, "rows_per_shard": 10, "block_rows": 4}
    return manifest(**(fields | changes))


def test_texts_find_themselves_and_are_encoded_in_blocks_that_keep_to_shards(options):
    encoder = Hashed()
    found = search_collection(encoder, TEXTS, QUERIES, 3, options())
    assert found.found.places[:2, 0].tolist() == [31, 7]
    assert found.found.scores[:2, 0] == pytest.approx(1)
    assert (found.search, found.recall, found.store_type) == ("exact", None, "float32")
    blocks = encoder.asked[:-1]
    assert [len(block) for block in blocks] == [4, 4, 2] * 5
    assert [text for block in blocks for text in block] == TEXTS
    assert encoder.asked[-1] == QUERIES


def test_what_was_encoded_is_not_encoded_again(options, tmp_path):
    first = search_collection(Hashed(), TEXTS, QUERIES, 3, options())
    again = Hashed()
    second = search_collection(again, TEXTS, QUERIES, 3, options(shards=3))
    assert again.asked == []
    np.testing.assert_array_equal(first.found.places, second.found.places)
    np.testing.assert_array_equal(first.found.scores, second.found.scores)
    # Other texts, another model, another prompt are something else.
    for encoder, passages in ((Hashed(), [*TEXTS[:-1], "new"]), (Hashed(name="other"), TEXTS)):
        search_collection(encoder, passages, QUERIES, 3, options())
        assert len(encoder.asked) >= 15
    prompted = Hashed()
    prompted.prefixes["passage"] = "p: "
    search_collection(prompted, TEXTS, QUERIES, 3, options())
    assert len(prompted.asked) == 15  # the queries' prompt is the same


def test_an_encoding_that_stopped_goes_on(options, tmp_path):
    class Stopped(Hashed):
        def encode(self, texts, side, **arguments):
            if TEXTS[26] in texts:
                raise KeyboardInterrupt
            return super().encode(texts, side, **arguments)

    told = []
    store = tmp_path / "store"
    with pytest.raises(KeyboardInterrupt):
        search_collection(Stopped(), TEXTS, QUERIES, 3, options(), store)
    with pytest.raises(StorageError, match="3 of 5 shards are missing"):
        EmbeddingStore(store)
    encoder = Hashed()
    found = search_collection(encoder, TEXTS, QUERIES, 3, options(), store, lambda *at: told.append(at))
    assert [text for block in encoder.asked[:-1] for text in block] == TEXTS[20:]
    assert told[0] == ("passage", 24, 50)
    assert told[-2:] == [("passage", 50, 50), ("query", 3, 3)]
    whole = search_collection(Hashed(), TEXTS, QUERIES, 3, options(), tmp_path / "other")
    np.testing.assert_array_equal(found.found.scores, whole.found.scores)
    for shard in store.glob("*.npy"):
        assert shard.read_bytes() == (tmp_path / "other" / shard.name).read_bytes()


def test_a_shard_cut_short_is_encoded_again(options, tmp_path):
    search_collection(Hashed(), TEXTS, QUERIES, 3, options(), tmp_path / "store")
    path = tmp_path / "store" / "shard-00002.npy"
    whole = path.read_bytes()
    path.write_bytes(whole[:-7])
    encoder = Hashed()
    search_collection(encoder, TEXTS, QUERIES, 3, options(), tmp_path / "store")
    assert [text for block in encoder.asked for text in block] == TEXTS[20:30]
    assert path.read_bytes() == whole


def test_workers_may_finish_in_any_order(tmp_path):
    for name, kind in (("one", LocalWorkers), ("two", Backwards)):
        with StoreWriter(tmp_path / name, described()) as writer:
            fill(writer, TEXTS, kind([lambda device: BlockEncoder(Hashed(), Batching())]))
    for shard in (tmp_path / "one").glob("*.npy"):
        assert shard.read_bytes() == (tmp_path / "two" / shard.name).read_bytes()


def test_a_store_of_another_model_or_dimension_is_one_line(options, tmp_path):
    search_collection(Hashed(), TEXTS, QUERIES, 3, options(), tmp_path / "store")
    for encoder, words in ((Hashed(name="x"), "another model"), (Hashed(dimension=9), "dimension 8, not 9")):
        with pytest.raises(StorageError, match=words):
            search_collection(encoder, TEXTS, QUERIES, 3, options(), tmp_path / "store")
        assert encoder.asked == []


@pytest.mark.parametrize("side", ["passage", "query"])
def test_embeddings_that_are_no_numbers_are_one_line_and_stay_out(options, tmp_path, side):
    class Broken(Hashed):
        def encode(self, texts, asked, **arguments):
            vectors = super().encode(texts, asked, **arguments)
            vectors[1] = np.nan if asked == side else vectors[1]
            return vectors

    for _ in range(2):
        with pytest.raises(ModelError, match=f"embedding of {side} 1 holds NaN"):
            search_collection(Broken(), TEXTS, QUERIES, 3, options())


def test_an_encoder_that_loses_texts_is_one_line(options):
    class Short(Hashed):
        def encode(self, texts, side, **arguments):
            return super().encode(texts[1:], side, **arguments)

    with pytest.raises(ModelError, match="gave 3 embeddings for 4 texts"):
        search_collection(Short(), TEXTS, QUERIES, 3, options())


@pytest.mark.parametrize(
    ("k", "changes", "words"),
    [
        (51, {}, "51 results of a query: must be between 1 and the 50 passages"),
        (0, {}, "0 results"),
        (3, {"index": "IVF64,Flat"}, "needs training on 64 vectors"),
        (3, {"index": "IVF30,Flat", "shards": 2}, "needs training on 30 vectors .* and a shard has 20"),
        (3, {"index": "nonsense"}, "cannot be made"),
    ],
)
def test_what_cannot_be_is_said_before_anything_is_encoded(options, k, changes, words):
    encoder = Hashed()
    with pytest.raises(ConfigError, match=words):
        search_collection(encoder, TEXTS, QUERIES, k, options(**changes))
    assert encoder.asked == []


def test_options_that_cannot_be_are_one_line():
    for changes in ({"shards": 0}, {"actors": -1}, {"cpus_per_actor": 0}):
        with pytest.raises(ConfigError, match="there must be a shard"):
            SearchOptions(**changes)


def test_an_encoder_from_nowhere_cannot_be_loaded_by_actors():
    with pytest.raises(ModelError, match="save it first"):
        block_encoders(Hashed(), "digest", Batching(), 2)


def test_an_approximate_search_says_so_with_its_recall(options):
    found = search_collection(
        Hashed(), TEXTS, QUERIES, 3, options(index="IVF5,Flat", parameters="nprobe=5", recall_queries=2)
    )
    assert (found.search, found.recall, found.recall_queries) == ("IVF5,Flat nprobe=5", 1.0, 2)


def test_texts_need_only_be_indexable(options):
    class OnDisk:
        def __len__(self):
            return len(TEXTS)

        def __getitem__(self, row):
            if not 0 <= row < len(TEXTS):
                raise IndexError(row)
            return TEXTS[row]

    found = search_collection(Hashed(), OnDisk(), QUERIES, 3, options())
    assert found.found.places[0, 0] == 31


def test_a_damaged_cache_of_queries_is_made_anew(tmp_path):
    arguments = ("digest", QUERIES, "query", tmp_path, Batching())
    first = cached_embeddings(Hashed(), *arguments)
    (path,) = (tmp_path / "embeddings").iterdir()
    for content in (b"", b"nonsense", path.read_bytes()[:-4]):
        path.write_bytes(content)
        np.testing.assert_array_equal(cached_embeddings(Hashed(), *arguments), first)
    np.testing.assert_array_equal(np.load(path), first)
    kept = Hashed()
    cached_embeddings(kept, *arguments)
    assert kept.asked == []
    cached_embeddings(kept, "another", *arguments[1:])
    cached_embeddings(kept, "digest", QUERIES[:2], *arguments[2:])
    assert kept.asked == [QUERIES, QUERIES[:2]]
    assert len(list((tmp_path / "embeddings").iterdir())) == 3


def test_a_cache_that_cannot_be_written_is_one_line(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(StorageError, match="cannot write the cache .* HBTRAIN_CACHE"):
        cached_embeddings(Hashed(), "digest", QUERIES, "query", tmp_path / "file", Batching())


def test_the_store_lies_in_hbtrains_cache_by_default(cache):
    embedded = embed_collection(Hashed(), TEXTS, SearchOptions())
    assert embedded.folder.parent == cache / "embeddings"
    assert embedded.manifest == Manifest(
        Hashed().digest(), "passage", "", texts_digest(TEXTS), 50, 8, "float32", 32_768, 2048
    )


@pytest.mark.parametrize("backbone", ["static", "transformer"])
def test_a_real_encoder_fills_a_store_with_what_it_encodes(options, tmp_path: Path, backbone):
    encoder = Encoder.build(encoder_config(backbone), lambda: TEXTS, 0)
    store = embed_collection(encoder, TEXTS, options())
    np.testing.assert_allclose(store.take(np.arange(50)), encoder.encode(TEXTS, "passage"), atol=1e-6)
    # To the bit, what the block alone gives.
    block = encoder.encode(TEXTS[14:18], "passage", batch_size=1024)
    np.testing.assert_array_equal(store.take(np.arange(14, 18)), block)
    encoder.save(tmp_path / "model")
    loaded = Encoder.load(str(tmp_path / "model"), device="cpu")
    assert loaded.origin is not None
    (make, other) = block_encoders(loaded, loaded.digest(), Batching(), 2)
    for side in ("passage", "query"):
        np.testing.assert_array_equal(
            make("cpu").encode(TEXTS[14:18], side), loaded.encode(TEXTS[14:18], side, batch_size=1024)
        )
    Encoder.build(encoder_config(backbone), lambda: TEXTS, 1).save(tmp_path / "model")
    with pytest.raises(ModelError, match="an actor loaded other weights from there"):
        other("cpu")
