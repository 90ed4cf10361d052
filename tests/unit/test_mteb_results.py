"""Results in mteb's form, against mteb itself: its evaluator, its classes, its description of tasks."""

from __future__ import annotations

import json
from dataclasses import replace
from functools import partial

import mteb
import numpy as np
import pytest
from datasets import Dataset
from mteb.abstasks.retrieval import AbsTaskRetrieval
from mteb.abstasks.task_metadata import TaskMetadata
from mteb.models.model_meta import ModelMeta
from mteb.results import TaskResult

from hbtrain.evaluation import mteb_results, mteb_scores
from hbtrain.evaluation.benchmark import Benchmark, Collection, LanguagePart, assemble
from hbtrain.evaluation.evaluate import evaluate
from hbtrain.evaluation.mteb_scores import MtebScores, Ordered, Subset, Task, mteb_tasks, mteb_version, scores_of
from hbtrain.evaluation.rankers import SearchRanker
from hbtrain.hub import catalogue
from tests.unit import mteb_tables
from tests.unit.evaluation_samples import HashEncoder
from tests.unit.judged_samples import miracl
from tests.unit.retrieval_samples import Hashed
from tests.unit.tiny_models import encoder_config

RNG = np.random.default_rng(3)
IDS = [f"{number}#0" for number in RNG.permutation(160).tolist()]
TEXTS = {key: f"text {place % 41}" for place, key in enumerate(IDS)}  # four documents have the same score, or three
QUERIES = {str(number): f"query {number}" for number in range(25)}
JUDGED = {
    query: {IDS[place]: int(RNG.integers(1, 4)) for place in RNG.choice(160, RNG.integers(1, 6), replace=False)}
    for query in QUERIES
}


class SameVectors:
    """The vectors of an encoder of hbtrain, as mteb asks for them."""

    mteb_model_meta = ModelMeta.create_empty()

    def __init__(self, encoder):
        self.encoder = encoder

    def encode(self, inputs, *, prompt_type, **_):
        texts = [text for batch in inputs for text in batch["text"]]
        return self.encoder.encode(texts, "query" if prompt_type == "query" else "passage")

    def similarity(self, one, other):
        import torch

        return torch.as_tensor(one) @ torch.as_tensor(other).T

    def similarity_pairwise(self, one, other):
        raise NotImplementedError


class Tiny(AbsTaskRetrieval):
    metadata = TaskMetadata(
        name="TinyRetrieval",
        description="A task for tests.",
        main_score="ndcg_at_20",
        type="Retrieval",
        eval_langs={"swahili": ["swa-Latn"]},
        eval_splits=["test"],
        dataset={"path": "none/none", "revision": "r"},
    )


def by_mteb(encoder) -> dict[str, float]:
    """The scores that mteb computes on the sample."""
    task = Tiny()
    corpus = Dataset.from_list([{"id": key, "title": "", "text": text} for key, text in TEXTS.items()])
    queries = Dataset.from_list([{"id": key, "text": text} for key, text in QUERIES.items()])
    data = {"corpus": corpus, "queries": queries, "relevant_docs": JUDGED, "top_ranked": None}
    task.dataset, task.data_loaded = {"swahili": {"test": data}}, True
    return task.evaluate(SameVectors(encoder), "test", encode_kwargs={"batch_size": 64})["swahili"]


def sample() -> Benchmark:
    places = {key: place for place, key in enumerate(IDS)}
    ordered = [sorted((places[key], grade) for key, grade in own.items()) for own in JUDGED.values()]
    collection = Collection(
        "mr-tydi in sw",
        list(QUERIES),
        ["sw"] * len(QUERIES),
        list(QUERIES.values()),
        IDS,
        list(TEXTS.values()),
        {"sw": len(IDS)},
        [np.array([place for place, _ in own]) for own in ordered],
        gains=[np.array([grade for _, grade in own], float) for own in ordered],
    )
    return Benchmark("mr-tydi", "title+text", ("sw",), (lambda: collection,), ("mono",), parallel=False)


