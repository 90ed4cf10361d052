from dataclasses import replace

import numpy as np
import pytest
from rich.console import Console

from hbtrain.errors import DataError
from hbtrain.evaluation.benchmark import Benchmark
from hbtrain.evaluation.evaluate import evaluate
from hbtrain.evaluation.out_of_domain import check_in_domain, domain_metrics, domain_scores
from hbtrain.evaluation.tables import domain_table
from tests.unit.evaluation_samples import HashEncoder, only, random_benchmark


def tagged(name="mixed", domains=("news", "law/eu", None)):
    collection = only(random_benchmark(questions=20, seed=5))
    tags = [domains[int(question[1:]) % len(domains)] for question in collection.question_ids]
    return Benchmark.of(name, "sentence", replace(collection, domains=tags))


@pytest.fixture(scope="module")
def evaluations():
    other = replace(random_benchmark(("en", "th", "zh"), seed=3), name="other")
    return [evaluate(HashEncoder(), benchmark) for benchmark in (tagged(), other)]


def macro(evaluation, setting, kept):
    """MRR of the rows kept, over queries, then over cells."""
    cells = {}
    for row in evaluation.per_query.to_pylist():
        if row["setting"] == setting and kept(row):
            cells.setdefault((row["query_language"], row["passage_language"]), []).append(row["mrr"])
    return np.mean([np.mean(values) for values in cells.values()])


def test_domains_and_benchmarks_are_scored_in_every_setting(evaluations):
    scores = {(s.setting, s.name): s for s in domain_scores(evaluations)}
    names = ["mixed", "mixed@law-eu", "mixed@news", "other"]
    assert list(scores) == [(setting, name) for setting in ("mono", "cross", "multi") for name in names]
    mixed, other = evaluations
    for setting in ("mono", "cross", "multi"):
        news = macro(mixed, setting, lambda row: row["domain"] == "news")
        assert scores[setting, "mixed@news"].mrr == pytest.approx(news)
        assert scores[setting, "mixed"].mrr == pytest.approx(mixed.metrics[f"mixed/{setting}/mrr"])
        assert scores[setting, "other"].mrr == pytest.approx(other.metrics[f"other/{setting}/mrr"])
    assert all(score.drop is None for score in scores.values())
    assert scores["multi", "mixed@news"].queries == sum(
        row["setting"] == "multi" and row["domain"] == "news" for row in mixed.per_query.to_pylist()
    )


def test_the_drop_is_over_the_languages_that_both_have(evaluations):
    mixed, other = evaluations
    scores = {(s.setting, s.name): s for s in domain_scores(evaluations, "mixed@news")}

    def news(setting, languages):
        return macro(mixed, setting, lambda row: row["domain"] == "news" and languages(row))

    def both(row):
        return {row["query_language"], row["passage_language"]} <= {"en", "th", "all"}

    assert scores["mono", "mixed@news"].drop is None
    for setting in ("mono", "cross", "multi"):
        assert scores[setting, "other"].drop == pytest.approx(news(setting, both) - macro(other, setting, both))
        law = macro(mixed, setting, lambda row: row["domain"] == "law/eu")
        assert scores[setting, "mixed@law-eu"].drop == pytest.approx(news(setting, lambda _: True) - law)
    metrics = domain_metrics(list(scores.values()))
    assert metrics["other/mono/mrr_drop"] == scores["mono", "other"].drop
    assert metrics["mixed@law-eu/multi/mrr"] == scores["multi", "mixed@law-eu"].mrr
    assert "mixed@news/mono/mrr_drop" not in metrics
    assert "other/mono/mrr" not in metrics


def test_benchmarks_without_a_common_language_have_no_drop(evaluations):
    far = evaluate(HashEncoder(), replace(random_benchmark(("zh",)), name="far"))
    scores = {s.name: s for s in domain_scores([evaluations[0], far], "mixed") if s.setting == "mono"}
    assert scores["far"].drop is None
    assert domain_metrics([scores["far"]]) == {}


def test_an_in_domain_benchmark_that_is_not_there(evaluations):
    with pytest.raises(DataError, match="'nwes' is not evaluated; there are mixed, mixed@law-eu, mixed@news, other"):
        domain_scores(evaluations, "nwes")
    check_in_domain("mixed@news", [tagged()])
    check_in_domain("mixed", [tagged()])
    with pytest.raises(DataError, match="there are mixed, mixed@law-eu, mixed@news"):
        check_in_domain("mixed@sports", [tagged()])


def test_the_table_shows_the_drop(evaluations):
    scores = domain_scores(evaluations, "mixed")
    console = Console(width=80, record=True, file=open("/dev/null", "w"))  # noqa: SIM115, PTH123
    console.print(domain_table(scores, "mixed"))
    text = console.export_text()
    rows = [[cell.strip() for cell in line.split("│")[1:-1]] for line in text.splitlines() if line.startswith("│")]
    assert rows[0][:2] == ["mono", "mixed"]
    assert rows[0][4] == "in-domain"
    assert rows[3] == [
        "mono",
        "other",
        f"{scores[3].queries}",
        f"{scores[3].mrr:.3f}",
        f"{scores[3].drop:+.3f}",
        f"{scores[3].drop / (scores[3].mrr + scores[3].drop):+.0%}",
    ]


def test_domains_whose_names_would_be_one_are_told_apart():
    evaluation = evaluate(HashEncoder(), tagged(domains=("C#", "C+", "C-")))
    scores = {score.name: score.mrr for score in domain_scores([evaluation]) if score.setting == "mono"}
    assert list(scores) == ["mixed", "mixed@C-", "mixed@C-2", "mixed@C-3"]
    for name, domain in (("mixed@C-", "C#"), ("mixed@C-2", "C+"), ("mixed@C-3", "C-")):
        assert scores[name] == pytest.approx(macro(evaluation, "mono", lambda row, own=domain: row["domain"] == own))
    check_in_domain("mixed@C-3", [tagged(domains=("C#", "C+", "C-"))])
