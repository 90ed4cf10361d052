"""A store appears shard by shard, each whole or not at all, and never holds anything but what its manifest says."""

import json

import numpy as np
import pytest

from hbtrain.errors import ConfigError, ModelError, StorageError
from hbtrain.retrieval.manifest import Manifest, texts_digest
from hbtrain.retrieval.store import EmbeddingStore, StoreWriter
from tests.unit.retrieval_samples import manifest, unit

VECTORS = unit(np.random.default_rng(0), 10, 4)


def write(folder, only=None, vectors=VECTORS, **changes):
    """Write the missing shards, or `only` some, in blocks of two rows; returns the shards that were missing."""
    with StoreWriter(folder, manifest(**changes)) as writer:
        missing = list(writer.missing)
        for shard in missing if only is None else only:
            for block in writer.manifest.blocks(shard):
                writer.write(block.start, vectors[block.start : block.stop])
    return missing


@pytest.mark.parametrize("dtype", ["float32", "float16"])
def test_what_is_written_is_read_in_order_and_in_its_type(tmp_path, dtype):
    assert write(tmp_path / "store", dtype=dtype) == [0, 1, 2]
    store = EmbeddingStore(tmp_path / "store", manifest(dtype=dtype))
    shards = [store.shard(i) for i in range(3)]
    assert [shard.shape for shard in shards] == [(4, 4), (4, 4), (2, 4)]
    assert {shard.dtype for shard in shards} == {np.dtype(dtype)}
    expected = VECTORS.astype(dtype)
    np.testing.assert_array_equal(np.concatenate(shards), expected)
    places = np.array([[9, 0], [4, 4], [3, 8]])
    taken = store.take(places)
    assert taken.dtype == np.float32
    np.testing.assert_array_equal(taken, expected.astype(np.float32)[places])
    store.verify()
    assert len(store) == 10
    # Anyone reads it with numpy alone.
    np.testing.assert_array_equal(np.load(tmp_path / "store" / "shard-00001.npy"), expected[4:8])


def test_blocks_may_come_in_any_order(tmp_path):
    with StoreWriter(tmp_path, manifest()) as writer:
        for start in (8, 2, 6, 0, 4):
            writer.write(start, VECTORS[start : start + 2])
    store = EmbeddingStore(tmp_path)
    np.testing.assert_array_equal(store.take(np.arange(10)), VECTORS)


def test_a_shard_appears_with_its_last_rows_only(tmp_path):
    with StoreWriter(tmp_path, manifest()) as writer:
        writer.write(0, VECTORS[:2])
        assert not list(tmp_path.glob("*.npy"))
        writer.write(2, VECTORS[2:4])
        assert [path.name for path in tmp_path.glob("*.npy")] == ["shard-00000.npy"]
        writer.write(4, VECTORS[4:6])
    with pytest.raises(StorageError, match="2 of 3 shards are missing; run the same encoding again"):
        EmbeddingStore(tmp_path)
    before = (tmp_path / "shard-00000.npy").stat().st_mtime_ns
    assert write(tmp_path) == [1, 2]  # half of shard 1 was lost, shard 0 was not written again
    assert (tmp_path / "shard-00000.npy").stat().st_mtime_ns == before
    assert not list(tmp_path.glob("*.part"))
    np.testing.assert_array_equal(EmbeddingStore(tmp_path).take(np.arange(10)), VECTORS)


def test_a_shard_without_its_mark_is_written_again(tmp_path):
    write(tmp_path)
    (tmp_path / "shard-00001.json").unlink()  # killed between the two files
    assert write(tmp_path) == [1]
    EmbeddingStore(tmp_path).verify()


def test_a_damaged_byte_is_found_and_only_its_shard_written_again(tmp_path):
    write(tmp_path)
    path = tmp_path / "shard-00001.npy"
    content = bytearray(path.read_bytes())
    content[-3] ^= 1
    path.write_bytes(content)
    with pytest.raises(StorageError, match=r"shard-00001\.npy is truncated or damaged"):
        EmbeddingStore(tmp_path).verify()
    assert write(tmp_path) == [1]
    EmbeddingStore(tmp_path).verify()


