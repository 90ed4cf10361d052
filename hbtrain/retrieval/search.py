"""Ask a question in any language, get the best passages of a corpus in all of them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from hbtrain.corpus import ParallelCorpus
from hbtrain.modeling.encoder import Encoder


@dataclass(frozen=True)
class Passage:
    """A passage in one language: row `row` of source `source`."""

    source: str
    row: int
    language: str
    text: str


@dataclass(frozen=True)
class Hit:
    """A passage found, with its cosine similarity to the question."""

    passage: Passage
    score: float


class PassageIndex:
    """All passages of a corpus, embedded, in an exact FAISS index."""

    def __init__(self, encoder: Encoder, corpus: ParallelCorpus, batch_size: int = 128) -> None:
        import faiss

        self._encoder = encoder
        self._passages = distinct_passages(corpus)
        p_ND = encoder.encode([p.text for p in self._passages], "passage", batch_size=batch_size)
        self._index = faiss.IndexFlatIP(p_ND.shape[1])
        self._index.add(p_ND)

    def __len__(self) -> int:
        return len(self._passages)

    def search(self, question: str, top: int = 10) -> list[Hit]:
        """The `top` passages by cosine similarity, best first."""
        q_1D = self._encoder.encode([question], "query")
        scores, places = self._index.search(np.ascontiguousarray(q_1D), min(top, len(self)))
        found = zip(places[0].tolist(), scores[0].tolist(), strict=True)
        return [Hit(self._passages[place], score) for place, score in found]


def distinct_passages(corpus: ParallelCorpus) -> list[Passage]:
    """Every passage of the corpus in every language it has, a text that several rows share only once."""
    found: dict[tuple[str, str], Passage] = {}
    for source in corpus.sources.values():
        for row, language, text in source.passages():
            found.setdefault((language, text), Passage(source.name, row, language, text))
    return list(found.values())
