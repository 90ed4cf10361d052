"""How scores are written, and tables in Markdown and in a terminal."""

import pytest
from rich.console import Console

from hbtrain.reporting.metric_names import metric_title, score_title, shown, shown_difference
from hbtrain.reporting.table import Cell, Row, Table, facts, markdown, table_of, terminal


def printed(table, width=80):
    console = Console(width=width, record=True, file=open("/dev/null", "w"))  # noqa: SIM115, PTH123
    console.print(table)
    return console.export_text()


@pytest.mark.parametrize(
    ("value", "metric", "text", "difference"),
    [
        (0.12345, "map", "0.123", "+0.123"),
        (-0.0001, "ndcg@10", "-0.000", "+0.000"),
        (-0.25, "recall@10", "-0.250", "-0.250"),
        (1234.56, "rank_distance", "1,234.6", "+1,234.6"),
        (-0.04, "rank_distance", "-0.0", "+0.0"),
        (12.0, "worst_rank", "12.0", "+12.0"),
    ],
)
def test_a_metric_is_written_in_one_way(value, metric, text, difference):
    assert (shown(value, metric), shown_difference(value, metric)) == (text, difference)


def test_titles():
    assert [metric_title(x) for x in ("map", "recall@100", "ndcg@10", "mrr", "mrr@10", "own_language@10")] == [
        "mAP", "R@100", "nDCG@10", "MRR", "MRR@10", "own_language@10",
    ]  # fmt: skip
    assert score_title("map", "cross") == "mAP cross-lingual"
    assert score_title("rank_distance", "multi") == "rank distance"


def test_markdown_takes_no_text_for_its_own():
    rows = [("a|b", "*c*", "1"), ("snake_case", "_x_", "2")]
    lines = markdown(table_of("", ("<head>", "|", "n"), rows, note="2 < 3", labels=2)).splitlines()
    assert lines == [
        r"| \<head> | \| | n |",
        "| --- | --- | ---: |",
        r"| a\|b | \*c\* | 1 |",
        r"| snake_case | \_x\_ | 2 |",
        "",
        r"2 \< 3",
    ]


def test_markdown_shows_what_is_best_marked_and_below():
    cells = (Cell("0.5 ± 0.1", "0.4 to 0.6\np = 0.010", "▲", 0.5, best=True), Cell("–"))
    lines = markdown(Table("k", "t", ("", "x", "y"), (Row("one", cells), Row("other", cells[::-1], "paper")))).split(
        "\n"
    )
    assert lines[2:] == [
        "| one | **0.5 ± 0.1** ▲<br>0.4 to 0.6<br>p = 0.010 | – |",
        "| *other* | – | **0.5 ± 0.1** ▲<br>0.4 to 0.6<br>p = 0.010 |",
    ]


@pytest.mark.parametrize("grid", [False, True])
def test_a_terminal_breaks_no_number_however_narrow(grid):
    rows = tuple(
        Row(
            "a label that is much too long to stand in one line beside its numbers",
            (Cell("1,234.5"), Cell("[red]0.123")),
        )
        for _ in range(2)
    )
    text = printed(terminal(Table("k", "[b]title", ("", "rank\ndistance", "mAP"), rows, "a note", grid=grid)), 56)
    assert text.count("1,234.5") == text.count("[red]0.123") == 2, "markup is text"
    assert "a note" in text


def test_facts_may_hold_markup():
    assert printed(facts([("verdict", "[green]right[/green]")], "A step")).split() == ["A", "step", "verdict", "right"]
