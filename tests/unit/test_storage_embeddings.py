"""Embeddings in a bucket: encoded by one machine, used by the next, and gone on with where the first one was killed."""

import json

import numpy as np
import pytest

from hbtrain.errors import ConfigError, StorageError
from hbtrain.retrieval.collection import SearchOptions, embed_collection
from hbtrain.storage import place
from tests.unit.test_collection import TEXTS, Hashed


class Counting(Hashed):
    """Counts the texts that it embeds, and may end like a process that is killed."""

    def __init__(self, most=10**9):
        self.most, self.texts = most, 0

    def embed_texts(self, texts, *arguments, **named):
        self.texts += len(texts)
        if self.texts > self.most:
            raise KeyboardInterrupt
        return super().embed_texts(texts, *arguments, **named)


@pytest.fixture
def options(tmp_path, bucket):
    """Options on the machine of a name; all share the bucket."""

    def make(machine):
        mirror = place(bucket.uri) / "embeddings"
        return SearchOptions(rows_per_shard=10, block_rows=5, cache=tmp_path / machine, mirror=mirror)

    return make


def vectors(store):
    return np.concatenate([store.shard(shard) for shard in range(len(store.manifest.shards))])
