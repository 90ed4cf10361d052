"""Folders in the form of LAReQA (arXiv 2004.05484): XQuAD-R, MLQA-R and others of its kind.

One SQuAD file per language, each paragraph with its `sentences` and `sentence_breaks` ([start, end) in characters of
the context). Every sentence is a candidate, repeated ones included; a question's relevant candidate is the sentence in
which its answer begins. Languages are aligned by question id, and a question may lack some of them.

LAReQA's own models embed a sentence together with its paragraph: with `sentence+context` a candidate's text is the
sentence, and after a line break the whole paragraph, so that a model that cuts long texts still reads the sentence.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

from hbtrain.errors import DataError
from hbtrain.evaluation.benchmark import Benchmark, LanguagePart, assemble, choose_languages
from hbtrain.evaluation.readers.squad import add_question, language_files, read_paragraphs, read_question

Candidates = Literal["sentence", "sentence+context"]


def read_lareqa(
    folder: Path, name: str, languages: Sequence[str] | None = None, candidates: Candidates = "sentence"
) -> Benchmark:
    """The benchmark of a folder, restricted to `languages` where given; a pool in their order, else alphabetical.

    Raises:
        DataError: no language files, a language nobody has, or a file that is not of this form, with the question id.
    """
    files = language_files(folder)
    chosen = choose_languages(list(files), languages, f"benchmark {name} ({folder})")
    parts = {language: _read_language(files[language], candidates) for language in chosen}
    return Benchmark.of(name, candidates, assemble(name, parts))


def _read_language(path: Path, candidates: Candidates) -> LanguagePart:
    part = LanguagePart()
    for number, paragraph in enumerate(read_paragraphs(path)):
        _read_paragraph(paragraph, number, part, path, candidates)
    return part


def _read_paragraph(paragraph: Any, number: int, part: LanguagePart, path: Path, candidates: Candidates) -> None:
    place = f"{path} paragraph {number}"
    try:
        context, questions = str(paragraph["context"]), list(paragraph["qas"])
        sentences, breaks = list(paragraph["sentences"]), [(int(a), int(b)) for a, b in paragraph["sentence_breaks"]]
    except (KeyError, TypeError, ValueError) as error:
        raise DataError(
            f"{place} is not in LAReQA's form: context, qas, sentences and sentence_breaks are needed ({error!r}); "
            "plain SQuAD files are read as squad=FOLDER"
        ) from error
    if len(sentences) != len(breaks) or not all(isinstance(s, str) for s in sentences):
        raise DataError(f"{place} has {len(sentences)} sentences and {len(breaks)} breaks; there must be one a text")
    first = len(part.candidate_ids)
    part.candidate_ids += [f"{number}/{sentence}" for sentence in range(len(sentences))]
    part.candidate_texts += sentences if candidates == "sentence" else [f"{s}\n{context}" for s in sentences]
    for record in questions:
        question = read_question(record, place)
        sentence = _sentence_of(question.answer_start, breaks, len(context), f"{path} question {question.id}")
        add_question(part, question, first + sentence, path)


def _sentence_of(offset: int, breaks: Sequence[tuple[int, int]], length: int, place: str) -> int:
    for number, (start, end) in enumerate(breaks):
        if start <= offset < end:
            return number
    raise DataError(
        f"{place}: the answer begins at character {offset}, outside the text: no sentence break of the "
        f"paragraph's {length} characters holds it"
    )
