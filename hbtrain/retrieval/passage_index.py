"""Search in the passages of a parallel corpus: a question in any language is answered with passages in all."""

from __future__ import annotations

from dataclasses import dataclass

from hbtrain.corpus import ParallelCorpus
from hbtrain.modeling.devices import Device
from hbtrain.retrieval.collection_search import SearchOptions, embed_collection, search_store
from hbtrain.retrieval.encoding import StoredEncoder
from hbtrain.retrieval.quantizing import Quantization
from hbtrain.retrieval.ranks import Quality
from hbtrain.retrieval.scores import similarities, similarity_of


@dataclass(frozen=True)
class Passage:
    """A passage in one language: row `row` of source `source`."""

    source: str
    row: int
    language: str
    text: str


@dataclass(frozen=True)
class Hit:
    """A passage that was found, with its similarity to the question, as the model compares them."""

    passage: Passage
    score: float


class PassageIndex:
    """Exact search in all passages of a corpus.

    The embeddings go into the cache, so that later questions to the same model and corpus are answered at once.
    """

    def __init__(
        self,
        encoder: StoredEncoder,
        corpus: ParallelCorpus,
        device: Device = "cpu",
        quantization: Quantization | None = None,
    ) -> None:
        """Encode what the cache lacks, with `encoder`; `device` is where questions are compared with the passages.

        With `quantization`, the passages' vectors are quantized in memory; the cache keeps them as they are.
        """
        self._encoder = encoder
        self._passages = distinct_passages(corpus)
        self._options = SearchOptions(devices=(device,), quantization=quantization)
        self.quality: Quality | None = None  # of quantized vectors, for the question that was asked last
        self._store = embed_collection(encoder, [p.text for p in self._passages], self._options)

    def __len__(self) -> int:
        return len(self._passages)

    def search(self, question: str, top: int = 10) -> list[Hit]:
        """The `top` most similar passages, best first; of equal ones the first in the corpus."""
        q_1D, similarity = self._encoder.encode([question], "query"), similarity_of(self._encoder)
        result = search_store(self._store, q_1D, min(top, len(self)), self._options, similarity)
        self.quality = result.quality
        scores = similarities(result.top.scores[0], similarity)
        pairs = zip(result.top.places[0].tolist(), scores.tolist(), strict=True)
        return [Hit(self._passages[place], score) for place, score in pairs]


def distinct_passages(corpus: ParallelCorpus) -> list[Passage]:
    """Every passage of the corpus in every language it has; a text that several rows share is there once."""
    found: dict[tuple[str, str], Passage] = {}
    for source in corpus.sources.values():
        for row, language, text in source.passages():
            found.setdefault((language, text), Passage(source.name, row, language, text))
    return list(found.values())
