"""The command line. It parses, calls and prints; what it calls is public in the package."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

from cyclopts import App, Parameter
from rich.console import Console
from rich.table import Table

import hbtrain
from hbtrain.errors import ConfigError, HbtrainError

app = App(
    name="hbtrain",
    help="Train multilingual retrievers on hybrid batches, and evaluate them in three settings.",
    version=hbtrain.__version__,
    help_format="plaintext",
    suppress_keyboard_interrupt=False,  # `main` has something to say
)


@app.command
def train(recipe: str, *overrides: Annotated[str, Parameter(allow_leading_hyphen=True)]) -> None:
    """Train and evaluate: `hbtrain train quickstart --batching.alpha 0.3`.

    Parameters
    ----------
    recipe
        A shipped recipe's name (see `hbtrain recipes`) or a YAML file.
    overrides
        Any key of the configuration as a flag: --batching.alpha 0.3 --data.sources a.jsonl.gz b.jsonl.gz
        (see `hbtrain keys`).
    """
    from hbtrain.config import load_config
    from hbtrain.config.flags import parse_flags

    config = load_config(recipe, parse_flags(overrides))
    from hbtrain.console import RunDisplay, show_outcome
    from hbtrain.launch import train as run

    console = Console()
    with RunDisplay(console, config.training.steps) as display:
        outcome = run(config, display)
    show_outcome(console, outcome)


@app.command
def verify(recipe: str, *overrides: Annotated[str, Parameter(allow_leading_hyphen=True)], step: int = 0) -> None:
    """Check that the gradient is right, on your own setup: `hbtrain verify my-recipe.yaml --step 3`.

    One step's gradient by the recipe's workers, ZeRO stage, chunks and precision is compared with that of one plain
    process over the same batch. Exit code 0 if they agree, 1 if not. The plain process holds the whole batch at once:
    take a smaller --batching.global_batch_size where its memory does not suffice.

    Parameters
    ----------
    recipe
        A shipped recipe's name or a YAML file.
    overrides
        Any key of the configuration as a flag.
    step
        Whose batch.
    """
    from hbtrain.config import load_config
    from hbtrain.config.flags import parse_flags

    config = load_config(recipe, parse_flags(overrides))
    if not 0 <= step < config.training.steps:
        raise ConfigError(f"--step {step}: the run has the steps 0 to {config.training.steps - 1}")
    from hbtrain.console import RunDisplay, show_agreement
    from hbtrain.launch import verify as run

    console = Console()
    with RunDisplay(console, 1) as display:
        agreement = run(config, step, display)
    show_agreement(console, config, agreement)
    if not agreement.holds:
        sys.exit(1)


@app.command
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

    trusted = _trusts(model, trust_remote_code)
    find_backbone(model)
    pool = load_benchmark(parse_benchmark(benchmark if data is None else f"{benchmark}={data}"), languages)
    from hbtrain.evaluation.evaluate import evaluate as run
    from hbtrain.evaluation.results import save_evaluation
    from hbtrain.evaluation.tables import evaluation_table
    from hbtrain.modeling.encoder import Encoder

    _quiet()
    evaluation = run(Encoder.load(model, trust_remote_code=trusted), pool, batch_size)
    save_evaluation([evaluation], output, model)
    console = Console()
    console.print(evaluation_table(evaluation))
    console.print(f"\nresults  {output}", highlight=False, soft_wrap=True)


@app.command
def search(
    model: str,
    question: str,
    *,
    data: Annotated[list[str] | None, Parameter(consume_multiple=True)] = None,
    top: int = 10,
    trust_remote_code: str | None = None,
) -> None:
    """Ask a question in any language and see the best passages across languages.

    Parameters
    ----------
    model
        A folder or a hub name.
    question
        The question.
    data
        Parallel JSON-lines files; by default the demo corpus.
    top
        How many passages.
    trust_remote_code
        MODEL again, if Python code that it brings along may run.
    """
    from hbtrain.corpus import ParallelCorpus
    from hbtrain.modeling.backbone import find_backbone

    if top < 1:
        raise ConfigError(f"--top {top}: must be 1 or more")
    trusted = _trusts(model, trust_remote_code)
    find_backbone(model)
    corpus = ParallelCorpus.open(data or ["demo", "demo-heldout"])
    from hbtrain.modeling.encoder import Encoder
    from hbtrain.retrieval.search import PassageIndex

    _quiet()
    index = PassageIndex(Encoder.load(model, trust_remote_code=trusted), corpus)
    table = Table(title=question, caption=f"of {len(index):,} passages in {', '.join(corpus.languages)}")
    for column, justify in (("#", "right"), ("score", "right"), ("", "left"), ("passage", "left")):
        table.add_column(column, justify=justify, overflow="fold")  # type: ignore[arg-type]
    for rank, hit in enumerate(index.search(question, top), 1):
        table.add_row(str(rank), f"{hit.score:.3f}", hit.passage.language, hit.passage.text)
    Console().print(table)


app.command(
    "hbtrain.commands.mine:mine", help="Find hard negatives for the rows of parallel sources with an earlier model."
)


@app.command
def recipes() -> None:
    """List the recipes that ship with hbtrain."""
    from hbtrain.config import recipe_names, recipe_summary

    table = Table(box=None, show_header=False)
    for name in recipe_names():
        table.add_row(f"[bold]{name}[/bold]", recipe_summary(name))
    Console().print(table)


@app.command
def keys() -> None:
    """List every key of the configuration with its default."""
    from hbtrain.config import Config, to_flat
    from hbtrain.config.keys import all_keys

    defaults = to_flat(Config())
    for key in all_keys():
        Console().print(f"{key} = {defaults.get(key)}", highlight=False, markup=False, soft_wrap=True)


def _trusts(model: str, named: str | None) -> bool:
    """Whether code that `model` brings along may run: if it is named a second time."""
    from hbtrain.errors import ConfigError

    if named not in (None, model):
        raise ConfigError(f"--trust-remote-code {named}: must be the model, {model}, or be left out")
    return named is not None


def _quiet() -> None:
    """Keep the progress bars of model loading out of the output."""
    from transformers.utils import logging

    logging.disable_progress_bar()


def main(program: App = app) -> None:
    """Entry point: an error that the user can mend is one line, never a traceback."""
    try:
        program(sys.argv[1:])
    except HbtrainError as error:
        Console(stderr=True).print(f"error: {error}", style="red", highlight=False, markup=False, soft_wrap=True)
        sys.exit(error.exit_code)
    except KeyboardInterrupt:
        Console(stderr=True).print("interrupted; the same command goes on from the last checkpoint", style="yellow")
        sys.exit(130)


if __name__ == "__main__":
    main()
