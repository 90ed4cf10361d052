import json
import statistics
from itertools import permutations

import numpy as np
import pytest
from scipy import stats

import hbtrain
from hbtrain.comparison.compare import compare
from hbtrain.comparison.estimates import Method
from hbtrain.errors import ConfigError, DataError
from tests.unit.comparison_samples import LANGUAGES, macro_means, rows_of, write_results, write_run

QUICK = Method(flips=499, resamples=200)
X_X, HYBRID, X_Y = "X-X only (α = 1)", "hybrid (α = 0.5)", "X-Y only (α = 0)"


@pytest.fixture(scope="module")
def nine(tmp_path_factory):
    """Three alphas, three seeds; the fewer monolingual batches, the better."""
    root = tmp_path_factory.mktemp("nine")
    return [write_run(root / f"a{a}-s{s}", a, s) for a in (0, 0.5, 1) for s in (0, 1, 2)]


def test_the_public_name_is_lazy():
    assert hbtrain.compare is compare


def test_seeds_are_one_system_and_its_means_are_over_them(nine):
    found = compare(nine, method=QUICK)
    assert [system.label for system in found.systems] == [X_X, HYBRID, X_Y]
    assert found.baseline == X_X
    for system, alpha in zip(found.systems, (1, 0.5, 0), strict=True):
        assert [run.config["seed"] for run in system.runs] == [0, 1, 2]
        for setting, metric in (("mono", "map"), ("cross", "map"), ("multi", "map"), ("multi", "rank_distance")):
            values = [
                json.loads((run.results / "metrics.json").read_text())[f"sample/{setting}/{metric}"]
                for run in system.runs
            ]
            assert all(run.config["batching.alpha"] == alpha for run in system.runs)
            estimate = found.get(system.label, "sample", setting, metric)
            assert estimate.by_run == pytest.approx(tuple(values))
            assert estimate.value == pytest.approx(statistics.mean(values))
            assert estimate.spread == pytest.approx(statistics.stdev(values))
            assert estimate.low < estimate.value < estimate.high


def test_the_test_is_scipys_over_questions(tmp_path):
    """The question is the unit: its mean over all cells goes into scipy's test."""
    rows = [rows_of(0.0, questions=9, seed=1), rows_of(0.05, questions=9, seed=2)]
    folders = [write_results(tmp_path / name, r) for name, r in zip("ab", rows, strict=True)]
    found = compare(folders, names=["a", "b"], method=Method(flips=2**9, resamples=100))
    for setting in ("mono", "cross", "multi"):
        means = [
            [
                np.mean([r["map"] for r in of if r["question_id"] == f"q{q}" and r["setting"] == setting])
                for q in range(9)
            ]
            for of in rows
        ]
        want = stats.permutation_test(
            (np.subtract(means[1], means[0]),), np.mean, permutation_type="samples", n_resamples=np.inf
        )
        difference = found.get("b", "sample", setting, "map").difference
        assert difference.p == pytest.approx(want.pvalue)
        assert difference.value == pytest.approx(np.mean(means[1]) - np.mean(means[0]))


def test_a_part_is_the_mean_over_its_query_languages(nine):
    found = compare(nine, method=QUICK)
    (task,) = found.tasks
    assert task.parts["seen"] == ("de", "en")
    assert task.parts["unseen"] == ("th",)
    for setting in ("mono", "cross", "multi"):
        value = {p: found.get(HYBRID, "sample", setting, "map", p).value for p in ("all", "seen", "unseen", *LANGUAGES)}
        assert value["unseen"] == pytest.approx(value["th"])
        assert value["seen"] == pytest.approx((value["de"] + value["en"]) / 2)
        assert value["all"] == pytest.approx(sum(value[x] for x in LANGUAGES) / 3)


def test_questions_that_some_languages_lack(tmp_path):
    """As in MLQA-R: means over the questions that a cell has, equal to what the evaluation reports."""
    rows = [rows_of(q, missing=lambda q, x: x == "th" and q % 3 == 0, seed=i) for i, q in enumerate((0.0, 0.1))]
    found = compare([write_results(tmp_path / f"{i}", r) for i, r in enumerate(rows)], method=QUICK)
    for system, of in zip(found.systems, rows, strict=True):
        for key, want in macro_means(of).items():
            benchmark, setting, metric = key.split("/")
            estimate = found.get(system.label, benchmark, setting, metric)
            if estimate is not None:
                assert estimate.value == pytest.approx(want)
                assert estimate.low <= want <= estimate.high


