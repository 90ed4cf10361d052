"""Parallel sentences in files of lines, one a language: line i of one translates line i of the others.

Names are `<language>.txt`; those of NTREX-128, `newstest2019-ref.<code>.txt` (`-src.` for English); or those of
FLORES-200, `<split>/<code>.<split>`. Each is plain or .gz, and lies in a folder or up to two levels below it.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from hbtrain.errors import DataError
from hbtrain.formats.language_codes import codes_of
from hbtrain.formats.languages import LANGUAGE, choose_languages, files_by_language, one_each
from hbtrain.formats.locations import list_files, named

_PLAIN = re.compile(rf"({LANGUAGE.pattern})\.txt(?:\.gz)?")
_NTREX = re.compile(r"newstest2019-(?:ref|src)\.([a-z]{3}(?:-[A-Za-z]+)?)\.txt(?:\.gz)?")
_FLORES = re.compile(r"([a-z]{3}_[A-Z][a-z]{3})\.(?P<split>\w+?)(?:\.gz)?")


def lines_by_language(inputs: Sequence[str], languages: Sequence[str] | None, split: str) -> dict[str, str]:
    """{language: file} of arguments of the form `LANGUAGE=FILE`, or of a single folder (`find_lines`).

    Raises:
        ConfigError: an argument has neither form.
        DataError: see `find_lines`; or a language is not there.
    """
    is_folder = len(inputs) == 1 and "=" not in inputs[0].rpartition("/")[2]
    files = find_lines(inputs[0], split) if is_folder else files_by_language(inputs, ".txt")
    return {x: files[x] for x in sorted(choose_languages(files, languages, inputs[0]))}


def find_lines(folder: str, split: str = "dev") -> dict[str, str]:
    """{hbtrain's code of a language: file} of a folder.

    Args:
        folder: on this machine, or a URL.
        split: of FLORES, `dev` or `devtest`; other names tell no split.

    Raises:
        DataError: there are none, or two of one language.
    """
    found = []
    for path in list_files(folder, levels=3):
        name = named(path).rsplit("/", 1)[-1]
        flores = _FLORES.fullmatch(name)
        match = _NTREX.fullmatch(name) or (flores if flores and flores["split"] == split else _PLAIN.fullmatch(name))
        if match:
            found.append((match[1], path))
    if not found:
        raise DataError(
            f"{folder} holds no lines by language: files such as de.txt, newstest2019-ref.deu.txt or "
            f"{split}/deu_Latn.{split} are expected"
        )
    codes = codes_of([code for code, _ in found])
    return one_each((codes[code], path) for code, path in found)
