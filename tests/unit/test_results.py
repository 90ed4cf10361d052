import csv
import json
import math
from dataclasses import replace

import numpy as np
import pyarrow.parquet as pq
import pytest
from matplotlib.image import imread
from rich.console import Console

from hbtrain.errors import DataError, StorageError
from hbtrain.evaluation import results
from hbtrain.evaluation.evaluate import evaluate
from hbtrain.evaluation.preference import FIRST
from hbtrain.evaluation.rankers import TopLists
from hbtrain.evaluation.results import heat_map, save_evaluation
from hbtrain.evaluation.tables import before_after_table, evaluation_table, scores_markdown
from hbtrain.reporting.figures import draw_map
from tests.unit.evaluation_samples import HashEncoder, random_benchmark


@pytest.fixture(scope="module")
def evaluation():
    return evaluate(HashEncoder(), random_benchmark())


def other(evaluation, name="other"):
    benchmark = random_benchmark(("en", "zh"), seed=3)
    return evaluate(HashEncoder(), replace(benchmark, name=name))


def metrics_of(folder):
    return json.loads((folder / "metrics.json").read_text())


def render(table, width=80):
    console = Console(width=width, record=True, file=open("/dev/null", "w"))  # noqa: SIM115, PTH123
    console.print(table)
    return console.export_text()


def test_files_hold_what_was_evaluated(tmp_path, evaluation):
    second = other(evaluation)
    save_evaluation([evaluation, second], tmp_path / "a" / "b", model="some/model")
    folder = tmp_path / "a" / "b"
    assert sorted(p.name for p in folder.iterdir()) == [
        "about.json",
        "cells.csv",
        "heatmap-other.png",
        "heatmap-sample.png",
        "language_pairs.csv",
        "language_share.csv",
        "metrics.json",
        "per_query.parquet",
        "scores.csv",
    ]
    with (folder / "language_pairs.csv").open() as stream:
        pairs = {(r["benchmark"], r["side"], r["language"], r["other"]): r for r in csv.DictReader(stream)}
    assert len(pairs) == 2 * sum(math.comb(len(e.languages) + 1, 2) for e in (evaluation, second))
    found = evaluation.pairs["query"]
    assert found.languages[:2] == ("de", "en")
    assert float(pairs["sample", "query", "de", "en"]["alignment"]) == pytest.approx(found.alignment[0, 1], abs=1e-6)
    assert float(pairs["sample", "query", "de", "en"]["cka"]) == pytest.approx(found.cka[0, 1], abs=1e-6)
    assert int(pairs["sample", "query", "de", "en"]["texts"]) == found.texts[0, 1] > 3
    with (folder / "scores.csv").open() as stream:
        rows = {(r["benchmark"], r["setting"], r["query_language"]): r for r in csv.DictReader(stream)}
    assert float(rows["other", "cross", "en"]["map"]) == pytest.approx(
        metrics_of(folder)["other/cross/map/en"], abs=1e-6
    )
    assert float(rows["sample", "multi", "all"]["rank_distance"]) == pytest.approx(
        metrics_of(folder)["sample/multi/rank_distance"], abs=1e-6
    )
    assert rows["sample", "mono", "all"]["rank_distance"] == ""
    with (folder / "language_share.csv").open() as stream:
        shares = {(r["benchmark"], r["query_language"], r["language"]): r for r in csv.DictReader(stream)}
    assert len(shares) == len(evaluation.languages) ** 2 + len(second.languages) ** 2
    assert float(shares["sample", "de", "de"]["share_in_first_ten"]) == pytest.approx(
        metrics_of(folder)["sample/multi/own_language@10/de"], abs=1e-6
    )
    counts = evaluation.candidate_counts
    wanted = counts["th"] / sum(counts.values())
    assert float(shares["sample", "de", "th"]["share_in_pool"]) == pytest.approx(wanted, abs=1e-6)
    metrics = json.loads((folder / "metrics.json").read_text())
    assert metrics == evaluation.metrics | second.metrics
    assert all(isinstance(value, float) for value in metrics.values())
    table = pq.read_table(folder / "per_query.parquet")
    assert table.to_pylist() == evaluation.per_query.to_pylist() + second.per_query.to_pylist()
    about = json.loads((folder / "about.json").read_text())
    assert about["model"] == "some/model"
    assert about["tie_rule"] == "candidates of equal score rank in the order of the pool"
    assert about["benchmarks"]["other"] == {
        "candidates_kind": "sentence",
        "languages": ["en", "zh"],
        "queries": second.query_counts,
        "candidates": second.candidate_counts,
        "queries_without_answer": 0,
        "relevant_never_found": 0,
        "own_documents_left_out": 0,
        "ties": {setting: {"tied": x.tied, "relevant": x.relevant} for setting, x in second.ties.items()},
        "notes": list(second.notes),
        "parallel_questions": True,
        "language_groups": {},
        "search": "exact",
    }
    assert (about["trained_languages"], about["prompts"], about["in_domain"]) == (None, None, None)
    with (folder / "cells.csv").open() as stream:
        cells = {
            tuple(r[k] for k in ("benchmark", "setting", "query_language", "passage_language")): r
            for r in csv.DictReader(stream)
        }
    assert float(cells["sample", "cross", "th", "de"]["map"]) == pytest.approx(evaluation.pair_map[2, 0], abs=1e-6)
    assert cells["sample", "mono", "de", "de"]["queries"] == str(evaluation.query_counts["de"])
    assert len(cells) == len(evaluation.cells) + len(second.cells)


