"""Ask a question in any language, get the best passages of a corpus in all of them."""

from __future__ import annotations

from dataclasses import dataclass

from hbtrain.corpus import ParallelCorpus
from hbtrain.retrieval.collection_search import SearchOptions, embed_collection, search_store
from hbtrain.retrieval.encoding import StoredEncoder


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
    """All passages of a corpus, embedded, searched exactly.

    The embeddings are kept in the cache, so that the next question to the same model and corpus is answered at once.
    """

    def __init__(self, encoder: StoredEncoder, corpus: ParallelCorpus) -> None:
        self._encoder = encoder
        self._passages = distinct_passages(corpus)
        self._options = SearchOptions()
        self._store = embed_collection(encoder, [p.text for p in self._passages], self._options)

    def __len__(self) -> int:
        return len(self._passages)

    def search(self, question: str, top: int = 10) -> list[Hit]:
        """The `top` passages by cosine similarity, best first; of equal ones the first in the corpus."""
        q_1D = self._encoder.encode([question], "query")
        found, _ = search_store(self._store, q_1D, min(top, len(self)), self._options)
        pairs = zip(found.places[0].tolist(), found.scores[0].tolist(), strict=True)
        return [Hit(self._passages[place], score) for place, score in pairs]


def distinct_passages(corpus: ParallelCorpus) -> list[Passage]:
    """Every passage of the corpus in every language it has, a text that several rows share only once."""
    found: dict[tuple[str, str], Passage] = {}
    for source in corpus.sources.values():
        for row, language, text in source.passages():
            found.setdefault((language, text), Passage(source.name, row, language, text))
    return list(found.values())
