"""Texts, vectors and encoders for tests of stores and searches."""

from __future__ import annotations

import hashlib

import numpy as np

from hbtrain.retrieval.manifest import Manifest


def texts_of(count):
    return [f"passage {i} " + "word " * (i * 7 % 13) for i in range(count)]


def unit(rng, rows, dimension):
    vectors = rng.standard_normal((rows, dimension), dtype=np.float32)
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def manifest(rows=10, dimension=4, **changes):
    fields = {"model": "m" * 64, "side": "passage", "prompt": "p: ", "texts": "t" * 64, "rows_per_shard": 4}
    return Manifest(**({"rows": rows, "dimension": dimension, "block_rows": 2} | fields | changes))


class Hashed:
    """Embeds each text by its hash; notes what it was asked for."""

    origin = None

    def __init__(self, dimension=8, name="hashed"):
        self.dimension = dimension
        self.prefixes = {"query": "", "passage": ""}
        self.name = name
        self.asked = []

    def digest(self):
        return hashlib.sha256(self.name.encode()).hexdigest()

    def encode(self, texts, side, batch_size=128, progress=None, batch_tokens=None):
        self.asked.append(list(texts))
        return np.concatenate([np.zeros((0, self.dimension), np.float32), *map(self.vector, texts)])

    def vector(self, text):
        seed = int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "little")
        return unit(np.random.default_rng(seed), 1, self.dimension)
