"""`hbtrain compare`: compares the scores of runs, with tests of significance."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Literal

from cyclopts import Parameter

from hbtrain.cli.outputs import output_place, said_aside, written
from hbtrain.reporting.console import TextConsole

if TYPE_CHECKING:
    from hbtrain.comparison.result import Comparison
    from hbtrain.storage import Place


def compare(
    *runs: str,
    output: str | None = None,
    baseline: str | None = None,
    metric: str | None = None,
    benchmarks: Annotated[list[str] | None, Parameter(consume_multiple=True)] = None,
    names: Annotated[list[str] | None, Parameter(consume_multiple=True)] = None,
    group_by: Annotated[list[str] | None, Parameter(consume_multiple=True)] = None,
    paper: bool = False,
    published: bool = False,
    tracking_uri: str | None = None,
    data: Annotated[list[str] | None, Parameter(consume_multiple=True)] = None,
    candidates: Literal["sentence", "sentence+context"] = "sentence",
    log_to: str | None = None,
    seed: int = 0,
) -> None:
    """Compare runs: who is better in which setting, and whether that is more than luck with the questions.

    Parameters
    ----------
    runs
        Folders that `hbtrain evaluate --output` wrote, folders of runs or sweeps, ids of MLflow runs or of a sweep's
        (the beginning is enough), folders of TREC run files of other systems. A folder may be an s3:// URI. Runs that
        differ in their seed only are one row.
    output
        Folder or s3:// URI for the report (HTML), tables (Markdown, CSV, JSON) and pictures.
    baseline
        The row that the others are compared with: its label or one of RUNS; by default the first row.
    metric
        Metric, such as map, ndcg@10 or recall@10; by default map where there is one. Rank distance is always shown.
    benchmarks
        Only these benchmarks.
    names
        Labels of the rows, in the order in which RUNS names them.
    group_by
        Dotted keys: runs with equal values are one row; `run` sets every run apart.
    paper
        Put the figures of arXiv 2408.10536 beside these, where they are on the same questions.
    published
        Put those of other published systems beside these as well, such as BM25 and mDPR on MIRACL.
    tracking_uri
        MLflow tracking URI; by default $MLFLOW_TRACKING_URI, or SQLite in the folder runs.
    data
        For folders of TREC run files: their benchmarks, by name (xquad-r) or as FORM=PATH.
    candidates
        What a candidate of these benchmarks is, as in `hbtrain evaluate`.
    log_to
        Id of an MLflow run to which the report, tables and pictures are added as artifacts.
    seed
        Seed of the permutation tests and of resampling.
    """
    from hbtrain.comparison.compare import compare as run
    from hbtrain.comparison.estimates import Method
    from hbtrain.comparison.save import log_comparison, save_comparison

    to = None if output is None else output_place(output)
    comparison = run(
        runs,
        baseline=baseline,
        metric=metric,
        benchmarks=benchmarks,
        names=names,
        group_by=group_by,
        paper=paper,
        published=published,
        tracking_uri=tracking_uri,
        data=data or (),
        notify=said_aside,
        candidates=candidates,
        method=Method(seed=seed),
    )
    if to is not None:
        with written(to) as folder:
            save_comparison(comparison, folder)
    if log_to is not None:
        log_comparison(comparison, log_to, tracking_uri)
    _show(TextConsole(), comparison, to, log_to)


def _show(console: TextConsole, comparison: Comparison, to: Place | None, log_to: str | None) -> None:
    """Print the tables, in a terminal those that fit it, and where the report is: in `to`, and the run `log_to`."""
    from hbtrain.comparison.tables import language_tables, legend, main_tables
    from hbtrain.reporting.table import terminal

    hidden = 0
    for table in map(terminal, [*main_tables(comparison), *language_tables(comparison)]):
        if console.is_terminal and console.narrowest(table) > console.width:
            hidden += 1
        else:
            console.print(table)
    if hidden:
        hint = "; --output FOLDER writes them" if to is None else ""
        console.print(f"{hidden} tables are wider than this terminal{hint}", style="yellow")
    console.print(legend(comparison), style="dim")
    if comparison.curves.note:
        console.print(comparison.curves.note, style="dim", soft_wrap=True)
    for note in comparison.notes:
        console.print(f"note: {note}", style="yellow", soft_wrap=True)
    if to is not None:
        console.print(f"\nreport  {to / 'report.html'}", soft_wrap=True)
    if log_to is not None:
        console.print(f"MLflow  run {log_to}, artifacts comparison/", soft_wrap=True)