@pytest.fixture
def task(monkeypatch):
    """The sample as a task, in place of Mr. TyDi's."""
    relevant = sum(map(len, JUDGED.values()))
    one = Task(
        "mr-tydi", "TinyRetrieval", "r", "test", "ndcg_at_20", {"swahili": Subset(["swa-Latn"], 160, 25, relevant)}
    )
    monkeypatch.setattr(mteb_scores, "mteb_tasks", lambda: {"mr-tydi": one})
    swahili = catalogue()["miracl"].model_copy(update={"name": "mr-tydi", "languages": {"sw": "swahili"}})
    monkeypatch.setattr(mteb_scores, "catalogue", lambda: {"mr-tydi": swahili})
    return one


def test_scores_are_those_of_mteb(task):
    """Also where documents have the same score, whichever of them comes first in the corpus."""
    encoder = HashEncoder()
    evaluate(encoder, sample(), takers=[taker := MtebScores()])
    own, theirs = taker.found["TinyRetrieval"].subsets["swahili"], by_mteb(encoder)
    assert own == pytest.approx({name: theirs.get(name) for name in own} | {"main_score": theirs["ndcg_at_20"]})
    left_out = {name for name in theirs if name not in own and not name.startswith("nauc_")}
    assert left_out == {f"{name}_at_1000" for name in ("ndcg", "map", "recall", "precision", "mrr", "hit_rate")}
    assert not taker.notes


def test_scores_from_an_index_are_the_same(task, tmp_path):
    from hbtrain.retrieval.collection_search import SearchOptions

    exact, listed = MtebScores(), MtebScores()
    evaluate(Hashed(), sample(), takers=[exact])
    evaluate(Hashed(), sample(), ranker=SearchRanker(SearchOptions(cache=tmp_path), 100), takers=[listed])
    [of_lists, of_all] = [taker.found["TinyRetrieval"].subsets["swahili"] for taker in (listed, exact)]
    assert of_lists == {name: score for name, score in of_all.items() if name in of_lists}
    assert "ndcg_at_20" in of_lists and "recall_at_100" not in of_lists  # whether 101 has the score of 100 is not known


@pytest.mark.parametrize(
    ("changed", "why"),
    [
        ({"documents": 161}, "160 documents where mteb counts 161"),
        ({"queries": 24}, "25 queries where mteb counts 24"),
        ({"relevant": 1}, "relevant documents where mteb counts 1"),
    ],
)
def test_other_data_are_not_taken_for_mtebs(task, changed, why):
    task.subsets["swahili"] = task.subsets["swahili"]._replace(**changed)
    evaluate(HashEncoder(), sample(), takers=[taker := MtebScores()])
    assert not taker.found
    [note] = taker.notes
    assert note.startswith("TinyRetrieval, subset swahili, is left out: ") and why in note


def test_rankings_without_own_documents_are_not_mtebs(task):
    [collection] = sample().collections()
    own = np.full(25, -1)
    own[3] = 159 if 159 not in collection.relevant[3] else 0
    other = replace(collection, own=own)
    evaluate(HashEncoder(), replace(sample(), openers=(lambda: other,)), takers=[taker := MtebScores()])
    assert not taker.found and "own documents are left out" in taker.notes[0]


def test_a_cut_off_within_equal_scores_is_left_out():
    """The list ends within documents of one score: another with a higher id may belong before them."""
    ids = [f"d{number:02}" for number in range(9, -1, -1)]
    ends_tied = Ordered(ids, [9.0, 8.0, 7.0, 6.0, *[5.0] * 6], whole=False)
    assert {"ndcg_at_3", "recall_at_1"} <= scores_of(iter([ends_tied]), [{"d09": 1}]).keys()
    assert "ndcg_at_5" not in scores_of(iter([ends_tied]), [{"d09": 1}])
    assert "ndcg_at_100" in scores_of(iter([ends_tied._replace(whole=True)]), [{"d09": 1}])


