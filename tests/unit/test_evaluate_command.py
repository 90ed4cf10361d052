import inspect
import json
import shutil
from dataclasses import asdict
from functools import partial

import pytest

from hbtrain.cli.benchmark_flags import AS_THEY_ARE, WHOLE
from hbtrain.cli.evaluate import AS_SAVED, EXACT, evaluate
from hbtrain.config import EvaluationConfig
from hbtrain.modeling.card import ModelCard
from hbtrain.modeling.encoder import Encoder
from tests.unit.evaluation_samples import paragraph, write_lareqa
from tests.unit.judged_samples import beir, beir_of, miracl
from tests.unit.tiny_models import encoder_config

TEXTS = ["one two three", "eins zwei drei", "where is it", "wo ist es"]
PARAGRAPHS = {
    "en": [paragraph(["One two.", "Three."], {"a": 0, "b": 1})],
    "de": [paragraph(["Eins zwei.", "Drei."], {"a": 0, "b": 1})],
}


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    folder = tmp_path_factory.mktemp("models") / "mine"
    Encoder.build(encoder_config("static"), lambda: TEXTS, 0).save(folder, ModelCard(languages=("de", "fr")))
    return folder


@pytest.fixture
def hbtrain(hbtrain, monkeypatch, tmp_path):
    """`hbtrain evaluate` in a folder with three benchmarks, on a narrow terminal."""
    monkeypatch.setenv("COLUMNS", "80")
    write_lareqa(tmp_path / "xq", PARAGRAPHS)
    miracl(tmp_path / "mi")
    beir(tmp_path / "be")
    return partial(hbtrain, "evaluate")


def about():
    with open("out/about.json") as stream:  # noqa: PTH123
        return json.load(stream)


def metrics():
    with open("out/metrics.json") as stream:  # noqa: PTH123
        return json.load(stream)


def test_several_benchmarks_share_a_folder(hbtrain, model):
    benchmarks = ("--benchmark", "xquad-r=xq", "miracl=mi", "--in-domain", "xquad-r")
    code, out, err = hbtrain(model, *benchmarks, "--candidates", "sentence+context", "--output", "out")
    assert code == 0, err
    assert "xquad-r (sentence+context candidates, exact search)" in out
    assert "en *" in out
    assert "MRR outside xquad-r" in out
    assert about()["trained_languages"] == ["de", "fr"]
    kinds = {name: b["candidates_kind"] for name, b in about()["benchmarks"].items()}
    assert kinds == {"xquad-r": "sentence+context", "miracl": "title+text"}
    assert about()["benchmarks"]["miracl"]["queries_without_answer"] == 1
    assert not about()["benchmarks"]["miracl"]["parallel_questions"]
    assert {"xquad-r/cross/map", "miracl/mono/recall@100/low-resource"} <= metrics().keys()
    assert "miracl/mono/mrr_drop" not in metrics()  # no language in common


def test_what_the_model_says_of_itself_is_written_down(hbtrain, model, tmp_path):
    said = model / "config_sentence_transformers.json"
    other = shutil.copytree(model, tmp_path / "other") / said.name
    stored = {"prompts": {"search": "Find: "}, "similarity_fn_name": "euclidean"}
    other.write_text(json.dumps(json.loads(said.read_text()) | stored))
    for folder, similarity, notes in ((model, "cosine", 0), (other.parent, "euclidean", 1)):
        assert hbtrain(folder, "--benchmark", "xquad-r=xq", "--output", "out")[0] == 0
        assert about()["similarity"] == similarity
        assert len(about()["model_notes"]) == notes
    assert "search ('Find: ')" in about()["model_notes"][0]
    assert "average_with_initial" not in about()
    card = model / "README.md"
    (other.parent / card.name).write_text(card.read_text().replace("tags:", "average_with_initial: 0.2\ntags:", 1))
    assert hbtrain(other.parent, "--benchmark", "xquad-r=xq", "--output", "out")[0] == 0
    assert about()["average_with_initial"] == 0.2


def test_prompts_of_the_model_and_others(hbtrain, model):
    assert hbtrain(model, "--benchmark", "demo", "--languages", "en", "--output", "out")[0] == 0
    assert about()["prompts"] == {"query": "Query: ", "passage": "Passage: "}
    own = metrics()
    flags = ("--query-prompt", "one two ", "--passage-prompt", "", "--trained-languages", "sw", "en")
    assert hbtrain(model, "--benchmark", "demo", "--languages", "en", "--output", "out", *flags)[0] == 0
    assert about()["prompts"] == {"query": "one two ", "passage": ""}
    assert about()["trained_languages"] == ["sw", "en"]
    assert own["demo/mono/map"] != metrics()["demo/mono/map"]