def test_marks_need_significance_and_are_hollow_where_seeds_overlap(tmp_path):
    far = [write_run(tmp_path / f"far{s}", 1, s, rows_of(-0.3, seed=s)) for s in (0, 1)]
    near = [write_run(tmp_path / f"near{s}", 0, s, rows_of(0.0, seed=10 + s)) for s in (0, 1)]
    found = compare([*far, *near], method=QUICK)
    estimate = found.get(X_Y, "sample", "mono", "map")
    assert estimate.difference.seeds_agree
    assert estimate.mark(0.05) == "▲"
    assert found.get(X_Y, "sample", "multi", "rank_distance").mark(0.05) == "▲", "lower is better"
    assert compare([*far, *near], baseline=X_Y, method=QUICK).get(X_X, "sample", "mono", "map").mark(0.05) == "▼"
    mixed = [
        write_run(tmp_path / "mixed0", 0.5, 0, rows_of(-0.35, seed=20)),
        write_run(tmp_path / "mixed1", 0.5, 1, rows_of(0.1, seed=21)),
    ]
    hollow = compare([*far, *mixed], method=QUICK).get(HYBRID, "sample", "mono", "map")
    assert hollow.difference.p_holm <= 0.05
    assert not hollow.difference.seeds_agree
    assert hollow.mark(0.05) == "△"


def test_equal_runs_differ_in_nothing(tmp_path):
    a, b = (write_results(tmp_path / name, rows_of(0.0)) for name in "ab")
    found = compare([a, b], method=QUICK)
    for estimate in found.estimates:
        if estimate.difference is not None:
            assert estimate.difference.value == 0
            assert estimate.difference.p == 1
            assert estimate.mark(0.05) == ""


def test_the_order_of_runs_changes_nothing(nine):
    some = [nine[0], nine[3], nine[6]]
    tables = {}
    for order in permutations(some):
        found = compare(order, method=QUICK)
        tables[order] = (found.baseline, found.estimates)
    first = next(iter(tables.values()))
    assert all(other == first for other in tables.values())


def test_the_seed_decides_and_nothing_else(nine):
    once, again = (compare(nine, method=QUICK) for _ in range(2))
    other = compare(nine, method=Method(flips=499, resamples=200, seed=1))
    assert once.estimates == again.estimates
    assert once.estimates != other.estimates
    assert [e.value for e in once.estimates] == [e.value for e in other.estimates]


def test_holm_is_over_both_families_apart(nine):
    found = compare(nine, method=QUICK)
    for over_all in (True, False):
        family = [e.difference for e in found.estimates if e.difference and (e.score.part == "all") == over_all]
        smallest = min(family, key=lambda d: d.p)
        assert smallest.p_holm == pytest.approx(min(1, smallest.p * len(family)))


def test_systems_by_keys_of_ones_choice(nine):
    assert [len(s.runs) for s in compare(nine, group_by=["batching.alpha"], method=QUICK).systems] == [3, 3, 3]
    apart = compare(nine, group_by=["run"], method=QUICK)
    assert len(apart.systems) == 9
    assert len({s.label for s in apart.systems}) == 9
    by_seed = compare(nine, group_by=["seed"], names=["zero", "one", "two"], method=QUICK)
    assert {s.label: {r.config["seed"] for r in s.runs} for s in by_seed.systems} == {
        "zero": {0},
        "one": {1},
        "two": {2},
    }
    with pytest.raises(ConfigError, match="unknown key 'batching.alfa' in --group-by"):
        compare(nine, group_by=["batching.alfa"])


def test_names_follow_the_order_of_the_command_line(nine):
    found = compare([nine[0], nine[6]], names=["cross", "mono"], baseline="mono", method=QUICK)
    assert {s.label: s.alpha for s in found.systems} == {"cross": 0.0, "mono": 1.0}
    assert found.baseline == "mono"
    with pytest.raises(ConfigError, match="--names has 1 names for 2 systems: X-Y only"):
        compare([nine[0], nine[6]], names=["one"])


def test_the_baseline_by_label_or_run(nine):
    assert compare(nine, baseline=X_Y, method=QUICK).baseline == X_Y
    assert compare(nine, baseline=str(nine[4]), method=QUICK).baseline == HYBRID
    with pytest.raises(ConfigError, match="--baseline 'best' is no system of this comparison; they are 'X-X only"):
        compare(nine, baseline="best")


