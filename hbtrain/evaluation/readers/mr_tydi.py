"""Mr. TyDi (arXiv 2108.08787) as published: folders `mrtydi-v1.1-<language>` (or v1.0), unpacked from its archives.

Each holds `topic.<split>.tsv`, `qrels.<split>.txt` and `collection/docs.jsonl`, plain or .gz. A folder that holds
these itself is one language.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import partial
from pathlib import Path

from hbtrain.corpus.readers.mr_tydi import CODES
from hbtrain.errors import DataError
from hbtrain.evaluation.benchmark import Benchmark, Collection, choose_languages
from hbtrain.evaluation.readers.documents import open_documents
from hbtrain.evaluation.readers.files import found_below, one_of
from hbtrain.evaluation.readers.judgements import judged_collection, read_qrels, read_topics

_FOLDER = re.compile(r"mrtydi-v[\d.]+-(" + "|".join(CODES) + ")")


def read_mr_tydi(
    folder: Path, name: str, languages: Sequence[str] | None = None, *, cache: Path, split: str = "test"
) -> Benchmark:
    """The benchmark of a folder, one collection a language, alphabetical or in the order of `languages`.

    Args:
        folder: holds a folder for each language, or is one.
        name: what the benchmark is called.
        languages: only these.
        cache: where corpora are kept in converted form.
        split: test, dev or train.

    Raises:
        DataError: no language, two folders of one, a language that is not there, or one that lacks a file.
    """
    folders: dict[str, Path] = {}
    for path in [folder.resolve(), *found_below(folder, "mrtydi-*")]:
        if (match := _FOLDER.fullmatch(path.name)) and path.is_dir():
            language = CODES[match[1]]
            if language in folders:
                raise DataError(f"benchmark {name}: both {folders[language]} and {path} hold {language}; remove one")
            folders[language] = path
    if not folders:
        raise DataError(f"benchmark {name}: {folder} holds no folders such as mrtydi-v1.1-swahili")
    chosen = choose_languages(list(folders), languages, f"benchmark {name} ({folder})")
    openers = []
    for language in chosen:
        own = folders[language]
        topics = one_of(own, [f"topic.{split}.tsv"], "topics")
        qrels = one_of(own, [f"qrels.{split}.txt", f"qrels.{split}.tsv"], "judgements")
        corpus = one_of(own / "collection", ["docs.jsonl"], "corpus")
        openers.append(partial(_open, name, language, topics, qrels, corpus, cache))
    return Benchmark(name, "title+text", chosen, tuple(openers), ("mono",), parallel=False)


def _open(name: str, language: str, topics: Path, qrels: Path, corpus: Path, cache: Path) -> Collection:
    documents = open_documents([corpus], cache)
    return judged_collection(f"{name} in {language}", language, read_topics(topics), read_qrels(qrels), documents)
