import pytest

from hbtrain.errors import DataError
from hbtrain.evaluation.judged import read_judged
from tests.unit.evaluation_samples import only
from tests.unit.judged_samples import DOCUMENTS, TOPICS, json_lines, mr_tydi, qrels, topics


def read(folder, languages=None, split="test"):
    return read_judged("mr-tydi", folder, "mr-tydi", languages, cache=folder / "cache", split=split)


def test_folders_are_languages(tmp_path):
    mr_tydi(mr_tydi(tmp_path), "thai")
    b = read(tmp_path)
    assert (b.candidates_kind, b.settings, b.languages) == ("title+text", ("mono",), ("sw", "th"))
    swahili, _ = b.collections()
    assert list(swahili.candidate_texts) == [f"{title}\n\n{text}" for _, title, text in DOCUMENTS]
    assert [places.tolist() for places in swahili.relevant] == [[0, 1], [2]]
    assert read(tmp_path, ["th"]).languages == ("th",)


def test_a_language_alone_may_be_the_folder(tmp_path):
    assert only(read(mr_tydi(tmp_path) / "mrtydi-v1.1-swahili")).languages == ("sw",)


def test_what_is_missing_is_said(tmp_path):
    with pytest.raises(DataError, match=r"holds no folders such as mrtydi-v1\.1-swahili"):
        read(tmp_path)
    mr_tydi(tmp_path)
    with pytest.raises(DataError, match="'ko' is not in benchmark mr-tydi .*it has sw"):
        read(tmp_path, ["ko"])
    with pytest.raises(
        DataError, match=r"has a folder in sw but no topic\.dev\.tsv or topics\.dev\.txt \(plain or \.gz\)"
    ):
        read(tmp_path, split="dev")
    (tmp_path / "mrtydi-v1.0-swahili").mkdir()
    (tmp_path / "mrtydi-v1.0-swahili" / "README").touch()
    with pytest.raises(DataError, match="both .*v1.0-swahili/ and .*v1.1-swahili/ are for sw; leave one out"):
        read(tmp_path)


def hub(folder, language="swahili", version="1.1"):
    """The hub's two repositories, cloned into one folder."""
    own, corpus = (folder / name / f"mrtydi-v{version}-{language}" for name in ("mr-tydi", "mr-tydi-corpus"))
    topics(own / "ir-format-data" / "topics.test.txt")
    topics(own / "ir-format-data" / "topics.train.txt", {"8": "of training"})
    qrels(own / "ir-format-data" / "qrels.test.txt", separator=" ")
    json_lines(own / "test.jsonl.gz", [{"query_id": "1", "query": "wapi?", "positive_passages": []}])
    json_lines(corpus / "corpus.jsonl.gz", [{"docid": x, "title": a, "text": b} for x, a, b in DOCUMENTS])
    return folder


def test_the_hubs_two_repositories(tmp_path):
    hub(hub(tmp_path), "thai")
    b = read(tmp_path)
    assert b.languages == ("sw", "th")
    swahili, _ = b.collections()
    assert list(swahili.candidate_texts) == [f"{title} {text}" for _, title, text in DOCUMENTS]
    assert (swahili.question_ids, swahili.left_out) == (["1", "2"], 1)
    with pytest.raises(DataError, match=r"in sw but no qrels\.train\.txt"):
        read(tmp_path, split="train")
    with pytest.raises(DataError, match=r"both .*/mrtydi-v1\.0-swahili/ and .*v1\.1-swahili/ are for sw"):
        read(hub(tmp_path, version="1.0"))
    with pytest.raises(DataError, match=r"in th but no collection/docs\.jsonl or corpus\.jsonl"):
        read(hub(tmp_path / "alone", "thai") / "mr-tydi")


def test_topics_of_all_splits_in_one_file(tmp_path):
    own = mr_tydi(tmp_path) / "mrtydi-v1.1-swahili"
    (own / "topic.test.tsv").unlink()
    topics(own / "topic.tsv", TOPICS | {"8": "of training"})
    assert (only(read(tmp_path)).question_ids, only(read(tmp_path)).unasked) == (["1", "2"], {"sw": ["3", "8"]})
    topics(own / "topic.test.tsv", {x: f"{text}!" for x, text in TOPICS.items()})
    assert only(read(tmp_path)).query_texts == ["wapi?!", "nani?!"], "those of the split, where they are there"
    topics(own / "topics.test.txt")
    with pytest.raises(DataError, match="are for sw; leave one out"):
        read(tmp_path)
