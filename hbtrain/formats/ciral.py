"""CIRAL (SIGIR 2024): English questions, and passages of news in Hausa, Somali, Swahili and Yoruba.

Its two repositories lie in one folder, some levels deep: `passages-v1.0/hausa_passages.jsonl` with `docid`, `title` and
`text` in each line; `topics.ciral-v1.0-ha-<split>.tsv`, whose lines are an id, a tab and a question in English; and
`qrels.ciral-v1.0-ha-<split>.tsv` with the columns of TREC. Every file is plain or .gz. Passages that were translated
into English (`translated-passages-v1.0`) are not read.
"""

from __future__ import annotations

import re

from hbtrain.errors import DataError
from hbtrain.formats.judged import JudgedFolder
from hbtrain.formats.language_codes import NAMES
from hbtrain.formats.locations import list_files, named

ENGLISH = "en"
_CORPUS = re.compile(rf"(?:.*/)?passages-v1\.0/({'|'.join(NAMES)})_passages\.jsonl(?:\.gz)?")


def find_ciral(folder: str, split: str) -> JudgedFolder:
    """Find CIRAL's files in a folder and some levels below it; its languages are those whose passages are there.

    Args:
        folder: on this machine, or a URL.
        split: of topics and judgements: `test-a`, `test-b` or `dev`.

    Raises:
        DataError: there are no passages.
    """
    found: dict[str, dict[str, list[str]]] = {"topics": {}, "qrels": {}, "corpus": {}}
    judged = re.compile(rf"(?:.*/)?(topics|qrels)\.ciral-v1\.0-([a-z]{{2}})-{re.escape(split)}\.tsv(?:\.gz)?")
    for path in list_files(folder):
        if match := _CORPUS.fullmatch(named(path)):
            found["corpus"].setdefault(_pair(NAMES[match[1]]), []).append(path)
        elif match := judged.fullmatch(named(path)):
            found[match[1]].setdefault(_pair(match[2]), []).append(path)
    if not found["corpus"]:
        raise DataError(
            f"{folder} holds no passages of CIRAL; files such as passages-v1.0/hausa_passages.jsonl are expected"
        )
    names = {what: f"{what}.ciral-v1.0-ha-{split}.tsv (in its language)" for what in ("topics", "qrels")}
    return JudgedFolder(
        form="ciral",
        folder=folder,
        split=split,
        given="passages",
        languages=tuple(sorted(found["corpus"])),
        files=found,
        names={**names, "corpus": "passages-v1.0/hausa_passages.jsonl (in its language)"},
        sides={pair: (pair.partition("-")[0], ENGLISH) for pair in found["corpus"]},
        pivot=ENGLISH,
    )


def _pair(language: str) -> str:
    """Passages of a language, and questions in English."""
    return f"{language}-{ENGLISH}"
