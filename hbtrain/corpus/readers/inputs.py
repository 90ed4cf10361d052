"""Files by language: as the user names them, or as they are called in a folder."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from hbtrain.corpus.jsonl import LANGUAGE
from hbtrain.corpus.locations import is_remote, list_files, named
from hbtrain.corpus.readers.items import check_languages
from hbtrain.errors import ConfigError, DataError


def files_by_language(inputs: Sequence[str], endings: Sequence[str]) -> dict[str, str]:
    """Files from `LANGUAGE=FILE`, or from a folder where they are called `<language><ending>`.

    Raises:
        ConfigError: neither of the two.
        DataError: the folder holds no such files, two of one language, or more languages than a corpus holds.
    """
    if len(inputs) == 1 and ("=" not in inputs[0] or "/" in inputs[0].partition("=")[0]):
        folder = inputs[0]
        start = named(folder).rstrip("/") + "/"
        names = [(named(path).removeprefix(start), path) for path in list_files(folder)]
        found = one_each(
            (name.removesuffix(ending), path)
            for name, path in names
            for ending in (x for plain in endings for x in (plain, f"{plain}.gz"))
            if name.endswith(ending) and LANGUAGE.fullmatch(name.removesuffix(ending))
        )
        if not found:
            raise DataError(f"{folder} holds no languages: files such as en{endings[0]} or en{endings[0]}.gz")
        check_languages(len(found), folder)
        return found
    pairs = []
    for given in inputs:
        language, equals, file = given.partition("=")
        if not equals or not file or not LANGUAGE.fullmatch(language):
            raise ConfigError(f"{given}: must be LANGUAGE=FILE, such as en=train-en{endings[0]}, or one folder")
        pairs.append((language, local(file)))
    check_languages(len(pairs), "the command line")
    return one_each(pairs)


def one_each(pairs: Iterable[tuple[str, str]]) -> dict[str, str]:
    """Languages with their files, by the alphabet.

    Raises:
        DataError: two files of one language.
    """
    found: dict[str, str] = {}
    for language, file in pairs:
        if language in found:
            raise DataError(f"both {found[language]} and {file} are for {language}; leave one out")
        found[language] = file
    return dict(sorted(found.items()))


def chosen(found: dict[str, str], languages: Sequence[str] | None, where: str) -> dict[str, str]:
    """Only these languages, if any are given.

    Raises:
        DataError: one is not there, or they are more than a corpus holds.
    """
    for language in languages or ():
        if language not in found:
            raise DataError(f"{where} has no {language}; it has {', '.join(found)}")
    wanted = {x: file for x, file in found.items() if languages is None or x in languages}
    check_languages(len(wanted), where)
    return wanted


def local(path: str) -> str:
    """A path with `~` resolved; a URL as it is."""
    from pathlib import Path

    return path if is_remote(path) else str(Path(path).expanduser())