def test_equal_scores_are_left_out_where_ids_are_not_mtebs():
    tied = Ordered(["b", "a", "c"], [2.0, 2.0, 1.0], whole=True)
    for grades, certain in (({"a": 1}, False), ({"a": 1, "b": 1}, True), ({"c": 1}, True), ({"a": 1, "b": 2}, False)):
        assert ("ndcg_at_10" in scores_of(iter([tied]), [grades], own_ids=False)) == certain
        assert "ndcg_at_10" in scores_of(iter([tied]), [grades])


def test_pairs_of_languages_are_named_documents_first(monkeypatch):
    """As Belebele's: asked in German of Swahili passages is the subset `swh_Latn-deu_Latn`."""
    parts = {}
    for language, size in (("de", 4), ("sw", 3)):
        part = LanguagePart([str(x) for x in range(size)], [f"{language} {x}" for x in range(size)])
        part.queries = {f"q{x}": f"{language}? {x}" for x in range(3)}
        part.answers = {f"q{x}": x for x in range(3)}
        parts[language] = part
    subset = Subset(["swa-Latn", "deu-Latn"], 3, 3, 3)
    one = Task("belebele", "B", "r", "test", "ndcg_at_10", {"swh_Latn-deu_Latn": subset}, True, False)
    monkeypatch.setattr(mteb_scores, "mteb_tasks", lambda: {"belebele": one})
    spelling = catalogue()["miracl"].model_copy(update={"languages": {"sw": "swh_Latn", "de": "deu_Latn"}})
    monkeypatch.setattr(mteb_scores, "catalogue", lambda: {"belebele": spelling})
    found = evaluate(
        HashEncoder(), Benchmark.of("belebele", "passage", assemble("b", parts)), takers=[taker := MtebScores()]
    )
    [(name, scores)] = taker.found["B"].subsets.items()
    assert name == "swh_Latn-deu_Latn"
    [cell] = [x for x in found.cells if (x.query_language, x.passage_language) == ("de", "sw")]
    assert scores["ndcg_at_10"] == pytest.approx(cell.means["ndcg@10"], abs=1e-5)
    assert sorted(taker.notes) == ["B has no subset deu_Latn-deu_Latn", "B has no subset swh_Latn-swh_Latn"]


def test_the_table_is_that_of_mteb():
    """Names, revisions, splits, languages and counts; `python -m tests.unit.mteb_tables` writes it anew."""
    assert json.loads(mteb_tables.FILE.read_text("utf-8")) == mteb_tables.build() | {"mteb": mteb_version()}


def test_data_sets_of_the_catalogue_are_those_of_the_tasks():
    """Spelled as mteb spells languages, and where it is mteb's own copy, at the commit that mteb reads."""
    for name, task in mteb_tasks().items():
        spellings = set(catalogue()[name].languages.values())
        known = {language for subset in task.subsets for language in (subset.split("-") if task.pairs else [subset])}
        assert known <= spellings, name
        if name not in mteb_tables.OTHER_COPIES:
            assert [source.revision for source in catalogue()[name].sources] == [task.revision]


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    from hbtrain.modeling.card import ModelCard
    from hbtrain.modeling.encoder import Encoder

    folder = tmp_path_factory.mktemp("models") / "mine"
    Encoder.build(encoder_config("static"), lambda: ["wapi Nairobi", "nani Nyerere", "Mji"], 0).save(
        folder, ModelCard()
    )
    return folder


@pytest.fixture
def hbtrain(hbtrain, monkeypatch, tmp_path):
    """`hbtrain evaluate` in a folder with two languages of MIRACL, whose counts are mteb's."""
    monkeypatch.setenv("COLUMNS", "200")
    for language in ("sw", "yo"):
        miracl(tmp_path / "mi", language)
    full = mteb_tasks()["miracl"]
    counted = {name: Subset(full.subsets[name].languages, 3, 2, 3) for name in ("sw", "yo")}
    monkeypatch.setattr(mteb_scores, "mteb_tasks", lambda: {"miracl": replace(full, subsets=counted)})
    return partial(hbtrain, "evaluate")


