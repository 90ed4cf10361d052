import pytest

from hbtrain.errors import DataError
from hbtrain.evaluation.benchmarks import load_benchmarks
from hbtrain.evaluation.judged import read_judged
from tests.unit.evaluation_samples import only
from tests.unit.judged_samples import DOCUMENTS, json_lines, qrels, topics


def ciral(folder, language="hausa", split="test-a"):
    """One language of CIRAL."""
    own = folder / f"ciral-{language}"
    topics(own / "topics" / f"topics.ciral-v1.0-{language[:2]}-{split}.tsv", {"1": "where?", "2": "who?", "3": "when?"})
    qrels(own / "qrels" / f"qrels.ciral-v1.0-{language[:2]}-{split}.tsv")
    qrels(own / "qrels" / f"qrels.ciral-v1.0-{language[:2]}-{split}-pools.tsv", [("1", "11#0", 1)])
    records = [{"docid": x, "title": title, "text": text, "url": "https://example.org"} for x, title, text in DOCUMENTS]
    json_lines(folder / "passages-v1.0" / f"{language}_passages.jsonl", records)
    json_lines(
        folder / "translated-passages-v1.0" / f"{language}_passages.jsonl", [{"docid": "10#0", "text": "A town"}]
    )
    return folder


def read(folder, languages=None, split=None):
    return read_judged("ciral", folder, "ciral", languages, cache=folder / "cache", split=split)


def test_english_questions_are_asked_of_passages_in_each_language(tmp_path):
    b = read(ciral(ciral(tmp_path), "yoruba"))
    assert (b.settings, set(b.languages)) == (("cross",), {"ha", "yo", "en"})
    hausa, yoruba = b.collections()
    assert set(hausa.query_languages) == set(yoruba.query_languages) == {"en"}
    assert list(hausa.query_texts) == ["where?", "who?"]
    assert list(hausa.candidate_texts) == [f"{title} {text}" for _, title, text in DOCUMENTS]
    assert [places.tolist() for places in hausa.relevant] == [[0, 1], [2]]


@pytest.mark.parametrize("languages", [["yo"], ["en", "yo"]])
def test_english_may_be_named(tmp_path, languages):
    (spec,) = load_benchmarks([f"ciral={ciral(ciral(tmp_path), 'yoruba')}"], languages, cache=str(tmp_path / "cache"))
    assert only(spec).candidate_counts == {"yo": 3, "en": 0}


def test_what_is_missing_is_said(tmp_path):
    with pytest.raises(
        DataError, match=r"holds no passages of CIRAL; files such as passages-v1\.0/hausa_passages\.jsonl"
    ):
        read(tmp_path)
    ciral(tmp_path)
    with pytest.raises(DataError, match="'so' is not in benchmark ciral .*it has en, ha"):
        read(tmp_path, ["so"])
    with pytest.raises(DataError, match=r"has passages in ha-en but no topics\.ciral-v1\.0-ha-test-b\.tsv"):
        read(tmp_path, split="test-b")