def test_what_is_known_of_the_model_stands_in_about(tmp_path):
    evaluation = evaluate(HashEncoder(), random_benchmark(), trained_languages=["de", "fr", "en"])
    prompts = {"query": "query: ", "passage": ""}
    save_evaluation([evaluation], tmp_path, "m", prompts=prompts)
    assert "average_with_initial" not in json.loads((tmp_path / "about.json").read_text())
    save_evaluation([evaluation], tmp_path, "m", prompts=prompts, average_with_initial=0.25)
    about = json.loads((tmp_path / "about.json").read_text())
    assert about["average_with_initial"] == 0.25
    assert about["trained_languages"] == ["de", "fr", "en"]
    assert about["prompts"] == prompts
    assert about["benchmarks"]["sample"]["language_groups"] == {"seen": ["de", "en"], "unseen": ["th"]}
    metrics = metrics_of(tmp_path)
    assert metrics["sample/mono/map/unseen"] == metrics["sample/mono/map/th"]
    means = [metrics[f"sample/cross/map/{x}"] for x in ("de", "en")]
    assert metrics["sample/cross/map/seen"] == pytest.approx(sum(means) / 2)
    with (tmp_path / "scores.csv").open() as stream:
        assert {"seen", "unseen", "all", "th"} <= {r["query_language"] for r in csv.DictReader(stream)}


