"""`hbtrain evaluate`: any model on benchmarks."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from cyclopts import Parameter
from rich.console import Console

from hbtrain.commands.evaluate_index import EXACT, Index
from hbtrain.commands.models import quiet, trusts
from hbtrain.commands.outputs import output_place, written
from hbtrain.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from hbtrain.evaluation.summary import Evaluation
    from hbtrain.modeling.encoder import Encoder
    from hbtrain.storage import Place


def evaluate(
    model: str,
    *,
    benchmark: Annotated[list[str], Parameter(consume_multiple=True)],
    output: str,
    data: str | None = None,
    candidates: Literal["sentence", "sentence+context"] = "sentence",
    languages: Annotated[list[str] | None, Parameter(consume_multiple=True)] = None,
    trained_languages: Annotated[list[str] | None, Parameter(consume_multiple=True)] = None,
    in_domain: str | None = None,
    query_prompt: str | None = None,
    passage_prompt: str | None = None,
    batch_size: int = 128,
    searched: Index = EXACT,
    run_depth: int = 10,
    trust_remote_code: str | None = None,
) -> None:
    """Evaluate any sentence-transformers or Hugging Face model, on one benchmark or several.

    Parameters
    ----------
    model
        A folder, an s3:// URI or a hub name.
    benchmark
        demo; or NAME=PATH with xquad-r, mlqa-r, lareqa (any folder of that form), squad (SQuAD files by language),
        miracl, mr-tydi, tatoeba, beir (a folder per language), parallel (a parallel JSON-lines file). PATH may be an
        s3:// URI.
    output
        Folder or s3:// URI for metrics.json, scores.csv, per_query.parquet, about.json, heat maps and runs.
    data
        The folder or file of the one benchmark, in place of NAME=PATH.
    candidates
        What a candidate of xquad-r, mlqa-r and lareqa is: a sentence, or a sentence with its paragraph.
    languages
        Only these languages.
    trained_languages
        What the model was trained on, to tell languages seen and unseen apart; models of hbtrain say it themselves.
    in_domain
        The benchmark, or a domain of one as BENCHMARK@DOMAIN, that MRR on the others is compared with.
    query_prompt
        Put before every query, in place of the model's own prompt.
    passage_prompt
        Put before every passage, in place of the model's own prompt.
    batch_size
        Texts encoded at one time.
    run_depth
        Passages of a query in the run files (TREC format, OUTPUT/runs); 0: no run files.
    trust_remote_code
        MODEL again, if Python code that it brings along may run.
    """
    from hbtrain.evaluation.benchmark import load_benchmarks
    from hbtrain.modeling.backbone import find_backbone

    trusted = trusts(model, trust_remote_code)
    if batch_size < 1:
        raise ConfigError(f"--batch-size {batch_size}: must be 1 or more")
    if run_depth < 0:
        raise ConfigError(f"--run-depth {run_depth}: must be 0 or more")
    names = _with_data(benchmark, data)
    _check_candidates(names, candidates)
    options = searched.search(batch_size)
    to = output_place(output)
    here = find_backbone(model).name
    benchmarks = load_benchmarks(names, languages, candidates, in_domain=in_domain)
    from hbtrain.evaluation.evaluate import evaluate as run
    from hbtrain.evaluation.results import save_evaluation
    from hbtrain.evaluation.runs import RunWriter
    from hbtrain.evaluation.search_ranker import rankers
    from hbtrain.modeling.card import trained_languages as languages_of

    encoder = _encoder(model, trusted, query_prompt, passage_prompt)
    known = trained_languages or languages_of(Path(here))
    ranker = rankers(searched.index, options, searched.depth, run_depth)
    with written(to) as folder:
        runs = RunWriter(folder / "runs", model, run_depth) if run_depth else None
        evaluations = [
            run(encoder, one, batch_size, ranker=ranker(), trained_languages=known, runs=runs) for one in benchmarks
        ]
        save_evaluation(evaluations, folder, model, prompts=encoder.prefixes, in_domain=in_domain)
    _show(evaluations, in_domain, to)


def _check_candidates(benchmarks: Sequence[str], candidates: str) -> None:
    from hbtrain.evaluation.benchmark import has_sentences, parse_benchmark

    if candidates != "sentence" and not any(has_sentences(parse_benchmark(name)) for name in benchmarks):
        raise ConfigError(f"--candidates {candidates}: only xquad-r, mlqa-r and lareqa have sentences; leave it out")


def _encoder(model: str, trusted: bool, query_prompt: str | None, passage_prompt: str | None) -> Encoder:
    from hbtrain.modeling.encoder import Encoder

    quiet()
    encoder = Encoder.load(model, trust_remote_code=trusted)
    if query_prompt is not None:
        encoder.prefixes["query"] = query_prompt
    if passage_prompt is not None:
        encoder.prefixes["passage"] = passage_prompt
    return encoder


def _with_data(benchmarks: list[str], data: str | None) -> list[str]:
    if data is None:
        return benchmarks
    if len(benchmarks) > 1 or "=" in benchmarks[0]:
        raise ConfigError(f"--data {data} is for one benchmark without a path; write NAME=PATH for {benchmarks[-1]}")
    return [f"{benchmarks[0]}={data}"]


def _show(evaluations: Sequence[Evaluation], in_domain: str | None, output: Place) -> None:
    from hbtrain.evaluation.out_of_domain import domain_scores
    from hbtrain.evaluation.tables import domain_table, evaluation_table

    console = Console()
    for evaluation in evaluations:
        console.print(evaluation_table(evaluation))
    scores = domain_scores(evaluations, in_domain)
    if in_domain is not None or any("@" in score.name for score in scores):
        console.print(domain_table(scores, in_domain))
    console.print(f"\nresults  {output}", highlight=False, soft_wrap=True)
