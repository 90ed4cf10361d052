"""Search in the passages of a parallel corpus: a question in any language is answered with passages in all."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from os import PathLike, fspath
from typing import TYPE_CHECKING, Any

from hbtrain.corpus import ParallelCorpus
from hbtrain.errors import ConfigError
from hbtrain.modeling.backbone import find_backbone
from hbtrain.modeling.devices import Device, evaluation_precision, visible_device
from hbtrain.reporting.html import html
from hbtrain.reporting.table import table_of
from hbtrain.retrieval.collection_search import SearchOptions, embed_collection, search_store
from hbtrain.retrieval.encoding import StoredEncoder
from hbtrain.retrieval.quantizing import Quantization
from hbtrain.retrieval.ranks import Quality
from hbtrain.retrieval.scores import similarities, similarity_of

if TYPE_CHECKING:
    from hbtrain.config.encoder import Precision


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


class Hits(Sequence[Hit]):
    """What was found for a question, best first; a notebook shows it as a table."""

    def __init__(self, question: str, hits: Sequence[Hit], index: PassageIndex, languages: Sequence[str]) -> None:
        self.question = question
        self.searched = f"of {len(index):,} passages in {', '.join(languages)}"
        self.quality = index.quality  # of quantized vectors; None where they are not
        self._hits = tuple(hits)

    def __len__(self) -> int:
        return len(self._hits)

    def __getitem__(self, which: Any) -> Any:
        return self._hits[which]

    def __repr__(self) -> str:
        return "\n".join(f"{hit.score:.3f}  {hit.passage.language}  {hit.passage.text}" for hit in self._hits)

    def _repr_html_(self) -> str:
        rows = [(hit.passage.language, hit.passage.text, f"{hit.score:.3f}") for hit in self._hits]
        return html(table_of(self.question, ("", "passage", "score"), rows, self.searched, labels=2))


class Searcher:
    """Answers questions in any language with the passages of a corpus, as `hbtrain search` does."""

    def __init__(
        self,
        model: str | PathLike[str],
        data: Sequence[str] | None = None,
        *,
        precision: Precision | None = None,
        device: Device | None = None,
        trust_remote_code: bool = False,
        quantization: Quantization | None = None,
    ) -> None:
        """Load a model, and embed the passages of `data` that the cache lacks.

        Args:
            model: a folder or a hub name, or the outcome of `hbtrain.train`.
            data: sources, as in `data.sources`; None: the demo corpus.
            precision: in which transformers embed texts; by default bf16 on GPUs that have it.
            device: such as `cpu`; by default the GPU that the process sees, or its CPU.
            trust_remote_code: whether Python code that the model brings along may run.
            quantization: of the passages' vectors; None: they are compared as they are.

        Raises:
            ModelError: there is no such model, or it cannot be loaded.
            DataError: a source is missing, empty or broken.
        """
        name = fspath(getattr(model, "model", model))
        find_backbone(name, "model")
        corpus = ParallelCorpus.open([data] if isinstance(data, str) else data or ["demo", "demo-heldout"])
        from hbtrain.modeling.encoder import Encoder

        device = device or visible_device()
        self._languages = corpus.languages
        encoder = Encoder.load(
            name,
            device=device,
            trust_remote_code=trust_remote_code,
            precision=evaluation_precision(precision, device),
        )
        self._index = PassageIndex(encoder, corpus, device, quantization)

    def search(self, question: str, top: int = 10) -> Hits:
        """The `top` most similar passages in all languages. Raises ConfigError if `top` is below 1."""
        if top < 1:
            raise ConfigError(f"top = {top}: must be 1 or more")
        return Hits(question, self._index.search(question, top), self._index, self._languages)


def search(model: str | PathLike[str], question: str, data: Sequence[str] | None = None, top: int = 10) -> Hits:
    """The passages of `data` (by default the demo corpus) that a model finds for a question: see `Searcher`, which
    asks several without loading the model again."""
    return Searcher(model, data).search(question, top)


def distinct_passages(corpus: ParallelCorpus) -> list[Passage]:
    """Every passage of the corpus in every language it has; a text that several rows share is there once."""
    found: dict[tuple[str, str], Passage] = {}
    for source in corpus.sources.values():
        for row, language, text in source.passages():
            found.setdefault((language, text), Passage(source.name, row, language, text))
    return list(found.values())