def test_a_single_beir_folder_with_its_language(hbtrain, model):
    code, out, err = hbtrain(model, "--benchmark", "beir", "--data", "be", "--languages", "sw", "--output", "out")
    assert code == 0, err
    assert "be (title+text candidates" in out
    assert about()["benchmarks"]["be"]["candidates"] == {"sw": 3}


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--benchmark", "xquad-r=xq", "demo", "--data", "xq"], ["--data xq is for one benchmark"]),
        (["--benchmark", "xquad-r=xq", "--data", "xq"], ["--data xq is for one benchmark"]),
        (["--benchmark", "lareqa=xq", "lareqa=xq"], ["another has the name xq"]),
        (["--benchmark", "miracl=mi", "--candidates", "sentence+context"], ["--candidates", "have sentences"]),
        (["--benchmark", "demo", "--in-domain", "xquad-r"], ["in-domain benchmark 'xquad-r'", "there are demo"]),
        (["--benchmark", "demo", "--batch-size", "0"], ["--batch-size 0"]),
        (["--benchmark", "demo", "xquad-r=xq", "--languages", "en", "fr"], ["'fr' is not in benchmark demo"]),
        (["--benchmark", "beir=be"], ["give --languages with one code"]),
        (["--benchmark", "miracl=xq"], ["holds no corpus"]),
        (["--benchmark", "xquad-r=be"], ["holds no languages"]),
        (["--benchmark", "tatoeba=xq"], ["holds no pairs"]),
        (["--benchmark", "mr-tydi=mi"], ["holds no folders"]),
        (["--benchmark", "miracl=nowhere"], ["there is no folder nowhere"]),
        (["--benchmark", "demo", "xquad-r=xq", "--ignore-identical-ids"], ["--ignore-identical-ids: only for beir"]),
        (["--benchmark", "demo", "--allow-missing-documents"], ["--allow-missing-documents: only for beir"]),
        (["--benchmark", "beir=be", "--languages", "sw"], ["lacks (99#9)", "--allow-missing-documents"]),
        (["--benchmark", "demo", "--candidates", "word"], ["word"]),
    ],
)
def test_what_cannot_be_is_one_line_and_code_2(hbtrain, model, tmp_path, arguments, words):
    with (tmp_path / "be" / "qrels" / "test.tsv").open("a") as judgements:
        judgements.write("1\t99#9\t1\n")
    code, _, err = hbtrain(model, *arguments, "--output", "out")
    assert code == 2, err
    assert "Traceback" not in err
    for word in words:
        assert word in err
    assert not (tmp_path / "out").exists()
    if "word" not in words:  # that one is cyclopts' own message
        assert len(err.strip().splitlines()) == 1, err


def test_queries_that_are_documents_and_documents_that_are_lacking(hbtrain, model, tmp_path):
    texts = {"a": "one two", "b": "one two three", "c": "three"}
    beir_of(tmp_path / "own" / "en", texts, {"a": "one two", "q": "three"}, {"a": {"b": 1}, "q": {"c": 1, "gone": 1}})
    prompts = ("--query-prompt", "", "--passage-prompt", "")
    common = ("--benchmark", "beir=own", "--allow-missing-documents", "--output", "out", *prompts)
    code, out, err = hbtrain(model, *common)
    assert code == 0, err
    assert "note: own in en: the corpus lacks 1 relevant document (gone), counted as never found" in out
    assert "note: own in en: 1 query id of 2 is a document's id as well (a); where such queries are" in out
    assert about()["benchmarks"]["own"]["relevant_never_found"] == 1
    assert metrics()["own/mono/map"] == pytest.approx((1 / 2 + 1 / 2) / 2)
    code, out, err = hbtrain(model, *common, "--ignore-identical-ids")
    assert code == 0, err
    assert "note: own in en: 1 own document left out of the rankings" in out
    assert about()["benchmarks"]["own"]["own_documents_left_out"] == 1
    assert metrics()["own/mono/map"] == pytest.approx((1 + 1 / 2) / 2)


def test_an_index_over_embeddings_on_disk(hbtrain, model):
    index = ("--index", "HNSW8", "--index-parameters", "efSearch=32", "--half-precision")
    code, out, err = hbtrain(model, "--benchmark", "miracl=mi", *index, "--output", "out")
    assert code == 0, err
    assert "HNSW8 efSearch=32 search" in " ".join(out.split())
    said = about()["benchmarks"]["miracl"]
    assert (said["search"], said["recall"], said["embeddings"]) == ("HNSW8 efSearch=32", 1.0, "float16")
    assert "miracl/mono/ndcg@10/sw" in metrics()
    assert "miracl/mono/map/sw" not in metrics()


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (["--half-precision"], "--half-precision is for embeddings on disk; add --actors"),
        (["--index-parameters", "nprobe=3"], "--index-parameters nprobe=3: they are of an index"),
        (["--index", "IVF64,Flat"], "needs training on 64 vectors"),
        (["--index", "nonsense"], "could not parse index string"),
        (["--index", "Flat", "--depth", "0"], "--depth 0: must be 1 or more"),
        (["--index", "Flat", "--actors", "-1"], "--actors -1: must be 0 or more"),
        (["--run-depth", "-1"], "--run-depth -1: must be 0 or more"),
        (["--embeddings", "s3://b/x"], "--embeddings s3://b/x: for embeddings on disk; set --index or --actors"),
        (["--embeddings", "here", "--actors", "1"], "--embeddings here: must be an s3:// URI"),
    ],
)
def test_an_index_that_cannot_be_is_one_line(hbtrain, model, flags, words):
    code, _, err = hbtrain(model, "--benchmark", "miracl=mi", *flags, "--output", "out")
    assert code == 2
    assert words in " ".join(err.split())
    assert "Traceback" not in err


def test_flags_have_the_defaults_of_a_recipe():
    defaults = (
        {name: one.default for name, one in inspect.signature(evaluate).parameters.items()}
        | asdict(WHOLE)
        | asdict(EXACT)
        | asdict(AS_THEY_ARE)
        | asdict(AS_SAVED)
    )
    own = {name: field.default for name, field in EvaluationConfig.model_fields.items() if name in defaults}
    assert len(own) == 12
    assert {name: defaults[name] for name in own} == own
