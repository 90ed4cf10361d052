"""Tatoeba in the layout of XTREME (arXiv 2003.11080) and XTREME-R: sentences and their English translations.

A language's pair is `tatoeba.<x>-en.<x>` beside `tatoeba.<x>-en.en`, line by line, or `tatoeba.<x>-en.tsv` with the
two in columns; each plain or .gz, `tatoeba.` may be missing. A sentence is asked of the sentences of the other
language, in both directions; the accuracy is recall@1. Both sides are candidates and queries by turns, so a model with
prompts gets the query's before one and the passage's before the other.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import numpy as np

from hbtrain.corpus.files import numbered_lines
from hbtrain.errors import DataError
from hbtrain.evaluation.benchmark import Benchmark, Collection, choose_languages

ENGLISH = ("en", "eng")
_FILE = re.compile(r"(tatoeba\.)?(?P<other>[a-z]{2,3})-(?P<english>en|eng)\.(?P<side>[a-z]{2,3})(\.gz)?")


def read_tatoeba(folder: Path, name: str, languages: Sequence[str] | None = None) -> Benchmark:
    """The benchmark of a folder, one collection for each language beside English.

    Args:
        folder: holds the files.
        name: what the benchmark is called.
        languages: only these, by the codes of the files; English belongs to it in any case.

    Raises:
        DataError: no pairs, a language that is not there, a side missing, or sides of different length.
    """
    pairs: dict[str, dict[str, Path]] = {}
    english = "en"
    for path in sorted(folder.iterdir()):
        if match := _FILE.fullmatch(path.name):
            english = match["english"]
            sides = pairs.setdefault(match["other"], {})
            if match["side"] in sides:
                raise DataError(f"{folder} holds both {sides[match['side']].name} and {path.name}; remove one")
            sides[match["side"]] = path
    if not pairs:
        raise DataError(
            f"benchmark {name}: {folder} holds no pairs such as tatoeba.de-en.de and tatoeba.de-en.en, or "
            "tatoeba.de-en.tsv"
        )
    wanted = None if languages is None else [language for language in languages if language not in ENGLISH]
    chosen = choose_languages(list(pairs), wanted, f"benchmark {name} ({folder})")
    openers = tuple(partial(_open, name, language, english, pairs[language]) for language in chosen)
    return Benchmark(name, "sentence", (*chosen, english), openers, ("cross",))


def _open(name: str, language: str, english: str, files: dict[str, Path]) -> Collection:
    what = f"{name} in {language}"
    if "tsv" in files:
        rows = [(line.split("\t"), place) for line, place in numbered_lines(files["tsv"])]
        for columns, place in rows:
            if len(columns) != 2 or not all(column.strip() for column in columns):
                raise DataError(f"{place} is not a pair: a sentence, tab, its translation is expected")
        own, translated = ([columns[side].strip() for columns, _ in rows] for side in (0, 1))
    else:
        missing = [side for side in (language, english) if side not in files]
        if missing:
            there = next(iter(files.values()))
            raise DataError(f"benchmark {what}: {there} is there, but not the side in {missing[0]}")
        own, translated = ([line.strip() for line, _ in numbered_lines(files[side])] for side in (language, english))
    if len(own) != len(translated) or not own:
        raise DataError(f"benchmark {what}: {len(own)} sentences with {len(translated)} translations; fetch them again")
    ids = [f"{language}-{english}/{number}" for number in range(len(own))]
    size = len(own)
    return Collection(
        name=what,
        question_ids=ids * 2,
        query_languages=[language] * size + [english] * size,
        query_texts=own + translated,
        candidate_ids=[f"{side}/{x}" for side in (language, english) for x in ids],
        candidate_texts=own + translated,
        candidate_counts={language: size, english: size},
        relevant=[np.array([(place + size) % (2 * size)], np.int64) for place in range(2 * size)],
    )
