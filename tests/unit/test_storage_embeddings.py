"""Embeddings in a bucket: encoded by one machine, used by the next, and gone on with where the first one was killed."""

import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from hbtrain.config import load_config
from hbtrain.errors import ConfigError, StorageError
from hbtrain.retrieval import store as store_module
from hbtrain.retrieval.collection_search import SearchOptions, embed_collection
from hbtrain.retrieval.manifest import Manifest
from hbtrain.retrieval.store import EmbeddingStore, Mirror
from hbtrain.storage import files, place
from tests.unit.retrieval_samples import Hashed, texts_of

TEXTS = texts_of(28)


class Killed(Hashed):
    """Ends after so many texts, as a killed process does."""

    def __init__(self, after):
        super().__init__()
        self.after = after

    def encode(self, texts, *arguments, **named):
        if sum(map(len, self.asked)) >= self.after:
            raise KeyboardInterrupt
        return super().encode(texts, *arguments, **named)


@pytest.fixture
def options(tmp_path, bucket):
    """Options on the machine of a name; all share the bucket."""

    def make(machine, at=f"{bucket.uri}/embeddings"):
        return SearchOptions(rows_per_shard=10, block_rows=5, cache=tmp_path / machine, mirror=place(at))

    return make


def vectors(store):
    return np.concatenate([store.shard(shard) for shard in range(len(store.manifest.shards))])


def expected():
    return np.concatenate([Hashed().vector(text) for text in TEXTS])


def test_what_one_machine_encoded_the_next_one_has(options, bucket):
    first, second = Hashed(), Hashed()
    here = embed_collection(first, TEXTS, options("one"))
    assert sum(map(len, first.asked)) == 28
    names = sorted(key.split("/")[-1] for key in bucket.keys())  # noqa: SIM118 - a method of Bucket
    shards = [f"shard-{n:05d}.{kind}" for n in range(3) for kind in ("json", "npy")]
    assert names == ["manifest.json", *shards]
    there = embed_collection(second, TEXTS, options("two"))
    assert second.asked == []
    np.testing.assert_array_equal(vectors(there), vectors(here))
    np.testing.assert_array_equal(vectors(there), expected())
    there.verify()


def test_an_encoding_that_was_killed_goes_on_elsewhere(options, bucket):
    with pytest.raises(KeyboardInterrupt):
        embed_collection(Killed(after=15), TEXTS, options("one"))
    assert [key for key in bucket.keys("embeddings/") if key.endswith(".npy")] == [
        next(iter(bucket.keys("embeddings/"))).rsplit("/", 1)[0] + "/shard-00000.npy"
    ]
    second = Hashed()
    store = embed_collection(second, TEXTS, options("two"))
    assert sum(map(len, second.asked)) == 18
    np.testing.assert_array_equal(vectors(store), expected())
    third = Hashed()
    embed_collection(third, TEXTS, options("three"))
    assert third.asked == []


def test_a_store_that_was_there_before_the_bucket_is_pushed(options, tmp_path, bucket):
    embed_collection(Hashed(), TEXTS, SearchOptions(rows_per_shard=10, block_rows=5, cache=tmp_path / "one"))
    assert bucket.keys("embeddings/") == []
    first, second = Hashed(), Hashed()
    embed_collection(first, TEXTS, options("one"))
    embed_collection(second, TEXTS, options("two"))
    assert (first.asked, second.asked) == ([], [])


@pytest.mark.parametrize("harm", ["a turned bit", "a lost file", "no digest"])
def test_a_damaged_shard_is_encoded_again(options, bucket, harm):
    embed_collection(Hashed(), TEXTS, options("one"))
    data = next(key for key in bucket.keys("embeddings/") if key.endswith("00001.npy"))
    if harm == "a turned bit":
        content = bytearray(bucket.get(data))
        content[-1] ^= 1
        bucket.put(data, bytes(content))
    elif harm == "a lost file":
        bucket.client.delete_object(Bucket=bucket.name, Key=data)
    else:
        bucket.put(data.replace(".npy", ".json"), b"{")
    second = Hashed()
    store = embed_collection(second, TEXTS, options("two"))
    assert sum(map(len, second.asked)) == 10
    np.testing.assert_array_equal(vectors(store), expected())
    third = Hashed()
    embed_collection(third, TEXTS, options("three"))
    assert third.asked == [], "the damaged one has been replaced"


def test_two_that_fetch_one_store_at_once(options, bucket, tmp_path, monkeypatch):
    """Each shard is fetched once, and what one of them has fetched the other never replaces."""
    embed_collection(Hashed(), TEXTS, options("one"))
    copied, copy = [], store_module.copy_with_digest

    def slow_copy(read, write):
        time.sleep(0.05)
        copied.append(copy(read, write))
        return copied[-1]

    monkeypatch.setattr(store_module, "copy_with_digest", slow_copy)
    at = options("two").mirror / next(iter(bucket.keys("embeddings/"))).split("/")[1]
    manifest = Manifest.read(next(tmp_path.glob("one/embeddings/*")))
    mirrors = [Mirror(tmp_path / "two", at, manifest) for _ in range(2)]
    with ThreadPoolExecutor(2) as pool:
        list(pool.map(Mirror.fetch, mirrors))
    assert len(copied) == 3
    store = EmbeddingStore(tmp_path / "two", manifest)
    store.verify()
    np.testing.assert_array_equal(vectors(store), expected())


def test_a_damaged_copy_is_never_put_in_place(options, bucket, tmp_path, monkeypatch):
    embed_collection(Hashed(), TEXTS, options("one"))
    data = next(key for key in bucket.keys("embeddings/") if key.endswith("00001.npy"))
    bucket.put(data, bucket.get(data)[:-1] + b"x")
    placed, place_it = [], files.put_in_place
    monkeypatch.setattr(
        files, "put_in_place", lambda made, path, *a: (placed.append(path.name), place_it(made, path, *a))
    )
    at = options("two").mirror / data.split("/")[1]
    Mirror(tmp_path / "two", at, Manifest.read(next(tmp_path.glob("one/embeddings/*")))).fetch()
    assert {name for name in placed if name.endswith(".npy")} == {"shard-00000.npy", "shard-00002.npy"}
    assert not (tmp_path / "two" / "shard-00001.json").exists()


def test_a_bucket_that_is_not_there(options):
    with pytest.raises(StorageError, match=r"embeddings in s3://no-such-bucket/x/\w+ cannot be .*NO_SUCH_BUCKET"):
        embed_collection(Hashed(), TEXTS, options("one", "s3://no-such-bucket/x"))


@pytest.mark.parametrize(
    ("keys", "words"),
    [
        ({"embeddings": "s3://b/x"}, "set evaluation.index or evaluation.actors"),
        ({"embeddings": "here", "actors": 2}, "must be an s3:// URI"),
        ({"embeddings": "s3://a:hushcanary@b/x", "actors": 2}, "leave them out"),
    ],
)
def test_embeddings_in_a_recipe(keys, words):
    with pytest.raises(ConfigError, match=words) as caught:
        load_config("quickstart", {f"evaluation.{key}": value for key, value in keys.items()})
    assert "hushcanary" not in str(caught.value)
