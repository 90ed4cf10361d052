"""Small sources of every form: the same bytes wherever they are written."""

from __future__ import annotations

import csv
import gzip
import json
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

WORDS = {
    "ar": ["ماء", "شمس", "كتاب", "طريق", "بيت", "نهر", "جبل"],
    "de": ["Wasser", "Sonne", "Bücher", "Straße", "Haus", "Fluss", "Berg"],
    "en": ["water", "sun", "books", "road", "house", "river", "mountain"],
    "ru": ["вода", "солнце", "книги", "дорога", "дом", "река", "гора"],
    "sw": ["maji", "jua", "vitabu", "barabara", "nyumba", "mto", "mlima"],
    "zh": ["水", "太阳", "书", "路", "房子", "河", "山"],
}


def text(kind: str, number: int, language: str) -> str:
    """A text that says which one it is, with words that come again in others."""
    words = WORDS[language]
    return f"{kind} {number} {words[number % 7]} {words[number * 3 % 7]} {words[number * number % 7]}"


def texts(kind: str, number: int, languages: Iterable[str]) -> dict[str, str]:
    """`text` in several languages."""
    return {language: text(kind, number, language) for language in languages}


def lexicon(path: Path, one: str, other: str) -> Path:
    """A bilingual lexicon of `WORDS`, some of which have two translations."""
    words = list(zip(WORDS[one], WORDS[other], strict=True))
    pairs = [*words[:-1], *((word, f"{translation}-{other}") for word, translation in words[::2])]
    return write(path, "".join(f"{word}\t{translation}\n" for word, translation in pairs))


def write(path: Path, content: str) -> Path:
    """Write text, zipped where the name says so."""
    path.parent.mkdir(parents=True, exist_ok=True)
    raw = content.encode()
    path.write_bytes(gzip.compress(raw, mtime=0) if path.suffix == ".gz" else raw)
    return path


def json_lines(path: Path, records: Iterable[Mapping[str, Any]]) -> Path:
    """Write JSON lines."""
    return write(path, "".join(json.dumps(record, ensure_ascii=False) + "\n" for record in records))


