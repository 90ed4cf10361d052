"""CIRAL (SIGIR 2024): English questions, judged on passages of news in Hausa, Somali, Swahili and Yoruba.

As the hub has it: `topics.ciral-v1.0-<code>-<split>.tsv`, `qrels.ciral-v1.0-<code>-<split>.tsv` and
`<language>_passages.jsonl`, some levels deep, each plain or .gz. Topics of a language are in English. Passages that
were translated into English, in `translated-passages-v1.0`, are not read.
"""

from __future__ import annotations

import re

from hbtrain.errors import DataError
from hbtrain.formats.judged import JudgedFolder
from hbtrain.formats.language_codes import code_of
from hbtrain.formats.locations import list_files, named

SPLITS = ("test-a", "test-b", "dev")  # of which the first that is there is evaluated
_JUDGED = re.compile(
    r"(?:.*/)?(?P<kind>topics|qrels)\.ciral-v1\.0-(?P<language>[a-z]{2,3})-(?P<split>[\w-]+)\.tsv(?:\.gz)?"
)
_CORPUS = re.compile(r"(?!.*translated-passages)(?:.*/)?(?P<language>[a-z]+)_passages\.jsonl(?:\.gz)?")


def find_ciral(folder: str, split: str | None = None) -> JudgedFolder:
    """Find CIRAL's files in a folder and below it; its languages are those whose passages are there.

    Args:
        folder: on this machine, or a URL.
        split: one of `SPLITS`; None: the first that is there.

    Raises:
        DataError: there are no passages.
    """
    by_split: dict[str, dict[str, dict[str, list[str]]]] = {}
    corpora: dict[str, list[str]] = {}
    for path in list_files(folder):
        if match := _JUDGED.fullmatch(named(path)):
            kinds = by_split.setdefault(match["split"], {"topics": {}, "qrels": {}})
            kinds[match["kind"]].setdefault(match["language"], []).append(path)
        elif match := _CORPUS.fullmatch(named(path)):
            corpora.setdefault(code_of(match["language"]), []).append(path)
    if not corpora:
        raise DataError(f"{folder} holds no CIRAL: files such as swahili_passages.jsonl are expected")
    split = split or next((x for x in SPLITS if x in by_split), SPLITS[0])
    return JudgedFolder(
        form="ciral",
        folder=folder,
        split=split,
        given="a corpus",
        languages=tuple(sorted(corpora)),
        files=by_split.get(split, {"topics": {}, "qrels": {}}) | {"corpus": corpora},
        names={what: f"{what}.ciral-v1.0-{{language}}-{split}.tsv" for what in ("topics", "qrels")}
        | {"corpus": "_passages.jsonl"},
        sides={language: (language, "en") for language in corpora},
        pivot="en",
    )
