"""Tatoeba as LASER has it, and in the layout of XTREME (arXiv 2003.11080): sentences and their English translations.

XTREME's own preparation sorts the English side, so that the files do not go together; these are refused (`line_pairs`).

The sentences of a language x are the lines of `tatoeba.<x>-en.<x>`, their translations those of `tatoeba.<x>-en.en`; or
both are columns of `tatoeba.<x>-en.tsv`. Files are plain or .gz, `tatoeba.` may be missing, and English may be `eng`.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from hbtrain.errors import DataError
from hbtrain.formats.inputs import numbered_lines
from hbtrain.formats.languages import one_each
from hbtrain.formats.line_pairs import read_line_pairs
from hbtrain.formats.locations import list_files, named

ALIGNED = "as LASER has them (facebookresearch/LASER on GitHub, data/tatoeba/v1/tatoeba.deu-eng.deu and so on)"
_FILE = re.compile(r"(?:.*/)?(?:tatoeba\.)?([a-z]{2,3})-(en|eng)\.([a-z]{2,3})(?:\.gz)?")


@dataclass(frozen=True)
class TatoebaFolder:
    """The files of a folder."""

    english: str  # the code that file names have for English, `en` or `eng`
    # {other language: {side: file}}; a side is the code of one of the two languages, or `tsv` for both in one
    pairs: dict[str, dict[str, str]]

    def read(self, language: str) -> tuple[list[str], list[str]]:
        """The sentences of a language, and their translations; two lists of one length.

        Raises:
            DataError: a side is missing, a line is no pair, or the sides are not line by line (`read_line_pairs`).
        """
        files = self.pairs[language]
        if "tsv" not in files:
            for side in (language, self.english):
                if side not in files:
                    raise DataError(f"{next(iter(files.values()))} is there, but not the side in {side}")
            return read_line_pairs(files[language], files[self.english], ALIGNED)
        rows = [(line.split("\t"), position) for line, position in numbered_lines(files["tsv"])]
        for columns, position in rows:
            if len(columns) != 2 or not all(column.strip() for column in columns):
                raise DataError(f"{position} is not a pair: a sentence, tab, its translation is expected")
        if not rows:
            raise DataError(f"{files['tsv']} holds no pairs; fetch it again")
        own, translated = ([columns[side].strip() for columns, _ in rows] for side in (0, 1))
        return own, translated


def find_tatoeba(folder: str) -> TatoebaFolder:
    """Find the files of a folder.

    Raises:
        DataError: there are none, or two files of one side.
    """
    found: dict[str, list[tuple[str, str]]] = {}
    english = "en"
    for path in list_files(folder, levels=1):
        if match := _FILE.fullmatch(named(path)):
            english = match[2]
            found.setdefault(match[1], []).append((match[3], path))
    if not found:
        raise DataError(f"{folder} holds no pairs such as tatoeba.de-en.de and tatoeba.de-en.en, or tatoeba.de-en.tsv")
    return TatoebaFolder(english, {language: one_each(files) for language, files in found.items()})