@pytest.mark.parametrize("keep", [0, 60, 150])
def test_a_truncated_shard_is_one_line_and_written_again(tmp_path, keep):
    write(tmp_path)
    path = tmp_path / "shard-00002.npy"
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(StorageError, match=r"shard-00002\.npy is truncated or damaged; delete it"):
        EmbeddingStore(tmp_path)
    assert write(tmp_path) == [2]
    EmbeddingStore(tmp_path).verify()


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"model": "n" * 64}, r"by another model \(digest mmmmmmmmmmmm, not nnnnnnnnnnnn\)"),
        ({"texts": "u" * 64}, "made from other texts"),
        ({"rows": 11}, "has 10 texts, not 11"),
        ({"dimension": 5}, "of dimension 4, not 5"),
        ({"prompt": "q: "}, "made with the prompt 'p: ', not 'q: '"),
        ({"dtype": "float16"}, "embeddings of type float32, not float16"),
        ({"rows_per_shard": 6}, "shards of 4 rows, not 6"),
    ],
)
def test_a_store_of_something_else_is_refused_by_writer_and_reader(tmp_path, changes, words):
    write(tmp_path)
    for opening in (EmbeddingStore, StoreWriter):
        with pytest.raises(StorageError, match=words) as error:
            opening(tmp_path, manifest(**changes))
        assert "\n" not in str(error.value)


@pytest.mark.parametrize("content", ["", "{", "[]", "7", '{"format": 1}', '{"format": 99}'])
def test_a_damaged_manifest_is_one_line(tmp_path, content):
    write(tmp_path)
    (tmp_path / "manifest.json").write_text(content)
    for opening in (EmbeddingStore, lambda folder: StoreWriter(folder, manifest())):
        with pytest.raises(StorageError, match=r"manifest\.json .* encode again"):
            opening(tmp_path)


def test_a_manifest_with_impossible_values_is_damaged(tmp_path):
    write(tmp_path)
    for field, value in (("rows", -1), ("rows", "ten"), ("dtype", "int8")):
        (tmp_path / "manifest.json").write_text(json.dumps({**json.loads(manifest().to_json()), field: value}))
        with pytest.raises(StorageError, match="none of this version"):
            EmbeddingStore(tmp_path)


def test_folders_of_others_are_left_alone(tmp_path):
    with pytest.raises(StorageError, match="is no embedding store"):
        EmbeddingStore(tmp_path / "nowhere")
    (tmp_path / "thesis.txt").write_text("ten years")
    with pytest.raises(StorageError, match=r"holds 'thesis\.txt' and is no embedding store"):
        StoreWriter(tmp_path, manifest())
    assert (tmp_path / "thesis.txt").read_text() == "ten years"
    with pytest.raises(StorageError, match="cannot write the embedding store"):
        StoreWriter(tmp_path / "thesis.txt" / "store", manifest())


def test_two_writers_of_one_store_are_told(tmp_path):
    with StoreWriter(tmp_path, manifest()), pytest.raises(StorageError, match="being written by another process"):
        StoreWriter(tmp_path, manifest())
    write(tmp_path)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_vectors_that_are_no_numbers_never_enter(tmp_path, bad):
    vectors = VECTORS.copy()
    vectors[5, 2] = bad
    with pytest.raises(ModelError, match=r"embedding of passage 5 holds NaN or infinity \(1 of 2"):
        write(tmp_path, vectors=vectors)
    assert write(tmp_path) == [1, 2]


def test_a_model_of_another_dimension_is_told(tmp_path):
    with pytest.raises(ModelError, match=r"shape \(2, 3\), and the store .* has dimension 4"):
        write(tmp_path, vectors=VECTORS[:, :3])


def test_a_full_disk_is_one_line(tmp_path, monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("hbtrain.retrieval.store.os.posix_fallocate", full)
    with pytest.raises(StorageError, match="No space left on device; make room there"):
        write(tmp_path)


def test_stores_without_texts_or_of_other_types_are_refused():
    with pytest.raises(ConfigError, match="at least one text"):
        manifest(rows=0)
    with pytest.raises(ConfigError, match="float32 or float16"):
        manifest(dtype="int8")


def test_names_and_digests_tell_contents_apart():
    names = {m.name() for m in (manifest(), manifest(rows=9), manifest(model="x"), manifest(prompt=""))}
    assert len(names) == 4
    assert manifest().name() == manifest().name()
    lists = (["ab", "c"], ["a", "bc"], ["abc"], ["c", "ab"], ["ab", "c", ""], ["\ud800", "c"])
    assert len({texts_digest(texts) for texts in lists}) == len(lists)
    assert Manifest(**{**vars(manifest())}) == manifest()
