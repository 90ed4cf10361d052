"""Topics, relevance judgements and corpora of single languages, as MIRACL, Mr. TyDi and BEIR publish them.

MIRACL (arXiv 2210.09984): `topics.miracl-v1.0-<language>-<split>.tsv`, `qrels.miracl-v1.0-<language>-<split>.tsv` and
folders `miracl-corpus-v1.0-<language>` of `docs-*.jsonl`, some levels deep.
Mr. TyDi (arXiv 2108.08787): folders `mrtydi-v1.1-<language>` (or v1.0) with `topic.<split>.tsv`, `qrels.<split>.txt`
and `collection/docs.jsonl`, or as on the hub `ir-format-data/topics.<split>.txt`, `ir-format-data/qrels.<split>.txt`
and `corpus.jsonl`; `topic.tsv` has the topics of all splits. The folder may itself be one of them.
BEIR (arXiv 2104.08663): `corpus.jsonl`, `queries.jsonl`, `qrels/<split>.tsv`, in a folder for each language or in one.
Every file is plain or .gz.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple

from hbtrain.errors import DataError, shown
from hbtrain.formats.hub_layout import check_whole
from hbtrain.formats.inputs import (
    NOT_UNICODE,
    BadRows,
    Position,
    identifier,
    is_unicode,
    numbered_lines,
    text_lines,
    whole_number,
)
from hbtrain.formats.language_codes import NAMES, same_language
from hbtrain.formats.languages import LANGUAGE, choose_languages, one_each
from hbtrain.formats.locations import is_remote, list_files, named
from hbtrain.formats.tables import Record, read_table
from hbtrain.storage import resolved

ID_KEYS = ("docid", "_id", "id")
JUDGED_KEYS = ("query-id", "corpus-id", "score")  # columns of judgements in records
TEXTS = (".tsv", ".txt")  # endings of files whose lines are an id, a tab and a text
_GRADE = re.compile(r"(-?[0-9]{1,9})(?:\.0*)?")  # a whole number, which some tools write as 1.0
_NAME = re.compile(r"(?i)(?!nan$|inf$|infinity$)[a-z].*")  # of a column, not a value
_NUMBER = re.compile(r"([0-9]+)")


class Topic(NamedTuple):
    """A question of an evaluation or training set; `domain` is what it is about, where the file says so."""

    id: str
    text: str
    position: Position
    domain: str | None = None


class Judgement(NamedTuple):
    """How relevant a document is to a question; 0 is judged and not relevant."""

    question: str
    document: str
    grade: int
    position: Position


class Document(NamedTuple):
    """A passage of a corpus; `text` is its title, a space, and its text."""

    id: str
    text: str
    position: Position


@dataclass(frozen=True)
class JudgedFiles:
    """The files of one language."""

    topics: Sequence[str]
    qrels: Sequence[str]
    corpus: Sequence[str]


@dataclass(frozen=True)
class JudgedFolder:
    """The files of a data set that were found in a folder, by language."""

    form: str  # `miracl`, `mr-tydi`, `beir`, `mteb` or `ciral`
    folder: str  # the path or URL that was searched
    split: str  # of topics and judgements, such as `train`
    given: str  # what was found in each of `languages`, in words for messages: `topics`, `a corpus`, `a folder`
    languages: tuple[str, ...]  # codes, or such pairs as are keys of `sides`, in alphabetical order
    files: Mapping[str, Mapping[str, Sequence[str]]]  # {`topics`, `qrels` or `corpus`: {language: files}}
    # {`topics`, `qrels` or `corpus`: name that such a file should have, with `{language}`}, for messages
    names: Mapping[str, str]
    many: Collection[str] = ()  # which of `topics`, `qrels` and `corpus` a language may have in several files
    all_splits: bool = False  # whether the topics are those of all splits: the judged ones are those of `split`
    # {one of `languages`: (language of the corpus, language of the topics)} where these differ
    sides: Mapping[str, tuple[str, str]] = field(default_factory=dict)
    pivot: str | None = None  # the language of all topics, which is always wanted; None: there is no such language

    def chosen(self, wanted: Sequence[str] | None, where: str) -> tuple[str, ...]:
        """Those of `languages` that are wanted, in that order (`choose_languages`); pairs both of whose sides are.

        Raises:
            DataError: a wanted language is not there, or is named twice.
        """
        if self.pivot is not None and wanted is not None:
            wanted = [x for x in wanted if not same_language(x, self.pivot)] or None
        if wanted is None or not self.sides or self.pivot is not None:
            return choose_languages(self.languages, wanted, where)
        of_keys = {key: self.sides.get(key, (key, key)) for key in self.languages}
        codes = choose_languages({code for both in of_keys.values() for code in both}, wanted, where)
        found = tuple(key for key, both in of_keys.items() if set(both) <= set(codes))
        if not found:
            raise DataError(f"{where} has no pair of {', '.join(codes)}; it has {', '.join(self.languages)}")
        return found

    def of(self, language: str) -> JudgedFiles:
        """The files of a language.

        Raises:
            DataError: one is not there, or there are two of a kind, or one of several is missing.
        """
        for what, name in self.names.items():
            found = self.files[what].get(language, ())
            if not found:
                missing = name.format(language=language)
                raise DataError(f"{self.folder} has {self.given} in {language} but no {missing} (plain or .gz)")
            if what in self.many:
                check_whole(found)
            else:
                one_each((language, path) for path in found)
        topics, qrels, corpus = (self.files[what][language] for what in ("topics", "qrels", "corpus"))
        return JudgedFiles(topics, qrels, corpus)

    def topics(self, language: str, rows: BadRows) -> Iterator[Topic]:
        for file in self.of(language).topics:
            yield from (read_topics if named(file).removesuffix(".gz").endswith(TEXTS) else read_queries)(file, rows)

    def judgements(self, language: str, rows: BadRows) -> Iterator[Judgement]:
        for file in self.of(language).qrels:
            yield from read_judgements(file, rows, three_columns=self.form in ("beir", "mteb"))

    def documents(self, language: str, rows: BadRows) -> Iterator[Document]:
        return read_documents(self.of(language).corpus, rows)


def find_miracl(folder: str, split: str, by: Literal["topics", "corpus"]) -> JudgedFolder:
    """Find MIRACL's files in a folder and up to five levels below it.

    Args:
        folder: on this machine, or a URL.
        split: `train`, `dev`, or another.
        by: which file decides that a language is there; its other files must then be there too. Topics are published
            for all languages at once, corpora one by one.

    Raises:
        DataError: no language has such a file.
    """
    names = {what: f"{what}.miracl-v1.0-{{language}}-{split}.tsv" for what in ("topics", "qrels")}
    found = _matching(
        {named(path): path for path in list_files(folder)},
        {what: rf"(?:.*/)?{what}\.miracl-v1\.0-([a-z]{{2,3}})-{re.escape(split)}\.tsv(?:\.gz)?" for what in names}
        | {"corpus": r"(?:.*/)?miracl-corpus-v1\.0-([a-z]{2,3})/[^/]+"},
    )
    languages = tuple(sorted(found[by]))
    if not languages and by == "topics":
        raise DataError(f"{folder} holds no topics.miracl-v1.0-<language>-{split}.tsv (plain or .gz)")
    if not languages:
        raise DataError(
            f"{folder} holds no corpus; folders such as miracl-corpus-v1.0-sw with docs-0.jsonl.gz are expected"
        )
    for language, files in found["corpus"].items():
        parts = (file for file in files if named(file).endswith((".jsonl", ".jsonl.gz")))
        # docs-10 comes after docs-9.
        found["corpus"][language] = sorted(
            parts, key=lambda x: [int(y) if y.isdigit() else y for y in _NUMBER.split(x)]
        )
    names["corpus"] = "miracl-corpus-v1.0-{language}/docs-0.jsonl"
    given = {"topics": "topics", "corpus": "a corpus"}[by]
    return JudgedFolder("miracl", folder, split, given, languages, found, names, many=("corpus",))


def find_mr_tydi(folder: str, split: str) -> JudgedFolder:
    """Find Mr. TyDi's folders, those of a language, in a folder and below it; `folder` may be one of them itself.

    Topics and corpus may be in two folders of one name, as in the hub's two repositories.

    Raises:
        DataError: there is none, or there are two versions of one language.
    """
    paths = {named(x): x for x in list_files(folder if is_remote(folder) else str(resolved(folder)))}
    start = rf"mrtydi-v(?P<version>[\d.]+)-(?P<language>{'|'.join(NAMES)})/"
    folders: dict[tuple[str, str], str] = {}
    for path in sorted(paths):
        if match := re.match(rf"(?P<folder>.*{start})", path):
            folders.setdefault((NAMES[match["language"]], match["version"]), match["folder"])
    languages = tuple(one_each((language, path) for (language, _), path in sorted(folders.items())))
    if not languages:
        raise DataError(f"{folder} holds no folders such as mrtydi-v1.1-swahili")
    inside, start = "(?:ir-format-data/)?", rf"mrtydi-v[\d.]+-({'|'.join(NAMES)})/"
    kinds = {
        "topics": rf"{inside}topics?\.{re.escape(split)}\.(?:tsv|txt)",
        "qrels": rf"{inside}qrels\.{re.escape(split)}\.(?:txt|tsv)",
        "corpus": r"(?:collection/docs|corpus)\.jsonl",
        "all topics": rf"{inside}topics?\.(?:tsv|txt)",
    }
    found = _matching(paths, {what: rf".*{start}{kind}(?:\.gz)?" for what, kind in kinds.items()})
    files = {what: {NAMES[name]: own for name, own in by_name.items()} for what, by_name in found.items()}
    of_all_splits = {x: own for x, own in files.pop("all topics").items() if x not in files["topics"]}
    files["topics"] |= of_all_splits
    return JudgedFolder(
        form="mr-tydi",
        folder=folder,
        split=split,
        given="a folder",
        languages=languages,
        files=files,
        names={
            "topics": f"topic.{split}.tsv or topics.{split}.txt",
            "qrels": f"qrels.{split}.txt",
            "corpus": "collection/docs.jsonl or corpus.jsonl",
        },
        all_splits=bool(of_all_splits),
    )


def find_beir(folder: str, split: str, languages: Sequence[str] | None = None) -> JudgedFolder:
    """Find the files of a folder in BEIR's form: a folder for each language, or a single corpus.

    A file of judgements that is the only one of its language is taken whatever its name.

    Args:
        folder: on this machine, or a URL.
        split: name of the file of judgements, without `.tsv`.
        languages: the language of a single corpus, whose files do not tell it.

    Raises:
        DataError: there is no corpus, or a single one and `languages` is not one code.
    """
    start = named(folder).rstrip("/") + "/"
    paths = {named(path).removeprefix(start): path for path in list_files(folder, levels=3)}
    if "corpus.jsonl" in paths or "corpus.jsonl.gz" in paths:
        if languages is None or len(languages) != 1:
            raise DataError(
                f"{folder} is one corpus, whose language is not known: give --languages with one code, or put it into "
                "a folder named by its language"
            )
        paths = {f"{languages[0]}/{name}": path for name, path in paths.items()}
    kinds = {"topics": r"queries\.jsonl", "qrels": r"qrels/[^/]+\.tsv", "corpus": r"corpus\.jsonl"}
    found = _matching(paths, {what: rf"([^/]+)/{kind}(?:\.gz)?" for what, kind in kinds.items()})
    for language, files in found["qrels"].items():
        if len(files) > 1:
            wanted = (f"/{split}.tsv", f"/{split}.tsv.gz")
            found["qrels"][language] = [file for file in files if named(file).endswith(wanted)]
    chosen = tuple(sorted(language for language in found["corpus"] if LANGUAGE.fullmatch(language)))
    if not chosen:
        raise DataError(f"{folder} holds neither corpus.jsonl nor folders by language, such as en, that do")
    names = {"topics": "queries.jsonl", "qrels": f"qrels/{split}.tsv", "corpus": "corpus.jsonl"}
    return JudgedFolder("beir", folder, split, "a corpus", chosen, found, names, all_splits=True)


def read_topics(file: str, rows: BadRows) -> Iterator[Topic]:
    """Topics from a file whose lines are: id, tab, text. A text may be blank.

    Raises:
        DataError: the file cannot be read, or `rows` refuses a line of another form.
    """
    for key, text, position in text_lines(file, rows):
        yield Topic(key, text.strip(), position)


def read_queries(file: str, rows: BadRows) -> Iterator[Topic]:
    """Topics from records (`read_table`): `{"_id" or "id", "text", "metadata"?: {"domain"?}}`. A text may be blank.

    Raises:
        DataError: the file cannot be read, or `rows` refuses a record that is no query.
    """
    for record, position in read_table(file, (ID_KEYS,), ("text", "metadata"), rows, "not a query"):
        given, text, metadata = _id_of(record), record.get("text"), record.get("metadata")
        key = identifier(given)
        if key is None or not isinstance(text, str):
            rows.bad(position, "not a query", ": _id and text are expected")
            continue
        domain = metadata.get("domain") if isinstance(metadata, dict) else None
        domain = domain if isinstance(domain, str) else None
        if all(map(is_unicode, (key, text, domain or ""))):
            yield Topic(key, text, position, domain)
        else:
            rows.bad(position, NOT_UNICODE, f" (query {shown(key)})")


def read_judgements(file: str, rows: BadRows, three_columns: bool = False) -> Iterator[Judgement]:
    """Judgements from TREC's four columns: question, anything, document, grade; or from records with `query-id`,
    `corpus-id` and `score`, in JSON lines and Parquet. A repeated one is read once. In a Parquet file that has but the
    two ids, as those of NanoBEIR, each row is of grade 1.

    Args:
        file: path or URL; columns are separated by tabs, or by spaces where a line has no tab.
        rows: told of bad lines.
        three_columns: also accept BEIR's columns: question, document, grade; the first line may hold their names.

    Raises:
        DataError: the file cannot be read, or `rows` refuses a line that is no judgement or contradicts an earlier one.
    """
    grades: dict[tuple[str, str], int] = {}
    records = named(str(file)).removesuffix(".gz").endswith((".jsonl", ".parquet"))
    for one in _judged_records(file, rows) if records else _judged_lines(file, rows, three_columns):
        before = grades.get((one.question, one.document))
        if before is None:
            grades[one.question, one.document] = one.grade
            yield one
        elif before != one.grade:
            detail = f": document {one.document} of question {one.question} had {before}"
            rows.bad(one.position, "a judgement that contradicts an earlier one", detail)


def _judged_lines(file: str, rows: BadRows, three_columns: bool) -> Iterator[Judgement]:
    form, widths = "question, 0, document, grade", [4]
    if three_columns:
        form, widths = f"{form} (or question, document, grade)", [3, 4]
    is_first = True
    for line, position in numbered_lines(file, rows):
        columns = [column.strip() for column in (line.split("\t") if "\t" in line else line.split())]
        grade = _GRADE.fullmatch(columns[-1])
        names_columns = is_first and three_columns and len(columns) == 3 and _NAME.fullmatch(columns[-1])
        is_first = False
        if names_columns:
            continue
        if not grade and len(columns) in widths:
            rows.bad(position, "not a judgement", f": the grade {shown(columns[-1])} must be a whole number")
            continue
        if not grade or not all(columns) or len(columns) not in widths:
            rows.bad(position, "not a judgement", f": {form} is expected")
            continue
        yield Judgement(columns[0], columns[-2], int(grade[1]), position)


def _judged_records(file: str, rows: BadRows) -> Iterator[Judgement]:
    *ids, score = JUDGED_KEYS
    may_lack_scores = named(str(file)).endswith(".parquet")
    for record, position in read_table(file, [(name,) for name in ids], None, rows, "not a judgement"):
        question, document = (identifier(record.get(name)) for name in ids)
        given = 1 if may_lack_scores and len(record) == len(ids) else record.get(score)
        grade = _GRADE.fullmatch(given.strip()) if isinstance(given, str) else None
        value = int(grade[1]) if grade else whole_number(given)
        if question is None or document is None or given is None:
            rows.bad(position, "not a judgement", f": {', '.join(JUDGED_KEYS)} are expected")
        elif value is None:
            rows.bad(position, "not a judgement", f": the grade {shown(given)} must be a whole number")
        elif not is_unicode(question + document):
            rows.bad(position, NOT_UNICODE, f" (question {shown(question)})")
        else:
            yield Judgement(question, document, value, position)


def read_documents(files: Sequence[str], rows: BadRows) -> Iterator[Document]:
    """The documents of JSON-lines and Parquet files: an id (`docid`, `_id` or `id`), and `title` and `text`, or
    `contents`.

    Raises:
        DataError: a file cannot be read, or `rows` refuses a record that is no document.
    """
    for file in files:
        columns = (ID_KEYS, ("contents", "text"))
        for record, position in read_table(file, columns, ("title", "text"), rows, "not a document"):
            given = _id_of(record)
            key, title, text = identifier(given), record.get("title") or "", record.get("contents", record.get("text"))
            if key is None:
                detail = f": a document needs an id under {', '.join(ID_KEYS)}, not {shown(given)}"
            elif not isinstance(text, str) or not isinstance(title, str):
                detail = f": document {key} needs its text under text (or contents), and title as text"
            elif not all(map(is_unicode, (key, title, text))):
                detail = f": document {shown(key)} is not Unicode: it holds half a surrogate pair"
            else:
                yield Document(key, f"{title} {text}".strip(), position)
                continue
            rows.bad(position, "not a document", detail)


def _id_of(record: Record) -> Any:
    return next((record[name] for name in ID_KEYS if name in record), None)


def _matching(paths: Mapping[str, str], patterns: Mapping[str, str]) -> dict[str, dict[str, list[str]]]:
    """{key of a pattern: {language: paths}} of the paths whose keys match it; the language is its first group."""
    found: dict[str, dict[str, list[str]]] = {what: {} for what in patterns}
    for what, pattern in patterns.items():
        compiled = re.compile(pattern)
        for name, path in paths.items():
            if match := compiled.fullmatch(name):
                found[what].setdefault(match[1], []).append(path)
    return found
