"""Folders in BEIR's form (arXiv 2104.08663), one a language: `corpus.jsonl`, `queries.jsonl`, `qrels/<split>.tsv`.

Each is plain or .gz. Either the folder holds a folder for each language, named by its code, or it is itself the corpus
of one language, which then has to be said. A query's `metadata` may say its `domain`.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path

from hbtrain.corpus.files import json_lines
from hbtrain.corpus.jsonl import LANGUAGE
from hbtrain.errors import DataError
from hbtrain.evaluation.benchmark import Benchmark, Collection, choose_languages
from hbtrain.evaluation.readers.documents import open_documents
from hbtrain.evaluation.readers.files import one_of
from hbtrain.evaluation.readers.judgements import judged_collection, read_qrels


def read_beir(
    folder: Path, name: str, languages: Sequence[str] | None = None, *, cache: Path, split: str = "test"
) -> Benchmark:
    """The benchmark of a folder, one collection a language, alphabetical or in the order of `languages`.

    Args:
        folder: of folders by language, or of one language, which `languages` then names.
        name: what the benchmark is called.
        languages: only these.
        cache: where corpora are kept in converted form.
        split: which judgements; where there is one file only, it is taken whatever its name.

    Raises:
        DataError: no language, one that is not there, or one that lacks a file.
    """
    folders = _folders(folder, name, languages)
    chosen = choose_languages(list(folders), languages, f"benchmark {name} ({folder})")
    openers = []
    for language in chosen:
        own = folders[language]
        corpus, queries = (one_of(own, [f"{x}.jsonl"], x) for x in ("corpus", "queries"))
        openers.append(partial(_open, name, language, corpus, queries, _qrels(own / "qrels", split), cache))
    return Benchmark(name, "title+text", chosen, tuple(openers), ("mono",), parallel=False)


def _folders(folder: Path, name: str, languages: Sequence[str] | None) -> dict[str, Path]:
    if _is_beir(folder):
        if languages is None or len(languages) != 1:
            raise DataError(
                f"benchmark {name}: {folder} is one corpus, whose language is not known: give --languages with one "
                "code, or put it into a folder named by its language"
            )
        return {languages[0]: folder}
    folders = {path.name: path for path in folder.iterdir() if LANGUAGE.fullmatch(path.name) and _is_beir(path)}
    if not folders:
        raise DataError(
            f"benchmark {name}: {folder} holds neither corpus.jsonl nor folders by language, such as en, that do"
        )
    return folders


def _is_beir(folder: Path) -> bool:
    return any((folder / f"corpus.jsonl{end}").is_file() for end in ("", ".gz"))


def _qrels(folder: Path, split: str) -> Path:
    files = sorted(folder.glob("*.tsv")) + sorted(folder.glob("*.tsv.gz"))
    return files[0] if len(files) == 1 else one_of(folder, [f"{split}.tsv"], "judgements")


def _open(name: str, language: str, corpus: Path, queries: Path, qrels: Path, cache: Path) -> Collection:
    topics: dict[str, str] = {}
    domains: dict[str, str] = {}
    for record, place in json_lines(queries):
        identifier, text = record.get("_id"), record.get("text")
        if not isinstance(identifier, str | int) or not isinstance(text, str) or not text.strip():
            raise DataError(f"{place} is not a query: _id and text are expected")
        if str(identifier) in topics:
            raise DataError(f"{place}: query {identifier} occurs twice; ids must be unique in a language")
        topics[str(identifier)] = text
        metadata = record.get("metadata")
        if isinstance(metadata, dict) and isinstance(metadata.get("domain"), str):
            domains[str(identifier)] = metadata["domain"]
    judged = read_qrels(qrels)
    # A file of queries serves all splits: those that this one does not judge belong to others.
    asked = {question: text for question, text in topics.items() if question in judged}
    return judged_collection(f"{name} in {language}", language, asked, judged, open_documents([corpus], cache), domains)
