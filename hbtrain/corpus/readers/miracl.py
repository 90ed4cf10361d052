"""MIRACL (arXiv 2210.09984) as published: topics and judgements beside the corpora, some levels deep in a folder.

`topics.miracl-v1.0-<language>-<split>.tsv`, `qrels.miracl-v1.0-<language>-<split>.tsv` and
`miracl-corpus-v1.0-<language>/docs-*.jsonl`, each plain or .gz.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from hbtrain.corpus.locations import list_files, named
from hbtrain.corpus.readers.inputs import chosen, one_each
from hbtrain.corpus.readers.judged import JudgedFiles, JudgedReader
from hbtrain.errors import DataError

_CORPUS = re.compile(r".*miracl-corpus-v1\.0-(?P<language>[a-z]{2,3})/docs-(?P<number>\d+)\.jsonl(\.gz)?")


def miracl_reader(
    folder: str, languages: Sequence[str] | None = None, split: str = "train", negatives: bool = True
) -> JudgedReader:
    """The rows of a split in all languages that have topics of it.

    Raises:
        DataError: no topics, or a language without judgements or corpus.
    """
    paths = list_files(folder)
    topics = chosen(_of("topics", split, paths), languages, f"{folder} (topics of {split})")
    if not topics:
        raise DataError(f"{folder} holds no topics.miracl-v1.0-<language>-{split}.tsv (plain or .gz)")
    qrels = _of("qrels", split, paths)
    corpora: dict[str, list[tuple[int, str]]] = {}
    for path in paths:
        if match := _CORPUS.fullmatch(named(path)):
            corpora.setdefault(match["language"], []).append((int(match["number"]), path))
    files = {}
    for language in topics:
        for there, what in (
            (language in qrels, f"qrels.miracl-v1.0-{language}-{split}.tsv"),
            (language in corpora, f"miracl-corpus-v1.0-{language}/docs-0.jsonl"),
        ):
            if not there:
                raise DataError(f"{folder} has topics in {language} but no {what} (plain or .gz)")
        corpus = [path for _, path in sorted(corpora[language])]
        files[language] = JudgedFiles(topics[language], qrels[language], corpus)
    return JudgedReader("miracl", files, split, negatives)


def _of(kind: str, split: str, paths: Sequence[str]) -> dict[str, str]:
    name = re.compile(rf".*{kind}\.miracl-v1\.0-([a-z]{{2,3}})-{re.escape(split)}\.tsv(\.gz)?")
    return one_each((match[1], path) for path in paths if (match := name.fullmatch(named(path))))
