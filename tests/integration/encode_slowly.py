"""Fills a store in a process of its own, slowly enough to be killed: encode_slowly.py FOLDER SECONDS_A_BLOCK."""

import sys
import time
from pathlib import Path

from hbtrain.retrieval.collection import SearchOptions, embed_collection
from tests.unit.retrieval_samples import Hashed, texts_of

TEXTS = texts_of(60)
OPTIONS = SearchOptions(rows_per_shard=10, block_rows=5)


class Slow(Hashed):
    def encode(self, texts, side, **arguments):
        time.sleep(float(sys.argv[2]))
        return super().encode(texts, side, **arguments)


if __name__ == "__main__":
    embed_collection(Slow(), TEXTS, OPTIONS, Path(sys.argv[1]), lambda side, done, of: print(f"{done} of {of}."))