def test_schedules_of_alpha_are_told_apart_by_their_values(tmp_path):
    rows = rows_of(0.1)
    schedules = [{0: 0.3, 9: 0.3, 10: 0.5}, {0: 1.0, 5: 0.9, 6: 0.8, 7: 0.7, 8: 0.6, 9: 0.5}]
    runs = [write_run(tmp_path / f"run-{i}", alpha, 0, rows=rows) for i, alpha in enumerate(schedules)]
    found = {system.label for system in compare(runs, method=QUICK).systems}
    assert found == {"hybrid (α 0.3 → 0.5)", "hybrid (α 1 → 0.9 → 0.8 → … → 0.5)"}


def test_other_keys_that_differ_stand_in_the_label(tmp_path):
    runs = [write_run(tmp_path / f"t{t}", 0.5, 0, **{"loss.temperature": t}) for t in (0.01, 0.05)]
    assert [s.label for s in compare(runs, method=QUICK).systems] == [
        "hybrid (α = 0.5), temperature=0.01",
        "hybrid (α = 0.5), temperature=0.05",
    ]


def test_a_sweeps_folder_stands_for_its_finished_runs(tmp_path):
    sweep = tmp_path / "sweep"
    for alpha in (0, 1):
        write_run(sweep / f"a{alpha}", alpha, 0)
    write_run(sweep / "late", 0.5, 0, finished=False)
    (sweep / "space.yaml").write_text("")
    found = compare([sweep], method=QUICK)
    assert [s.label for s in found.systems] == [X_X, X_Y]
    assert found.notes == (f"late of {sweep} is not finished",)


def test_languages_that_only_some_were_trained_on(tmp_path):
    runs = [
        write_run(tmp_path / "nine", 0, 0),
        write_run(tmp_path / "english", 0.5, 0, **{"batching.mode": "english"}),
    ]
    (task,) = compare(runs, method=QUICK).tasks
    assert task.split == ("seen", "unseen", "seen by some")
    assert [task.parts[p] for p in task.split] == [("en",), ("th",), ("de",)]


@pytest.mark.parametrize(
    ("mixture", "seen"),
    [
        ({"mono": 1, "switched": 1}, ["de", "en", "th"]),
        ({0: {"mono": 1}, 9: {"switched": 1}}, ["de", "en", "th"]),
        ({"mono": 1, "switched": 0}, ["de", "en"]),
        ({"mono": 1}, ["de", "en"]),
    ],
)
def test_languages_that_lexicons_bring_are_seen(tmp_path, mixture, seen):
    lexicons = {"en-de": "en-de.txt", "en:th": "en-th.txt"}
    changes = {"batching.mixture": mixture, "batching.switching.lexicons": lexicons}
    runs = [write_run(tmp_path / "a", 0.5, 0, **changes), write_run(tmp_path / "b", 0.5, 1, **changes)]
    found = compare(runs, group_by=["run"], method=QUICK)
    assert [list(system.trained_languages) for system in found.systems] == [seen, seen]


def test_trained_languages_of_about_json_come_first(tmp_path):
    a = write_results(tmp_path / "a", rows_of(0.0), about={"trained_languages": ["de", "th"]})
    found = compare([a, write_results(tmp_path / "b", rows_of(0.1))], method=QUICK)
    assert found.tasks[0].parts["unseen"] == ("en",)
    assert found.notes == ("languages seen in training are those of the other systems; b does not say",)


def test_ids_that_mean_other_questions_in_every_language(tmp_path):
    """As in MIRACL: the unit is the query, and groups of languages have means."""
    rows = [[r for r in rows_of(q, questions=4, seed=i) if r["setting"] == "mono"] for i, q in enumerate((0.0, 0.2))]
    folders = []
    for i, of in enumerate(rows):
        folder = write_results(tmp_path / f"{i}", of)
        about = json.loads((folder / "about.json").read_text())
        about["benchmarks"]["sample"] |= {"parallel_questions": False, "language_groups": {"low": ["th"]}}
        (folder / "about.json").write_text(json.dumps(about))
        folders.append(folder)
    found = compare(folders, method=QUICK)
    (task,) = found.tasks
    assert len(task.layout.questions) == 12
    assert task.layout.questions[0] == "de/q0"
    assert task.groups == ("low",)
    assert found.get("1", "sample", "mono", "map", "low") is not None
    assert found.get("1", "sample", "mono", "map").value == pytest.approx(macro_means(rows[1])["sample/mono/map"])


def test_without_map_the_next_metric_is_the_main_one(tmp_path):
    rows = [[{**r, "map": None} for r in rows_of(q, seed=i)] for i, q in enumerate((0.0, 0.1))]
    found = compare([write_results(tmp_path / f"{i}", r) for i, r in enumerate(rows)], method=QUICK)
    assert found.tasks[0].metric == "recall@10"


