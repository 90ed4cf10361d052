from types import MappingProxyType

import numpy as np

from hbtrain.corpus import ParallelCorpus
from hbtrain.retrieval.passage_index import PassageIndex, distinct_passages


class Letters:
    """Embeds a text as its share of each letter."""

    dimension = 26
    origin = None
    prefixes = MappingProxyType({"query": "", "passage": ""})

    def __init__(self):
        self.encoded = 0

    def digest(self):
        return "letters"

    def encode(self, texts, side, batch_size=128, progress=None, batch_tokens=None):
        self.encoded += len(texts)
        vectors = np.array([[text.lower().count(chr(97 + i)) for i in range(26)] for text in texts], np.float32)
        return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def test_best_passages_come_first_and_each_once(cache, write_source):
    table = [
        {"id": i, "query": {"en": "q"}, "passage": {"en": text, "de": text.upper()}}
        for i, text in enumerate(["banana", "cherry", "banana", "fig"])
    ]
    corpus = ParallelCorpus.open([str(write_source(table))])
    assert len(distinct_passages(corpus)) == 6
    index = PassageIndex(Letters(), corpus)
    hits = index.search("bananas", top=3)
    assert {hit.passage.text for hit in hits[:2]} == {"banana", "BANANA"}
    assert {hit.passage.language for hit in hits[:2]} == {"en", "de"}
    assert hits[0].score >= hits[1].score > hits[2].score
    assert len(index.search("fig", top=100)) == 6
    again = Letters()
    assert PassageIndex(again, corpus).search("bananas", top=3) == hits
    assert again.encoded == 1
