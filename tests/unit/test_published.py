"""Published figures beside a comparison's."""

from __future__ import annotations

import json
from functools import partial

import pytest

from hbtrain.comparison.compare import compare
from hbtrain.comparison.estimates import Method, Score
from hbtrain.comparison.published import PublishedRow, _table, published_rows
from hbtrain.comparison.save import save_comparison
from hbtrain.comparison.tables import language_tables, main_tables
from tests.unit.comparison_samples import rows_of, write_results

QUICK = Method(flips=99, resamples=20)
XQUAD_R = ("ar", "de", "el", "en", "es", "hi", "ru", "th", "tr", "vi", "zh")
COUNTS = {name: known["queries"] for name, known in _table()["benchmarks"].items()}


def folders(folder, name, languages, kind, queries=None, settings=("mono", "cross", "multi")):
    """Results of two systems on few questions, which say that they are on as many as were published."""
    made = []
    for label, quality in (("a", 0.0), ("b", -0.2)):
        rows = [row for row in rows_of(quality, 3, languages, name=name) if row["setting"] in settings]
        for row in rows:
            row["ndcg@10"] = row["map"] / 2
        about = {"benchmarks": {name: {"candidates_kind": kind, "languages": list(languages)}}}
        about["benchmarks"][name]["queries"] = queries or {x: COUNTS[name][x] for x in languages}
        made.append(write_results(folder / label, rows, about=about))
    return made


def beside(table):
    """{label: values} of the published rows of a table."""
    return {row.label: [cell.value for cell in row.cells] for row in table.rows if row.kind == "paper"}


def test_the_papers_figures_stand_in_their_columns(tmp_path):
    found = compare(folders(tmp_path, "xquad-r", XQUAD_R, "sentence"), paper=True, method=QUICK)
    scores, distance, *_ = main_tables(found)
    assert scores.head == ("", "monolingual", "cross-lingual", "multilingual")
    assert beside(scores)["paper: XLM-R, hybrid"] == [0.798, 0.705, 0.593]
    assert list(beside(distance).values()) == [[410], [287], [295], [262], [221], [225]]
    assert next(row for row in distance.rows if row.kind == "paper").cells[0].text == "410"
    assert not any(cell.best for row in scores.rows if row.kind == "paper" for cell in row.cells)
    assert "arXiv 2408.10536" in scores.note
    for table in language_tables(found):  # the paper's means say nothing of one language
        assert not beside(table)
        assert table.head == ("", "a", "b"), "systems stand in columns, as they are fewer than languages"


@pytest.mark.parametrize(
    ("languages", "kind", "queries", "why"),
    [
        (XQUAD_R, "sentence+context", None, "they are on sentence candidates, these runs rank sentence+context"),
        (XQUAD_R[:-1], "sentence", None, "there are mono map, cross map"),
        (XQUAD_R, "sentence", dict.fromkeys(XQUAD_R, 100), "in ar they are on 1,190 queries, these runs on 100"),
        (XQUAD_R, "sentence", dict.fromkeys(XQUAD_R[1:], 1190), "in ar they are on 1,190 queries, these runs on no"),
    ],
)
def test_figures_on_other_questions_are_left_out(tmp_path, languages, kind, queries, why):
    found = compare(folders(tmp_path, "xquad-r", languages, kind, queries), published=True, method=QUICK)
    scores, distance, *_ = main_tables(found)
    assert not beside(scores) and not beside(distance)
    assert f"No published figures stand beside xquad-r: {why}" in scores.note


def test_means_are_over_the_languages_of_the_runs(tmp_path):
    """BM25's and mDPR's by language, so that they have a mean over any of them; the paper's is over sixteen."""
    made = folders(tmp_path, "miracl", ("sw", "th"), "title+text", settings=("mono",))
    found = compare(made, metric="ndcg@10", published=True, method=QUICK)
    [scores, *_] = main_tables(found)
    of_bm25 = next(row for row in published_rows() if row.label == "BM25").scores["miracl/mono/ndcg@10"]
    assert beside(scores)["BM25"] == [pytest.approx((of_bm25["sw"] + of_bm25["th"]) / 2)]
    assert not any(label.startswith("paper") for label in beside(scores))
    [table] = language_tables(found)
    assert beside(table)["BM25"][table.head.index("th") - 1] == of_bm25["th"] == 0.4838
    assert "Pyserini" in scores.note and "Pyserini" in table.note
    # only with --published
    assert not any(map(beside, main_tables(compare(made, metric="ndcg@10", paper=True, method=QUICK))))
    # another metric has other figures, or none
    [other, *_] = main_tables(compare(made, metric="map", published=True, method=QUICK))
    assert not beside(other) and "there are mono ndcg@10, mono recall@100" in other.note


def test_the_paper_is_beside_its_sixteen_languages(tmp_path):
    sixteen = [x for x in COUNTS["miracl"] if x not in ("de", "yo")]
    made = folders(tmp_path, "miracl", sixteen, "title+text", settings=("mono",))
    [scores, *_] = main_tables(compare(made, metric="ndcg@10", published=True, method=QUICK))
    assert beside(scores)["paper: LaBSE, hybrid"] == [0.4411]
    assert {"BM25", "mDPR, trained on MS MARCO"} <= beside(scores).keys()


def test_the_report_and_the_files_have_them(hbtrain, tmp_path):
    made = folders(tmp_path, "miracl", ("sw", "th"), "title+text", settings=("mono",))
    command = partial(hbtrain, "compare", *made, "--metric", "ndcg@10", "--published", "--output", "out")
    code, out, err = command()
    assert code == 0, err
    assert "mContriever" in out
    page = (tmp_path / "out" / "report.html").read_text()
    assert "<tr class=paper><th scope=row>BM25</th>" in page
    kept = json.loads((tmp_path / "out" / "comparison.json").read_text())["published"]
    one = next(x for x in kept if x["system"] == "BM25" and x["part"] == "th")
    assert (one["setting"], one["metric"], one["value"]) == ("mono", "ndcg@10", 0.4838)
    assert one["checked"] and "Pyserini" in one["title"]
    save_comparison(compare(made, method=QUICK), tmp_path / "without")
    assert json.loads((tmp_path / "without" / "comparison.json").read_text())["published"] == []


def test_the_table_is_whole():
    table = _table()
    assert {row.source for row in published_rows()} == set(table["sources"])
    assert all(source["title"] and source["checked"] for source in table["sources"].values())
    assert len(published_rows("paper")) == 6
    labels = [row.label for row in published_rows()]
    assert len(set(labels)) == len(labels)
    for row in published_rows():
        for key, found in row.scores.items():
            benchmark, setting, metric = key.split("/")
            assert setting in ("mono", "cross", "multi")
            values = found.values() if isinstance(found, dict) else [found]
            assert all(0 < value < 1 for value in values) or metric == "rank_distance"
            languages = found if isinstance(found, dict) else row.languages.get(benchmark, ())
            assert set(languages) <= set(table["benchmarks"][benchmark]["queries"])


def test_a_mean_needs_all_of_its_languages():
    score = Score("miracl", "mono", "ndcg@10", "all")
    row = PublishedRow("x", "paper", {"miracl/mono/ndcg@10": {"sw": 0.5, "th": 0.25}})
    assert row.value(score, ("sw", "th")) == 0.375
    assert row.value(score, ("sw",)) == 0.5
    assert row.value(score, ("sw", "yo")) is None
    assert row.value(score, ()) is None
    assert PublishedRow("x", "paper", {}).value(score, ("sw",)) is None
