"""`hbtrain evaluate`: any model on a benchmark."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from cyclopts import Parameter
from rich.console import Console

from hbtrain.commands.models import quiet, trusts


def evaluate(
    model: str,
    *,
    benchmark: str,
    output: Path,
    data: Path | None = None,
    languages: Annotated[list[str] | None, Parameter(consume_multiple=True)] = None,
    batch_size: int = 128,
    trust_remote_code: str | None = None,
) -> None:
    """Evaluate any sentence-transformers or Hugging Face model in three settings.

    Parameters
    ----------
    model
        A folder or a hub name.
    benchmark
        demo, xquad-r, mlqa-r, lareqa (any folder of that form) or parallel (a parallel JSON-lines file).
    output
        Folder for metrics.json, per_query.parquet and the heat map.
    data
        The benchmark's folder or file; demo needs none.
    languages
        Only these languages.
    batch_size
        Texts encoded at one time.
    trust_remote_code
        MODEL again, if Python code that it brings along may run.
    """
    from hbtrain.evaluation.benchmark import load_benchmark, parse_benchmark
    from hbtrain.modeling.backbone import find_backbone

    trusted = trusts(model, trust_remote_code)
    find_backbone(model)
    pool = load_benchmark(parse_benchmark(benchmark if data is None else f"{benchmark}={data}"), languages)
    from hbtrain.evaluation.evaluate import evaluate as run
    from hbtrain.evaluation.results import save_evaluation
    from hbtrain.evaluation.tables import evaluation_table
    from hbtrain.modeling.encoder import Encoder

    quiet()
    evaluation = run(Encoder.load(model, trust_remote_code=trusted), pool, batch_size)
    save_evaluation([evaluation], output, model)
    console = Console()
    console.print(evaluation_table(evaluation))
    console.print(f"\nresults  {output}", highlight=False, soft_wrap=True)
