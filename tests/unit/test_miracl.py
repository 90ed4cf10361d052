import shutil
from pathlib import Path

import pytest

from hbtrain.errors import DataError
from hbtrain.evaluation.benchmarks import load_benchmark, parse_benchmark
from hbtrain.evaluation.evaluate import evaluate
from hbtrain.evaluation.judged import RESOURCES, grades_by_question, read_judged, topics_by_id
from hbtrain.formats.inputs import REFUSED
from hbtrain.formats.judged import find_miracl, read_judgements, read_topics
from tests.unit.evaluation_samples import HashEncoder, only
from tests.unit.judged_samples import DOCUMENTS, QRELS, miracl, qrels

TOPICS = Path(__file__).parents[3] / "shared" / "data" / "miracl-topics"


def read(folder, languages=None):
    return read_judged("miracl", folder, "miracl", languages, cache=folder / "cache")


def test_topics_with_a_relevant_document_are_asked_of_all_documents(tmp_path):
    b = read(miracl(tmp_path))
    assert (b.candidates_kind, b.settings, b.languages) == ("title+text", ("mono",), ("sw",))
    assert not b.parallel
    c = only(b)
    assert list(c.candidate_texts) == [f"{title} {text}" for _, title, text in DOCUMENTS]
    assert list(c.candidate_ids) == [x for x, _, _ in DOCUMENTS]
    assert c.question_ids == ["1", "2"]
    assert [places.tolist() for places in c.relevant] == [[0, 1], [2]]
    assert c.left_out == 1
    assert c.gains is None


def test_corpora_are_read_when_it_is_their_turn_and_groups_have_means(tmp_path):
    for language in ("sw", "en", "te"):
        miracl(tmp_path, language)
    (tmp_path / "corpora" / "miracl-corpus-v1.0-te" / "docs-0.jsonl.gz").write_bytes(b"\x1f\x8bbroken")
    b = read(tmp_path)
    assert b.languages == ("en", "sw", "te")
    opened = b.collections()
    assert [next(opened).languages, next(opened).languages] == [("en",), ("sw",)]
    with pytest.raises(DataError, match="broken gzip"):
        next(opened)
    with pytest.raises(DataError, match="broken gzip"):
        b.check()
    evaluation = evaluate(HashEncoder(), read(tmp_path, ["sw", "en"]))
    assert evaluation.groups == {"low-resource": ("sw",), "high-resource": ("en",)}
    metrics = evaluation.metrics
    assert metrics["miracl/mono/ndcg@10/low-resource"] == metrics["miracl/mono/ndcg@10/sw"]
    assert not [key for key in metrics if "/multi/" in key or "/cross/" in key]
    assert evaluation.candidate_counts == {"sw": 3, "en": 3}
    assert evaluation.left_out == 2


def test_parts_of_a_corpus_are_read_in_the_order_of_their_numbers(tmp_path):
    corpus = miracl(tmp_path) / "corpora" / "miracl-corpus-v1.0-sw"
    for name in ("docs-9.jsonl", "docs-10.jsonl.gz", "notes.txt"):
        (corpus / name).touch()
    for by in ("topics", "corpus"):
        files = find_miracl(str(tmp_path), "dev", by).of("sw").corpus
        names = [file.rpartition("/")[2] for file in files]
        assert names == ["docs-0.jsonl.gz", "docs-1.jsonl.gz", "docs-9.jsonl", "docs-10.jsonl.gz"]


def test_every_language_is_in_one_group():
    languages = [language for members in RESOURCES.values() for language in members]
    assert len(set(languages)) == len(languages) == 18


@pytest.mark.parametrize(
    ("judged", "message"),
    [
        ([*QRELS, ("1", "99#0", 1), ("2", "98#0", 2)], "name 2 relevant documents that the corpus lacks (99#0, 98#0)"),
        ([*QRELS, ("8", "10#0", 1)], "name 1 questions that the topics lack (8)"),
        ([("1", "10#0", 0)], "no question has an answer in the languages sw"),
    ],
)
def test_judgements_that_do_not_belong_to_the_rest(tmp_path, judged, message):
    with pytest.raises(DataError) as caught:
        read(miracl(tmp_path, judged=judged)).check()
    assert message in str(caught.value)
    assert "miracl in sw" in str(caught.value)


def test_an_unknown_document_that_is_not_relevant_does_not_matter(tmp_path):
    assert only(read(miracl(tmp_path, judged=[*QRELS, ("1", "99#0", 0)]))).question_ids == ["1", "2"]


def test_two_files_of_one_kind(tmp_path):
    miracl(tmp_path)
    qrels(tmp_path / "qrels.miracl-v1.0-sw-dev.tsv")
    with pytest.raises(DataError, match=r"both .*sw-dev\.tsv\.gz and .*sw-dev\.tsv are for sw; leave one out"):
        read(tmp_path)


def test_what_is_missing_is_said(tmp_path):
    with pytest.raises(DataError, match="holds no corpus; folders such as miracl-corpus-v1.0-sw"):
        read(tmp_path)
    miracl(tmp_path)
    with pytest.raises(DataError, match=r"'fi' is not in benchmark miracl .*it has sw"):
        load_benchmark(parse_benchmark(f"miracl={tmp_path}"), ["fi"])
    shutil.rmtree(tmp_path / "miracl-v1.0-sw" / "qrels")
    with pytest.raises(DataError, match=r"has topics in sw but no qrels\.miracl-v1\.0-sw-dev\.tsv \(plain or \.gz\)"):
        find_miracl(str(tmp_path), "dev", by="topics").of("sw")
    with pytest.raises(DataError, match=r"has a corpus in sw but no qrels\.miracl-v1\.0-sw-dev\.tsv"):
        read(tmp_path)
    qrels(tmp_path / "qrels.miracl-v1.0-sw-dev.tsv")
    corpus = tmp_path / "corpora" / "miracl-corpus-v1.0-sw"
    for path in corpus.iterdir():
        path.rename(path.with_name(f"{path.name}.part"))
    with pytest.raises(DataError, match=r"has a corpus in sw but no miracl-corpus-v1\.0-sw/docs-0\.jsonl"):
        read(tmp_path)


@pytest.mark.shared
@pytest.mark.skipif(not TOPICS.exists(), reason="no ../shared")
@pytest.mark.parametrize(("language", "questions"), [("sw", 482), ("ar", 2896), ("yo", 119), ("de", 305)])
def test_published_topics_and_judgements_are_read(language, questions):
    topics, qrels = (str(TOPICS / f"{kind}.miracl-v1.0-{language}-dev.tsv.gz") for kind in ("topics", "qrels"))
    asked = topics_by_id(read_topics(topics, REFUSED), topics)
    judged = grades_by_question(read_judgements(qrels, REFUSED), qrels)
    assert len(asked) == questions
    assert set(judged) <= set(asked)
    assert {grade for grades in judged.values() for grade in grades.values()} == {0, 1}