def shorter(rows):
    return [r for r in rows if r["question_id"] != "q3"]


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda rows: {"rows": shorter(rows)}, "their queries differ (30 and 29 questions; only one has 'q3')"),
        (lambda rows: {"rows": rows, "kind": "sentence+context"}, "candidates are 'sentence' and 'sentence+context'"),
        (lambda rows: {"rows": [{**r, "benchmark": "other"} for r in rows]}, "was evaluated on sample, run"),
        (lambda rows: {"rows": [r for r in rows if r["query_language"] != "th"]}, "languages are de en th and de en"),
        (lambda rows: {"rows": rows, "metrics": {"sample/mono/map": 0.9}}, "they are of two evaluations"),
        (lambda rows: {"rows": [{**r, "map": None} for r in rows]}, "has no 'map' on sample; choose another --metric"),
        (lambda rows: {"rows": [*rows, rows[0]]}, "scores a question of sample twice"),
        (lambda rows: {"rows": [{**rows[0], "map": None}, *rows[1:]]}, "is no number for some questions"),
        (lambda rows: {"rows": [{**r, "map": "high"} for r in rows]}, "does not hold numbers"),
        (lambda rows: {"rows": [{**r, "setting": "mixed"} for r in rows]}, "has the setting 'mixed'"),
        (lambda rows: {"rows": [{**r, "question_id": None} for r in rows]}, "rows without a question_id"),
    ],
)
def test_runs_that_cannot_be_compared(tmp_path, change, words):
    rows = rows_of(0.1, seed=1)
    a = write_results(tmp_path / "a", rows_of(0.0))
    try:
        b = write_results(tmp_path / "b", **change(rows))
    except TypeError:  # the helper cannot average words
        b = write_results(tmp_path / "b", **change(rows), metrics=macro_means(rows))
    with pytest.raises(DataError) as error:
        compare([a, b], metric="map", method=QUICK)
    assert words in str(error.value)
    assert "\n" not in str(error.value)


def test_one_benchmark_of_several(tmp_path):
    a = write_results(tmp_path / "a", rows_of(0.0) + rows_of(0.0, name="more"))
    b = write_results(tmp_path / "b", rows_of(0.1, seed=1))
    with pytest.raises(DataError, match="--benchmarks sample compares what all have"):
        compare([a, b])
    assert [task.name for task in compare([a, b], benchmarks=["sample"], method=QUICK).tasks] == ["sample"]
    with pytest.raises(DataError, match="was not evaluated on 'more'; it has sample"):
        compare([a, b], benchmarks=["more"])


def test_files_that_cannot_be_read(tmp_path):
    a = write_results(tmp_path / "a", rows_of(0.0))
    b = write_results(tmp_path / "b", rows_of(0.1))
    (b / "per_query.parquet").write_bytes(b"PAR1 garbage")
    with pytest.raises(DataError, match="cannot be read as parquet"):
        compare([a, b])
    (b / "per_query.parquet").unlink()
    with pytest.raises(DataError, match="there is no .*per_query.parquet"):
        compare([a, b])
    (b / "metrics.json").write_text("{")
    (b / "per_query.parquet").write_bytes((a / "per_query.parquet").read_bytes())
    with pytest.raises(DataError, match=r"metrics.json cannot be read as JSON"):
        compare([a, b])
    (b / "metrics.json").write_text("{}")
    with pytest.raises(DataError, match="does not hold scores"):
        compare([a, b])


@pytest.mark.parametrize("content", ["{", "[]"])
def test_a_run_whose_state_is_damaged_is_not_taken_for_unfinished(tmp_path, nine, content):
    run = write_run(tmp_path / "sweep" / "run", 0.5, 3)
    (run / "run.json").write_text(content)
    (tmp_path / "sweep" / "space.yaml").write_text("")
    for given in (run, run / "results", tmp_path / "sweep"):
        with pytest.raises(DataError, match=rf"^{run}/run\.json is damaged \(.*\): put a copy of it back") as error:
            compare([nine[0], given])
        assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("key", "flag"),
    [("own_documents_left_out", "--ignore-identical-ids"), ("relevant_never_found", "--allow-missing-documents")],
)
def test_documents_that_are_taken_differently(tmp_path, key, flag):
    folders = [write_results(tmp_path / name, rows_of(0.0)) for name in "ab"]
    compare(folders, method=QUICK)
    about = json.loads((folders[1] / "about.json").read_text())
    about["benchmarks"]["sample"][key] = 3
    (folders[1] / "about.json").write_text(json.dumps(about))
    with pytest.raises(
        DataError, match=f"cannot be compared on sample: 0 .* 3 in the other; evaluate both with {flag}"
    ):
        compare(folders, method=QUICK)


