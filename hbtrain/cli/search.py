"""`hbtrain search`: finds the best passages for a question."""

from __future__ import annotations

from typing import Annotated, Literal

from cyclopts import Parameter
from rich.table import Table

from hbtrain.cli.outputs import quiet, trusts
from hbtrain.errors import ConfigError
from hbtrain.reporting.console import TextConsole


def search(
    model: str,
    question: str,
    *,
    data: Annotated[list[str] | None, Parameter(consume_multiple=True)] = None,
    top: int = 10,
    precision: Literal["fp32", "bf16"] | None = None,
    trust_remote_code: str | None = None,
) -> None:
    """Ask a question in any language and see the best passages across languages.

    Parameters
    ----------
    model
        A folder or a hub name.
    question
        The question, in any language.
    data
        Parallel JSON-lines files; by default the demo corpus.
    top
        How many passages to show.
    precision
        Of the transformer; by default bf16 on GPUs that have it, else as the model's files say.
    trust_remote_code
        MODEL again, if Python code that it brings along may run.
    """
    from hbtrain.modeling.backbone import find_backbone

    if top < 1:
        raise ConfigError(f"--top {top}: must be 1 or more")
    trusted = trusts(model, trust_remote_code)
    find_backbone(model, "MODEL")
    from hbtrain.retrieval.passage_index import Searcher

    quiet()
    hits = Searcher(model, data, precision=precision, trust_remote_code=trusted).search(question, top)
    table = Table(title=question, caption=hits.searched)
    for column, justify in (("#", "right"), ("score", "right"), ("", "left"), ("passage", "left")):
        table.add_column(column, justify=justify, overflow="fold")  # type: ignore[arg-type]
    for rank, hit in enumerate(hits, 1):
        table.add_row(str(rank), f"{hit.score:.3f}", hit.passage.language, hit.passage.text)
    TextConsole().print(table)
