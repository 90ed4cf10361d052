"""Mr. TyDi (arXiv 2108.08787) as published: a folder `mrtydi-v1.1-<language>` for each language.

Each holds `topic.<split>.tsv`, `qrels.<split>.txt` and `collection/docs.jsonl`, plain or .gz.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from hbtrain.corpus.locations import is_remote, list_files, named
from hbtrain.corpus.readers.inputs import chosen, one_each
from hbtrain.corpus.readers.judged import JudgedFiles, JudgedReader
from hbtrain.errors import DataError

CODES = {
    "arabic": "ar",
    "bengali": "bn",
    "english": "en",
    "finnish": "fi",
    "indonesian": "id",
    "japanese": "ja",
    "korean": "ko",
    "russian": "ru",
    "swahili": "sw",
    "telugu": "te",
    "thai": "th",
}
_LANGUAGES = "|".join(CODES)


def mr_tydi_reader(
    folder: str, languages: Sequence[str] | None = None, split: str = "train", negatives: bool = True
) -> JudgedReader:
    """The rows of a split; `folder` holds a folder for each language, or is one.

    Raises:
        DataError: no languages, or one that lacks a file.
    """
    root = folder if is_remote(folder) else str(Path(folder).resolve())
    paths = list_files(root)
    kinds = {
        "topics": rf"topic\.{re.escape(split)}\.tsv",
        "judgements": rf"qrels\.{re.escape(split)}\.(txt|tsv)",
        "corpus": r"collection/docs\.jsonl",
    }
    found = {what: _of(name, paths) for what, name in kinds.items()}
    if not found["topics"]:
        raise DataError(f"{folder} holds no mrtydi-v1.1-<language>/topic.{split}.tsv (plain or .gz)")
    files = {}
    for language in chosen(found["topics"], languages, f"{folder} (topics of {split})"):
        for what, there in found.items():
            if language not in there:
                raise DataError(f"{folder} has topics in {language} but no {what} ({kinds[what]}, plain or .gz)")
        files[language] = JudgedFiles(
            found["topics"][language], found["judgements"][language], [found["corpus"][language]]
        )
    return JudgedReader("mr-tydi", files, split, negatives)


def _of(name: str, paths: Sequence[str]) -> dict[str, str]:
    pattern = re.compile(rf".*mrtydi-v[\d.]+-({_LANGUAGES})/{name}(\.gz)?")
    return one_each((CODES[match[1]], path) for path in paths if (match := pattern.fullmatch(named(path))))