def test_mteb_loads_what_was_written(hbtrain, model, tmp_path):
    arguments = (model, "--benchmark", "miracl=mi", "--output", "out", "--mteb-results", "for-mteb", "--languages")
    for language in ("sw", "yo"):
        code, out, err = hbtrain(*arguments, language)
        assert code == 0, err
        assert "for-mteb/results/hbtrain__" in out
    cache = mteb.ResultCache(tmp_path / "for-mteb")
    [result] = cache.load_results(require_model_meta=True).model_results
    [task] = result.task_results
    assert result.model_name.startswith("hbtrain/") and result.model_name.endswith("-mine")
    assert (task.task_name, task.dataset_revision) == (
        "MIRACLRetrieval",
        mteb_tables.task("", "MIRACLRetrieval")["revision"],
    )
    assert sorted(row["hf_subset"] for row in task.scores["dev"]) == ["sw", "yo"]
    assert task.get_score(languages=["yor"]) == next(
        r["ndcg_at_10"] for r in task.scores["dev"] if r["hf_subset"] == "yo"
    )
    metrics = json.loads((tmp_path / "out" / "metrics.json").read_text())
    assert task.get_score(languages=["yor"]) == pytest.approx(metrics["miracl/mono/ndcg@10"], abs=1e-5)
    assert task.evaluation_time > 0
    [file] = (tmp_path / "for-mteb").rglob("MIRACLRetrieval.json")
    assert TaskResult.from_disk(file, load_historic_data=False).mteb_version == mteb_version()
    meta = ModelMeta.model_validate_json_resolved((file.parent / "model_meta.json").read_text())
    assert meta.revision == file.parent.name
    assert meta.loader_kwargs == {"model_prompts": {"query": "Query: ", "document": "Passage: "}}
    # another version's results are left alone
    content = json.loads(file.read_text())
    file.write_text(json.dumps(content | {"mteb_version": "1.0"}))
    code, _, err = hbtrain(*arguments, "sw")
    assert code == 2 and err.startswith("error: ") and "move it away" in err
    assert json.loads(file.read_text())["mteb_version"] == "1.0"
    # other prompts are another revision
    assert hbtrain(*arguments, "sw", "--query-prompt", "ask: ")[0] == 0
    assert len(list((tmp_path / "for-mteb").rglob("MIRACLRetrieval.json"))) == 2


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--benchmark", "demo", "--mteb-results", "m"], ["no task of mteb has the data of demo"]),
        (["--benchmark", "miracl=mi", "--mteb-results", "s3://b/m"], ["--mteb-results s3://b/m"]),
        (["--benchmark", "miracl=mi", "--mteb-results", "m", "--ignore-identical-ids"], ["leave out"]),
        (["--benchmark", "miracl=mi", "--mteb-results", "m", "--index", "Flat", "--half-precision"], ["leave out"]),
    ],
)
def test_what_mteb_would_not_report(hbtrain, model, arguments, words):
    code, _, err = hbtrain(model, *arguments, "--output", "out")
    assert code == 2 and err.startswith("error: ") and err.count("\n") == 1
    assert all(word in err for word in words)


def test_names_of_models(monkeypatch, tmp_path):
    class Model:
        prefixes = {"query": "", "passage": "p: "}  # noqa: RUF012
        similarity, dimension, precision = "dot", 4, "bfloat16"

        class model:  # noqa: N801
            max_seq_length = 512

            @staticmethod
            def parameters():
                return []

        def digest(self):
            return "d"

    monkeypatch.chdir(tmp_path)
    (tmp_path / "runs" / "best").mkdir(parents=True)
    names = {"runs/best": "hbtrain/runs-best", "intfloat/e5": "intfloat/e5", "LaBSE": "sentence-transformers/LaBSE"}
    for given, name in names.items():
        assert mteb_results.model_meta(Model(), given)["name"] == name
    assert ModelMeta(**mteb_results.model_meta(Model(), "x/y")).output_dtypes == ["bfloat16"]
    assert not mteb_results.model_meta(Model(), "/model")["name"].count("//")
