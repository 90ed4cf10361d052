"""Vectors of texts on disk: found again, stored once, whole after a kill, refused in one line where they cannot be."""

import errno
import os

import numpy as np
import pytest

from hbtrain.errors import StorageError
from hbtrain.training import text_vectors
from hbtrain.training.text_vectors import DIGESTS, VECTORS, TextVectors, digests_of


def vectors_of(texts):
    return np.array([[len(text), ord(text[-1]), 1.0] for text in texts], np.float32)


def words(start, stop):
    return [f"word {i}" for i in range(start, stop)]


def add(store, texts):
    store.add(digests_of(texts), vectors_of(texts))


def test_what_was_added_in_many_parts_is_found_by_this_and_other_processes(tmp_path):
    store = TextVectors(tmp_path / "store", 3)
    for start in range(0, 600, 40):
        add(store, words(start, start + 60))  # overlapping
    texts = words(0, 620)[::-1]
    for one in (store, TextVectors(tmp_path / "store", 3)):
        assert len(one) == 620
        assert np.array_equal(one.take(digests_of(texts)), vectors_of(texts))
        assert one.has(digests_of(["word 3", "another"])).tolist() == [True, False]
    assert (tmp_path / "store" / VECTORS).stat().st_size == 620 * 3 * 4


def test_nothing_asked_for_is_nothing_found(tmp_path):
    store = TextVectors(tmp_path, 3)
    assert store.take(digests_of([])).shape == (0, 3)
    assert store.has(digests_of(["a"])).tolist() == [False]
    add(store, [])
    assert len(store) == 0


def test_two_writers_store_a_text_once(tmp_path):
    one, other = TextVectors(tmp_path, 3), TextVectors(tmp_path, 3)
    add(one, words(0, 10))
    other.add(digests_of(words(5, 15)), np.zeros((10, 3), np.float32))
    assert len(other) == 15
    assert np.array_equal(other.take(digests_of(words(5, 10))), vectors_of(words(5, 10)))  # those that came first
    one.refresh()
    assert one.has(digests_of(words(0, 15))).all()


@pytest.mark.parametrize(("name", "torn"), [(VECTORS, 7), (VECTORS, 12 * 4), (DIGESTS, 3)])
def test_what_a_killed_writer_left_behind_the_last_whole_pair_does_not_count(tmp_path, name, torn):
    add(TextVectors(tmp_path, 3), words(0, 8))
    with (tmp_path / name).open("ab") as file:
        file.write(b"\xff" * torn)
    store = TextVectors(tmp_path, 3)
    assert len(store) == 8
    add(store, words(4, 20))
    again = TextVectors(tmp_path, 3)
    assert len(again) == 20
    assert np.array_equal(again.take(digests_of(words(0, 20))), vectors_of(words(0, 20)))


def test_a_text_that_is_not_there_is_no_other_texts_vector(tmp_path):
    store = TextVectors(tmp_path, 3)
    add(store, words(0, 5))
    with pytest.raises(StorageError, match="lacks the vectors of 2 texts"):
        store.take(digests_of(["word 1", "x", "y"]))


def test_a_full_disk_is_one_line_and_loses_nothing(tmp_path, monkeypatch):
    store = TextVectors(tmp_path, 3)
    add(store, words(0, 5))

    def full(descriptor):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patch, pytest.raises(StorageError, match="No space left on device; "):
        patch.setattr(text_vectors.os, "fsync", full)
        add(store, words(5, 9))
    assert len(TextVectors(tmp_path, 3)) == 5
    add(store, words(3, 9))
    assert np.array_equal(store.take(digests_of(words(0, 9))), vectors_of(words(0, 9)))
