"""How scores are written, and tables in Markdown and in a terminal."""

import io

import numpy as np
import pytest
import rich.table
from rich.text import Text

from hbtrain.reporting.console import TextConsole, replace_unencodable
from hbtrain.reporting.figures import draw_map, new_figure
from hbtrain.reporting.metric_names import metric_title, score_title, shown, shown_difference
from hbtrain.reporting.table import Cell, Row, Table, facts, markdown, markdown_text, table_of, terminal


def printed(table, width=80):
    console = TextConsole(width=width, record=True, file=open("/dev/null", "w"))  # noqa: SIM115, PTH123
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


def test_markdown_text_is_one_line_without_links_pictures_and_entities():
    assert markdown_text("[a](b) ![c][d]\ne\r\n&lt; ~~f~~ `g` <h>") == (
        r"\[a\](b) !\[c\]\[d\] e \&lt; \~\~f\~\~ \`g\` \<h>"
    )
    detail = markdown(Table("k", "t", ("a",), (Row("x|y", (Cell("1", "[2|3]"),)),)))
    assert detail.endswith(r"| x\|y | 1<br>\[2\|3\] |")


@pytest.mark.parametrize("name", ["costs $5 and $x_1^{", "$\\frac", "_hidden", "a\nb", "[old] {v}"])
def test_a_picture_shows_a_name_as_it_is(name, tmp_path):
    figure = new_figure(3, 2)
    axes = figure.subplots()
    draw_map(axes, np.array([[0.5]]), ([name], [name]), None)
    axes.set_title(name)
    figure.savefig(tmp_path / "map.png")
    assert not axes.title.get_parse_math()


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


def test_facts_hold_texts_and_styled_texts():
    rows = [("[name]", "[/b] :rocket: 100%"), ("verdict", Text("right", "green"))]
    assert " ".join(printed(facts(rows, "A [step]")).split()) == "A [step] [name] [/b] :rocket: 100% verdict right"


def test_a_console_prints_texts_as_they_are():
    out = io.StringIO()
    console = TextConsole(file=out, width=100, force_terminal=True, color_system=None)
    console.print("[red]x[/] [/closed] :smile: \x1b[31m\r\x9b2J 12")
    table = rich.table.Table("[head]", title="what is [/this]?")
    table.add_row("[/b] [link=x]y[/link]")
    console.print(table)
    console.print(terminal(table_of("[t]\x1b", ("[a]",), [("[/b]\x07",)])))
    printed = out.getvalue()
    assert printed.startswith("[red]x[/] [/closed] :smile: \\x1b[31m\\x0d\\x9b2J 12\n")
    for text in ("[head]", "what is [/this]?", "[/b] [link=x]y[/link]", "[t]\\x1b", "[a]", "[/b]\\x07"):
        assert text in printed
    assert "\x1b" not in printed


@pytest.mark.parametrize("encoding", ["ascii", "latin-1", "cp1252"])
def test_a_stream_shows_what_its_encoding_has(monkeypatch, encoding):
    stream = io.TextIOWrapper(io.BytesIO(), encoding=encoding)
    monkeypatch.setattr("sys.stdout", stream)
    replace_unencodable()
    TextConsole(width=40).print(terminal(table_of("Donau → Дунай", ("Ö",), [("▲ ナイル",)])))
    stream.flush()
    assert stream.buffer.getvalue().decode(encoding).split()[:3] == ["Donau", "?", "?????"]
