"""`hbtrain prepare`: makes corpora for `data.sources` from raw sources, with a command for each format."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated

from cyclopts import App, Parameter

from hbtrain.cli.prepare_output import Common, show_check, write_corpus
from hbtrain.errors import ConfigError

if TYPE_CHECKING:
    from hbtrain.corpus.readers.columns import Columns


Many = Parameter(consume_multiple=True, negative=())


@dataclass(frozen=True, kw_only=True)
class ColumnOptions:
    """Options of tables and datasets.

    Attributes:
        query: LANGUAGE=COLUMN of the question. A column may be a path such as answers.text.0, or a sum such as
            title+text.
        passage: LANGUAGE=COLUMN of its passage.
        text: LANGUAGE=COLUMN of a sentence in that language: parallel sentences, without query and passage.
        negatives: LANGUAGE=COLUMN of a text, or a list of texts, that do not answer the question.
        id_column: Rows with one id ask one question; without it, rows with equal questions do.
        passage_id_column: Rows with one passage id share a passage; without it, rows with equal passages do.
        where: COLUMN=VALUE: only records that have it, such as label=1 (1.0 fits too) or ok=true.
    """

    query: Annotated[list[str] | None, Many] = None
    passage: Annotated[list[str] | None, Many] = None
    text: Annotated[list[str] | None, Many] = None
    negatives: Annotated[list[str] | None, Many] = None
    id_column: str | None = None
    passage_id_column: str | None = None
    where: Annotated[list[str] | None, Many] = None

    def parsed(self) -> Columns:
        """The parsed options. Raises ConfigError for an option of the wrong form."""
        from hbtrain.corpus.readers.columns import Columns, parse_columns, parse_where

        if self.text and (self.query or self.passage or self.negatives or self.passage_id_column):
            raise ConfigError("--text is for parallel sentences, which have no --query, --passage or --negatives")
        if not self.text and not (self.query and self.passage):
            raise ConfigError("--query and --passage are needed, or --text for parallel sentences")
        return Columns(
            parse_columns(self.query or [], "--query"),
            parse_columns(self.passage or [], "--passage"),
            parse_columns(self.negatives or [], "--negatives"),
            self.id_column,
            self.passage_id_column,
            parse_where(self.where or []),
            parse_columns(self.text or [], "--text"),
        )


Mapping = Annotated[ColumnOptions, Parameter(name="*")]
NO_COLUMNS = ColumnOptions()


@dataclass(frozen=True, kw_only=True)
class JudgedOptions:
    """Options of Mr. TyDi, MIRACL and sets in mteb's layout.

    Attributes:
        languages: Language codes; by default all that are found.
        split: Split of the topics: train, dev or test.
        negatives: Use passages that are judged as not relevant as negatives.
    """

    languages: Annotated[list[str] | None, Many] = None
    split: str = "train"
    negatives: bool = True


Judged = Annotated[JudgedOptions, Parameter(name="*")]
TRAINING = JudgedOptions()


prepare = App(
    name="prepare",
    help="Turn a raw source into a corpus that data.sources takes: one command a form. Paths may be hub:NAME.",
)


@prepare.command
def parallel(files: Annotated[list[str], Many], *, common: Common) -> None:
    """Parallel JSON lines: {"id", "query": {lang: text}, "passage": {lang: text}, "passage_id"?, "negatives"?}.

    Parameters
    ----------
    files
        JSON-lines files, plain or .gz.
    """
    from hbtrain.corpus.readers.inline import ParallelReader

    write_corpus(ParallelReader, files, common, of_files=True)


@prepare.command
def columns(
    files: Annotated[list[str], Many],
    *,
    mapping: Mapping = NO_COLUMNS,
    common: Common,
) -> None:
    """CSV, TSV, JSON lines, Parquet or Arrow files, by their columns; a row lacks languages whose columns are empty.

    Parameters
    ----------
    files
        Files ending in .csv, .tsv, .jsonl (also with .gz), .parquet or .arrow.
    """
    from hbtrain.corpus.readers.columns import ColumnReader

    columns = mapping.parsed()
    write_corpus(lambda paths: ColumnReader(paths, columns), files, common, of_files=True)


@prepare.command
def huggingface(
    dataset: str,
    *,
    mapping: Mapping = NO_COLUMNS,
    split: str = "train",
    config: str | None = None,
    revision: str | None = None,
    common: Common,
) -> None:
    """A Hugging Face dataset, by its columns; one language is enough.

    Parameters
    ----------
    dataset
        A folder (save_to_disk, or data files), or a name on the hub.
    split
        Split of the dataset.
    config
        Configuration of the dataset, where it has several.
    revision
        Branch, tag or commit on the hub.
    """
    from hbtrain.corpus.readers.columns import HuggingFaceReader

    columns = mapping.parsed()
    write_corpus(lambda _: HuggingFaceReader(dataset, columns, split, config, revision), [], common)


@prepare.command
def squad(
    files: Annotated[list[str], Many], *, passage: str = "paragraph", allow_missing: bool = False, common: Common
) -> None:
    """SQuAD's form, one file a language, aligned by question id.

    Parameters
    ----------
    files
        A folder of <language>.json (.gz), or LANGUAGE=FILE for each language.
    passage
        What a passage is: paragraph, or sentence (the one in which the answer begins).
    allow_missing
        Accept questions that lack some languages.
    """
    from hbtrain.corpus.readers.by_id import SquadReader
    from hbtrain.formats.languages import files_by_language

    if passage not in ("paragraph", "sentence"):
        raise ConfigError(f"--passage {passage}: must be paragraph or sentence")
    write_corpus(
        lambda paths: SquadReader(files_by_language(paths, ".json"), passage, not allow_missing),  # type: ignore[arg-type]
        files,
        common,
    )


@prepare.command
def mmarco(
    folder: str,
    *,
    languages: Annotated[list[str] | None, Many] = None,
    translator: str | None = None,
    allow_missing: bool = False,
    common: Common,
) -> None:
    """mMARCO: <language>_collection.tsv, <language>_queries.train.tsv and triples.train.ids.small.tsv.

    Parameters
    ----------
    folder
        Folder that holds the files, such as a clone of unicamp-dl/mmarco.
    languages
        Language codes; by default all that are found.
    translator
        google or helsinki, where there are translations by both.
    allow_missing
        Accept ids that lack some languages.
    """
    from hbtrain.corpus.readers.by_id import MmarcoReader
    from hbtrain.formats.mmarco import TRANSLATORS

    if translator not in (None, *TRANSLATORS):
        raise ConfigError(f"--translator {translator}: must be {' or '.join(TRANSLATORS)}")
    write_corpus(lambda paths: MmarcoReader(paths[0], languages, not allow_missing, translator), [folder], common)


@prepare.command
def mr_tydi(folder: str, *, judged: Judged = TRAINING, common: Common) -> None:
    """Mr. TyDi: mrtydi-v1.1-<language> with topics, judgements and a corpus, or with <split>.jsonl.

    Parameters
    ----------
    folder
        Folder that holds a folder for each language, or the folder of one language.
    """
    from hbtrain.corpus.readers.by_id import judged_reader

    options = judged.split, judged.languages, judged.negatives
    write_corpus(lambda paths: judged_reader("mr-tydi", paths[0], *options), [folder], common)


@prepare.command
def miracl(folder: str, *, judged: Judged = TRAINING, common: Common) -> None:
    """MIRACL: topics, judgements and corpora as published.

    Parameters
    ----------
    folder
        Folder that holds the files, up to five levels below it.
    """
    from hbtrain.corpus.readers.by_id import judged_reader

    options = judged.split, judged.languages, judged.negatives
    write_corpus(lambda paths: judged_reader("miracl", paths[0], *options), [folder], common)


@prepare.command
def mteb(folder: str, *, judged: Judged = TRAINING, common: Common) -> None:
    """The layout of mteb's and BEIR's sets on the hub: configurations of corpus, queries and judgements.

    Parameters
    ----------
    folder
        Folder with the repository's files, or some of them.
    """
    from hbtrain.corpus.readers.by_id import JudgedReader
    from hbtrain.formats.mteb import find_mteb

    def reader(paths: list[str]) -> JudgedReader:
        found = find_mteb(paths[0], judged.split, judged.languages)
        return JudgedReader(found, judged.languages, judged.negatives)

    write_corpus(reader, [folder], common)


@prepare.command
def pages(files: Annotated[list[str], Many], *, split: str = "train", page_negatives: int = 0, common: Common) -> None:
    """Pages of questions and answers, such as MFAQ's: JSON lines with qa_pairs.

    Parameters
    ----------
    files
        A folder of <language>.jsonl (.gz) or <language>/<split>.jsonl, or LANGUAGE=FILE for each language.
    split
        Split of files in folders by language: MFAQ has train and valid.
    page_negatives
        Answers of the same page that a row gets as negatives, at most.
    """
    from hbtrain.corpus.readers.inline import PagesReader
    from hbtrain.formats.languages import files_by_language

    write_corpus(lambda paths: PagesReader(files_by_language(paths, ".jsonl", split), page_negatives), files, common)


@prepare.command
def lines(
    files: Annotated[list[str], Many],
    *,
    languages: Annotated[list[str] | None, Many] = None,
    split: str = "dev",
    common: Common,
) -> None:
    """Parallel sentences, a file a language: line i of one translates line i of the others (FLORES-200, NTREX-128).

    Parameters
    ----------
    files
        A folder of <language>.txt (.gz), or of FLORES's or NTREX's files; or LANGUAGE=FILE for each language.
    languages
        Language codes; by default all that are found.
    split
        Split of FLORES: dev or devtest.
    """
    from hbtrain.corpus.readers.inline import LinesReader
    from hbtrain.formats.lines import lines_by_language

    write_corpus(lambda paths: LinesReader(lines_by_language(paths, languages, split)), files, common)


@prepare.command
def plugin(form: str, files: Annotated[list[str], Many], *, common: Common) -> None:
    """A form that another package reads: one whose reader has an entry point in the group hbtrain.readers.

    Parameters
    ----------
    form
        Name of the entry point.
    files
        What the reader is given: files, folders or URLs.
    """
    from hbtrain.corpus.readers.inline import PluginReader

    write_corpus(lambda paths: PluginReader(form, paths), files, common, of_files=True)


@prepare.command
def check(folder: str) -> None:
    """Read every file of a prepared corpus and compare it with its checksum.

    Parameters
    ----------
    folder
        Folder of the corpus.
    """
    show_check(folder)