def parallel_rows(count: int) -> list[dict[str, Any]]:
    """Rows that share queries and passages, lack languages, and have 0 to 4 negatives, some in another language."""
    rows = []
    for i in range(count):
        there = [x for k, x in enumerate(("ar", "de", "en", "ru", "zh")) if x == "en" or (i + k) % (3 + k)]
        row = {
            "id": f"question-{i // 2 if i % 10 == 1 else i}",
            "query": texts("question", i // 2 if i % 10 == 1 else i, there),
            "passage": texts("passage", i // 3, there[: max(2, len(there) - i % 2)]),
            "passage_id": f"p{i // 3}",
        }
        others = [("passage", i // 3 + 1), ("wrong", i), ("wrong", i + 1), ("passage", i // 3 + 2)][: i % 5]
        negatives = [texts(kind, n, [*there[-3 + k % 2 :], "sw"][: 4 - k]) for k, (kind, n) in enumerate(others)]
        rows.append(row | ({"negatives": negatives} if negatives else {}))
    return rows


def parallel(folder: Path) -> list[str]:
    """Two files of parallel JSON lines, one of them zipped; three rows of the second are bad."""
    rows = parallel_rows(60)
    json_lines(folder / "a.jsonl.gz", rows[:40])
    lines = [json.dumps(row) for row in rows[40:]]
    lines[3:3] = ["{", '{"id": "x", "query": {"en": " "}, "passage": {"en": "p"}}', '{"id": "y", "query": {"en": "q"}}']
    write(folder / "b.jsonl", "\n".join(lines) + "\n")
    return ["a.jsonl.gz", "b.jsonl", "--skip-bad-rows"]


def sentences(folder: Path) -> list[str]:
    """Parallel sentences, some of them twice."""
    rows = [{"id": f"s{i}", "text": texts("sentence", i % 25, ("de", "en", "zh")[i % 3 == 1 :])} for i in range(30)]
    json_lines(folder / "sentences.jsonl", rows)
    return ["sentences.jsonl"]


def english(folder: Path) -> list[str]:
    """Rows in English alone."""
    json_lines(folder / "english.jsonl", [
        {"id": f"e{i}", "query": texts("asked", i, ["en"]), "passage": texts("told", i // 2, ["en"])} for i in range(80)
    ])  # fmt: skip
    return ["english.jsonl"]


def csv_columns(folder: Path) -> list[str]:
    """CSV with quoted line ends, ids of queries and passages, empty columns, and records that `--where` leaves out."""
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "qa.csv").open("w", encoding="utf-8", newline="") as stream:
        writer = csv.writer(stream)
        writer.writerow(["qid", "pid", "label", "question", "frage", "title", "answer", "antwort", "wrong"])
        for i in range(40):
            german = text("Frage", i // 2, "de") if i // 2 % 3 else ""
            answers = text("answer", i // 4, "en") + '\nsaid "so"', text("Antwort", i // 4, "de")
            wrong = text("wrong", i, "en") if i % 2 else ""
            question = text("question", i // 2, "en")
            writer.writerow([i // 2, i // 4, int(i % 5 != 0), question, german, f"Title {i // 4}", *answers, wrong])
    ids = ["--id-column", "qid", "--passage-id-column", "pid", "--where", "label=1"]
    sides = ["--query", "en=question", "de=frage", "--passage", "en=title+answer", "de=antwort"]
    return ["qa.csv", *sides, "--negatives", "en=wrong", *ids]


def nested_records(count: int = 24) -> list[dict[str, Any]]:
    """Records with lists and records inside, equal texts in some of them."""
    return [
        {
            "question": text("question", i % 20, "en"),
            "frage": text("Frage", i % 20, "de"),
            "answers": {"text": [text("answer", i % 8, "en"), "another"]},
            "antwort": text("Antwort", i % 8, "de"),
            "negative_passages": [{"text": text("wrong", i + k, "en")} for k in range(i % 3)],
        }
        for i in range(count)
    ]


NESTED = [
    *("--query", "en=question", "de=frage", "--passage", "en=answers.text.0", "de=antwort"),
    *("--negatives", "en=negative_passages.text"),
]


def table_files(folder: Path) -> list[str]:
    """JSON lines, Parquet and Arrow, one after the other."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    records = nested_records()
    json_lines(folder / "a.jsonl.gz", records[:8])
    pq.write_table(pa.Table.from_pylist(records[8:16]), folder / "b.parquet")
    table = pa.Table.from_pylist(records[16:])
    with pa.OSFile(str(folder / "c.arrow"), "wb") as sink, pa.ipc.new_file(sink, table.schema) as writer:
        writer.write_table(table)
    return ["a.jsonl.gz", "b.parquet", "c.arrow", *NESTED]


def tsv_columns(folder: Path) -> list[str]:
    """TSV, whose texts may hold quotation marks; a record that is cut off is bad."""
    lines = [f'{text("q", i, "zh")}\tsaid "{text("p", i % 12, "zh")}' for i in range(20)]
    lines.insert(7, "cut off")
    write(folder / "qa.tsv.gz", "\n".join(["Question\tSentence", *lines]) + "\n")
    return ["qa.tsv.gz", "--query", "zh=Question", "--passage", "zh=Sentence", "--skip-bad-rows"]


def huggingface(folder: Path) -> list[str]:
    """A dataset in a folder, as `save_to_disk` leaves it."""
    from datasets import Dataset, DatasetDict

    DatasetDict({"validation": Dataset.from_list(nested_records())}).save_to_disk(folder / "dataset")
    return ["dataset", "--split", "validation", *NESTED]


def squad_files(folder: Path, lacks: Callable[[int, str], bool] = lambda i, language: False) -> None:
    """SQuAD files in three languages: paragraphs of three sentences, each with an answer to a question."""
    for code, language in enumerate(("de", "en", "ru")):
        articles = []
        for p in range(8):
            parts = [text("Sentence", 3 * p + k, language) + ". " for k in range(3)]
            questions = []
            for k in range(3):
                i = 3 * p + k
                start = sum(map(len, parts[:k])) + 4
                answer = {"text": parts[k][4:9], "answer_start": start}
                if not lacks(i, language):
                    questions.append({"id": f"q{i}", "question": text("question", i, language), "answers": [answer]})
            questions.append({"id": f"none-{p}", "question": "unanswerable?", "answers": [], "is_impossible": True})
            paragraph = {"context": "".join(parts), "qas": questions}
            articles.append({"title": str(p), "paragraphs": [paragraph]})
        name = f"{language}.json" + (".gz" if code == 0 else "")
        write(folder / name, json.dumps({"version": "1.1", "data": articles}, ensure_ascii=False))


def squad(folder: Path) -> list[str]:
    """A folder of SQuAD files with every question in every language."""
    squad_files(folder / "squad")
    return ["squad"]


def squad_sentences(folder: Path) -> list[str]:
    """SQuAD files that lack questions, with the answer's sentence as the passage."""
    squad_files(folder, lambda i, language: (i % 5 == 1 and language == "ru") or (i == 4 and language == "de"))
    files = ["en=en.json", "ru=ru.json", "de=de.json.gz"]
    return [*files, "--passage", "sentence", "--allow-missing"]


def mmarco_files(folder: Path, languages: Mapping[str, str], lacks: Callable[[int, str], bool]) -> None:
    """Collections, queries and triples; ids neither ascend nor start at 0."""
    for name, language in languages.items():
        passages = [(i * 37 % 101, text("passage", i, language)) for i in range(40) if not lacks(i, language)]
        queries = [(i * 7 % 53 + 100, text("query", i, language)) for i in range(20)]
        write(folder / "collections" / f"{name}_collection.tsv.gz", "".join(f"{k}\t{x}\n" for k, x in passages))
        write(folder / f"{name}_queries.train.tsv", "".join(f"{k}\t{x}\n" for k, x in queries))
    triples = [(i * 3 % 20, i * 5 % 40, (i * 11 + 1) % 40) for i in range(60)]
    lines = [f"{q * 7 % 53 + 100}\t{p * 37 % 101}\t{n * 37 % 101}\n" for q, p, n in triples]
    lines.insert(9, "100\t9999\t37\n")
    write(folder / "triples.train.ids.small.tsv", "".join(lines))


def mmarco(folder: Path) -> list[str]:
    """Three languages of mMARCO, and a triple whose passage is not there."""
    mmarco_files(folder / "raw", {"arabic": "ar", "german": "de", "english": "en"}, lambda i, language: False)
    return ["raw", "--languages", "en", "ar", "de", "--skip-bad-rows"]


def mmarco_partial(folder: Path) -> list[str]:
    """mMARCO with passages that some languages lack."""
    lacking = {"german": "de", "russian": "ru", "zh": "zh"}
    mmarco_files(folder / "raw", lacking, lambda i, language: i % 6 == 2 and language != "de")
    return ["raw", "--allow-missing", "--skip-bad-rows"]


def judgements() -> list[tuple[int, int, int]]:
    """(topic, document, grade): one to three relevant documents a topic, and up to two that are not."""
    rows = []
    for topic in range(12):
        rows += [(topic, (topic * 3 + k) % 30, 1) for k in range(1 + topic % 3)]
        rows += [(topic, (topic * 3 + 10 + k) % 30, 0) for k in range(topic % 3)]
    return rows


def miracl(folder: Path) -> list[str]:
    """Two languages of MIRACL; a document that is judged is not in the corpus."""
    for language in ("sw", "zh"):
        version = folder / "raw" / f"miracl-v1.0-{language}"
        topics = "".join(f"{i}#t\t{text('topic', i, language)}\n" for i in range(12))
        write(version / "topics" / f"topics.miracl-v1.0-{language}-train.tsv", topics)
        judged = [*judgements(), (3, 77, 1)]
        qrels = "".join(f"{q}#t\tQ0\t{d}#0\t{grade}\n" for q, d, grade in judged)
        write(version / "qrels" / f"qrels.miracl-v1.0-{language}-train.tsv", qrels)
        for part in range(2):
            records = [
                {"docid": f"{i}#0", "title": f"T{i}", "text": text("document", i, language)} for i in range(part, 34, 2)
            ]
            json_lines(folder / "raw" / f"miracl-corpus-v1.0-{language}" / f"docs-{part}.jsonl.gz", records)
    return ["raw", "--skip-bad-rows"]


def mr_tydi(folder: Path) -> list[str]:
    """Two languages of Mr. TyDi, without what was judged not to be relevant."""
    for name, language in (("english", "en"), ("russian", "ru")):
        own = folder / "raw" / f"mrtydi-v1.1-{name}"
        write(own / "topic.dev.tsv", "".join(f"{i}\t{text('topic', i, language)}\n" for i in range(12)))
        write(own / "qrels.dev.txt", "".join(f"{q} Q0 {d}#1 {grade}\n" for q, d, grade in judgements()))
        records = [{"id": f"{i}#1", "contents": f"T{i}\n\n{text('document', i, language)}"} for i in range(30)]
        json_lines(own / "collection" / "docs.jsonl.gz", records)
    return ["raw", "--split", "dev", "--negatives=false"]


def pages(folder: Path) -> list[str]:
    """Pages in two languages: questions and answers that come again, and one that is empty."""
    for name, language in (("en.jsonl.gz", "en"), ("de.jsonl", "de")):
        records = [
            {"domain": f"site-{p}", "qa_pairs": [
                {"question": text("question", 4 * p + k, language), "answer": text("answer", 2 * p + k, language)}
                for k in range(p % 5)
            ]}
            for p in range(10)
        ]  # fmt: skip
        records[7]["qa_pairs"][1]["answer"] = " "
        json_lines(folder / name, records)
    return ["en=en.jsonl.gz", "de=de.jsonl", "--page-negatives", "2", "--skip-bad-rows"]


class Form(NamedTuple):
    """A form of raw source.

    Attributes:
        command: of `hbtrain prepare`.
        write: writes the input into a folder and returns the command's arguments.
        mode: of batches that can be drawn from the corpus alone.
    """

    command: str
    write: Callable[[Path], list[str]]
    mode: str = "hybrid"


FORMS = {
    "parallel": Form("parallel", parallel),
    "parallel-sentences": Form("parallel", sentences, "cross-lingual"),
    "columns-csv": Form("columns", csv_columns),
    "columns-tsv": Form("columns", tsv_columns, "monolingual"),
    "columns-jsonl-parquet-arrow": Form("columns", table_files),
    "huggingface": Form("huggingface", huggingface),
    "squad-paragraphs": Form("squad", squad),
    "squad-sentences": Form("squad", squad_sentences),
    "mmarco": Form("mmarco", mmarco),
    "mmarco-partial": Form("mmarco", mmarco_partial),
    "miracl": Form("miracl", miracl, "monolingual"),
    "mr-tydi": Form("mr-tydi", mr_tydi, "monolingual"),
    "pages": Form("pages", pages, "monolingual"),
}
