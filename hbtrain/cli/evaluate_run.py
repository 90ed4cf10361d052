"""`hbtrain evaluate-run`: evaluates TREC run files of any system, with the same results as `hbtrain evaluate`."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Annotated

from hbtrain.cli.benchmark_flags import AS_THEY_ARE, WHOLE, Benchmarked, Judged, Many
from hbtrain.cli.outputs import output_place, written
from hbtrain.reporting.console import TextConsole


def evaluate_run(
    runs: Path,
    *,
    benchmark: str,
    output: str,
    benchmarked: Benchmarked = WHOLE,
    trained_languages: Annotated[list[str] | None, Many] = None,
    name: str | None = None,
    judged: Judged = AS_THEY_ARE,
) -> None:
    """Evaluate TREC run files of any system on a benchmark; `hbtrain compare` takes the folder that comes out.

    Parameters
    ----------
    runs
        A folder with SETTING/LANGUAGE.trec.gz, such as multi/de.trec.gz; ids are those of the benchmark, as they
        stand there or as the run files of `hbtrain evaluate` have them.
    benchmark
        The benchmark, as in `hbtrain evaluate`, such as xquad-r or xquad-r=PATH.
    output
        Folder or s3:// URI for metrics.json, scores.csv, per_query.parquet, about.json and heat maps.
    trained_languages
        Languages the system was trained on, to tell languages seen and unseen apart.
    name
        Name of the system in tables; by default the folder.
    """
    from hbtrain.evaluation.judged import Judging
    from hbtrain.evaluation.results import save_evaluation
    from hbtrain.evaluation.tables import evaluation_table, language_table
    from hbtrain.evaluation.trec_evaluation import evaluate_trec_runs, find_trec_runs

    to = output_place(output)
    files = find_trec_runs(runs)
    [loaded] = benchmarked.load([benchmark], judging=Judging(**asdict(judged)))
    evaluation = evaluate_trec_runs(loaded, files, trained_languages)
    with written(to) as folder:
        save_evaluation([evaluation], folder, name or str(runs))
    console = TextConsole()
    for note in evaluation.notes:
        console.print(f"note: {note}", soft_wrap=True)
    console.print(evaluation_table(evaluation))
    if (bias := language_table(evaluation)) is not None:
        console.print(bias)
    console.print(f"\nmAP and MRR know no more than the runs: {evaluation.search['search']}", soft_wrap=True)
    console.print(f"results  {to}", soft_wrap=True)
