"""The paper from nothing, small: the commands of docs/reproduce.md, with tiny files and models."""

import io
import json
import re
import shlex
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from hbtrain.hub import catalogue
from tests.integration.command import ROOT, Command
from tests.unit.evaluation_samples import paragraph
from tests.unit.judged_samples import miracl
from tests.unit.tiny_models import save_bert
from tests.unit.tiny_translators import save_trained_nllb
from tests.unit.translation_samples import read_lines

PAIRS = [
    ("where is the old station", "the station is near the river"),
    ("who wrote the little book", "a woman wrote this book at home"),
    ("what do cats eat at night", "cats eat fish and small birds"),
    ("when does the train leave", "the train leaves in the morning"),
]
GERMAN = ["wo ist der alte Bahnhof", "der Bahnhof ist nahe am Fluss", "wer schrieb das kleine Buch"]
GERMAN += ["eine Frau schrieb dieses Buch daheim", "was fressen Katzen in der Nacht", "Katzen fressen Fische und Vögel"]
GERMAN += ["wann geht der Zug ab", "der Zug geht am Morgen ab"]
SPANISH = ["donde esta la vieja estacion", "la estacion esta cerca del rio", "quien escribio el libro"]
SPANISH += ["una mujer escribio este libro en casa", "que comen los gatos de noche", "los gatos comen peces y pajaros"]
SPANISH += ["cuando sale el tren hoy", "el tren sale por la manana"]
TEXTS = [text for pair in PAIRS for text in pair]
KNOWN = [
    {"eng_Latn": one, "deu_Latn": german, "spa_Latn": spanish}
    for one, german, spanish in zip(TEXTS, GERMAN, SPANISH, strict=True)
]


def small_commands():
    """The commands of the page's last block, as lists of words; patterns of files are left as they are."""
    page = (ROOT / "docs" / "reproduce.md").read_text("utf-8")
    block = re.search(r"<!-- small -->\n```\n(.*?)```\n<!-- /small -->", page, re.DOTALL)[1]
    [(name, value)] = re.findall(r'^(\w+)="([^"]*)"$', block, re.MULTILINE)
    lines = re.sub(r'^\w+="[^"]*"\n', "", block, flags=re.MULTILINE).replace(f"${name}", " ".join(value.split()))
    return [shlex.split(line) for line in lines.splitlines()]


def stand_in(hub, name, folder, *repositories):
    """A catalogue's file of the shipped data set `name`, whose files are in repositories of the stand-in."""
    entry = catalogue()[name].model_dump(mode="json", exclude_defaults=True)
    entry["sources"] = []
    for number, (files, patterns) in enumerate(repositories):
        place = f"owner/{name}-{number}"
        entry["sources"].append({"repository": place, "revision": hub.add(place, files), "files": patterns})
    path = folder / f"{name}.yaml"
    path.write_text(json.dumps(entry), encoding="utf-8")
    return path


def lareqa(languages):
    """{path: content} of files in LAReQA's form."""
    files = {}
    for language in languages:
        made = paragraph([f"{word} {language}." for word in ("River", "Book", "Train")], {"a": 0, "b": 1, "c": 2})
        files[f"{language}.json"] = json.dumps({"data": [{"title": "t", "paragraphs": [made]}]}).encode()
    return files


@pytest.fixture
def catalogues(hub, tmp_path):
    """The data sets that the page names, tiny."""
    folder = tmp_path / "catalogues"
    folder.mkdir()
    table = pa.table({"query": [q for q, _ in PAIRS], "answer": [a for _, a in PAIRS]})
    stream = io.BytesIO()
    pq.write_table(table, stream)
    questions = {"pair/train-00000-of-00001.parquet": stream.getvalue()}
    raw = miracl(tmp_path / "raw", "sw")
    judged = {str(x.relative_to(raw)): x.read_bytes() for x in raw.rglob("*.*") if x.is_file()}
    corpus = {path.removeprefix("corpora/"): x for path, x in judged.items() if path.startswith("corpora/")}
    topics = {path: x for path, x in judged.items() if not path.startswith("corpora/")}
    return [
        stand_in(hub, "natural-questions", folder, (questions, ["pair/train-*.parquet"])),
        stand_in(hub, "xquad-r", folder, (lareqa(catalogue()["xquad-r"].languages), ["{language}.json"])),
        stand_in(hub, "mlqa-r", folder, (lareqa(catalogue()["mlqa-r"].languages), ["{language}.json"])),
        stand_in(
            hub,
            "miracl",
            folder,
            (corpus, ["miracl-corpus-v1.0-{language}/docs-*.jsonl.gz"]),
            (topics, ["miracl-v1.0-{language}/*/*.miracl-v1.0-{language}-{split}.tsv*"]),
        ),
    ]


@pytest.mark.ray
def test_the_small_chain_of_the_page(hbtrain, hub, catalogues, tmp_path):
    save_trained_nllb(tmp_path / "nllb-200-distilled-600M", KNOWN)
    backbone = save_bert(tmp_path / "tiny-backbone")
    outputs = {}
    for program, *words in small_commands():
        assert program == "hbtrain"
        arguments = [x for word in words for x in (sorted(map(str, Path().glob(word))) if "*" in word else [word])]
        name = " ".join(arguments[:2])
        if words[0] in ("data", "prepare", "evaluate"):
            arguments += ["--catalogue", *catalogues]
        if words[0] in ("audit", "train"):
            arguments += ["--data.catalogue", *catalogues, "--encoder.backbone", backbone]
            arguments += ["--batching.global_batch_size", 4]  # as many as there are rows
        if words[0] in ("translate", "train"):
            with Command(tmp_path, *arguments) as command:
                assert command.finish() == 0, command.output
                outputs[name] = command.output
        else:
            code, out, err = hbtrain(*arguments)
            assert code == 0, err
            outputs[name] = out
    rows = read_lines(tmp_path / "corpora" / "small-3.jsonl.gz")
    assert [row["query"]["en"] for row in rows] == [question for question, _ in PAIRS]
    assert all({"en", "de", "es"} == set(row[side]) for row in rows for side in ("query", "passage"))
    [run] = (tmp_path / "runs").glob("small-*")
    metrics = json.loads((run / "results" / "metrics.json").read_text())
    settings = {f"{name}/{x}/map" for name in ("xquad-r", "mlqa-r") for x in ("mono", "cross", "multi")}
    assert {*settings, "xquad-r/multi/rank_distance"} <= metrics.keys()
    sources = json.loads((run / "results" / "about.json").read_text())["benchmarks"]
    assert "owner/xquad-r-0" in json.dumps(sources["xquad-r"])
    judged = json.loads((tmp_path / "results-miracl" / "small" / "metrics.json").read_text())
    assert 0 <= judged["miracl/mono/ndcg@10"] <= 1
    assert not (tmp_path / "mteb" / "results").exists()  # two questions are not MIRACL's 482
    for report in ("report", "report-miracl"):
        assert (tmp_path / report / "report.html").is_file()
    notes = outputs[f"compare {run.relative_to(tmp_path)}"], outputs["compare results-miracl/small"]
    assert ["No published figures stand beside" in " ".join(note.split()) for note in notes] == [True, True]
