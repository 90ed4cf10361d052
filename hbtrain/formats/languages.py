"""Language codes of raw data, and which of several files is in which language."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

from hbtrain.errors import ConfigError, DataError
from hbtrain.formats.language_codes import same_language
from hbtrain.formats.locations import expanded, list_files, named

LANGUAGE = re.compile(r"[A-Za-z]{2,3}([_-][A-Za-z0-9]{2,8})*")  # a code such as en, zh or pt-BR


def files_by_language(inputs: Sequence[str], ending: str, split: str | None = None) -> dict[str, str]:
    """{language: file} of arguments of the form `LANGUAGE=FILE`, or of a single folder (see `language_files`).

    Raises:
        ConfigError: an argument has neither form.
        DataError: see `language_files`; or two files of one language.
    """
    if len(inputs) == 1 and ("=" not in inputs[0] or "/" in inputs[0].partition("=")[0]):
        return language_files(inputs[0], ending, split)
    pairs = []
    for given in inputs:
        language, equals, file = given.partition("=")
        if not equals or not file or not LANGUAGE.fullmatch(language):
            raise ConfigError(f"{given}: must be LANGUAGE=FILE, such as en=train-en{ending}, or one folder")
        pairs.append((language, expanded(file)))
    return one_each(pairs)


def language_files(folder: str, ending: str, split: str | None = None) -> dict[str, str]:
    """{language: file} of the files in a folder whose names are `<language><ending>`, plain or .gz.

    With a split, where there are none, of those called `<language>/<split><ending>`, also in folders below.

    Raises:
        DataError: there are none, or two of one language.
    """
    found = []
    for path in list_files(folder, levels=1):
        name = named(path).rsplit("/", 1)[-1].removesuffix(".gz")
        if name.endswith(ending) and LANGUAGE.fullmatch(language := name.removesuffix(ending)):
            found.append((language, path))
    if not found and split is not None:
        inside = re.compile(rf"(?:.*/)?({LANGUAGE.pattern})/{re.escape(split)}{re.escape(ending)}(?:\.gz)?")
        found = [(match[1], path) for path in list_files(folder) if (match := inside.fullmatch(named(path)))]
    if not found:
        below = "" if split is None else f", or en/{split}{ending},"
        raise DataError(f"{folder} holds no languages: files such as en{ending} or en{ending}.gz{below} are expected")
    return one_each(found)


def one_each(pairs: Iterable[tuple[str, str]]) -> dict[str, str]:
    """{language: file} in alphabetical order, from pairs of the two.

    Raises:
        DataError: two files of one language.
    """
    found: dict[str, str] = {}
    for language, file in pairs:
        if language in found:
            raise DataError(f"both {found[language]} and {file} are for {language}; leave one out")
        found[language] = file
    return dict(sorted(found.items()))


def choose_languages(available: Iterable[str], wanted: Sequence[str] | None, where: str) -> tuple[str, ...]:
    """`wanted` in its order, or all of `available` in alphabetical order; each as `available` spells it.

    A language that is not there as it is spelled is one that means the same (`de`: `deu`), if there is only one.

    Raises:
        DataError: a wanted language is not available or is named twice.
    """
    there = sorted(available)
    if wanted is None:
        return tuple(there)
    chosen = []
    for language in wanted:
        same = [language] if language in there else [x for x in there if same_language(x, language)]
        if len(same) != 1:
            which = f" is one of {', '.join(same)} in {where}: name which" if same else f" is not in {where}"
            raise DataError(f"language {language!r}{which}; it has {', '.join(there)}")
        chosen += same
    if not chosen or len(set(chosen)) < len(chosen):
        raise DataError(f"languages {list(wanted)} of {where} must be at least one, each named once")
    return tuple(chosen)
