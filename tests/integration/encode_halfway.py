"""Fills a store in a process of its own, and never comes to its end: encode_halfway.py FOLDER."""

import sys
import time
from pathlib import Path

from hbtrain.retrieval.collection_search import SearchOptions, embed_collection
from tests.integration.command import PATIENCE_S
from tests.unit.retrieval_samples import Hashed, texts_of

TEXTS = texts_of(60)
OPTIONS = SearchOptions(rows_per_shard=10, block_rows=5)
HALFWAY = 25


class Halfway(Hashed):
    def encode(self, texts, side, **arguments):
        if len(self.asked) * OPTIONS.block_rows == HALFWAY:
            time.sleep(PATIENCE_S)
        return super().encode(texts, side, **arguments)


if __name__ == "__main__":
    embed_collection(Halfway(), TEXTS, OPTIONS, Path(sys.argv[1]), lambda side, done, of: print(f"{done} of {of}."))