def test_results_are_replaced_whole(tmp_path, evaluation, monkeypatch):
    save_evaluation([evaluation], tmp_path)
    before = (tmp_path / "per_query.parquet").read_bytes()

    def fail(table, path, **_):
        path.write_bytes(b"half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(pq, "write_table", fail)
    with pytest.raises(StorageError, match="No space left on device; choose a folder"):
        save_evaluation([evaluation], tmp_path)
    assert (tmp_path / "per_query.parquet").read_bytes() == before
    assert [p.name for p in tmp_path.iterdir() if p.name.startswith(".")] == []


def test_a_folder_that_cannot_be_written(tmp_path, evaluation):
    (tmp_path / "file").write_text("")
    with pytest.raises(StorageError, match="cannot write results to"):
        save_evaluation([evaluation], tmp_path / "file" / "x")
    with pytest.raises(StorageError):
        save_evaluation([evaluation], tmp_path / "file")


def test_benchmarks_of_one_name_cannot_share_a_folder(tmp_path, evaluation):
    with pytest.raises(DataError, match="different names"):
        save_evaluation([evaluation, other(evaluation, "sample")], tmp_path)
    with pytest.raises(DataError):
        save_evaluation([], tmp_path)


def test_heat_map_shows_every_cell(tmp_path, evaluation, monkeypatch):
    from matplotlib.axes import Axes

    written = {}
    draw = Axes.text

    def record(self, x, y, s, **style):
        written[y, x] = s
        return draw(self, x, y, s, **style)

    monkeypatch.setattr(Axes, "text", record)
    pair_map = evaluation.pair_map
    pair_map[0, 1] = np.nan
    cells = tuple(c for c in evaluation.cells if (c.query_language, c.passage_language) != ("de", "en"))
    heat_map(replace(evaluation, cells=cells), tmp_path / "map")
    assert written == {(i, j): "–" if (i, j) == (0, 1) else f"{pair_map[i, j]:.2f}" for i in range(3) for j in range(3)}
    assert (tmp_path / "map").read_bytes().startswith(b"\x89PNG")


def test_heat_map_of_many_languages_is_no_larger_and_has_no_numbers(tmp_path, monkeypatch):
    evaluation = evaluate(HashEncoder(), random_benchmark(("de", "en", "th")))
    drawn = []
    monkeypatch.setattr(
        results, "draw_map", lambda *given, **scale: drawn.append(given[3]) or draw_map(*given, **scale)
    )
    monkeypatch.setattr(results, "LARGEST_SIDE_INCHES", 3 * results.CELL_INCHES)
    heat_map(evaluation, tmp_path / "numbers")
    monkeypatch.setattr(results, "LARGEST_SIDE_INCHES", 2 * results.CELL_INCHES)
    heat_map(evaluation, tmp_path / "none")
    assert [text_of is None for text_of in drawn] == [False, True]
    assert imread(tmp_path / "none", format="png").size < imread(tmp_path / "numbers", format="png").size


def test_heat_map_of_one_language(tmp_path):
    heat_map(evaluate(HashEncoder(), random_benchmark(("en",))), tmp_path / "map.png")
    assert (tmp_path / "map.png").stat().st_size > 1000


def test_evaluation_table_fits_a_terminal_and_holds_the_numbers(evaluation):
    text = render(evaluation_table(evaluation))
    assert "sample (sentence candidates, exact search)" in text
    assert "…" not in text
    rows = [[cell.strip() for cell in line.split("│")[1:-1]] for line in text.splitlines() if line.startswith("│")]
    assert len(rows) == 3 * 4
    assert rows[0][:3] == ["mono", "all", f"{evaluation.metrics['sample/mono/map']:.3f}"]
    assert rows[-1][1] == "th"
    assert rows[-1][-1] == f"{evaluation.metrics['sample/multi/rank_distance/th']:.1f}"
    assert rows[0][-1] == ""


def test_unseen_languages_are_marked_and_groups_have_rows():
    text = render(evaluation_table(evaluate(HashEncoder(), random_benchmark(), trained_languages=["de"])))
    rows = [[cell.strip() for cell in line.split("│")[1:-1]] for line in text.splitlines() if line.startswith("│")]
    assert [row[1] for row in rows[:6]] == ["all", "seen", "unseen", "de", "en *", "th *"]
    assert "* not seen in training" in text
    assert "…" not in text


def test_lists_give_the_metrics_that_they_know():
    def top_ten(encoder, collection):
        q, p = (
            np.array([encoder.vector(t) for t in texts])
            for texts in (collection.query_texts, collection.candidate_texts)
        )
        return TopLists(np.argsort(-(q @ p.T), axis=1, kind="stable")[:, :10])

    top_ten.about = {"search": "IVF4,Flat", "recall": 0.9}
    exact, listed = (evaluate(HashEncoder(), random_benchmark(), ranker=ranker) for ranker in (None, top_ten))
    known = ("recall@1", "recall@10", "mrr@10", "ndcg@10")
    of_first_ten = {"own_language@10", "language_bias@10", "lang_ndcg@10", "peer@10", *FIRST.values()}
    for name in (*known, *of_first_ten):
        assert listed.metrics[f"sample/multi/{name}"] == pytest.approx(exact.metrics[f"sample/multi/{name}"])
    assert {key.split("/")[1] for key in listed.metrics} == {"multi"}
    assert {key.split("/")[2] for key in listed.metrics} == {*known, *of_first_ten}
    text = render(evaluation_table(listed))
    assert "IVF4,Flat search" in text
    assert "MRR@10" in text
    assert listed.per_query["map"].null_count == listed.per_query.num_rows
    alone = evaluate(HashEncoder(), random_benchmark(("en",)), ranker=top_ten)
    assert {key.split("/")[1] for key in alone.metrics} == {"mono"}


def test_before_after_table_shows_the_change(evaluation):
    shifts = {"sample/mono/map": 0.01, "sample/cross/map": -0.02, "sample/multi/rank_distance": -1.5}
    after = replace(evaluation, metrics={k: v + shifts.get(k, 0) for k, v in evaluation.metrics.items()})
    lines = render(before_after_table(evaluation, after)).splitlines()
    changes = {line.split("│")[1].strip(): line.split("│")[4].strip() for line in lines if line.startswith("│")}
    assert changes == {
        "mAP monolingual": "+0.010",
        "mAP cross-lingual": "-0.020",
        "mAP multilingual": "+0.000",
        "rank distance (lower is better)": "-1.5",
    }
    table = before_after_table(evaluation, after)
    assert [cell.style for cell in table.columns[3].cells] == ["green", "red", "", "green"]


def test_tables_of_one_language_leave_cross_out():
    evaluation = evaluate(HashEncoder(), random_benchmark(("en",)))
    assert "cross" not in render(evaluation_table(evaluation)) + render(before_after_table(evaluation, evaluation))


def test_scores_as_markdown(evaluation):
    text = scores_markdown([evaluation], [evaluation])
    score = f"{evaluation.metrics['sample/mono/map']:.3f}"
    assert text.splitlines()[:3] == [
        "| sample (sentence candidates, exact search) | before | after |",
        "| --- | ---: | ---: |",
        f"| mAP monolingual | {score} | {score} |",
    ]
    assert "rank distance" in text
    alone = scores_markdown([], [evaluation]).splitlines()
    assert alone[0] == "| sample (sentence candidates, exact search) | after |"
    assert alone[2] == f"| mAP monolingual | {score} |"
