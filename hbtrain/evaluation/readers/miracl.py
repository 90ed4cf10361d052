"""MIRACL (arXiv 2210.09984) as published: in each of eighteen languages, topics over that language's Wikipedia.

Looked for in a folder and three levels below it: `topics.miracl-v1.0-<language>-<split>.tsv`,
`qrels.miracl-v1.0-<language>-<split>.tsv`, and folders `miracl-corpus-v1.0-<language>` of `docs-*.jsonl`, each plain
or .gz. A language belongs to the benchmark where its corpus is there.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path

from hbtrain.errors import DataError
from hbtrain.evaluation.benchmark import Benchmark, Collection, choose_languages
from hbtrain.evaluation.readers.documents import open_documents
from hbtrain.evaluation.readers.files import found_below
from hbtrain.evaluation.readers.judgements import judged_collection, read_qrels, read_topics

CORPUS = "miracl-corpus-v1.0-"

RESOURCES = {
    "low-resource": ("bn", "hi", "sw", "te", "th", "yo"),
    "mid-resource": ("ar", "fa", "fi", "id", "ko"),
    "high-resource": ("de", "en", "es", "fr", "ja", "ru", "zh"),
}
"""A grouping of ours by the Wikipedia articles of a language's corpus, which leave two wide gaps: below 200,000 (47,793
in Swahili to 148,107 in Hindi), to a million (437,373 in Korean to 857,827 in Persian), and above (1,133,444 in
Japanese to 5,758,285 in English). The paper's table has these figures for all but Yoruba, whose corpus is 49,043
passages in all, and German, whose corpus is more than eleven million."""


def read_miracl(
    folder: Path, name: str, languages: Sequence[str] | None = None, *, cache: Path, split: str = "dev"
) -> Benchmark:
    """The benchmark of a folder, one collection a language, alphabetical or in the order of `languages`.

    Args:
        folder: holds the files.
        name: what the benchmark is called.
        languages: only these.
        cache: where corpora are kept in converted form.
        split: dev, whose judgements are public, train, or another.

    Raises:
        DataError: no corpus, a language without topics or judgements, or one that is not there.
    """
    corpora = {path.name.removeprefix(CORPUS): path for path in found_below(folder, f"{CORPUS}*") if path.is_dir()}
    if not corpora:
        raise DataError(
            f"benchmark {name}: {folder} holds no corpus; folders such as {CORPUS}sw with docs-0.jsonl.gz are expected"
        )
    chosen = choose_languages(list(corpora), languages, f"benchmark {name} ({folder})")
    openers = []
    for language in chosen:
        topics, qrels = (
            _published(folder, f"{kind}.miracl-v1.0-{language}-{split}.tsv", name) for kind in ("topics", "qrels")
        )
        openers.append(partial(_open, name, language, topics, qrels, corpora[language], cache))
    return Benchmark(name, "title+text", chosen, tuple(openers), ("mono",), RESOURCES, parallel=False)


def _open(name: str, language: str, topics: Path, qrels: Path, corpus: Path, cache: Path) -> Collection:
    files = sorted(
        (path for path in corpus.iterdir() if path.name.endswith((".jsonl", ".jsonl.gz"))),
        key=lambda path: (len(path.name), path.name),  # docs-10 after docs-9
    )
    if not files:
        raise DataError(f"benchmark {name}: the corpus {corpus} holds no .jsonl or .jsonl.gz files")
    documents = open_documents(files, cache)
    return judged_collection(f"{name} in {language}", language, read_topics(topics), read_qrels(qrels), documents)


def _published(folder: Path, file: str, name: str) -> Path:
    found = [*found_below(folder, file), *found_below(folder, f"{file}.gz")]
    if not found:
        raise DataError(f"benchmark {name}: {folder} has a corpus but no {file} (plain or .gz)")
    return found[0]