def test_one_run_under_two_names(tmp_path, nine):
    with pytest.raises(DataError, match="are the same run; name it once"):
        compare([nine[0], nine[0] / "results"])
    with pytest.raises(DataError, match="is named twice"):
        compare([nine[0], nine[0]])
    again = [write_run(tmp_path / name, 0.5, 3) for name in ("first", "second")]
    with pytest.raises(DataError, match="are the same training, seed and all; leave one out"):
        compare([nine[0], *again])


def test_nothing_to_compare(nine, tmp_path):
    with pytest.raises(ConfigError, match="the 3 runs are one system"):
        compare(nine[:3])
    assert len(compare(nine[:3], paper=True, method=QUICK).systems) == 1
    with pytest.raises(ConfigError, match="no runs are named"):
        compare([])
    with pytest.raises(DataError, match="is not finished"):
        compare([nine[0], write_run(tmp_path / "late", 0, 9, finished=False)])
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match="holds neither results"):
        compare([nine[0], tmp_path / "empty"])


def test_different_precisions_are_noted(tmp_path):
    precisions = {"a": "float32", "b": "bfloat16", "c": "float32"}
    folders = {
        name: write_results(tmp_path / name, rows_of(0.0, questions=9, seed=1), about={"precision": precision})
        for name, precision in precisions.items()
    }
    names = ["a", "b"]
    (note,) = compare([folders[name] for name in names], names=names, method=QUICK).notes
    assert "in different precisions: bfloat16, float32" in note
    assert not compare([folders["a"], folders["c"]], names=["a", "c"], method=QUICK).notes


def test_other_revisions_of_a_data_set_are_noted(tmp_path):
    folders = {}
    for name, revision in (("a", "1" * 40), ("b", "2" * 40), ("c", "1" * 40), ("d", None)):
        folders[name] = write_results(tmp_path / name, rows_of(0.0, questions=9, seed=1))
        about = json.loads((folders[name] / "about.json").read_text())
        if revision is not None:
            about["benchmarks"]["sample"]["data"] = {"sources": {"owner/sample": revision}}
        (folders[name] / "about.json").write_text(json.dumps(about))
    (note,) = compare([folders["a"], folders["b"]], names=["a", "b"], method=QUICK).notes
    assert f"on sample runs read different data: owner/sample at {'1' * 40} and {'2' * 40}" in note
    assert not compare([folders[x] for x in "acd"], names=["a", "c", "d"], method=QUICK).notes


def test_questions_with_one_answer_have_no_rank_distance(tmp_path):
    """Nor do they have one in the other run; the mean is over those that have."""
    both = [rows_of(quality, seed=seed) for quality, seed in ((0.0, 0), (0.1, 1))]
    for row in (row for rows in both for row in rows):
        if row["question_id"] in ("q3", "q7") or row["query_language"] == "th":
            row["rank_distance"] = None
    runs = [write_results(tmp_path / f"{i}", rows) for i, rows in enumerate(both)]
    found = compare(runs, method=QUICK)
    for system, rows in zip(found.systems, both, strict=True):
        own = found.get(system.label, "sample", "multi", "rank_distance")
        assert own.value == pytest.approx(macro_means(rows)["sample/multi/rank_distance"])
        assert np.isfinite([own.low, own.high]).all()
    assert {e.score.part for e in found.estimates if e.score.metric == "rank_distance"} >= {"all", "de"}
    assert not [e for e in found.estimates if e.score.metric == "rank_distance" and e.score.part == "th"]


def test_a_rank_distance_that_one_seed_lacks_is_not_compared(tmp_path):
    runs = []
    for alpha, seed in ((1.0, 0), (1.0, 1), (0.5, 0), (0.5, 1)):
        rows = rows_of(-0.1 * alpha, seed=seed + int(10 * alpha))
        if (alpha, seed) == (0.5, 1):
            rows = [{**row, "rank_distance": None} for row in rows]
        runs.append(write_run(tmp_path / f"{alpha}-{seed}", alpha, seed, rows))
    found = compare(runs, method=QUICK)
    assert {e.score.metric for e in found.estimates} == {"map"}
    assert all(np.isfinite(e.value) for e in found.estimates)
